package store

import (
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

	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

// telemetryStore returns a store with the schema and three devices, made by SQL.
func telemetryStore(t *testing.T) (*Store, []uuid.UUID) {
	t.Helper()
	s, err := Open(t.Context(), storetest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := s.pool.Query(t.Context(), `WITH c AS (INSERT INTO customers (name) VALUES ('c') RETURNING id),
		p AS (INSERT INTO projects (customer_id, name) SELECT id, 'p' FROM c RETURNING id),
		s AS (INSERT INTO sites (project_id, name) SELECT id, 's' FROM p RETURNING id)
		INSERT INTO devices (site_id, name, device_type) SELECT s.id, n, 'meter' FROM s, unnest(ARRAY['a', 'b', 'c']) n RETURNING id`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	return s, ids
}

// streamsOf names the streams of a partition of a queue that has ten.
func streamsOf(partition int) [telemetry.Lanes]Stream {
	return [telemetry.Lanes]Stream{{"epoch", partition}, {"late epoch", 10 + partition}}
}

// next is the offsets of a claim after one more frame of the live lane.
func next(c *Claim, events int) [telemetry.Lanes]telemetry.Offset {
	to := c.Offsets()
	to[telemetry.Live].Seq++
	to[telemetry.Live].Events += uint64(events)
	return to
}

func claimPartition(t *testing.T, s *Store) *Claim {
	t.Helper()
	return claimOf(t, s, NewMember("test"), 0)
}

// claimOf claims a partition, as soon as the server has noticed that an earlier owner is gone.
func claimOf(t *testing.T, s *Store, m Member, partition int) *Claim {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		c, err := s.Claim(t.Context(), m, streamsOf(partition))
		if err == nil {
			t.Cleanup(c.Close)
			return c
		}
		if !errors.Is(err, ErrOwned) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// store writes events in one transaction at the next offset.
func store(t *testing.T, c *Claim, events []telemetry.Event) {
	t.Helper()
	tx, err := c.Begin(t.Context(), events)
	if err == nil {
		err = tx.Write(t.Context(), events)
	}
	if err == nil {
		_, err = tx.Commit(t.Context(), next(c, len(events)), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reading is what a model of the table holds for a device, a time and a key.
type reading struct {
	device uuid.UUID
	time   telemetry.Micros
	key    string
}

type stored struct {
	value      float64
	quality    int16
	source, id string
	attributes string
}

// TestWritesEqualTheModel stores random events, new, late, repeated and overlapping, in random batches by two claims in
// turn, and compares the views with a map. A hypertable's chunks are compressed between batches.
func TestWritesEqualTheModel(t *testing.T) {
	s, devices := telemetryStore(t)
	r := rand.New(rand.NewPCG(1, 1))
	var sets []*telemetry.ParameterSet
	for _, keys := range []string{"a", "b", "a b", "b c d", "a d", "a b c d"} {
		sets = append(sets, &telemetry.ParameterSet{Keys: strings.Fields(keys)})
	}
	base := telemetry.MicrosOf(time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC))
	model := map[reading]stored{}
	newest := map[reading]telemetry.Micros{} // by device and key, time 0
	var c *Claim
	for batch := range 120 {
		if batch%40 == 0 {
			if c != nil {
				c.Close()
			}
			c = claimPartition(t, s)
		}
		if s.days.hypertable && (batch == 60 || batch == 100) {
			compressAll(t, s)
		}
		var events []telemetry.Event
		for range 1 + r.IntN(30) {
			e := telemetry.Event{Device: devices[r.IntN(3)], Set: sets[r.IntN(len(sets))], ReceivedAt: base,
				Time: base + telemetry.Micros(batch+r.IntN(20))*7_000_001}
			if r.IntN(2) == 0 {
				e.Source, e.EventID = []byte("GPRS"), fmt.Appendf(nil, "event-%d", r.IntN(1000))
			}
			var attributes []string
			for i := range e.Set.Keys {
				v := float64(r.IntN(5))
				if r.IntN(10) == 0 {
					v = math.NaN()
				}
				e.Values = append(e.Values, v)
				attributes = append(attributes, []string{"null", fmt.Sprintf(`{"n": %d}`, i)}[r.IntN(2)])
			}
			if r.IntN(2) == 0 {
				for range e.Set.Keys {
					e.Quality = append(e.Quality, byte(r.IntN(256)))
				}
			}
			if r.IntN(2) == 0 {
				e.Attributes = []byte("[" + strings.Join(attributes, ",") + "]")
			}
			events = append(events, e)
			for key := range model { // source and event id are the row's, which is one for all its keys
				if key.device == e.Device && key.time == e.Time {
					m := model[key]
					m.source, m.id = string(e.Source), string(e.EventID)
					model[key] = m
				}
			}
			for i, k := range e.Set.Keys {
				m := stored{value: e.Values[i], quality: 192, source: string(e.Source), id: string(e.EventID), attributes: "{}"}
				if e.Quality != nil {
					m.quality = int16(e.Quality[i])
				}
				if e.Attributes != nil && attributes[i] != "null" {
					m.attributes = attributes[i]
				}
				model[reading{e.Device, e.Time, k}] = m
				at := reading{device: e.Device, key: k}
				newest[at] = max(newest[at], e.Time)
			}
		}
		store(t, c, events)
	}
	rows, err := s.pool.Query(t.Context(), "SELECT device_id, time, parameter_key, value, quality, coalesce(source, ''), event_id, attributes::text FROM ingest_events")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for rows.Next() {
		var at time.Time
		var value *float64
		var k reading
		var got stored
		if err := rows.Scan(&k.device, &at, &k.key, &value, &got.quality, &got.source, &got.id, &got.attributes); err != nil {
			t.Fatal(err)
		}
		k.time = telemetry.MicrosOf(at)
		want, ok := model[k]
		if got.value = math.NaN(); value != nil {
			got.value = *value
		}
		if want.id == "" {
			want.id = k.device.String() + ":" + strings.TrimSuffix(at.UTC().Format("2006-01-02T15:04:05.000000"), ".000000") + "+00:00"
		}
		want.id += ":" + k.key
		if math.IsNaN(got.value) && math.IsNaN(want.value) {
			got.value, want.value = 0, 0
		}
		if !ok || got != want {
			t.Fatalf("%v is\n%+v\nwant\n%+v", k, got, want)
		}
		count++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if count != len(model) {
		t.Errorf("%d values are stored, want %d", count, len(model))
	}
	rows, err = s.pool.Query(t.Context(), "SELECT device_id, parameter_key, time, value, quality FROM v_scada_latest")
	if err != nil {
		t.Fatal(err)
	}
	count = 0
	for rows.Next() {
		var at time.Time
		var value *float64
		var quality int16
		var k reading
		if err := rows.Scan(&k.device, &k.key, &at, &value, &quality); err != nil {
			t.Fatal(err)
		}
		count++
		want := model[reading{k.device, newest[k], k.key}]
		if telemetry.MicrosOf(at) != newest[k] || quality != want.quality || (value == nil) != math.IsNaN(want.value) || value != nil && *value != want.value {
			t.Errorf("the latest value of %v is %v %v %d, want %v %v %d", k, at, value, quality, newest[k].Time(), want.value, want.quality)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if count != len(newest) {
		t.Errorf("%d latest values, want %d", count, len(newest))
	}
}

func oneEvent(device uuid.UUID, at time.Time, value float64) telemetry.Event {
	return telemetry.Event{Device: device, Time: telemetry.MicrosOf(at), ReceivedAt: telemetry.MicrosOf(at),
		Set: &telemetry.ParameterSet{Keys: []string{"a"}}, Values: []float64{value}}
}

func countRows(t *testing.T, s *Store, sql string) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOnlyOneOwner(t *testing.T) {
	s, devices := telemetryStore(t)
	claim := func(m Member, partition int) (*Claim, error) {
		c, err := s.Claim(t.Context(), m, streamsOf(partition))
		if err == nil {
			t.Cleanup(c.Close)
		}
		return c, err
	}
	join := func(m Member) {
		t.Helper()
		if err := s.Join(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	beat := func(m Member, want ...string) {
		t.Helper()
		if got, err := s.Beat(t.Context(), m); err != nil || !slices.Equal(got, want) {
			t.Fatalf("alive are %v, %v; want %v", got, err, want)
		}
	}
	one, two := NewMember("one"), NewMember("two")
	join(one)
	beat(one, "one")
	join(two)
	beat(two, "one", "two")
	first, err := claim(one, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(two, 0); !errors.Is(err, ErrOwned) {
		t.Fatalf("a second owner: %v", err)
	}
	if _, err := claim(two, 1); err != nil {
		t.Fatalf("another partition: %v", err)
	}
	first.Close()
	second := claimOf(t, s, two, 0)

	// Two falls silent in the middle of a transaction.
	events := []telemetry.Event{oneEvent(devices[0], time.Now(), 1)}
	tx, err := second.Begin(t.Context(), events)
	if err == nil {
		err = tx.Write(t.Context(), events)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE workers SET seen_at = now() - 2 * make_interval(secs => $1) WHERE name = 'two'", Lease.Seconds()); err != nil {
		t.Fatal(err)
	}
	beat(one, "one")
	if first, err = claim(one, 0); err != nil {
		t.Fatalf("after the second owner fell silent: %v", err)
	}
	store(t, first, []telemetry.Event{oneEvent(devices[1], time.Now(), 2)})
	if _, err := tx.Commit(t.Context(), next(second, 1), 0); err == nil {
		t.Error("the silent owner could commit")
	}
	if n := countRows(t, s, "SELECT count(*) FROM telemetry"); n != 1 {
		t.Errorf("%d rows are stored, want the new owner's", n)
	}

	// One is started again under its name: the claims of the process that is gone are no obstacle.
	again := NewMember("one")
	join(again)
	beat(again, "one")
	if _, err := s.Beat(t.Context(), one); !errors.Is(err, ErrNameTaken) {
		t.Errorf("whose name was taken gets %v", err)
	}
	if _, err := claim(again, 0); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := s.Leave(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	beat(two, "two")
}

func TestAnOldOwnersCommitFails(t *testing.T) {
	s, devices := telemetryStore(t)
	old := claimPartition(t, s)
	store(t, old, []telemetry.Event{oneEvent(devices[0], time.Now(), 1)})
	// What another owner does after the old one's lock was lost.
	if _, err := s.pool.Exec(t.Context(), "UPDATE partitions SET seq = 7 WHERE epoch = 'epoch' AND id = 0"); err != nil {
		t.Fatal(err)
	}
	events := []telemetry.Event{oneEvent(devices[1], time.Now(), 2)}
	tx, err := old.Begin(t.Context(), events)
	if err == nil {
		err = tx.Write(t.Context(), events)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), next(old, 1), 0); !errors.Is(err, ErrFenced) {
		t.Errorf("the old owner's commit: %v", err)
	}
	old.Close()
	if n := countRows(t, s, "SELECT count(*) FROM telemetry"); n != 1 {
		t.Errorf("%d rows are stored, want the 1 from before", n)
	}
}

func TestARefusedWriteLeavesTheTransactionUsable(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	if _, err := s.pool.Exec(t.Context(), "ALTER TABLE telemetry ADD CHECK (vals[1] <> 13)"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	good, bad, gone := oneEvent(devices[0], now, 1), oneEvent(devices[1], now, 13), oneEvent(uuid.New(), now, 1)
	tx, err := c.Begin(t.Context(), []telemetry.Event{good, bad, gone})
	if err != nil {
		t.Fatal(err)
	}
	for reason, e := range map[string]telemetry.Event{"23514": bad, "unknown_device": gone} {
		var rejected *telemetry.RejectedError
		if err := tx.Write(t.Context(), []telemetry.Event{good, e}); !errors.As(err, &rejected) || rejected.Reason != reason {
			t.Fatalf("want a rejection for %s, got %v", reason, err)
		}
		if err := tx.DeadLetter(t.Context(), telemetry.Live, 1, len(reason), &e, rejected); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Write(t.Context(), []telemetry.Event{good}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context(), next(c, 3), 0); err != nil {
		t.Fatal(err)
	}
	if rows, dead := countRows(t, s, "SELECT count(*) FROM telemetry"), countRows(t, s, "SELECT count(*) FROM dead_letters"); rows != 1 || dead != 2 {
		t.Errorf("%d rows and %d dead letters, want 1 and 2", rows, dead)
	}
}

func TestRowsByOtherHandsAreMergedWith(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	now := time.Now().Truncate(time.Microsecond)
	store(t, c, []telemetry.Event{oneEvent(devices[0], now, 1)})
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO telemetry (time, received_at, device_ref, set_id, vals)
		SELECT time + '1 second', received_at, device_ref, set_id, '{5}' FROM telemetry`); err != nil {
		t.Fatal(err)
	}
	store(t, c, []telemetry.Event{oneEvent(devices[0], now.Add(time.Second), 2), oneEvent(devices[0], now.Add(2*time.Second), 3)})
	if n := countRows(t, s, "SELECT sum(vals[1])::int FROM telemetry"); n != 6 {
		t.Errorf("the values add up to %d, want 6", n)
	}
}

func TestRetentionDropsWholeDays(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	now := time.Now()
	var events []telemetry.Event
	for _, days := range []int{100, 60, 31, 29, 1, 0} {
		events = append(events, oneEvent(devices[0], now.AddDate(0, 0, -days), float64(days)))
	}
	store(t, c, events)
	dropped, err := s.Retain(t.Context(), 30*24*time.Hour)
	if err != nil || len(dropped) < 2 {
		t.Fatalf("dropped %v, %v", dropped, err)
	}
	if n := countRows(t, s, "SELECT count(*) FROM telemetry WHERE vals[1] < 30"); n != 3 {
		t.Errorf("%d young rows remain, want 3", n)
	}
	if n := countRows(t, s, "SELECT count(*) FROM telemetry WHERE vals[1] > 31"); n != 0 {
		t.Errorf("%d old rows remain", n)
	}
	// A late row for a dropped day finds its partition gone: the claim fails, and the next one makes it again.
	late := []telemetry.Event{oneEvent(devices[1], now.AddDate(0, 0, -60), 1)}
	store(t, c, late)
	if !slices.ContainsFunc(dropped, func(name string) bool {
		return strings.Contains(name, now.UTC().AddDate(0, 0, -60).Format("20060102")) || s.days.hypertable
	}) {
		t.Errorf("dropped only %v", dropped)
	}
}
