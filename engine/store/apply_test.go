package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

var author = Author{User: "pat", Host: "press-pc"}

// randomEstate declares a small estate of few names, so that two of them share much and swap much.
func randomEstate(r *rand.Rand) *registry.Snapshot {
	var objects []registry.Object
	add := func(o registry.Object) { objects = append(objects, o) }
	maybe := func() bool { return r.IntN(3) > 0 }
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	bound := func() registry.Bound {
		if maybe() {
			return registry.BoundOf(float64(r.IntN(5)) / 10)
		}
		return registry.Bound{}
	}
	span := func() time.Duration {
		return []time.Duration{0, time.Nanosecond, 1500 * time.Millisecond, time.Hour, 400*24*time.Hour + time.Millisecond}[r.IntN(5)]
	}
	rate := func() registry.Rate {
		return []registry.Rate{{}, {PerSecond: 0.1, Burst: 1}, {PerSecond: 1e9, Burst: 1e9}}[r.IntN(3)]
	}
	lifecycle := func() registry.Lifecycle { return registry.Lifecycle{PreventDestroy: r.IntN(8) == 0} }
	object := func() string {
		return pick("", `{"city":"Köln","zip":["5",6,7.25]}`, `{"a":{"b":null,"c":"<\u2028>"},"z":1}`, `{"text":"\\u0000"}`)
	}
	external := []string{"e1", "e2", "e3", "E 4", "%", "é"}
	r.Shuffle(len(external), func(i, j int) { external[i], external[j] = external[j], external[i] })

	customers := []string{"acme", "acme-b", "a/c%2Fd", "Zoë", ""}
	r.Shuffle(len(customers), func(i, j int) { customers[i], customers[j] = customers[j], customers[i] })
	customers = customers[:1+r.IntN(3)]
	for i, name := range customers {
		c := registry.NewAddress(registry.KindCustomer, name)
		var gateways []registry.Address
		parent := ""
		if i > 0 && maybe() {
			parent = customers[i-1]
		}
		add(&registry.Customer{Addr: c, Parent: parent, Metadata: object(), Rate: rate(), DeviceRate: rate(), Lifecycle: lifecycle()})
		for _, name := range []string{"mill", "mill-2"} {
			if !maybe() {
				continue
			}
			p := c.Child(registry.KindProject, name)
			add(&registry.Project{Addr: p, Description: pick("", "the old mill", "'; --"), Lifecycle: lifecycle()})
			for _, name := range []string{"voltage", "tank/level_(%)"} {
				if !maybe() {
					continue
				}
				q := p.Child(registry.KindParameter, name)
				add(&registry.Parameter{
					Addr: q, Name: pick("Voltage", "Tank/Level (%)"), Unit: pick("", "V", "°C"),
					Type: registry.DataType(pick("float", "int", "bool")), Min: bound(), Max: bound(), Required: maybe(), Interval: span(), StaleAfter: span(), Precision: bound(),
					Description: pick("", `a "b"`), OnViolation: registry.Violation(pick("flag", "reject", "accept")), Quality: uint8(r.IntN(256)), Lifecycle: lifecycle(),
				})
				if maybe() {
					add(&registry.Threshold{
						Addr: q.Child(registry.KindThreshold, pick("high", "low/er")), Above: bound(), Below: bound(), For: span(),
						Deadband: float64(r.IntN(3)), Severity: pick("warning", "critical"),
					})
				}
			}
			for _, name := range []string{"north", "south", "north-2"} {
				if !maybe() {
					continue
				}
				s := p.Child(registry.KindSite, name)
				add(&registry.Site{Addr: s, Location: object(), Lifecycle: lifecycle()})
				for n := range r.IntN(4) {
					d := &registry.Device{
						Addr: s.Child(registry.KindDevice, fmt.Sprint("press/", n)), Type: pick("meter", "sensor", ""),
						State: pick("active", "inactive"), Interval: span(), Rate: rate(), Lifecycle: lifecycle(),
					}
					if len(external) > 0 && maybe() {
						d.ExternalID, external = external[0], external[1:]
					}
					if maybe() {
						d.Parameters = []string{"a b", `c"{}`, "voltage"}[:1+r.IntN(3)]
					}
					for _, name := range []string{`c"{}`, "voltage"} {
						if o := (registry.Override{Parameter: name, Min: bound(), Interval: span(), OnViolation: registry.Violation(pick("", "reject"))}); maybe() && !o.Empty() {
							d.Overrides = append(d.Overrides, o)
						}
					}
					if n := len(gateways); n > 0 && maybe() {
						d.Gateway = gateways[r.IntN(n)]
					}
					gateways = append(gateways, d.Addr)
					add(d)
				}
			}
		}
	}
	for _, metric := range []string{"queue_depth", "disk_used"} {
		if maybe() {
			add(&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, metric), Warning: bound(), Critical: bound()})
		}
	}
	if maybe() {
		add(&registry.Limits{Addr: registry.LimitsAddress, Connections: int64(r.IntN(2)), ConnectionsPerAddress: int64(r.IntN(2)), Device: rate(), Customer: rate()})
	}
	if maybe() {
		add(&registry.Policy{Addr: registry.PolicyAddress, RequireSavedPlan: maybe()})
	}
	if maybe() {
		add(&registry.Discovery{Addr: registry.DiscoveryAddress, Hold: time.Duration(r.IntN(2)) * span(), MaxDevices: int64(r.IntN(2)), MaxEvents: int64(r.IntN(2)), MaxEventsPerDevice: int64(r.IntN(2))})
	}
	if maybe() {
		add(&registry.Retention{Addr: registry.RetentionAddress, Raw: time.Hour + span(), CompressAfter: span()})
	}
	return registry.Declare(objects)
}

func load(t testing.TB, s *Store) *registry.Snapshot {
	t.Helper()
	snapshot, err := s.LoadRegistry(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// reconcile applies the way to desired, and checks that nothing is left to do.
func reconcile(t testing.TB, s *Store, desired *registry.Snapshot) *registry.Snapshot {
	t.Helper()
	before := load(t, s)
	plan := registry.Diff(before, desired)
	version, err := s.Apply(testContext(t), plan, author)
	if err != nil {
		t.Fatalf("%v\n%s", err, show(plan))
	}
	want := before.Version + 1
	if plan.Empty() {
		want = before.Version
	}
	after := load(t, s)
	if version != want || after.Version != want {
		t.Fatalf("version %d, loaded %d, want %d", version, after.Version, want)
	}
	if left := registry.Diff(after, desired); !left.Empty() {
		t.Fatalf("left after the apply:\n%s\nof:\n%s", show(left), show(plan))
	}
	return after
}

func show(plan *registry.Plan) string {
	text, _ := json.MarshalIndent(plan, "", " ")
	return string(text)
}

// identities maps what the registry holds, retired or not, to the id it has.
func identities(s *registry.Snapshot) map[registry.Address]string {
	ids := map[registry.Address]string{}
	for o := range s.Objects {
		if _, deleted := o.(*registry.Threshold); !deleted {
			ids[o.Address()] = objectID(o)
		}
		if d, ok := o.(*registry.Device); ok {
			ids[o.Address()] += fmt.Sprint(" ", d.Ref, d.SiteID, d.ProjectID)
		}
		if p, ok := o.(*registry.Parameter); ok {
			ids[o.Address()] += p.Key
		}
	}
	return ids
}

// randomMoves pairs what only the registry has with what only the declaration has.
func randomMoves(r *rand.Rand, current, desired *registry.Snapshot) (list []registry.Moved) {
	had, wanted := map[registry.Address]bool{}, map[registry.Address]bool{}
	free := map[registry.Kind][]registry.Address{}
	for o := range current.Objects {
		had[o.Address()] = true
	}
	for o := range desired.Objects {
		a := o.Address()
		wanted[a] = true
		if !had[a] {
			free[a.Kind] = append(free[a.Kind], a)
		}
	}
	for o := range current.Objects {
		a := o.Address()
		if n := len(free[a.Kind]); n > 0 && !wanted[a] && !desiredKinds[a.Kind] {
			i := r.IntN(n)
			list = append(list, registry.Moved{From: a, To: free[a.Kind][i]})
			free[a.Kind] = slices.Delete(free[a.Kind], i, i+1)
		}
	}
	return list
}

// unprotect lets the next plan delete what it likes.
func unprotect(t *testing.T, s *Store) {
	t.Helper()
	for _, name := range []string{"customers", "projects", "sites", "devices", "parameter_templates"} {
		exec(t, s, `UPDATE `+name+` SET prevent_destroy = false`)
	}
}

// byID maps the ids of what the registry keeps for ever to what else may never change.
func byID(s *registry.Snapshot) map[string]string {
	ids := map[string]string{}
	for o := range s.Objects {
		switch o := o.(type) {
		case *registry.Customer, *registry.Project, *registry.Site, *registry.Parameter:
			ids[objectID(o)] = ""
		case *registry.Device:
			ids[objectID(o)] = fmt.Sprint(o.Ref)
		}
	}
	return ids
}

// Whatever is moved, nothing loses its id, and devices their number; what is declared afterwards is what there is.
func TestApplyMoves(t *testing.T) {
	s := migrated(t)
	moves := 0
	for seed := range uint64(5) {
		exec(t, s, `TRUNCATE customers, parameter_templates, platform_thresholds, retention, limits, discovery, registry_versions CASCADE`)
		r := rand.New(rand.NewPCG(seed, 2))
		known := map[string]string{}
		for step := range 6 {
			unprotect(t, s)
			before, desired := load(t, s), randomEstate(r)
			desired.Moves = randomMoves(r, before, desired)
			for registry.Diff(before, desired).Refusal() != nil { // some lead to where others are
				desired.Moves = desired.Moves[:len(desired.Moves)/2]
			}
			plan := registry.Diff(before, desired)
			after := reconcile(t, s, desired)
			got := byID(after)
			for id, was := range known {
				if now, ok := got[id]; !ok || now != was {
					t.Fatalf("seed %d step %d: %s was %q, is %q\n%s", seed, step, id, was, now, show(plan))
				}
			}
			known = got
			at := map[registry.Address]string{}
			for o := range after.Objects {
				at[o.Address()] = objectID(o)
			}
			for _, c := range plan.Changes {
				if c.Action == registry.Move {
					moves++
					if at[c.Address] != objectID(c.Before) {
						t.Fatalf("seed %d step %d: %s has become another %s", seed, step, c.From, c.Address)
					}
				}
			}
			desired.Moves = nil
			if left := registry.Diff(after, desired); !left.Empty() {
				t.Fatalf("seed %d step %d: without its moves there is left\n%s", seed, step, show(left))
			}
		}
	}
	if moves < 20 {
		t.Errorf("%d moves: too little was tried", moves)
	}
}

// A plan may exchange names, and parents; no declaration can say so, but a history that is gone through backwards can.
func TestApplySwaps(t *testing.T) {
	s := migrated(t)
	before := reconcile(t, s, estate(t, `customer.a customer.b project.a/p project.b/p site.a/p/n site.a/p/s parameter.a/p/v parameter.a/p/w
		device.a/p/n/d=X device.a/p/s/d=Y`))
	swap := func(o registry.Object) (after registry.Object, to registry.Address) {
		switch o := o.(type) {
		case *registry.Customer:
			c := *o
			c.Addr = before.Customers[1].Addr
			if o == before.Customers[1] {
				c.Addr = before.Customers[0].Addr
			}
			return &c, c.Addr
		case *registry.Device: // each goes to the other's site, where the other has its name
			d := *o
			d.Addr, d.SiteID = before.Devices[1].Addr, before.Devices[1].SiteID
			if o == before.Devices[1] {
				d.Addr, d.SiteID = before.Devices[0].Addr, before.Devices[0].SiteID
			}
			return &d, d.Addr
		case *registry.Parameter:
			p := *o
			p.Addr, p.Key = before.Parameters[1].Addr, before.Parameters[1].Key
			if o == before.Parameters[1] {
				p.Addr, p.Key = before.Parameters[0].Addr, before.Parameters[0].Key
			}
			return &p, p.Addr
		}
		return nil, registry.Address{}
	}
	plan := &registry.Plan{Registry: before.Registry, BaseVersion: before.Version, BaseRevision: before.Revision}
	for o := range before.Objects {
		if after, to := swap(o); after != nil {
			from := o.Address()
			plan.Changes = append(plan.Changes, registry.Change{Action: registry.Move, Address: to, From: &from, Before: o, After: after})
		}
	}
	if _, err := s.Apply(testContext(t), plan, author); err != nil {
		t.Fatal(err)
	}
	after := load(t, s)
	for i := range 2 {
		if after.Customers[i].ID != before.Customers[1-i].ID || after.Parameters[i].ID != before.Parameters[1-i].ID {
			t.Errorf("%s and %s were not exchanged", after.Customers[i].Addr, after.Parameters[i].Addr)
		}
		if d := after.Device(before.Devices[i].ID); d.SiteID != before.Devices[1-i].SiteID || d.Ref != before.Devices[i].Ref {
			t.Errorf("the device of %s is at %s", before.Devices[i].Addr, d.Addr)
		}
	}
}

// A device that goes to another project keeps its number, its tokens and its history, whose keys are those of the project
// that it was in; from then on it sends the parameters of the other one.
func TestApplyMovesDeviceToAnotherProject(t *testing.T) {
	s := migrated(t)
	const both = `customer.acme project.acme/mill site.acme/mill/north project.acme/works site.acme/works/south
		parameter.acme/mill/voltage parameter.acme/works/voltage `
	before := reconcile(t, s, estate(t, both+"device.acme/mill/north/press-01=X"))
	device := before.Devices[0]
	exec(t, s, `INSERT INTO tokens (device_id, token_hash) SELECT id, 'hash' FROM devices`)
	e := oneEvent(device.ID, time.Now(), 7)
	e.Set = &telemetry.ParameterSet{Keys: []string{before.Parameters[0].Key}}
	c := claimPartition(t, s)
	store(t, c, []telemetry.Event{e})

	desired := estate(t, both+"device.acme/works/south/press-07=X")
	desired.Moves = []registry.Moved{{From: device.Addr, To: registry.NewAddress(registry.KindDevice, "acme", "works", "south", "press-07")}}
	after := reconcile(t, s, desired)
	moved := after.Device(device.ID)
	if len(after.Devices) != 1 || moved.Ref != device.Ref || moved.ProjectID != after.Projects[1].ID || moved.SiteID != after.Sites[1].ID {
		t.Errorf("the device is %+v, was %+v", moved, device)
	}
	if n := query1[int](t, s, `SELECT count(*) FROM tokens WHERE device_id = $1`, device.ID); n != 1 {
		t.Errorf("%d tokens, want 1", n)
	}
	e = oneEvent(device.ID, time.Now(), 8)
	e.Set = &telemetry.ParameterSet{Keys: []string{after.Parameters[1].Key}}
	store(t, c, []telemetry.Event{e})
	for _, p := range []struct {
		key   string
		value float64
	}{{before.Parameters[0].Key, 7}, {after.Parameters[1].Key, 8}} {
		if v := query1[float64](t, s, `SELECT value FROM v_scada_history WHERE parameter_key = $1 AND device_id = $2`, p.key, device.ID); v != p.value {
			t.Errorf("%s is %v, want %v", p.key, v, p.value)
		}
	}
}

// A refused plan does nothing, and says what is in the way.
func TestApplyRefusesPlans(t *testing.T) {
	s := migrated(t)
	desired := estate(t, mill)
	desired.Sites[0].PreventDestroy = true
	desired.Owner = "north"
	before := reconcile(t, s, desired)
	other := estate(t, "customer.acme")
	other.Owner = "south"
	mine := estate(t, "customer.acme project.acme/mill")
	mine.Owner = "north"
	referring := estate(t, "customer.b")
	referring.References = []registry.Referenced{{Address: registry.NewAddress(registry.KindCustomer, "c"), Place: "main.hcl:1:1"}}
	for _, test := range []struct {
		desired *registry.Snapshot
		want    string
	}{
		{mine, "applying the plan: site.acme/mill/north is not declared but cannot be destroyed: prevent_destroy is set in the registry"},
		{other, `applying the plan: customer.acme is managed by the declaration "north"`},
		{referring, "applying the plan: main.hcl:1:1: customer.c is referred to, but the registry does not have it"},
	} {
		_, err := s.Apply(testContext(t), registry.Diff(load(t, s), test.desired), author)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got  %v\nwant %s …", err, test.want)
		}
		if after := load(t, s); after.Revision != before.Revision || after.Version != before.Version {
			t.Error("the refused plan left something behind")
		}
	}
}

// Three declarations share one registry, give objects away and take them, and none ever changes what another one manages.
func TestApplyKeepsToItsOwn(t *testing.T) {
	s := migrated(t)
	refused, foreign := 0, 0
	for seed := range uint64(4) {
		exec(t, s, `TRUNCATE customers, parameter_templates, platform_thresholds, retention, limits, discovery, registry_versions CASCADE`)
		r := rand.New(rand.NewPCG(seed, 3))
		for step := range 10 {
			before, desired := load(t, s), randomEstate(r)
			desired.Owner = []string{"", "south", "west"}[r.IntN(3)]
			for o := range before.Objects {
				if r.IntN(4) == 0 && registry.OwnerOf(o) == desired.Owner {
					desired.Released = append(desired.Released, registry.Released{From: o.Address()})
				}
			}
			plan := registry.Diff(before, desired)
			foreign += len(plan.Foreign)
			_, err := s.Apply(testContext(t), plan, author)
			if (err != nil) != (plan.Refusal() != nil) && !(err != nil && strings.Contains(err.Error(), "is already used by")) { // an external id
				t.Fatalf("seed %d step %d: %v with\n%s", seed, step, err, show(plan))
			}
			after := load(t, s)
			if err != nil {
				refused++
				if after.Revision != before.Revision || after.Version != before.Version {
					t.Fatalf("seed %d step %d: the refused plan left something behind", seed, step)
				}
				continue
			}
			for _, c := range plan.Changes {
				if c.Action == registry.Release {
					o := find(after, c.Address)
					if o == nil || registry.OwnerOf(o) != "" {
						t.Fatalf("seed %d step %d: %s was released and is %+v", seed, step, c.Address, o)
					}
				}
			}
			for o := range before.Objects {
				owner := registry.OwnerOf(o)
				if now := find(after, o.Address()); owner != "" && owner != plan.Owner && !retired(o) &&
					(now == nil || registry.OwnerOf(now) != owner || retired(now)) {
					t.Fatalf("seed %d step %d: %s of %s has become %+v", seed, step, o.Address(), owner, now)
				}
			}
			if left := registry.Diff(after, desired); !left.Empty() {
				t.Fatalf("seed %d step %d: left\n%s", seed, step, show(left))
			}
		}
	}
	if refused == 0 || refused == 40 || foreign == 0 {
		t.Errorf("%d of 40 plans refused, %d with foreign objects: too little was tried", refused, foreign)
	}
}

func find(s *registry.Snapshot, a registry.Address) registry.Object {
	for o := range s.Objects {
		if o.Address() == a {
			return o
		}
	}
	return nil
}

func retired(o registry.Object) bool {
	switch o := o.(type) {
	case *registry.Customer:
		return o.Retired
	case *registry.Project:
		return o.Retired
	case *registry.Site:
		return o.Retired
	case *registry.Parameter:
		return o.Retired
	case *registry.Device:
		return o.Retired
	}
	return false
}

func TestApplyConverges(t *testing.T) {
	s := migrated(t)
	for seed := range uint64(10) {
		exec(t, s, `TRUNCATE customers, parameter_templates, platform_thresholds, retention, limits, discovery, registry_versions CASCADE`)
		r := rand.New(rand.NewPCG(seed, 1))
		known := map[registry.Address]string{}
		for step := range 6 {
			unprotect(t, s)
			desired := randomEstate(r)
			after := reconcile(t, s, desired)
			got := identities(after)
			for addr, id := range known {
				if _, gone := desiredKinds[addr.Kind]; !gone && got[addr] != id {
					t.Fatalf("seed %d step %d: %s was %s, is %s", seed, step, addr, id, got[addr])
				}
			}
			known = got
			for _, d := range after.Devices {
				if d.Retired && d.ExternalID != "" {
					t.Fatalf("seed %d step %d: %s is retired and keeps its external id", seed, step, d.Addr)
				}
			}
			// Drift: whatever was edited is put right by the next apply.
			exec(t, s, `UPDATE devices SET status = 'edited', external_id = NULL WHERE ref % 3 = 0`)
			exec(t, s, `UPDATE parameter_templates SET metadata = '[1]', unit = NULL WHERE name = 'Voltage'`)
			exec(t, s, `UPDATE sites SET location = '"somewhere"' WHERE name = 'north'`)
			exec(t, s, `DELETE FROM thresholds WHERE severity = 'critical'`)
			exec(t, s, `UPDATE customers SET parent_customer_id = NULL, burst = 77, device_burst = NULL`)
			exec(t, s, `UPDATE devices SET events_per_second = 'NaN' WHERE ref % 5 = 0`)
			exec(t, s, `UPDATE limits SET connections = 77`)
			exec(t, s, `UPDATE projects SET prevent_destroy = NOT prevent_destroy`)
			reconcile(t, s, desired)
		}
	}
}

// desiredKinds are really deleted, and lose nothing by it.
var desiredKinds = map[registry.Kind]bool{registry.KindPlatform: true, registry.KindRetention: true, registry.KindLimits: true, registry.KindPolicy: true, registry.KindDiscovery: true}

const mill = `customer.acme project.acme/mill site.acme/mill/north parameter.acme/mill/voltage `

// estate declares what addresses say: "device.acme/mill/north/press-01=EXT" has an external id.
func estate(t testing.TB, addresses string) *registry.Snapshot {
	t.Helper()
	var objects []registry.Object
	for _, text := range strings.Fields(addresses) {
		text, external, _ := strings.Cut(text, "=")
		a, err := registry.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		switch a.Kind {
		case registry.KindCustomer:
			objects = append(objects, &registry.Customer{Addr: a, Parent: external})
		case registry.KindProject:
			objects = append(objects, &registry.Project{Addr: a})
		case registry.KindSite:
			objects = append(objects, &registry.Site{Addr: a})
		case registry.KindDevice:
			objects = append(objects, &registry.Device{Addr: a, Type: "meter", State: "active", ExternalID: external})
		case registry.KindParameter:
			objects = append(objects, &registry.Parameter{Addr: a, Name: a.Name(), Type: registry.TypeFloat, OnViolation: registry.Flag})
		case registry.KindThreshold:
			objects = append(objects, &registry.Threshold{Addr: a, Severity: "warning"})
		default:
			t.Fatalf("unexpected %s", a)
		}
	}
	return registry.Declare(objects)
}

func TestApplyVersion(t *testing.T) {
	s := migrated(t)
	desired := estate(t, mill+"device.acme/mill/north/press-01")
	reconcile(t, s, desired)
	// A version of a project is counted on its own.
	exec(t, s, `INSERT INTO registry_versions (checksum, project_id, version) SELECT 'x', id, 7 FROM projects`)
	before := load(t, s)
	version, err := s.Apply(testContext(t), registry.Diff(before, desired), author)
	if err != nil || version != 1 {
		t.Fatalf("empty plan: version %d, %v; want 1", version, err)
	}
	if after := load(t, s); after.Version != 1 || after.Revision != before.Revision {
		t.Errorf("after an empty plan: version %d, revision %d; want 1, %d", after.Version, after.Revision, before.Revision)
	}
	var checksum, description, by string
	var diff struct {
		BaseVersion int64             `json:"base_version"`
		Changes     []json.RawMessage `json:"changes"`
	}
	err = s.pool.QueryRow(testContext(t), `SELECT checksum, description, author, diff_json FROM registry_versions WHERE project_id IS NULL AND version = 1`).
		Scan(&checksum, &description, &by, &diff)
	if err != nil {
		t.Fatal(err)
	}
	if checksum != desired.Checksum() || description != "nsready apply" || by != "pat@press-pc" || len(diff.Changes) != 5 {
		t.Errorf("version 1 is %q %q %q with %d changes", checksum, description, by, len(diff.Changes))
	}
}

func TestApplyRecordsLargePlanInPart(t *testing.T) {
	s := migrated(t)
	var addresses strings.Builder
	for i := range 10_050 {
		fmt.Fprintf(&addresses, "customer.c%d ", i)
	}
	exec(t, s, `INSERT INTO customers (name) SELECT 'u' || i FROM generate_series(1, 10020) i`)
	reconcile(t, s, estate(t, addresses.String()))
	got := query1[string](t, s, `SELECT concat_ws(' ', jsonb_array_length(diff_json->'changes'), diff_json->>'changes_omitted',
		jsonb_array_length(diff_json->'unmanaged'), diff_json->>'unmanaged_omitted') FROM registry_versions`)
	if got != "10000 50 10000 20" {
		t.Errorf("changes and unmanaged objects, recorded and omitted: %s, want 10000 50 10000 20", got)
	}
}

// External ids move between devices that stay, go and come, in one apply.
func TestApplyMovesExternalIDs(t *testing.T) {
	const at = "device.acme/mill/north/"
	s := migrated(t)
	for _, devices := range []string{
		at + "a=X " + at + "b=Y " + at + "c=Z",
		at + "a=Y " + at + "b=X " + at + "c=Z",
		at + "a=Z " + at + "c=X " + at + "d=Y",
		at + "b=Z " + at + "c=Y " + at + "a " + at + "e=X",
	} {
		reconcile(t, s, estate(t, mill+devices))
	}
}

func TestApplyRefusesStalePlan(t *testing.T) {
	s := migrated(t)
	plan := registry.Diff(load(t, s), estate(t, mill))
	exec(t, s, `INSERT INTO customers (name) VALUES ('made by hand')`)
	_, err := s.Apply(testContext(t), plan, author)
	var stale *ErrStale
	if !errors.As(err, &stale) {
		t.Fatalf("got %v, want an ErrStale", err)
	}
	const want = "the registry moved since this plan was made: revision 1 (version 0), now 2 (version 0); run plan again"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if n := query1[int](t, s, `SELECT count(*) FROM customers`); n != 1 {
		t.Errorf("%d customers, want the one made by hand", n)
	}
}

func TestConcurrentApplies(t *testing.T) {
	s := migrated(t)
	const rivals = 6
	plans := make([]*registry.Plan, rivals)
	for i := range plans {
		plans[i] = registry.Diff(load(t, s), estate(t, mill+fmt.Sprintf("device.acme/mill/north/press-%d", i)))
	}
	errs := make([]error, rivals)
	var wg sync.WaitGroup
	for i := range plans {
		wg.Go(func() { _, errs[i] = s.Apply(testContext(t), plans[i], author) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		var stale *ErrStale
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("rivals %d and %d both won", won, i)
		case !errors.As(err, &stale):
			t.Errorf("rival %d: %v, want an ErrStale", i, err)
		}
	}
	if won < 0 {
		t.Fatal("nobody won")
	}
	after := load(t, s)
	if after.Version != 1 || len(after.Devices) != 1 || after.Devices[0].Addr.Name() != fmt.Sprintf("press-%d", won) {
		t.Errorf("version %d with %d devices after rival %d won", after.Version, len(after.Devices), won)
	}
}

// An apply waits for a change that another program is about to commit, and then sees it.
func TestApplyAgainstOpenTransaction(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	plan := registry.Diff(load(t, s), estate(t, mill))
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, `INSERT INTO customers (name) VALUES ('acme')`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Apply(ctx, plan, author)
		done <- err
	}()
	waitFor(t, func() bool {
		return query1[bool](t, s, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND
			application_name = 'nsready apply pat@press-pc' AND wait_event_type = 'Lock')`)
	})
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	var stale *ErrStale
	if err := <-done; !errors.As(err, &stale) {
		t.Errorf("got %v, want an ErrStale", err)
	}
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("waited 30 s in vain")
		}
	}
}

func TestApplyErrors(t *testing.T) {
	const devices = mill + "device.acme/mill/north/press-01=X "
	for _, test := range []struct {
		name, before, sql, desired, want string
	}{
		{
			"external id of an unmanaged device", mill,
			`INSERT INTO devices (site_id, name, device_type, external_id) SELECT id, 'by hand', 'meter', 'X' FROM sites`, devices,
			`external_id "X" of device.acme/mill/north/press-01 is already used by device.acme/mill/north/by hand`,
		},
		{
			"external id declared twice", mill, "", devices + "device.acme/mill/north/press-02=X",
			`external_id "X" is declared by device.acme/mill/north/press-01 and by device.acme/mill/north/press-02`,
		},
		{
			"unknown parent", "", "", "customer.acme=nobody", `customer.acme: its parent, customer "nobody", does not exist`,
		},
		{
			"NUL in a name", "", "", "customer.a\x00b", `the name in "customer.a\x00b" holds a NUL character or is not UTF-8, which the database cannot store`,
		},
		{
			"NUL in an external id", mill, "", mill + "device.acme/mill/north/press-01=\x00",
			`device.acme/mill/north/press-01: external_id holds a NUL character or is not UTF-8, which the database cannot store`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := migrated(t)
			reconcile(t, s, estate(t, test.before))
			if test.sql != "" {
				exec(t, s, test.sql)
			}
			before := load(t, s)
			_, err := s.Apply(testContext(t), registry.Diff(before, estate(t, test.desired)), author)
			if err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got  %v\nwant … %s", err, test.want)
			}
			if after := load(t, s); after.Revision != before.Revision || after.Version != before.Version {
				t.Error("the refused apply left something behind")
			}
		})
	}
}

// What was renamed by SQL gets its name back, with its id and everything below it.
func TestApplyUndoesRename(t *testing.T) {
	s := migrated(t)
	desired := estate(t, mill+"device.acme/mill/north/press-01=X")
	before := reconcile(t, s, desired)
	exec(t, s, `UPDATE customers SET name = 'acme2'`)
	exec(t, s, `UPDATE devices SET name = 'other'`)
	after := reconcile(t, s, desired)
	was, is := identities(before), identities(after)
	for addr, id := range was {
		if is[addr] != id {
			t.Errorf("%s was %s, is %s", addr, id, is[addr])
		}
	}
	if len(is) != len(was) {
		t.Errorf("%d objects, want %d", len(is), len(was))
	}
}

// What SQL deleted returns; what it left behind is adopted.
func TestApplyAfterDeletesBySQL(t *testing.T) {
	s := migrated(t)
	desired := estate(t, mill+"device.acme/mill/north/press-01=X")
	reconcile(t, s, desired)
	exec(t, s, `UPDATE parameter_templates SET id = gen_random_uuid(), managed = false, metadata = '{"mine": 1}'`)
	exec(t, s, `DELETE FROM customers`)
	after := reconcile(t, s, desired)
	if len(after.Devices) != 1 || len(after.Parameters) != 1 || !after.Parameters[0].Managed {
		t.Errorf("got %s", after)
	}
	if !query1[bool](t, s, `SELECT metadata @> '{"mine": 1, "dtype": "float"}' FROM parameter_templates`) {
		t.Error("metadata written by others was lost")
	}
}

func TestApplyLeavesUnmanagedAlone(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, estate(t, mill))
	exec(t, s, `INSERT INTO devices (site_id, name, device_type) SELECT id, 'manual', 'meter' FROM sites`)
	after := reconcile(t, s, estate(t, "customer.acme"))
	if len(after.Devices) != 1 || after.Devices[0].Retired || after.Devices[0].Managed {
		t.Errorf("the unmanaged device is now %+v", after.Devices[0])
	}
	// Declaring it adopts it, with its id.
	id := after.Devices[0].ID
	after = reconcile(t, s, estate(t, mill+"device.acme/mill/north/manual"))
	if d := after.Device(id); len(after.Devices) != 1 || d == nil || !d.Managed {
		t.Errorf("its declaration made it %+v", d)
	}
}

// An apply that is killed at any moment has either happened or not.
func TestApplyIsAtomic(t *testing.T) {
	url := storetest.Database(t)
	s, killed := openURL(t, url), openURL(t, url) // apart, because a shot may hit a connection that has gone back to its pool
	if err := s.Migrate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	swapped := estate(t, strings.ReplaceAll(mill, "voltage", "volt")+
		"customer.b project.b/p site.b/p/s device.b/p/s/d device.acme/mill/north/press-01=Y device.acme/mill/north/press-02=X device.b/p/s/press-03")
	old := estate(t, mill+"device.acme/mill/north/press-01=X device.acme/mill/north/press-02=Y device.acme/mill/north/press-03")
	parameter := registry.NewAddress(registry.KindParameter, "acme", "mill", "voltage")
	device := registry.NewAddress(registry.KindDevice, "acme", "mill", "north", "press-03")
	there := []registry.Moved{
		{From: parameter, To: registry.NewAddress(registry.KindParameter, "acme", "mill", "volt")},
		{From: device, To: registry.NewAddress(registry.KindDevice, "b", "p", "s", "press-03")},
	}
	swapped.Moves = there
	for _, m := range there {
		old.Moves = append(old.Moves, registry.Moved{From: m.To, To: m.From})
	}
	reconcile(t, s, old)
	start := time.Now()
	reconcile(t, s, swapped)
	length := time.Since(start)
	r := rand.New(rand.NewPCG(1, 2))
	desired := []*registry.Snapshot{old, swapped}
	done, undone := 0, 0
	for round := range 60 {
		before := load(t, s)
		target := desired[round%2]
		if round%2 == 0 && registry.Diff(before, old).Empty() || round%2 == 1 && registry.Diff(before, swapped).Empty() {
			target = desired[1-round%2]
		}
		ctx, cancel := context.WithCancel(testContext(t))
		moment := time.Duration(r.Int64N(int64(length)))
		timer := time.AfterFunc(moment, func() {
			if round%3 != 0 {
				cancel()
				return
			}
			// The server's process dies instead. Whether it was still there is seen below.
			_, _ = s.pool.Exec(context.WithoutCancel(ctx), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'nsready apply pat@press-pc'`)
		})
		version, err := killed.Apply(ctx, registry.Diff(before, target), author)
		timer.Stop()
		cancel()
		after := load(t, s)
		left := registry.Diff(after, target)
		switch {
		case err == nil && (version != before.Version+1 || !left.Empty()):
			t.Fatalf("round %d: version %d, left:\n%s", round, version, show(left))
		case left.Empty() && after.Version == before.Version+1:
			done++
		case after.Version == before.Version && after.Revision == before.Revision:
			undone++
		default:
			t.Fatalf("round %d: neither old nor new after %v: version %d, left:\n%s", round, err, after.Version, show(left))
		}
	}
	t.Logf("%d done, %d undone", done, undone)
	if done == 0 || undone == 0 {
		t.Errorf("%d done, %d undone: nothing was cut short, or everything", done, undone)
	}
}
