package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/loadgen"
)

var _ loadgen.Stored = (*store.Store)(nil)

// loadOptions are the flags of load.
type loadOptions struct {
	rate                     float64
	batch                    int
	duration, timeout, drain time.Duration
	target, database, data   string
	json                     bool
}

// runLoad sends telemetry at a constant rate and verifies that what was acknowledged is stored.
func runLoad(ctx context.Context, s *streams, args []string) error {
	var o loadOptions
	f := newFlags(s, "load [flags]", `
Send values of all declared devices at a constant rate, wait until the queue is empty, and compare what was acknowledged
with what is stored, value by value. The exit code is 0 when every acknowledged value is stored exactly once as it was
sent, 2 when not or when nothing was acknowledged, and 1 when that could not be found out. An interrupt stops the
sending; what was sent is verified all the same, and the exit code is 130.

Example:
  nsready load -rate 200 -batch 50 -duration 1m`)
	f.Float64Var(&o.rate, "rate", 100, "`requests` a second")
	f.IntVar(&o.batch, "batch", 1, "`events` a request")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to send; 0 until interrupted")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for an answer")
	f.DurationVar(&o.drain, "drain-timeout", time.Minute, "how long to wait for the queue to run empty")
	f.StringVar(&o.target, "target", "", "`URL` of the collector\n(default: the one of the 'nsready up' that runs on -data)")
	f.StringVar(&o.database, "database-url", "", "`URL` of the database that the collector's values end up in\n(default: the one of the 'nsready up' that runs on -data, else $DATABASE_URL)")
	f.StringVar(&o.data, "data", ".nsready", "data `DIR` of the running 'nsready up'")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if err := o.locate(os.Getenv("DATABASE_URL")); err != nil {
		return err
	}
	db, err := store.Open(ctx, o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	snapshot, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	show, done := loadProgress(s.stderr)
	report, err := loadgen.Run(ctx, loadgen.Options{Target: o.target, Snapshot: snapshot, Stored: db, Rate: o.rate, Batch: o.batch,
		Duration: o.duration, Timeout: o.timeout, DrainTimeout: o.drain, Progress: show})
	done()
	if report.Run != "" {
		write := printLoad
		if o.json {
			write = printLoadJSON
		}
		if err := write(s.stdout, &report, err); err != nil {
			return fmt.Errorf("printing the report: %w", err)
		}
	}
	return loadResult(&report, err)
}

// loadResult returns what the command ends with. A broken promise is told whatever else went wrong.
func loadResult(r *loadgen.Report, err error) error {
	switch {
	case r.Values.Broken() > 0:
		return exit(exitNo)
	case err != nil:
		return err
	case r.Interrupted:
		return exit(exitInterrupted)
	case !r.Ok():
		return exit(exitNo)
	}
	return nil
}

// locate completes target and database from ready.json and the environment.
func (o *loadOptions) locate(environment string) error {
	var running ready
	var away error
	if o.target == "" || o.database == "" {
		running, away = readReady(o.data)
	}
	o.target = cmp.Or(o.target, running.Collector)
	o.database = cmp.Or(o.database, running.DatabaseURL, environment)
	var missing []string
	if o.target == "" {
		missing = append(missing, "-target")
	}
	if o.database == "" {
		missing = append(missing, "-database-url")
	}
	if missing != nil {
		return fmt.Errorf("%w.\nStart one with 'nsready up', or name one with %s", away, strings.Join(missing, " and "))
	}
	if !strings.Contains(o.target, "://") {
		o.target = "http://" + o.target
	}
	return nil
}

// loadProgress returns what shows progress in one line of a terminal, and what takes that line away.
func loadProgress(w io.Writer) (show func(loadgen.Progress), done func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	show = func(p loadgen.Progress) {
		fmt.Fprintf(w, "\r\033[K%s  %s", p.Elapsed.Truncate(time.Second), p.Phase)
		switch p.Phase {
		case "draining":
			fmt.Fprintf(w, "  %d events wait", p.QueueDepth)
		case "verifying":
			fmt.Fprintf(w, "  %d values read back", p.Stored)
		default:
			fmt.Fprintf(w, "  %d requests, events: %d acknowledged, %d refused, %d unknown", p.Requests, p.Acknowledged, p.Refused, p.Unknown)
		}
	}
	return show, func() { fmt.Fprint(w, "\r\033[K") }
}

func printLoadJSON(w io.Writer, r *loadgen.Report, failure error) error {
	out := struct {
		Ok    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
		*loadgen.Report
	}{Ok: failure == nil && r.Ok(), Report: r}
	if failure != nil {
		out.Error = failure.Error()
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

func printLoad(w io.Writer, r *loadgen.Report, failure error) error {
	plural := "s"
	if r.Batch == 1 {
		plural = ""
	}
	fmt.Fprintf(w, "Run %s: %d devices, %d requests of %d event%s to %s in %.1f s.\n\n", r.Run, r.Devices, r.Requests, r.Batch, plural, r.Target, r.Seconds)
	fmt.Fprintf(w, "rate      %.1f requests/s, asked for %g\n", r.Achieved, r.Rate)
	l := r.Latency
	fmt.Fprintf(w, "latency   p50 %.2f ms, p95 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", l.P50, l.P95, l.P99, l.P999, l.Max)
	fmt.Fprint(w, "answers   ")
	for i, label := range slices.Sorted(maps.Keys(r.Answers)) {
		if i > 0 {
			fmt.Fprint(w, ", ")
		}
		fmt.Fprintf(w, "%s: %d", label, r.Answers[label])
	}
	fmt.Fprintf(w, "\ndrained   in %.1f s\n", r.Drain)
	if r.Trouble != "" {
		fmt.Fprintf(w, "trouble   %s\n", r.Trouble)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tevents\tvalues\t")
	e, v := r.Events, r.Values
	for _, row := range []struct {
		name           string
		events, values uint64
	}{
		{"attempted", e.Attempted, v.Attempted}, {"acknowledged", e.Acknowledged, v.Acknowledged},
		{"refused", e.Refused, v.Refused}, {"unknown", e.Unknown, v.Unknown},
	} {
		fmt.Fprintf(t, "%s\t%d\t%d\t\n", row.name, row.events, row.values)
	}
	for _, row := range []struct {
		name   string
		values uint64
	}{
		{"stored", v.Stored}, {"recovered", v.Recovered}, {"lost", v.Lost}, {"duplicated", v.Duplicated},
		{"altered", v.Altered}, {"unexpected", v.Unexpected},
	} {
		fmt.Fprintf(t, "%s\t\t%d\t\n", row.name, row.values)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, violation := range r.Violations {
		fmt.Fprintln(w, violation)
	}
	verdict := "Every acknowledged value is stored exactly once, as it was sent."
	switch {
	case v.Broken() > 0:
		verdict = fmt.Sprintf("BROKEN: %d lost, %d duplicated, %d altered, %d unexpected values.", v.Lost, v.Duplicated, v.Altered, v.Unexpected)
	case failure != nil:
		verdict = "No verdict."
	case !r.Ok():
		verdict = "Nothing was acknowledged, so nothing is proved."
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}
