package store

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// ledgerKey is the primary key of the table ledger.
type ledgerKey struct {
	customer  uuid.UUID
	hour      time.Time
	partition int
}

func readLedger(t *testing.T, s *Store) map[ledgerKey]telemetry.Tally {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), "SELECT customer_id, hour, partition, accepted, stored, merged, duplicate, dead, lost FROM ledger")
	if err != nil {
		t.Fatal(err)
	}
	table := map[ledgerKey]telemetry.Tally{}
	var k ledgerKey
	var n telemetry.Tally
	_, err = pgx.ForEachRow(rows, []any{&k.customer, &k.hour, &k.partition, &n.Accepted, &n.Stored, &n.Merged, &n.Duplicate, &n.Dead, &n.Lost}, func() error {
		k.hour = k.hour.UTC()
		table[k] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// manyCustomers adds customers with devices of their own, and returns each device's customer.
func manyCustomers(t *testing.T, s *Store, customers, devices int) map[uuid.UUID]uuid.UUID {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `WITH c AS (INSERT INTO customers (name) SELECT 'many ' || n FROM generate_series(1, $1) n RETURNING id),
		p AS (INSERT INTO projects (customer_id, name) SELECT id, 'p' FROM c RETURNING id, customer_id),
		s AS (INSERT INTO sites (project_id, name) SELECT id, 's' FROM p RETURNING id, project_id),
		d AS (INSERT INTO devices (site_id, name, device_type) SELECT s.id, n, 'meter' FROM s, generate_series(1, $2) n RETURNING id, site_id)
		SELECT d.id, p.customer_id FROM d JOIN s ON s.id = d.site_id JOIN p ON p.id = s.project_id`, customers, devices)
	if err != nil {
		t.Fatal(err)
	}
	owners := map[uuid.UUID]uuid.UUID{}
	var device, customer uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&device, &customer}, func() error { owners[device] = customer; return nil }); err != nil {
		t.Fatal(err)
	}
	return owners
}

// modelRow is what the model of telemetry holds for a device and a time.
type modelRow struct {
	source, id string
	values     map[string]string
}

// put puts an event over the row and reports whether that changed it.
func (r *modelRow) put(e *telemetry.Event, attributes []string) bool {
	was := modelRow{r.source, r.id, maps.Clone(r.values)}
	r.source, r.id = string(e.Source), string(e.EventID)
	for i, k := range e.Set.Keys {
		q := byte(telemetry.QualityGood)
		if e.Quality != nil {
			q = e.Quality[i]
		}
		a := "null"
		if e.Attributes != nil {
			a = strings.ReplaceAll(attributes[i], " ", "")
		}
		r.values[k] = fmt.Sprint(e.Values[i], q, a)
	}
	return was.source != r.source || was.id != r.id || !maps.Equal(was.values, r.values)
}

// TestTheLedgerEqualsTheModel commits random batches: new rows, the same again, changes, several events for one row, events
// that the database refuses, unknown devices, broken frames, missing frames, rows by other hands. After each commit the
// ledger must be the model's.
func TestTheLedgerEqualsTheModel(t *testing.T) {
	s, _ := telemetryStore(t)
	owners := manyCustomers(t, s, 3, 4)
	if _, err := s.pool.Exec(t.Context(), "ALTER TABLE telemetry ADD CHECK (vals[1] <> 13)"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	var sets []*telemetry.ParameterSet
	for _, keys := range []string{"a", "b", "a b", "b c d", "a d"} {
		sets = append(sets, &telemetry.ParameterSet{Keys: strings.Fields(keys)})
	}
	var devices [2][]uuid.UUID
	for d := range owners {
		devices[telemetry.Partition(d, 2)] = append(devices[telemetry.Partition(d, 2)], d)
	}
	base := telemetry.MicrosOf(time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC))
	type key struct {
		device uuid.UUID
		time   telemetry.Micros
	}
	rows := map[key]*modelRow{}
	want := map[ledgerKey]telemetry.Tally{}
	var total telemetry.Tally
	var sent []telemetry.Event
	var sentAttributes [][]string
	var claims [2]*Claim
	for batch := range 90 {
		p := r.IntN(2)
		if len(devices[p]) == 0 {
			p = 1 - p
		}
		if claims[p] == nil || r.IntN(30) == 0 {
			if claims[p] != nil {
				claims[p].Close()
			}
			claims[p] = claimOf(t, s, NewMember("test"), p)
		}
		c := claims[p]
		count := func(device uuid.UUID, received telemetry.Micros, add telemetry.Tally) {
			k := ledgerKey{owners[device], received.Time().Truncate(time.Hour), p}
			n := want[k]
			n.Add(add)
			want[k] = n
			total.Add(add)
		}
		var events []telemetry.Event
		for i := range 1 + r.IntN(40) {
			var e telemetry.Event
			var attributes []string
			if again := r.IntN(len(sent) + 1); r.IntN(3) == 0 && again < len(sent) && telemetry.Partition(sent[again].Device, 2) == p {
				e, attributes = sent[again], sentAttributes[again]
			} else {
				e = telemetry.Event{Device: devices[p][r.IntN(len(devices[p]))], Set: sets[r.IntN(len(sets))],
					Time: base + telemetry.Micros(batch+r.IntN(12))*7_000_001}
				if r.IntN(2) == 0 {
					e.Source, e.EventID = []byte("GPRS"), fmt.Appendf(nil, "event-%d", r.IntN(3))
				}
				for k := range e.Set.Keys {
					v := float64(r.IntN(3))
					if r.IntN(8) == 0 {
						v = math.NaN()
					}
					e.Values = append(e.Values, v)
					attributes = append(attributes, fmt.Sprintf(`{"n":  %d}`, k*r.IntN(2)))
				}
				if r.IntN(4) == 0 {
					for range e.Set.Keys {
						e.Quality = append(e.Quality, byte(r.IntN(2)))
					}
				}
				if r.IntN(4) == 0 {
					e.Attributes = []byte("[" + strings.Join(attributes, ",") + "]")
				}
				sent, sentAttributes = append(sent, e), append(sentAttributes, attributes)
			}
			e.ReceivedAt = base + telemetry.Micros(batch)*telemetry.Micros(4*time.Minute/time.Microsecond)
			switch r.IntN(12) {
			case 0: // an unknown device
				e.Device = uuid.New()
				count(e.Device, e.ReceivedAt, telemetry.Tally{Accepted: 1, Dead: 1})
			case 1: // what the database refuses
				e.Values = append([]float64{13}, e.Values[1:]...)
				e.Time = base - telemetry.Micros(1000*batch+i)
				count(e.Device, e.ReceivedAt, telemetry.Tally{Accepted: 1, Dead: 1})
			default:
				row := rows[key{e.Device, e.Time}]
				switch {
				case row == nil:
					row = &modelRow{values: map[string]string{}}
					rows[key{e.Device, e.Time}] = row
					row.put(&e, attributes)
					count(e.Device, e.ReceivedAt, telemetry.Tally{Accepted: 1, Stored: 1})
				case row.put(&e, attributes):
					count(e.Device, e.ReceivedAt, telemetry.Tally{Accepted: 1, Merged: 1})
				default:
					count(e.Device, e.ReceivedAt, telemetry.Tally{Accepted: 1, Duplicate: 1})
				}
			}
			events = append(events, e)
		}
		// A row by other hands, later than all of its device, which the claim takes for new.
		if r.IntN(5) == 0 {
			d, at := devices[p][0], base+telemetry.Micros(200_000+batch)*7_000_001
			if _, err := s.pool.Exec(t.Context(), `SELECT parameter_set_id('{a}')`); err != nil {
				t.Fatal(err)
			}
			e := telemetry.Event{Device: d, Time: at, ReceivedAt: base, Set: sets[0], Values: []float64{1}}
			if err := s.days.ensure(t.Context(), c.conn, []int64{at.Day()}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.pool.Exec(t.Context(), `INSERT INTO telemetry (time, received_at, device_ref, set_id, vals)
				SELECT $1, now(), ref, parameter_set_id('{a}'), '{1}' FROM devices WHERE id = $2`, at.Time(), d); err != nil {
				t.Fatal(err)
			}
			count(d, e.ReceivedAt, telemetry.Tally{Accepted: 1, Duplicate: 1})
			events = append(events, e)
		}
		to := next(c, len(events))
		tx, err := c.Begin(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeHalving(t, tx, events, 0, len(events), to[telemetry.Live].Seq); err != nil {
			t.Fatal(err)
		}
		lost := uint64(0)
		if r.IntN(10) == 0 {
			h := telemetry.Header{Events: r.IntN(5), ReceivedAt: base}
			to[telemetry.Backfill].Seq++
			if err := tx.DeadFrame(t.Context(), telemetry.Backfill, to[telemetry.Backfill].Seq, h, []byte("broken"), &telemetry.RejectedError{Reason: "frame", Err: errors.New("\xff\x00")}); err != nil {
				t.Fatal(err)
			}
			if n := int64(h.Events); n > 0 {
				count(uuid.Nil, base, telemetry.Tally{Accepted: n, Dead: n})
			} else {
				count(uuid.Nil, telemetry.MicrosOf(time.Now()), telemetry.Tally{})
			}
		}
		if r.IntN(10) == 0 {
			lost = 3
			count(uuid.Nil, telemetry.MicrosOf(time.Now()), telemetry.Tally{Accepted: 3, Lost: 3})
		}
		if _, err := tx.Commit(t.Context(), to, lost); err != nil {
			t.Fatal(err)
		}
		if got := readLedger(t, s); !maps.Equal(got, want) {
			for k, n := range want {
				if got[k] != n {
					t.Errorf("batch %d: customer %s at %s, partition %d: %+v, want %+v", batch, k.customer, k.hour, k.partition, got[k], n)
				}
			}
			t.Fatalf("%d rows of the ledger, want %d", len(got), len(want))
		}
		if n, err := s.LedgerImbalance(t.Context()); err != nil || n != 0 {
			t.Fatalf("%d events are unaccounted for, %v", n, err)
		}
	}
	if n := countRows(t, s, "SELECT count(*) FROM telemetry"); n != len(rows)+countRows(t, s, "SELECT count(*) FROM telemetry WHERE time > '2026-12-01'") {
		t.Errorf("%d rows are stored, the model has %d", n, len(rows))
	}
	if total.Merged < 50 || total.Duplicate < 50 || total.Dead < 50 || total.Lost == 0 {
		t.Errorf("the batches were not what they should be: %+v", total)
	}
}

// writeHalving stores events as a worker does.
func writeHalving(t *testing.T, tx *Tx, events []telemetry.Event, i, j int, seq uint64) error {
	err := tx.Write(t.Context(), events[i:j])
	rejected := (*telemetry.RejectedError)(nil)
	switch {
	case !errors.As(err, &rejected):
		return err
	case j-i > 1:
		half := i + (j-i)/2
		return errors.Join(writeHalving(t, tx, events, i, half, seq), writeHalving(t, tx, events, half, j, seq))
	}
	return tx.DeadLetter(t.Context(), telemetry.Live, seq, i, &events[i], rejected)
}

// TestAnUnbalancedTransactionIsRolledBack lets a trigger swallow rows, an event be forgotten, and a row of the ledger vanish.
func TestAnUnbalancedTransactionIsRolledBack(t *testing.T) {
	swallow := func(table string) string {
		return `CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
			CREATE TRIGGER swallow BEFORE INSERT ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION swallow()`
	}
	now := time.Now()
	for name, test := range map[string]struct {
		sql    string
		late   bool
		forget int
		dead   bool
	}{
		"new rows":     {sql: swallow("telemetry")},
		"late rows":    {sql: swallow("telemetry"), late: true},
		"dead letters": {sql: swallow("dead_letters"), dead: true},
		"the ledger":   {sql: swallow("ledger")},
		"forgotten":    {forget: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, devices := telemetryStore(t)
			c := claimPartition(t, s)
			store(t, c, []telemetry.Event{oneEvent(devices[0], now, 1)})
			before := readLedger(t, s)
			if _, err := s.pool.Exec(t.Context(), test.sql); err != nil {
				t.Fatal(err)
			}
			events := []telemetry.Event{oneEvent(devices[0], now.Add(time.Second), 1), oneEvent(devices[1], now, 1)}
			if test.late {
				events = []telemetry.Event{oneEvent(devices[0], now.Add(-time.Second), 1)}
			}
			tx, err := c.Begin(t.Context(), events)
			if err != nil {
				t.Fatal(err)
			}
			if test.dead {
				err = tx.DeadLetter(t.Context(), telemetry.Live, 2, 0, &events[0], &telemetry.RejectedError{Reason: "x", Err: errors.New("x")})
				events = events[1:]
			}
			if err == nil {
				err = tx.Write(t.Context(), events[test.forget:])
			}
			if err == nil {
				_, err = tx.Commit(t.Context(), next(c, len(events)), 0)
			}
			if !errors.Is(err, ErrUnbalanced) {
				t.Errorf("want an unbalanced ledger, got %v", err)
			}
			c.Close()
			if after := readLedger(t, s); !maps.Equal(before, after) {
				t.Errorf("the ledger went from %v to %v", before, after)
			}
			if n := countRows(t, s, "SELECT count(*) FROM telemetry"); n != 1 {
				t.Errorf("%d rows are stored", n)
			}
		})
	}
}

func TestTheLedgerIsReadByCustomerAndHour(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	now := time.Now().UTC().Truncate(time.Hour).Add(time.Minute)
	for hours := range 3 {
		store(t, c, []telemetry.Event{oneEvent(devices[0], now.Add(-time.Duration(hours)*time.Hour), 1), oneEvent(devices[1], now.Add(-time.Duration(hours)*time.Hour), 1)})
	}
	for _, test := range []struct {
		customer string
		since    time.Time
		hourly   bool
		want     string
	}{
		{"", now.Add(-time.Hour), true, fmt.Sprint("c ", now.Add(-time.Hour).Truncate(time.Hour), " 2; c ", now.Truncate(time.Hour), " 2; ")},
		{"c", time.Time{}, false, "c <nil> 6; "},
		{"c", now.Add(time.Hour), true, ""},
	} {
		list, err := s.Ledger(t.Context(), test.customer, test.since, test.hourly)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range list {
			hour := "<nil>"
			if e.Hour != nil {
				hour = e.Hour.String()
			}
			got += fmt.Sprint(e.Customer, " ", hour, " ", e.Stored, "; ")
		}
		if got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	if _, err := s.Ledger(t.Context(), "d", time.Time{}, true); !errors.Is(err, ErrNoCustomer) {
		t.Errorf("the ledger of a customer who does not exist: %v", err)
	}
	if _, err := s.Retain(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, s, "SELECT sum(stored)::int FROM ledger"); n > 4 {
		t.Errorf("retention leaves %d events in the ledger", n)
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE ledger SET stored = stored + 1"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.LedgerImbalance(t.Context()); err != nil || n == 0 {
		t.Errorf("an imbalance of %d, %v", n, err)
	}
}

// TestWhatNoDeadLetterTakesIsKeptInBase64: JSON that the database refuses would otherwise hold the partition up for ever.
func TestWhatNoDeadLetterTakesIsKeptInBase64(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	good, bad := oneEvent(devices[0], time.Now(), 1), oneEvent(devices[1], time.Now(), 1)
	bad.Source = []byte("a\x00b")
	tx, err := c.Begin(t.Context(), []telemetry.Event{good, bad})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range []telemetry.Event{good, bad} {
		if err := tx.DeadLetter(t.Context(), telemetry.Live, 1, i, &e, &telemetry.RejectedError{Reason: "x", Err: errors.New("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if tally, err := tx.Commit(t.Context(), next(c, 2), 0); err != nil || tally != (telemetry.Tally{Accepted: 2, Dead: 2}) {
		t.Fatalf("%+v, %v", tally, err)
	}
	if n := countRows(t, s, "SELECT count(*) FROM dead_letters WHERE event ? 'device_id' OR convert_from(decode(event->>'base64', 'base64'), 'UTF8') LIKE '%device_id%'"); n != 2 {
		t.Errorf("%d dead letters", n)
	}
}

// TestTheDatabaseDecidesWhatIsTheSame: it compares numbers of attributes by value, which float64 cannot hold.
func TestTheDatabaseDecidesWhatIsTheSame(t *testing.T) {
	s, devices := telemetryStore(t)
	c := claimPartition(t, s)
	e := oneEvent(devices[0], time.Now(), 1)
	e.Attributes = []byte(`[{"n": 1e400}]`)
	store(t, c, []telemetry.Event{e})
	e.Attributes = []byte(`[{"n": 10e399}]`)
	store(t, c, []telemetry.Event{e})
	e.Attributes = []byte(`[{"n": 11e399}]`)
	store(t, c, []telemetry.Event{e})
	if got := countRows(t, s, "SELECT sum(100 * stored + 10 * merged + duplicate)::int FROM ledger"); got != 111 {
		t.Errorf("stored, merged and duplicate are %d, want 111", got)
	}
}
