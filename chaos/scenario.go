// Package chaos does faults to a running service under load, and checks that what it had acknowledged is stored, once.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/loadgen"
)

// Scenario is load, and a fault that happens to it again and again.
type Scenario struct {
	Name string
	Do   func(ctx context.Context, s *System) error // injects the fault and heals it
}

// Scenarios lists what there is for any system.
var Scenarios = []Scenario{
	{"service-kill", func(ctx context.Context, s *System) error {
		if err := s.Kill(); err != nil {
			return err
		}
		return s.Restart(ctx)
	}},
	{"database-kill", func(ctx context.Context, s *System) error {
		return s.KillDatabase(ctx)
	}},
}

// PowerCuts lists what there is for a system on a Volume.
var PowerCuts = []Scenario{
	{"power-cut", func(ctx context.Context, s *System) error {
		if err := s.CutPowerAfter(ctx, time.Second); err != nil {
			return err
		}
		return s.Restart(ctx)
	}},
	{"power-cut-in-recovery", func(ctx context.Context, s *System) error {
		if err := s.CutPowerAfter(ctx, time.Second); err != nil {
			return err
		}
		collector, err := s.collector()
		if err == nil {
			err = s.begin(collector)
		}
		if err == nil {
			err = s.CutPowerAfter(ctx, time.Second)
		}
		if err != nil {
			return err
		}
		return s.Restart(ctx)
	}},
	{"power-cut-in-purge", func(ctx context.Context, s *System) error {
		if err := s.AwaitPurge(ctx); err != nil {
			return err
		}
		if err := s.CutPowerAfter(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		return s.Restart(ctx)
	}},
}

// KillAt is a scenario in which the service is killed at the failpoint, each time when it comes there for the first to the
// most-th time. It needs a binary that was built with the tag chaos, and a declaration that may be changed.
func KillAt(point string, most int) Scenario {
	return Scenario{"kill-at-" + point, func(ctx context.Context, s *System) error {
		return s.KillAt(ctx, point, 1+rand.N(most))
	}}
}

// Load says how a scenario is run.
type Load struct {
	Rate   float64 // requests a second
	Batch  int     // events a request
	Faults int
	Every  time.Duration // from one fault to the next
}

// Report is what came of a scenario.
type Report struct {
	Scenario string         `json:"scenario"`
	Faults   int            `json:"faults"`
	Load     loadgen.Report `json:"load"`
}

// Ok reports whether the fault bit and nothing that was acknowledged was lost, stored twice or altered.
func (r *Report) Ok() bool { return r.Load.Ok() && r.Faults > 0 }

// Run puts load on the system, does the faults, and verifies.
func Run(ctx context.Context, sc Scenario, s *System, l Load) (Report, error) {
	r := Report{Scenario: sc.Name}
	db, err := store.Open(ctx, s.Ready().DatabaseURL)
	if err != nil {
		return r, err
	}
	snapshot, err := db.LoadRegistry(ctx)
	db.Close()
	if err != nil {
		return r, err
	}
	g, gctx := errgroup.WithContext(ctx)
	sending, stop := context.WithCancel(gctx)
	defer stop()
	g.Go(func() error {
		var err error
		// A restart may give the database another port, so that it is looked up when it is asked.
		r.Load, err = loadgen.Run(sending, loadgen.Options{
			Target: s.Ready().Collector, Snapshot: snapshot, Stored: stored{s}, Rate: l.Rate, Batch: l.Batch,
			Timeout: 5 * time.Second, DrainTimeout: 2 * time.Minute,
		})
		if err != nil && !errors.Is(err, loadgen.ErrSaturated) { // the rate is not what is judged
			return fmt.Errorf("load: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer stop() // the load ends with the last fault healed
		tick := time.NewTicker(l.Every)
		defer tick.Stop()
		for range l.Faults {
			select {
			case <-tick.C:
			case <-gctx.Done():
				return nil
			}
			if err := sc.Do(gctx, s); err != nil {
				return fmt.Errorf("%s, fault %d: %w", sc.Name, r.Faults+1, err)
			}
			r.Faults++
		}
		select {
		case <-tick.C:
		case <-gctx.Done():
		}
		return nil
	})
	err = g.Wait() // before r is copied
	return r, err
}
