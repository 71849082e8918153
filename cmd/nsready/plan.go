package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// target says which declaration goes to which database.
type target struct {
	config, databaseURL, data string
	variables                 variables
}

func (t *target) register(f *flags) {
	f.group("Which declaration", func() {
		f.StringVar(&t.config, "config", defaultConfig, configUsage)
		t.variables.register(f)
	})
	t.registerDatabase(f)
}

func (t *target) registerDatabase(f *flags) {
	f.group("Which database", func() {
		f.StringVar(&t.databaseURL, "database-url", "", "`URL` of the database, as postgres://USER:PASSWORD@HOST:PORT/DATABASE\n(default $DATABASE_URL, else the database of the 'nsready up' that runs on -data)")
		f.StringVar(&t.data, "data", ".nsready", "data `DIR` of the running 'nsready up'")
	})
	f.streams.target = t
}

func runPlan(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "plan [flags]", `
Compare the declaration with the registry and show what apply would change. Nothing is changed, and nothing is locked.
The exit code is 0 with and without changes, and 1 when there is no plan. With -detailed-exitcode it is
0 when there are no changes, 1 when there is no plan, and 2 when there are changes. With -fail-on and -max-destroy it is
2 when the plan does what they forbid; it is shown, and saved, all the same.
A plan that apply would refuse, because of protected objects or those of other declarations, is shown and says so; the exit
code is 2 then, too.
Below a change of retention, a device, a parameter or a threshold it says what that does to what is stored and to alerts.

Example:
  nsready plan -out estate.plan -fail-on destroy,data-loss -config estates/north`)
	var p planner
	p.register(f)
	out := f.String("out", "", "save the plan in a `FILE`, for 'nsready apply FILE'")
	detailed := f.Bool("detailed-exitcode", false, "exit with 2 when there are changes")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	p.start(s)
	if err := p.check(); err != nil {
		return err
	}
	if *out != "" {
		if err := checkOut(*out); err != nil {
			return err
		}
	}
	declared, err := p.load(ctx, s)
	if err != nil {
		return err
	}
	db, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	v, err := p.plan(ctx, s, db, declared)
	if err != nil {
		return err
	}
	refused := p.judge(v.Plan)
	overLimit := func(r veto) bool { return r.condition == "max-destroy" }
	tooMany := slices.ContainsFunc(refused, overLimit)
	unlimited := tooMany && p.maxDestroy.text == ""
	if unlimited { // what is usual binds apply alone
		refused = slices.DeleteFunc(refused, overLimit)
	}
	if v.Refusal() != nil {
		refused = append(refused, veto{"refused", "apply would refuse it as a whole, for what protects or owns its objects"})
	}
	v.FailedOn = failedOn(refused)
	if *out != "" {
		saved := &registry.SavedPlan{
			Plan: v.Plan, Tool: thisBuild().Version, MaxDestroy: p.maxDestroy.text, Author: author().String(),
			Commit: commitOf(p.config), Created: time.Now().UTC().Truncate(time.Second),
		}
		if err := savePlan(*out, saved); err != nil {
			return err
		}
		v.Saved = viewSaved(*out, saved)
	}
	switch {
	case s.lines != nil:
		if why := v.Refusal(); why != nil {
			s.lines.diagnostic(diagnostic{Severity: "error", Summary: why.Error()})
		}
		err = s.lines.plan(v, refused)
		if v.Saved != nil {
			s.lines.saved(v.Saved)
		}
	case p.json:
		err = writeJSON(s.stdout, v)
	default:
		err = printPlan(s.stdout, v, p.expand)
		if err == nil && unlimited {
			_, err = fmt.Fprintf(s.stdout, "\nNote: apply refuses to destroy so many objects, unless it is told -max-destroy=%d.\n", v.Summary.Destroy)
		}
		if err == nil && v.Saved != nil {
			err = printSaved(s.stdout, v, p.arguments(), tooMany)
		}
	}
	switch {
	case err != nil:
		return err
	case len(refused) > 0:
		return refuse(s, refused)
	case *detailed && !v.Empty():
		return exit(exitNo)
	}
	return nil
}

// printSaved says where a plan was saved, and what to do with it when apply takes it: for a shell, with the arguments that name
// the database, and, if need be, leave to destroy too many.
func printSaved(w io.Writer, v planView, database string, tooMany bool) error {
	hint := "."
	if v.Refusal() == nil && !automated() {
		leave := database
		if tooMany {
			leave += fmt.Sprintf("-max-destroy=%d ", v.Summary.Destroy)
		}
		hint = fmt.Sprintf(". To make exactly these changes, run:\n\n  nsready apply %s%s", leave, shellQuote(v.Saved.File))
	}
	_, err := fmt.Fprintf(w, "\nThe plan is saved in %s%s\n", clean(v.Saved.File), hint)
	return err
}

// problems returns what makes a plan none: the declaration says of the registry what is not so.
func problems(plan *registry.Plan) error {
	if len(plan.Problems) == 0 {
		return nil
	}
	return (&registry.Plan{Problems: plan.Problems}).Refusal()
}

// loadRegistry reads the registry, which is empty and not ready when the database has no tables.
func loadRegistry(ctx context.Context, db *store.Store) (current *registry.Snapshot, ready bool, err error) {
	current, err = db.LoadRegistry(ctx)
	if errors.Is(err, store.ErrNoSchema) {
		return registry.NewSnapshot(nil), false, nil
	}
	return current, true, err
}

// url is that of the flags or the environment, or "": then it is the database of a running 'nsready up'.
func (t *target) url() string { return cmp.Or(t.databaseURL, os.Getenv("DATABASE_URL")) }

// advise adds to an error about an old schema what brings it up to date.
func (t *target) advise(err error) error {
	if unreadable := (*store.UnreadableError)(nil); !errors.As(err, &unreadable) || !unreadable.Outdated {
		return err
	}
	if t.url() != "" {
		return fmt.Errorf("%w.\nStart its services again with this program, each as before:\n\n  nsready serve", err)
	}
	return fmt.Errorf("%w.\nStop the 'nsready up' that runs it, and start it again with this program:\n\n  nsready up -data %s", err, shellQuote(t.data))
}

// open connects to the database that the flags, the environment or a running 'nsready up' name.
func (t *target) open(ctx context.Context) (*store.Store, error) {
	url := t.url()
	if url == "" {
		running, err := readReady(t.data)
		if err != nil {
			return nil, fmt.Errorf("which database? %w.\nStart one with 'nsready up', or name one with -database-url URL or with the environment variable DATABASE_URL", err)
		}
		url = running.DatabaseURL
	}
	return store.Open(ctx, url)
}

// readReady reads what the 'nsready up' that runs on a data directory says of itself.
func readReady(data string) (r ready, err error) {
	name := filepath.Join(data, "ready.json")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("no 'nsready up' runs on %s: there is no %s", data, name)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil || r.DatabaseURL == "" || r.Pid <= 0 {
		return ready{}, fmt.Errorf("%s was not written by 'nsready up'", name)
	}
	if err := syscall.Kill(r.Pid, 0); errors.Is(err, syscall.ESRCH) {
		return ready{}, fmt.Errorf("no 'nsready up' runs on %s: its process %d has ended", data, r.Pid)
	}
	return r, nil
}
