package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// estateWith is the estate of a service with changes, as a declaration.
func estateWith(change func(objects []registry.Object) []registry.Object) *registry.Snapshot {
	var objects []registry.Object
	for o := range estate().Objects {
		objects = append(objects, o)
	}
	return registry.Declare(change(objects))
}

// assess says what the way to a declaration does, and applies it when it is wanted.
func (s *service) assess(desired *registry.Snapshot, apply bool) *impact.Report {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), s.options.DatabaseURL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	current, err := db.LoadRegistry(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	plan := registry.Diff(current, desired)
	r, err := impact.Assess(s.t.Context(), db, current, plan, impact.Options{Now: time.Now(), Backtest: 30 * 24 * time.Hour, Limit: time.Minute})
	if err != nil {
		s.t.Fatal(err)
	}
	if r == nil {
		s.t.Fatalf("the plan has no impact: %v", plan.Changes)
	}
	for _, im := range r.Changes {
		if im.Unknown != "" {
			s.t.Fatalf("%s: %s", im.Address, im.Unknown)
		}
	}
	if apply {
		if _, err := db.Apply(s.t.Context(), plan, store.Author{User: "test", Host: "test"}); err != nil {
			s.t.Fatal(err)
		}
	}
	return r
}

// What a plan says that retention drops is what the engine then drops.
func TestRetentionDropsWhatThePlanSaid(t *testing.T) {
	s := start(t)
	now := time.Now().UTC()
	r := rand.New(rand.NewPCG(1, 7))
	var body []string
	for day := range 50 {
		for range 1 + r.IntN(20) {
			at := now.Add(-time.Duration(day)*24*time.Hour - time.Duration(r.IntN(24*3600))*time.Second)
			body = append(body, s.event(r.IntN(4), at, "voltage", fmt.Sprint(r.IntN(300)), "current", "5"))
		}
	}
	expect(t, "status", s.post("application/x-ndjson", strings.Join(body, "\n")).status, 200)
	s.drained()
	const state = "SELECT count(*), min(time) FROM telemetry"
	const tables = "SELECT count(*), coalesce(sum(pg_total_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'telemetry'::regclass"
	count := func(sql string) (a, b int64) {
		t.Helper()
		if err := s.db.QueryRow(t.Context(), sql).Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	const rows = "SELECT count(*), coalesce(floor(extract(epoch FROM min(time))), 0)::bigint FROM telemetry"
	before, oldest := count(rows)
	days, bytes := count(tables)
	if s.rows("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") != "0" {
		t.Skip("a hypertable's chunks are not those tables")
	}
	report := s.assess(estateWith(func(objects []registry.Object) []registry.Object {
		for _, o := range objects {
			if r, ok := o.(*registry.Retention); ok {
				r.Raw = 20*24*time.Hour + 5*time.Hour
			}
		}
		return objects
	}), true)
	got := of(report, registry.RetentionAddress).Retention
	expect(t, "before the engine runs", s.rows(state), s.rows(state))
	s.stop()
	s.run() // it begins with a look at what is too old
	wait(t, "the engine to drop days", func() bool { n, _ := count(tables); return n < days })
	wait(t, "the engine to drop all that it drops", func() bool { n, _ := count(tables); return n == days-int64(got.Days) })
	s.stop()
	after, _ := count(rows)
	daysAfter, bytesAfter := count(tables)
	expect(t, "days", got.Days, days-daysAfter)
	expect(t, "rows", got.Rows, before-after)
	expect(t, "bytes", got.Bytes, bytes-bytesAfter)
	expect(t, "oldest", got.Oldest.Unix(), oldest)
	if !got.RowsExact || !report.DataLoss || got.Rows == 0 || report.RowsDropped != got.Rows {
		t.Errorf("%+v, %+v", got, report)
	}
	if again := s.rows("SELECT min(time)::date >= (now() - interval '21 days 6 hours')::date FROM telemetry"); again != "true" {
		t.Error("the engine has not dropped all that is too old")
	}
}

// A rule that is tried on the history fires as often as one that was there when the values came, and it starts as many
// alerts as the plan says, when the newest values come again.
func TestTheBacktestIsWhatTheWorkerDid(t *testing.T) {
	s := start(t)
	rule := func(name string, change func(*registry.Threshold)) *registry.Threshold {
		th := &registry.Threshold{Addr: registry.NewAddress(registry.KindThreshold, "Acme", "energy", "voltage", name), Above: registry.BoundOf(253), Severity: "warning"}
		change(th)
		return th
	}
	rules := func(twin string) []registry.Object {
		return []registry.Object{
			rule("plain"+twin, func(*registry.Threshold) {}),
			rule("held"+twin, func(th *registry.Threshold) { th.For = 10 * time.Minute }),
			rule("damped"+twin, func(th *registry.Threshold) { th.Deadband = 4 }),
			rule("low"+twin, func(th *registry.Threshold) {
				th.Above, th.Below, th.Deadband, th.For = registry.Bound{}, registry.BoundOf(245), 1, 5*time.Minute
			}),
		}
	}
	with := func(twins ...string) *registry.Snapshot {
		return estateWith(func(objects []registry.Object) []registry.Object {
			for _, twin := range twins {
				objects = append(objects, rules(twin)...)
			}
			return objects
		})
	}
	db, err := store.Open(t.Context(), s.options.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	current, err := db.LoadRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version, err := db.Apply(t.Context(), registry.Diff(current, with("")), store.Author{User: "test", Host: "test"})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the engine to know the rules", func() bool { return s.engine.Snapshot().Version == version })

	// Values come as devices send them: some at once, some hours late and out of order, some twice, some without a value.
	r := rand.New(rand.NewPCG(3, 3))
	clock := time.Now().Add(-8 * time.Hour).Truncate(time.Minute)
	var events []string
	send := func() { // one event of a device at most, so that it is known in which order the worker takes them
		t.Helper()
		expect(t, "status", s.post("application/x-ndjson", strings.Join(events, "\n")).status, 200)
		s.drained()
		events = nil
	}
	for i := range 80 {
		clock = clock.Add(time.Duration(r.IntN(600)) * time.Second)
		for device := range 4 {
			at, value := clock, fmt.Sprint(243+r.IntN(14))
			switch r.IntN(6) {
			case 0:
				// Never at a time that another event has: of a row that is corrected only the last value is known.
				at = at.Add(-time.Duration(r.IntN(10000))*time.Second - time.Duration(1+i)*time.Millisecond)
			case 1:
				value = "null"
			}
			if parameter := "voltage"; r.IntN(8) > 0 {
				events = append(events, s.event(device, at, parameter, value))
			} else {
				events = append(events, s.event(device, at, "current", "1", parameter, value))
			}
		}
		send()
	}
	if clock.After(time.Now().Add(-15 * time.Minute)) {
		t.Fatal("the values are too new for what comes after them")
	}
	newest := []string{"254", "250", "244", "248"} // tell the rules apart
	last := func(later time.Duration) {
		for device, value := range newest {
			events = append(events, s.event(device, clock.Add(later), "voltage", value))
		}
		send()
	}
	last(time.Second)
	report := s.assess(with("", " twin"), true)
	fired := func(name string) (n, now int) {
		t.Helper()
		err := s.db.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE fired_at IS NOT NULL), count(*) FILTER (WHERE state = 'firing')
			FROM alerts a JOIN thresholds t ON t.id = a.threshold_id WHERE t.name = $1`, name).Scan(&n, &now)
		if err != nil {
			t.Fatal(err)
		}
		return n, now
	}
	sum := 0
	for _, o := range rules(" twin") {
		name := o.Address().Name()
		got := of(report, o.Address()).Threshold
		n, _ := fired(strings.TrimSuffix(name, " twin"))
		sum += n
		expect(t, name+" has fired", got.Fires, n)
		expect(t, name+": all was looked at", got.Complete, true)
		expect(t, name+"'s values", got.Values, s.rows(`SELECT count(*) FROM ingest_events WHERE value IS NOT NULL AND parameter_key LIKE '%:voltage'`))
	}
	if sum < 40 {
		t.Errorf("only %d alerts in all: the test shows little", sum)
	}
	// The same values again, at once and when the longest rule has waited.
	wait(t, "the engine to know the new rules", func() bool {
		return slices.ContainsFunc(s.engine.Snapshot().Thresholds, func(th *registry.Threshold) bool { return th.Addr.Name() == "low twin" })
	})
	last(2 * time.Second)
	last(10*time.Minute + 2*time.Second)
	for _, o := range rules(" twin") {
		_, now := fired(o.Address().Name())
		expect(t, o.Address().Name()+" starts", of(report, o.Address()).Threshold.Starting, now)
	}
	if report.AlertsStarting != 4 {
		t.Errorf("%d alerts start, want one of each rule", report.AlertsStarting)
	}

	// Now the rules go, and their alerts stop.
	report = s.assess(with(""), false)
	_, plain := fired("plain twin")
	expect(t, "stopping", of(report, rules(" twin")[0].Address()).Threshold.Stopping, plain)
	expect(t, "has fired", of(report, rules(" twin")[0].Address()).Threshold.FiresBefore > 0, true)
}

// of returns the impact of the change of an object.
func of(r *impact.Report, a registry.Address) *impact.Impact {
	for _, im := range r.Changes {
		if im.Address == a {
			return im
		}
	}
	return nil
}
