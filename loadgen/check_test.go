package loadgen

import (
	"context"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

type storedRow struct {
	device  uuid.UUID
	time    telemetry.Micros
	key     string
	value   float64
	quality int16
	eventID string
}

type storedRows []storedRow

func (rows storedRows) StoredValues(_ context.Context, _ string, from, to telemetry.Micros,
	row func(uuid.UUID, telemetry.Micros, []byte, float64, int16, []byte) error) error {
	for _, r := range rows {
		if r.time < from || r.time >= to {
			continue
		}
		if err := row(r.device, r.time, []byte(r.key), r.value, r.quality, []byte(r.eventID)); err != nil {
			return err
		}
	}
	return nil
}

// perfect is what a faultless database holds after the given events.
func perfect(seq *Sequence, h *history, wanted func(outcome) bool) storedRows {
	var rows storedRows
	for n := range h.events() {
		if !wanted(h.outcome(n)) {
			continue
		}
		_, j := seq.Fleet.locate(n)
		m := &seq.Fleet.members[j]
		for i, s := range m.series {
			rows = append(rows, storedRow{m.device, seq.Time(n), s.key, s.value(seq.pick(seq.seed(), n, s, i)), 192,
				seq.Prefix() + strconv.FormatUint(n, 10) + ":" + s.key})
		}
	}
	return rows
}

func verify(t *testing.T, seq *Sequence, h *history, rows storedRows) *checker {
	t.Helper()
	c := newChecker(seq, h)
	if err := c.verify(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	return c
}

// Every single fault seeded into a hundred thousand stored values must be found, counted once, and named.
func TestCheckerFindsEveryFault(t *testing.T) {
	seq := newSequence(t, estate(50))
	h := &history{}
	var events uint64
	for seq.Fleet.Values(events) < 100_000 {
		events++
	}
	h.set(0, int(events), acknowledged)
	isAcked := func(o outcome) bool { return o == acknowledged }
	rows := perfect(seq, h, isAcked)
	if c := verify(t, seq, h, rows); c.values.Broken() != 0 || c.values.Stored != uint64(len(rows)) || c.values.Acknowledged != uint64(len(rows)) {
		t.Fatalf("a faultless database is reported as %+v", c.values)
	}

	nudge := func(r *storedRow) { r.value = math.Nextafter(r.value, math.Inf(1)) }
	faults := []struct {
		name string
		seed func(rows storedRows, at, other int) storedRows
		want Values // of the broken kinds
	}{
		{"drop a value", func(rows storedRows, at, _ int) storedRows { return append(rows[:at:at], rows[at+1:]...) }, Values{Lost: 1}},
		{"store a value twice", func(rows storedRows, at, _ int) storedRows { return append(rows, rows[at]) }, Values{Duplicated: 1}},
		{"store an event again under another time", func(rows storedRows, at, _ int) storedRows {
			r := rows[at]
			r.time++
			return append(rows, r)
		}, Values{Duplicated: 1, Altered: 1}},
		{"change a value by its last bit", func(rows storedRows, at, _ int) storedRows { nudge(&rows[at]); return rows }, Values{Altered: 1}},
		{"turn a value into null", func(rows storedRows, at, _ int) storedRows { rows[at].value = math.NaN(); return rows }, Values{Altered: 1}},
		{"change a quality", func(rows storedRows, at, _ int) storedRows { rows[at].quality ^= 1; return rows }, Values{Altered: 1}},
		{"shift a time by a microsecond", func(rows storedRows, at, _ int) storedRows { rows[at].time--; return rows }, Values{Altered: 1}},
		{"swap two devices", func(rows storedRows, at, other int) storedRows {
			rows[at].device, rows[other].device = rows[other].device, rows[at].device
			return rows
		}, Values{Altered: 2}},
		{"change a byte of a key", func(rows storedRows, at, _ int) storedRows {
			b := []byte(rows[at].key)
			b[len(b)-1] ^= 1
			rows[at].key = string(b)
			return rows
		}, Values{Unexpected: 1, Lost: 1}},
		{"invent an event", func(rows storedRows, at, _ int) storedRows {
			r := rows[at]
			r.eventID = seq.Prefix() + strconv.FormatUint(h.events()+3, 10) + ":" + r.key
			return append(rows, r)
		}, Values{Unexpected: 1}},
		{"pad an event's number", func(rows storedRows, at, _ int) storedRows {
			r := rows[at]
			r.eventID = seq.Prefix() + "0" + r.eventID[len(seq.Prefix()):]
			return append(rows, r)
		}, Values{Unexpected: 1}},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			for range 4 {
				at := random.IntN(len(rows))
				other := random.IntN(len(rows))
				for rows[other].device == rows[at].device {
					other = random.IntN(len(rows))
				}
				c := verify(t, seq, h, f.seed(append(storedRows(nil), rows...), at, other))
				got := Values{Lost: c.values.Lost, Duplicated: c.values.Duplicated, Altered: c.values.Altered, Unexpected: c.values.Unexpected}
				if got != f.want {
					t.Fatalf("at %d: %+v, want %+v; %v", at, got, f.want, c.violations())
				}
				if n := f.want.Broken(); uint64(len(c.violations())) != n {
					t.Fatalf("%d violations are named, want %d: %v", len(c.violations()), n, c.violations())
				}
			}
		})
	}
}

// What was refused must not be stored, what is unknown may be either, and whole events count by their values.
func TestCheckerKnowsOutcomes(t *testing.T) {
	seq := newSequence(t, estate(5))
	h := &history{}
	h.set(0, 1000, unknown)
	h.set(100, 500, acknowledged)
	h.set(700, 200, refused)
	values := func(from, to uint64) uint64 { return seq.Fleet.Values(to) - seq.Fleet.Values(from) }

	all := verify(t, seq, h, perfect(seq, h, func(o outcome) bool { return o != unsent }))
	want := Values{Attempted: values(0, 1000), Acknowledged: values(100, 600), Refused: values(700, 900), Stored: values(0, 1000),
		Unknown: values(0, 100) + values(600, 700) + values(900, 1000), Unexpected: values(700, 900)}
	want.Recovered = want.Unknown
	if all.values != want {
		t.Errorf("all stored: %+v, want %+v", all.values, want)
	}
	if len(all.violations()) != maxExamples {
		t.Errorf("%d violations are named, want %d", len(all.violations()), maxExamples)
	}
	none := verify(t, seq, h, nil)
	want.Stored, want.Unexpected, want.Recovered, want.Lost = 0, 0, 0, want.Acknowledged
	if none.values != want {
		t.Errorf("nothing stored: %+v, want %+v", none.values, want)
	}
}

func TestHistory(t *testing.T) {
	h := &history{}
	model := map[uint64]outcome{}
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		first, count, o := random.Uint64N(3000), 1+random.IntN(30), outcome(1+random.IntN(3))
		h.set(first, count, o)
		for n := first; n < first+uint64(count); n++ {
			model[n] = o
		}
	}
	var counts [4]uint64
	for n := range uint64(4000) {
		if h.outcome(n) != model[n] {
			t.Fatalf("event %d is %d, want %d", n, h.outcome(n), model[n])
		}
		counts[model[n]]++
	}
	a, r, u := h.tally()
	if a != counts[acknowledged] || r != counts[refused] || u != counts[unknown] {
		t.Errorf("tally %d, %d, %d, want %v", a, r, u, counts)
	}
}

func TestLatencies(t *testing.T) {
	l := &latencies{}
	for us := range 100_000 {
		l.add(microseconds(us))
	}
	for _, q := range []struct{ q, want float64 }{{0, 0}, {.5, 50}, {.95, 95}, {.99, 99}, {.999, 99.9}, {1, 99.999}} {
		if got := float64(l.quantile(q.q).Microseconds()) / 1000; got < q.want-0.001 || got > q.want*(1+1./64)+0.001 {
			t.Errorf("quantile %v = %v ms, want %v", q.q, got, q.want)
		}
	}
	if (&latencies{}).quantile(.5) != 0 {
		t.Error("the quantile of nothing is not 0")
	}
	l.add(microseconds(math.MaxInt64 / 1000))
	if l.quantile(1) < microseconds(1<<40) {
		t.Errorf("the longest duration counts as %v", l.quantile(1))
	}
}

func microseconds(n int) time.Duration { return time.Duration(n) * time.Microsecond }
