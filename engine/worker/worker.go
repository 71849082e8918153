// Package worker moves one partition of the queue into the database: it fills a batch from the frames of both lanes, flushes
// it in one transaction with the new offsets, and halves it when the database refuses part of it.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Claim is the ownership of a partition in the database. After an error it is closed and a new one made.
type Claim interface {
	Offsets() [telemetry.Lanes]telemetry.Offset
	OpenAlerts(ctx context.Context) ([]alert.Open, error)
	Latest(ctx context.Context, row func(device uuid.UUID, keys []string, at telemetry.Micros)) error
	Begin(ctx context.Context, events []telemetry.Event) (Tx, error)
	Check(ctx context.Context) error // an error when the claim is void, or the database's offsets are others
	Forget()
	Close()
}

// Tx is one transaction: all its writes and the new offset, or nothing.
type Tx interface {
	Write(ctx context.Context, events []telemetry.Event) error // leaves Held ones out; a *telemetry.RejectedError stores none and lets the Tx go on
	DeadLetter(ctx context.Context, lane int, seq uint64, index int, e *telemetry.Event, why *telemetry.RejectedError) error
	DeadFrame(ctx context.Context, lane int, seq uint64, h telemetry.Header, data []byte, why *telemetry.RejectedError) error
	Alerts(ctx context.Context, transitions []alert.Transition) error

	// Commit takes the new offsets, and how many of the events up to them were not in the queue. It returns what became of
	// the transaction's events.
	Commit(ctx context.Context, to [telemetry.Lanes]telemetry.Offset, lost uint64) (telemetry.Tally, error)
}

// ErrOwned says that another worker has the partition just now.
var ErrOwned = errors.New("another worker owns this queue partition")

// Reader reads frames in order. Next waits until ctx ends, which loses no frame.
type Reader interface {
	Next(ctx context.Context) (seq uint64, data []byte, more bool, err error)
	Close()
}

// Metrics of one or more workers.
type Metrics struct {
	Stored, Dead, Gaps prometheus.Counter     // events, events, frames
	Letters            *prometheus.CounterVec // dead letters, events or frames, by reason
	Ledger             func(telemetry.Tally)  // told of each transaction
	Commit             prometheus.Observer    // seconds of a flush
	Latency            prometheus.Observer    // seconds from a frame's receipt to its commit
	Failures           prometheus.Counter
}

// Worker owns one partition while it runs. Its fields are set before Run.
type Worker struct {
	Partition  int
	Partitions int
	Claim      func(ctx context.Context) (Claim, error) // ErrOwned when it must wait
	Read       func(lane int, after uint64) Reader
	Registry   func() *registry.Snapshot
	Turn       chan struct{} // holds one, of all workers of the process: the turn to flush a batch that is not full
	Metrics    *Metrics
	Log        *slog.Logger

	lanes     [telemetry.Lanes]progress
	known     [telemetry.Lanes]telemetry.Offset // up to where producers is right
	producers telemetry.Producers
	missing   atomic.Uint64
	owns      atomic.Bool
	failing   atomic.Pointer[error]
}

// progress of a lane, for others to look at.
type progress struct{ seq, events, taken atomic.Uint64 }

// A batch is flushed when the queue has no more frames at hand, but not sooner than pace after the flush before, so that
// a busy worker spares the database small transactions; and at the latest at the other marks. The frames of the live lane
// go first; of the other lane a batch takes no more than what keeps them waiting shortly.
const (
	pace        = 200 * time.Millisecond
	maxEvents   = 20_000
	maxBackfill = 2_000 // events
	maxBytes    = 4 << 20
	maxAge      = 300 * time.Millisecond

	checkEvery = 2 * time.Second // while there is nothing to flush: the database may be another one by now
)

// Stored returns the offset of a lane: its last stored frame, and how many events were stored up to it.
func (w *Worker) Stored(lane int) telemetry.Offset {
	return telemetry.Offset{Seq: w.lanes[lane].seq.Load(), Events: w.lanes[lane].events.Load()}
}

// Taken returns how many events of a lane were taken from the queue, stored or about to be.
func (w *Worker) Taken(lane int) uint64 { return w.lanes[lane].taken.Load() }

// Follow tells how far another worker, who has the partition, has got.
func (w *Worker) Follow(lane int, o telemetry.Offset) {
	if !w.owns.Load() {
		w.progress(lane, o)
	}
}

func (w *Worker) progress(lane int, o telemetry.Offset) {
	l := &w.lanes[lane]
	l.seq.Store(o.Seq)
	l.events.Store(o.Events)
	l.taken.Store(o.Events)
}

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
func (w *Worker) Run(ctx context.Context) {
	const shortest, longest = 200 * time.Millisecond, 5 * time.Second
	pause := shortest
	for {
		err := w.own(ctx, func() { pause = shortest })
		switch {
		case ctx.Err() != nil:
			w.failing.Store(nil)
			return
		case errors.Is(err, ErrOwned):
			pause = shortest
		default:
			w.Metrics.Failures.Inc()
			if w.failing.Swap(&err) == nil {
				w.Log.Error("worker cannot store, will go on trying", "partition", w.Partition, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longest)
	}
}

// own stores frames while it owns the partition. It returns on the first error.
func (w *Worker) own(ctx context.Context, healthy func()) error {
	claim, err := w.Claim(ctx)
	if err != nil {
		return err
	}
	defer claim.Close()
	w.owns.Store(true)
	defer w.owns.Store(false)
	f := filling{w: w, claim: claim, at: claim.Offsets(), producers: telemetry.Producers{}, timer: time.NewTimer(0), healthy: func() {
		healthy()
		if w.failing.Swap(nil) != nil {
			w.Log.Info("worker stores again", "partition", w.Partition)
		}
	}}
	defer f.timer.Stop()
	if f.at == w.known && w.producers != nil {
		f.producers = maps.Clone(w.producers)
	}
	for lane, o := range f.at {
		w.progress(lane, o)
	}
	if err := f.startAlerts(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	defer g.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for lane := range f.frames {
		reader := w.Read(lane, f.at[lane].Seq)
		frames := make(chan frame)
		f.frames[lane] = frames
		g.Go(func() error { read(ctx, lane, reader, frames); return nil })
	}
	for {
		if err := f.next(ctx); err != nil {
			return err
		}
	}
}

// frame is what a Reader returns.
type frame struct {
	lane int
	seq  uint64
	data []byte
	more bool
	err  error
}

// read hands frames over, one at a time, until ctx ends or the reader fails.
func read(ctx context.Context, lane int, r Reader, to chan<- frame) {
	defer r.Close()
	for {
		f := frame{lane: lane}
		f.seq, f.data, f.more, f.err = r.Next(ctx)
		select {
		case to <- f:
		case <-ctx.Done():
			return
		}
		if f.err != nil {
			return
		}
	}
}

// filling is a batch on its way, and what it needs from flush to flush.
type filling struct {
	w        *Worker
	claim    Claim
	healthy  func() // called after each commit and check
	frames   [telemetry.Lanes]<-chan frame
	timer    *time.Timer
	snapshot *registry.Snapshot
	alerts   *alert.Evaluator

	decoder   telemetry.Decoder
	producers telemetry.Producers
	batch     telemetry.Batch
	marks     []mark
	broken    []brokenFrame
	at        [telemetry.Lanes]telemetry.Offset // of the last frames taken in
	late      int                               // events of the backfill lane in the batch
	lost      uint64                            // events that the queue should have held since the last flush
	missing   uint64                            // frames
	bytes     int
	since     time.Time      // when the first frame was taken in
	flushed   time.Time      // when the last flush began
	dead      map[int]string // reasons of events that the database refused, by their index in the batch
}

// maxLogged is how many dead letters of a flush the log names.
const maxLogged = 10

// reasonFrame is why a frame that cannot be read is a dead letter.
const reasonFrame = "frame"

// mark says where in the batch a frame begins.
type mark struct {
	lane  int
	seq   uint64
	first int
}

type brokenFrame struct {
	frame
	header telemetry.Header // zero when that is broken too
	why    error
}

// next takes the next frame in, or flushes when it is time.
func (f *filling) next(ctx context.Context) error {
	live, backfill := f.frames[telemetry.Live], f.frames[telemetry.Backfill]
	select {
	case fr := <-live:
		return f.take(ctx, fr)
	default:
	}
	if f.late >= maxBackfill {
		return f.flush(ctx)
	}
	if f.waiting() {
		f.timer.Reset(time.Until(f.flushed.Add(pace)))
	} else {
		f.timer.Reset(checkEvery)
	}
	select {
	case fr := <-live:
		return f.take(ctx, fr)
	case fr := <-backfill:
		return f.take(ctx, fr)
	case <-f.timer.C:
		if f.waiting() {
			return f.flush(ctx)
		}
		if err := f.follow(ctx); err != nil {
			return err
		}
		if f.alerts.Due() {
			return f.flush(ctx)
		}
		err := f.claim.Check(ctx)
		if err == nil {
			f.healthy()
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waiting reports whether frames were taken in and not flushed.
func (f *filling) waiting() bool { return len(f.marks)+len(f.broken) > 0 }

// take takes a frame in, and flushes when the batch is full or no more frames are at hand.
func (f *filling) take(ctx context.Context, fr frame) error {
	if fr.err != nil {
		return fr.err
	}
	f.add(fr)
	runtime.Gosched() // a frame may hold thousands of events, and requests wait meanwhile
	now := time.Now()
	if f.full() || now.Sub(f.since) >= maxAge || !fr.more && now.Sub(f.flushed) >= pace {
		return f.flush(ctx)
	}
	return nil
}

// add puts the events of a frame into the batch.
func (f *filling) add(fr frame) {
	at := &f.at[fr.lane]
	gap := fr.seq - at.Seq - 1
	if fr.seq != at.Seq+1 {
		f.missing += fr.seq - at.Seq - 1
		f.w.Log.Error("frames are missing from the queue", "partition", f.w.Partition, "lane", fr.lane, "first", at.Seq+1, "last", fr.seq-1)
	}
	if !f.waiting() {
		f.since = time.Now()
	}
	first := len(f.batch.Events)
	h, err := f.decoder.Append(&f.batch, fr.data)
	if h.Events > 0 {
		_, known := f.producers[h.Producer]
		missing := f.producers.Missing(h)
		if !known { // how many events the missing frames held cannot be told: one at least
			missing = gap
		}
		if missing > 0 {
			f.w.Log.Error("events are missing from the queue", "partition", f.w.Partition, "lane", fr.lane, "before", fr.seq, "events", missing)
		}
		f.lost += missing
		at.Events += missing + uint64(h.Events)
	}
	if err != nil {
		f.w.Log.Error("a frame of the queue cannot be read", "partition", f.w.Partition, "lane", fr.lane, "seq", fr.seq, "err", err)
		f.broken = append(f.broken, brokenFrame{fr, h, err})
	} else {
		f.marks = append(f.marks, mark{fr.lane, fr.seq, first})
	}
	if fr.lane == telemetry.Backfill {
		f.late += len(f.batch.Events) - first
	}
	at.Seq = fr.seq
	f.bytes += len(fr.data)
	f.w.lanes[fr.lane].taken.Store(at.Events)
}

// wait takes the turn to flush, and returns what gives it back. Batches that are not full are flushed one after the other,
// so that a core is left for those who wait for an acknowledgement; but one that takes long does not hold up the others.
func (f *filling) wait(ctx context.Context) (done func()) {
	if f.full() {
		return func() {}
	}
	f.timer.Reset(pace)
	select {
	case f.w.Turn <- struct{}{}:
		return func() { <-f.w.Turn }
	case <-f.timer.C:
	case <-ctx.Done():
	}
	return func() {}
}

func (f *filling) full() bool { return len(f.batch.Events) >= maxEvents || f.bytes >= maxBytes }

// flush stores the batch and the offset in one transaction.
func (f *filling) flush(ctx context.Context) error {
	if err := f.follow(ctx); err != nil {
		return err
	}
	defer f.wait(ctx)()
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
	held, err := f.hold(ctx, tx)
	if err != nil {
		return err
	}
	for _, b := range f.broken {
		if err := tx.DeadFrame(ctx, b.lane, b.seq, b.header, b.data, &telemetry.RejectedError{Reason: reasonFrame, Err: b.why}); err != nil {
			return err
		}
	}
	for i := range events {
		if _, dead := f.dead[i]; !dead && events[i].Held == nil {
			f.alerts.Evaluate(&events[i])
		}
	}
	if transitions := f.alerts.Take(); len(transitions) > 0 {
		if err := tx.Alerts(ctx, transitions); err != nil {
			return err
		}
	}
	tally, err := tx.Commit(ctx, f.at, f.lost)
	if err != nil {
		return err
	}
	failpoint.Hit("worker.committed")
	f.alerts.Commit()
	w := f.w
	for lane, o := range f.at {
		w.progress(lane, o)
	}
	w.known, w.producers = f.at, maps.Clone(f.producers)
	w.missing.Add(f.missing)
	w.Metrics.Gaps.Add(float64(f.missing))
	w.Metrics.Stored.Add(float64(len(events) - len(f.dead) - held))
	w.Metrics.Letters.WithLabelValues(telemetry.PendingDevice).Add(float64(held))
	w.Metrics.Dead.Add(float64(len(f.dead)))
	for _, reason := range f.dead {
		w.Metrics.Letters.WithLabelValues(reason).Inc()
	}
	w.Metrics.Ledger(tally)
	w.Metrics.Letters.WithLabelValues(reasonFrame).Add(float64(len(f.broken)))
	if n := len(f.dead); n > maxLogged {
		w.Log.Error("more events went to the dead letters", "partition", w.Partition, "events", n-maxLogged)
	}
	now := time.Now()
	w.Metrics.Commit.Observe(now.Sub(start).Seconds())
	for _, m := range f.marks {
		if m.first < len(events) {
			w.Metrics.Latency.Observe(now.Sub(events[m.first].ReceivedAt.Time()).Seconds())
		}
	}
	f.batch.Reset()
	clear(f.dead)
	clear(f.broken)
	f.marks, f.broken, f.bytes, f.late, f.lost, f.missing = f.marks[:0], f.broken[:0], 0, 0, 0, 0
	f.healthy()
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
	e := &f.batch.Events[i]
	if len(f.dead) < maxLogged {
		f.w.Log.Error("an event goes to the dead letters", "device", e.Device, "time", e.Time.Time(), "reason", rejected.Reason, "err", rejected.Err)
	}
	if f.dead == nil {
		f.dead = map[int]string{}
	}
	f.dead[i] = rejected.Reason
	return f.bury(ctx, tx, i, rejected)
}

// bury puts an event of the batch with the dead letters.
func (f *filling) bury(ctx context.Context, tx Tx, i int, why *telemetry.RejectedError) error {
	at := f.marks[sort.Search(len(f.marks), func(k int) bool { return f.marks[k].first > i })-1]
	return tx.DeadLetter(ctx, at.lane, at.seq, i-at.first, &f.batch.Events[i], why)
}

// errHeld is the message of the dead letters that wait for their device.
var errHeld = &telemetry.RejectedError{Reason: telemetry.PendingDevice, Err: errors.New("the device is not registered yet")}

// hold puts the held events of the batch with the dead letters, and returns how many there are.
func (f *filling) hold(ctx context.Context, tx Tx) (n int, err error) {
	for i := range f.batch.Events {
		if f.batch.Events[i].Held == nil {
			continue
		}
		if err := f.bury(ctx, tx, i, errHeld); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
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

// follow goes on with the registry's newest snapshot.
func (f *filling) follow(ctx context.Context) error {
	now := f.w.Registry()
	if now == f.snapshot {
		return nil
	}
	f.claim.Forget()
	f.alerts.Reload(now.Thresholds, telemetry.MicrosOf(time.Now()))
	return f.seen(ctx, now)
}

// seen tells the alerts which devices are gone, and how far each device's values go, so that older ones that come later do
// not count.
func (f *filling) seen(ctx context.Context, s *registry.Snapshot) error {
	f.snapshot = s
	f.alerts.Gone(func(device uuid.UUID, key string) string {
		d, p := s.Device(device), s.Parameter(key)
		switch {
		case d == nil || p == nil: // the snapshot may be older than the event
			return ""
		case d.Retired:
			return alert.ReasonRetired
		case p.Addr.ParentPath() != d.Project().Path:
			return alert.ReasonMoved
		}
		return ""
	}, telemetry.MicrosOf(time.Now()))
	if len(s.Thresholds) == 0 {
		return nil
	}
	return f.claim.Latest(ctx, func(device uuid.UUID, keys []string, at telemetry.Micros) {
		if telemetry.Partition(device, f.w.Partitions) == f.w.Partition {
			f.alerts.Seen(device, keys, at)
		}
	})
}
