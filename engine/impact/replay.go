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
	parameters map[string]*ranges // by key; nil for those of thresholds alone
	looks      map[string]*look   // by key

	before, after         []*registry.Threshold
	ruleBefore, ruleAfter *alert.Evaluator

	sets    map[*telemetry.ParameterSet]*narrow
	waiting arrivals
	at      telemetry.Micros // of the newest event
	rows    int64
	fired   map[uuid.UUID]set // devices, by threshold

	since, until   time.Time // of what was looked at; until is zero when nothing was left out at its end
	complete, some bool      // all the history; some devices only
	failed         error     // other than that the time was over
}

type set map[uuid.UUID]struct{}

// ranges are a parameter before and after.
type ranges struct {
	impact        *Parameter
	before, after *registry.Parameter
	outside       set // devices that had a value outside
}

// look counts what was looked at of a parameter.
type look struct {
	values   int64
	devices  set
	of       int // devices that have sent it in the time
	senders  int // that still send
	lastOf   uuid.UUID
	lastSend uuid.UUID
}

// narrow is a parameter set without the keys that nobody asks for.
type narrow struct {
	set   *telemetry.ParameterSet
	index []int // of its keys in the wide set
}

const (
	mostRows = 20_000_000 // the most rows that are looked at
	fewRows  = 200_000    // so many take no time to speak of
	dayRows  = 2_000_000  // of days with more than these some devices are looked at, so many that a day has someRows
	someRows = 50_000

	mostWaiting = 1_000_000 // the most events that wait for their turn: those of a backfill came long after their time
)

// replay tries the changes of parameters and thresholds on what is stored.
func (a *assessment) replay(changes []int) {
	t := &trial{a: a, thresholds: map[uuid.UUID]*Threshold{}, parameters: map[string]*ranges{}, looks: map[string]*look{},
		sets: map[*telemetry.ParameterSet]*narrow{}}
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
				after = a.asStored(after)
				t.after = append(t.after, after)
				t.thresholds[after.ID] = v
				v.hold = registry.FormatDuration(after.For)
				want(after.ParameterKey, true)
			}
		}
	}
	err := t.run(slices.Compact(slices.Sorted(slices.Values(keys))), slices.Compact(slices.Sorted(slices.Values(tried))))
	if a.ctx.Err() != nil {
		return
	}
	for _, i := range changes {
		c := a.changes[i]
		if err != nil {
			a.unknown(i, err)
			continue
		}
		looked := func(key string) Look {
			l := t.looks[key]
			return Look{Since: t.since.UTC(), Until: t.until.UTC(), Values: l.values, Devices: len(l.devices), Of: max(l.of, len(l.devices)), Complete: t.complete, some: t.some}
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
			rule, ok := c.After.(*registry.Threshold)
			if ok {
				rule = a.asStored(rule)
			} else {
				rule = c.Before.(*registry.Threshold)
			}
			v := t.thresholds[rule.ID]
			v.Look = looked(rule.ParameterKey)
			if v.Of > 0 || v.Starting+v.Stopping > 0 {
				a.at(i).Threshold = v
			}
		}
	}
}

// run looks at the newest values, then at as much of the history as there is time for.
func (t *trial) run(keys, tried []string) error {
	a := t.a
	ctx, cancel := a.within(1)
	defer cancel()
	t.since, t.complete = a.o.Now.Add(-a.o.Backtest), true
	all, err := a.db.Record(ctx, keys, t.since)
	if err != nil {
		return err
	}
	if err := t.now(ctx, all); err != nil {
		return err
	}
	if len(tried) == 0 || len(all.Devices) == 0 {
		return nil
	}
	rec, err := a.db.Record(ctx, tried, t.since)
	if err != nil || len(rec.Devices) == 0 {
		return err
	}
	if a.days == nil {
		if err := a.look(); err != nil {
			return err
		}
	}
	begin, days := t.since, a.days
	for len(days) > 0 && days[0].Expired(begin) {
		days = days[1:]
	}
	total, most := int64(0), int64(0)
	for i := range days {
		n := a.measure.rows(&days[i])
		total, most = total+n, max(most, n)
	}
	devices, share := rec.Devices, 1.0
	if most > dayRows {
		devices = devices[:max(1, int(int64(len(devices))*someRows/most))]
		share = float64(len(devices)) / float64(len(rec.Devices))
		t.some = len(devices) < len(rec.Devices)
	}
	whole := !t.some
	if float64(total)*share > float64(a.few) && len(days) > 2 {
		// The newest days tell how many there is time for.
		newest := len(days) - 2
		start := time.Now()
		if t.complete = false; !t.play(ctx, rec, devices, days[newest:], days[newest].Start) {
			return t.failed
		}
		pace := float64(time.Since(start)) / float64(max(t.rows, 1))
		first, left := len(days), 0.8*float64(time.Until(a.deadline))
		for first > 0 {
			if left -= pace * share * float64(a.measure.rows(&days[first-1])); left < 0 {
				break
			}
			first--
		}
		if first >= newest {
			return nil
		}
		if first > 0 {
			days, begin, whole = days[first:], days[first].Start, false
		}
	}
	t.complete = t.play(ctx, rec, devices, days, begin) && whole
	return t.failed
}

// play looks at the history of some days from a time on, as if nothing had been before. It reports whether there was time
// for all of it.
func (t *trial) play(ctx context.Context, rec *store.Recording, devices []store.Sender, days []store.Day, since time.Time) bool {
	t.ruleBefore, t.ruleAfter = alert.NewEvaluator(t.before, nil, 0), alert.NewEvaluator(t.after, nil, 0)
	t.fired, t.rows, t.at, t.waiting = map[uuid.UUID]set{}, 0, 0, arrivals{}
	for _, l := range t.looks {
		l.values, l.devices = 0, set{}
	}
	for _, p := range t.parameters {
		p.outside, p.impact.Outside, p.impact.OutsideBefore = set{}, 0, 0
	}
	for _, v := range t.thresholds {
		v.Fires, v.FiresBefore, v.FiredDevices, v.LastFired, v.LastDevice = 0, 0, 0, time.Time{}, registry.Address{}
	}
	t.since = since
	for i := range days {
		from := days[i].Start
		if from.Before(t.since) {
			from = t.since
		}
		if err := rec.Play(ctx, devices, from, days[i].End, t.event); err != nil {
			if t.until = from; t.at > telemetry.MicrosOf(from) {
				t.until = t.at.Time()
			}
			if !stopped(err) {
				t.failed = err
			}
			break
		}
		t.take()
	}
	for t.waiting.Len() > 0 {
		t.evaluate(heap.Pop(&t.waiting).(*telemetry.Event))
	}
	t.take()
	return t.until.IsZero()
}

// event takes the next event of the history, which comes by time, and hands it on as it came.
func (t *trial) event(e *telemetry.Event) error {
	if t.rows++; t.rows > t.a.most {
		return errEnough
	}
	t.at = e.Time
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
	if t.waiting.Len() > t.a.waiting {
		return errEnough
	}
	return nil
}

func (t *trial) count(key string, device uuid.UUID, v float64) {
	l := t.looks[key]
	l.devices[device] = struct{}{}
	if math.IsNaN(v) {
		return
	}
	l.values++
	p := t.parameters[key]
	if p == nil || p.after == nil {
		return
	}
	before, after := t.own(device, p)
	if before.Fit(v) != registry.Fits {
		p.impact.OutsideBefore++
	}
	if after.Fit(v) != registry.Fits {
		p.impact.Outside++
		p.outside[device] = struct{}{}
		p.impact.OutsideDevices = len(p.outside)
	}
}

// own returns a parameter before and after the plan, as a device has it.
func (t *trial) own(device uuid.UUID, p *ranges) (before, after *registry.Parameter) {
	o := t.a.overriding[device]
	if o == nil {
		return p.before, p.after
	}
	own, known := o.own[p]
	if !known {
		own = [2]*registry.Parameter{o.before.OwnParameter(p.before), o.after.OwnParameter(p.after)}
		o.own[p] = own
	}
	return own[0], own[1]
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

// take counts the alerts that have fired since it was last called.
func (t *trial) take() {
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
	devices := t.fired[tr.Threshold]
	if devices == nil {
		devices = set{}
		t.fired[tr.Threshold] = devices
	}
	devices[tr.Device] = struct{}{}
	v.FiredDevices = len(devices)
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

// arrivals are events in the order in which the worker took them: as they were received, those of one
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
