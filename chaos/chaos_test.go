package chaos_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsready/nsready/chaos"
)

// binary builds the nsready that the scenarios run.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nsready")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nsready/nsready/cmd/nsready").CombinedOutput()
	if err != nil {
		t.Fatalf("building nsready: %v\n%s", err, out)
	}
	return path
}

// TestNothingAcknowledgedIsLost runs each scenario with several faults under load.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	nsready := binary(t)
	for _, sc := range chaos.Scenarios {
		t.Run(sc.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			s, err := chaos.Start(ctx, chaos.Options{Binary: nsready, Config: "../nsready.hcl", Data: filepath.Join(t.TempDir(), "data")})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Stop(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}()
			r, err := chaos.Run(ctx, sc, s, chaos.Load{Rate: 400, Batch: 20, Faults: 4, Every: 3 * time.Second})
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
