package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/config"
)

// The declarations must be what the benchmark says it measures: the same estate in both forms, but for its sites.
func TestEstates(t *testing.T) {
	for _, literal := range []bool{false, true} {
		dir := t.TempDir()
		e := estate{"test", 250, literal}
		slow := 0
		for _, changed := range []bool{false, true} {
			if err := e.write(dir, changed); err != nil {
				t.Fatal(err)
			}
			snapshot, _, diags := config.Load(filepath.Join(dir, "estate.hcl"))
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if len(snapshot.Devices) != e.Devices {
				t.Errorf("%v", snapshot)
			}
			for _, d := range snapshot.Devices {
				if d.Interval.Seconds() == 20 {
					slow++
				}
			}
			if changed != (slow > 0) {
				t.Errorf("literal %v, changed %v: %d devices are changed", literal, changed, slow)
			}
		}
		if slow != e.Devices/10 {
			t.Errorf("literal %v: %d devices of %d are changed", literal, slow, e.Devices)
		}
	}
}

func TestResult(t *testing.T) {
	m := func(seconds, mib float64) measured {
		out := measured{}
		for _, step := range steps {
			out[step.name] = []sample{{seconds * 3, 1, mib}, {seconds, 1, mib}, {seconds / 2, 1, mib}}
		}
		return out
	}
	r := newResult(3)
	r.add(estates[1], m(2.5, 100))
	r.add(estates[2], m(20, 2000))
	r.compare()
	text := string(r.table())
	for _, want := range []string{
		"2.50      1.00       100  seconds ≤ 2: NOT MET; mib ≤ 600: met;", "seconds ≤ 3: met;",
		"growth of seconds ≤ 1: met; growth of mib ≤ 1: NOT MET; growth 0.80 in time, 0.10 in CPU time, 2.00 in memory", "28 s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestChoose(t *testing.T) {
	if list, err := choose("literal-10k,csv-1m"); err != nil || fmt.Sprint(list) != "[{literal-10k 10000 true} {csv-1m 1000000 false}]" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := choose("csv-2m"); err == nil || !strings.Contains(err.Error(), "csv-100k") {
		t.Errorf("%v", err)
	}
}
