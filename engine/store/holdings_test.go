package store

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/telemetry"
)

func TestADayExpiresWhenAllOfItIsTooOld(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	d := Day{Start: start, End: start.AddDate(0, 0, 1)}
	for cutoff, want := range map[time.Time]bool{
		start: false, start.Add(23 * time.Hour): false, d.End.Add(-time.Microsecond): false, d.End: true, d.End.Add(time.Hour): true,
	} {
		if got := d.Expired(cutoff); got != want {
			t.Errorf("the day of %s, of which what is newer than %s is kept, expires: %v", start, cutoff, got)
		}
	}
}

func TestDaysAreThoseOfTelemetry(t *testing.T) {
	s, devices := telemetryStore(t)
	now := time.Now()
	store(t, claimPartition(t, s), []telemetry.Event{oneEvent(devices[0], now.AddDate(0, 0, -3), 1), oneEvent(devices[0], now, 1)})
	exec(t, s, "CREATE TABLE telemetry_p20261399 (time timestamptz)") // somebody else's
	exec(t, s, "ANALYZE telemetry")
	days, err := s.Days(t.Context())
	if err != nil || len(days) != 2 {
		t.Fatalf("%+v, %v", days, err)
	}
	for i, at := range []time.Time{now.AddDate(0, 0, -3), now} {
		d := &days[i]
		rows, oldest, err := s.CountDay(t.Context(), d)
		if err != nil || rows != 1 || !oldest.Equal(at.UTC().Truncate(time.Microsecond)) || d.Bytes <= 0 || d.Rows != 1 {
			t.Errorf("%+v: %d rows, oldest %s, %v", d, rows, oldest, err)
		}
		if want := at.UTC().Truncate(24 * time.Hour); !d.Start.Equal(want) || !d.End.Equal(want.AddDate(0, 0, 1)) {
			t.Errorf("%+v is not the day of %s", d, at)
		}
	}
	if _, err := s.Retain(t.Context(), time.Hour); err != nil {
		t.Errorf("with somebody else's table: %v", err)
	}
}

// What is copied in is read as it was.
func TestArraysAreReadAsTheyAreWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 50 {
		values, quality := make([]float64, n), make([]byte, n)
		for i := range n {
			if values[i], quality[i] = r.NormFloat64(), byte(r.IntN(256)); r.IntN(4) == 0 {
				values[i] = math.NaN()
			}
		}
		var c copyBuffer
		c.float8s(values)
		got, err := readFloats(nil, c.b[4:])
		if err != nil || !slices.EqualFunc(got, values, func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
			t.Fatalf("%v is read as %v, %v", values, got, err)
		}
		var q copyBuffer
		q.qualities(quality)
		if got, err := readQualities(nil, q.b[4:]); err != nil || !slices.Equal(got, quality) {
			t.Fatalf("%v is read as %v, %v", quality, got, err)
		}
		for cut := range len(c.b) - 4 {
			if _, err := readFloats(nil, c.b[4:4+cut]); err == nil {
				t.Fatalf("%d of %d bytes are read", cut, len(c.b)-4)
			}
		}
	}
}
