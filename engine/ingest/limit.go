package ingest

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Codes of a Rejection that passes with time: send the event again after Result.RetryAfter.
const (
	CodeRateLimitedDevice   = "rate_limited_device"
	CodeRateLimitedCustomer = "rate_limited_customer"
)

// Limit is the limit that an event would have exceeded.
type Limit struct {
	Name            string  `json:"name"` // device or customer
	Of              string  `json:"of"`   // its path, such as acme/mill/north/press-01
	EventsPerSecond float64 `json:"events_per_second"`
	Burst           int64   `json:"burst"`
}

// ticks are sixteenths of a nanosecond. As a time they count from limits.start, and last for 18 years.
type ticks int64

const nanosecond ticks = 16

// pace is a registry.Rate as the generic cell rate algorithm wants it (ITU-T I.371, annex A, in its virtual scheduling form).
type pace struct {
	cost  ticks // between two events; rounded up, so that no more pass than may
	depth ticks // of a full burst
}

func paceOf(r registry.Rate) pace {
	cost := ticks(math.Ceil(float64(nanosecond) * float64(time.Second) / r.PerSecond))
	return pace{cost, cost * ticks(r.Burst)}
}

// bucket is how far the events that it took reach into the future at their pace. A zero bucket has its whole burst.
type bucket struct{ until atomic.Int64 }

// take takes an event at the time now, or says how long it is until there is room for it.
func (b *bucket) take(now ticks, p *pace) (wait ticks) {
	for {
		was := ticks(b.until.Load())
		next := max(was, now) + p.cost
		if wait := next - now - p.depth; wait > 0 {
			return wait
		}
		if b.until.CompareAndSwap(int64(was), int64(next)) {
			return 0
		}
	}
}

// giveBack undoes a take.
func (b *bucket) giveBack(p *pace) { b.until.Add(-int64(p.cost)) }

// change goes on at another pace with as many events taken, but at most a burst.
func (b *bucket) change(now ticks, from, to *pace) {
	for {
		until := b.until.Load()
		owed := ticks(until) - now
		if owed <= 0 || from.cost == to.cost && owed <= to.depth {
			return
		}
		taken := float64(owed) / float64(from.cost)
		next := now + ticks(math.Min(taken*float64(to.cost), float64(to.depth)))
		if b.until.CompareAndSwap(until, int64(next)) {
			return
		}
	}
}

// limits holds the buckets of one snapshot's devices and customers. The next snapshot's limits take them over, and so what
// they have let pass.
type limits struct {
	start     time.Time
	pages     []*page                   // by Device.Ref / pageSize; nil where no device is
	customers map[string]*customerLimit // by path
}

const pageSize = 256 // devices

type page struct {
	buckets *[pageSize]bucket // shared with the limits of other snapshots
	limits  [pageSize]*deviceLimit
}

// deviceLimit is what devices of one customer have in common.
type deviceLimit struct {
	pace     pace
	rate     registry.Rate
	customer *customerLimit
}

type customerLimit struct {
	bucket *bucket
	pace   pace
	rate   registry.Rate
	device *deviceLimit // of its devices without a rate of their own
	path   string
}

func newLimits(before *limits, s *registry.Snapshot, now time.Time) *limits {
	l := &limits{start: now, customers: make(map[string]*customerLimit, len(s.Customers))}
	if before != nil {
		l.start = before.start
	}
	at, all := l.at(now), s.EffectiveLimits()
	for _, c := range s.Customers {
		rate, device := all.Of(c)
		l.addCustomer(before, at, c.Addr.Path, rate, device)
	}
	for _, d := range s.Devices {
		if d.Retired {
			continue
		}
		p, was, i := l.page(before, int(uint32(d.Ref)))
		customer, _, _ := strings.Cut(d.Addr.Path, "/")
		if l.customers[customer] == nil { // as in a snapshot that is not the whole registry
			l.addCustomer(before, at, customer, all.Customer, all.Device)
		}
		limit := l.customers[customer].device
		if rate := d.Own(limit.rate); rate != limit.rate {
			limit = &deviceLimit{paceOf(rate), rate, limit.customer}
		}
		p.limits[i] = limit
		if was != nil && was.limits[i] != nil {
			p.buckets[i].change(at, &was.limits[i].pace, &limit.pace)
		}
	}
	return l
}

func (l *limits) addCustomer(before *limits, at ticks, path string, rate, device registry.Rate) {
	c := &customerLimit{bucket: &bucket{}, pace: paceOf(rate), rate: rate, path: path}
	c.device = &deviceLimit{paceOf(device), device, c}
	if before != nil && before.customers[path] != nil {
		was := before.customers[path]
		c.bucket = was.bucket
		c.bucket.change(at, &was.pace, &c.pace)
	}
	l.customers[path] = c
}

// page returns the page of a device, which is made when it is the first one there, that page of before, or nil, and the
// device's place on them.
func (l *limits) page(before *limits, ref int) (p, was *page, i int) {
	n := ref / pageSize
	if n >= len(l.pages) {
		l.pages = append(l.pages, make([]*page, n+1-len(l.pages))...)
	}
	if before != nil && n < len(before.pages) {
		was = before.pages[n]
	}
	if l.pages[n] == nil {
		l.pages[n] = &page{}
		if was != nil {
			l.pages[n].buckets = was.buckets
		} else {
			l.pages[n].buckets = new([pageSize]bucket)
		}
	}
	return l.pages[n], was, ref % pageSize
}

func (l *limits) at(t time.Time) ticks { return ticks(t.Sub(l.start)) * nanosecond }

// take takes an event of a device at the time now. It returns nil when that may pass. Only what the device's own limit lets
// through counts for its customer's.
func (l *limits) take(d *registry.Device, now ticks, refused *limited) *Rejection {
	p, i := l.pages[uint32(d.Ref)/pageSize], uint32(d.Ref)%pageSize
	b, device := &p.buckets[i], p.limits[i]
	if wait := b.take(now, &device.pace); wait > 0 {
		return refused.add(d, b, wait, &device.pace, func() *Rejection {
			return limitedBy(CodeRateLimitedDevice, "The device %s", Limit{"device", d.Addr.Path, device.rate.PerSecond, device.rate.Burst})
		})
	}
	c := device.customer
	if wait := c.bucket.take(now, &c.pace); wait > 0 {
		b.giveBack(&device.pace)
		return refused.add(d, c.bucket, wait, &c.pace, func() *Rejection {
			return limitedBy(CodeRateLimitedCustomer, "The devices of customer %s", Limit{"customer", c.path, c.rate.PerSecond, c.rate.Burst})
		})
	}
	if refused.whole {
		refused.taken = append(refused.taken, taken{b, &device.pace}, taken{c.bucket, &c.pace})
	}
	return nil
}

func limitedBy(code, who string, l Limit) *Rejection {
	r := refuse(code, "device_id", nil, who+" may send %s events a second, and %d at once: send this one again later.",
		l.Of, strconv.FormatFloat(l.EventsPerSecond, 'f', -1, 64), l.Burst)
	r.Limit = &l
	return r
}

// limited is what the limits have refused of one body. The zero value is nothing.
type limited struct {
	wait   ticks // until there is room again
	last   Rejection
	bucket *bucket // that refused last
	row    ticks   // how often in a row

	whole bool    // the body is queued as a whole, or not at all
	taken []taken // then, to be given back
}

type taken struct {
	*bucket
	pace *pace
}

// add notes a refusal, which takes no more than copying the one before when that was by the same bucket.
func (l *limited) add(d *registry.Device, b *bucket, wait ticks, p *pace, first func() *Rejection) *Rejection {
	if l.bucket != b {
		l.bucket, l.row, l.last = b, 0, *first()
	}
	l.wait = max(l.wait, min(wait+l.row*p.cost, p.depth)) // for all that it has refused in a row
	l.row++
	r := l.last
	r.Input = d.ID.String()
	return &r
}

// postpone gives back what the body took and returns the error of a body that is not queued as a whole for the limits' sake,
// which is no refusal: the sender shall keep it. It returns nil when the limits have refused nothing.
func (l *limited) postpone() error {
	if !l.whole || l.wait == 0 {
		return nil
	}
	for _, t := range l.taken {
		t.giveBack(t.pace)
	}
	return &telemetry.UnavailableError{Code: l.last.Code, RetryAfter: l.retryAfter(), Err: errors.New(l.last.Message)}
}

// retryAfter is how long the sender should wait.
func (l *limited) retryAfter() time.Duration {
	return time.Duration((l.wait + nanosecond - 1) / nanosecond)
}
