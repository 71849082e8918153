package registry

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func addresses(s *Snapshot) (list []string) {
	for o := range s.Objects {
		list = append(list, o.Address().String())
	}
	slices.Sort(list)
	return list
}

func TestLive(t *testing.T) {
	customer := func(name, parent string, s Status) *Customer {
		return &Customer{Addr: NewAddress(KindCustomer, name), Parent: parent, Status: s}
	}
	managed, unmanaged, retired := Status{Managed: true}, Status{}, Status{Managed: true, Retired: true}
	project := Address{KindProject, "a/p"}
	s := Declare([]Object{
		&Retention{Addr: RetentionAddress, Status: managed}, customer("a", "group", managed), customer("group", "top", unmanaged), customer("top", "", retired),
		customer("a-b", "", managed), customer("gone", "", retired), customer("hand", "", unmanaged),
		&Project{Addr: project, Status: unmanaged},
		&Parameter{Addr: Address{KindParameter, "a/p/named"}, Status: retired}, &Parameter{Addr: Address{KindParameter, "a/p/other"}, Status: unmanaged},
		&Parameter{Addr: Address{KindParameter, "orphan"}, Status: managed},
		&Threshold{Addr: Address{KindThreshold, "a/p/other/high"}, Status: unmanaged},
		&Site{Addr: Address{KindSite, "a/p/s"}, Status: retired}, &Site{Addr: Address{KindSite, "a/p/t"}, Status: unmanaged},
		&Device{Addr: Address{KindDevice, "a/p/s/d"}, Status: managed, Parameters: []string{"missing", "named"}},
		&Device{Addr: Address{KindDevice, "a/p/s/e"}, Status: unmanaged},
		&Device{Addr: Address{KindDevice, "a/p/s/f"}, Status: retired},
	})
	inside := []string{"device.a/p/s/d", "parameter.a/p/named", "project.a/p", "site.a/p/s"}
	for name, test := range map[string]struct {
		part         Part
		live, beside []string
		references   []string
	}{
		"managed": {
			Part{}, append([]string{"customer.a", "customer.a-b", "customer.group", "parameter.orphan", "retention.telemetry"}, inside...),
			[]string{"site.a/p/s", "parameter.a/p/named"}, []string{"project.a/p", "customer.group"},
		},
		"all": {
			Part{Unmanaged: true},
			append([]string{"customer.a", "customer.a-b", "customer.group", "customer.hand", "customer.top", "device.a/p/s/e", "parameter.a/p/other",
				"parameter.orphan", "retention.telemetry", "site.a/p/t", "threshold.a/p/other/high"}, inside...),
			[]string{"customer.top", "site.a/p/s", "parameter.a/p/named"}, nil,
		},
		"of a customer":          {Part{Customers: []string{"a"}}, append([]string{"customer.a"}, inside...), []string{"site.a/p/s", "parameter.a/p/named"}, []string{"project.a/p"}},
		"of an unmanaged one":    {Part{Customers: []string{"hand"}}, nil, nil, nil},
		"of all of a customer's": {Part{Customers: []string{"hand"}, Unmanaged: true}, []string{"customer.hand"}, nil, nil},
	} {
		live, beside := s.Live(test.part)
		var got, references []string
		for _, r := range live.References {
			references = append(references, r.Address.String())
		}
		for _, a := range beside {
			got = append(got, a.String())
		}
		slices.Sort(test.live)
		if !slices.Equal(addresses(live), test.live) || !slices.Equal(got, test.beside) || !slices.Equal(references, test.references) {
			t.Errorf("%s: %q, want %q\nbeside %q, want %q\nreferences %q, want %q", name, addresses(live), test.live, got, test.beside, references, test.references)
		}
	}
}

// Add creates what is not there, unmanaged, and nothing else.
func TestAdd(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(4, seed))
		current, more := asApplied(randomObjects(r)), Declare(randomObjects(r))
		current.Version, current.Revision = 3, 5
		for _, d := range current.Devices {
			d.Retired, d.Ref = r.IntN(2) == 0, 9
		}
		there := map[Address]Object{}
		for o := range current.Objects {
			there[o.Address()] = o
		}
		plan := Add(current, more)
		if plan.BaseVersion != 3 || plan.BaseRevision != 5 || plan.Owner != "" {
			t.Fatalf("seed %d: %+v", seed, plan)
		}
		changes := plan.Changes
		for o := range more.Objects {
			was := there[o.Address()]
			if was != nil && !was.status().Retired {
				continue
			}
			if len(changes) == 0 {
				t.Fatalf("seed %d: %s is missing", seed, o.Address())
			}
			c := changes[0]
			changes = changes[1:]
			if c.Action != Create || c.Address != o.Address() || c.Before != was {
				t.Fatalf("seed %d: %+v, want %s", seed, c, o.Address())
			}
			if d, ok := c.After.(*Device); ok && (d.Managed || d.ID != d.Addr.ID() || was != nil && d.Ref != 9) {
				t.Fatalf("seed %d: %+v", seed, d)
			}
		}
		if len(changes) > 0 {
			t.Fatalf("seed %d: too many: %+v", seed, changes)
		}
	}
}

// The id of an address may be taken by what was made there and then renamed by hand.
func TestAddBesideRenamedObjects(t *testing.T) {
	renamed := &Customer{Addr: NewAddress(KindCustomer, "new name"), ID: NewAddress(KindCustomer, "a").ID()}
	current := NewSnapshot([]Object{renamed})
	plan := Add(current, NewSnapshot([]Object{&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")}}))
	if id := plan.Changes[0].After.(*Customer).ID; id == renamed.ID {
		t.Errorf("both have the id %v", id)
	}
}
