package engine

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Frames stay in the queue after they are stored, so that a database that lost its newest rows gets them again.
const (
	replayWindow   = 72 * time.Hour
	replayShare    = 0.7 // of the queue's size; past it, the oldest history gives way to new events
	replayKept     = 0.6 // of the queue's size, then
	roomInterval   = time.Second
	purgeInterval  = time.Minute
	retainInterval = time.Hour
	auditAge       = 400 * 24 * time.Hour // for how long it is known who changed the registry by hand
)

// tidyQueue purges the queue until ctx ends. It does not wait for the database, which may keep retention waiting for long.
func (e *Engine) tidyQueue(ctx context.Context) error {
	room, old := time.NewTicker(roomInterval), time.NewTicker(purgeInterval)
	defer room.Stop()
	defer old.Stop()
	for {
		what := e.crowded
		select {
		case <-ctx.Done():
			return nil
		case <-room.C:
		case <-old.C:
			what = e.outdated
		}
		for i := range e.queue.Partitions() {
			if mine, _ := e.crew.has(i % len(e.workers)); !mine {
				continue
			}
			if err := e.purge(ctx, i, what); err != nil && ctx.Err() == nil {
				e.log.Error("queue keeps frames that it could drop", "err", err)
			}
		}
	}
}

// purge drops the frames of a partition up to the one that what returns, as far as they are stored.
func (e *Engine) purge(ctx context.Context, partition int, what func(context.Context, int) (uint64, error)) error {
	upTo, err := what(ctx, partition)
	if err != nil {
		return fmt.Errorf("finding what to purge: %w", err)
	}
	stored, _ := e.stored(partition)
	if upTo = min(upTo, stored.Seq); upTo < e.queue.Partitions()[partition].First() || upTo == 0 {
		return nil
	}
	return e.queue.Purge(ctx, partition, upTo)
}

// outdated returns the last frame that is older than the replay window.
func (e *Engine) outdated(ctx context.Context, partition int) (uint64, error) {
	first, err := e.queue.FirstAfter(ctx, partition, time.Now().Add(-replayWindow))
	return max(first, 1) - 1, err
}

// crowded returns the last of the oldest frames that must go when room is short, judged by the mean size of a frame.
func (e *Engine) crowded(_ context.Context, partition int) (uint64, error) {
	p := e.queue.Partitions()[partition]
	limit := float64(p.MaxBytes())
	first, last, bytes := p.First(), p.Last(), float64(p.Bytes())
	if bytes < replayShare*limit || last < first {
		return 0, nil
	}
	frames := float64(last - first + 1)
	return first + uint64(math.Ceil((bytes-replayKept*limit)/bytes*frames)) - 1, nil
}

// tidyStore drops old telemetry, old rows of the registry's audit and what was held for long, until ctx ends.
func (e *Engine) tidyStore(ctx context.Context) error {
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		e.retain(ctx)
		e.trimAudit(ctx)
		e.dropPending(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (e *Engine) retain(ctx context.Context) {
	r := e.view.Snapshot().Retention
	if first, _ := e.crew.has(0); r == nil || !first { // one process is enough
		return
	}
	dropped, err := e.store.Retain(ctx, r.Raw)
	if err != nil && ctx.Err() == nil {
		e.log.Error("retention did not finish, will try again in an hour", "err", err)
	}
	if len(dropped) > 0 {
		e.log.Info("retention dropped telemetry", "older_than", r.Raw, "partitions", dropped)
	}
}

func (e *Engine) trimAudit(ctx context.Context) {
	if first, _ := e.crew.has(0); !first {
		return
	}
	if _, err := e.store.TrimAudit(ctx, auditAge); err != nil && ctx.Err() == nil {
		e.log.Error("the registry's audit keeps old rows, will try again in an hour", "err", err)
	}
}
