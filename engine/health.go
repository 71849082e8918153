package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/api"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// depth is the queue's depth in events.
type depth struct{ QueueDepth, Pending, AckPending int64 }

func (e *Engine) depth() (d depth) {
	for i, p := range e.queue.Partitions() {
		stored, taken := e.stored(i)
		d.Pending += max(0, int64(p.Events()-taken))
		d.AckPending += max(0, int64(taken-stored.Events))
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
		Service: "ok", DB: "connected", QueueDepth: d.QueueDepth, Status: "normal", Durability: e.queue.Durability(), Storage: e.store.Storage(),
		Queue: api.QueueHealth{Consumer: "ingest_workers", Pending: d.Pending, AckPending: d.AckPending, WaitingPulls: int64(len(e.workers))},
	}
	h.Problems = append(h.Problems, e.problems...)
	// Why is in the log: health is for everybody to read.
	if e.dbError.Load() != nil {
		h.DB = "disconnected"
		h.Problems = append(h.Problems, "database: does not answer")
	}
	var problem string
	if h.Registry, problem = e.view.health(); problem != "" {
		h.Problems = append(h.Problems, problem)
	}
	if r := e.queue.Refusal(telemetry.Live); r != nil {
		h.Problems = append(h.Problems, "queue: "+r.Code)
	} else if r := e.queue.Refusal(telemetry.Backfill); r != nil {
		h.Problems = append(h.Problems, "queue of old events: "+r.Code)
	}
	if problem := e.queue.DurabilityProblem(); problem != "" {
		h.Problems = append(h.Problems, problem)
	}
	for i, w := range e.workers {
		if n := w.Missing(); n > 0 {
			h.Problems = append(h.Problems, fmt.Sprintf("queue: %d frames are missing from partition %d: acknowledged events are lost", n, i))
		}
		if c := e.claims[i].Load(); w.Err() != nil || c != nil && c.Waiting() > slowAnswer {
			h.Problems = append(h.Problems, fmt.Sprintf("worker: partition %d cannot be stored just now", i))
		}
	}
	if e.server != nil && e.server.Damaged() > 0 {
		h.Problems = append(h.Problems, fmt.Sprintf("queue: %d damaged frames were found in its files: acknowledged events may be lost", e.server.Damaged()))
	}
	if n := e.imbalance.Load(); n != 0 {
		h.Problems = append(h.Problems, fmt.Sprintf("ledger: %d events are unaccounted for", n))
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
	if r := e.queue.Refusal(telemetry.Live); r != nil {
		return errors.New("queue: " + r.Code)
	}
	return nil
}

// watchHealth pings the database, measures the rate and marks how far the queue has got, every second.
func (e *Engine) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	const weight = 0.2 // of the newest second in the rate
	last, rate, markless, blind := e.accepted.Load(), 0.0, false, false
	within := func(limit time.Duration, do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return do(ctx)
	}
	const patience = 2 * time.Second
	for n := 0; ; n++ {
		start := time.Now()
		err := within(patience, e.store.Ping)
		if err == nil {
			e.metrics.dbLatency.Observe(time.Since(start).Seconds())
			e.dbError.Store(nil)
		} else if ctx.Err() == nil {
			e.dbError.Store(&err)
		}
		setStatus(e.metrics.dbStatus, err == nil)
		if err == nil {
			err = within(patience, e.exchange)
		}
		if err == nil && n%lastPacketEvery == 0 {
			err = errors.Join(within(patience, e.measureSites), within(patience, e.measureLedger))
		}
		if err != nil && !blind && ctx.Err() == nil {
			e.log.Warn("not all of health is known just now", "err", err)
		}
		blind = err != nil
		e.freeWorkers(ctx)
		if err := e.writeMarks(); err != nil && !markless {
			e.log.Error("frames that go missing at the queue's end would not be noticed", "err", err)
			markless = true
		} else if err == nil {
			markless = false
		}
		e.rebase(ctx)
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

const (
	claimTimeout = 10 * time.Second // for a worker to claim its partition
	slowAnswer   = 3 * time.Second  // from the database to a worker, which health tells then
	goneAstray   = 6 * time.Second  // for a worker, when the database does not know of what the worker waits for
)

// freeWorkers makes workers begin again that wait for an answer that will not come: the database was asked something and does
// not know it, or does not answer anybody.
func (e *Engine) freeWorkers(ctx context.Context) {
	for i := range e.claims {
		c := e.claims[i].Load()
		if c == nil || c.Waiting() < goneAstray {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, slowAnswer)
		working, err := c.Working(asking)
		cancel()
		if !working && c.Waiting() >= goneAstray {
			e.log.Warn("the database does not answer a worker, which begins again", "partition", i, "waiting", c.Waiting(), "err", err)
			c.Abort()
		}
	}
}

// exchange tells the database how far the queue has got, and reads how far other processes have stored their partitions.
func (e *Engine) exchange(ctx context.Context) error {
	var streams []store.Stream
	var newest []telemetry.Offset
	for i, p := range e.queue.Partitions() {
		if last := p.Newest(); last.Seq > e.seen[i] {
			streams, newest = append(streams, store.Stream{Epoch: p.Epoch, Number: i}), append(newest, last)
		}
	}
	if len(streams) > 0 {
		if err := e.store.See(ctx, streams, newest); err != nil {
			return err
		}
		for i, s := range streams {
			e.seen[s.Number] = newest[i].Seq
		}
	}
	if e.crew.hasAll(len(e.workers)) {
		return nil
	}
	positions, err := e.store.Positions(ctx)
	if err != nil {
		return err
	}
	for i, p := range e.queue.Partitions() {
		for _, at := range positions {
			if at.Epoch == p.Epoch && at.Number == i {
				e.workers[i%len(e.workers)].Follow(i/len(e.workers), at.Stored)
			}
		}
	}
	return nil
}

// rebase sets the queue's counts right where everything is stored and nothing has happened for a second: damaged frames, and
// such as came twice, are counted differently by queue and workers.
func (e *Engine) rebase(ctx context.Context) {
	now := make([]telemetry.Offset, len(e.queue.Partitions()))
	for i, p := range e.queue.Partitions() {
		now[i], _ = e.stored(i)
		if e.told == nil || now[i] != e.told[i] || now[i].Seq != p.Last() || now[i].Events == p.Events() {
			continue
		}
		if err := e.queue.Rebase(ctx, i, now[i].Seq, now[i].Events); err != nil && ctx.Err() == nil {
			e.log.Error("the queue's depth is not exact", "err", err)
		}
	}
	e.told = now
}

// lastPacketEvery is how many seconds pass from one look at the sites' newest events, and the ledger, to the next.
const lastPacketEvery = 15

func (e *Engine) measureSites(ctx context.Context) error {
	newest, err := e.store.NewestBySite(ctx)
	for site, at := range newest {
		e.metrics.lastPacket.WithLabelValues(site.String()).Set(float64(at.UnixMicro()) / 1e6)
	}
	return err
}

func (e *Engine) measureLedger(ctx context.Context) error {
	n, err := e.store.LedgerImbalance(ctx)
	if err != nil {
		return err
	}
	if was := e.imbalance.Swap(n); n != was && n != 0 {
		e.log.Error("events are unaccounted for: see 'nsready ledger'", "events", n)
	}
	e.metrics.imbalance.Set(float64(n))
	return nil
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
