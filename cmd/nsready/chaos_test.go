package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsready/nsready/chaos"
)

// TestNothingAcknowledgedIsLost runs each scenario with several faults, under so much load that requests, frames and flushes
// are under way at most moments.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	for _, sc := range chaos.Scenarios {
		t.Run(sc.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			s, err := chaos.Start(ctx, chaos.Options{Binary: binary(t), Config: "../../nsready.hcl", Data: filepath.Join(t.TempDir(), "data")})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Stop(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}()
			r, err := chaos.Run(ctx, sc, s, chaos.Load{Rate: 250, Batch: 100, Faults: 5, Every: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Ok() {
				t.Errorf("the promise is broken: %+v", r)
			}
			t.Logf("%d faults: %+v of %+v", r.Faults, r.Load.Values, r.Load.Answers)
		})
	}
}

// TestPowerCut cuts the power of the file system that the queue, the database and its log are on.
func TestPowerCut(t *testing.T) {
	volume, err := chaos.NewVolume()
	if err != nil {
		fmt.Fprintln(os.Stderr, "WARNING: power cuts are NOT TESTED, which takes root and loop devices:", err)
		t.Skip(err)
	}
	defer func() {
		if err := volume.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s, err := chaos.Start(ctx, chaos.Options{Binary: binary(t), Config: "../../nsready.hcl", Volume: volume, Flags: []string{"-queue-size", "64MiB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name string
		do   int
		load chaos.Load
	}{
		{"under load", 0, chaos.Load{Rate: 150, Batch: 100, Faults: 3, Every: time.Second}},
		{"nearly idle", 0, chaos.Load{Rate: 5, Batch: 1, Faults: 2, Every: time.Second}},
		{"big batches", 0, chaos.Load{Rate: 5, Batch: 5000, Faults: 2, Every: time.Second}},
		{"in recovery", 1, chaos.Load{Rate: 150, Batch: 100, Faults: 2, Every: time.Second}},
		{"in a purge", 2, chaos.Load{Rate: 150, Batch: 100, Faults: 2, Every: time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			was := len(s.Recoveries())
			r, err := chaos.Run(ctx, chaos.PowerCuts[c.do], s, c.load)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Ok() {
				text, err := os.ReadFile(s.Log())
				t.Errorf("the promise is broken: %+v\nlogged: %s, %v", r, text, err)
			}
			t.Logf("%d cuts: %+v of %+v; ready again after %v", r.Faults, r.Load.Values, r.Load.Answers, s.Recoveries()[was:])
		})
	}
}
