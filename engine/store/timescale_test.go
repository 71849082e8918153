package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/postgres"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// hypertableStore is telemetryStore on TimescaleDB. Its database refuses to change more than a few compressed rows at once,
// to those who do not ask for more, and runs no policies by itself.
func hypertableStore(t *testing.T) (*Store, []telemetry.Event) {
	t.Helper()
	s, devices := telemetryStore(t)
	if !s.days.hypertable {
		t.Skip("PostgreSQL's installation has no TimescaleDB")
	}
	exec(t, s, "SELECT _timescaledb_functions.stop_background_workers()")
	database := query1[string](t, s, "SELECT current_database()")
	exec(t, s, "ALTER DATABASE "+pgx.Identifier{database}.Sanitize()+" SET timescaledb.max_tuples_decompressed_per_dml_transaction = 5")
	s.pool.Reset()
	var events []telemetry.Event
	noon := time.Now().UTC().AddDate(0, 0, -30).Truncate(24 * time.Hour).Add(12 * time.Hour)
	for i := range 100 {
		events = append(events, oneEvent(devices[i%3], noon.Add(time.Duration(i)*time.Minute), float64(i)))
	}
	return s, events
}

// compressAll compresses all chunks, also those that already are and got rows since.
func compressAll(t *testing.T, s *Store) {
	t.Helper()
	exec(t, s, "SELECT compress_chunk(c) FROM show_chunks('telemetry') c")
	if n := plainRows(t, s); n != 0 {
		t.Fatalf("%d rows are not compressed", n)
	}
}

// plainRows counts the rows of telemetry that are not compressed.
func plainRows(t *testing.T, s *Store) (n int) {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), "SELECT c::text FROM show_chunks('telemetry') c")
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(chunks) == 0 {
		t.Fatal("there are no chunks")
	}
	for _, c := range chunks { // ONLY leaves the compressed rows out
		n += countRows(t, s, "SELECT count(*) FROM ONLY "+c)
	}
	return n
}

// present fails t when telemetry does not hold exactly these events' values.
func present(t *testing.T, s *Store, events []telemetry.Event) {
	t.Helper()
	sum := 0
	for i := range events {
		sum += int(events[i].Values[0])
	}
	got := query1[string](t, s, "SELECT concat(count(*), ' rows, sum ', coalesce(sum(value), 0)) FROM ingest_events")
	if want := fmt.Sprintf("%d rows, sum %d", len(events), sum); got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
}

func TestLateValuesJoinCompressedOnes(t *testing.T) {
	s, events := hypertableStore(t)
	c := claimPartition(t, s)
	store(t, c, events)
	compressAll(t, s)

	// Changes of all, then between two of them, then after the last of a day of which all is compressed.
	for i := range events {
		events[i].Values = []float64{events[i].Values[0] + 1}
	}
	store(t, c, events)
	present(t, s, events)
	between, after := events[50], events[len(events)-1]
	between.Time += 1_000_000
	after.Time += 2_000_000
	compressAll(t, s)
	store(t, c, []telemetry.Event{between, after})
	events = append(events, between, after)
	present(t, s, events)

	// By hands that the claim does not see, where it expects nothing.
	again := after
	again.Time += 1_000_000
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO telemetry (time, received_at, device_ref, set_id, vals)
		SELECT $1, received_at, device_ref, set_id, '{5}' FROM telemetry WHERE time = $2`, again.Time.Time(), after.Time.Time()); err != nil {
		t.Fatal(err)
	}
	compressAll(t, s)
	store(t, c, []telemetry.Event{again})
	events = append(events, again)
	present(t, s, events)
}

func TestCompressedValuesAreDeleted(t *testing.T) {
	s, events := hypertableStore(t)
	last := &events[len(events)-1]
	last.Set, last.Values = &telemetry.ParameterSet{Keys: []string{"a", "b"}}, []float64{7, 8}
	store(t, claimPartition(t, s), events)
	compressAll(t, s)
	if _, err := s.pool.Exec(t.Context(), "DELETE FROM ingest_events WHERE time < $1 OR parameter_key = 'b'", events[70].Time.Time()); err != nil {
		t.Fatal(err)
	}
	present(t, s, events[70:])

	// A device takes its values with it, compressed ones and those that a change has decompressed.
	compressAll(t, s)
	gone := events[70].Device
	if _, err := s.pool.Exec(t.Context(), "DELETE FROM ingest_events WHERE device_id = $1 AND time = $2", gone, events[70].Time.Time()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), "DELETE FROM devices WHERE id = $1", gone); err != nil {
		t.Fatal(err)
	}
	events = slices.DeleteFunc(events[70:], func(e telemetry.Event) bool { return e.Device == gone })
	present(t, s, events)
	if n := countRows(t, s, "SELECT count(*) FROM telemetry"); n != len(events) {
		t.Errorf("%d rows are left, want %d", n, len(events))
	}
}

func TestTheRetentionCompresses(t *testing.T) {
	s, events := hypertableStore(t)
	policy := func() string {
		return query1[string](t, s, `SELECT coalesce(string_agg(config ->> 'compress_after', ' '), 'none')
			FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression' AND hypertable_name = 'telemetry'`)
	}
	job := func() int {
		return query1[int](t, s, "SELECT coalesce(max(job_id), 0) FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'")
	}
	declare := func(objects ...registry.Object) {
		t.Helper()
		current, err := s.LoadRegistry(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(t.Context(), registry.Diff(current, registry.Declare(objects)), Author{}); err != nil {
			t.Fatal(err)
		}
	}
	retention := func(raw, compress time.Duration) *registry.Retention {
		return &registry.Retention{Addr: registry.RetentionAddress, Raw: raw, CompressAfter: compress}
	}
	const day = 24 * time.Hour
	for _, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"nothing declared", func() {}, "none"},
		{"declared without compression", func() { declare(retention(90*day, 0)) }, "none"},
		{"declared", func() { declare(retention(90*day, 7*day)) }, "168:00:00"},
		{"changed", func() { declare(retention(90*day, 8*day)) }, "192:00:00"},
		{"taken out", func() { declare(retention(90*day, 0)) }, "none"},
		{"by SQL", func() { exec(t, s, "UPDATE retention SET compress_after_seconds = 86400") }, "24:00:00"},
		{"retention taken out", func() { exec(t, s, "DELETE FROM retention") }, "none"},
		{"declared again", func() { declare(retention(90*day, 7*day)) }, "168:00:00"},
	} {
		if step.change(); policy() != step.want {
			t.Fatalf("%s: chunks are compressed after %s, want %s", step.name, policy(), step.want)
		}
	}
	before := job()
	if declare(retention(100*day, 7*day)); job() != before {
		t.Error("a change of something else made the policy anew")
	}

	// What the policy then does. Chunks of today stay as they are; retention drops compressed ones too.
	now := oneEvent(events[0].Device, time.Now(), 1000)
	store(t, claimPartition(t, s), append(events, now))
	if n := plainRows(t, s); n != len(events)+1 {
		t.Fatalf("%d rows are not compressed, want all %d", n, len(events)+1)
	}
	exec(t, s, fmt.Sprintf("CALL run_job(%d)", job()))
	if n := plainRows(t, s); n != 1 {
		t.Errorf("%d rows are not compressed, want 1", n)
	}
	present(t, s, append(events, now))
	dropped, err := s.Retain(t.Context(), 20*day)
	if err != nil || len(dropped) != 1 {
		t.Errorf("retention dropped %v, %v", dropped, err)
	}
	present(t, s, []telemetry.Event{now})
}

// A server that lost TimescaleDB must not pass for an empty one, nor take rows that the hypertable would not see.
func TestOpenRefusesAHypertableWithoutTimescaleDB(t *testing.T) {
	options := postgres.Options{Dir: filepath.Join(t.TempDir(), "postgres"), NoSync: true}
	serve := func() *postgres.Cluster {
		c, err := postgres.Start(testContext(t), options)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	stop := func(c *postgres.Cluster) {
		if err := c.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	c := serve()
	s, err := Open(testContext(t), c.URL("postgres"))
	if err == nil {
		err = s.Migrate(testContext(t))
		s.Close()
	}
	stop(c)
	if err != nil {
		t.Fatal(err)
	}
	if !s.days.hypertable {
		t.Skip("PostgreSQL's installation has no TimescaleDB")
	}
	options.Settings = map[string]string{"shared_preload_libraries": ""}
	c = serve()
	defer stop(c)
	if s, err := Open(testContext(t), c.URL("postgres")); !errors.Is(err, errTimescaleMissing) {
		t.Errorf("opened: %v", err)
		if err == nil {
			s.Close()
		}
	}
}
