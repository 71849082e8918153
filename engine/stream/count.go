package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How many events a partition holds, and whether any are missing, is known from three places. The stream itself has the
// frames, each of which says how many events it holds and how many its producer had put in before; the count here follows
// it. The database has how far all is stored, in frames and events, and is always right: Rebase tells the count. And the
// newest frame that was ever seen is noted outside of the stream, in the database and, while that is away, in a file beside
// an embedded one, so that frames which vanish from the stream's end are missed.

// count is how many events there are up to a frame.
type count struct {
	mu          sync.Mutex
	seq, events uint64
}

func (c *count) get() (seq, events uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seq, c.events
}

// add counts the events up to a frame that was not counted yet.
func (c *count) add(seq, events uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq > c.seq {
		c.seq = seq
		c.events += events
	}
}

// Rebase tells a partition that it held so many events up to a frame, as the database knows it. The frames after it are
// counted, which takes some seconds for a million. When it is the newest frame nothing needs to be counted, and what the
// count had wrong, as by damaged frames, is right again.
func (q *Queue) Rebase(ctx context.Context, partition int, seq, events uint64) error {
	p := q.partitions[partition]
	newest, counted := p.count.get()
	after := uint64(0)
	if seq < newest {
		var err error
		if after, err = q.eventsIn(ctx, p, seq, newest); err != nil {
			return fmt.Errorf("counting the events of queue partition %d after frame %d: %w", partition, seq, err)
		}
	}
	c := &p.count
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq > c.seq {
		c.seq, c.events = seq, events
	} else {
		c.events = events + after + c.events - counted // with those that came meanwhile
	}
	return nil
}

// sync counts the frames that were stored though their publisher was not told, after a loss of the connection.
func (q *Queue) sync(ctx context.Context, p *Partition) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	known := p.Last()
	info, err := p.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("reading the stream's state: %w", err)
	}
	last := info.State.LastSeq
	if last < known {
		return q.cut(p, last, known)
	}
	events, err := q.eventsIn(ctx, p, known, last)
	if err != nil {
		return fmt.Errorf("counting the events after frame %d: %w", known, err)
	}
	p.count.add(last, events)
	p.tail.wake() // for what was stored late
	p.first.Store(info.State.FirstSeq)
	p.bytes.Store(info.State.Bytes)
	return nil
}

// cut stops the queue, because a partition ends before frames that it had: new frames would take their sequences.
func (q *Queue) cut(p *Partition, last, known uint64) error {
	err := fmt.Errorf("%w: partition %d ends at frame %d, though it had %d: acknowledged events may be lost", ErrReplaced, p.number, last, known)
	q.fail(err)
	return err
}

// acknowledged counts a frame that was stored. Frames between it and the ones known before are such as were stored late,
// after their publisher had given up.
func (q *Queue) acknowledged(ctx context.Context, p *Partition, seq, events uint64) error {
	known := p.Last()
	if seq <= known {
		return q.cut(p, seq-1, known)
	}
	between := uint64(0)
	if seq > known+1 {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		var err error
		if between, err = q.eventsIn(ctx, p, known, seq-1); err != nil {
			return fmt.Errorf("counting the events after frame %d: %w", known, err)
		}
	}
	p.count.add(seq, between+events)
	p.tail.wake()
	return nil
}

// idle is how long the next frame may take while frames are counted: the server passes damaged ones over in silence.
const idle = 3 * time.Second

// eventsIn counts the events of the frames after one, up to another, by their messages' headers.
func (q *Queue) eventsIn(ctx context.Context, p *Partition, after, upTo uint64) (events uint64, err error) {
	if after >= upTo {
		return 0, nil
	}
	r, pending, err := q.readStored(ctx, p, jetstream.ConsumerConfig{HeadersOnly: true}, after, jetstream.PullMaxMessages(8192))
	if err != nil {
		return 0, err
	}
	defer r.close()
	// A server of a cluster that has just come back may not have them all yet.
	for (pending > 0 || q.options.External) && ctx.Err() == nil {
		m, meta, err := r.next(jetstream.NextMaxWait(idle))
		if errors.Is(err, nats.ErrTimeout) {
			q.options.Log.Warn("frames of the queue cannot be read", "partition", p.number, "after", after, "last", upTo)
			return events, nil
		}
		if err != nil {
			return 0, err
		}
		if meta.Sequence.Stream <= upTo {
			events += eventsOf(m)
		}
		if meta.Sequence.Stream >= upTo {
			break
		}
		after, pending = meta.Sequence.Stream, meta.NumPending
	}
	return events, ctx.Err()
}

// eventsOf returns how many events a frame holds by its message's header, 0 for a message that is not a frame.
func eventsOf(m jetstream.Msg) uint64 {
	n, _ := strconv.ParseUint(m.Headers().Get(headerEvents), 10, 32)
	return n
}

// follow counts the frames of all producers as they come, until ctx ends.
func (q *Queue) follow(ctx context.Context, p *Partition) {
	for said := false; ; {
		err := q.followOnce(ctx, p, &said)
		if ctx.Err() != nil {
			return
		}
		if !said {
			q.options.Log.Warn("new frames are not counted just now, the queue's depth is too low", "partition", p.number, "err", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (q *Queue) followOnce(ctx context.Context, p *Partition, said *bool) error {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, _, err := q.readStored(asking, p, jetstream.ConsumerConfig{HeadersOnly: true}, p.Last(), jetstream.PullMaxMessages(1024))
	if err != nil {
		return err
	}
	defer r.close()
	*said = false
	for {
		m, meta, err := r.next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		p.count.add(meta.Sequence.Stream, eventsOf(m))
	}
}
