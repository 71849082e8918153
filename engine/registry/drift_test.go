package registry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Whatever two states there are, the changes between them lead from one to the other.
func TestFoldOfWhatIsBetween(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		var states []*Snapshot
		f := Fold{}
		for range 4 {
			states = append(states, asApplied(randomObjects(r)))
			next := states[len(states)-1]
			changes := Between(f.Snapshot(), next)
			n := len(f) + Growth(changes)
			f.Add(changes)
			if len(f) != n {
				t.Fatalf("seed %d: %d objects, want %d", seed, len(f), n)
			}
			if again := Between(f.Snapshot(), next); len(again) > 0 {
				t.Fatalf("seed %d: left are %+v", seed, again)
			}
			if got := NewFold(next); len(got) != len(f) {
				t.Fatalf("seed %d: %d objects, want %d", seed, len(f), len(got))
			}
		}
	}
}

// Random edits are told one by one, with the address that the object was applied at.
func TestDriftTellsRandomEdits(t *testing.T) {
	kinds := map[Hand]int{}
	told := func(kind Hand, a Address, fields []FieldChange) string { return fmt.Sprint(kind, " ", a, " ", fields) }
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 4))
		objects := randomObjects(r)
		applied := asApplied(objects)
		if d := Drift(applied, applied); len(d) > 0 {
			t.Fatalf("seed %d: a registry drifts from itself: %+v", seed, d)
		}
		var want []string
		var now []Object
		for o := range applied.Objects {
			d, ok := o.(*Device)
			if !ok {
				now = append(now, o)
				continue
			}
			c := d.clone().(*Device)
			switch r.IntN(6) {
			case 0:
				want = append(want, told(DeletedByHand, d.Addr, nil))
				if r.IntN(2) == 0 {
					c.Retired = true
					now = append(now, c)
				}
				continue
			case 1:
				c.Addr = Address{KindDevice, d.Addr.ParentPath() + "/renamed " + d.Addr.Name()}
				want = append(want, told(EditedByHand, d.Addr, []FieldChange{{"address", d.Addr.String(), c.Addr.String()}}))
			case 2:
				c.State, c.Type = "edited", "edited"
				want = append(want, told(EditedByHand, d.Addr, []FieldChange{{"type", d.Type, "edited"}, {"status", d.State, "edited"}}))
			case 3: // deleted, and made again by hand
				c.ID, c.Managed = uuid.New(), false
				want = append(want, told(EditedByHand, d.Addr, []FieldChange{{"managed_by", DefaultOwner, ""}}))
			case 4:
				made := d.clone().(*Device)
				made.ID, made.Managed, made.Addr.Path = uuid.New(), false, d.Addr.Path+" made"
				now = append(now, made)
				want = append(want, told(CreatedByHand, made.Addr, nil))
			}
			now = append(now, c)
		}
		var got []string
		for _, d := range Drift(applied, NewSnapshot(now)) {
			got = append(got, told(d.Kind, d.Address, d.Fields))
			kinds[d.Kind]++
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: drift is\n%q\nwant\n%q", seed, got, want)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("the edits were %v", kinds)
	}
}

// What hangs off a renamed object, or names it, was not edited.
func TestDriftOfARenamedParent(t *testing.T) {
	objects := func(group, site string) []Object {
		acme := NewAddress(KindCustomer, "acme")
		project := acme.Child(KindProject, "mill")
		north := project.Child(KindSite, site)
		return []Object{
			&Customer{Addr: NewAddress(KindCustomer, group)}, &Customer{Addr: acme, Parent: group}, &Project{Addr: project},
			&Site{Addr: north}, &Device{Addr: north.Child(KindDevice, "a"), Type: "meter"},
		}
	}
	applied, live := asApplied(objects("group", "north")), asApplied(objects("holding", "south"))
	live.Customers[1].ID, live.Sites[0].ID, live.Devices[0].ID = applied.Customers[1].ID, applied.Sites[0].ID, applied.Devices[0].ID
	drift := Drift(applied, live)
	if len(drift) != 2 || drift[0].Address.Name() != "group" || drift[1].Address.Name() != "north" || len(drift[0].Fields)+len(drift[1].Fields) != 2 {
		t.Errorf("drift is %+v", drift)
	}
}

func TestAttribute(t *testing.T) {
	device := func(name, status string) *Device {
		return &Device{Addr: NewAddress(KindDevice, "a", "p", "s", name), Type: "meter", State: status}
	}
	state := func(devices ...*Device) []Object {
		list := []Object{&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")}, &Site{Addr: NewAddress(KindSite, "a", "p", "s")}}
		for _, d := range devices {
			list = append(list, d)
		}
		return list
	}
	for _, c := range []struct {
		name                    string
		applied, live, declared *Device
		want                    Cause
	}{
		{"declared", nil, nil, device("d", "x"), ByConfig},
		{"edited by the declaration", device("d", "x"), device("d", "x"), device("d", "y"), ByConfig},
		{"edited by hand", device("d", "x"), device("d", "y"), device("d", "x"), ByHand},
		{"edited by both", device("d", "x"), device("d", "y"), device("d", "z"), ByBoth},
		{"deleted by hand", device("d", "x"), nil, device("d", "x"), ByHand},
		{"deleted by hand, and edited by the declaration", device("d", "x"), nil, device("d", "y"), ByBoth},
		{"no longer declared", device("d", "x"), device("d", "x"), nil, ByConfig},
		{"brought back by hand", nil, device("d", "x"), nil, ByHand},
	} {
		snapshot := func(d *Device) *Snapshot {
			if d == nil {
				return asApplied(state())
			}
			return asApplied(state(d))
		}
		live := snapshot(c.live)
		desired := state()
		if c.declared != nil {
			desired = state(c.declared)
		}
		plan := Diff(live, Declare(desired))
		plan.Attribute(snapshot(c.applied))
		if len(plan.Changes) != 1 || plan.Changes[0].Cause != c.want {
			t.Errorf("%s: %+v, want %s", c.name, plan.Changes, c.want)
		}
		plan.Attribute(nil)
		if plan.Changes[0].Cause != ByConfig {
			t.Errorf("%s: without drift it is %s", c.name, plan.Changes[0].Cause)
		}
	}
}

// Who moved an object is told by where the last apply left it, whatever it is called now.
func TestAttributeOfWhatMoved(t *testing.T) {
	objects := func(site, device, status string) []Object {
		s := NewAddress(KindSite, "a", "p", site)
		return []Object{
			&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")}, &Site{Addr: s},
			&Device{Addr: s.Child(KindDevice, device), Type: "meter", State: status},
		}
	}
	applied := asApplied(objects("s", "d", "x"))
	moved := func(kind Kind, from, to string) Moved {
		return Moved{From: Address{kind, "a/p/" + from}, To: Address{kind, "a/p/" + to}}
	}
	for _, c := range []struct {
		name     string
		live     []Object
		declared []Object
		moves    []Moved
		want     string
	}{
		{"renamed by hand", objects("s", "e", "x"), objects("s", "d", "x"), nil, "> device.a/p/s/d drift"},
		{"renamed by hand, and edited by the declaration", objects("s", "e", "x"), objects("s", "d", "y"), nil, "> device.a/p/s/d both"},
		{"renamed by the declaration", objects("s", "d", "x"), objects("s", "e", "x"), []Moved{moved(KindDevice, "s/d", "s/e")}, "> device.a/p/s/e config"},
		{"renamed by both", objects("s", "e", "x"), objects("s", "f", "x"), []Moved{moved(KindDevice, "s/e", "s/f")}, "> device.a/p/s/f both"},
		{"no longer declared, its site renamed by hand", objects("t", "d", "x"), objects("s", "d", "x")[:3], nil, "- device.a/p/t/d config > site.a/p/s drift"},
		{"edited by hand, its site renamed by the declaration", objects("s", "d", "y"), objects("t", "d", "x"), []Moved{moved(KindSite, "s", "t")},
			"> site.a/p/t config ~ device.a/p/t/d drift"},
	} {
		live, desired := asApplied(c.live), Declare(c.declared)
		live.Sites[0].ID, live.Devices[0].ID = applied.Sites[0].ID, applied.Devices[0].ID
		live = NewSnapshot(slices.Collect(live.Objects))
		desired.Moves = c.moves
		plan := Diff(live, desired)
		plan.Attribute(applied)
		var got []string
		for _, change := range plan.Changes {
			got = append(got, fmt.Sprintf("%c %s %s", change.Action, change.Address, change.Cause))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %s; %v", c.name, got, c.want, plan.Problems)
		}
	}
}
