// Bench measures the service against what the same machine can do at best, and writes a table, bench.json and bench.svg.
//
// It starts nsready up on a directory of its own with 1000 devices of 10 parameters, and in each round measures one phase
// after the other (see phases), so that what the machine does meanwhile hits all alike. What is compared with one another
// is compared within its round; the result is the median of the rounds. Load, service and database share the machine, so
// only the ratios say anything about the service. It is a program of its own, as the product has no use for any of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	if interrupted {
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds      int
	binary, dir string
	phases      []phase
	size        size
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	o := options{}
	short := fs.Bool("short", false, "a tenth of the load: for trying the benchmark, not for its figures")
	only := fs.String("only", "", "`phases` to measure, and those they compare with: a list with commas of "+phaseNames())
	out := fs.String("out", "bench.json", "`file` to write the result to; a picture of it goes beside it, as .svg")
	respond := fs.Bool("respond", false, "serve bare 202s until the standard input ends (the benchmark starts itself so)")
	fs.IntVar(&o.rounds, "rounds", 3, "how often to measure each, 1 to 9")
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
	if o.rounds < 1 || o.rounds > 9 || fs.NArg() > 0 { // events of longer runs would be late ones
		return errors.New("want 1 to 9 rounds, and no arguments beside the flags")
	}
	if o.phases, err = choose(*only); err != nil {
		return err
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
	result.Short = *short
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if err := os.WriteFile(strings.TrimSuffix(*out, filepath.Ext(*out))+".svg", result.picture(), 0o644); err != nil {
		return fmt.Errorf("writing the picture: %w", err)
	}
	_, err = stdout.Write(result.table())
	return err
}

// phase is one measurement of a round.
type phase struct {
	name  string
	title string
	needs []string // phases of the same round that it compares with or gets its load from
	run   func(context.Context, *bench, *round) error
}

// phases are all there are, in the order in which a round measures them. The figures that each yields are in figures.
var phases = []phase{
	{"copy", "Raw COPY: pgx with two writers into the original platform's table", nil, copyOriginal},
	{"telemetry", "Pre-encoded COPY: two writers into telemetry itself", nil, copyTelemetry},
	{"x100", "End to end, NDJSON of 100 events a request", nil, batches},
	{"x10", "End to end, NDJSON of 10 events a request", nil, smallBatches},
	{"bare", "Bare responder: net/http that reads a request and answers 202", nil, bareResponder},
	{"single", "End to end, one event a request", nil, singleEvents},
	{"half", "Acknowledgement at half of the maximum, from when a request is due", []string{"x100", "single"}, halfLoad},
	{"retransmit", "End to end x100, every tenth request sent again", []string{"x100"}, retransmissions},
	{"fsync", "End to end with 4 ms more on each fsync of the service and PostgreSQL", []string{"x100", "single"}, slowFsync},
	{"queued", "Events of one value queued while the worker cannot store", nil, queued},
}

func phaseNames() string {
	var names []string
	for _, p := range phases {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choose returns the phases of a list of names, with those they need; all when the list is empty.
func choose(list string) (chosen []phase, err error) {
	if list == "" {
		return phases, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(phases, func(p phase) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no phase %q; there are %s", name, phaseNames())
		}
		wanted[name] = true
		for _, needed := range phases[i].needs {
			wanted[needed] = true
		}
	}
	for _, p := range phases {
		if wanted[p.name] {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}
