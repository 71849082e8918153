package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

// What a claim has written comes back value by value, and nothing that belongs to another run or time.
func TestStoredValues(t *testing.T) {
	ctx := t.Context()
	url := storetest.Database(t)
	s, err := store.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	devices := [2]uuid.UUID{uuid.New(), uuid.New()}
	if _, err := conn.Exec(ctx, fmt.Sprintf(`
		WITH c AS (INSERT INTO customers (name) VALUES ('acme') RETURNING id),
		     p AS (INSERT INTO projects (customer_id, name) SELECT id, 'mill' FROM c RETURNING id),
		     s AS (INSERT INTO sites (project_id, name) SELECT id, 'north' FROM p RETURNING id)
		INSERT INTO devices (id, site_id, name, device_type) SELECT d.id, s.id, d.id, 'meter' FROM s, (VALUES ('%s'::uuid), ('%s')) d (id);
		INSERT INTO parameter_templates (key, name) VALUES ('k:a', 'a'), ('k:b', 'b')`, devices[0], devices[1])); err != nil {
		t.Fatal(err)
	}

	type stored struct {
		device  uuid.UUID
		time    telemetry.Micros
		key     string
		bits    uint64
		quality int16
	}
	start := telemetry.MicrosOf(time.Now())
	set := &telemetry.ParameterSet{ID: 1, Keys: []string{"k:a", "k:b"}}
	null := math.NaN()
	var events []telemetry.Event
	want := map[string]stored{} // by event id
	for n := range 2500 {
		e := telemetry.Event{Device: devices[n%2], Time: start + telemetry.Micros(n), ReceivedAt: start, Set: set,
			Values: []float64{float64(n) / 10, math.Nextafter(float64(n), math.Inf(1))}, EventID: fmt.Appendf(nil, "load-r_1-%d", n)}
		if n%5 == 0 {
			e.Quality = []byte{uint8(n), 255}
			e.Values[1] = null
		}
		for i, key := range set.Keys {
			w := stored{e.Device, e.Time, key, math.Float64bits(e.Values[i]), telemetry.QualityGood}
			if e.Quality != nil {
				w.quality = int16(e.Quality[i])
			}
			want[fmt.Sprintf("%s:%s", e.EventID, key)] = w
		}
		events = append(events, e)
	}
	from, to := start, start+2500
	for i, id := range []string{"load-rx1-7", "load-r_2-7", "", "LOAD-r_1-7"} {
		events = append(events, telemetry.Event{Device: devices[0], Time: start + 4999 + telemetry.Micros(i), ReceivedAt: start, Set: set,
			Values: []float64{1, 2}, EventID: []byte(id)})
	}
	for _, at := range []telemetry.Micros{from - 1, to + 5000} {
		events = append(events, telemetry.Event{Device: devices[0], Time: at, ReceivedAt: start, Set: set, Values: []float64{1, 2},
			EventID: []byte("load-r_1-9999")})
	}

	claim, err := s.Claim(ctx, store.NewMember("test"), [telemetry.Lanes]store.Stream{{Epoch: "live"}, {Epoch: "backfill", Number: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Close()
	tx, err := claim.Begin(ctx, events)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Write(ctx, events); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(ctx, [telemetry.Lanes]telemetry.Offset{{Seq: 1, Events: uint64(len(events))}}, 0); err != nil {
		t.Fatal(err)
	}

	got := map[string]stored{}
	err = s.StoredValues(ctx, "load-r_1-", from, to+5000, func(device uuid.UUID, at telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error {
		if _, twice := got[string(eventID)]; twice {
			t.Errorf("%s came twice", eventID)
		}
		if math.IsNaN(value) {
			value = null
		}
		got[string(eventID)] = stored{device, at, string(key), math.Float64bits(value), quality}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		for id, w := range want {
			if got[id] != w {
				t.Fatalf("%s is %+v, want %+v", id, got[id], w)
			}
		}
		t.Fatalf("%d values came back, want %d", len(got), len(want))
	}

	stop := errors.New("enough")
	if err := s.StoredValues(ctx, "load-", from, to, func(uuid.UUID, telemetry.Micros, []byte, float64, int16, []byte) error { return stop }); err != stop {
		t.Errorf("error %v, want the one that row returned", err)
	}
	// The connection is fit for use after a scan that was given up.
	if _, _, err := s.Revision(ctx); err != nil {
		t.Error(err)
	}
}
