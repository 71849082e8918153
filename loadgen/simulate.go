package loadgen

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// SimulateOptions says which devices are simulated and where they send to.
type SimulateOptions struct {
	Target   string                    // base URL of the collector
	Registry func() *registry.Snapshot // asked about once a second, so that the devices follow it
	Interval time.Duration             // of devices that declare none; 0 is 10 s

	// Progress, when not nil, is called every ten seconds with the events that were acknowledged and refused so far.
	Progress func(acknowledged, refused int)
}

const (
	simulatedBatch = 500              // events a request, at most
	simulatedTick  = time.Second      // between two looks at who is due
	simulatedPause = 10 * time.Second // between two reports of progress
	patience       = 2 * time.Minute  // after which a batch is given up and the devices go on
)

// Simulate lets every device that the registry declares send plausible values at its interval, devices spread over the
// interval. Values follow the time of day and wander; a parameter with thresholds crosses one every now and then. A
// request that the collector can't take is sent again after the time that it names. Simulate returns when ctx is done,
// which is no error.
func Simulate(ctx context.Context, o SimulateOptions) error {
	o.Target = strings.TrimSuffix(o.Target, "/")
	u, err := url.Parse(o.Target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if u.Host == "" || o.Registry == nil {
		return fmt.Errorf("simulating devices needs a registry and a target URL, not %q", o.Target)
	}
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	s := &simulation{options: o, client: newClient(30*time.Second, 2)}
	defer s.client.CloseIdleConnections()
	tick := time.NewTicker(simulatedTick)
	defer tick.Stop()
	for reported := time.Now(); ; {
		s.follow(o.Registry(), time.Now())
		for ctx.Err() == nil && s.step(ctx, time.Now()) {
		}
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if o.Progress != nil && now.Sub(reported) >= simulatedPause {
				reported = now
				o.Progress(s.counts.acknowledged, s.counts.refused)
			}
		}
	}
}

type simulation struct {
	options  SimulateOptions
	client   *http.Client
	snapshot *registry.Snapshot
	queue    turns
	clock    stamp
	body     []byte
	counts   simulated
}

// simulated counts events: each once, however often it was sent, and at the end of its way.
type simulated struct {
	devices                              int // that send at present
	acknowledged, refused, given, resent int // given up after too long; resent in requests
}

// turn is when a device sends next.
type turn struct {
	at       time.Time
	interval time.Duration
	member   *member
}

// turns is a heap, the earliest first.
type turns []turn

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t turns) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)        { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// follow takes over a registry that has changed. Devices that were there keep their turn.
func (s *simulation) follow(snapshot *registry.Snapshot, now time.Time) {
	if snapshot == s.snapshot {
		return
	}
	s.snapshot = snapshot
	next := make(map[uuid.UUID]time.Time, len(s.queue))
	for _, t := range s.queue {
		next[t.member.device] = t.at
	}
	s.queue = nil
	if fleet, err := NewFleet(snapshot); err == nil { // an empty registry may fill
		for i := range fleet.members {
			m := &fleet.members[i]
			t := turn{interval: cmp.Or(snapshot.Device(m.device).Interval, s.options.Interval), member: m}
			// Each device has its place in the interval, the same in every process.
			place := time.Duration(unit(identity(m.device), 0) * float64(t.interval))
			t.at = now.Truncate(t.interval).Add(place)
			if t.at.Before(now) {
				t.at = t.at.Add(t.interval)
			}
			if at, ok := next[m.device]; ok && at.Before(t.at) {
				t.at = at
			}
			s.queue = append(s.queue, t)
		}
	}
	heap.Init(&s.queue)
	s.counts.devices = len(s.queue)
}

// step sends the events of the devices that are due, as many as a request takes, and reports whether there were any.
// A device that is late by more than an interval and a tick or two leaves out the turns that it missed.
func (s *simulation) step(ctx context.Context, now time.Time) bool {
	events := 0
	s.body = s.body[:0]
	for events < simulatedBatch && len(s.queue) > 0 && !s.queue[0].at.After(now) {
		t := &s.queue[0]
		if late := now.Sub(t.at); late > t.interval+2*simulatedTick {
			t.at = t.at.Add(late.Truncate(t.interval))
		}
		s.body = append(s.event(s.body, t.member, telemetry.MicrosOf(t.at)), '\n')
		t.at = t.at.Add(t.interval)
		heap.Fix(&s.queue, 0)
		events++
	}
	if events > 0 {
		s.deliver(ctx, events)
	}
	return events > 0
}

// deliver sends the body until it is answered for good, or ctx is done, or patience ends.
func (s *simulation) deliver(ctx context.Context, events int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		accepted, refused, after, ok := s.post(ctx, events)
		if ok {
			s.counts.acknowledged += accepted
			s.counts.refused += refused
			return
		}
		timer := time.NewTimer(max(wait, after))
		select {
		case <-timer.C:
			s.counts.resent++
		case <-ctx.Done():
			timer.Stop()
			s.counts.given += events
			return
		}
	}
}

// post sends the body once. Without ok it should be sent again, not before after has passed.
func (s *simulation) post(ctx context.Context, events int) (accepted, refused int, after time.Duration, ok bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.options.Target+"/v1/ingest", bytes.NewReader(s.body))
	if err != nil {
		return 0, 0, 0, false
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := s.client.Do(req)
	if err != nil {
		return 0, 0, 0, false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	switch {
	case err != nil:
		return 0, 0, 0, false
	case res.StatusCode == http.StatusOK:
		var r reply
		if err := json.Unmarshal(body, &r); err != nil || r.Status != "queued" || r.Accepted == nil || r.Rejected == nil {
			return 0, 0, 0, false
		}
		return *r.Accepted, *r.Rejected, 0, true
	case res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests:
		if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
			after = min(time.Duration(seconds)*time.Second, patience)
		}
		return 0, 0, after, false
	}
	return 0, events, 0, true
}

// event appends the event of a device at a time.
func (s *simulation) event(b []byte, m *member, t telemetry.Micros) []byte {
	b = append(b, m.head...)
	b = s.clock.append(b, t)
	b = append(b, `","metrics":[`...)
	id := identity(m.device)
	for i, series := range m.series {
		b = series.appendMetric(b, i, series.simulate(id+uint64(i)*0x9e3779b97f4a7c15, float64(t)/1e6))
	}
	return append(b, "]}"...)
}

// simulate returns the value of a series at a time in seconds: a function of both, so that a simulation that starts
// again goes on where it was.
func (s *series) simulate(id uint64, t float64) int64 {
	if span, ok := s.excursion(id, t); ok {
		return span.at(0.5 + 0.2*wave(id, t, 300))
	}
	if s.binary { // on for most of the time, changing every few minutes
		slot := uint64(t/300 + unit(id, 1))
		if unit(id, 2+slot) < 0.8 {
			return s.normal.hi
		}
		return s.normal.lo
	}
	day := wave(id, t, 24*3600)
	drift := (wave(id+1, t, 4177) + wave(id+2, t, 1291) + wave(id+3, t, 397)) / 3
	noise := 2*unit(id, uint64(int64(t*1000))) - 1
	return s.normal.at(min(max(0.5+0.25*day+0.2*drift+0.03*noise, 0), 1-1e-9))
}

// excursion returns the span beyond a threshold in which the series is at t, if it is: for a few minutes longer than any
// of its thresholds waits, in one of forty windows.
func (s *series) excursion(id uint64, t float64) (span, bool) {
	if s.above.empty() && s.below.empty() {
		return span{}, false
	}
	window := max(1800, 3*s.hold)
	slot, into := math.Modf(t/window + unit(id, 4))
	if unit(id+4, uint64(slot)) > 1./40 || into*window > s.hold+180 {
		return span{}, false
	}
	if s.below.empty() || !s.above.empty() && uint64(slot)%2 == 0 {
		return s.above, true
	}
	return s.below, true
}

// identity turns a device's id into a number to draw from.
func identity(id uuid.UUID) uint64 {
	var x uint64
	for _, b := range id {
		x = mix(x + uint64(b) + 0x9e3779b97f4a7c15)
	}
	return x
}

// unit draws a number from 0 to below 1.
func unit(id, n uint64) float64 { return float64(mix(id+n*0xd1342543de82ef95)>>11) / (1 << 53) }

// wave is a sine of t of the given period, with a phase of the series' own.
func wave(id uint64, t, period float64) float64 {
	return math.Sin(2 * math.Pi * (t/period + unit(id, 3)))
}
