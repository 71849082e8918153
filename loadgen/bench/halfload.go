package main

import (
	"context"
)

// halfLoad measures how long answers take at half of the rates that the round's maxima have shown. The requests come on a
// schedule, whatever the answers, and latency counts from the moment a request was due.
func halfLoad(ctx context.Context, b *bench, r *round) error {
	for _, kind := range []struct {
		key string
		load
	}{
		{"single", load{connections: singleConnections, batch: 1, turns: b.size.halfSingles}},
		{"x100", load{connections: batchConnections, batch: batchEvents, turns: b.size.halfBatches}},
	} {
		kind.seq = b.service.seq
		kind.rate = r.figures[kind.key+".values"] / float64(parameters*kind.batch) / 2
		o, err := b.service.store(ctx, kind.load)
		if err != nil {
			return err
		}
		remark := o.Bound()
		r.set("half."+kind.key+".rate", kind.rate, "")
		r.set("half."+kind.key+".p50", o.Latency.P50, remark)
		r.set("half."+kind.key+".p99", o.Latency.P99, remark)
		r.set("half."+kind.key+".p99_9", o.Latency.P999, remark)
		r.set("half."+kind.key+".generator", 100*o.CPU, "")
	}
	return nil
}
