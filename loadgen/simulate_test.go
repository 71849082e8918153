package loadgen

import (
	"context"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

func newSimulation(c *collector) *simulation {
	return &simulation{options: SimulateOptions{Target: c.URL, Interval: 10 * time.Second}, client: c.Client()}
}

// Two hours of simulated time: each device sends in each of its intervals, and only values that it may send; voltages cross
// their thresholds, in stretches that outlast the threshold's wait.
func TestSimulatedValues(t *testing.T) {
	c := newCollector(t)
	snapshot := estate(60)
	snapshot.Devices[0].Interval = 40 * time.Second
	snapshot.Devices[1].Interval = 400 * time.Millisecond
	s := newSimulation(c)
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for elapsed, tick := time.Duration(0), simulatedTick; elapsed < 2*time.Hour; elapsed += tick {
		s.follow(snapshot, began.Add(elapsed))
		for s.step(t.Context(), began.Add(elapsed)) {
		}
		if elapsed == time.Minute {
			count := countOf(c.events, snapshot.Devices[1].ID)
			if count < 145 || count > 150 {
				t.Errorf("a device sent %d events in a minute, its interval is 400 ms", count)
			}
			snapshot, tick = registryWithout(snapshot, snapshot.Devices[1].ID), 10*simulatedTick
		}
	}
	if s.counts != (simulated{devices: 59, acknowledged: len(c.events)}) {
		t.Fatalf("counts %+v, %d events arrived", s.counts, len(c.events))
	}
	byDevice := map[uuid.UUID][]sentEvent{}
	beyond := map[bool]int{}
	for _, e := range c.events {
		byDevice[e.DeviceID] = append(byDevice[e.DeviceID], e)
		for _, m := range e.Metrics {
			p := snapshot.Parameter(m.Key)
			if p.Min.Set && m.Value < p.Min.Value || p.Max.Set && m.Value > p.Max.Value ||
				p.Type == registry.TypeInt && m.Value != math.Trunc(m.Value) || p.Type == registry.TypeBool && m.Value != 0 && m.Value != 1 {
				t.Fatalf("%s = %v is not allowed", p.Name, m.Value)
			}
			if p.Name == "voltage" {
				beyond[m.Value > 200 || m.Value < 20]++
			}
		}
	}
	if share := float64(beyond[true]) / float64(beyond[true]+beyond[false]); share < 0.0005 || share > 0.05 {
		t.Errorf("%.4f of the voltages are beyond a threshold", share)
	}
	for i, d := range snapshot.Devices {
		interval, want := 10*time.Second, 720
		if i == 0 {
			interval, want = 40*time.Second, 180
		}
		events := byDevice[d.ID]
		if len(events) != want && len(events) != want-1 {
			t.Errorf("device %d sent %d events, want %d or one less", i, len(events), want)
		}
		for k := 1; k < len(events); k++ {
			if got := parse(t, events[k].Timestamp).Sub(parse(t, events[k-1].Timestamp)); got != interval {
				t.Fatalf("device %d waited %v, want %v", i, got, interval)
			}
		}
	}
	// They don't all send at once.
	places := map[string]bool{}
	for _, events := range byDevice {
		places[events[0].Timestamp] = true
	}
	if len(places) < 50 {
		t.Errorf("60 devices send at %d different times", len(places))
	}
}

func countOf(events []sentEvent, device uuid.UUID) (n int) {
	for _, e := range events {
		if e.DeviceID == device {
			n++
		}
	}
	return n
}

func parse(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func registryWithout(s *registry.Snapshot, device uuid.UUID) *registry.Snapshot {
	var rest []registry.Object
	for o := range s.Objects {
		if d, ok := o.(*registry.Device); !ok || d.ID != device {
			rest = append(rest, o)
		}
	}
	return registry.NewSnapshot(rest)
}

// A device that was held up goes on with its present turn rather than with all that it missed.
func TestSimulationLeavesOutWhatItMissed(t *testing.T) {
	c := newCollector(t)
	s := newSimulation(c)
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s.follow(estate(3), began)
	for s.step(t.Context(), began.Add(time.Hour)) {
	}
	if len(c.events) != 3 {
		t.Errorf("%d events, want one of each of 3 devices", len(c.events))
	}
}

func TestSimulateRetries(t *testing.T) {
	c := newCollector(t)
	answers := []int{503, 429, 500, 200, 422, 200}
	var bodies []string
	var times []time.Time
	c.fault = func(w http.ResponseWriter, request int, events []sentEvent) bool {
		times = append(times, time.Now())
		bodies = append(bodies, events[0].DeviceID.String()+events[0].Timestamp)
		code := answers[request-1]
		if code == 503 {
			w.Header().Set("Retry-After", "1")
		}
		if code != 200 {
			w.WriteHeader(code)
		}
		return code != 200
	}
	s := newSimulation(c)
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s.follow(estate(1), began)
	for i := range 3 {
		if !s.step(t.Context(), began.Add(time.Duration(i+1)*10*time.Second)) {
			t.Fatal("nobody is due")
		}
	}
	want := simulated{devices: 1, acknowledged: 2, refused: 1, resent: 3}
	if s.counts != want {
		t.Errorf("counts %+v, want %+v", s.counts, want)
	}
	if len(bodies) != 6 || bodies[0] != bodies[3] || len(slices.Compact(bodies)) != 3 {
		t.Errorf("requests: %v", bodies)
	}
	if waited := times[1].Sub(times[0]); waited < time.Second {
		t.Errorf("Retry-After: 1 was followed by a request after %v", waited)
	}
}

func TestSimulateStops(t *testing.T) {
	c := newCollector(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	snapshot := estate(5)
	for _, d := range snapshot.Devices {
		d.Interval = 100 * time.Millisecond
	}
	c.store = func(c *collector, e sentEvent) {
		if c.keep(e); len(c.events) == 5 {
			cancel()
		}
	}
	o := SimulateOptions{Target: c.URL, Registry: func() *registry.Snapshot { return snapshot }}
	if err := Simulate(ctx, o); err != nil {
		t.Error(err)
	}
	if err := Simulate(t.Context(), SimulateOptions{Target: "nowhere", Registry: o.Registry}); err == nil {
		t.Error("no error for a target that is no URL")
	}
}
