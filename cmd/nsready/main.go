// Command nsready declares, runs and tests a telemetry platform.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitFailed      = 1 // it could not be done
	exitNo          = 2 // it was done, and the answer is no, or that there are changes
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
	{"drift", "show what was changed in the registry by hand", runDrift},
	{"history", "list the versions of the registry", runHistory},
	{"show", "show what a version of the registry changed, or a saved plan", runShow},
	{"diff", "show what differs between two versions of the registry", runDiff},
	{"rollback", "make the registry again what a version declared", runRollback},
	{"purge", "remove retired objects for good", runPurge},
	{"limits", "show which limits hold for a device, and who comes nearest to its own", runLimits},
	{"lock", "show who is writing the registry", runLock},
	{"force-unlock", "release the registry's lock, whoever holds it", runForceUnlock},
	{"up", "run everything on this machine", runUp},
	{"serve", "run parts of the service with an external database and queue", runServe},
	{"health", "ask a running service how it is", runHealth},
	{"load", "send telemetry at a rate and verify what is stored", runLoad},
	{"ledger", "show what became of every acknowledged event", runLedger},
	{"devices", "list stale series and silent gateways, and devices that are not registered", runDevices},
	{"dlq", "list, show, replay and purge dead letters", runDLQ},
	{"explain", "explain the code of an error, finding or refusal", runExplain},
	{"ci", "print a pipeline for GitHub or GitLab", runCI},
	{"version", "print the version of this program", runVersion},
}

// groups are the headings of the help. Every command is under one of them, in the order of the table.
var groups = []struct {
	title string
	names []string
}{
	{"Declare what exists", []string{"validate", "lint", "test", "fmt", "plan", "show", "apply", "export", "import"}},
	{"Run the service", []string{"up", "serve"}},
	{"Look", []string{"drift", "history", "diff", "health", "ledger", "devices", "limits", "lock", "load"}},
	{"Recover", []string{"rollback", "purge", "dlq", "force-unlock"}},
	{"This program", []string{"explain", "ci", "completion", "version"}},
}

// streams are what a command reads from and writes to: results to stdout, everything else to stderr.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	json    *bool       // whether errors go to stdout, as JSON; nil for a command that does not have that
	lines   *lines      // of a command that tells what it does as lines of JSON; else nil
	target  *target     // the database that the flags name; nil for a command that needs none
	inspect *inspection // for a command that is to tell its flags and do nothing; else nil
}

// input is stdin for a command that reads it. It fails when ctx ends.
func (s *streams) input(ctx context.Context) io.Reader { return &interruptible{ctx, s.stdin} }

type interruptible struct {
	ctx context.Context
	in  io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	buffer := make([]byte, len(p)) // p is the caller's again when ctx ends
	var n int
	var err error
	if interrupted := await(r.ctx, func() { n, err = r.in.Read(buffer) }); interrupted != nil {
		return 0, interrupted
	}
	return copy(p, buffer[:n]), err
}

// await does work that cannot be interrupted. When ctx ends before, its error is returned; the work goes on until the process
// ends, and nothing of it may be looked at.
func await(ctx context.Context, work func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exit is an error that says nothing: its command has said all.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs a command line and returns its exit code. The first interrupt cancels what runs, the second ends the process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, interrupted, stop := cancelOnInterrupt(ctx)
	defer stop()
	s := &streams{stdin: stdin, stdout: stdout, stderr: stderr}
	err := dispatch(ctx, s, args)
	if s.lines != nil && err == nil {
		err = s.lines.err
	}
	if s.target != nil {
		err = s.target.advise(err)
	}
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case s.lines != nil:
		if e := s.lines.report(err); e != nil {
			fmt.Fprintln(stderr, "Error:", e)
		}
	case s.json != nil && *s.json:
		if e := writeJSON(stdout, failure{formatVersion, []diagnostic{{Severity: "error", Summary: err.Error()}}}); e != nil {
			fmt.Fprintln(stderr, "Error:", e)
		}
	case interrupted():
		fmt.Fprintln(stderr, "Interrupted.")
	default:
		fmt.Fprintln(stderr, "Error:", cleanText(err.Error()))
	}
	if interrupted() {
		return exitInterrupted
	}
	return exitFailed
}

// spareMemory makes a service collect garbage earlier than Go would, unless GOGC says otherwise: it makes little, so that a
// third less memory costs nothing that could be measured.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// errInterrupted is the cause of the end of a context after an interrupt.
var errInterrupted = errors.New("interrupted")

// cancelOnInterrupt returns a context that ends with the first interrupt, and a function that tells whether there was one.
func cancelOnInterrupt(parent context.Context) (ctx context.Context, interrupted func() bool, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	done := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
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
	if err := checkArgsVariables(); err != nil {
		return err
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
	if best := nearest(name, namesOf(commands)); best != "" {
		hint = fmt.Sprintf("Did you mean %q?", best)
	}
	return fmt.Errorf("there is no command %q. %s", name, hint)
}

func namesOf(list []command) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, c := range list {
			if !yield(c.name) {
				return
			}
		}
	}
}

// runSub runs a subcommand of a command that has nothing but those. about says what they are for.
func runSub(ctx context.Context, s *streams, args []string, of, about, example string, list []command) error {
	if s.inspect != nil && len(args) == 0 {
		s.inspect.subcommands(list)
		return nil
	}
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "", "-h", "-help", "--help", "help":
		w := s.stdout
		if name == "" {
			w = s.stderr
		}
		fmt.Fprintf(w, "Usage: nsready %s COMMAND [flags]\n\n%s\n\nCommands:\n", of, about)
		for _, c := range list {
			fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
		}
		fmt.Fprintf(w, "\nExample:\n  %s\n", example)
		if name == "" {
			return exit(exitFailed)
		}
		return nil
	}
	for _, c := range list {
		if c.name == name {
			return c.run(ctx, s, args)
		}
	}
	hint := fmt.Sprintf("'nsready %s -help' lists those there are.", of)
	if best := nearest(name, namesOf(list)); best != "" {
		hint = fmt.Sprintf("Did you mean \"%s %s\"?", of, best)
	}
	return fmt.Errorf("there is no command \"%s %s\". %s", of, name, hint)
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "NSReady collects telemetry from field devices and keeps what it acknowledged.\n\nUsage: nsready COMMAND [flags]\n")
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s:\n", g.title)
		for _, c := range commands {
			if slices.Contains(g.names, c.name) {
				fmt.Fprintf(w, "  %-12s %s\n", c.name, c.summary)
			}
		}
	}
	fmt.Fprint(w, "\n'nsready COMMAND -help' explains a command and its flags.\n")
}

// flags is the command line of one command. Flags may stand before and after other arguments.
type flags struct {
	*flag.FlagSet
	usage, about string
	help         func()
	streams      *streams

	titles []string          // under which the help shows flags
	under  map[string]string // by the flag's name
}

// group puts the flags that register registers under a title of the help.
func (f *flags) group(title string, register func()) {
	known := map[string]bool{}
	f.VisitAll(func(one *flag.Flag) { known[one.Name] = true })
	register()
	if !slices.Contains(f.titles, title) {
		f.titles = append(f.titles, title)
	}
	f.VisitAll(func(one *flag.Flag) {
		if !known[one.Name] && f.under[one.Name] == "" {
			f.under[one.Name] = title
		}
	})
}

// printFlags writes the flags by their groups, those of none first.
func (f *flags) printFlags(w io.Writer) {
	for _, title := range append([]string{""}, f.titles...) {
		part := flag.NewFlagSet("", flag.ContinueOnError)
		part.SetOutput(w)
		f.VisitAll(func(one *flag.Flag) {
			if f.under[one.Name] == title {
				part.Var(one.Value, one.Name, one.Usage)
				part.Lookup(one.Name).DefValue = one.DefValue
			}
		})
		fmt.Fprintf(w, "\n%s:\n", cmp.Or(title, "Flags"))
		part.PrintDefaults()
	}
}

// commandName is the words of a usage that name the command: "dlq show" of "dlq show [flags] ID".
func commandName(usage string) string {
	words := strings.Fields(usage)
	for i, w := range words {
		if strings.Trim(w, "abcdefghijklmnopqrstuvwxyz-") != "" {
			return strings.Join(words[:i], " ")
		}
	}
	return usage
}

// newFlags begins the command line of a command. usage is what follows "nsready"; help ends with an example.
func newFlags(s *streams, usage, help string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(commandName(usage), flag.ContinueOnError), usage: usage, about: help, streams: s, under: map[string]string{}}
	f.SetOutput(io.Discard)
	f.Usage = func() {} // would be called for mistakes too
	f.BoolFunc("no-color", "print no colors, like NO_COLOR=1; CLICOLOR_FORCE=1 prints them without a terminal, too", func(value string) error {
		on, err := strconv.ParseBool(value)
		if err == nil && on {
			err = os.Setenv("NO_COLOR", "1") // painter looks there
		}
		return err
	})
	f.help = func() {
		fmt.Fprintf(s.stdout, "%s", legible(fmt.Appendf(nil, "Usage: nsready %s\n\n%s\n", usage, strings.TrimSpace(help))))
		f.printFlags(s.stdout)
	}
	return f
}

// json registers -json of a command whose only output it makes one JSON document on stdout, of its errors too.
func (f *flags) json(usage string) *bool {
	on := new(bool)
	f.jsonVar(on, usage)
	return on
}

func (f *flags) jsonVar(on *bool, usage string) {
	f.BoolVar(on, "json", false, usage)
	f.streams.json = on
}

// parse reads the command line and returns the arguments that are no flags, of which there may be up to most.
// It returns errHelp when the help was wanted, which it has printed, or when the flags were only to be told.
func (f *flags) parse(args []string, most int) (rest []string, err error) {
	if f.streams.inspect != nil {
		f.streams.inspect.flags(f)
		return nil, errHelp
	}
	if err := f.parseVariables(); err != nil {
		return nil, f.mistake(err)
	}
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			if behind := slices.ContainsFunc(args, func(a string) bool { return a == "-json" || a == "--json" }); behind && f.streams.json != nil {
				*f.streams.json = true // the mistake may stand before it
			}
			return nil, f.mistake(err)
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

// mistake explains why flags could not be taken, and prints the help when that was wanted.
func (f *flags) mistake(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		f.help()
		return errHelp
	}
	hint := ""
	if _, name, ok := strings.Cut(err.Error(), "flag provided but not defined: -"); ok {
		var names []string
		f.VisitAll(func(known *flag.Flag) { names = append(names, known.Name) })
		if best := nearest(name, slices.Values(names)); best != "" {
			hint = fmt.Sprintf(". Did you mean -%s?", best)
		}
	}
	return fmt.Errorf("%w%s\n'nsready %s -help' lists the flags.", err, hint, f.Name())
}

const errHelp = exit(0)
