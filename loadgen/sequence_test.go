package loadgen

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

type sentEvent struct {
	ProjectID uuid.UUID `json:"project_id"`
	SiteID    uuid.UUID `json:"site_id"`
	DeviceID  uuid.UUID `json:"device_id"`
	Protocol  string    `json:"protocol"`
	Timestamp string    `json:"source_timestamp"`
	EventID   string    `json:"event_id"`
	Metrics   []struct {
		Key        string         `json:"parameter_key"`
		Value      float64        `json:"value"`
		Quality    int            `json:"quality"`
		Attributes map[string]any `json:"attributes"`
	} `json:"metrics"`
}

func decode(t *testing.T, body []byte) sentEvent {
	t.Helper()
	var e sentEvent
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return e
}

func newSequence(t *testing.T, snapshot *registry.Snapshot) *Sequence {
	t.Helper()
	s, err := NewSequence(snapshot, "test", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each event must be what its device may send, read back to just the numbers that the checker expects, and come out the
// same from any encoder in any order.
func TestSequence(t *testing.T) {
	snapshot := estate(7)
	snapshot.Devices[0].Overrides = []registry.Override{{Parameter: "ratio", Min: registry.BoundOf(0.29)}}
	seq := newSequence(t, snapshot)
	last := map[uuid.UUID]time.Time{}
	distinct := map[string]map[float64]bool{}
	again := seq.Encoder()
	encoder := seq.Encoder()
	const events = 2000
	bodies := make([]string, events)
	for n := range uint64(events) {
		body := encoder.AppendEvent(nil, n)
		bodies[n] = string(body)
		e := decode(t, body)
		device := snapshot.Device(e.DeviceID)
		if device == nil || e.ProjectID != device.ProjectID || e.SiteID != device.SiteID || e.Protocol == "" {
			t.Fatalf("event %d is of no declared device: %s", n, body)
		}
		at, err := time.Parse(time.RFC3339Nano, e.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		if !at.After(last[e.DeviceID]) || telemetry.MicrosOf(at) != seq.Time(n) {
			t.Fatalf("event %d: time %v after %v, Time says %v", n, at, last[e.DeviceID], seq.Time(n).Time())
		}
		last[e.DeviceID] = at
		if want := 7; device.Parameters == nil && len(e.Metrics) != want || device.Parameters != nil && len(e.Metrics) != len(device.Parameters) {
			t.Fatalf("event %d has %d metrics", n, len(e.Metrics))
		}
		_, j := seq.Fleet.locate(n)
		for i, m := range e.Metrics {
			p := device.OwnParameter(snapshot.Parameter(m.Key))
			s := seq.Fleet.members[j].series[i]
			grid := seq.pick(seq.seed(), n, s, i)
			if p == nil || p.Addr.ParentPath() != "acme/mill" || m.Quality != 192 || math.Float64bits(m.Value) != math.Float64bits(s.value(grid)) {
				t.Fatalf("event %d: metric %+v, want %v", n, m, s.value(grid))
			}
			if p.Min.Set && m.Value < p.Min.Value || p.Max.Set && m.Value > p.Max.Value ||
				p.Type == registry.TypeInt && m.Value != math.Trunc(m.Value) || p.Type == registry.TypeBool && m.Value != 0 && m.Value != 1 {
				t.Fatalf("event %d: %s = %v is not allowed", n, p.Name, m.Value)
			}
			if p.Name == "voltage" && (m.Value >= 195 || m.Value <= 20) {
				t.Fatalf("event %d: voltage %v crosses a threshold", n, m.Value)
			}
			if distinct[p.Name] == nil {
				distinct[p.Name] = map[float64]bool{}
			}
			distinct[p.Name][m.Value] = true
		}
	}
	for n := range uint64(events) {
		n = events - 1 - n
		if body := string(again.AppendEvent(nil, n)); body != bodies[n] {
			t.Fatalf("event %d is %s from one encoder and %s from another", n, bodies[n], body)
		}
	}
	for name, least := range map[string]int{"voltage": 500, "temperature": 300, "ratio": 500, "count": 7, "running": 2, "free": 300, "huge": 500} {
		if len(distinct[name]) < least {
			t.Errorf("%s took %d values, want at least %d", name, len(distinct[name]), least)
		}
	}
	if distinct["impossible"] != nil {
		t.Error("a parameter without possible values was sent")
	}
}

func TestSequenceOfOtherRunDiffers(t *testing.T) {
	one := newSequence(t, estate(2))
	other := *one
	other.Run = "other"
	if a, b := one.Encoder().AppendEvent(nil, 5), other.Encoder().AppendEvent(nil, 5); string(a) == strings.ReplaceAll(string(b), "load-other-", "load-test-") {
		t.Errorf("two runs send the same values: %s", a)
	}
}

func TestFleetIsEmpty(t *testing.T) {
	retired := estate(2)
	for _, d := range retired.Devices {
		d.Retired = true
	}
	for name, s := range map[string]*registry.Snapshot{"no devices": estate(0), "all retired": retired, "nothing": registry.Declare(nil)} {
		if _, err := NewFleet(s); !errors.Is(err, ErrNoDevices) {
			t.Errorf("%s: error %v, want %v", name, err, ErrNoDevices)
		}
	}
}

// Whatever the range, every value that a series can write reads back as the same number inside the range.
func FuzzSeries(f *testing.F) {
	f.Add(0.1, 0.3, uint64(7))
	f.Add(-1e18, 1e18, uint64(1))
	f.Add(5.0, 5.0, uint64(0))
	f.Add(-0.001, -1e-15, uint64(99))
	f.Fuzz(func(t *testing.T, lo, hi float64, n uint64) {
		if math.IsNaN(lo) || math.IsNaN(hi) || math.IsInf(lo, 0) || math.IsInf(hi, 0) {
			return
		}
		s := newSeries(&registry.Parameter{Key: "k", Min: registry.BoundOf(lo), Max: registry.BoundOf(hi)}, nil)
		if s == nil {
			return
		}
		for _, sp := range []span{s.full, s.normal} {
			for _, grid := range []int64{sp.lo, sp.hi, sp.lo + int64(n%uint64(sp.hi-sp.lo+1))} {
				var got float64
				if err := json.Unmarshal(s.append(nil, grid), &got); err != nil {
					t.Fatal(err)
				}
				if got != s.value(grid) || got < lo || got > hi {
					t.Fatalf("%s reads as %v, is %v, of %v..%v", s.append(nil, grid), got, s.value(grid), lo, hi)
				}
			}
		}
	})
}

func BenchmarkEncoder(b *testing.B) {
	seq, err := NewSequence(estate(100), "bench", 1000)
	if err != nil {
		b.Fatal(err)
	}
	e := seq.Encoder()
	var body []byte
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		body = e.AppendEvent(body[:0], n)
		b.SetBytes(int64(len(body)))
	}
}
