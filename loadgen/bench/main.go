// Bench measures the service against what the same machine can do at best, and writes a table and bench.json.
//
// It starts nsready up on a directory of its own with 1000 devices of 10 parameters, and interleaves, in each round:
//
//   - raw COPY: pgx's CopyFrom with two writers into the original platform's table, in the same database;
//   - end to end: batches of 100 events through the service, from the first request to the last commit;
//   - bare 202: requests of one event to an HTTP server that only reads them;
//   - single events: the same requests to the service, each answered when its event is on disk.
//
// Load, service and database share the machine, so only the ratios say anything about the service. It is a program of its
// own, as the product has no use for any of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// goals are the ratios to reach.
var goals = map[string]float64{ratioBatches: 15, ratioSingles: 0.5}

const (
	ratioBatches = "end to end / raw COPY"
	ratioSingles = "single events / bare 202"
)

// Result is bench.json. Rates are per second.
type Result struct {
	Time    time.Time          `json:"time"`
	Machine Machine            `json:"machine"`
	Rounds  []Round            `json:"rounds"`
	Medians Round              `json:"medians"`
	Ratios  map[string]float64 `json:"ratios"` // medians of the rounds' ratios
	Goals   map[string]float64 `json:"goals"`
}

// Round is one round of all measurements.
type Round struct {
	RawCopy      float64 `json:"raw_copy_values"`
	EndToEnd     float64 `json:"end_to_end_values"`
	Acknowledged float64 `json:"acknowledged_values"` // of end to end, until the last answer
	Bare         float64 `json:"bare_202_requests"`
	Single       float64 `json:"single_event_requests"`
	SingleP99    float64 `json:"single_event_p99_ms"` // at the maximum rate
	ServiceRSS   float64 `json:"service_rss_mib"`     // the most so far
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	o := options{}
	short := fs.Bool("short", false, "a tenth of the load: for trying the benchmark, not for its figures")
	out := fs.String("out", "bench.json", "`file` to write the result to")
	respond := fs.Bool("respond", false, "serve bare 202s until the standard input ends (the benchmark starts itself so)")
	fs.IntVar(&o.rounds, "rounds", 3, "how often to measure each")
	fs.StringVar(&o.binary, "binary", "bin/nsready", "`file` of the service")
	fs.StringVar(&o.dir, "dir", "", "`directory` for the service's data, on the disk to measure (default: a temporary one)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *respond {
		return serveBare(stdout)
	}
	if o.rounds < 1 || fs.NArg() > 0 {
		return errors.New("want at least one round, and no arguments beside the flags")
	}
	o.size = full
	if *short {
		o.size = tenth
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	if _, err := os.Stat(o.binary); err != nil {
		return fmt.Errorf("the service: %w; build it with: go build -o bin/nsready ./cmd/nsready", err)
	}
	dir, err := os.MkdirTemp(o.dir, "nsready-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if removed := os.RemoveAll(dir); err == nil {
			err = removed
		}
	}()
	o.dir = dir
	result, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return result.print(stdout)
}

// serveBare is the best that net/http can do: it reads each request and answers 202. Its address goes to w.
func serveBare(w io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w, l.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	parentGone := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(parentGone) }()
	select {
	case err := <-failed:
		return err
	case <-parentGone:
		return server.Close()
	}
}

// complete works out medians and ratios.
func (r *Result) complete() {
	of := func(f func(Round) float64) float64 {
		list := make([]float64, len(r.Rounds))
		for i, round := range r.Rounds {
			list[i] = f(round)
		}
		return median(list)
	}
	r.Medians = Round{
		RawCopy:      of(func(r Round) float64 { return r.RawCopy }),
		EndToEnd:     of(func(r Round) float64 { return r.EndToEnd }),
		Acknowledged: of(func(r Round) float64 { return r.Acknowledged }),
		Bare:         of(func(r Round) float64 { return r.Bare }),
		Single:       of(func(r Round) float64 { return r.Single }),
		SingleP99:    of(func(r Round) float64 { return r.SingleP99 }),
		ServiceRSS:   of(func(r Round) float64 { return r.ServiceRSS }),
	}
	r.Ratios = map[string]float64{
		ratioBatches: of(func(r Round) float64 { return r.EndToEnd / r.RawCopy }),
		ratioSingles: of(func(r Round) float64 { return r.Single / r.Bare }),
	}
	r.Goals = goals
}

// median returns the middle of a list that is not empty, of an even one the mean of its middle two.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

func (r *Result) print(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %.0f GiB, %s, %s, PostgreSQL %s, fdatasync of 8 kB %.2f ms\n\n", m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.Go, m.PostgreSQL["server_version"], m.FsyncMs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, format string, median float64, f func(Round) float64, remark string) {
		fmt.Fprint(t, name, "\t")
		for _, round := range r.Rounds {
			fmt.Fprintf(t, format+"\t", f(round))
		}
		fmt.Fprintf(t, format+"\t%s\n", median, remark)
	}
	fmt.Fprint(t, "\t")
	for i := range r.Rounds {
		fmt.Fprintf(t, "round %d\t", i+1)
	}
	fmt.Fprint(t, "median\t\n")
	goal := func(name string) string {
		if r.Ratios[name] < goals[name] {
			return fmt.Sprintf(" below the goal of %g", goals[name])
		}
		return fmt.Sprintf(" goal: %g", goals[name])
	}
	row("raw COPY, values/s", "%.0f", r.Medians.RawCopy, func(r Round) float64 { return r.RawCopy }, "")
	row("end to end, values/s", "%.0f", r.Medians.EndToEnd, func(r Round) float64 { return r.EndToEnd }, "")
	row(ratioBatches, "%.2f", r.Ratios[ratioBatches], func(r Round) float64 { return r.EndToEnd / r.RawCopy }, goal(ratioBatches))
	row("bare 202, requests/s", "%.0f", r.Medians.Bare, func(r Round) float64 { return r.Bare }, "")
	row("single events, requests/s", "%.0f", r.Medians.Single, func(r Round) float64 { return r.Single }, "")
	row(ratioSingles, "%.2f", r.Ratios[ratioSingles], func(r Round) float64 { return r.Single / r.Bare }, goal(ratioSingles))
	row("p99 of single events, ms", "%.1f", r.Medians.SingleP99, func(r Round) float64 { return r.SingleP99 }, "")
	row("peak memory of the service, MiB", "%.0f", r.Medians.ServiceRSS, func(r Round) float64 { return r.ServiceRSS }, "")
	return t.Flush()
}
