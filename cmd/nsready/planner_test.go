package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/registry"
)

func TestJudge(t *testing.T) {
	gone := registry.Change{Action: registry.Delete}
	for _, c := range []struct {
		plan         registry.Plan
		failOn, most string
		want         string
	}{
		{registry.Plan{Changes: []registry.Change{gone}, Drift: 2, DataLoss: true}, "", "", ""},
		{registry.Plan{Changes: []registry.Change{gone}, Drift: 2, DataLoss: true}, "data-loss,drift,destroy", "", "destroy drift data-loss"},
		{registry.Plan{Drift: 2}, "drift", "", "drift"},
		{registry.Plan{DataLoss: true}, "data-loss,destroy", "", "data-loss"},
		{registry.Plan{Changes: []registry.Change{{Action: registry.Create}}}, "data-loss,drift,destroy", "0", ""},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 10), Managed: 10}, "", "", ""},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 11), Managed: 219}, "", "", "max-destroy"},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 11), Managed: 220}, "", "", ""},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 11), Managed: 220}, "", "4%", "max-destroy"},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 11), Managed: 220}, "destroy", "5", "destroy max-destroy"},
		{registry.Plan{Changes: slices.Repeat([]registry.Change{gone}, 11), Managed: 11}, "", "100%", ""},
	} {
		var p planner
		for _, err := range []error{set(&p.failOn, c.failOn), set(&p.maxDestroy, c.most)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(failedOn(p.judge(&c.plan)), " "); got != c.want {
			t.Errorf("-fail-on=%s -max-destroy=%s of %d changes: %q, want %q", c.failOn, c.most, len(c.plan.Changes), got, c.want)
		}
	}
}

// set gives a flag a value, unless it has none.
func set(f interface{ Set(string) error }, text string) error {
	if text == "" {
		return nil
	}
	return f.Set(text)
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
