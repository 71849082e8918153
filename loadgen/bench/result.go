package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// figure is a line of the result: something measured, or the quotient of two such of the same round.
type figure struct {
	key      string // in bench.json
	name     string // for people
	unit     string
	over, of string  // keys: the figure is over / of
	atLeast  float64 // goal, 0 for none
	atMost   float64
}

// figures are all there are, in the order of the phases. This is where the goals are.
var figures = []figure{
	{key: "copy.values", name: "rate", unit: "values/s"},
	{key: "telemetry.values", name: "rate", unit: "values/s"},
	{key: "x100.values", name: "until the last commit", unit: "values/s"},
	{key: "x100.acknowledged", name: "until the last answer", unit: "values/s"},
	{key: "x100.over_copy", name: "over COPY into the original's table", over: "x100.values", of: "copy.values", atLeast: 40},
	{key: "x100.over_telemetry", name: "over COPY into telemetry", over: "x100.values", of: "telemetry.values", atLeast: 0.6},
	{key: "x100.p99", name: "p99 of the answers, at this maximum", unit: "ms"},
	{key: "x100.generator", name: "CPU time of the generator", unit: "%"},
	{key: "x100.memory", name: "peak memory", unit: "MiB", atMost: 128},
	{key: "x10.values", name: "until the last commit", unit: "values/s"},
	{key: "x10.over_x100", name: "over x100", over: "x10.values", of: "x100.values"},
	{key: "x10.generator", name: "CPU time of the generator", unit: "%"},
	{key: "bare.requests", name: "rate", unit: "requests/s"},
	{key: "bare.generator", name: "CPU time of the generator", unit: "%"},
	{key: "single.requests", name: "until the last answer", unit: "requests/s"},
	{key: "single.over_bare", name: "over the bare responder", over: "single.requests", of: "bare.requests", atLeast: 0.85},
	{key: "single.values", name: "until the last commit", unit: "values/s"},
	{key: "single.p99", name: "p99 of the answers, at this maximum", unit: "ms"},
	{key: "single.generator", name: "CPU time of the generator", unit: "%"},
	{key: "single.memory", name: "peak memory", unit: "MiB"},
	{key: "half.single.rate", name: "rate of single events", unit: "requests/s"},
	{key: "half.single.p50", name: "p50 of single events", unit: "ms"},
	{key: "half.single.p99", name: "p99 of single events", unit: "ms", atMost: 3},
	{key: "half.single.p99_9", name: "p99.9 of single events", unit: "ms"},
	{key: "half.single.generator", name: "CPU time of the generator of single events", unit: "%"},
	{key: "half.x100.rate", name: "rate of batches of 100", unit: "requests/s"},
	{key: "half.x100.p50", name: "p50 of batches of 100", unit: "ms"},
	{key: "half.x100.p99", name: "p99 of batches of 100", unit: "ms", atMost: 3},
	{key: "half.x100.p99_9", name: "p99.9 of batches of 100", unit: "ms"},
	{key: "half.x100.generator", name: "CPU time of the generator of batches of 100", unit: "%"},
	{key: "retransmit.values", name: "distinct, until the last commit", unit: "values/s"},
	{key: "retransmit.over_x100", name: "over x100", over: "retransmit.values", of: "x100.values", atLeast: 0.95},
	{key: "fsync.x100.values", name: "batches of 100, until the last commit", unit: "values/s"},
	{key: "fsync.x100.over_x100", name: "over x100", over: "fsync.x100.values", of: "x100.values", atLeast: 0.8},
	{key: "fsync.single.values", name: "single events, until the last commit", unit: "values/s"},
	{key: "fsync.single.over_single", name: "over single events", over: "fsync.single.values", of: "single.values", atLeast: 0.8},
	{key: "fsync.single.p50", name: "p50 of the answers to single events", unit: "ms"},
	{key: "queued.events", name: "queued", unit: "events"},
	{key: "queued.accepted", name: "accepted", unit: "events/s"},
	{key: "queued.filling", name: "peak memory while they come", unit: "MiB"},
	{key: "queued.memory", name: "memory while they wait", unit: "MiB", atMost: 64},
	{key: "queued.draining", name: "peak memory while they are stored", unit: "MiB"},
	{key: "queued.seconds", name: "time to store them", unit: "s"},
	{key: "queued.drained", name: "stored", unit: "events/s"},
}

// phase returns the name of the phase that yields it.
func (f figure) phase() string {
	name, _, _ := strings.Cut(f.key, ".")
	return name
}

func figureOf(key string) figure {
	i := slices.IndexFunc(figures, func(f figure) bool { return f.key == key })
	if i < 0 {
		panic("no figure " + key)
	}
	return figures[i]
}

// Result is bench.json.
type Result struct {
	Time    time.Time `json:"time"`
	Commit  string    `json:"commit"` // of the service
	Machine Machine   `json:"machine"`
	Short   bool      `json:"short"`   // not to be believed
	Seconds float64   `json:"seconds"` // that it took
	Rounds  int       `json:"rounds"`
	Phases  []Phase   `json:"phases"`
}

// Phase is what one measurement yielded.
type Phase struct {
	Name    string    `json:"name"`
	Title   string    `json:"title"`
	Missing string    `json:"not_measured,omitempty"` // why
	Figures []Measure `json:"figures"`
}

// Measure is one figure.
type Measure struct {
	Key     string    `json:"key"`
	Name    string    `json:"name"`
	Unit    string    `json:"unit,omitempty"` // none for a quotient
	Over    string    `json:"over,omitempty"` // key of the numerator
	Of      string    `json:"of,omitempty"`   // key of the denominator
	Rounds  []float64 `json:"rounds"`
	Median  float64   `json:"median"`
	Goal    *Goal     `json:"goal,omitempty"`
	Invalid []string  `json:"invalid,omitempty"` // rounds that must not be believed, and why
}

// Goal is what a median should be.
type Goal struct {
	AtLeast float64 `json:"at_least,omitempty"` // either this
	AtMost  float64 `json:"at_most,omitempty"`  // or that
	Met     bool    `json:"met"`
	Reached float64 `json:"reached"` // how much of the goal, at least 1 when it is met
}

func newGoal(f figure, median float64) *Goal {
	g := &Goal{AtLeast: f.atLeast, AtMost: f.atMost}
	switch {
	case f.atLeast > 0:
		g.Reached = median / f.atLeast
	case f.atMost > 0 && median > 0:
		g.Reached = f.atMost / median
	default:
		return nil
	}
	g.Met = g.Reached >= 1
	return g
}

// String is the goal and how it stands.
func (g *Goal) String() string {
	switch {
	case g == nil:
		return ""
	case g.AtLeast > 0 && g.Met:
		return fmt.Sprintf("goal %g, met", g.AtLeast)
	case g.AtLeast > 0:
		return fmt.Sprintf("goal %g, short by %.0f %%", g.AtLeast, math.Ceil(100*(1-g.Reached)))
	case g.Met:
		return fmt.Sprintf("at most %g, met", g.AtMost)
	}
	return fmt.Sprintf("at most %g, over by %.0f %%", g.AtMost, math.Ceil(100*(1/g.Reached-1)))
}

// complete works out quotients, medians and goals. A phase that a round lacks is missing.
func (r *Result) complete(chosen []phase, rounds []*round) {
	r.Rounds = len(rounds)
	for _, p := range chosen {
		one := Phase{Name: p.name, Title: p.title}
		for _, round := range rounds {
			one.Missing = cmp.Or(one.Missing, round.missing[p.name])
		}
		for _, f := range figures {
			if f.phase() != p.name || one.Missing != "" {
				continue
			}
			if m, ok := f.measure(rounds); ok {
				one.Figures = append(one.Figures, m)
			}
		}
		r.Phases = append(r.Phases, one)
	}
}

// measure returns a figure over all rounds. It is not ok when one of them lacks it.
func (f figure) measure(rounds []*round) (m Measure, ok bool) {
	m = Measure{Key: f.key, Name: f.name, Unit: f.unit, Over: f.over, Of: f.of}
	from := []string{f.key}
	if f.of != "" {
		from = []string{f.over, f.of}
	}
	for i, r := range rounds {
		var parts []float64
		for _, key := range from {
			v, ok := r.figures[key]
			if !ok {
				return m, false
			}
			parts = append(parts, v)
			if remark := r.remarks[key]; remark != "" {
				m.Invalid = append(m.Invalid, fmt.Sprintf("round %d: %s", i+1, remark))
			}
		}
		if f.of != "" {
			parts[0] /= parts[1]
		}
		m.Rounds = append(m.Rounds, parts[0])
	}
	m.Median = median(m.Rounds)
	m.Goal = newGoal(f, m.Median)
	return m, true
}

// median returns the middle of a list that is not empty, of an even one the mean of its middle two.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

// table is the result for people.
func (r *Result) table() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, r.heading())
	if r.Short {
		fmt.Fprintln(&b, "A short run: these are no figures.")
	}
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "\n%-54s", p.Name)
		for i := range r.Rounds {
			fmt.Fprintf(&b, "%9s", fmt.Sprint("round ", i+1))
		}
		fmt.Fprintf(&b, "%9s\n%s\n", "median", p.Title)
		if p.Missing != "" {
			fmt.Fprintf(&b, "  not measured: %s\n", p.Missing)
		}
		for _, m := range p.Figures {
			fmt.Fprintf(&b, "  %-52s", strings.TrimSuffix(m.Name+", "+m.Unit, ", "))
			for _, v := range m.Rounds {
				fmt.Fprintf(&b, "%9s", format(v))
			}
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%9s   %s", format(m.Median), m.Goal), " "))
			for _, why := range m.Invalid {
				fmt.Fprintf(&b, "    invalid, %s\n", why)
			}
		}
	}
	return b.Bytes()
}

// heading says what was measured on what.
func (r *Result) heading() string {
	m := r.Machine
	return fmt.Sprintf("%s, %d cores, %.0f GiB, %s, %s, PostgreSQL %s, fdatasync of 8 kB %.2f ms\ncommit %s, %s, %d rounds in %.0f s",
		m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.Go, m.PostgreSQL["server_version"], m.FsyncMs,
		r.Commit, r.Time.Format("2006-01-02 15:04 MST"), r.Rounds, r.Seconds)
}

// format writes three digits or a little more, and k or M for thousands and millions.
func format(v float64) string {
	switch {
	case v >= 999_500:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 9_995:
		return fmt.Sprintf("%.1f k", v/1e3)
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
