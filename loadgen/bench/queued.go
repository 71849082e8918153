package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// queued measures the memory of a fresh service that takes many small events while its worker cannot store any, and how
// soon it has stored them afterwards.
func queued(ctx context.Context, b *bench, r *round) (err error) {
	dir := filepath.Join(b.dir, "queued")
	s, err := startService(ctx, dir, b.binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx), os.RemoveAll(dir)) }()
	before, err := s.db.Committed(ctx)
	if err != nil {
		return err
	}
	release, err := s.db.Hold(ctx)
	if err != nil {
		return err
	}
	released := false
	defer func() {
		if !released {
			err = errors.Join(err, release())
		}
	}()
	filling, err := watchMemory(s.process.pid())
	if err != nil {
		return err
	}
	defer filling.stop()
	first, values, events := s.turn, 0, before
	var seconds float64
	for range b.size.queuedChunks {
		var o outcome
		_, sent, err := s.send(ctx, load{seq: s.sparse, connections: batchConnections, batch: batchEvents, turns: b.size.queuedTurns}, &o)
		if err != nil {
			return err
		}
		values += o.values
		events += sent
		seconds += o.Seconds
	}
	peak, err := filling.stop()
	if err != nil {
		return err
	}
	r.set("queued.events", float64(events-before), "")
	r.set("queued.filling", peak, "")
	r.set("queued.accepted", float64(events-before)/seconds, "")
	var samples []float64
	for range 20 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		mib, err := resident(s.process.pid())
		if err != nil {
			return err
		}
		samples = append(samples, mib)
	}
	r.set("queued.memory", median(samples), "")
	draining, err := watchMemory(s.process.pid())
	if err != nil {
		return err
	}
	defer draining.stop()
	released = true
	if err := release(); err != nil {
		return err
	}
	began := time.Now()
	if err := s.waitCommitted(ctx, events); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	if peak, err = draining.stop(); err != nil {
		return err
	}
	r.set("queued.draining", peak, "")
	r.set("queued.seconds", took, "")
	r.set("queued.drained", float64(events-before)/took, "")
	return s.check(ctx, first, values)
}
