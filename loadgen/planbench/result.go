package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Result is bench-plan.json.
type Result struct {
	Time     time.Time `json:"time"`
	CPUs     int       `json:"cpus"`
	Load     string    `json:"load_average"` // of the machine before the first round
	Rounds   int       `json:"rounds"`
	Measures []Measure `json:"measures"`
}

// Measure is what one step took over one estate.
type Measure struct {
	Estate  estate    `json:"estate"`
	Step    string    `json:"step"`
	Seconds []float64 `json:"seconds"` // of each round
	CPU     []float64 `json:"cpu"`     // seconds of the process on all CPUs: what is left of the seconds it waited, for the database or for a CPU
	MiB     []float64 `json:"mib"`     // peak resident memory of the process
	Median  Median    `json:"median"`
	Growth  *Median   `json:"growth,omitempty"` // over 100,000 devices, divided by how many times more devices there are
	Goals   []Goal    `json:"goals,omitempty"`
}

// Median is the middle of the rounds.
type Median struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	MiB     float64 `json:"mib"`
}

// Goal is what a figure should be at most.
type Goal struct {
	Of     string  `json:"of"` // seconds, mib, growth of seconds, growth of mib
	AtMost float64 `json:"at_most"`
	Met    bool    `json:"met"`
}

const base = 100_000 // devices that growth is told against

// limits of time and memory, by estate and step.
var limits = map[string]map[string]Median{
	"csv-100k":     {"validate": {Seconds: 2, MiB: 600}, "plan": {Seconds: 2, MiB: 600}, "create": {Seconds: 3}},
	"literal-100k": {"validate": {Seconds: 6, MiB: 600}, "plan": {Seconds: 6, MiB: 600}},
}

func newResult(rounds int) *Result {
	load, _ := os.ReadFile("/proc/loadavg") // for information: empty elsewhere
	return &Result{Time: time.Now().UTC(), CPUs: runtime.NumCPU(), Rounds: rounds, Load: strings.TrimSpace(string(load))}
}

func (r *Result) add(e estate, m measured) {
	for _, step := range steps {
		out := Measure{Estate: e, Step: step.name}
		for _, s := range m[step.name] {
			out.Seconds, out.CPU, out.MiB = append(out.Seconds, s.seconds), append(out.CPU, s.cpu), append(out.MiB, s.mib)
		}
		out.Median = Median{median(out.Seconds), median(out.CPU), median(out.MiB)}
		if limit, ok := limits[e.Name][step.name]; ok {
			out.goal("seconds", out.Median.Seconds, limit.Seconds)
			if limit.MiB > 0 {
				out.goal("mib", out.Median.MiB, limit.MiB)
			}
		}
		r.Measures = append(r.Measures, out)
	}
}

func (m *Measure) goal(of string, is, atMost float64) {
	m.Goals = append(m.Goals, Goal{of, atMost, is <= atMost})
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// compare tells how time and memory grow with the number of devices, where both sizes were measured.
func (r *Result) compare() {
	for i := range r.Measures {
		m := &r.Measures[i]
		of := slices.IndexFunc(r.Measures, func(o Measure) bool {
			return o.Step == m.Step && o.Estate.Literal == m.Estate.Literal && o.Estate.Devices == base
		})
		if of < 0 || m.Estate.Devices == base {
			continue
		}
		times := float64(m.Estate.Devices) / base
		b := r.Measures[of].Median
		m.Growth = &Median{m.Median.Seconds / b.Seconds / times, m.Median.CPU / b.CPU / times, m.Median.MiB / b.MiB / times}
		if times > 1 {
			m.goal("growth of seconds", m.Growth.Seconds, 1)
			m.goal("growth of mib", m.Growth.MiB, 1)
		}
	}
}

// table is the result for people.
func (r *Result) table() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "Medians of %d rounds, whole processes. %d CPUs; load average before: %s\n\n", r.Rounds, r.CPUs, r.Load)
	fmt.Fprintf(&out, "%-14s %-34s %9s %9s %9s  %s\n", "estate", "step", "seconds", "of CPU", "MiB", "goals; growth over 100,000 devices, 1 is linear")
	for _, m := range r.Measures {
		title := ""
		for _, s := range steps {
			if s.name == m.Step {
				title = s.title
			}
		}
		fmt.Fprintf(&out, "%-14s %-34s %9.2f %9.2f %9.0f ", m.Estate.Name, title, m.Median.Seconds, m.Median.CPU, m.Median.MiB)
		for _, g := range m.Goals {
			verdict := "met"
			if !g.Met {
				verdict = "NOT MET"
			}
			fmt.Fprintf(&out, " %s ≤ %g: %s;", g.Of, g.AtMost, verdict)
		}
		if m.Growth != nil {
			fmt.Fprintf(&out, " growth %.2f in time, %.2f in CPU time, %.2f in memory", m.Growth.Seconds, m.Growth.CPU, m.Growth.MiB)
		}
		out.WriteByte('\n')
	}
	out.WriteString("\nFor comparison, measured before on such a machine, not here: Terraform 1.11 plans 10,000 unchanged terraform_data in 28 s with\n" +
		"424 MB, and needs over 4 minutes to create them.\n")
	return out.Bytes()
}
