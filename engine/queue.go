package engine

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/stream"
	"github.com/nsready/nsready/engine/telemetry"
)

// MaxPartitions is the most that a queue may have in each lane.
const MaxPartitions = 64

// ExternalQueue is a JetStream server or cluster that others run.
type ExternalQueue struct {
	stream.ConnectOptions
	URL        string
	Monitors   []string // URLs of the servers' HTTP monitors
	Replicas   int      // 0: 1 for a new queue, otherwise what it has
	Partitions int      // of a new queue
}

// openQueue opens the queue and compares it with the database. Processes that share them do so one after another.
func (e *Engine) openQueue(ctx context.Context) error {
	log := e.log.With("component", "queue")
	nc, options, err := e.connectQueue(ctx, log)
	if err != nil {
		return err
	}
	e.defers("queue connection", func() error { nc.Close(); return nil })
	return e.store.Alone(ctx, func(ctx context.Context) (err error) {
		if e.queue, err = stream.Open(ctx, nc, options); err != nil {
			return err
		}
		known, err := e.readMarks()
		if err != nil {
			e.log.Error("frames that are missing at the queue's end will not be noticed", "err", err)
		}
		positions, err := e.store.Positions(ctx)
		if err != nil {
			return err
		}
		for i, p := range e.queue.Partitions() {
			if err := e.takeStock(ctx, i, p, known, positions); err != nil {
				return err
			}
		}
		return nil
	})
}

// connectQueue connects to the external queue, or starts the embedded one.
func (e *Engine) connectQueue(ctx context.Context, log *slog.Logger) (*stream.Conn, stream.Options, error) {
	o := stream.Options{MaxBytes: e.options.QueueBytes, Log: log}
	if x := e.options.External; x != nil {
		o.External, o.Partitions, o.Replicas, o.MonitorURLs = true, x.Partitions, x.Replicas, x.Monitors
		who := x.ConnectOptions
		who.Name, who.Log = "nsready "+e.options.Name, log
		nc, err := stream.Connect(ctx, x.URL, who)
		return nc, o, err
	}
	o.Partitions, o.Dir, o.MinFree = min(runtime.GOMAXPROCS(0), 16), e.options.QueueDir, e.options.MinFree
	var err error
	if e.server, err = stream.StartServer(stream.ServerOptions{Dir: filepath.Clean(o.Dir), Monitor: e.options.Monitor, Log: log}); err != nil {
		return nil, o, err
	}
	e.defers("JetStream", func() error { e.server.Shutdown(); return nil })
	nc, err := e.server.Connect()
	if err != nil {
		return nil, o, fmt.Errorf("connecting to the embedded queue: %w", err)
	}
	return nc, o, nil
}

// takeStock finds out whether a partition is what the database and the marks know of it. A queue that was made anew, set
// back or cut may have lost what was not stored yet: that is said and counted, never hidden. A partition that is behind the
// database begins a new epoch, or the workers would pass new frames over as stored.
func (e *Engine) takeStock(ctx context.Context, i int, p *stream.Partition, known marks, positions []store.Position) error {
	problem := func(format string, args ...any) {
		text := "queue: " + fmt.Sprintf(format, args...)
		e.log.Error(text, "component", "queue")
		e.problems = append(e.problems, text)
	}
	here := store.Stream{Epoch: p.Epoch, Number: i}
	now := store.Position{Stream: here}
	before, lost := false, false
	for _, was := range positions {
		switch {
		case was.Number != i:
		case was.Epoch == p.Epoch:
			now = was
		default:
			before = true
			newest := further(was.Newest, known[was.Epoch])
			if newest.Seq <= was.Stored.Seq {
				continue
			}
			problem("partition %d was made anew: its frames %d to %d were not stored and are lost", i, was.Stored.Seq+1, newest.Seq)
			lost = true
			e.missing += newest.Seq - was.Stored.Seq
			if err := e.store.GiveUp(ctx, was.Stream, was.Stored, events(was.Stored, newest)); err != nil {
				return err
			}
		}
	}
	last, newest := p.Last(), further(now.Newest, known[p.Epoch])
	if last < now.Stored.Seq {
		return e.setBack(ctx, i, p, now, newest, problem)
	}
	if err := e.queue.Rebase(ctx, i, now.Stored.Seq, now.Stored.Events); err != nil {
		return err
	}
	switch {
	case last < newest.Seq:
		problem("partition %d ends at frame %d, though it had %d: acknowledged events are lost", i, last, newest.Seq)
		e.missing += newest.Seq - last
		return e.store.GiveUp(ctx, here, p.Newest(), events(p.Newest(), newest))
	case p.Fresh && before && !lost:
		problem("partition %d was made anew; as far as is known all that it held was stored", i)
	}
	return nil
}

// setBack begins a new epoch of a partition that is behind the database, as after a copy of an older time was put in its
// place. What is new in it since then has to be stored, and nothing older, which could undo later corrections.
func (e *Engine) setBack(ctx context.Context, i int, p *stream.Partition, was store.Position, newest telemetry.Offset, problem func(string, ...any)) error {
	const skew = time.Minute // of the clocks of queue and database
	problem("partition %d ends at frame %d, though %d frames of it were stored: what came after them is lost", i, p.Last(), was.Stored.Seq)
	first, err := e.queue.FirstAfter(ctx, i, was.Moved.Add(-skew))
	if err == nil {
		err = e.queue.NewEpoch(ctx, i)
	}
	if err != nil {
		return err
	}
	begin := telemetry.Offset{Seq: max(first, 1) - 1}
	if err := e.store.Begin(ctx, store.Stream{Epoch: p.Epoch, Number: i}, begin); err != nil {
		return err
	}
	if newest.Seq > was.Stored.Seq {
		e.missing += newest.Seq - was.Stored.Seq
		if err := e.store.GiveUp(ctx, was.Stream, was.Stored, events(was.Stored, newest)); err != nil {
			return err
		}
	}
	return e.queue.Rebase(ctx, i, begin.Seq, begin.Events)
}

// further returns the offset that is further.
func further(a, b telemetry.Offset) telemetry.Offset {
	if b.Seq > a.Seq {
		return b
	}
	return a
}

// events returns how many events there are between two offsets, as far as their counts tell: at least one for each frame.
func events(from, to telemetry.Offset) uint64 {
	return max(to.Events-min(to.Events, from.Events), to.Seq-min(to.Seq, from.Seq))
}
