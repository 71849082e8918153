package storebench_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storebench"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// open returns a benchmark's connection to a database with the schema, and its URL.
func open(t *testing.T) (*storebench.DB, string) {
	t.Helper()
	url := storetest.Database(t)
	s, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := storebench.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db, url
}

func TestCopyOriginal(t *testing.T) {
	db, _ := open(t)
	o := storebench.Original{Devices: []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}, Keys: []string{"a", "b"},
		Start: telemetry.MicrosOf(time.Now()), Rows: 2000, Writers: 2}
	for range 2 { // the second finds nothing of the first
		rows, took, err := db.CopyOriginal(t.Context(), o)
		if err != nil || rows != 2000 || took <= 0 {
			t.Errorf("%d rows in %v, error %v", rows, took, err)
		}
	}
	o.Rows, o.Limit = 1<<30, 50*time.Millisecond
	if rows, took, err := db.CopyOriginal(t.Context(), o); err != nil || rows == 0 || took < o.Limit || took > time.Minute {
		t.Errorf("%d rows in %v, error %v", rows, took, err)
	}
	o.Keys = []string{"a", "a"}
	if _, _, err := db.CopyOriginal(t.Context(), o); err == nil {
		t.Error("the table takes a parameter key twice: its constraints are not those of the original")
	}
}

// The rows are those that the service writes: the views have them, and another COPY of the same ones meets the primary key.
func TestCopyTelemetry(t *testing.T) {
	db, url := open(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	devices := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	if _, err := conn.Exec(t.Context(), registered, devices); err != nil {
		t.Fatal(err)
	}
	start := telemetry.MicrosOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	rows := storebench.Rows{Devices: devices, Keys: []string{"a", "b"}, First: 30, Count: 20, Writers: 2,
		Time: func(n uint64) telemetry.Micros { return start + telemetry.Micros(n)*1000 }}
	if _, err := db.CopyTelemetry(t.Context(), rows); err == nil {
		t.Skip("a hypertable makes its own chunks") // otherwise the error is wanted
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE telemetry_p20260102 PARTITION OF telemetry FOR VALUES FROM ('2026-01-02 00:00Z') TO ('2026-01-03 00:00Z')"); err != nil {
		t.Fatal(err)
	}
	if took, err := db.CopyTelemetry(t.Context(), rows); err != nil || took <= 0 {
		t.Fatalf("took %v, error %v", took, err)
	}
	from, to := rows.Time(30), rows.Time(50)
	if n, err := db.Stored(t.Context(), from, to); err != nil || n != 40 {
		t.Errorf("%d values are stored, error %v", n, err)
	}
	var text string
	err = conn.QueryRow(t.Context(), `SELECT concat_ws(' ', device_id, parameter_key, value, quality, source, attributes, event_id)
		FROM ingest_events WHERE time = $1 AND parameter_key = 'b'`, rows.Time(31).Time()).Scan(&text)
	want := fmt.Sprintf("%s b 296.8 192 HTTP {} %s:2026-01-02T03:04:05.031000+00:00:b", devices[1], devices[1])
	if err != nil || text != want {
		t.Errorf("event 31 is %q, want %q, error %v", text, want, err)
	}
	if _, err := db.CopyTelemetry(t.Context(), rows); err == nil {
		t.Error("the same rows are stored twice")
	}
	if err := db.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := db.Stored(t.Context(), from, to); err != nil || n != 0 {
		t.Errorf("%d values are left, error %v", n, err)
	}
	rows.Devices = append(rows.Devices, uuid.New())
	if _, err := db.CopyTelemetry(t.Context(), rows); err == nil {
		t.Error("no error for a device that the registry does not have")
	}
	rows.Count = 1e9
	if _, err := db.CopyTelemetry(t.Context(), rows); err == nil {
		t.Error("no error for rows of several days")
	}
}

const registered = `WITH c AS (INSERT INTO customers (name) VALUES ('c') RETURNING id),
	p AS (INSERT INTO projects (customer_id, name) SELECT id, 'p' FROM c RETURNING id),
	s AS (INSERT INTO sites (project_id, name) SELECT id, 's' FROM p RETURNING id)
	INSERT INTO devices (id, site_id, name, device_type) SELECT u, s.id, u::text, 'meter' FROM s, unnest($1::uuid[]) u`

// While the offsets are held they can be read, but not moved.
func TestHold(t *testing.T) {
	db, url := open(t)
	release, err := db.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := db.Committed(t.Context()); err != nil || n != 0 {
		t.Errorf("%d events, error %v", n, err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const move = "SET lock_timeout = '50ms'; INSERT INTO partitions (epoch, id, events) VALUES ('x', 0, 5)"
	if _, err := conn.Exec(t.Context(), move); err == nil {
		t.Error("the offset moved while it was held")
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), strings.Replace(move, "50ms", "1min", 1)); err != nil {
		t.Error(err)
	}
	if n, err := db.Committed(t.Context()); err != nil || n != 5 {
		t.Errorf("%d events, error %v", n, err)
	}
}

func TestFigures(t *testing.T) {
	db, _ := open(t)
	settings, err := db.Settings(t.Context())
	if err != nil || settings["server_version"] == "" || settings["synchronous_commit"] != "on" || len(settings) != 7 {
		t.Errorf("settings %v, error %v", settings, err)
	}
	if err := db.Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := db.Committed(t.Context()); n != 0 || err != nil {
		t.Errorf("%d events committed in an empty database, error %v", n, err)
	}
	if n, err := db.Stored(t.Context(), 0, telemetry.MicrosOf(time.Now())); n != 0 || err != nil {
		t.Errorf("%d values stored in an empty database, error %v", n, err)
	}
}
