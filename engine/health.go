package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/api"
)

// depth is the queue's depth in events.
type depth struct{ QueueDepth, Pending, AckPending int64 }

func (e *Engine) depth() (d depth) {
	for i, p := range e.queue.Partitions() {
		_, stored := e.workers[i].Stored()
		taken := e.workers[i].Taken()
		in := p.Events()
		d.Pending += max(0, int64(in-taken))
		d.AckPending += max(0, int64(taken-stored))
	}
	d.QueueDepth = d.Pending + d.AckPending
	return d
}

func (e *Engine) queueBytes() (sum float64) {
	for _, p := range e.queue.Partitions() {
		sum += float64(p.Bytes())
	}
	return sum
}

// health answers /v1/health. It asks nobody: what it tells is kept up to date by watchHealth.
func (e *Engine) health() api.Health {
	d := e.depth()
	h := api.Health{
		Service: "ok", DB: "connected", QueueDepth: d.QueueDepth, Status: "normal", Durability: "fsync", Storage: e.store.Storage(),
		Queue: api.QueueHealth{Consumer: "ingest_workers", Pending: d.Pending, AckPending: d.AckPending, WaitingPulls: int64(len(e.workers))},
	}
	h.Problems = append(h.Problems, e.problems...)
	// Why is in the log: health is for everybody to read.
	if e.dbError.Load() != nil {
		h.DB = "disconnected"
		h.Problems = append(h.Problems, "database: does not answer")
	}
	if r := e.queue.Refusal(); r != nil {
		h.Problems = append(h.Problems, "queue: "+r.Code)
	}
	for i, w := range e.workers {
		if n := w.Missing(); n > 0 {
			h.Problems = append(h.Problems, fmt.Sprintf("queue: %d frames are missing from partition %d: acknowledged events are lost", n, i))
		}
		if w.Err() != nil {
			h.Problems = append(h.Problems, fmt.Sprintf("worker: partition %d cannot be stored just now", i))
		}
	}
	for _, p := range e.view.Snapshot().Platform {
		if p.Addr.Name() != "queue_depth" {
			continue
		}
		if p.Critical.Set && float64(d.QueueDepth) > p.Critical.Value {
			h.Status = "critical"
		} else if p.Warning.Set && float64(d.QueueDepth) > p.Warning.Value {
			h.Status = "warning"
		}
	}
	if len(h.Problems) > 0 {
		h.Service = "degraded"
	}
	return h
}

// ready tells whether the collector can take events.
func (e *Engine) ready() error {
	if r := e.queue.Refusal(); r != nil {
		return errors.New("queue: " + r.Code)
	}
	return nil
}

// watchHealth pings the database, measures the rate and marks how far the queue has got, every second.
func (e *Engine) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	const weight = 0.2 // of the newest second in the rate
	last, rate, markless := e.accepted.Load(), 0.0, false
	for n := 0; ; n++ {
		ping, cancel := context.WithTimeout(ctx, 2*time.Second)
		start := time.Now()
		err := e.store.Ping(ping)
		if err == nil {
			e.metrics.dbLatency.Observe(time.Since(start).Seconds())
			if n%lastPacketEvery == 0 {
				err = e.measureSites(ping)
			}
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			e.dbError.Store(&err)
		} else {
			e.dbError.Store(nil)
		}
		setStatus(e.metrics.dbStatus, err == nil)
		if err := e.writeMarks(); err != nil && !markless {
			e.log.Error("frames that go missing at the queue's end would not be noticed", "err", err)
			markless = true
		} else if err == nil {
			markless = false
		}
		now := e.accepted.Load()
		rate += weight * (float64(now-last) - rate)
		last = now
		e.metrics.rate.Set(rate)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lastPacketEvery is how many seconds pass from one look at the sites' newest events to the next.
const lastPacketEvery = 15

func (e *Engine) measureSites(ctx context.Context) error {
	newest, err := e.store.NewestBySite(ctx)
	for site, at := range newest {
		e.metrics.lastPacket.WithLabelValues(site.String()).Set(float64(at.UnixMicro()) / 1e6)
	}
	return err
}

func setStatus(g *prometheus.GaugeVec, connected bool) {
	up, down := 0.0, 1.0
	if connected {
		up, down = 1, 0
	}
	g.WithLabelValues("connected").Set(up)
	g.WithLabelValues("disconnected").Set(down)
}

// Depth returns how many events are acknowledged and not stored yet.
func (e *Engine) Depth() int64 { return e.depth().QueueDepth }
