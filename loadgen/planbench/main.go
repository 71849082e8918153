// Planbench measures nsready validate, plan and apply over estates of ten thousand to a million devices, and writes a
// table and bench-plan.json.
//
// Each round of a size has a PostgreSQL cluster of its own, started from nothing. What counts is the whole process: wall
// time from start to end, and the most memory that it had. The result is the median of the rounds. After each apply it
// checks that a plan finds nothing left to do.
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
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	if interrupted {
		fmt.Fprintln(os.Stderr, "planbench: interrupted")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "planbench:", err)
		os.Exit(1)
	}
}

// estate is one that is measured.
type estate struct {
	Name    string `json:"name"`
	Devices int    `json:"devices"`
	Literal bool   `json:"literal"` // a block for each device, instead of for_each over a CSV file
}

// estates are all there are. Growth is told against the 100,000 of the same form.
var estates = []estate{
	{"csv-10k", 10_000, false}, {"csv-100k", 100_000, false}, {"csv-1m", 1_000_000, false},
	{"literal-10k", 10_000, true}, {"literal-100k", 100_000, true},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	fs := flag.NewFlagSet("planbench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	rounds := fs.Int("rounds", 3, "how often to measure each, 1 to 9")
	only := fs.String("only", "", "`estates` to measure: a list with commas of "+estateNames())
	out := fs.String("out", "bench-plan.json", "`file` to write the result to")
	binary := fs.String("binary", "bin/nsready", "`file` of the program to measure")
	parent := fs.String("dir", "", "`directory` for the databases, on the disk to measure (default: a temporary one)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *rounds < 1 || *rounds > 9 || fs.NArg() > 0 {
		return errors.New("want 1 to 9 rounds, and no arguments beside the flags")
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	program, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("the program: %w; build it with: make build", err)
	}
	dir, err := os.MkdirTemp(*parent, "nsready-planbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another user when this is root
		return err
	}
	result := newResult(*rounds)
	for _, e := range chosen {
		var m measured
		for round := range *rounds {
			fmt.Fprintf(stderr, "%s, round %d of %d\n", e.Name, round+1, *rounds)
			if err := m.measure(ctx, program, filepath.Join(dir, fmt.Sprintf("%s-%d", e.Name, round)), e); err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
		}
		result.add(e, m)
	}
	result.compare()
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	_, err = stdout.Write(result.table())
	return err
}

func estateNames() string {
	var names []string
	for _, e := range estates {
		names = append(names, e.Name)
	}
	return strings.Join(names, ", ")
}

// choose returns the estates of a list of names; all when it is empty.
func choose(list string) (chosen []estate, err error) {
	if list == "" {
		return estates, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		n := len(chosen)
		for _, e := range estates {
			if e.Name == name {
				chosen = append(chosen, e)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("-only: there is no estate %q; there are %s", name, estateNames())
		}
	}
	return chosen, nil
}
