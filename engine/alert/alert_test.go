package alert

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

const second = telemetry.Micros(1e6)

var (
	press, pump = uuid.UUID{1}, uuid.UUID{2}
	hotID       = uuid.UUID{0xa}
	temperature = &telemetry.ParameterSet{Keys: []string{"temperature"}}
)

func hot(change ...func(*registry.Threshold)) *registry.Threshold {
	t := &registry.Threshold{ID: hotID, ParameterKey: "temperature", Above: registry.BoundOf(80), Severity: "critical"}
	for _, f := range change {
		f(t)
	}
	return t
}

func holding(d time.Duration) func(*registry.Threshold) {
	return func(t *registry.Threshold) { t.For = d }
}

func deadband(v float64) func(*registry.Threshold) {
	return func(t *registry.Threshold) { t.Deadband = v }
}

func below(v float64) func(*registry.Threshold) {
	return func(t *registry.Threshold) { t.Below = registry.BoundOf(v) }
}

// reading is the value of one event at a second.
type reading struct {
	at      int
	value   float64
	quality byte
}

func good(at int, value float64) reading { return reading{at, value, telemetry.QualityGood} }

func (r reading) event(device uuid.UUID) *telemetry.Event {
	return &telemetry.Event{Device: device, Time: telemetry.Micros(r.at) * second, Set: temperature, Values: []float64{r.value}, Quality: []byte{r.quality}}
}

// steps writes transitions of the press short, such as "5s:->pending 81".
func steps(list []Transition) []string {
	out := []string{}
	for _, t := range list {
		out = append(out, fmt.Sprintf("%ds %s>%s %v", t.At/second, t.From, t.To, t.Value))
	}
	return out
}

func TestEvaluate(t *testing.T) {
	null := math.NaN()
	for _, test := range []struct {
		name      string
		threshold *registry.Threshold
		readings  []reading
		want      []string
	}{
		{"never exceeded", hot(), []reading{good(1, 80), good(2, -300)}, []string{}},
		{"at once", hot(), []reading{good(1, 80), good(2, 80.5), good(3, 90), good(4, 80)}, []string{"2s >firing 80.5", "4s firing>resolved 80"}},
		{"again", hot(), []reading{good(1, 81), good(2, 80), good(3, 82), good(4, 79)},
			[]string{"1s >firing 81", "2s firing>resolved 80", "3s >firing 82", "4s firing>resolved 79"}},
		{"below", hot(below(10)), []reading{good(1, 10), good(2, 9), good(3, 10)}, []string{"2s >firing 9", "3s firing>resolved 10"}},
		{"from one side to the other", hot(below(10)), []reading{good(1, 81), good(2, 9), good(3, 81), good(4, 50)},
			[]string{"1s >firing 81", "4s firing>resolved 50"}},
		{"held", hot(holding(10 * time.Second)), []reading{good(1, 81), good(10, 82), good(11, 83), good(12, 84)},
			[]string{"1s >pending 81", "11s pending>firing 83"}},
		{"not held", hot(holding(10 * time.Second)), []reading{good(1, 81), good(10, 80), good(11, 83), good(20, 84)},
			[]string{"1s >pending 81", "10s pending>resolved 80", "11s >pending 83"}},
		{"deadband", hot(deadband(5)), []reading{good(1, 81), good(2, 79), good(3, 75.1), good(4, 75)},
			[]string{"1s >firing 81", "4s firing>resolved 75"}},
		{"within the deadband from below", hot(deadband(5)), []reading{good(1, 74), good(2, 79)}, []string{}},
		{"pending does not fire within the deadband", hot(deadband(5), holding(10*time.Second)), []reading{good(1, 81), good(20, 79), good(21, 81)},
			[]string{"1s >pending 81", "21s pending>firing 81"}},
		{"deadband below", hot(below(10), deadband(5)), []reading{good(1, 9), good(2, 14), good(3, 15)}, []string{"1s >firing 9", "3s firing>resolved 15"}},
		{"deadbands overlap", hot(below(78), deadband(5)), []reading{good(1, 81), good(2, 80)}, []string{"1s >firing 81", "2s firing>resolved 80"}},
		{"null", hot(), []reading{good(1, null), good(2, 81), good(3, null), good(4, 80)}, []string{"2s >firing 81", "4s firing>resolved 80"}},
		{"bad quality", hot(), []reading{{1, 81, 0}, {2, 81, 63}, {3, 81, 64}, {4, 80, 63}, {5, 80, 84}}, []string{"3s >firing 81", "5s firing>resolved 80"}},
		{"older events", hot(), []reading{good(10, 81), good(9, 70), good(11, 70), good(5, 90)}, []string{"10s >firing 81", "11s firing>resolved 70"}},
		{"older than a null", hot(), []reading{good(10, null), good(9, 81)}, []string{}},
		{"the same time corrects", hot(), []reading{good(10, 81), good(10, 70)}, []string{"10s >firing 81", "10s firing>resolved 70"}},
		{"the same event again", hot(holding(time.Second)), []reading{good(10, 81), good(10, 81), good(11, 81), good(11, 81)},
			[]string{"10s >pending 81", "11s pending>firing 81"}},
		{"no limit", hot(func(t *registry.Threshold) { t.Above = registry.Bound{} }), []reading{good(1, 1e308), good(2, -1e308)}, []string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := NewEvaluator([]*registry.Threshold{test.threshold}, nil, 0)
			for _, r := range test.readings {
				e.Evaluate(r.event(press))
			}
			if got := steps(e.Take()); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestTransitionHasTheWholeRow(t *testing.T) {
	e := NewEvaluator([]*registry.Threshold{hot(holding(time.Second))}, nil, 0)
	for _, r := range []reading{good(1, 81), good(3, 82), good(4, 70)} {
		e.Evaluate(r.event(press))
	}
	want := []Transition{
		{Threshold: hotID, Device: press, From: "", To: Pending, Severity: "critical", Value: 81, At: second, PendingAt: second},
		{Threshold: hotID, Device: press, From: Pending, To: Firing, Severity: "critical", Value: 82, At: 3 * second, PendingAt: second, FiredAt: 3 * second},
		{Threshold: hotID, Device: press, From: Firing, To: Resolved, Severity: "critical", Value: 70, At: 4 * second, PendingAt: second, FiredAt: 3 * second},
	}
	if got := e.Take(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if again := e.Take(); len(again) > 0 {
		t.Errorf("taken twice: %+v", again)
	}
}

func TestQualityNilIsGood(t *testing.T) {
	e := NewEvaluator([]*registry.Threshold{hot()}, nil, 0)
	ev := good(1, 81).event(press)
	ev.Quality = nil
	e.Evaluate(ev)
	if got := steps(e.Take()); !slices.Equal(got, []string{"1s >firing 81"}) {
		t.Errorf("%q", got)
	}
}

func TestDevicesAndParametersAreApart(t *testing.T) {
	cold := &registry.Threshold{ID: uuid.UUID{0xb}, ParameterKey: "temperature", Below: registry.BoundOf(0), Severity: "warning"}
	high := &registry.Threshold{ID: uuid.UUID{0xc}, ParameterKey: "pressure", Above: registry.BoundOf(5), Severity: "warning"}
	e := NewEvaluator([]*registry.Threshold{hot(), cold, high}, nil, 0)
	both := &telemetry.ParameterSet{Keys: []string{"flow", "pressure", "temperature"}}
	send := func(device uuid.UUID, at telemetry.Micros, values ...float64) {
		e.Evaluate(&telemetry.Event{Device: device, Time: at, Set: both, Values: values})
	}
	send(press, 1, 100, 6, -1)
	send(pump, 1, 100, 4, 81)
	send(press, 2, -100, 5, 20)
	e.Evaluate(&telemetry.Event{Device: pump, Time: 2, Set: &telemetry.ParameterSet{Keys: []string{"flow"}}, Values: []float64{1e9}})
	e.Evaluate(good(1, 70).event(pump)) // the same parameter in another set
	type brief struct {
		threshold, device uuid.UUID
		to                State
	}
	var got []brief
	for _, tr := range e.Take() {
		got = append(got, brief{tr.Threshold, tr.Device, tr.To})
	}
	want := []brief{{high.ID, press, Firing}, {cold.ID, press, Firing}, {hotID, pump, Firing}, {high.ID, press, Resolved}, {cold.ID, press, Resolved}, {hotID, pump, Resolved}}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestReload(t *testing.T) {
	other := &registry.Threshold{ID: uuid.UUID{0xb}, ParameterKey: "temperature", Above: registry.BoundOf(60), Severity: "warning"}
	e := NewEvaluator([]*registry.Threshold{hot(), other}, nil, 0)
	e.Evaluate(good(10, 81).event(press))
	e.Take()
	e.Commit()

	// hot gets a higher limit and goes on, with its new severity; the other one is removed.
	e.Reload([]*registry.Threshold{hot(func(t *registry.Threshold) { t.Above, t.Severity = registry.BoundOf(90), "warning" })}, 20*second)
	removed := Transition{Threshold: other.ID, Device: press, From: Firing, To: Resolved, Severity: "warning", Value: 81,
		At: 20 * second, PendingAt: 10 * second, FiredAt: 10 * second, Reason: ReasonRemoved}
	e.Evaluate(good(9, 70).event(press)) // older than what was seen before the reload
	e.Evaluate(good(21, 85).event(press))
	want := []Transition{removed, {Threshold: hotID, Device: press, From: Firing, To: Resolved, Severity: "warning", Value: 85,
		At: 21 * second, PendingAt: 10 * second, FiredAt: 10 * second}}
	for range 2 { // the second time after a failed commit
		if got := e.Take(); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		e.Rollback()
		if open := e.Open(); len(open) != 1 || open[0].Threshold != hotID {
			t.Fatalf("after the rollback: %+v", open)
		}
		e.Evaluate(good(21, 85).event(press))
	}
	e.Take()
	e.Commit()
	e.Rollback()
	if got := e.Take(); len(got) > 0 {
		t.Errorf("after the commit: %+v", got)
	}
	if open := e.Open(); len(open) > 0 {
		t.Errorf("still open: %+v", open)
	}
}

func TestNewEvaluatorResolvesAlertsOfRemovedThresholds(t *testing.T) {
	open := []Open{
		{Threshold: uuid.UUID{9}, Device: pump, State: Pending, Severity: "warning", Value: 3, PendingAt: 7 * second},
		{Threshold: uuid.UUID{9}, Device: press, State: Firing, Severity: "warning", Value: 4, PendingAt: 5 * second, FiredAt: 6 * second},
		{Threshold: hotID, Device: press, State: Firing, Severity: "critical", Value: 81, PendingAt: 8 * second, FiredAt: 8 * second},
	}
	e := NewEvaluator([]*registry.Threshold{hot()}, open, 6*second)
	want := []Transition{
		{Threshold: uuid.UUID{9}, Device: press, From: Firing, To: Resolved, Severity: "warning", Value: 4, At: 6 * second, PendingAt: 5 * second, FiredAt: 6 * second, Reason: ReasonRemoved},
		{Threshold: uuid.UUID{9}, Device: pump, From: Pending, To: Resolved, Severity: "warning", Value: 3, At: 7 * second, PendingAt: 7 * second, Reason: ReasonRemoved},
	}
	if got := e.Take(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := e.Open(); !reflect.DeepEqual(got, open[2:]) {
		t.Errorf("open: %+v", got)
	}
	e.Evaluate(good(7, 20).event(press)) // before the alert began
	e.Evaluate(good(9, 20).event(press))
	if got := steps(e.Take()); !slices.Equal(got, []string{"9s firing>resolved 20"}) {
		t.Errorf("%q", got)
	}
}

func TestAlertsOfRetiredDevicesAreResolved(t *testing.T) {
	e := NewEvaluator([]*registry.Threshold{hot()}, nil, 0)
	e.Evaluate(good(1, 90).event(press))
	e.Evaluate(good(1, 90).event(pump))
	e.Take()
	e.Commit()
	e.Gone(func(id uuid.UUID, key string) string {
		if id == press && key == hot().ParameterKey {
			return ReasonRetired
		}
		return ""
	}, 5*second)
	if !e.Due() {
		t.Error("nothing is due")
	}
	got := e.Take()
	if len(got) != 1 || got[0].Device != press || got[0].To != Resolved || got[0].At != 5*second || got[0].Reason != ReasonRetired {
		t.Errorf("%+v", got)
	}
	e.Rollback()
	if again := e.Take(); !reflect.DeepEqual(again, got) {
		t.Errorf("after a rollback %+v", again)
	}
	e.Commit()
	if e.Due() {
		t.Error("more is due")
	}
	e.Evaluate(good(6, 95).event(press)) // was in the queue
	if got := e.Take(); len(got) > 0 {
		t.Errorf("a retired device begins %+v", got)
	}
	if open := e.Open(); len(open) != 1 || open[0].Device != pump {
		t.Errorf("open: %+v", open)
	}
	e.Gone(func(uuid.UUID, string) string { return "" }, 7*second)
	e.Evaluate(good(8, 95).event(press))
	if got := e.Take(); len(got) != 1 || got[0].To != Firing {
		t.Errorf("a device that is back begins %+v", got)
	}
}

// model says what alerts there are by looking at all that was ever sent: it knows no states.
type model struct {
	thresholds []*registry.Threshold
	events     []*telemetry.Event
}

func (m *model) transitions(t *registry.Threshold, device uuid.UUID) []Transition {
	type sample struct {
		at    telemetry.Micros
		value float64
	}
	var samples []sample
	newest := telemetry.Micros(math.MinInt64)
	for _, ev := range m.events {
		i := slices.Index(ev.Set.Keys, t.ParameterKey)
		if i < 0 || ev.Device != device || ev.Time < newest {
			continue
		}
		newest = ev.Time
		if !math.IsNaN(ev.Values[i]) && (ev.Quality == nil || ev.Quality[i] >= 64) {
			samples = append(samples, sample{ev.Time, ev.Values[i]})
		}
	}
	exceeded := func(s sample) bool {
		return t.Above.Set && s.value > t.Above.Value || t.Below.Set && s.value < t.Below.Value
	}
	inside := func(s sample) bool {
		return (!t.Above.Set || s.value <= t.Above.Value-t.Deadband) && (!t.Below.Set || s.value >= t.Below.Value+t.Deadband)
	}
	var out []Transition
	for {
		begin := slices.IndexFunc(samples, exceeded)
		if begin < 0 {
			return out
		}
		samples = samples[begin:]
		episode := samples
		end := slices.IndexFunc(samples, inside)
		if end >= 0 {
			episode = samples[:end]
		}
		first := episode[0]
		fire := slices.IndexFunc(episode, func(s sample) bool {
			return exceeded(s) && s.at-first.at >= telemetry.Micros(t.For.Microseconds())
		})
		tr := Transition{Threshold: t.ID, Device: device, Severity: t.Severity, PendingAt: first.at}
		add := func(s sample, to State) {
			tr.To, tr.At, tr.Value = to, s.at, s.value
			if to == Firing {
				tr.FiredAt = s.at
			}
			out = append(out, tr)
			tr.From = to
		}
		if t.For > 0 {
			add(first, Pending)
		}
		if fire >= 0 {
			add(episode[fire], Firing)
		}
		if end < 0 {
			return out
		}
		add(samples[end], Resolved)
		samples = samples[end:]
	}
}

// TestAgainstModel sends random series, in batches that fail, are retried and halved, with crashes in between after
// which only what a database holds is left.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		keys := []string{"a", "b", "c"}
		devices := []uuid.UUID{{1}, {2}, {3}}
		sets := []*telemetry.ParameterSet{{Keys: keys[:1]}, {Keys: keys[1:]}, {Keys: []string{"c", "a", "d"}}, {Keys: []string{"d"}}}
		m := &model{}
		for i := range byte(1 + rng.IntN(5)) {
			th := &registry.Threshold{ID: uuid.UUID{100, i}, ParameterKey: keys[rng.IntN(3)], Severity: "warning",
				For: time.Duration(rng.IntN(3)) * 3 * time.Microsecond, Deadband: float64(rng.IntN(3))}
			if rng.IntN(3) > 0 {
				th.Above = registry.BoundOf(float64(5 + rng.IntN(3)))
			}
			if rng.IntN(3) > 0 || !th.Above.Set {
				th.Below = registry.BoundOf(float64(-rng.IntN(3)))
			}
			m.thresholds = append(m.thresholds, th)
		}
		type place struct{ threshold, device uuid.UUID }
		type latest struct {
			device uuid.UUID
			set    *telemetry.ParameterSet
		}
		rows, newest, got := map[place]Open{}, map[latest]telemetry.Micros{}, map[place][]Transition{}
		restart := func() *Evaluator {
			var open []Open
			for _, o := range rows {
				open = append(open, o)
			}
			e := NewEvaluator(m.thresholds, open, math.MaxInt64)
			for l, at := range newest {
				e.Seen(l.device, l.set.Keys, at)
			}
			return e
		}
		e := restart()
		clock := telemetry.Micros(1000)
		for range 40 {
			var batch []*telemetry.Event
			for range rng.IntN(6) {
				clock += telemetry.Micros(rng.IntN(4))
				ev := &telemetry.Event{Device: devices[rng.IntN(3)], Set: sets[rng.IntN(4)], Time: clock}
				if rng.IntN(5) == 0 {
					ev.Time -= telemetry.Micros(rng.IntN(20))
				}
				for range ev.Set.Keys {
					v := float64(rng.IntN(14) - 4)
					if rng.IntN(10) == 0 {
						v = math.NaN()
					}
					ev.Values = append(ev.Values, v)
				}
				if rng.IntN(3) == 0 {
					for range ev.Set.Keys {
						ev.Quality = append(ev.Quality, []byte{0, 63, 64, 192}[rng.IntN(4)])
					}
				}
				batch = append(batch, ev)
			}
			for len(batch) > 0 {
				part := batch
				for rng.IntN(3) == 0 { // this attempt fails, the next one may be smaller
					for _, ev := range part {
						e.Evaluate(ev)
					}
					if rng.IntN(2) == 0 {
						e.Take()
					}
					if rng.IntN(3) == 0 {
						e = restart()
					} else {
						e.Rollback()
					}
					part = part[:max(1, rng.IntN(len(part)+1))]
				}
				for _, ev := range part {
					e.Evaluate(ev)
					l := latest{ev.Device, ev.Set}
					newest[l] = max(newest[l], ev.Time)
				}
				for _, tr := range e.Take() {
					p := place{tr.Threshold, tr.Device}
					if rows[p].State != tr.From {
						t.Fatalf("seed %d: %+v where the row is %+v", seed, tr, rows[p])
					}
					got[p] = append(got[p], tr)
					rows[p] = Open{tr.Threshold, tr.Device, tr.To, tr.Severity, tr.Value, tr.PendingAt, tr.FiredAt}
					if tr.To == Resolved {
						delete(rows, p)
					}
				}
				e.Commit()
				m.events = append(m.events, part...)
				batch = batch[len(part):]
			}
			if rng.IntN(8) == 0 {
				e = restart()
			}
			open := e.Open()
			for _, o := range open {
				if rows[place{o.Threshold, o.Device}] != o {
					t.Fatalf("seed %d: open %+v, stored %+v", seed, o, rows[place{o.Threshold, o.Device}])
				}
			}
			if len(open) != len(rows) {
				t.Fatalf("seed %d: %d open, %d stored", seed, len(open), len(rows))
			}
		}
		for _, th := range m.thresholds {
			for _, device := range devices {
				if want := m.transitions(th, device); !slices.Equal(got[place{th.ID, device}], want) {
					t.Fatalf("seed %d: %+v of %v\ngot  %q\nwant %q", seed, *th, device, steps(got[place{th.ID, device}]), steps(want))
				}
			}
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for _, test := range []struct {
		name string
		set  *telemetry.ParameterSet
	}{
		{"unwatched", &telemetry.ParameterSet{Keys: []string{"flow"}}},
		{"watched", temperature},
	} {
		b.Run(test.name, func(b *testing.B) {
			e := NewEvaluator([]*registry.Threshold{hot()}, nil, 0)
			events := make([]telemetry.Event, 1000)
			for i := range events {
				events[i] = telemetry.Event{Device: uuid.UUID{byte(i), byte(i >> 8)}, Set: test.set, Values: []float64{20}}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				ev := &events[i%len(events)]
				ev.Time = telemetry.Micros(i)
				e.Evaluate(ev)
				if i%len(events) == 0 {
					e.Take()
					e.Commit()
				}
			}
		})
	}
}
