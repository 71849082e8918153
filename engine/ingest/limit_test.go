package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// model is a token bucket in exact numbers.
type model struct {
	rate   registry.Rate
	tokens *big.Rat
	at     ticks
}

func newModel(r registry.Rate) *model { return &model{rate: r, tokens: big.NewRat(r.Burst, 1)} }

func (m *model) take(now ticks) bool {
	grown := new(big.Rat).SetFloat64(m.rate.PerSecond)
	grown.Mul(grown, big.NewRat(int64(now-m.at), int64(nanosecond)*int64(time.Second)))
	m.tokens.Add(m.tokens, grown)
	if full := big.NewRat(m.rate.Burst, 1); m.tokens.Cmp(full) > 0 {
		m.tokens = full
	}
	m.at = now
	one := big.NewRat(1, 1)
	if m.tokens.Cmp(one) < 0 {
		return false
	}
	m.tokens.Sub(m.tokens, one)
	return true
}

// The bucket decides as an exact token bucket does where an event's cost is a whole number of ticks; elsewhere it never
// lets more pass, in no window of time, and less only by the rounding of the cost.
func TestABucketIsATokenBucket(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(3, seed))
		rate := registry.Rate{PerSecond: []float64{0.001, 0.5, 1, 8, 200, 1e6, 1e9}[r.IntN(7)], Burst: 1 + r.Int64N(20)}
		exact := seed%2 == 0
		if !exact {
			rate.PerSecond = math.Exp(r.Float64()*26 - 6)
		}
		p, b, m := paceOf(rate), bucket{}, newModel(rate)
		now := ticks(0)
		var passed []ticks
		for range 200 {
			if r.IntN(3) > 0 {
				now += ticks(r.Int64N(int64(p.cost)*[]int64{1, 2, 5 * rate.Burst}[r.IntN(3)] + 1))
			}
			wait := b.take(now, &p)
			if want := m.take(now); exact && (wait == 0) != want {
				t.Fatalf("seed %d, %+v at %d: waits %d, the model says %v", seed, rate, now, wait, want)
			}
			if wait > 0 {
				if again := b.take(now+wait-1, &p); again != 1 {
					t.Fatalf("seed %d, %+v: a moment before the wait of %d is over it is %d", seed, rate, wait, again)
				}
				continue
			}
			passed = append(passed, now)
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				most := float64(rate.Burst) + rate.PerSecond*float64(passed[j]-passed[i])/float64(nanosecond)/1e9
				if n := float64(j - i + 1); n > most*(1+1e-12) {
					t.Fatalf("seed %d, %+v: %v passed where %v may", seed, rate, n, most)
				}
			}
		}
	}
}

// A sender that keeps to its limit is never refused, however long it goes on.
func TestExactlyAtTheLimitPasses(t *testing.T) {
	for _, c := range []struct {
		rate   registry.Rate
		events int64
	}{
		{registry.Rate{PerSecond: 1000, Burst: 1}, 100_000}, {registry.Rate{PerSecond: 0.001, Burst: 1}, 1000},
		{registry.Rate{PerSecond: 3, Burst: 2}, 100_000}, {registry.Rate{PerSecond: 70_000, Burst: 7}, 100_000},
	} {
		p, b := paceOf(c.rate), bucket{}
		for i := range c.events {
			at := new(big.Int).Mul(big.NewInt(i), big.NewInt(int64(nanosecond)*1_000_000_000_000))
			now := ticks(at.Div(at, big.NewInt(int64(1000*c.rate.PerSecond))).Int64())
			if wait := b.take(now, &p); wait > 0 {
				t.Fatalf("%+v: event %d waits %d", c.rate, i, wait)
			}
		}
	}
}

func TestABucketIsSharedExactly(t *testing.T) {
	rate := registry.Rate{PerSecond: 1, Burst: 10_000}
	p, b := paceOf(rate), bucket{}
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range rate.Burst {
				if b.take(0, &p) == 0 {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != rate.Burst {
		t.Errorf("%d passed, want %d", passed.Load(), rate.Burst)
	}
}

// changing is a registry that a test sets, and that counts how often it was asked.
type changing struct {
	snapshot  atomic.Pointer[registry.Snapshot]
	refresh   func(context.Context) error
	refreshes atomic.Int64
}

func (c *changing) Snapshot() *registry.Snapshot { return c.snapshot.Load() }
func (c *changing) Refresh(ctx context.Context) error {
	c.refreshes.Add(1)
	if c.refresh == nil {
		return nil
	}
	return c.refresh(ctx)
}

// limitedEstate declares two customers, a with devices 0 to 2 and b with device 3, and one parameter each.
func limitedEstate(l registry.Limits, change func(a, b *registry.Customer, devices []*registry.Device)) *registry.Snapshot {
	l.Addr = registry.LimitsAddress
	objects := []registry.Object{&l}
	var customers []*registry.Customer
	var devices []*registry.Device
	for _, name := range []string{"a", "b"} {
		c := &registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, name)}
		project := c.Addr.Child(registry.KindProject, "p")
		site := project.Child(registry.KindSite, "s")
		customers = append(customers, c)
		objects = append(objects, c, &registry.Project{Addr: project}, &registry.Site{Addr: site},
			&registry.Parameter{Addr: project.Child(registry.KindParameter, "v"), Type: registry.TypeInt, OnViolation: registry.Reject})
		for n := range map[string]int{"a": 3, "b": 1}[name] {
			d := &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprint("d", n)), Ref: int32(1 + 300*len(devices))} // on pages of their own
			devices = append(devices, d)
			objects = append(objects, d)
		}
	}
	if change != nil {
		change(customers[0], customers[1], devices)
	}
	return registry.Declare(objects)
}

func eventOf(d *registry.Device, value string) string {
	return fmt.Sprintf(`{"project_id":"%s","site_id":"%s","device_id":"%s","protocol":"HTTP","source_timestamp":"%s","metrics":[{"parameter_key":"%s","value":%s}]}`,
		d.ProjectID, d.SiteID, d.ID, time.Now().UTC().Format(time.RFC3339Nano), registry.ParameterKey(d.ProjectID, "v"), value)
}

// limitedService is a service over a snapshot, and what it has told Reject.
func limitedService(s *registry.Snapshot) (*Service, *changing, map[string]int) {
	r, told := &changing{}, map[string]int{}
	r.snapshot.Store(s)
	return &Service{Registry: r, Queue: nowhere{}, Partitions: 2, Reject: func(device uuid.UUID, r *Rejection) {
		name := ""
		if d := s.Device(device); d != nil {
			name = d.Addr.Path
		}
		told[r.Code+" "+name]++
	}}, r, told
}

// send sends a batch: 0 to 2 are devices of a, 3 is that of b.
func send(t *testing.T, s *Service, devices ...int) Result {
	t.Helper()
	var lines []string
	for _, n := range devices {
		lines = append(lines, eventOf(s.Registry.Snapshot().Devices[n], "1"))
	}
	result, err := s.Accept(t.Context(), NDJSON, []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func repeat(device, n int) (list []int) {
	for range n {
		list = append(list, device)
	}
	return list
}

// The rates here are so slow that nothing is refilled while a test runs.
const slowly = 0.001

func TestEventsOverADevicesLimitAreRefusedAlone(t *testing.T) {
	s, _, told := limitedService(limitedEstate(registry.Limits{Device: registry.Rate{PerSecond: slowly, Burst: 3}}, nil))
	result := send(t, s, 0, 1, 0, 0, 0, 1, 0)
	if result.Accepted != 5 || result.Rejected != 2 || result.Limited != 2 || result.Rejections[0].Line != 5 || result.Rejections[1].Line != 7 {
		t.Fatalf("got %+v", result)
	}
	d := s.Registry.Snapshot().Devices[0]
	r := result.Rejections[0]
	if r.Code != CodeRateLimitedDevice || r.Field != "device_id" || r.Input != d.ID.String() || *r.Limit != (Limit{"device", "a/p/s/d0", slowly, 3}) ||
		r.Message != "The device a/p/s/d0 may send 0.001 events a second, and 3 at once: send this one again later." {
		t.Errorf("the refusal is %+v, %+v", r, r.Limit)
	}
	if seconds := result.RetryAfter.Seconds(); seconds < 1990 || seconds > 2000 {
		t.Errorf("room for the two is in %v seconds, want 2000", seconds)
	}
	if told["rate_limited_device a/p/s/d0"] != 2 {
		t.Errorf("told of %v", told)
	}
	for _, devices := range [][]int{{0}, {0}} { // a refusal costs nothing: the wait does not grow
		if r := send(t, s, devices...); r.Limited != 1 || r.RetryAfter > 1000*time.Second {
			t.Errorf("one event more: %+v", r)
		}
	}
	if r := send(t, s, repeat(0, 50)...); r.RetryAfter > 3000*time.Second || len(r.Rejections) != 50 {
		t.Errorf("more than a burst is to wait %v", r.RetryAfter)
	}
	if r := send(t, s, 1, 2, 3); r.Accepted != 3 || r.RetryAfter != 0 {
		t.Errorf("the neighbours: %+v", r)
	}
}

func TestACustomersLimitIsForAllItsDevices(t *testing.T) {
	s, _, told := limitedService(limitedEstate(registry.Limits{Customer: registry.Rate{PerSecond: slowly, Burst: 4}},
		func(a, _ *registry.Customer, _ []*registry.Device) {
			a.DeviceRate = registry.Rate{PerSecond: slowly, Burst: 3}
		}))
	result := send(t, s, 0, 0, 0, 0, 1, 1, 2, 3, 3)
	if result.Accepted != 6 || result.Limited != 3 {
		t.Fatalf("got %+v", result)
	}
	codes := fmt.Sprint(result.Rejections[0].Code, result.Rejections[1].Code, *result.Rejections[1].Limit, *result.Rejections[2].Limit)
	if want := fmt.Sprint(CodeRateLimitedDevice, CodeRateLimitedCustomer, Limit{"customer", "a", slowly, 4}, Limit{"customer", "a", slowly, 4}); codes != want {
		t.Errorf("got %s, want %s", codes, want)
	}
	devices := s.Registry.Snapshot().Devices
	if result.Rejections[1].Input != devices[1].ID.String() || result.Rejections[2].Input != devices[2].ID.String() {
		t.Errorf("the refusals are of %s and %s", result.Rejections[1].Input, result.Rejections[2].Input)
	}
	if told["rate_limited_customer "] != 2 || told["rate_limited_device a/p/s/d0"] != 1 { // one line in the log, not one a device
		t.Errorf("told of %v", told)
	}
	// What the customer's limit refused was not counted for the device.
	r := s.current()
	l := r.limits.pages[devices[1].Ref/pageSize]
	if got, want := ticks(l.buckets[devices[1].Ref%pageSize].until.Load()), r.limits.at(time.Now())+paceOf(registry.Rate{PerSecond: slowly, Burst: 3}).cost; got > want {
		t.Errorf("the device's bucket reaches to %d, want %d for one event", got, want)
	}
}

// Over a transport without an answer for single events a body over a limit waits as a whole, and takes nothing meanwhile.
func TestABodyOverALimitIsPostponedAsAWhole(t *testing.T) {
	snapshot := limitedEstate(registry.Limits{Device: registry.Rate{PerSecond: slowly, Burst: 3}, Customer: registry.Rate{PerSecond: slowly, Burst: 5}}, nil)
	s, _, _ := limitedService(snapshot)
	submit := func(devices ...int) error {
		var lines []string
		for _, n := range devices {
			lines = append(lines, eventOf(snapshot.Devices[n], "1"))
		}
		_, wait, err := s.Submit(t.Context(), NDJSON, []byte(strings.Join(lines, "\n")))
		if (err == nil) != (wait != nil) {
			t.Errorf("%v: something to wait for is %v, the error is %v", devices, wait != nil, err)
		}
		return err
	}
	for range 3 {
		var later *telemetry.UnavailableError
		var refused *Rejection
		err := submit(1, 1, 0, 0, 0, 0)
		if !errors.As(err, &later) || errors.As(err, &refused) || later.Code != CodeRateLimitedDevice || later.RetryAfter < 900*time.Second {
			t.Fatalf("got %v", err)
		}
	}
	point := fmt.Sprintf("m,host=%s v=1i\n", snapshot.Devices[0].ID)
	if _, err := s.Accept(t.Context(), InfluxSeconds, []byte(strings.Repeat(point, 4))); !errors.As(err, new(*telemetry.UnavailableError)) {
		t.Errorf("points: %v", err)
	}
	if err := submit(1, 1, 0, 0, 0); err != nil {
		t.Errorf("what would not have been too much: %v", err)
	}
	if err := submit(2); err == nil {
		t.Error("the customer's limit lets one more pass")
	}
}

func TestEventsThatAreNotQueuedDoNotCount(t *testing.T) {
	snapshot := limitedEstate(registry.Limits{Device: registry.Rate{PerSecond: slowly, Burst: 1}}, nil)
	s, _, _ := limitedService(snapshot)
	for range 3 {
		r, err := s.Accept(t.Context(), JSON, []byte(eventOf(snapshot.Devices[0], "1.5")))
		if err != nil || r.Rejections[0].Code != CodeTypeViolation {
			t.Fatal(r, err)
		}
	}
	if r := send(t, s, 0); r.Accepted != 1 {
		t.Errorf("got %+v", r)
	}
}

// Another snapshot changes the limits and keeps what was let pass; a device and a customer that are new start afresh.
func TestLimitsFollowTheRegistry(t *testing.T) {
	with := func(device registry.Rate, change func(a, b *registry.Customer, devices []*registry.Device)) *registry.Snapshot {
		return limitedEstate(registry.Limits{Device: device, Customer: registry.Rate{PerSecond: slowly, Burst: 1000}}, change)
	}
	five := registry.Rate{PerSecond: slowly, Burst: 5}
	s, r, _ := limitedService(with(registry.Rate{PerSecond: 10 * slowly, Burst: 5}, nil))
	expect := func(what string, result Result, accepted int) {
		t.Helper()
		if result.Accepted != accepted {
			t.Errorf("%s: %d were accepted, want %d", what, result.Accepted, accepted)
		}
	}
	expect("at first", send(t, s, repeat(0, 3)...), 3)
	r.snapshot.Store(with(five, nil))
	expect("a lower rate", send(t, s, repeat(0, 5)...), 2)
	r.snapshot.Store(with(five, nil))
	expect("the same limit", send(t, s, repeat(0, 5)...), 0)
	r.snapshot.Store(with(registry.Rate{PerSecond: slowly, Burst: 7}, nil))
	expect("a larger burst", send(t, s, repeat(0, 5)...), 2)
	r.snapshot.Store(with(five, func(_, _ *registry.Customer, devices []*registry.Device) {
		devices[1].Rate = registry.Rate{PerSecond: 1, Burst: 2}
	}))
	expect("its own limit", send(t, s, repeat(1, 5)...), 2)
	r.snapshot.Store(with(five, func(a, _ *registry.Customer, _ []*registry.Device) {
		a.DeviceRate = registry.Rate{PerSecond: slowly, Burst: 1}
	}))
	expect("a limit of its customer's devices", send(t, s, repeat(2, 5)...), 1)
	// It owed 7000 seconds. With a burst of 100 ms it owes no more than that.
	r.snapshot.Store(with(registry.Rate{PerSecond: 10, Burst: 1}, nil))
	result := send(t, s, 0)
	if result.RetryAfter > 100*time.Millisecond {
		t.Errorf("with a smaller burst it is to wait %v", result.RetryAfter)
	}
	r.snapshot.Store(with(five, func(a, _ *registry.Customer, _ []*registry.Device) {
		a.Rate = registry.Rate{PerSecond: slowly, Burst: 12}
	}))
	expect("a limit of the customer, most of which is used up", send(t, s, 1, 1, 1, 2, 2), 2-result.Accepted)
	expect("another customer", send(t, s, 3, 3), 2)
}

func TestLimitsWhileTheRegistryChanges(t *testing.T) {
	rate := registry.Rate{PerSecond: slowly, Burst: 500}
	s, r, _ := limitedService(limitedEstate(registry.Limits{Device: rate}, nil))
	s.Reject = func(uuid.UUID, *Rejection) {}
	var accepted atomic.Int64
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for range 60 {
				accepted.Add(int64(send(t, s, repeat(0, 5)...).Accepted))
			}
		})
	}
	done := make(chan struct{})
	go func() { senders.Wait(); close(done) }()
	for changing := true; changing; {
		select {
		case <-done:
			changing = false
		default:
			r.snapshot.Store(limitedEstate(registry.Limits{Device: rate}, nil))
		}
	}
	if accepted.Load() != rate.Burst {
		t.Errorf("%d were accepted, want %d", accepted.Load(), rate.Burst)
	}
}

// BenchmarkLimit measures what the limits add to an event.
func BenchmarkLimit(b *testing.B) {
	for _, c := range []struct {
		name     string
		customer registry.Rate
	}{{"passes", unlimited}, {"customer refuses", registry.Rate{PerSecond: slowly, Burst: 1}}} {
		snapshot := limitedEstate(registry.Limits{Device: unlimited, Customer: c.customer}, nil)
		l := newLimits(nil, snapshot, time.Now())
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var refused limited
			now := ticks(0)
			for i := 0; b.Loop(); i++ {
				now += 2 * nanosecond
				l.take(snapshot.Devices[i%3], now, &refused)
			}
		})
		b.Run(c.name+", both cores on one customer", func(b *testing.B) {
			b.ReportAllocs()
			var next atomic.Int32
			b.RunParallel(func(pb *testing.PB) {
				var refused limited
				d, now := snapshot.Devices[next.Add(1)%3], ticks(0)
				for pb.Next() {
					now += 4 * nanosecond
					l.take(d, now, &refused)
				}
			})
		})
	}
}

// Refused events are cheap: a sender gone wild gets little of the processor.
func BenchmarkAcceptRefused(b *testing.B) {
	snapshot := limitedEstate(registry.Limits{Device: registry.Rate{PerSecond: slowly, Burst: 1}}, nil)
	s, _, _ := limitedService(snapshot)
	s.Reject = func(uuid.UUID, *Rejection) {}
	body := bytes.Repeat([]byte(eventOf(snapshot.Devices[0], "1")+"\n"), 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Accept(context.Background(), NDJSON, body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/event")
}
