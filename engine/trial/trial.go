// Package trial runs the tests of a declaration: what the devices of a test send goes the way of a value, as far as that is
// without queue and database. It is judged by engine/ingest, made a frame and read again, and evaluated by engine/alert, event
// by event in the order of arrival. The clock is that of the test, so that a test has the same outcome at any time and place.
package trial

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Failure is an expectation that was not met.
type Failure struct {
	Place   config.Place
	Summary string
	Detail  string // what was got and wanted; it may have several lines
}

// Runner runs tests of one declaration, one at a time.
type Runner struct {
	declared  *registry.Snapshot
	rehearsal *ingest.Rehearsal
}

// NewRunner returns a Runner for tests that were read for the same declaration.
func NewRunner(declared *registry.Snapshot) *Runner {
	return &Runner{declared, ingest.NewRehearsal(declared)}
}

// Run runs a test and returns what failed, in the order of the file. Its error is that of ctx.
func (r *Runner) Run(ctx context.Context, t *config.Test) ([]Failure, error) {
	x := &run{
		Runner: r, test: t, alerts: alert.NewEvaluator(r.declared.Thresholds, nil, telemetry.MicrosOf(t.Start)),
		states: map[subject]alert.Transition{}, timelines: map[subject]*timeline{}, qualities: map[stored]byte{},
		refusals: make([]refusals, len(t.Series)),
	}
	for i, a := range t.Alerts {
		x.timelines[subject{a.Threshold.ID, a.Device.ID}] = &timeline{}
		x.due = append(x.due, i)
	}
	slices.SortStableFunc(x.due, func(i, j int) int { return t.Alerts[i].At.Compare(t.Alerts[j].At) })
	for _, q := range t.Qualities {
		x.qualities[storedAs(q)] = 0
		x.awaited = true
	}
	x.found = map[stored]bool{}
	if err := x.send(ctx); err != nil {
		return nil, err
	}
	x.conclude()
	slices.SortStableFunc(x.failures, func(a, b Failure) int { return a.Place.Start.Byte - b.Place.Start.Byte })
	return x.failures, nil
}

// run is one test on its way.
type run struct {
	*Runner
	test     *config.Test
	alerts   *alert.Evaluator
	failures []Failure

	refusals []refusals // of each series
	due      []int      // alerts that are expected and not looked at yet, by time
	missed   []standing // those that were not as expected

	states    map[subject]alert.Transition // the last of each
	timelines map[subject]*timeline        // of those that are expected
	fired     int
	firing    []alert.Transition // the first of those that fired

	awaited   bool            // some quality is expected
	qualities map[stored]byte // of values that are expected
	found     map[stored]bool
}

// subject is what an alert is about.
type subject struct{ threshold, device uuid.UUID }

// stored is a value of one time.
type stored struct {
	device uuid.UUID
	key    string
	at     telemetry.Micros
}

func storedAs(q config.QualityExpected) stored {
	return stored{q.Device.ID, q.Parameter.Key, telemetry.MicrosOf(q.At)}
}

// refusals of samples of a series.
type refusals struct {
	sent, refused int
	at            time.Time // of the first
	first         *ingest.Rejection
}

// standing is where an alert stood when it was looked at.
type standing struct {
	expected int
	last     alert.Transition
}

// Bounds of what is remembered and shown. A series may have millions of transitions.
const (
	maxTimeline = 1000 // transitions of one subject that are kept
	maxShown    = 20   // lines of a timeline
)

// timeline is the first transitions of one subject.
type timeline struct {
	steps []alert.Transition
	more  int
}

// sender is a series or a message that has something to send next.
type sender struct {
	at    time.Time // of what is next
	place int       // in the file

	series  int // in the test; -1 for a message
	message *config.Message

	run, i, n int // the next sample: of which run, its number in that, and in the series
}

// agenda is a heap of senders, the next one first.
type agenda []*sender

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if c := a[i].at.Compare(a[j].at); c != 0 {
		return c < 0
	}
	return a[i].place < a[j].place
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(v any)   { *a = append(*a, v.(*sender)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// settle moves on to the next sample that has a value. It returns false when there is none.
func (s *sender) settle(series *config.Series) bool {
	for s.run < len(series.Runs) {
		r := series.Runs[s.run]
		if !r.Missing && s.i < r.Count {
			s.at = series.Start.Add(time.Duration(s.n) * series.Interval)
			return true
		}
		s.n += r.Count - s.i
		s.run, s.i = s.run+1, 0
	}
	return false
}

// send sends all that the test has, in the order of time, and that of the file where times are equal.
func (x *run) send(ctx context.Context) error {
	t := x.test
	var next agenda
	for i := range t.Series {
		s := &sender{series: i, place: t.Series[i].Place.Start.Byte}
		if s.settle(&t.Series[i]) {
			next = append(next, s)
		}
	}
	for i := range t.Messages {
		next = append(next, &sender{series: -1, message: &t.Messages[i], at: t.Messages[i].At, place: t.Messages[i].Place.Start.Byte})
	}
	heap.Init(&next)
	x.rehearsal.Begin()
	var body []byte
	for count := 0; len(next) > 0; count++ {
		if count%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s := next[0]
		x.look(s.at, false)
		if s.series < 0 {
			x.judgeMessage(s.message)
			heap.Pop(&next)
			continue
		}
		series := &t.Series[s.series]
		body = series.AppendSample(body[:0], s.at, series.Runs[s.run].Value(s.i))
		x.judgeSample(s, body)
		s.i, s.n = s.i+1, s.n+1
		if s.settle(series) {
			heap.Fix(&next, 0)
		} else {
			heap.Pop(&next)
		}
	}
	x.look(time.Time{}, true)
	return nil
}

// judge sends a body. It returns the refusals, of which there are none when all in it was accepted.
func (x *run) judge(at time.Time, body []byte) []ingest.Rejection {
	result, events, err := x.rehearsal.Judge(at, ingest.JSON, body)
	if refused := (*ingest.Rejection)(nil); errors.As(err, &refused) {
		return []ingest.Rejection{*refused}
	} else if err != nil { // the queue of a rehearsal takes everything
		panic(err)
	}
	for i := range events {
		x.evaluate(&events[i])
	}
	return result.Rejections
}

func (x *run) judgeSample(s *sender, body []byte) {
	r := &x.refusals[s.series]
	r.sent++
	if refused := x.judge(s.at, body); len(refused) > 0 {
		if r.refused++; r.first == nil {
			r.at, r.first = s.at, &refused[0]
		}
	}
}

// evaluate does with an event what a worker does.
func (x *run) evaluate(e *telemetry.Event) {
	x.alerts.Evaluate(e)
	for _, step := range x.alerts.Take() {
		about := subject{step.Threshold, step.Device}
		x.states[about] = step
		if t := x.timelines[about]; t != nil {
			if len(t.steps) < maxTimeline {
				t.steps = append(t.steps, step)
			} else {
				t.more++
			}
		}
		if step.To == alert.Firing {
			if x.fired++; len(x.firing) < maxShown {
				x.firing = append(x.firing, step)
			}
		}
	}
	x.alerts.Commit()
	if !x.awaited {
		return
	}
	for i, key := range e.Set.Keys {
		at := stored{e.Device, key, e.Time}
		if _, expected := x.qualities[at]; expected {
			quality := byte(telemetry.QualityGood)
			if e.Quality != nil {
				quality = e.Quality[i]
			}
			x.qualities[at], x.found[at] = quality, true
		}
	}
}

func (x *run) fail(place config.Place, summary, detail string, args ...any) {
	x.failures = append(x.failures, Failure{place, summary, fmt.Sprintf(detail, args...)})
}

// since writes a time as the test does: from its start.
func (x *run) since(at time.Time) string { return at.Sub(x.test.Start).String() }

func (x *run) judgeMessage(m *config.Message) {
	const summary = "Answer is not as expected"
	refused := x.judge(m.At, m.Body)
	want := "refused"
	if m.Code != config.AnyCode {
		want += " with " + m.Code
	}
	if m.Field != "" {
		want += " for " + m.Field
	}
	switch {
	case m.Code == "" && len(refused) > 0:
		x.fail(m.Place, summary, "Got refused, want accepted.\n%s", listRefusals(refused))
	case m.Code != "" && len(refused) == 0:
		x.fail(m.Place, summary, "Got accepted, want %s.", want)
	case m.Code != "" && !slices.ContainsFunc(refused, func(r ingest.Rejection) bool {
		return (m.Code == config.AnyCode || r.Code == m.Code) && (m.Field == "" || r.Field == m.Field)
	}):
		x.fail(m.Place, summary, "Got refused otherwise, want %s.\n%s", want, listRefusals(refused))
	}
}

func listRefusals(list []ingest.Rejection) string {
	var lines []string
	for _, r := range list[:min(len(list), maxShown)] {
		lines = append(lines, "  "+r.Error())
	}
	return strings.Join(lines, "\n")
}

// look compares the alerts that are expected before a time, or, at the end, all that are left.
func (x *run) look(now time.Time, end bool) {
	for len(x.due) > 0 {
		a := &x.test.Alerts[x.due[0]]
		if !end && !a.At.Before(now) {
			return
		}
		last := x.states[subject{a.Threshold.ID, a.Device.ID}]
		if stateOf(last) != a.State || a.Value.Set && a.Value.Value != last.Value {
			x.missed = append(x.missed, standing{x.due[0], last})
		}
		x.due = x.due[1:]
	}
}

// stateOf names where an alert stands after a transition; the zero one is none.
func stateOf(t alert.Transition) string {
	if t.To == "" {
		return "none"
	}
	return string(t.To)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// conclude compares what was counted.
func (x *run) conclude() {
	t := x.test
	for i, r := range x.refusals {
		s := &t.Series[i]
		if r.refused == s.Rejected {
			continue
		}
		detail := fmt.Sprintf("Of %d samples %d are refused, want %d.", r.sent, r.refused, s.Rejected)
		if r.first != nil {
			detail += fmt.Sprintf("\nThe first, at %s:\n  %s", x.since(r.at), r.first)
		}
		x.fail(s.Place, "Series is not as expected", "%s", detail)
	}
	for _, m := range x.missed {
		x.failAlert(&t.Alerts[m.expected], m.last)
	}
	for _, q := range t.Qualities {
		at := storedAs(q)
		switch got := x.qualities[at]; {
		case !x.found[at]:
			x.fail(q.Place, "Quality is not as expected", "%s has no value of %s at %s; want one with the quality %d.", q.Device.Addr, q.Parameter.Addr.Name(), x.since(q.At), q.Quality)
		case got != q.Quality:
			x.fail(q.Place, "Quality is not as expected", "The value of %s at %s has the quality %d, want %d.", q.Parameter.Addr.Name(), x.since(q.At), got, q.Quality)
		}
	}
	d := x.declared
	declared := map[string]int{
		"customers": len(d.Customers), "projects": len(d.Projects), "sites": len(d.Sites),
		"devices": len(d.Devices), "parameters": len(d.Parameters), "thresholds": len(d.Thresholds),
	}
	for _, c := range t.Counts {
		if got := declared[c.Of]; got != c.Want {
			x.fail(c.Place, "Count is not as expected", "The declaration has %d %s, want %d.", got, c.Of, c.Want)
		}
	}
	if f := t.Fired; f != nil && f.Want != x.fired {
		detail := fmt.Sprintf("Alerts that fired: %d, want %d.", x.fired, f.Want)
		for _, step := range x.firing {
			detail += fmt.Sprintf("\n  %10s  %s of %s, value %s", x.since(step.At.Time()), x.threshold(step.Threshold), x.device(step.Device), number(step.Value))
		}
		if n := x.fired - len(x.firing); n > 0 {
			detail += fmt.Sprintf("\n  and %d more", n)
		}
		x.fail(f.Place, "Alerts are not as expected", "%s", detail)
	}
}

func (x *run) threshold(id uuid.UUID) string {
	i := slices.IndexFunc(x.declared.Thresholds, func(t *registry.Threshold) bool { return t.ID == id })
	return x.declared.Thresholds[i].Addr.String()
}

func (x *run) device(id uuid.UUID) string { return x.declared.Device(id).Addr.Path }

func (x *run) failAlert(a *config.AlertExpected, last alert.Transition) {
	place, got, want := a.StatePlace, stateOf(last), a.State
	if got == want {
		place, got, want = a.ValuePlace, got+" with the value "+number(last.Value), want+" with "+number(a.Value.Value)
	} else if last.To != "" {
		got += fmt.Sprintf(" since %s with the value %s", x.since(last.At.Time()), number(last.Value))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "At %s: got %s, want %s.\nThe alert %s of %s:", x.since(a.At), got, want, a.Threshold.Addr, a.Device.Addr.Path)
	line := x.timelines[subject{a.Threshold.ID, a.Device.ID}]
	steps := line.steps
	at, _ := slices.BinarySearchFunc(steps, telemetry.MicrosOf(a.At), func(t alert.Transition, at telemetry.Micros) int {
		return int(min(max(t.At-at, -1), 1))
	})
	first := max(0, min(at-maxShown/2, len(steps)-maxShown))
	steps = steps[first:min(len(steps), first+maxShown)]
	if first > 0 {
		fmt.Fprintf(&out, "\n  after %d transitions", first)
	}
	for _, step := range steps {
		fmt.Fprintf(&out, "\n  %10s  %-8s  value %s", x.since(step.At.Time()), step.To, number(step.Value))
	}
	switch left := len(line.steps) - first - len(steps) + line.more; {
	case len(line.steps) == 0:
		out.WriteString("\n  no value of a quality of 64 or more exceeds it")
	case left > 0:
		fmt.Fprintf(&out, "\n  and %d more", left)
	}
	x.fail(place, "Alert is not as expected", "%s", out.String())
}
