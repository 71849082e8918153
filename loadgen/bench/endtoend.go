package main

import (
	"cmp"
	"context"
	"time"
)

// batches measures NDJSON of 100 events a request, from the first request to the last commit, and the memory it takes.
func batches(ctx context.Context, b *bench, r *round) error {
	memory, err := watchMemory(b.service.process.pid())
	if err != nil {
		return err
	}
	defer memory.stop()
	var values int
	var untilCommit time.Duration
	var untilAnswer, p99, cpu float64
	var remark string
	for range b.size.chunks {
		o, err := b.service.store(ctx, load{seq: b.service.seq, connections: batchConnections, batch: batchEvents, turns: b.size.chunkTurns})
		if err != nil {
			return err
		}
		values += o.values
		untilCommit += o.untilCommit
		untilAnswer += o.Seconds
		p99 = max(p99, o.Latency.P99)
		cpu = max(cpu, o.CPU)
		remark = cmp.Or(remark, o.Bound())
	}
	peak, err := memory.stop()
	if err != nil {
		return err
	}
	r.set("x100.values", float64(values)/untilCommit.Seconds(), remark)
	r.set("x100.acknowledged", float64(values)/untilAnswer, remark)
	r.set("x100.p99", p99, "")
	r.set("x100.generator", 100*cpu, "")
	r.set("x100.memory", peak, "")
	return nil
}

// smallBatches measures NDJSON of 10 events a request.
func smallBatches(ctx context.Context, b *bench, r *round) error {
	o, err := b.service.store(ctx, load{seq: b.service.seq, connections: batchConnections, batch: 10, turns: b.size.x10Turns})
	if err != nil {
		return err
	}
	r.set("x10.values", o.perSecond(), o.Bound())
	r.set("x10.generator", 100*o.CPU, "")
	return nil
}

// singleEvents measures one event a request.
func singleEvents(ctx context.Context, b *bench, r *round) error {
	memory, err := watchMemory(b.service.process.pid())
	if err != nil {
		return err
	}
	defer memory.stop()
	o, err := b.service.store(ctx, load{seq: b.service.seq, connections: singleConnections, batch: 1, turns: b.size.singleTurns})
	if err != nil {
		return err
	}
	peak, err := memory.stop()
	if err != nil {
		return err
	}
	r.set("single.values", o.perSecond(), o.Bound())
	r.set("single.requests", o.PerSecond(), o.Bound())
	r.set("single.p99", o.Latency.P99, "")
	r.set("single.generator", 100*o.CPU, "")
	r.set("single.memory", peak, "")
	return nil
}
