// Package worker moves one partition of the queue into the database: it fills a batch from frames, flushes it in one
// transaction with the new offset, and halves it when the database refuses part of it.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Claim is the ownership of a partition in the database. After an error it is closed and a new one made.
type Claim interface {
	Offset() (seq, events uint64)
	OpenAlerts(ctx context.Context) ([]alert.Open, error)
	Latest(ctx context.Context, row func(device uuid.UUID, keys []string, at telemetry.Micros)) error
	Begin(ctx context.Context, events []telemetry.Event) (Tx, error)
	Forget()
	Close()
}

// Tx is one transaction: all its writes and the new offset, or nothing.
type Tx interface {
	Write(ctx context.Context, events []telemetry.Event) error // a *telemetry.RejectedError stores none and lets the Tx go on
	DeadLetter(ctx context.Context, seq uint64, index int, e *telemetry.Event, why *telemetry.RejectedError) error
	DeadFrame(ctx context.Context, seq uint64, data []byte, why *telemetry.RejectedError) error
	Alerts(ctx context.Context, transitions []alert.Transition) error
	Commit(ctx context.Context, seq, events uint64) error // the new offset, and how many events there are up to it
}

// Reader reads frames in order. Next waits until ctx ends, which loses no frame.
type Reader interface {
	Next(ctx context.Context) (seq uint64, data []byte, more bool, err error)
	Close()
}

// Metrics of one or more workers.
type Metrics struct {
	Stored, Dead, Gaps prometheus.Counter     // events, events, frames
	Letters            *prometheus.CounterVec // dead letters, events or frames, by reason
	Commit             prometheus.Observer    // seconds of a flush
	Latency            prometheus.Observer    // seconds from a frame's receipt to its commit
	Failures           prometheus.Counter
}

// Worker owns one partition while it runs. Its fields are set before Run.
type Worker struct {
	Partition  int
	Partitions int
	Claim      func(ctx context.Context) (Claim, error) // waits for the ownership
	Read       func(ctx context.Context, after uint64) (Reader, error)
	Registry   func() *registry.Snapshot
	Metrics    *Metrics
	Log        *slog.Logger

	seq, events, taken, missing atomic.Uint64
	failing                     atomic.Pointer[error]
}

// A batch is flushed when the queue has no more frames at hand, but not sooner than pace after the flush before, so that
// a busy worker spares the database small transactions; and at the latest at the other marks.
const (
	pace      = 200 * time.Millisecond
	maxEvents = 20_000
	maxBytes  = 4 << 20
	maxAge    = 300 * time.Millisecond
)

// Stored returns the offset: the last stored frame, and how many events were stored up to it.
func (w *Worker) Stored() (seq, events uint64) { return w.seq.Load(), w.events.Load() }

// Taken returns how many events were taken from the queue, stored or about to be.
func (w *Worker) Taken() uint64 { return w.taken.Load() }

// Missing returns how many frames should have been in the queue and were not, since the start.
func (w *Worker) Missing() uint64 { return w.missing.Load() }

// Err returns why the worker stores nothing just now, or nil.
func (w *Worker) Err() error {
	if err := w.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// Run claims the partition and stores its frames until ctx ends. When the database fails it begins again from the offset
// that the database has, at growing intervals; nothing is dropped.
func (w *Worker) Run(ctx context.Context) error {
	const shortest, longest = 200 * time.Millisecond, 5 * time.Second
	pause := shortest
	for {
		err := w.own(ctx, func() { pause = shortest })
		if ctx.Err() != nil {
			return nil
		}
		w.Metrics.Failures.Inc()
		if w.failing.Swap(&err) == nil {
			w.Log.Error("worker cannot store, will go on trying", "partition", w.Partition, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longest)
	}
}

// own stores frames while it owns the partition. It returns on the first error.
func (w *Worker) own(ctx context.Context, progress func()) error {
	claim, err := w.Claim(ctx)
	if err != nil {
		return err
	}
	defer claim.Close()
	seq, events := claim.Offset()
	w.seq.Store(seq)
	w.events.Store(events)
	w.taken.Store(events)
	f := filling{w: w, claim: claim, seq: seq, events: events, progress: func() {
		progress()
		if w.failing.Swap(nil) != nil {
			w.Log.Info("worker stores again", "partition", w.Partition)
		}
	}}
	if err := f.startAlerts(ctx); err != nil {
		return err
	}
	reader, err := w.Read(ctx, seq)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		if err := f.next(ctx, reader); err != nil {
			return err
		}
	}
}

// filling is a batch on its way, and what it needs from flush to flush.
type filling struct {
	w        *Worker
	claim    Claim
	progress func()
	snapshot *registry.Snapshot
	alerts   *alert.Evaluator

	decoder telemetry.Decoder
	batch   telemetry.Batch
	frames  []mark
	broken  []brokenFrame
	seq     uint64 // of the last frame taken in
	events  uint64 // in the partition up to it
	bytes   int
	since   time.Time      // when the first frame was taken in
	flushed time.Time      // when the last flush began
	dead    map[int]string // reasons of events that the database refused, by their index in the batch
}

// reasonFrame is why a frame that cannot be read is a dead letter.
const reasonFrame = "frame"

// mark says where in the batch a frame begins.
type mark struct {
	seq   uint64
	first int
}

type brokenFrame struct {
	seq  uint64
	data []byte
	err  error
}

// next takes the next frame in, or flushes when it is time.
func (f *filling) next(ctx context.Context, r Reader) error {
	within := ctx
	if f.waiting() {
		var cancel context.CancelFunc
		within, cancel = context.WithDeadline(ctx, f.flushed.Add(pace))
		defer cancel()
	}
	seq, data, more, err := r.Next(within)
	switch {
	case err != nil && within.Err() != nil && ctx.Err() == nil:
		return f.flush(ctx)
	case err != nil:
		return err
	}
	f.frame(seq, data)
	now := time.Now()
	if len(f.batch.Events) >= maxEvents || f.bytes >= maxBytes || now.Sub(f.since) >= maxAge || !more && now.Sub(f.flushed) >= pace {
		return f.flush(ctx)
	}
	return nil
}

// waiting reports whether frames were taken in and not flushed.
func (f *filling) waiting() bool { return len(f.frames)+len(f.broken) > 0 }

// frame takes a frame in.
func (f *filling) frame(seq uint64, data []byte) {
	if seq != f.seq+1 {
		f.w.Metrics.Gaps.Add(float64(seq - f.seq - 1))
		f.w.missing.Add(seq - f.seq - 1)
		f.w.Log.Error("frames are missing from the queue", "partition", f.w.Partition, "first", f.seq+1, "last", seq-1)
	}
	if !f.waiting() {
		f.since = time.Now()
	}
	first := len(f.batch.Events)
	h, err := f.decoder.Append(&f.batch, data)
	if h.Events > 0 { // the frame's own count holds over missing and broken frames
		f.events = h.Before + uint64(h.Events)
	}
	if err != nil {
		f.w.Log.Error("a frame of the queue cannot be read", "partition", f.w.Partition, "seq", seq, "err", err)
		f.broken = append(f.broken, brokenFrame{seq, data, err})
	} else {
		f.frames = append(f.frames, mark{seq, first})
	}
	f.seq = seq
	f.bytes += len(data)
	f.w.taken.Store(f.events)
}

// flush stores the batch and the offset in one transaction.
func (f *filling) flush(ctx context.Context) error {
	if now := f.w.Registry(); now != f.snapshot {
		f.claim.Forget()
		f.alerts.Reload(now.Thresholds, telemetry.MicrosOf(time.Now()))
		if err := f.seen(ctx, now); err != nil {
			return err
		}
	}
	start := time.Now()
	f.flushed = start
	events := f.batch.Events
	tx, err := f.claim.Begin(ctx, events)
	if err != nil {
		return err
	}
	if len(events) > 0 {
		if err := f.write(ctx, tx, 0, len(events)); err != nil {
			return err
		}
	}
	for _, b := range f.broken {
		if err := tx.DeadFrame(ctx, b.seq, b.data, &telemetry.RejectedError{Reason: reasonFrame, Err: b.err}); err != nil {
			return err
		}
	}
	for i := range events {
		if _, dead := f.dead[i]; !dead {
			f.alerts.Evaluate(&events[i])
		}
	}
	if transitions := f.alerts.Take(); len(transitions) > 0 {
		if err := tx.Alerts(ctx, transitions); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx, f.seq, f.events); err != nil {
		return err
	}
	f.alerts.Commit()
	w := f.w
	w.seq.Store(f.seq)
	w.events.Store(f.events)
	w.Metrics.Stored.Add(float64(len(events) - len(f.dead)))
	w.Metrics.Dead.Add(float64(len(f.dead)))
	for _, reason := range f.dead {
		w.Metrics.Letters.WithLabelValues(reason).Inc()
	}
	w.Metrics.Letters.WithLabelValues(reasonFrame).Add(float64(len(f.broken)))
	now := time.Now()
	w.Metrics.Commit.Observe(now.Sub(start).Seconds())
	for _, m := range f.frames {
		if m.first < len(events) {
			w.Metrics.Latency.Observe(now.Sub(events[m.first].ReceivedAt.Time()).Seconds())
		}
	}
	f.batch.Reset()
	clear(f.dead)
	clear(f.broken)
	f.frames, f.broken, f.bytes = f.frames[:0], f.broken[:0], 0
	f.progress()
	return nil
}

// write stores the events from i to j. What the database refuses it finds by halving, and puts it with the dead letters.
func (f *filling) write(ctx context.Context, tx Tx, i, j int) error {
	err := tx.Write(ctx, f.batch.Events[i:j])
	rejected := (*telemetry.RejectedError)(nil)
	switch {
	case !errors.As(err, &rejected):
		return err
	case j-i > 1:
		half := i + (j-i)/2
		if err := f.write(ctx, tx, i, half); err != nil {
			return err
		}
		return f.write(ctx, tx, half, j)
	}
	at := sort.Search(len(f.frames), func(k int) bool { return f.frames[k].first > i }) - 1
	e := &f.batch.Events[i]
	f.w.Log.Error("an event goes to the dead letters", "device", e.Device, "time", e.Time.Time(), "reason", rejected.Reason, "err", rejected.Err)
	if f.dead == nil {
		f.dead = map[int]string{}
	}
	f.dead[i] = rejected.Reason
	return tx.DeadLetter(ctx, f.frames[at].seq, i-f.frames[at].first, e, rejected)
}

// startAlerts goes on from the open alerts of the partition's devices.
func (f *filling) startAlerts(ctx context.Context) error {
	open, err := f.claim.OpenAlerts(ctx)
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(o alert.Open) bool { return telemetry.Partition(o.Device, f.w.Partitions) != f.w.Partition })
	now := f.w.Registry()
	f.alerts = alert.NewEvaluator(now.Thresholds, open, telemetry.MicrosOf(time.Now()))
	return f.seen(ctx, now)
}

// seen tells the alerts how far each device's values go, so that older ones that come later do not count.
func (f *filling) seen(ctx context.Context, s *registry.Snapshot) error {
	f.snapshot = s
	if len(s.Thresholds) == 0 {
		return nil
	}
	return f.claim.Latest(ctx, func(device uuid.UUID, keys []string, at telemetry.Micros) {
		if telemetry.Partition(device, f.w.Partitions) == f.w.Partition {
			f.alerts.Seen(device, keys, at)
		}
	})
}
