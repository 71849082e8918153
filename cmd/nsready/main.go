// Command nsready declares, runs and tests a telemetry platform.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/agext/levenshtein"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes. A command whose question has an answer that is "no" or "changed" exits with 2.
const (
	exitFailed      = 1
	exitChanges     = 2
	exitInterrupted = 130
)

// command is one subcommand. An error that is an exit has been reported already.
type command struct {
	name, summary string
	run           func(ctx context.Context, s *streams, args []string) error
}

// commands in the order of the help.
var commands = []command{
	{"validate", "check a declaration", runValidate},
	{"lint", "find what is allowed and probably a mistake", runLint},
	{"test", "run the tests of a declaration", runTest},
	{"fmt", "rewrite declarations in canonical style", runFmt},
	{"plan", "show what apply would change", runPlan},
	{"apply", "make the registry match the declaration", runApply},
	{"export", "write the registry as a declaration or as CSV", runExport},
	{"import", "create what a CSV file of the original platform has", runImport},
	{"up", "run everything on this machine", runUp},
	{"serve", "run parts of the service with an external database and queue", runServe},
	{"health", "ask a running service how it is", runHealth},
	{"load", "send telemetry at a rate and verify what is stored", runLoad},
	{"ledger", "show what became of every acknowledged event", runLedger},
	{"dlq", "list, show, replay and purge dead letters", runDLQ},
	{"explain", "explain the code of an error, finding or refusal", runExplain},
	{"version", "print the version of this program", runVersion},
}

// streams are what a command reads from and writes to: results to stdout, everything else to stderr.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exit is an error that says nothing: its command has said all.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs a command line and returns its exit code. The first interrupt cancels what runs, the second ends the process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, interrupted, stop := cancelOnInterrupt(ctx)
	defer stop()
	err := dispatch(ctx, &streams{stdin, stdout, stderr}, args)
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case interrupted():
		fmt.Fprintln(stderr, "Interrupted.")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "Error:", err)
	return exitFailed
}

// spareMemory makes a service collect garbage earlier than Go would, unless GOGC says otherwise: it makes little, so that a
// third less memory costs nothing that could be measured.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// cancelOnInterrupt returns a context that ends with the first interrupt, and a function that tells whether there was one.
func cancelOnInterrupt(parent context.Context) (ctx context.Context, interrupted func() bool, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	done := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	errInterrupted := errors.New("interrupted")
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-signals:
				if n > 0 {
					os.Exit(exitInterrupted)
				}
				cancel(errInterrupted)
			}
		}
	}()
	return ctx, func() bool { return context.Cause(ctx) == errInterrupted }, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

func dispatch(ctx context.Context, s *streams, args []string) error {
	if len(args) == 0 {
		printHelp(s.stderr)
		return exit(exitFailed)
	}
	name, args := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help", "help":
		if name != "help" || len(args) == 0 {
			printHelp(s.stdout)
			return nil
		}
		name, args = args[0], []string{"-help"}
	case "-version", "--version":
		name = "version"
	}
	for _, c := range commands {
		if c.name == name {
			return c.run(ctx, s, args)
		}
	}
	hint := "'nsready help' lists the commands."
	best := 3 // edits; what is further away was not meant
	for _, c := range commands {
		if d := levenshtein.Distance(strings.ToLower(name), c.name, nil); d < best {
			best, hint = d, fmt.Sprintf("Did you mean %q?", c.name)
		}
	}
	return fmt.Errorf("there is no command %q. %s", name, hint)
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "NSReady collects telemetry from field devices and keeps what it acknowledged.\n\nUsage: nsready COMMAND [flags]\n\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n'nsready COMMAND -help' explains a command and its flags.\n")
}

// flags is the command line of one command. Flags may stand before and after other arguments.
type flags struct {
	*flag.FlagSet
	help func()
}

// newFlags begins the command line of a command. usage is what follows "nsready"; help ends with an example.
func newFlags(s *streams, usage, help string) *flags {
	name, _, _ := strings.Cut(usage, " ")
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.Usage = func() {} // would be called for mistakes too
	f.help = func() {
		fmt.Fprintf(s.stdout, "Usage: nsready %s\n\n%s\n", usage, strings.TrimSpace(help))
		any := false
		f.VisitAll(func(*flag.Flag) { any = true })
		if any {
			fmt.Fprint(s.stdout, "\nFlags:\n")
			f.SetOutput(s.stdout)
			f.PrintDefaults()
		}
	}
	return f
}

// parse reads the command line and returns the arguments that are no flags, of which there may be up to most.
// It returns errHelp when the help was wanted, which it has printed.
func (f *flags) parse(args []string, most int) (rest []string, err error) {
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.help()
				return nil, errHelp
			}
			return nil, fmt.Errorf("%w\n'nsready %s -help' lists the flags.", err, f.Name())
		}
		left := f.Args()
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			rest = append(rest, left...)
			break
		}
		if len(left) > 0 {
			rest, left = append(rest, left[0]), left[1:]
		}
		args = left
	}
	if most >= 0 && len(rest) > most {
		return nil, fmt.Errorf("unexpected argument %q\n'nsready %s -help' shows the usage.", rest[most], f.Name())
	}
	return rest, nil
}

const errHelp = exit(0)
