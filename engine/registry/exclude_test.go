package registry

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"
)

func TestExclude(t *testing.T) {
	declared := []Object{
		&Customer{Addr: NewAddress(KindCustomer, "a"), Parent: "z"}, &Customer{Addr: NewAddress(KindCustomer, "z")},
		&Project{Addr: NewAddress(KindProject, "a", "p")},
		&Parameter{Addr: NewAddress(KindParameter, "a", "p", "v")}, &Threshold{Addr: NewAddress(KindThreshold, "a", "p", "v", "high")},
		&Site{Addr: NewAddress(KindSite, "a", "p", "n")}, &Site{Addr: NewAddress(KindSite, "a", "p", "n2")},
		&Device{Addr: NewAddress(KindDevice, "a", "p", "n", "d"), Parameters: []string{"v"}}, &Device{Addr: NewAddress(KindDevice, "a", "p", "n2", "d")},
		&Retention{Addr: RetentionAddress},
	}
	silent := slices.Clone(declared)
	silent[7] = &Device{Addr: NewAddress(KindDevice, "a", "p", "n", "d")}
	nothing, all, without := NewSnapshot(nil), Declare(declared), Declare(slices.Delete(slices.Clone(silent), 3, 5))
	moved := Declare(slices.Replace(slices.Clone(declared), 5, 6, Object(&Site{Addr: NewAddress(KindSite, "a", "p", "n3")}))[:6])
	moved.Moves = []Moved{{From: NewAddress(KindSite, "a", "p", "n"), To: NewAddress(KindSite, "a", "p", "n3")}}
	for _, c := range []struct {
		current, desired        *Snapshot
		addresses, want, silent string
	}{
		{nothing, all, "site.a/p/n", "+retention.telemetry +customer.z +customer.a +project.a/p +site.a/p/n2 +parameter.a/p/v +threshold.a/p/v/high +device.a/p/n2/d", ""},
		{nothing, all, "parameter.a/p/v", "+retention.telemetry +customer.z +customer.a +project.a/p +site.a/p/n +site.a/p/n2 +device.a/p/n2/d", "device.a/p/n/d"},
		{nothing, all, "customer.z retention.telemetry", "", "customer.a project.a/p site.a/p/n site.a/p/n2 parameter.a/p/v threshold.a/p/v/high device.a/p/n/d device.a/p/n2/d"},
		{asApplied(declared), nothing, "device.a/p/n/d",
			"-device.a/p/n2/d -threshold.a/p/v/high -site.a/p/n2 -retention.telemetry", "parameter.a/p/v site.a/p/n project.a/p customer.a customer.z"},
		{asApplied(declared), without, "device.a/p/n/d", "-threshold.a/p/v/high", "parameter.a/p/v"},
		{asApplied(declared), moved, "device.a/p/n/d", "-device.a/p/n2/d -site.a/p/n2 -retention.telemetry", "site.a/p/n3"},
		{asApplied(declared), all, "customer.a", "", ""},
	} {
		part := Diff(c.current, c.desired).Exclude(parse(t, c.addresses))
		if got := addressesOf(part.Changes); got != c.want || !slices.Equal(part.LeftOut, parse(t, c.silent)) || !part.Partial() {
			t.Errorf("%s:\ngot  %s, without %s\nwant %s, without %s", c.addresses, got, part.LeftOut, c.want, c.silent)
		}
	}
}

// What is excluded is as it was, what destroys nothing keeps everything, and either can be applied by itself: whatever an object
// needs is there, and the rest can follow.
func TestLeavingOutProperties(t *testing.T) {
	parts, leftOut := 0, 0
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 3))
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
		addresses := []Address{plan.Changes[r.IntN(len(plan.Changes))].Address}
		part := plan.Exclude(addresses)
		if seed%3 == 0 {
			addresses, part = nil, plan.KeepAll()
		}
		follows(t, seed, part, current)
		rest := plan.Changes
		for _, c := range part.Changes {
			i := slices.IndexFunc(rest, func(o Change) bool { return reflect.DeepEqual(o, c) })
			if i < 0 {
				t.Fatalf("seed %d: %s is not in the plan, or not there: %s", seed, c.Address, addressesOf(plan.Changes))
			}
			rest = rest[i+1:]
		}
		if len(part.Changes)+len(part.LeftOut) < len(plan.Changes) {
			parts++
		}
		if len(part.LeftOut) > 0 {
			leftOut++
		}
		after := applied(t, current, part)
		was := map[uuid.UUID]Object{}
		for o := range current.Objects {
			was[IDOf(o)] = o
			now := after.find(o.Address())
			if d, ok := now.(*Device); ok && d.GatewayID == o.(*Device).GatewayID { // it may have another address
				same := *d
				same.Gateway = o.(*Device).Gateway
				now = &same
			}
			switch {
			case o.Address().Within(setOf(addresses)) && (now == nil || !reflect.DeepEqual(now.Fields(), o.Fields()) || *now.status() != *o.status()):
				t.Fatalf("seed %d, without %s: %s is touched\n%s", seed, addresses, o.Address(), shown(part))
			case addresses == nil && len(part.Changes) > 0 && part.Count().Deletes > 0:
				t.Fatalf("seed %d: something is destroyed\n%s", seed, shown(part))
			}
		}
		for o := range after.Objects {
			for _, a := range needs(o) {
				if Retired(o) {
					continue
				}
				if wants := desired.find(o.Address()); wants != nil && slices.Contains(needs(wants), a) && desired.find(a) == nil {
					continue // the declaration is no better
				}
				before := was[IDOf(o)]
				if before != nil && before.Address() != o.Address() && !part.affects(o.Address()) {
					continue // a device goes along with its site, also to where its parameters are not
				}
				if before != nil && slices.ContainsFunc(needs(before), func(a Address) bool { return current.find(a) == nil }) {
					continue // the registry was no better
				}
				if need := after.find(a); need == nil || Retired(need) {
					t.Fatalf("seed %d, without %s: %s needs %s, which is gone\n%s\nof\n%s\nalso %s, moves %v", seed, addresses, o.Address(), a, shown(part), shown(plan), part.LeftOut, desired.Moves)
				}
			}
		}
		if next := Diff(after, desired); next.Refusal() != nil {
			t.Fatalf("seed %d, without %s: the rest is refused: %v\n%s\nof\n%s", seed, addresses, next.Refusal(), shown(part), shown(plan))
		}
	}
	if parts < 1000 || leftOut < 200 {
		t.Errorf("only %d plans were reduced, %d of them by more than was asked for", parts, leftOut)
	}
}
