package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/nsready/nsready/engine"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/loadgen"
)

// changingEstate is version k of an estate that has twenty devices throughout. The others come and go, with their
// parameters, thresholds and limits.
func changingEstate(k int) *registry.Snapshot {
	project := registry.NewAddress(registry.KindProject, "Acme", "energy")
	site := project.Child(registry.KindSite, "north")
	objects := []registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "Acme"), Rate: registry.Rate{PerSecond: float64(1e6 + k), Burst: 1e7}},
		&registry.Project{Addr: project}, &registry.Site{Addr: site},
		&registry.Retention{Addr: registry.RetentionAddress, Raw: time.Duration(90+k) * 24 * time.Hour},
		&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "queue_depth"), Warning: registry.BoundOf(float64(100_000 + k))},
	}
	parameter := func(name string) registry.Address {
		addr := project.Child(registry.KindParameter, name)
		objects = append(objects, &registry.Parameter{Addr: addr, Name: name, Type: registry.TypeFloat, OnViolation: registry.Flag,
			Min: registry.BoundOf(-1000), Max: registry.BoundOf(float64(1000 + k%2))})
		return addr
	}
	parameter("current")
	voltage := parameter("voltage")
	for _, name := range []string{fmt.Sprint("high-", k), fmt.Sprint("low-", k/2)} {
		objects = append(objects, &registry.Threshold{Addr: voltage.Child(registry.KindThreshold, name), Above: registry.BoundOf(float64(900 + k)), Severity: "warning"})
	}
	for i := range 20 {
		objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprintf("always-%02d", i)), Type: "meter", State: "active",
			Parameters: []string{"current", "voltage"}, Rate: registry.Rate{PerSecond: float64(1e6 + k), Burst: 1e7}})
	}
	if k > 0 {
		extra := parameter(fmt.Sprint("extra-", k))
		objects = append(objects, &registry.Threshold{Addr: extra.Child(registry.KindThreshold, "high"), Above: registry.BoundOf(5), Severity: "critical"})
		for i := range 200 {
			objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprintf("new-%d-%03d", k, i)), Type: "meter", State: "active",
				Parameters: []string{extra.Name()}})
		}
	}
	return registry.Declare(objects)
}

// TestReloadUnderLoad applies twenty versions under load. Nobody who is there throughout notices.
func TestReloadUnderLoad(t *testing.T) {
	const versions = 20
	s := start(t)
	st, err := store.Open(t.Context(), s.options.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	apply := func(k int) (desired *registry.Snapshot, version int64, committed time.Time) {
		t.Helper()
		current, err := st.LoadRegistry(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		desired = changingEstate(k)
		version, err = st.Apply(t.Context(), registry.Diff(current, desired), store.Author{User: "test", Host: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return desired, version, time.Now()
	}
	_, version, _ := apply(0)
	wait(t, "the estate", func() bool { return s.engine.Snapshot().Version == version })
	old := []weak.Pointer[registry.Snapshot]{}
	fleet := s.engine.Snapshot()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type outcome struct {
		loadgen.Report
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := loadgen.Run(ctx, loadgen.Options{Target: "http://" + s.engine.Addresses().Collector, Snapshot: fleet, Stored: st, Rate: 100, Batch: 20})
		done <- outcome{r, err}
	}()
	wait(t, "the load", func() bool { return s.rows("SELECT count(*) > 100 FROM telemetry") == "true" })

	var seen, accepted time.Duration // the longest
	var heap uint64
	posted := 0
	for k := 1; k <= versions; k++ {
		desired, version, committed := apply(k)
		newcomer := func(i int) string {
			d := desired.Devices[len(desired.Devices)-1-i]
			return fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"HTTP","source_timestamp":%q,"metrics":[{"parameter_key":%q,"value":%d,"quality":192}]}`,
				d.ProjectID, d.SiteID, d.ID, time.Now().UTC().Format(time.RFC3339Nano), registry.ParameterKey(d.ProjectID, fmt.Sprint("extra-", k)), 4+k%4)
		}
		// A device that is asked about makes the service look; in every other version nobody asks.
		if k%2 == 0 {
			wait(t, "the version", func() bool { return s.engine.Snapshot().Version == version })
			seen = max(seen, time.Since(committed))
		}
		for i := range 3 {
			a := s.post("application/json", newcomer(i))
			if a.status != 200 {
				t.Fatalf("version %d: a new device is answered %d: %s", version, a.status, a.body)
			}
			posted++
			accepted = max(accepted, time.Since(committed))
		}
		if k == versions/4 {
			heap = liveHeap()
		}
		old = append(old, weak.Make(s.engine.Snapshot()))
	}
	grown := int64(liveHeap()) - int64(heap)
	stop()
	r := <-done
	if r.err != nil && !errors.Is(r.err, loadgen.ErrSaturated) { // the rate is not what is judged
		t.Fatal(r.err)
	}
	if !r.Ok() || r.Values.Refused > 0 || r.Values.Unknown > 0 || len(r.Answers) != 1 || r.Answers["200"] != r.Requests {
		t.Errorf("answers %v of %d requests, values %+v, %s", r.Answers, r.Requests, r.Values, r.Trouble)
	}
	s.drained()
	expect(t, "values of new devices", s.rows("SELECT count(*) FROM ingest_events WHERE parameter_key LIKE '%:extra-%'"), posted)
	expect(t, "dead letters", s.rows("SELECT count(*) FROM dead_letters"), 0)
	if seen > time.Second || accepted > time.Second {
		t.Errorf("a version was in use %s after its commit, and a device of it accepted after %s", seen, accepted)
	}
	s.post("application/json", strings.Replace(s.event(0, time.Now(), "voltage", "1"), s.device(0).ID.String(), r.Run, 1)) // judged by the newest
	liveHeap()
	alive := 0
	for _, p := range old {
		if p.Value() != nil {
			alive++
		}
	}
	if alive > 2 {
		t.Errorf("%d of %d snapshots are still in memory", alive, len(old))
	}
	if grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes in the last three quarters", grown)
	}
	t.Logf("%d requests in %.1f s, all answered 200; in use %s after the commit, accepted after %s (the longest of %d); %d old snapshots in memory, heap %+d KiB",
		r.Requests, r.Seconds, seen, accepted, versions, alive, grown>>10)
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// health returns /v1/health's account of the registry, and its problems, a line each.
func (s *service) health() (inUse, newest int64, problems string) {
	s.t.Helper()
	var h struct {
		Registry struct {
			Revision       int64
			NewestRevision int64 `json:"newest_revision"`
		}
		Problems []string
	}
	body := s.get(s.engine.Addresses().Collector + "/v1/health").body
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
	return h.Registry.Revision, h.Registry.NewestRevision, strings.Join(h.Problems, "\n")
}

// What cannot be taken is said, and the old registry stays in use until it is mended.
func TestARegistryThatCannotBeTaken(t *testing.T) {
	const touch = "UPDATE customers SET metadata = jsonb_build_object('at', clock_timestamp())"
	log := &logBuffer{}
	s := start(t, func(o *engine.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	now := time.Now().Truncate(time.Second)
	sent := 0
	post := func() {
		t.Helper()
		sent++
		if a := s.post("application/json", s.event(sent%4, now.Add(-time.Duration(sent)*time.Second), "voltage", "1")); a.status != 200 {
			t.Errorf("a device that was there is answered %d: %s", a.status, a.body)
		}
	}
	post()
	for _, test := range []struct{ name, harm, problem, mend string }{
		{"a column of another type", "ALTER TABLE devices ALTER events_per_second TYPE numeric; " + touch,
			"table devices: column events_per_second is of type numeric, and should be float8",
			"ALTER TABLE devices ALTER events_per_second TYPE double precision"},
		{"a column is null", "ALTER TABLE customers DROP CONSTRAINT customers_pkey CASCADE; ALTER TABLE customers ALTER id DROP NOT NULL; INSERT INTO customers (id, name) VALUES (NULL, 'nobody')",
			"table customers: column id is null", "DELETE FROM customers WHERE id IS NULL"},
		{"a column is gone", "ALTER TABLE limits RENAME device_burst TO burst_of_devices; " + touch,
			`column "device_burst" does not exist: somebody changed the schema, which must be put back`,
			"ALTER TABLE limits RENAME burst_of_devices TO device_burst"},
		{"a table is gone", "ALTER TABLE platform_thresholds RENAME TO gone; " + touch,
			`relation "platform_thresholds" does not exist: somebody changed the schema`, "ALTER TABLE gone RENAME TO platform_thresholds"},
		{"a newer schema without a column", "INSERT INTO schema_migrations VALUES (9998, '9998_x.sql', ''); ALTER TABLE limits RENAME device_burst TO burst_of_devices; " + touch,
			"the database's schema is newer than this program (migration 9998, this program knows up to ",
			"DELETE FROM schema_migrations WHERE version = 9998; ALTER TABLE limits RENAME burst_of_devices TO device_burst"},
		{"a device without a site", "ALTER TABLE devices DROP CONSTRAINT devices_site_id_fkey; INSERT INTO devices (site_id, name, device_type) VALUES (gen_random_uuid(), 'lost', 'meter')",
			"which does not exist", "DELETE FROM devices WHERE name = 'lost'"},
		{"a site without a project", "ALTER TABLE sites DROP CONSTRAINT sites_project_id_fkey; INSERT INTO sites (project_id, name) VALUES (gen_random_uuid(), 'lost')",
			"which does not exist", "DELETE FROM sites WHERE name = 'lost'"},
		{"a project without a customer", "ALTER TABLE projects DROP CONSTRAINT IF EXISTS projects_customer_id_fkey; INSERT INTO projects (customer_id, name) VALUES (gen_random_uuid(), 'lost')",
			"which does not exist", "DELETE FROM projects WHERE name = 'lost'"},
		{"a threshold without a parameter", "ALTER TABLE thresholds DROP CONSTRAINT thresholds_parameter_key_fkey; INSERT INTO thresholds (parameter_key, name) VALUES ('lost', 'lost')",
			`is of the parameter "lost", which does not exist`, "DELETE FROM thresholds WHERE name = 'lost'"},
		{"no revision", "TRUNCATE registry_state", "table registry_state: its row is missing, as after a TRUNCATE",
			"INSERT INTO registry_state (revision) VALUES (1000); " + touch},
		{"devices are gone", "CREATE TABLE kept AS TABLE devices; DELETE FROM kept WHERE false; TRUNCATE devices CASCADE",
			"table devices: all 4 devices are gone, and no apply did that; put them back, by an apply or from a backup",
			"INSERT INTO devices OVERRIDING SYSTEM VALUE TABLE kept; DROP TABLE kept"},
		{"devices are retired", "UPDATE devices SET retired_at = now()",
			"table devices: all 4 devices are gone or retired, and no apply did that; put them back, by an apply or from a backup",
			"UPDATE devices SET retired_at = NULL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.engine.Snapshot()
			s.exec(test.harm)
			wait(t, "health to say "+test.problem, func() bool {
				_, _, problems := s.health()
				return strings.Contains(problems, fmt.Sprintf("registry: version 1, revision %d stays in use: ", before.Revision)) && strings.Contains(problems, test.problem)
			})
			if !strings.Contains(strings.ReplaceAll(log.String(), `\"`, `"`), test.problem) {
				t.Errorf("the log does not say %s:\n%s", test.problem, log)
			}
			if now := s.engine.Snapshot(); now != before {
				t.Errorf("revision %d is in use, was %d", now.Revision, before.Revision)
			}
			post()
			s.exec(test.mend)
			wait(t, "the mended registry", func() bool {
				inUse, newest, problems := s.health()
				return inUse == newest && inUse > before.Revision && !strings.Contains(problems, "registry")
			})
			post()
		})
	}
	s.drained()
	expect(t, "events stored or kept as dead letters", s.rows("SELECT (SELECT count(*) FROM ingest_events) + (SELECT count(*) FROM dead_letters)"), sent)
	if n := strings.Count(log.String(), "level=ERROR"); n > 20 {
		t.Errorf("%d lines are logged as errors:\n%s", n, log)
	}
}

// A schema that is newer by what this program does not know is taken: migrations add, and rename nothing.
func TestANewerSchemaIsTaken(t *testing.T) {
	s := start(t)
	revision := s.engine.Snapshot().Revision
	s.exec("INSERT INTO schema_migrations VALUES (9998, '9998_x.sql', ''); ALTER TABLE devices ADD COLUMN colour text; UPDATE devices SET colour = 'red'")
	wait(t, "the registry", func() bool { return s.engine.Snapshot().Revision > revision })
	expect(t, "status", s.post("application/json", s.event(0, time.Now(), "voltage", "1")).status, 200)
}

// A registry that changes while the database cannot be asked is taken when it is back.
func TestAChangeWhileTheDatabaseIsAway(t *testing.T) {
	s := start(t)
	revision := s.engine.Snapshot().Revision
	back := s.away()
	s.exec("UPDATE devices SET external_id = name")
	wait(t, "health to say it", func() bool {
		inUse, _, problems := s.health()
		return inUse == revision && strings.Contains(problems, fmt.Sprintf("registry: version 1, revision %d stays in use: the database cannot be asked for newer ones", revision))
	})
	expect(t, "status", s.post("application/json", s.event(0, time.Now(), "voltage", "1")).status, 200)
	back()
	wait(t, "the registry", func() bool {
		inUse, newest, problems := s.health()
		return inUse == newest && inUse > revision && problems == ""
	})
	if d := s.engine.Snapshot().DeviceByExternalID("dev-0"); d == nil {
		t.Error("the change was not taken")
	}
	s.drained()
}

// An apply that retires the last device is no accident.
func TestAnApplyMayRetireAllDevices(t *testing.T) {
	url := storetest.Database(t)
	s := startOn(t, url)
	st, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	current, err := st.LoadRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version, err := st.Apply(t.Context(), registry.Diff(current, registry.Declare(nil)), store.Author{User: "test", Host: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s.exec("DELETE FROM devices") // and then SQL deletes what is retired
	wait(t, "the empty estate", func() bool {
		now := s.engine.Snapshot()
		return now.Version == version && len(now.Devices) == 0
	})
}
