package impact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const day = 24 * time.Hour

var (
	project = registry.NewAddress(registry.KindProject, "acme", "mill")
	site    = project.Child(registry.KindSite, "north")
)

// plant is a database with an estate of devices d0, d1 and so on, with parameters a, b and c.
type plant struct {
	t    *testing.T
	db   *store.Store
	conn *pgx.Conn
	now  time.Time
	sets map[string]bool // days that there are partitions of
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	url := storetest.Database(t)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	p := &plant{t: t, db: db, conn: conn, now: time.Now().UTC(), sets: map[string]bool{}}
	p.apply(declare())
	return p
}

// declare is the estate with further objects, or others at the same address.
func declare(others ...registry.Object) *registry.Snapshot {
	objects := []registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "acme")}, &registry.Project{Addr: project}, &registry.Site{Addr: site},
	}
	for _, name := range []string{"a", "b", "c"} {
		objects = append(objects, parameter(name, func(*registry.Parameter) {}))
	}
	for i := range 4 {
		objects = append(objects, device(i))
	}
	for _, o := range others {
		objects = slices.DeleteFunc(objects, func(is registry.Object) bool { return is.Address() == o.Address() })
		objects = append(objects, o)
	}
	return registry.Declare(objects)
}

func device(i int) *registry.Device {
	return &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprintf("d%d", i)), Type: "meter", State: "active"}
}

func parameter(name string, change func(*registry.Parameter)) *registry.Parameter {
	p := &registry.Parameter{Addr: project.Child(registry.KindParameter, name), Name: name, Type: registry.TypeFloat, OnViolation: registry.Flag}
	change(p)
	return p
}

// without is the estate without some objects.
func without(s *registry.Snapshot, addresses ...registry.Address) *registry.Snapshot {
	var objects []registry.Object
	for o := range s.Objects {
		if !slices.Contains(addresses, o.Address()) {
			objects = append(objects, o)
		}
	}
	return registry.Declare(objects)
}

func (p *plant) current() *registry.Snapshot {
	p.t.Helper()
	s, err := p.db.LoadRegistry(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *plant) apply(desired *registry.Snapshot) {
	p.t.Helper()
	if _, err := p.db.Apply(p.t.Context(), registry.Diff(p.current(), desired), store.Author{User: "pat", Host: "pc"}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) options() Options {
	return Options{Now: p.now, Backtest: 30 * day, Limit: time.Minute}
}

func (p *plant) assess(desired *registry.Snapshot, o Options) *Report {
	p.t.Helper()
	current := p.current()
	r, err := Assess(p.t.Context(), p.db, current, registry.Diff(current, desired), o)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *plant) exec(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.conn.Exec(p.t.Context(), sql, args...); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](p *plant, sql string, args ...any) (v T) {
	p.t.Helper()
	if err := p.conn.QueryRow(p.t.Context(), sql, args...).Scan(&v); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// reading is one value of a device; NaN is null.
type reading struct {
	device         int
	time, received time.Time
	value          float64
	quality        byte
}

// store writes readings of a parameter straight into the tables, beside a value of another parameter in every other row.
func (p *plant) store(key string, list []reading) {
	p.t.Helper()
	current := p.current()
	other := current.Parameters[len(current.Parameters)-1].Key
	var b pgx.Batch
	for i, r := range list {
		if name := "telemetry_p" + r.time.UTC().Format("20060102"); !p.db.Compresses() && !p.sets[name] {
			p.sets[name] = true
			start := r.time.UTC().Truncate(day)
			p.exec(fmt.Sprintf("CREATE TABLE %s PARTITION OF telemetry FOR VALUES FROM ('%s') TO ('%s')", name, start.Format(time.RFC3339), start.Add(day).Format(time.RFC3339)))
		}
		keys, values, quality := []string{key}, []*float64{&list[i].value}, []int16{int16(r.quality)}
		if math.IsNaN(r.value) {
			values[0] = nil
		}
		if i%2 == 0 && key != other {
			seven := 7.0
			keys, values, quality = append([]string{other}, keys...), append([]*float64{&seven}, values...), append([]int16{0}, quality...)
		}
		row := []any{r.time, r.received, current.Devices[r.device].Ref, keys, values, quality}
		b.Queue(`INSERT INTO telemetry (time, received_at, device_ref, set_id, vals, quality) VALUES ($1, $2, $3, parameter_set_id($4), $5, $6)`, row...)
		b.Queue(`INSERT INTO telemetry_latest AS l (time, device_ref, set_id, vals, quality) VALUES ($1, $2, parameter_set_id($3), $4, $5)
			ON CONFLICT (device_ref, set_id) DO UPDATE SET time = excluded.time, vals = excluded.vals, quality = excluded.quality WHERE excluded.time >= l.time`,
			append(row[:1:1], row[2:]...)...)
	}
	if err := p.conn.SendBatch(p.t.Context(), &b).Close(); err != nil {
		p.t.Fatal(err)
	}
}

// fires is a naive model of a rule: how often it fires for one device over what came, in the order in which it came.
func fires(th *registry.Threshold, came []reading) (n int) {
	var counted []reading
	for i, r := range came {
		late := slices.ContainsFunc(came[:i], func(before reading) bool { return before.time.After(r.time) })
		if !late && !math.IsNaN(r.value) && r.quality >= telemetry.QualityUncertain {
			counted = append(counted, r)
		}
	}
	exceeds := func(r reading) bool {
		return th.Above.Set && r.value > th.Above.Value || th.Below.Set && r.value < th.Below.Value
	}
	back := func(r reading) bool {
		return (!th.Above.Set || r.value <= th.Above.Value-th.Deadband) && (!th.Below.Set || r.value >= th.Below.Value+th.Deadband)
	}
	for len(counted) > 0 {
		if !exceeds(counted[0]) {
			counted = counted[1:]
			continue
		}
		end := slices.IndexFunc(counted, back)
		if end < 0 {
			end = len(counted)
		}
		if slices.ContainsFunc(counted[:end], func(r reading) bool { return exceeds(r) && r.time.Sub(counted[0].time) >= th.For }) {
			n++
		}
		counted = counted[end:]
	}
	return n
}

func TestABacktestEqualsTheModel(t *testing.T) {
	p := newPlant(t)
	r := rand.New(rand.NewPCG(5, 5))
	current := p.current()
	key := current.Parameters[0].Key
	came := make([][]reading, 4)
	var all []reading
	for i := range came {
		at := p.now.Add(-6 * day)
		seen := map[time.Time]bool{}
		for range 300 {
			if r.IntN(4) > 0 { // else it comes in the same request
				at = at.Add(time.Duration(r.IntN(2000)) * time.Second)
			}
			v := reading{device: i, time: at, value: float64(r.IntN(20)), quality: []byte{192, 192, 84, 64, 63, 0}[r.IntN(6)]}
			switch r.IntN(8) {
			case 0:
				v.value = math.NaN()
			case 1, 2:
				v.time = at.Add(-time.Duration(r.IntN(100_000)) * time.Second) // up to a day late
			case 3:
				v.time = at.Add(time.Duration(r.IntN(300)) * time.Second) // a clock that is ahead
			}
			if v.received = at; seen[v.time] || v.time.After(p.now) {
				continue
			}
			seen[v.time] = true
			came[i] = append(came[i], v)
		}
		// What came in one request was taken by its time, old values last.
		old := func(r reading) int { return map[bool]int{true: 1}[r.received.Sub(r.time) > time.Hour] }
		slices.SortStableFunc(came[i], func(a, b reading) int {
			return cmp.Or(a.received.Compare(b.received), cmp.Compare(old(a), old(b)), a.time.Compare(b.time))
		})
		all = append(all, came[i]...)
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	p.store(key, all)

	var rules []registry.Object
	for i := range 60 {
		th := &registry.Threshold{Addr: current.Parameters[0].Addr.Child(registry.KindThreshold, fmt.Sprintf("r%02d", i)), Severity: "warning",
			For: time.Duration(r.IntN(4)) * 20 * time.Minute, Deadband: float64(r.IntN(4))}
		if r.IntN(3) > 0 {
			th.Above = registry.BoundOf(float64(13 + r.IntN(6)))
		}
		if r.IntN(3) > 0 || !th.Above.Set {
			th.Below = registry.BoundOf(float64(1 + r.IntN(6)))
		}
		rules = append(rules, th)
	}
	report := p.assess(declare(rules...), p.options())
	sum := 0
	for _, o := range rules {
		th := o.(*registry.Threshold)
		want, devices := 0, 0
		for i := range came {
			n := fires(th, came[i])
			want += n
			devices += min(n, 1)
		}
		sum += want
		got := of(report, th.Addr).Threshold
		if got.Fires != want || got.FiredDevices != devices || got.Of != 4 || got.Devices != 4 || !got.Complete {
			t.Errorf("%+v:\ngot  %+v\nwant %d on %d", th, got, want, devices)
		}
	}
	if sum < 1000 {
		t.Errorf("only %d alerts: the test shows little", sum)
	}

	// A shorter history holds less, and a changed rule is told beside what it was.
	old := rules[0].(*registry.Threshold)
	p.apply(declare(old))
	changed := *old
	changed.Above, changed.Below, changed.For = registry.BoundOf(10), registry.Bound{}, 0
	o := p.options()
	o.Backtest = 108 * time.Hour
	got := of(p.assess(declare(&changed), o), old.Addr).Threshold
	wantBefore, want := 0, 0
	for i := range came {
		recent := slices.DeleteFunc(slices.Clone(came[i]), func(r reading) bool { return r.time.Before(p.now.Add(-o.Backtest)) })
		wantBefore += fires(old, recent)
		want += fires(&changed, recent)
	}
	if got.Fires != want || got.FiresBefore != wantBefore || want == wantBefore {
		t.Errorf("got %+v, want %d, was %d", got, want, wantBefore)
	}
}

// Alerts start and stop on devices that still send, by the newest value of the parameter, and open alerts go on.
func TestTheNewestValuesStartAndStopAlerts(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	a, b := current.Parameters[0], current.Parameters[1]
	rule := func(of *registry.Parameter, name string, above float64, hold time.Duration) *registry.Threshold {
		return &registry.Threshold{Addr: of.Addr.Child(registry.KindThreshold, name), Above: registry.BoundOf(above), For: hold, Severity: "warning"}
	}
	high, gone, held := rule(a, "high", 10, 0), rule(b, "gone", 10, 0), rule(a, "held", 10, time.Hour)
	p.apply(declare(high, gone))
	minutes := func(n int) time.Time { return p.now.Add(-time.Duration(n) * time.Minute) }
	list := []reading{
		{device: 0, time: minutes(9), value: 5, quality: 192}, {device: 0, time: minutes(2), value: 15, quality: 192},
		{device: 1, time: minutes(9), value: 15, quality: 192}, {device: 1, time: minutes(2), value: 12, quality: 192}, // in rows of different sets
		{device: 2, time: p.now.Add(-25 * time.Hour), value: 99, quality: 192},
		{device: 3, time: minutes(1), value: 99, quality: 192},
	}
	for i := range list {
		list[i].received = list[i].time
	}
	p.store(a.Key, list)
	for _, o := range []struct {
		rule, state string
		device      int
	}{{"high", "firing", 0}, {"high", "firing", 1}, {"high", "firing", 2}, {"gone", "firing", 2}, {"gone", "pending", 3}} {
		p.exec(`INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at, fired_at)
			SELECT id, $1, $2, 'warning', 15, $3, $3 FROM thresholds WHERE name = $4`, p.current().Devices[o.device].ID, o.state, minutes(5), o.rule)
	}
	raised := rule(a, "high", 13, 0)
	none := rule(a, "none", 100, 0)
	report := p.assess(without(declare(raised, held, none), device(3).Addr), p.options())
	for _, test := range []struct {
		rule               *registry.Threshold
		starting, stopping int
		on                 string
	}{
		{raised, 0, 1, "[]"}, // d1's is resolved by 12; d0's goes on; d2 is silent
		{held, 2, 0, "[" + device(0).Addr.String() + " " + device(1).Addr.String() + "]"}, // not d3, which goes
		{none, 0, 0, "[]"},
		{gone, 0, 1, "[]"}, // also of a silent device
	} {
		got := of(report, test.rule.Addr).Threshold
		if got.Starting != test.starting || got.Stopping != test.stopping || fmt.Sprint(got.StartingOn) != test.on {
			t.Errorf("%s: %d start, %d stop, %v; want %d, %d, %s", test.rule.Addr, got.Starting, got.Stopping, got.StartingOn, test.starting, test.stopping, test.on)
		}
	}
	if report.AlertsStarting != 2 || report.AlertsStopping != 2 {
		t.Errorf("in all %d start, %d stop", report.AlertsStarting, report.AlertsStopping)
	}
	p.apply(without(declare(high, gone), device(3).Addr)) // the device is retired, its newest row stays
	if got := of(p.assess(without(declare(high, gone, held), device(3).Addr), p.options()), held.Addr).Threshold; got.Starting != 2 {
		t.Errorf("with a retired device: %+v", got)
	}
}

// The values of a parameter that is renamed are stored under its old key: its rules are tried on them as if it kept that. One that
// gets the old name has none.
func TestRulesOfARenamedParameterAreTriedOnItsValues(t *testing.T) {
	p := newPlant(t)
	a := p.current().Parameters[0]
	renamed := parameter("z", func(*registry.Parameter) {})
	rule := func(of *registry.Parameter, name string, above float64) *registry.Threshold {
		return &registry.Threshold{Addr: of.Addr.Child(registry.KindThreshold, name), Above: registry.BoundOf(above), Severity: "warning"}
	}
	p.apply(declare(rule(a, "high", 10)))
	var list []reading
	for i := range 90 {
		v := reading{device: i % 3, time: p.now.Add(-time.Duration(90-i) * time.Minute), value: float64(i % 20), quality: 192}
		v.received = v.time
		list = append(list, v)
	}
	p.store(a.Key, list)
	p.exec(`INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at, fired_at)
		SELECT t.id, $1, 'firing', 'warning', 15, now(), now() FROM thresholds t`, p.current().Devices[0].ID)
	want := p.assess(declare(rule(a, "high", 5), rule(a, "new", 3)), p.options())
	desired := declare(renamed, rule(renamed, "high", 5), rule(renamed, "new", 3), rule(a, "none", 0))
	desired.Moves = []registry.Moved{{From: a.Addr, To: renamed.Addr}}
	got := p.assess(desired, p.options())
	for _, name := range []string{"high", "new"} {
		impact := of(got, rule(renamed, name, 0).Addr)
		if impact == nil {
			t.Errorf("%s has no impact", name)
			continue
		}
		as, is := of(want, rule(a, name, 0).Addr).Threshold, impact.Threshold
		if as.Fires == 0 || as.Starting == 0 || fmt.Sprintf("%+v", is) != fmt.Sprintf("%+v", as) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, is, as)
		}
	}
	if im := of(got, rule(a, "none", 0).Addr); im != nil {
		t.Errorf("a new parameter with the old name has the impact %q", im.Lines())
	}
}

func TestParametersAreTriedOnStoredValues(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	var list []reading
	for i := range 500 {
		v := reading{device: i % 3, time: p.now.Add(-time.Duration(i) * time.Hour), value: float64(i%40) / 2, quality: 192}
		if v.received = v.time; i%50 == 0 {
			v.value = math.NaN()
		}
		list = append(list, v)
	}
	p.store(current.Parameters[0].Key, list)
	desired := declare(parameter("a", func(p *registry.Parameter) {
		p.Type, p.Min, p.Max, p.OnViolation = registry.TypeInt, registry.BoundOf(2), registry.BoundOf(15), registry.Reject
	}))
	const values = `SELECT count(*) FROM ingest_events WHERE parameter_key LIKE '%:a' AND time >= $1 AND value IS NOT NULL`
	got := of(p.assess(desired, p.options()), current.Parameters[0].Addr).Parameter
	from := p.now.Add(-30 * day)
	if want := query[int64](p, values+" AND (value < 2 OR value > 15 OR value <> trunc(value))", from); got.Outside != want || want == 0 {
		t.Errorf("%d are outside, want %d", got.Outside, want)
	}
	if want := query[int64](p, values, from); got.Values != want || !got.Complete || got.OutsideBefore != 0 || got.OutsideDevices != 3 {
		t.Errorf("got %+v, want %d values", got, want)
	}
	p.apply(desired)
	got = of(p.assess(declare(), p.options()), current.Parameters[0].Addr).Parameter
	if got.Outside != 0 || got.OutsideBefore == 0 {
		t.Errorf("back again: %+v", got)
	}
	// One that goes: its senders will be refused.
	got = of(p.assess(without(declare(), current.Parameters[0].Addr), p.options()), current.Parameters[0].Addr).Parameter
	if got.Senders != 3 || got.Values != 0 {
		t.Errorf("retired: %+v", got)
	}
	if r := p.assess(without(declare(parameter("a", func(p *registry.Parameter) { p.Unit = "V" })), current.Parameters[1].Addr), p.options()); of(r, current.Parameters[1].Addr) != nil {
		t.Errorf("a parameter that nobody has sent has the impact %+v", of(r, current.Parameters[1].Addr).Parameter)
	}
}

// A device is judged by its own range, and what another one does to its values is said not to be known.
func TestOverridesAreTriedOnStoredValues(t *testing.T) {
	p := newPlant(t)
	own := device(0)
	own.Overrides = []registry.Override{{Parameter: "a", Max: registry.BoundOf(100)}}
	p.apply(declare(own))
	current := p.current()
	var list []reading
	for i := range 30 {
		list = append(list, reading{device: i % 3, time: p.now.Add(-time.Duration(i) * time.Hour), received: p.now.Add(-time.Duration(i) * time.Hour), value: 50, quality: 192})
	}
	p.store(current.Parameters[0].Key, list)
	strict := parameter("a", func(p *registry.Parameter) { p.Max = registry.BoundOf(15) })
	if got := of(p.assess(declare(own, strict), p.options()), strict.Addr).Parameter; got.Outside != 20 || got.OutsideBefore != 0 || got.OutsideDevices != 2 {
		t.Errorf("with an override: %+v, want 20 values of 2 devices outside", got)
	}
	r := p.assess(declare(strict), p.options())
	if got := of(r, strict.Addr).Parameter; got.Outside != 30 || got.OutsideDevices != 3 {
		t.Errorf("without the override: %+v, want 30 values of 3 devices outside", got)
	}
	if got := of(r, own.Addr); got == nil || !strings.Contains(got.Unknown, "ranges that a device overrides") {
		t.Errorf("the override that goes has the impact %+v", got)
	}
	slow := device(0)
	slow.Overrides = []registry.Override{{Parameter: "a", Max: registry.BoundOf(100), StaleAfter: time.Hour}}
	if r := p.assess(declare(slow), p.options()); r != nil {
		t.Errorf("stale_after has the impact %+v", r)
	}
}

func TestDevicesHoldWhatIsStored(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	var list []reading
	for i := range 400 { // of each hour one of each device, so that they share every day alike
		list = append(list, reading{device: i % 3, time: p.now.Add(-time.Duration(i/3) * time.Hour), received: p.now, value: 1, quality: 192})
	}
	p.store(current.Parameters[0].Key, list)
	retention := &registry.Retention{Addr: registry.RetentionAddress, Raw: 90 * day}
	p.apply(declare(retention))
	p.exec("INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at) VALUES (gen_random_uuid(), $1, 'pending', 'warning', 1, now())", current.Devices[0].ID)
	gone := []registry.Address{current.Devices[0].Addr, current.Devices[3].Addr}
	report := p.assess(without(declare(retention), gone...), p.options())
	check := func(d *Device, alerts int) {
		t.Helper()
		const of = " FROM telemetry WHERE device_ref = $1"
		ref := current.Devices[0].Ref
		if d.Rows != query[int64](p, "SELECT count(*)"+of, ref) || !d.RowsExact || d.Alerts != alerts ||
			!d.Oldest.Equal(query[time.Time](p, "SELECT min(time)"+of, ref)) || !d.Newest.Equal(query[time.Time](p, "SELECT max(time)"+of, ref)) {
			t.Errorf("%+v", d)
		}
		if want := p.now.Truncate(day).Add(91 * day); !d.KeptUntil.Equal(want) {
			t.Errorf("kept until %s, want %s", d.KeptUntil, want)
		}
		// The three devices send alike, so that each has a third of all bytes.
		bytes := query[int64](p, "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'telemetry'::regclass")
		if !p.db.Compresses() && (d.Bytes < bytes/3-bytes/30 || d.Bytes > bytes/3+bytes/30) {
			t.Errorf("%d bytes of %d", d.Bytes, bytes)
		}
	}
	check(of(report, gone[0]).Device, 1)
	if im := of(report, gone[1]); im != nil {
		t.Errorf("a device that has sent nothing has the impact %v", im.Lines())
	}
	if report.DataLoss || report.Disk == nil || report.Disk.BytesPerDayAfter >= report.Disk.BytesPerDay {
		t.Errorf("%+v, %+v", report, report.Disk)
	}
	moved, adopted := *current.Devices[0], *current.Devices[2]
	moved.Addr, adopted.Addr = site.Child(registry.KindDevice, "d9"), site.Child(registry.KindDevice, "d8")
	adopted.ProjectID = uuid.New()
	p.exec("INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at) VALUES (gen_random_uuid(), $1, 'pending', 'warning', 1, now())", adopted.ID)
	plan := &registry.Plan{Changes: []registry.Change{
		{Action: registry.Release, Address: gone[1], Before: current.Devices[3]}, {Action: registry.Release, Address: registry.RetentionAddress, Before: retention},
		{Action: registry.Delete, Address: moved.Addr, Before: current.Devices[1]}, {Action: registry.Move, Address: moved.Addr, From: &gone[0], Before: current.Devices[0], After: &moved},
		{Action: registry.Import, Address: adopted.Addr, From: &current.Devices[2].Addr, Before: current.Devices[2], After: &adopted},
	}}
	report, err := Assess(t.Context(), p.db, p.current(), plan, p.options())
	if err != nil || len(report.Changes) != 3 || report.DataLoss {
		t.Fatalf("%+v, %v", report, err)
	}
	if im := report.Of(&plan.Changes[4]); im.Device.Alerts != 1 { // of a rule of the project that it leaves
		t.Errorf("%+v", im.Device)
	}
	if im := report.Of(&plan.Changes[4]); im.Device.Rows != 133 || !strings.HasPrefix(im.Lines()[0], "takes along 133 rows, ") {
		t.Errorf("%+v, %q", im, im.Lines())
	}
	check(report.Of(&plan.Changes[3]).Device, 0)
	if im := report.Of(&plan.Changes[2]); im == nil || im.Device.Rows != 133 || im.Action != registry.Delete {
		t.Errorf("%+v", im)
	}
	p.apply(without(declare(retention), gone...))
	check(of(p.assess(declare(retention), p.options()), gone[0]).Device, 0)
}

func TestNewDevicesGrowTheDatabase(t *testing.T) {
	p := newPlant(t)
	var list []reading
	for i := range 2000 {
		list = append(list, reading{device: i % 3, time: p.now.Add(-time.Duration(i) * 6 * time.Minute), received: p.now, value: 1, quality: 192})
	}
	p.store(p.current().Parameters[0].Key, list)
	known, unknown := device(7), device(8)
	known.Interval, known.Parameters = 10*time.Second, []string{"a", "b"}
	unknown.Interval = time.Minute
	o := p.options()
	o.Disk, o.DiskSource = 200e6, "-disk"
	d := p.assess(declare(known, unknown), o).Disk
	if d.DevicesAdded != 2 || d.DevicesUnknown != 1 || d.ValuesPerDayAdded != 2*8640 || d.BytesPerDayAfter <= d.BytesPerDay || !d.FullAfter.Before(d.FullBefore) {
		t.Errorf("%+v", d)
	}
	if r := p.assess(declare(unknown), o); r != nil {
		t.Errorf("a device of which nothing is known has the impact %+v", r)
	}
}

// A retention that is released goes on.
func TestAReleasedRetentionStillEndsTelemetry(t *testing.T) {
	p := newPlant(t)
	retention := &registry.Retention{Addr: registry.RetentionAddress, Raw: 90 * day}
	p.apply(declare(retention))
	var list []reading
	for i := range 500 {
		list = append(list, reading{device: i % 3, time: p.now.Add(-time.Duration(i) * 20 * time.Minute), received: p.now, value: 1, quality: 192})
	}
	p.store(p.current().Parameters[0].Key, list)
	added := device(7)
	added.Interval, added.Parameters = 10*time.Second, []string{"a"}
	desired := declare(added)
	desired.Released = []registry.Released{{From: registry.RetentionAddress}}
	if d := p.assess(desired, p.options()).Disk; d.LevelBefore == 0 || d.LevelAfter <= d.LevelBefore {
		t.Errorf("levels off at %d, then at %d", d.LevelBefore, d.LevelAfter)
	}
}

// The projection equals one that keeps a list of days and ages it.
func TestProjection(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 200 {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		a := &assessment{o: Options{Now: now}}
		type slab struct {
			end   time.Time
			bytes int64
		}
		var list []slab
		a.measure.size = 1e6
		for i := range r.IntN(40) {
			end := now.Truncate(day).Add(-time.Duration(i) * day)
			bytes := int64(r.IntN(1000))
			a.days = append([]store.Day{{Start: end.Add(-day), End: end, Bytes: bytes}}, a.days...)
			a.measure.size += bytes
			list = append(list, slab{end, bytes})
		}
		m := model{growth: float64(r.IntN(1000)), keep: time.Duration(r.IntN(60)) * day}
		size := a.measure.size
		for days := range 120 {
			at := now.Add(time.Duration(days) * day)
			if days > 0 {
				list = append(list, slab{at, int64(m.growth)})
				size += int64(m.growth)
			}
			list = slices.DeleteFunc(list, func(s slab) bool {
				if m.keep == 0 || s.end.After(at.Add(-m.keep)) {
					return false
				}
				size -= s.bytes
				return true
			})
			if got := a.size(m, days); got != size {
				t.Fatalf("%+v after %d days: %d bytes, want %d", m, days, got, size)
			}
		}
		if m.keep > 0 && a.level(m) != a.size(m, 4000) {
			t.Fatalf("%+v levels off at %d, and is %d after years", m, a.level(m), a.size(m, 4000))
		}
	}
}

func TestWhatThereIsNoTimeForIsTold(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	var list []reading
	for i := range 200 {
		list = append(list, reading{device: i % 4, time: p.now.Add(-time.Duration(i) * time.Hour), received: p.now, value: 1, quality: 192})
	}
	p.store(current.Parameters[0].Key, list)
	p.apply(declare(&registry.Retention{Addr: registry.RetentionAddress, Raw: 90 * day}))
	rule := &registry.Threshold{Addr: current.Parameters[0].Addr.Child(registry.KindThreshold, "high"), Above: registry.BoundOf(0), Severity: "warning"}
	desired := declare(rule, &registry.Retention{Addr: registry.RetentionAddress, Raw: 2 * day})

	// The database does not answer: telemetry is locked.
	lock, err := p.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), "LOCK telemetry, telemetry_latest IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	o := p.options()
	o.Limit = 300 * time.Millisecond
	begin := time.Now()
	report := p.assess(desired, o)
	if took := time.Since(begin); took > 20*o.Limit {
		t.Errorf("it took %s", took)
	}
	for _, a := range []registry.Address{rule.Addr, registry.RetentionAddress} {
		if im := of(report, a); im == nil || !strings.Contains(strings.Join(im.Lines(), "\n"), "the effect on data is not known: the database did not answer within 300ms") {
			t.Errorf("%s: %+v", a, im)
		}
	}
	if !report.DataLoss || !strings.Contains(report.Summary(), "the effect of 2 changes is not known") {
		t.Errorf("data loss %v: %s", report.DataLoss, report.Summary())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Assess(ctx, p.db, current, registry.Diff(current, desired), o); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Of a history that was not looked at to its end, from its beginning or on all devices it is told what was.
	plan := registry.Diff(current, declare(rule))
	days, err := p.db.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	yesterday := days[len(days)-2].Start.Format(minute)
	const devices = "SELECT count(*) FROM telemetry WHERE time >= $1"
	for _, test := range []struct {
		name   string
		most   int64
		rows   int64 // that each day is said to have
		values int64
		want   string
	}{
		{"all", mostRows, 5, 200, ""},
		{"not to the end", 120, 0, 120, "there was time to look at the history from " + p.now.Add(-30*day).Format(minute) + " to " + list[80].time.Format(minute) + " only"},
		{"not from the beginning", mostRows, dayRows, query[int64](p, devices, days[len(days)-2].Start), "there was time to look at the history since " + yesterday + " only"},
		{"some devices", mostRows, 1e12, query[int64](p, devices+" AND device_ref = (SELECT ref FROM devices ORDER BY id LIMIT 1)", days[len(days)-2].Start),
			"there was time to look at the history since " + yesterday + " only, of 1 of 4 devices"},
	} {
		a := &assessment{ctx: t.Context(), db: p.db, current: current, o: p.options(), deadline: time.Now().Add(10 * time.Second), report: &Report{}, most: test.most, few: 100, waiting: mostWaiting}
		if err := a.look(); err != nil {
			t.Fatal(err)
		}
		for i := range a.days {
			a.days[i].Rows = test.rows
			delete(a.measure.counted, &a.days[i])
		}
		a.changes, a.impacts = []*registry.Change{&plan.Changes[0]}, make([]*Impact, 1)
		a.replay([]int{0})
		got := a.impacts[0].Threshold
		lines := a.impacts[0].Lines()
		if got.Complete != (test.want == "") || got.Values != test.values || got.Of != 4 || test.want != "" && lines[len(lines)-1] != test.want || got.Fires != got.FiredDevices {
			t.Errorf("%s: %+v, %d fire, %q; want %d values, %s", test.name, got.Look, got.Fires, lines, test.values, test.want)
		}
	}
}

// What a device hands over long after its time waits until what was received before it has had its turn. There is an end to that.
func TestABackfillDoesNotFillTheMemory(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	var list []reading
	for i := range 200 {
		list = append(list, reading{device: i % 4, time: p.now.Add(-time.Duration(i) * time.Hour), received: p.now, value: 1, quality: 192})
	}
	p.store(current.Parameters[0].Key, list)
	rule := &registry.Threshold{Addr: current.Parameters[0].Addr.Child(registry.KindThreshold, "high"), Above: registry.BoundOf(0), Severity: "warning"}
	for _, test := range []struct {
		waiting int
		looked  int64
		until   time.Time
	}{{300, 200, time.Time{}}, {50, 51, list[149].time}} {
		a := &assessment{ctx: t.Context(), db: p.db, current: current, o: p.options(), deadline: time.Now().Add(time.Minute), report: &Report{}, most: mostRows, few: 1000, waiting: test.waiting}
		a.changes, a.impacts = []*registry.Change{&registry.Diff(current, declare(rule)).Changes[0]}, make([]*Impact, 1)
		a.replay([]int{0})
		got := a.impacts[0].Threshold
		if got.Values != test.looked || !got.Until.Equal(test.until.Truncate(time.Microsecond)) || got.Complete != test.until.IsZero() || got.Fires != 4 {
			t.Errorf("with room for %d: %+v, fires %d", test.waiting, got.Look, got.Fires)
		}
	}
}

// A look that ends before its first event says that it saw nothing, whatever one before it has seen.
func TestALookThatSeesNothingSaysSo(t *testing.T) {
	p := newPlant(t)
	p.store(p.current().Parameters[0].Key, []reading{{device: 0, time: p.now.Add(-time.Hour), received: p.now, value: 1, quality: 192}})
	rec, err := p.db.Record(t.Context(), []string{p.current().Parameters[0].Key}, p.now.Add(-day))
	if err != nil {
		t.Fatal(err)
	}
	days, err := p.db.Days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{a: &assessment{most: mostRows, waiting: mostWaiting}, looks: map[string]*look{p.current().Parameters[0].Key: {}}, sets: map[*telemetry.ParameterSet]*narrow{}}
	if since := days[0].Start; !tr.play(t.Context(), rec, rec.Devices, days, since) || tr.rows != 1 {
		t.Fatalf("of one row %d were seen", tr.rows)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if since := days[0].Start; tr.play(late, rec, rec.Devices, days, since) || !tr.until.Equal(since) {
		t.Errorf("seen until %s, want %s: nothing", tr.until, since)
	}
}

func TestAPlanWithoutSuchChangesAsksNothing(t *testing.T) {
	p := newPlant(t)
	current := p.current()
	renamed := device(0)
	renamed.Type = "sensor"
	p.db.Close() // a query would fail
	plan := registry.Diff(current, declare(renamed, parameter("a", func(p *registry.Parameter) { p.Unit = "V" })))
	if r, err := Assess(t.Context(), p.db, current, plan, p.options()); r != nil || err != nil || len(plan.Changes) != 2 {
		t.Errorf("%+v, %v of %v", r, err, plan.Changes)
	}
}

// of returns the impact of the change of an object.
func of(r *Report, a registry.Address) *Impact {
	for _, im := range r.Changes {
		if im.Address == a {
			return im
		}
	}
	return nil
}
