package registry

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func addressesOf(changes []Change) string {
	var list []string
	for _, c := range changes {
		list = append(list, string(rune(c.Action))+c.Address.String())
	}
	return strings.Join(list, " ")
}

func parse(t *testing.T, text string) (list []Address) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		a, err := ParseAddress(word)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func TestTarget(t *testing.T) {
	declared := []Object{
		&Customer{Addr: NewAddress(KindCustomer, "a"), Parent: "z"}, &Customer{Addr: NewAddress(KindCustomer, "z")},
		&Project{Addr: NewAddress(KindProject, "a", "p")},
		&Parameter{Addr: NewAddress(KindParameter, "a", "p", "v")}, &Threshold{Addr: NewAddress(KindThreshold, "a", "p", "v", "high")},
		&Parameter{Addr: NewAddress(KindParameter, "a", "p", "n")},
		&Site{Addr: NewAddress(KindSite, "a", "p", "n")}, &Site{Addr: NewAddress(KindSite, "a", "p", "n2")},
		&Device{Addr: NewAddress(KindDevice, "a", "p", "n", "d"), Parameters: []string{"v"}}, &Device{Addr: NewAddress(KindDevice, "a", "p", "n2", "d")},
		&Retention{Addr: RetentionAddress},
	}
	nothing, all := NewSnapshot(nil), Declare(declared)
	for _, c := range []struct {
		current, desired *Snapshot
		targets, want    string
	}{
		{nothing, all, "device.a/p/n/d", "+customer.z +customer.a +project.a/p +site.a/p/n +parameter.a/p/v +device.a/p/n/d"},
		{nothing, all, "site.a/p/n2", "+customer.z +customer.a +project.a/p +site.a/p/n2 +device.a/p/n2/d"},
		{nothing, all, "parameter.a/p/n", "+customer.z +customer.a +project.a/p +parameter.a/p/n"},
		{nothing, all, "threshold.a/p/v/high", "+customer.z +customer.a +project.a/p +parameter.a/p/v +threshold.a/p/v/high"},
		{nothing, all, "retention.telemetry customer.z", "+retention.telemetry +customer.z"},
		{asApplied(declared), nothing, "site.a/p/n", "-device.a/p/n/d -site.a/p/n"},
		{asApplied(declared), nothing, "parameter.a/p/v", "-threshold.a/p/v/high -parameter.a/p/v"},
		{asApplied(declared), all, "customer.a", ""},
	} {
		plan := Diff(c.current, c.desired)
		if got := addressesOf(plan.Target(parse(t, c.targets)).Changes); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.targets, got, c.want)
		}
	}
}

// A targeted plan is a part of the whole one, in its order. It can be applied by itself, and leaves nothing to do for its target.
func TestTargetProperties(t *testing.T) {
	parts := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		current, desired := asApplied(randomObjects(r)), Declare(randomObjects(r))
		for _, s := range []*Snapshot{current, desired} {
			for _, c := range s.Customers {
				if s.find(NewAddress(KindCustomer, c.Parent)) == nil {
					c.Parent = ""
				}
			}
		}
		if seed%2 == 0 {
			desired.Moves = randomMoves(r, current, desired)
		}
		plan := Diff(current, desired)
		if plan.Empty() || plan.Refusal() != nil {
			continue
		}
		target := []Address{plan.Changes[r.IntN(len(plan.Changes))].Address}
		part := plan.Target(target)
		rest := plan.Changes
		for _, c := range part.Changes {
			i := slices.IndexFunc(rest, func(o Change) bool { return reflect.DeepEqual(o, c) })
			if i < 0 {
				t.Fatalf("seed %d: %s is not in the plan, or not there: %s", seed, c.Address, addressesOf(plan.Changes))
			}
			rest = rest[i+1:]
			lets := slices.ContainsFunc(part.Changes, func(gone Change) bool {
				return gone.Action == Delete && c.Before != nil && slices.Contains(needs(c.Before), gone.Address)
			})
			if c.Action == Update && len(desired.Moves) == 0 && !c.Address.Within(setOf(target)) && !lets {
				t.Fatalf("seed %d: %s is updated for %s", seed, c.Address, target)
			}
		}
		if len(part.Changes) < len(plan.Changes) {
			parts++
		}
		after := applied(t, current, part)
		for o := range after.Objects {
			for _, a := range needs(o) {
				if len(desired.Moves) > 0 || Retired(o) || !part.affects(a) {
					continue
				}
				if wants := desired.find(o.Address()); wants == nil || slices.Contains(needs(wants), a) {
					continue // it is to go itself, or the declaration is no better
				}
				if need := after.find(a); need == nil || Retired(need) {
					t.Fatalf("seed %d, %s: %s needs %s, which is gone", seed, target, o.Address(), a)
				}
			}
		}
		if left := Diff(after, desired).Target(target); !left.Empty() || left.Refusal() != nil {
			t.Fatalf("seed %d, %s: left\n%s\nof\n%s\nof\n%s", seed, target, shown(left), shown(part), shown(plan))
		}
	}
	if parts < 1000 {
		t.Errorf("only %d plans were reduced", parts)
	}
}

// affects reports whether a plan has a change of the object at an address.
func (p *Plan) affects(a Address) bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Address == a || c.From != nil && *c.From == a })
}

func TestPlanPurge(t *testing.T) {
	const live, retired, foreign = 1, 2, 3
	registry := func(objects map[string]int) *Snapshot {
		var list []Object
		for text, state := range objects {
			text, parent, _ := strings.Cut(text, "^")
			a := parse(t, text)[0]
			s := Status{Managed: state != foreign, Retired: state == retired}
			var o Object
			switch a.Kind {
			case KindCustomer:
				o = &Customer{Addr: a, Status: s, Parent: parent}
			case KindProject:
				o = &Project{Addr: a, Status: s}
			case KindSite:
				o = &Site{Addr: a, Status: s}
			case KindDevice:
				o = &Device{Addr: a, Status: s}
			case KindParameter:
				o = &Parameter{Addr: a, Status: s}
			case KindThreshold:
				o = &Threshold{Addr: a, Status: s}
			}
			list = append(list, o)
		}
		return NewSnapshot(list)
	}
	gone := map[string]int{
		"customer.a": retired, "project.a/p": retired, "site.a/p/n": retired, "site.a/p/n2": live, "parameter.a/p/n": retired,
		"threshold.a/p/n/high": foreign, "device.a/p/n/d": retired, "device.a/p/n/e": retired, "device.a/p/n2/f": foreign, "device.a/p/n2/g": retired,
		"customer.b": retired, "customer.c^b": live, "customer.d": retired, "customer.e^d": retired,
		"parameter.a/p/l": live, "threshold.a/p/l/high": live,
	}
	for _, c := range []struct{ addresses, allowed, changes, allow, problem string }{
		{addresses: "device.a/p/n/d", changes: "xdevice.a/p/n/d"},
		{"site.a/p/n", "site.a/p/n", "xdevice.a/p/n/e xdevice.a/p/n/d xsite.a/p/n", "site.a/p/n device.a/p/n/d device.a/p/n/e", ""},
		{"site.a/p/n", "device.a/p/n/e", "xdevice.a/p/n/e xdevice.a/p/n/d xsite.a/p/n", "device.a/p/n/e", ""},
		{addresses: "parameter.a/p/n", changes: "xthreshold.a/p/n/high xparameter.a/p/n"},
		{addresses: "customer.d", changes: "xcustomer.d"},
		{addresses: "site.a/p/n2", problem: "site.a/p/n2 is not retired: take it out of the declaration and apply that\n" +
			"device.a/p/n2/f belongs to what would be purged, and is not retired: it was made outside nsready, delete it there or declare it, then retire it"},
		{addresses: "threshold.a/p/l/high", problem: "threshold.a/p/l/high is not retired: take it out of the declaration and apply that"},
		{addresses: "customer.b", problem: "customer.b is the parent of customer.c, which is not retired: give that another parent first"},
		{addresses: "customer.x", problem: "there is no customer.x in the registry"},
		{addresses: "device.a/p/n/d", allowed: "site.a/p/n", problem: "loss of data is allowed for site.a/p/n, which would not be purged"},
	} {
		plan, err := PlanPurge(registry(gone), parse(t, c.addresses), parse(t, c.allowed))
		if err != nil || c.problem != "" {
			if err == nil || err.Error() != c.problem {
				t.Errorf("%s: %v, want %s", c.addresses, err, c.problem)
			}
			continue
		}
		var allow []string
		for _, a := range plan.AllowDataLoss {
			allow = append(allow, a.String())
		}
		if got := addressesOf(plan.Changes); got != c.changes || strings.Join(allow, " ") != c.allow {
			t.Errorf("%s: %s, allowed %s\nwant %s, allowed %s", c.addresses, got, allow, c.changes, c.allow)
		}
	}
}
