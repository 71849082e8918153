package impact

import (
	"container/heap"
	"context"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// trial is the replay of stored telemetry through thresholds and parameters as they are and as they will be.
type trial struct {
	a          *assessment
	thresholds map[uuid.UUID]*Threshold
	parameters map[string]*ranges // by key; nil ranges for those of thresholds alone
	looks      map[string]*look   // by key

	before, after         []*registry.Threshold
	ruleBefore, ruleAfter *alert.Evaluator

	sets    map[*telemetry.ParameterSet]*narrow
	waiting arrivals
	device  uuid.UUID // whose events are coming
	rows    int64
	fired   map[uuid.UUID]uuid.UUID // the last device that a threshold has fired for
}

// ranges are a parameter before and after.
type ranges struct {
	impact        *Parameter
	before, after *registry.Parameter
	outside       uuid.UUID // the last device that had a value outside
}

// look counts what was looked at of a parameter.
type look struct {
	values   int64
	devices  int
	of       int // devices that have sent it in the time
	senders  int // that still send
	last     uuid.UUID
	lastOf   uuid.UUID
	lastSend uuid.UUID
}

// narrow is a parameter set without the keys that nobody asks for.
type narrow struct {
	set   *telemetry.ParameterSet
	index []int // of its keys in the wide set
}

// mostRows bounds how many rows are looked at.
const mostRows = 20_000_000

// replay tries the changes of parameters and thresholds on what is stored.
func (a *assessment) replay(changes []int) {
	t := &trial{a: a, thresholds: map[uuid.UUID]*Threshold{}, parameters: map[string]*ranges{}, looks: map[string]*look{},
		sets: map[*telemetry.ParameterSet]*narrow{}, fired: map[uuid.UUID]uuid.UUID{}}
	var keys, tried []string // all, and those whose history is looked at
	want := func(key string, history bool) {
		t.looks[key] = &look{}
		keys = append(keys, key)
		if history {
			tried = append(tried, key)
		}
	}
	for _, i := range changes {
		c := a.changes[i]
		switch c.Address.Kind {
		case registry.KindParameter:
			r := &ranges{impact: &Parameter{}, before: c.Before.(*registry.Parameter)}
			r.after, _ = c.After.(*registry.Parameter)
			r.impact.to = r.after
			t.parameters[r.before.Key] = r
			want(r.before.Key, r.after != nil)
		case registry.KindThreshold:
			v := &Threshold{action: c.Action}
			if before, ok := c.Before.(*registry.Threshold); ok {
				t.before = append(t.before, before)
				t.thresholds[before.ID] = v
				want(before.ParameterKey, true)
			}
			if after, ok := c.After.(*registry.Threshold); ok {
				t.after = append(t.after, after)
				t.thresholds[after.ID] = v
				for _, f := range after.Fields() {
					if f.Name == "for" {
						v.hold = f.Value
					}
				}
				want(after.ParameterKey, true)
			}
		}
	}
	complete, err := t.run(slices.Compact(slices.Sorted(slices.Values(keys))), slices.Compact(slices.Sorted(slices.Values(tried))))
	if a.ctx.Err() != nil {
		return
	}
	since := a.o.Now.Add(-a.o.Backtest).UTC()
	for _, i := range changes {
		c := a.changes[i]
		if err != nil {
			a.unknown(i, err)
			continue
		}
		looked := func(key string) Look {
			l := t.looks[key]
			return Look{Since: since, Values: l.values, Devices: l.devices, Of: max(l.of, l.devices), Complete: complete}
		}
		switch c.Address.Kind {
		case registry.KindParameter:
			key := c.Before.(*registry.Parameter).Key
			p := t.parameters[key].impact
			if p.Senders = t.looks[key].senders; p.to != nil {
				p.Look = looked(key)
			}
			if p.Senders > 0 || p.Of > 0 {
				a.at(i).Parameter = p
			}
		case registry.KindThreshold:
			o := c.After
			if o == nil {
				o = c.Before
			}
			v := t.thresholds[o.(*registry.Threshold).ID]
			v.Look = looked(o.(*registry.Threshold).ParameterKey)
			if v.Of > 0 || v.Starting+v.Stopping > 0 {
				a.at(i).Threshold = v
			}
		}
	}
}

// run looks at the newest values, then at the history. It tells whether it has seen all of it.
func (t *trial) run(keys, tried []string) (complete bool, err error) {
	a := t.a
	ctx, cancel := a.within(1)
	defer cancel()
	from, to := a.o.Now.Add(-a.o.Backtest), a.o.Now.Add(time.Hour) // clocks of devices may be ahead
	all, err := a.db.Record(ctx, keys, from, to)
	if err != nil {
		return false, err
	}
	if err := t.now(ctx, all); err != nil {
		return false, err
	}
	if len(tried) == 0 || len(all.Devices) == 0 {
		return true, nil
	}
	rec, err := a.db.Record(ctx, tried, from, to)
	if err != nil {
		return false, err
	}
	t.ruleBefore, t.ruleAfter = alert.NewEvaluator(t.before, nil, 0), alert.NewEvaluator(t.after, nil, 0)
	left, some := rec.Devices, 1
	for len(left) > 0 {
		n := min(some, len(left))
		begin := time.Now()
		err := rec.Play(ctx, left[:n], t.event)
		t.flush()
		switch {
		case err == nil:
		case stopped(err):
			return false, nil
		default:
			return false, err
		}
		// A query for many devices is cheaper than many queries; but what one has read and sorted in vain is lost.
		if left = left[n:]; time.Since(begin) < a.o.Limit/20 {
			some *= 2
		}
	}
	return true, nil
}

// event takes the next event of the history, which comes by device and time, and hands it on as it came.
func (t *trial) event(e *telemetry.Event) error {
	if e.Device != t.device {
		t.flush()
		t.device = e.Device
	}
	if t.rows++; t.rows > t.a.most {
		return errEnough
	}
	n := t.narrow(e.Set)
	kept := t.waiting.take()
	kept.Device, kept.Time, kept.ReceivedAt, kept.Set = e.Device, e.Time, e.ReceivedAt, n.set
	kept.Values, kept.Quality = kept.Values[:0], kept.Quality[:0]
	for i, at := range n.index {
		v := e.Values[at]
		kept.Values = append(kept.Values, v)
		quality := byte(telemetry.QualityGood)
		if e.Quality != nil {
			quality = e.Quality[at]
		}
		kept.Quality = append(kept.Quality, quality)
		t.count(n.set.Keys[i], e.Device, v)
	}
	// What comes from here on has this time at least, and was received at most ahead before its time.
	const ahead = telemetry.Micros(10 * time.Minute / time.Microsecond)
	for t.waiting.Len() > 0 && t.waiting.list[0].ReceivedAt < e.Time-ahead {
		t.evaluate(heap.Pop(&t.waiting).(*telemetry.Event))
	}
	heap.Push(&t.waiting, kept)
	return nil
}

func (t *trial) count(key string, device uuid.UUID, v float64) {
	l := t.looks[key]
	if l.last != device {
		l.last = device
		l.devices++
	}
	if math.IsNaN(v) {
		return
	}
	l.values++
	p := t.parameters[key]
	if p == nil || p.after == nil {
		return
	}
	if p.before.Fit(v) != registry.Fits {
		p.impact.OutsideBefore++
	}
	if p.after.Fit(v) != registry.Fits {
		p.impact.Outside++
		if p.outside != device {
			p.outside = device
			p.impact.OutsideDevices++
		}
	}
}

func (t *trial) narrow(wide *telemetry.ParameterSet) *narrow {
	if n := t.sets[wide]; n != nil {
		return n
	}
	n := &narrow{set: &telemetry.ParameterSet{}}
	for i, key := range wide.Keys {
		if t.looks[key] != nil {
			n.set.Keys = append(n.set.Keys, key)
			n.index = append(n.index, i)
		}
	}
	t.sets[wide] = n
	return n
}

// flush evaluates the events that wait: the device has no more.
func (t *trial) flush() {
	for t.waiting.Len() > 0 {
		t.evaluate(heap.Pop(&t.waiting).(*telemetry.Event))
	}
	if t.ruleAfter == nil {
		return
	}
	for _, tr := range t.ruleBefore.Take() {
		if v := t.thresholds[tr.Threshold]; tr.To == alert.Firing {
			if v.FiresBefore++; v.action == registry.Delete {
				t.note(v, tr)
			}
		}
	}
	t.ruleBefore.Commit()
	for _, tr := range t.ruleAfter.Take() {
		if v := t.thresholds[tr.Threshold]; tr.To == alert.Firing {
			v.Fires++
			t.note(v, tr)
		}
	}
	t.ruleAfter.Commit()
}

// note takes down where an alert has fired.
func (t *trial) note(v *Threshold, tr alert.Transition) {
	if t.fired[tr.Threshold] != tr.Device {
		t.fired[tr.Threshold] = tr.Device
		v.FiredDevices++
	}
	if at := tr.At.Time(); at.After(v.LastFired) {
		v.LastFired, v.LastDevice = at, t.a.address(tr.Device)
	}
}

func (t *trial) evaluate(e *telemetry.Event) {
	t.ruleBefore.Evaluate(e)
	t.ruleAfter.Evaluate(e)
	t.waiting.free = append(t.waiting.free, e)
}

// now says which alerts start and stop with the newest values, as the worker would that goes on with the new rules: the
// alerts that are open go on, and those of removed rules are resolved.
func (t *trial) now(ctx context.Context, r *store.Recording) error {
	a := t.a
	var mine []alert.Open
	at, hold := telemetry.MicrosOf(a.o.Now), time.Duration(0)
	if len(t.before) > 0 {
		open, err := a.db.OpenAlerts(ctx)
		if err != nil {
			return err
		}
		for _, o := range open {
			if slices.ContainsFunc(t.before, func(b *registry.Threshold) bool { return b.ID == o.Threshold }) {
				mine = append(mine, o)
				at = max(at, o.PendingAt, o.FiredAt)
			}
		}
	}
	rules := alert.NewEvaluator(t.before, mine, at)
	rules.Reload(t.after, at)
	for _, after := range t.after {
		hold = max(hold, after.For)
	}
	leaving := map[uuid.UUID]bool{}
	for _, c := range a.changes {
		if d, ok := c.Before.(*registry.Device); ok && c.Action == registry.Delete {
			leaving[d.ID] = true
		}
	}
	keys := make([]string, 0, len(t.looks))
	for key := range t.looks {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	newest := telemetry.Event{Set: &telemetry.ParameterSet{Keys: keys}, Values: make([]float64, len(keys)), Quality: make([]byte, len(keys))}
	evaluate := func() {
		if d := a.current.Device(newest.Device); d == nil || d.Retired || leaving[d.ID] {
			return
		}
		newest.Time = at
		rules.Evaluate(&newest)
		if hold > 0 {
			newest.Time += telemetry.Micros(hold.Microseconds())
			rules.Evaluate(&newest)
		}
	}
	alive := telemetry.MicrosOf(a.o.Now.Add(-recent))
	err := r.Newest(ctx, func(e *telemetry.Event) error {
		if e.Device != newest.Device {
			evaluate()
			newest.Device = e.Device
			for i := range keys {
				newest.Values[i] = math.NaN()
			}
		}
		for i, key := range e.Set.Keys {
			l := t.looks[key]
			if l == nil {
				continue
			}
			if l.lastOf != e.Device {
				l.lastOf = e.Device
				l.of++
			}
			if e.Time < alive {
				continue
			}
			if l.lastSend != e.Device {
				l.lastSend = e.Device
				l.senders++
			}
			at, _ := slices.BinarySearch(keys, key)
			newest.Values[at], newest.Quality[at] = e.Values[i], telemetry.QualityGood
			if e.Quality != nil {
				newest.Quality[at] = e.Quality[i]
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	evaluate()
	for _, tr := range rules.Take() {
		v := t.thresholds[tr.Threshold]
		switch {
		case tr.To == alert.Firing:
			if v.Starting++; len(v.StartingOn) < fewNames {
				v.StartingOn = append(v.StartingOn, a.address(tr.Device))
			}
		case tr.To == alert.Resolved && tr.From == alert.Firing:
			v.Stopping++
		}
	}
	return nil
}

// address returns the address of a device of the registry.
func (a *assessment) address(id uuid.UUID) registry.Address {
	if d := a.current.Device(id); d != nil {
		return d.Addr
	}
	return registry.NewAddress(registry.KindDevice, id.String())
}

// arrivals are the events of one device in the order in which the worker took them: as they were received, those of one
// request by their time, and those that took the lane of old events last.
type arrivals struct {
	list []*telemetry.Event
	free []*telemetry.Event
}

func (q *arrivals) take() *telemetry.Event {
	n := len(q.free)
	if n == 0 {
		return &telemetry.Event{}
	}
	e := q.free[n-1]
	q.free = q.free[:n-1]
	return e
}

func late(e *telemetry.Event) bool {
	return e.Time < e.ReceivedAt-telemetry.Micros(telemetry.BackfillAge.Microseconds())
}

func (q *arrivals) Len() int { return len(q.list) }

func (q *arrivals) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if a.ReceivedAt != b.ReceivedAt {
		return a.ReceivedAt < b.ReceivedAt
	}
	if late(a) != late(b) {
		return late(b)
	}
	return a.Time < b.Time
}

func (q *arrivals) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *arrivals) Push(e any)    { q.list = append(q.list, e.(*telemetry.Event)) }

func (q *arrivals) Pop() any {
	n := len(q.list) - 1
	e := q.list[n]
	q.list = q.list[:n]
	return e
}
