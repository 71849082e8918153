package ingest

import (
	"fmt"
	"testing"

	"github.com/nsready/nsready/engine/registry"
)

func TestPendingCountsWhatMayBeOnItsWay(t *testing.T) {
	d := &registry.Discovery{MaxDevices: 2, MaxEvents: 6, MaxEventsPerDevice: 4}
	var p Pending
	takes := func(what, devices string, want string) {
		t.Helper()
		got := ""
		for _, device := range devices {
			if p.take(string(device), d) {
				got += string(device)
			}
		}
		if got != want {
			t.Errorf("%s: of %s it takes %q, want %q", what, devices, got, want)
		}
	}
	stored := func(counts string) map[string]int64 {
		m := map[string]int64{}
		for _, device := range counts {
			m[string(device)]++
		}
		return m
	}
	takes("a device's share, two devices, and room for six", "aaaaabbbbc", "aaaabb")
	if p.Settle(stored(""), false) != true || !p.has("a") || p.Count() != 2 {
		t.Error("what the database has not got yet is forgotten")
	}
	takes("nothing is stored yet", "ab", "")
	if p.Settle(stored("aaaabb"), false) {
		t.Error("what may be on its way is forgotten")
	}
	takes("counted twice, to be sure", "ab", "")
	if !p.Settle(stored("aab"), true) {
		t.Error("what is stored is not forgotten")
	}
	takes("some of it was dropped", "aaabbc", "aab")
	p.Settle(stored(""), true)
	takes("what came since counts on", "aaaab", "aab")
	p.Settle(stored(""), true)
	p.Settle(stored(""), true)
	if p.Count() != 0 {
		t.Errorf("%d devices wait in vain", p.Count())
	}
	many := map[string]int64{}
	for i := range 5 {
		many[fmt.Sprint("other ", i)] = 1
	}
	p.Settle(many, true) // taken by other processes
	takes("there are too many already", "a", "")
}
