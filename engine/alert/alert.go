// Package alert turns telemetry into alerts: thresholds against values, with event times as its clock. It does no I/O.
//
// An alert is about one threshold and one device. It begins pending when a value is above or below the limit, fires when
// an event shows the limit still exceeded after the threshold's For, at once when that is 0, and is resolved when a value
// is back inside the limit by the deadband. In between, within the deadband, it stays what it is. Time without events
// changes nothing, neither do nulls and values of bad quality.
package alert

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// State is where an alert stands. The state before the first and after the last is "".
type State string

const (
	Pending  State = "pending"
	Firing   State = "firing"
	Resolved State = "resolved"
)

// Why an alert is resolved, when it is not for a value.
const (
	ReasonRemoved = "threshold removed"
	ReasonRetired = "device retired"
	ReasonMoved   = "device moved to another project"
)

// Transition is one step of one alert, with all that a store needs to write the alert's row.
type Transition struct {
	Threshold, Device uuid.UUID

	From, To State // From is "" when the alert begins, To is never ""
	Severity string
	Value    float64          // that caused the step
	At       telemetry.Micros // the time of the event that caused it

	// When the alert began and fired. FiredAt is 0 until then: an alert that goes from pending to resolved has alerted
	// nobody, and its row may be dropped.
	PendingAt, FiredAt telemetry.Micros

	Reason string // why, when it was not for a value; else ""
}

// Open is an alert that is not resolved.
type Open struct {
	Threshold, Device  uuid.UUID
	State              State // Pending or Firing
	Severity           string
	Value              float64 // of the last transition
	PendingAt, FiredAt telemetry.Micros
}

// Evaluator holds the alerts of the devices of one partition. It is not safe for concurrent use.
//
// A batch goes: Evaluate each event, Take the transitions, write them together with the rows and the offset, then Commit,
// or Rollback when nothing was written. An Evaluator built of the open alerts and the latest times (Seen) that one
// database transaction shows goes on as the one that wrote them would have.
type Evaluator struct {
	rules   map[uuid.UUID]*rule
	byKey   map[string][]*rule
	watched map[*telemetry.ParameterSet][]watch // nil for sets without thresholds
	devices map[uuid.UUID]*device
	gone    func(device uuid.UUID, parameterKey string) (why string) // nil: none is

	batch   uint64 // counts batches; a series changed in this one is in undo
	undo    []before
	removed []Transition // of removed thresholds and of devices that are gone, until committed
	taken   int          // how many of removed Take has returned
	pending []Transition // not yet taken
}

// rule is a compiled threshold. Limits that are not set are infinite.
type rule struct {
	id           uuid.UUID
	key          string  // of the parameter
	above, below float64 // exceeded outside
	high, low    float64 // resolved inside
	hold         telemetry.Micros
	severity     string
}

// watch is a rule for one of the values of a parameter set.
type watch struct {
	index int
	rule  *rule
}

// device is what an Evaluator knows of a device: few series, in no order.
type device struct {
	series []*series
}

// series is the alert of one device and threshold.
type series struct {
	alert Open // its State is "" when there is none
	seen  telemetry.Micros
	batch uint64
}

// before is a series as it was before the batch.
type before struct {
	series *series
	alert  Open
	seen   telemetry.Micros
}

const never telemetry.Micros = math.MinInt64

// maxWatched bounds the memory for compiled parameter sets; past it they are compiled again.
const maxWatched = 1 << 16

// NewEvaluator returns an Evaluator that goes on from open alerts. Alerts whose threshold is not among thresholds get
// resolved at now.
func NewEvaluator(thresholds []*registry.Threshold, open []Open, now telemetry.Micros) *Evaluator {
	e := &Evaluator{devices: map[uuid.UUID]*device{}, batch: 1}
	for _, o := range open {
		s := e.series(o.Device, o.Threshold)
		s.alert = o
		s.seen = max(o.PendingAt, o.FiredAt)
	}
	e.Reload(thresholds, now)
	return e
}

// Reload replaces the thresholds, between batches. Alerts of thresholds that remain go on; of those that are gone, they
// get resolved at now.
func (e *Evaluator) Reload(thresholds []*registry.Threshold, now telemetry.Micros) {
	e.rules = make(map[uuid.UUID]*rule, len(thresholds))
	e.byKey = make(map[string][]*rule)
	e.watched = make(map[*telemetry.ParameterSet][]watch)
	for _, t := range thresholds {
		r := compile(t)
		e.rules[t.ID] = r
		e.byKey[t.ParameterKey] = append(e.byKey[t.ParameterKey], r)
	}
	e.forget(now, func(s *series) string {
		if e.rules[s.alert.Threshold] == nil {
			return ReasonRemoved
		}
		return ""
	})
}

// Gone says which devices cannot have an alert of a parameter's thresholds from here on, between batches: why, and "" for those
// that can. Their alerts get resolved at now, and no new ones begin, whatever of them is in the queue.
func (e *Evaluator) Gone(why func(device uuid.UUID, parameterKey string) string, now telemetry.Micros) {
	e.gone = why
	e.forget(now, func(s *series) string { return why(s.alert.Device, e.rules[s.alert.Threshold].key) })
}

// forget resolves the alerts of series that are gone, and drops these.
func (e *Evaluator) forget(now telemetry.Micros, gone func(*series) (why string)) {
	first := len(e.removed)
	for id, d := range e.devices {
		d.series = slices.DeleteFunc(d.series, func(s *series) bool {
			reason := gone(s)
			if reason == "" {
				return false
			}
			if s.alert.State != "" {
				at := max(now, s.alert.PendingAt, s.alert.FiredAt)
				t := s.alert.transition(Resolved, at)
				t.Reason = reason
				e.removed = append(e.removed, t)
			}
			return true
		})
		if len(d.series) == 0 {
			delete(e.devices, id)
		}
	}
	slices.SortFunc(e.removed[first:], func(a, b Transition) int {
		return cmp.Or(bytes.Compare(a.Threshold[:], b.Threshold[:]), bytes.Compare(a.Device[:], b.Device[:]))
	})
}

func compile(t *registry.Threshold) *rule {
	r := &rule{
		id: t.ID, key: t.ParameterKey, above: math.Inf(1), below: math.Inf(-1), high: math.Inf(1), low: math.Inf(-1),
		hold: telemetry.Micros(t.For.Microseconds()), severity: t.Severity,
	}
	if t.Above.Set {
		r.above, r.high = t.Above.Value, t.Above.Value-t.Deadband
	}
	if t.Below.Set {
		r.below, r.low = t.Below.Value, t.Below.Value+t.Deadband
	}
	if r.low > r.high { // the deadbands overlap, and no value would resolve the alert
		r.high, r.low = r.above, r.below
	}
	return r
}

// Seen says that the device has sent the parameters keys at a time before the evaluation began. Older events are ignored
// then, as they are after one that was evaluated.
func (e *Evaluator) Seen(device uuid.UUID, keys []string, at telemetry.Micros) {
	for _, key := range keys {
		for _, r := range e.byKey[key] {
			s := e.series(device, r.id)
			s.seen = max(s.seen, at)
		}
	}
}

// Evaluate advances the alerts of the event's device. For each threshold, events that are older than one before are
// ignored. An event at the same time counts: it corrects the one before.
func (e *Evaluator) Evaluate(ev *telemetry.Event) {
	if len(e.rules) == 0 {
		return
	}
	watched, known := e.watched[ev.Set]
	if !known {
		watched = e.compileSet(ev.Set)
	}
	if watched == nil {
		return
	}
	for _, w := range watched {
		s := e.series(ev.Device, w.rule.id)
		if ev.Time < s.seen {
			continue
		}
		if s.batch != e.batch {
			e.undo = append(e.undo, before{s, s.alert, s.seen})
			s.batch = e.batch
		}
		s.seen = ev.Time
		v := ev.Values[w.index]
		if math.IsNaN(v) || ev.Quality != nil && ev.Quality[w.index] < telemetry.QualityUncertain {
			continue
		}
		e.step(s, w.rule, v, ev.Time)
	}
}

// step is the state machine.
func (e *Evaluator) step(s *series, r *rule, v float64, at telemetry.Micros) {
	exceeded := v > r.above || v < r.below
	a := &s.alert
	next := a.State
	switch {
	case a.State == "" && exceeded:
		if e.gone != nil && e.gone(a.Device, r.key) != "" {
			return
		}
		next = Pending
		if r.hold <= 0 {
			next = Firing
		}
	case a.State == Pending && exceeded && at-a.PendingAt >= r.hold:
		next = Firing
	case a.State != "" && v <= r.high && v >= r.low:
		next = Resolved
	}
	if next == a.State {
		return
	}
	from := a.State
	if from == "" {
		a.PendingAt, a.FiredAt = at, 0
	}
	if next == Firing {
		a.FiredAt = at
	}
	a.Severity, a.Value = r.severity, v
	e.pending = append(e.pending, a.transition(next, at))
	a.State = next
	if next == Resolved {
		*a = Open{Threshold: a.Threshold, Device: a.Device}
	}
}

func (o *Open) transition(to State, at telemetry.Micros) Transition {
	return Transition{
		Threshold: o.Threshold, Device: o.Device, From: o.State, To: to, Severity: o.Severity, Value: o.Value,
		At: at, PendingAt: o.PendingAt, FiredAt: o.FiredAt,
	}
}

func (e *Evaluator) compileSet(set *telemetry.ParameterSet) []watch {
	var watched []watch
	for i, key := range set.Keys {
		for _, r := range e.byKey[key] {
			watched = append(watched, watch{i, r})
		}
	}
	if len(e.watched) >= maxWatched {
		clear(e.watched)
	}
	e.watched[set] = watched
	return watched
}

// series returns the series of a device and a threshold, new when there is none.
func (e *Evaluator) series(id, threshold uuid.UUID) *series {
	d := e.devices[id]
	if d == nil {
		d = &device{}
		e.devices[id] = d
	}
	for _, s := range d.series {
		if s.alert.Threshold == threshold {
			return s
		}
	}
	s := &series{alert: Open{Threshold: threshold, Device: id}, seen: never}
	d.series = append(d.series, s)
	return s
}

// Due reports whether there are transitions of removed thresholds or of devices that are gone to take.
func (e *Evaluator) Due() bool { return e.taken < len(e.removed) }

// Take returns the transitions since the last Take, in the order of their events, those of removed thresholds and retired
// devices first.
func (e *Evaluator) Take() []Transition {
	out := slices.Concat(e.removed[e.taken:], e.pending)
	e.taken = len(e.removed)
	e.pending = e.pending[:0]
	return out
}

// Commit says that what was taken is stored. It ends the batch: a Rollback goes back to here.
func (e *Evaluator) Commit() {
	e.removed = slices.Delete(e.removed, 0, e.taken)
	e.end()
}

// Rollback undoes the events evaluated since the last Commit, whose transitions were not stored. Those of removed
// thresholds and retired devices will be taken again.
func (e *Evaluator) Rollback() {
	for _, b := range e.undo {
		b.series.alert, b.series.seen = b.alert, b.seen
	}
	e.pending = e.pending[:0]
	e.end()
}

func (e *Evaluator) end() {
	clear(e.undo)
	e.undo = e.undo[:0]
	e.taken = 0
	e.batch++
}

// Open returns the alerts that are not resolved, sorted by threshold and device.
func (e *Evaluator) Open() []Open {
	var open []Open
	for _, d := range e.devices {
		for _, s := range d.series {
			if s.alert.State != "" {
				open = append(open, s.alert)
			}
		}
	}
	slices.SortFunc(open, func(a, b Open) int {
		return cmp.Or(bytes.Compare(a.Threshold[:], b.Threshold[:]), bytes.Compare(a.Device[:], b.Device[:]))
	})
	return open
}
