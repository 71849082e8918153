package registry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// randomObjects declares a small estate in which everything may or may not be there, and have one of few values.
func randomObjects(r *rand.Rand) []Object {
	maybe := func() bool { return r.IntN(4) > 0 }
	pick := func(values ...string) string { return values[r.IntN(len(values))] }
	bound := func() Bound { return Bound{Set: true, Value: float64(r.IntN(3))} }
	rate := func() Rate {
		if !maybe() {
			return Rate{}
		}
		return Rate{PerSecond: float64(1 + r.IntN(2)), Burst: int64(1 + r.IntN(2))}
	}
	var list []Object
	if maybe() {
		list = append(list, &Limits{Addr: LimitsAddress, Connections: int64(r.IntN(2)), Device: rate(), Customer: rate()})
	}
	if maybe() {
		list = append(list, &Policy{Addr: PolicyAddress, RequireSavedPlan: maybe()})
	}
	if maybe() {
		list = append(list, &Discovery{Addr: DiscoveryAddress, Hold: time.Duration(r.IntN(2)) * time.Hour, MaxEvents: int64(r.IntN(2))})
	}
	if maybe() {
		list = append(list, &Retention{Addr: RetentionAddress, Raw: time.Duration(1+r.IntN(2)) * 24 * time.Hour})
	}
	if maybe() {
		list = append(list, &Platform{Addr: NewAddress(KindPlatform, "queue_depth"), Warning: bound()})
	}
	names := []string{"c/1", "b", "a"}
	for i, name := range names {
		if !maybe() {
			continue
		}
		customer := &Customer{Addr: NewAddress(KindCustomer, name), Metadata: pick("", `{"a":1}`), Rate: rate(), DeviceRate: rate()}
		if i > 0 {
			customer.Parent = pick("", names[0]) // a parent sorts after its child
		}
		list = append(list, customer)
		var gateways []Address
		project := &Project{Addr: customer.Addr.Child(KindProject, "p"), Description: pick("", "x", "y")}
		list = append(list, project)
		for _, short := range []string{"voltage", "tank_level_(%)"} {
			if !maybe() {
				continue
			}
			p := &Parameter{Addr: project.Addr.Child(KindParameter, short), Name: short, Type: TypeFloat, Min: bound(), OnViolation: Flag, Quality: uint8(r.IntN(2))}
			list = append(list, p)
			if maybe() {
				list = append(list, &Threshold{Addr: p.Addr.Child(KindThreshold, "high"), Above: bound(), Severity: pick("warning", "critical")})
			}
		}
		for _, name := range []string{"north", "south"} {
			if !maybe() {
				continue
			}
			site := &Site{Addr: project.Addr.Child(KindSite, name), Location: pick("", `{"city":"Pune"}`)}
			list = append(list, site)
			for n := range r.IntN(4) {
				d := &Device{Addr: site.Addr.Child(KindDevice, fmt.Sprintf("d%d", n)), Type: pick("meter", "sensor"), State: "active", Rate: rate()}
				if maybe() {
					d.ExternalID = d.Addr.Path
				}
				if maybe() {
					d.Parameters = []string{"voltage"}
				}
				if o := (Override{Parameter: "voltage", Min: bound(), OnViolation: Violation(pick("", "flag"))}); maybe() {
					d.Overrides = []Override{{Parameter: "current", Max: bound()}, o}[r.IntN(2):]
				}
				if n := len(gateways); n > 0 && maybe() {
					d.Gateway = gateways[r.IntN(n)]
				}
				gateways = append(gateways, d.Addr)
				list = append(list, d)
			}
		}
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func TestDeclare(t *testing.T) {
	customer := &Customer{Addr: NewAddress(KindCustomer, "Acme")}
	project := &Project{Addr: customer.Addr.Child(KindProject, "energy")}
	site := &Site{Addr: project.Addr.Child(KindSite, "north")}
	device := &Device{Addr: site.Addr.Child(KindDevice, "main"), ExternalID: "EM-1"}
	parameter := &Parameter{Addr: project.Addr.Child(KindParameter, "voltage")}
	threshold := &Threshold{Addr: parameter.Addr.Child(KindThreshold, "high")}
	first := &Device{Addr: site.Addr.Child(KindDevice, "a")}
	s := Declare([]Object{threshold, device, parameter, first, site, project, customer})

	if device.ID != device.Addr.ID() || device.SiteID != site.ID || device.ProjectID != project.ID {
		t.Errorf("the device has ids %v, %v, %v", device.ID, device.SiteID, device.ProjectID)
	}
	key := "project:" + project.Addr.ID().String() + ":voltage"
	if parameter.Key != key || threshold.ParameterKey != key {
		t.Errorf("keys are %q and %q, want %q", parameter.Key, threshold.ParameterKey, key)
	}
	if s.Device(device.ID) != device || s.DeviceByExternalID("EM-1") != device || s.DeviceByExternalID("") != nil || s.Parameter(key) != parameter {
		t.Error("something is not found by its id or key")
	}
	var order []string
	for o := range s.Objects {
		order = append(order, o.Address().String())
	}
	want := []string{
		"customer.Acme", "project.Acme/energy", "site.Acme/energy/north", "parameter.Acme/energy/voltage",
		"threshold.Acme/energy/voltage/high", "device.Acme/energy/north/a", "device.Acme/energy/north/main",
	}
	if !slices.Equal(order, want) {
		t.Errorf("objects come as %q, want %q", order, want)
	}
	if got, want := s.String(), "1 customer, 1 project, 1 site, 2 devices, 1 parameter, 1 threshold"; got != want {
		t.Errorf("summary is %q, want %q", got, want)
	}
}

func TestChecksum(t *testing.T) {
	for seed := range uint64(200) {
		objects := randomObjects(rand.New(rand.NewPCG(1, seed)))
		sum := Declare(objects).Checksum()
		slices.Reverse(objects)
		if Declare(objects).Checksum() != sum {
			t.Fatal("the checksum depends on the order")
		}
		for _, o := range objects {
			if d, ok := o.(*Device); ok {
				d.Type = "other"
				if Declare(objects).Checksum() == sum {
					t.Fatal("the checksum does not see a device's type")
				}
				break
			}
		}
	}
}

// asApplied is what the registry holds after a declaration was applied to an empty one.
func asApplied(objects []Object) *Snapshot {
	s := Declare(objects)
	for o := range s.Objects {
		*o.status() = Status{Managed: true}
	}
	return s
}

func fieldsOf(s *Snapshot) map[string]string {
	out := map[string]string{}
	for o := range s.Objects {
		out[o.Address().String()] = "declared"
		for _, f := range o.Fields() {
			if f.Value != "" {
				out[o.Address().String()+" "+f.Name] = f.Value
			}
		}
	}
	return out
}

func TestDiffProperties(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(2, seed))
		current, desired := asApplied(randomObjects(r)), Declare(randomObjects(r))
		current.Version, current.Revision = 7, 9
		if p := Diff(current, current); !p.Empty() || len(p.Unmanaged) > 0 {
			t.Fatalf("seed %d: a diff with itself has %v", seed, p.Changes)
		}
		plan := Diff(current, desired)
		if plan.BaseVersion != 7 || plan.BaseRevision != 9 || plan.Checksum != desired.Checksum() {
			t.Fatalf("seed %d: the plan is from %d, %d to %s", seed, plan.BaseVersion, plan.BaseRevision, plan.Checksum)
		}
		checkApply(t, seed, current, desired, plan)
		checkOrder(t, seed, current, desired, plan)
	}
}

// checkApply applies the fields of a plan and compares.
func checkApply(t *testing.T, seed uint64, current, desired *Snapshot, plan *Plan) {
	t.Helper()
	state := fieldsOf(current)
	for _, c := range plan.Changes {
		addr := c.Address.String()
		switch c.Action {
		case Delete:
			for key := range state {
				if key == addr || strings.HasPrefix(key, addr+" ") {
					delete(state, key)
				}
			}
			continue
		case Create:
			state[addr] = "declared"
		}
		for _, f := range c.Fields {
			if state[addr+" "+f.Name] != f.Before {
				t.Fatalf("seed %d: %s %s was %q, the plan says %q", seed, addr, f.Name, state[addr+" "+f.Name], f.Before)
			}
			state[addr+" "+f.Name] = f.After
			if f.After == "" {
				delete(state, addr+" "+f.Name)
			}
		}
	}
	want := fieldsOf(desired)
	for key, v := range want {
		if state[key] != v {
			t.Fatalf("seed %d: after the plan, %s is %q, want %q", seed, key, state[key], v)
		}
	}
	if len(state) != len(want) {
		t.Fatalf("seed %d: after the plan there are %d fields, want %d", seed, len(state), len(want))
	}
}

// checkOrder follows what exists while a plan is applied: nothing is ever without what it hangs off.
func checkOrder(t *testing.T, seed uint64, current, desired *Snapshot, plan *Plan) {
	t.Helper()
	exists := map[Address]Object{}
	for o := range current.Objects {
		exists[o.Address()] = o
	}
	needs := func(o Object) []Address {
		a := o.Address()
		switch o := o.(type) {
		case *Customer:
			if o.Parent != "" {
				return []Address{NewAddress(KindCustomer, o.Parent)}
			}
		case *Project:
			return []Address{{KindCustomer, a.ParentPath()}}
		case *Site, *Parameter:
			return []Address{{KindProject, a.ParentPath()}}
		case *Device:
			return []Address{{KindSite, a.ParentPath()}}
		case *Threshold:
			return []Address{{KindParameter, a.ParentPath()}}
		}
		return nil
	}
	rest := false
	for _, c := range plan.Changes {
		if c.Action != Delete {
			rest = true
			for _, need := range needs(c.After) {
				_, there := exists[need]
				_, wanted := desiredAddress(desired, need)
				if !there && wanted {
					t.Fatalf("seed %d: %s comes before %s", seed, c.Address, need)
				}
			}
			exists[c.Address] = c.After
			continue
		}
		if rest {
			t.Fatalf("seed %d: %s is deleted after a create or update", seed, c.Address)
		}
		delete(exists, c.Address)
		for _, o := range exists {
			if slices.Contains(needs(o), c.Address) {
				if _, kept := desiredAddress(desired, o.Address()); !kept {
					t.Fatalf("seed %d: %s is deleted before %s", seed, c.Address, o.Address())
				}
			}
		}
	}
}

func desiredAddress(s *Snapshot, a Address) (Object, bool) {
	for o := range s.Objects {
		if o.Address() == a {
			return o, true
		}
	}
	return nil, false
}

func TestDiffReturnsWhatWasRetired(t *testing.T) {
	addr := NewAddress(KindDevice, "a", "p", "s", "d")
	declare := func() []Object {
		return []Object{
			&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")},
			&Site{Addr: NewAddress(KindSite, "a", "p", "s")}, &Device{Addr: addr, Type: "meter"},
		}
	}
	current := asApplied(declare())
	old := current.Devices[0]
	old.Status, old.Ref = Status{Managed: true, Retired: true}, 42
	old.ID = NewAddress(KindDevice, "another").ID() // as if it was made by SQL

	plan := Diff(current, Declare(declare()))
	if len(plan.Changes) != 1 {
		t.Fatalf("the plan has %v", plan.Changes)
	}
	c := plan.Changes[0]
	after, ok := c.After.(*Device)
	if c.Action != Create || c.Before != Object(old) || !ok || after.ID != old.ID || after.Ref != 42 || c.Reason == "" {
		t.Errorf("the retired device comes back as %+v with %+v", c, after)
	}
	if p := Diff(current, Declare(declare()[:3])); !p.Empty() || len(p.Unmanaged) > 0 {
		t.Errorf("a retired device that is not declared gives %v, %v", p.Changes, p.Unmanaged)
	}
}

func TestDiffLeavesTheUnmanagedAlone(t *testing.T) {
	declare := func() []Object {
		return []Object{&Customer{Addr: NewAddress(KindCustomer, "a")}, &Customer{Addr: NewAddress(KindCustomer, "b")}}
	}
	current := asApplied(declare())
	current.Customers[1].Status = Status{}
	current.Customers[1].ID = NewAddress(KindCustomer, "another").ID()

	plan := Diff(current, Declare(declare()[:1]))
	if !plan.Empty() || !slices.Equal(plan.Unmanaged, []Address{NewAddress(KindCustomer, "b")}) {
		t.Errorf("the plan has %v, unmanaged %v", plan.Changes, plan.Unmanaged)
	}
	plan = Diff(current, Declare(append(declare(), &Project{Addr: NewAddress(KindProject, "b", "p")})))
	if len(plan.Changes) != 2 || len(plan.Unmanaged) > 0 {
		t.Fatalf("declaring it gives %v, unmanaged %v", plan.Changes, plan.Unmanaged)
	}
	if c := plan.Changes[0]; c.Action != Update || c.After.(*Customer).ID != current.Customers[1].ID || len(c.Fields) > 0 || c.Reason == "" {
		t.Errorf("adopting it is %+v", c)
	}
}

// A child takes the ids of parents that the registry has, not those that their addresses would give.
func TestDiffUsesTheIDsOfTheRegistry(t *testing.T) {
	objects := []Object{&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")}}
	current := asApplied(objects)
	current.Projects[0].ID = NewAddress(KindProject, "another").ID()
	desired := Declare([]Object{
		&Customer{Addr: NewAddress(KindCustomer, "a")}, &Project{Addr: NewAddress(KindProject, "a", "p")},
		&Parameter{Addr: NewAddress(KindParameter, "a", "p", "v")}, &Threshold{Addr: NewAddress(KindThreshold, "a", "p", "v", "high")},
	})
	plan := Diff(current, desired)
	if plan.Count() != (Counts{Creates: 2}) {
		t.Fatalf("the plan has %v", plan.Changes)
	}
	want := ParameterKey(current.Projects[0].ID, "v")
	if p, th := plan.Changes[0].After.(*Parameter), plan.Changes[1].After.(*Threshold); p.Key != want || th.ParameterKey != want {
		t.Errorf("keys are %q and %q, want %q", p.Key, th.ParameterKey, want)
	}
	if desired.Parameters[0].Key == want {
		t.Error("the diff changed the declaration")
	}
}

func TestFieldText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", 90 * 24 * time.Hour: "90d", 36 * time.Hour: "36h", 90 * time.Minute: "1h30m", 5 * time.Minute: "5m",
		10 * time.Second: "10s", 1500 * time.Millisecond: "1.5s", 250 * time.Millisecond: "250ms",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	for in, want := range map[string]string{"": "", "{}": "", ` {"b": 1.50, "a": "<é>"} `: `{"a":"<é>","b":1.5}`,
		`{"a":[1e-7,{"b":-0}],"c":1E3,"d":12345678901234567890}`: `{"a":[0.0000001,{"b":0}],"c":1000,"d":12345678901234567890}`,
	} {
		if got, err := CanonicalJSON([]byte(in)); err != nil || got != want {
			t.Errorf("%q becomes %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"[]", "1", "{", `{"a":}`} {
		if got, err := CanonicalJSON([]byte(in)); err == nil {
			t.Errorf("%q becomes %q", in, got)
		}
	}
	if got := ShortName("Tank Level (%)"); got != "tank_level_(%)" {
		t.Errorf("short name is %q", got)
	}
}
