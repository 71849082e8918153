package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/nsready/nsready/engine/failpoint"
)

// Reader reads the frames of a partition in order, waiting for new ones. After an error other than its context's end it is
// of no more use, and another has to be made: the connection was lost, or the server that read for it is gone.
type Reader struct {
	queue     *Queue
	partition *Partition
	next      uint64        // sequence
	stored    *storedReader // nil while the partition's tail has what comes next
}

// Read begins to read a partition after a sequence.
func (q *Queue) Read(partition int, after uint64) *Reader {
	return &Reader{queue: q, partition: q.partitions[partition], next: after + 1}
}

// Next returns the next frame, and whether more are known to follow. It waits until ctx ends.
func (r *Reader) Next(ctx context.Context) (seq uint64, data []byte, more bool, err error) {
	if data, more, err = r.fromTail(ctx); data != nil {
		seq = r.next
	} else if err == nil {
		seq, data, more, err = r.fromStored(ctx)
	}
	switch {
	case err == nil:
		r.next = seq + 1
		return seq, data, more, nil
	case ctx.Err() != nil:
		return 0, nil, false, context.Cause(ctx)
	}
	return 0, nil, false, fmt.Errorf("reading queue partition %d after frame %d: %w", r.partition.number, r.next-1, err)
}

// fromTail returns the next frame if it is in the tail or nowhere yet, for which it waits. data is nil when it is stored alone.
func (r *Reader) fromTail(ctx context.Context) (data []byte, more bool, err error) {
	t := r.partition.tail
	if t == nil || r.stored != nil && !t.has(r.next) {
		return nil, false, nil
	}
	r.Close()
	for {
		data, more, change := t.take(r.next)
		switch {
		case data != nil:
			return data, more, nil
		case r.next > r.partition.Last():
			select {
			case <-change:
			case <-ctx.Done():
				return nil, false, ctx.Err()
			}
		case !t.has(r.next): // unless it has just come
			return nil, false, nil
		}
	}
}

// fromStored returns the next frame that the server has stored.
func (r *Reader) fromStored(ctx context.Context) (seq uint64, data []byte, more bool, err error) {
	if r.stored == nil {
		r.stored, _, err = r.queue.readStored(ctx, r.partition, jetstream.ConsumerConfig{}, r.next-1, jetstream.PullMaxMessagesWithBytesLimit(maxAhead, readAhead))
		if err != nil {
			return 0, nil, false, err
		}
	}
	m, meta, err := r.stored.next(jetstream.NextContext(ctx))
	if err != nil {
		return 0, nil, false, err
	}
	return meta.Sequence.Stream, m.Data(), meta.NumPending > 0, nil
}

// Close ends the reading.
func (r *Reader) Close() {
	if r.stored != nil {
		r.stored.close()
		r.stored = nil
	}
}

// storedReader reads what the server has stored.
type storedReader struct {
	queue     *Queue
	partition *Partition
	link      *link
	consumer  string
	messages  jetstream.MessagesContext
	delivered uint64
	unhook    func() bool
}

const (
	readAhead = 4 << 20         // bytes of frames that a Reader holds
	maxAhead  = 1024            // frames that it holds; nats.go sets aside room for as many
	heartbeat = 2 * time.Second // of the server to a Reader that waits; without two of them it is gone
	abandoned = 5 * time.Minute // after which the server forgets a Reader that asks for nothing
)

// readStored makes a storedReader for what comes after a sequence, and returns how many messages there are for it now.
func (q *Queue) readStored(ctx context.Context, p *Partition, c jetstream.ConsumerConfig, after uint64, opt jetstream.PullMessagesOpt) (*storedReader, uint64, error) {
	r := &storedReader{queue: q, partition: p, link: q.link.Load()}
	c.DeliverPolicy, c.OptStartSeq, c.AckPolicy = jetstream.DeliverByStartSequencePolicy, after+1, jetstream.AckNonePolicy
	c.MemoryStorage, c.Replicas, c.InactiveThreshold = true, 1, abandoned
	consumer, err := q.js.CreateConsumer(ctx, p.name, c)
	if err != nil {
		return nil, 0, err
	}
	info := consumer.CachedInfo()
	r.consumer = info.Name
	r.messages, err = consumer.Messages(opt, jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return nil, 0, err
	}
	r.unhook = context.AfterFunc(r.link, r.messages.Stop)
	return r, info.NumPending, nil
}

func (r *storedReader) next(opt jetstream.NextOpt) (jetstream.Msg, *jetstream.MsgMetadata, error) {
	m, err := r.messages.Next(opt)
	if err != nil {
		if r.link.Err() != nil {
			err = context.Cause(r.link)
		}
		return nil, nil, err
	}
	meta, err := m.Metadata()
	if err != nil {
		return nil, nil, err
	}
	if r.delivered++; meta.Sequence.Consumer != r.delivered {
		return nil, nil, fmt.Errorf("frame %d came as number %d, number %d was due", meta.Sequence.Stream, meta.Sequence.Consumer, r.delivered)
	}
	return m, meta, nil
}

func (r *storedReader) close() {
	r.unhook()
	r.messages.Stop()
	ctx, cancel := context.WithTimeout(r.link, time.Second)
	defer cancel()
	r.queue.js.DeleteConsumer(ctx, r.partition.name, r.consumer) // or else the server forgets it, in a while
}

// Purge removes the frames of a partition up to and including a sequence.
func (q *Queue) Purge(ctx context.Context, partition int, upTo uint64) error {
	if upTo == 0 {
		return nil
	}
	failpoint.Hit("stream.purging")
	if err := q.partitions[partition].stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purging queue partition %d up to frame %d: %w", partition, upTo, err)
	}
	failpoint.Hit("stream.purged")
	return nil
}

// FirstAfter returns the sequence of the first frame stored at or after t, or one past the last frame.
func (q *Queue) FirstAfter(ctx context.Context, partition int, t time.Time) (uint64, error) {
	s := q.partitions[partition].stream
	info, err := s.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading queue partition %d: %w", partition, err)
	}
	if info.State.Msgs == 0 {
		return info.State.LastSeq + 1, nil
	}
	lo, hi := info.State.FirstSeq, info.State.LastSeq+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		at := mid
		m, err := s.GetMsg(ctx, at)
		for errors.Is(err, jetstream.ErrMsgNotFound) && at+1 < hi { // damaged: the next one tells as well
			at++
			m, err = s.GetMsg(ctx, at)
		}
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			hi = mid
		case err != nil:
			return 0, fmt.Errorf("reading queue partition %d, frame %d: %w", partition, at, err)
		case m.Time.Before(t):
			lo = at + 1
		default:
			hi = mid
		}
	}
	return lo, nil
}
