package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

const purgedEstate = mill + `site.acme/mill/south threshold.acme/mill/voltage/high parameter.acme/mill/current
	device.acme/mill/north/a device.acme/mill/north/b device.acme/mill/south/c customer.holding project.holding/p`

func addresses(t testing.TB, text string) (list []registry.Address) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		a, err := registry.ParseAddress(word)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func planPurge(t testing.TB, s *Store, what, allowed string) *registry.Plan {
	t.Helper()
	plan, err := registry.PlanPurge(load(t, s), addresses(t, what), addresses(t, allowed))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// measured stores events of every device with random sets of the parameters voltage, current and one that is not declared,
// with late ones among them, and returns the devices' ids.
func measured(t *testing.T, s *Store) map[registry.Address]uuid.UUID {
	t.Helper()
	ids := map[registry.Address]uuid.UUID{}
	var devices []uuid.UUID
	snapshot := load(t, s)
	for _, d := range snapshot.Devices {
		ids[d.Addr] = d.ID
		devices = append(devices, d.ID)
	}
	key := map[string]string{"o": "other"}
	for _, p := range snapshot.Parameters {
		key[p.Addr.Name()[:1]] = p.Key
	}
	var sets []*telemetry.ParameterSet
	for _, letters := range []string{"v", "c", "o", "cv", "co", "vo", "cvo"} {
		var keys []string
		for _, l := range strings.Split(letters, "") {
			keys = append(keys, key[l])
		}
		sets = append(sets, &telemetry.ParameterSet{Keys: keys})
	}
	r := rand.New(rand.NewPCG(1, 1))
	c := claimPartition(t, s)
	now := time.Now()
	for range 20 {
		var events []telemetry.Event
		for range 10 {
			e := oneEvent(devices[r.IntN(len(devices))], now.Add(time.Duration(r.IntN(100_000))*time.Second), 0)
			e.Set = sets[r.IntN(len(sets))]
			e.Values, e.Quality = nil, nil
			for range e.Set.Keys {
				e.Values = append(e.Values, float64(r.IntN(1000)))
				e.Quality = append(e.Quality, uint8(190+r.IntN(3)))
			}
			events = append(events, e)
		}
		store(t, c, events)
	}
	c.Close()
	return ids
}

// values returns what the views show, but for some devices and keys.
func values(t testing.TB, s *Store, without func(device, key string) bool) map[string]int {
	t.Helper()
	rows := map[string]int{}
	for _, view := range []string{"ingest_events", "v_scada_latest"} {
		text := query1[string](t, s, `SELECT coalesce(string_agg(concat_ws(' ', device_id, parameter_key, time, value, quality), E'\n'), '') FROM `+view)
		for _, line := range strings.Split(text, "\n") {
			if f := strings.Fields(line); len(f) > 1 && !without(f[0], f[1]) {
				rows[view+" "+line]++
			}
		}
	}
	return rows
}

func TestPurge(t *testing.T) {
	all := func(string, string) bool { return false }
	s := migrated(t)
	full := reconcile(t, s, estate(t, purgedEstate))
	ids := measured(t, s)
	d := addresses(t, "device.acme/mill/north/a")[0]
	exec(t, s, `INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at) SELECT t.id, d.id, 'firing', 'warning', 1, now() FROM thresholds t, devices d`)
	exec(t, s, `INSERT INTO dead_letters (epoch, partition, seq, event_index, device_id, reason, message, event) VALUES ('e', 0, 1, 0, $1, 'r', 'm', '{}')`, ids[d])
	before := values(t, s, all)
	reconcile(t, s, estate(t, "customer.acme project.acme/mill site.acme/mill/south device.acme/mill/south/c"))

	// A device without permission stays, with all it has; with it, it goes, alone.
	plan := planPurge(t, s, "device.acme/mill/north/a", "")
	rows, err := s.StoredRows(testContext(t), plan)
	if want := query1[int64](t, s, `SELECT count(*) FROM telemetry t JOIN devices d ON d.ref = t.device_ref WHERE d.id = $1`, ids[d]); err != nil || rows[d] != want || want == 0 || len(rows) != 1 {
		t.Errorf("it would lose %v rows, %v; want %d", rows, err, want)
	}
	_, err = s.Apply(testContext(t), plan, author)
	if err == nil || !strings.Contains(err.Error(), "these have stored telemetry, whose loss was not allowed: device.acme/mill/north/a") {
		t.Errorf("without permission: %v", err)
	}
	if got := values(t, s, all); !maps.Equal(got, before) {
		t.Error("what was refused changed telemetry")
	}
	version, err := s.Apply(testContext(t), planPurge(t, s, "device.acme/mill/north/a", "device.acme/mill/north/a"), author)
	if err != nil || version != full.Version+2 {
		t.Fatalf("version %d, %v", version, err)
	}
	gone := func(device, _ string) bool { return device == ids[d].String() }
	if got := values(t, s, all); !maps.Equal(got, values(t, s, gone)) || len(got) == len(before) {
		t.Error("not exactly the device's telemetry is gone")
	}
	if n := query1[int](t, s, `SELECT count(*) FROM telemetry WHERE device_ref NOT IN (SELECT ref FROM devices)`); n != 0 {
		t.Errorf("%d rows are nobody's", n)
	}
	if got := query1[string](t, s, `SELECT (SELECT count(*) FROM alerts WHERE device_id = $1) || ' ' || (SELECT count(*) FROM alerts) || ' ' || (SELECT count(*) FROM dead_letters)`, ids[d]); got != "0 2 1" {
		t.Errorf("its alerts, alerts, dead letters: %s, want 0 2 1", got)
	}
	if got := query1[string](t, s, `SELECT description || ' ' || author || ' ' || (diff_json #>> '{changes,0,action}') FROM registry_versions WHERE version = $1`, version); got != "nsready purge pat@press-pc purge" {
		t.Errorf("recorded as %q", got)
	}

	// A parameter's values go from the rows that hold others, too; a site takes its devices along.
	voltage := registry.ParameterKey(full.Projects[0].ID, "voltage")
	plan = planPurge(t, s, "parameter.acme/mill/voltage site.acme/mill/north", "parameter.acme/mill/voltage site.acme/mill/north")
	b := addresses(t, "device.acme/mill/north/b")[0]
	rows, err = s.StoredRows(testContext(t), plan)
	want := query1[int64](t, s, `SELECT count(*) FROM ingest_events WHERE parameter_key = $1 AND device_id <> $2`, voltage, ids[b])
	if got := rows[addresses(t, "parameter.acme/mill/voltage")[0]]; err != nil || got != want || want == 0 || rows[b] == 0 || len(rows) != 2 {
		t.Errorf("would be lost: %v, %v; want %d of the parameter", rows, err, want)
	}
	expected := values(t, s, func(device, key string) bool { return device == ids[b].String() || key == voltage })
	if _, err := s.Apply(testContext(t), plan, author); err != nil {
		t.Fatal(err)
	}
	if got := values(t, s, all); !maps.Equal(got, expected) || len(got) == 0 {
		t.Error("not exactly the values of the parameter and the site are gone")
	}

	// What is declared again is new, and has nothing of what was there.
	after := reconcile(t, s, estate(t, purgedEstate))
	if got := values(t, s, all); !maps.Equal(got, expected) {
		t.Error("telemetry came back")
	}
	if len(after.Devices) != 3 {
		t.Errorf("%d devices", len(after.Devices))
	}
}

// Sets of parameters become one when several go, and the newest row of each stays the newest.
func TestPurgeOfParameters(t *testing.T) {
	for _, names := range []string{"voltage", "current", "voltage current"} {
		s := migrated(t)
		full := reconcile(t, s, estate(t, purgedEstate))
		measured(t, s)
		reconcile(t, s, estate(t, strings.ReplaceAll(strings.ReplaceAll(purgedEstate, "parameter.acme/mill/voltage", ""), "threshold.acme/mill/voltage/high parameter.acme/mill/current", "")))
		var what []string
		keys := map[string]bool{}
		for _, name := range strings.Fields(names) {
			what = append(what, "parameter.acme/mill/"+name)
			keys[registry.ParameterKey(full.Projects[0].ID, name)] = true
		}
		expected := values(t, s, func(_, key string) bool { return keys[key] })
		list := strings.Join(what, " ")
		if _, err := s.Apply(testContext(t), planPurge(t, s, list, list), author); err != nil {
			t.Fatal(err)
		}
		if got := values(t, s, func(string, string) bool { return false }); !maps.Equal(got, expected) || len(got) == 0 {
			t.Errorf("purging %s: not exactly their values are gone", names)
		}
		newest := `SELECT count(*) FROM telemetry_latest l FULL JOIN
			(SELECT device_ref, set_id, max(time) AS time FROM telemetry GROUP BY 1, 2) t USING (device_ref, set_id, time) WHERE l.vals IS NULL OR t.device_ref IS NULL`
		if n := query1[int](t, s, newest); n != 0 {
			t.Errorf("purging %s: %d newest rows are not those of telemetry", names, n)
		}
	}
}

// What a worker is about to store when a purge begins is seen by it.
func TestPurgeSeesWhatWorkersStore(t *testing.T) {
	s := migrated(t)
	before := reconcile(t, s, estate(t, purgedEstate))
	reconcile(t, s, estate(t, mill))
	c := claimPartition(t, s)
	events := []telemetry.Event{oneEvent(before.Devices[0].ID, time.Now(), 1)}
	tx, err := c.Begin(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	purged := make(chan error, 1)
	plan := planPurge(t, s, "site.acme/mill/south device.acme/mill/north/a", "")
	go func() {
		_, err := s.Apply(testContext(t), plan, author)
		purged <- err
	}()
	waitFor(t, func() bool {
		return query1[bool](t, s, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND
			application_name = 'nsready apply pat@press-pc' AND wait_event_type = 'Lock')`)
	})
	if err = tx.Write(t.Context(), events); err == nil {
		_, err = tx.Commit(t.Context(), next(c, 1), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := <-purged; err == nil || !strings.Contains(err.Error(), "whose loss was not allowed: device.acme/mill/north/a") {
		t.Errorf("the purge: %v", err)
	}
}

func TestPurgeOfACustomer(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, estate(t, purgedEstate+" customer.child"))
	exec(t, s, `UPDATE customers SET parent_customer_id = (SELECT id FROM customers WHERE name = 'holding') WHERE name = 'child'`)
	reconcile(t, s, estate(t, mill))
	if _, err := s.Apply(testContext(t), planPurge(t, s, "customer.holding", ""), author); err != nil {
		t.Fatal(err)
	}
	after := load(t, s)
	if len(after.Customers) != 2 || len(after.Projects) != 1 || after.Customers[1].Addr.Name() != "child" || after.Customers[1].Parent != "" {
		t.Errorf("left are %d customers and %d projects", len(after.Customers), len(after.Projects))
	}
	stale := planPurge(t, s, "customer.child", "")
	reconcile(t, s, estate(t, mill+"customer.child"))
	if _, err := s.Apply(testContext(t), stale, author); err == nil || !strings.Contains(err.Error(), "the registry moved") {
		t.Errorf("a purge of what has returned: %v", err)
	}
}

func TestApplyRefusesAnotherRegistrysPlan(t *testing.T) {
	one, other := migrated(t), migrated(t)
	plan := registry.Diff(load(t, one), estate(t, mill))
	if _, err := other.Apply(testContext(t), plan, author); err != ErrOtherRegistry {
		t.Errorf("got %v, want ErrOtherRegistry", err)
	}
	if n := query1[int](t, other, `SELECT count(*) FROM customers`); n != 0 {
		t.Errorf("%d customers", n)
	}
	if _, err := one.Apply(testContext(t), plan, author); err != nil {
		t.Error(err)
	}
}

func TestProgressNamesEachKind(t *testing.T) {
	s := migrated(t)
	var said []string
	ctx := WithProgress(testContext(t), func(kind registry.Kind, objects int) { said = append(said, fmt.Sprint(kind, " ", objects)) })
	for _, c := range []struct{ declared, want string }{
		{purgedEstate, "customer 2, project 2, site 2, parameter 2, threshold 1, device 3"},
		{mill, "device 3, threshold 1, parameter 1, site 1, project 1, customer 1"},
		{mill, ""},
	} {
		said = nil
		if _, err := s.Apply(ctx, registry.Diff(load(t, s), estate(t, c.declared)), author); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(said, ", "); got != c.want {
			t.Errorf("said %q, want %q", got, c.want)
		}
	}
}
