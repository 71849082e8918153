package engine

import (
	"context"
	"fmt"
	"time"
)

// Frames stay in the queue after they are stored, so that a database that lost its newest rows gets them again.
const (
	replayWindow   = 72 * time.Hour
	replayShare    = 0.7 // of the queue's size; past it, history gives way to new events
	purgeInterval  = 15 * time.Second
	retainInterval = time.Hour
)

// tidyQueue purges the queue until ctx ends. It does not wait for the database, which may keep retention waiting for long.
func (e *Engine) tidyQueue(ctx context.Context) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i := range e.workers {
			if err := e.purge(ctx, i); err != nil && ctx.Err() == nil {
				e.log.Error("queue keeps frames that it could drop", "err", err)
			}
		}
	}
}

// tidyStore drops old telemetry until ctx ends.
func (e *Engine) tidyStore(ctx context.Context) error {
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		e.retain(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// purge drops stored frames that are older than the replay window, or all stored ones when room is short.
func (e *Engine) purge(ctx context.Context, partition int) error {
	p := e.queue.Partitions()[partition]
	stored, _ := e.workers[partition].Stored()
	share := float64(p.Bytes()) / (float64(e.options.QueueBytes) / float64(len(e.workers)))
	if share < replayShare {
		first, err := e.queue.FirstAfter(ctx, partition, time.Now().Add(-replayWindow))
		if err != nil {
			return fmt.Errorf("finding what to purge: %w", err)
		}
		stored = min(stored, first-1)
	}
	if stored == 0 || stored <= e.purged[partition] {
		return nil
	}
	if err := e.queue.Purge(ctx, partition, stored); err != nil {
		return err
	}
	e.purged[partition] = stored
	return nil
}

func (e *Engine) retain(ctx context.Context) {
	r := e.view.Snapshot().Retention
	if r == nil {
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
