package main

import (
	"context"
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
