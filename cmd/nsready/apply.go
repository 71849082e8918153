package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// applyView is what apply -json prints.
type applyView struct {
	planView
	Applied bool  `json:"applied"` // false when there was nothing to do
	Version int64 `json:"version"` // of the registry, now
}

func runApply(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "apply [flags] [FILE]", `
Make the registry match the declaration: show the plan, ask, and execute it in one transaction. The registry is locked
meanwhile for others who would write it, and the plan is refused when it has changed all the same. What is no longer declared
is retired: its history stays.
Without a terminal, and with -json or -input=false, nobody is asked, and -auto-approve is required.
A FILE that 'nsready plan -out FILE' saved is executed as it is, without a question. -fail-on and -max-destroy
hold for it too; the latter is that of the plan, unless it is given here. Where the registry's policy is require_saved_plan,
nothing else is executed.
The exit code is 2 when the plan does what they forbid; then nothing is changed.

Example:
  nsready apply -auto-approve -config estates/north`)
	var p planner
	p.register(f)
	p.locks.register(f)
	p.why.register(f)
	var ask approval
	ask.register(f)
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	p.start(s)
	err = func() (err error) {
		if err := p.check(); err != nil {
			return err
		}
		if len(rest) > 0 {
			return p.applySaved(ctx, s, f, rest[0])
		}
		declared, err := p.load(s)
		if err != nil {
			return err
		}
		db, err := p.open(ctx)
		if err != nil {
			return err
		}
		defer db.Close()
		// The lock comes first: what is shown is what is applied. Without tables there is nothing to lock.
		working, lock, err := p.locks.take(ctx, s, &p.target, db, "apply")
		ready := !errors.Is(err, store.ErrNoSchema)
		if ready {
			if err != nil {
				return err
			}
			defer func() { err = lock.end(ctx, err) }()
			ctx = working
		}
		v, err := p.plan(ctx, s, db, declared)
		if err != nil {
			return err
		}
		a := applyView{planView: v, Version: v.BaseVersion}
		by := p.why.of(p.config)
		if done, err := p.begin(s, &a); done || err != nil {
			return err
		}
		if v.Empty() {
			if !v.unsettled {
				return p.end(s, &a)
			}
			return p.execute(ctx, s, lock, &a, by) // what was done by hand, and is declared, is recorded
		}
		if v.savedOnly {
			return savedPlanRequired(f, args)
		}
		if err := ask.approve(ctx, s, "apply", args, a.Summary.question(), p.json); err != nil {
			return err
		}
		if !ready {
			// The tables are made once it is certain that this is the database, and the plan gets the registry to start from.
			if err := db.Migrate(ctx); err != nil {
				return err
			}
			if working, lock, err = p.locks.take(ctx, s, &p.target, db, "apply"); err != nil {
				return err
			}
			defer func() { err = lock.end(ctx, err) }()
			ctx = working
			if a.planView, err = p.plan(ctx, s, db, declared); err != nil {
				return err
			}
			if a.BaseVersion > 0 {
				return &store.ErrStale{Version: a.BaseVersion, Revision: a.BaseRevision}
			}
		}
		return p.execute(ctx, s, lock, &a, by)
	}()
	return p.report(s, err)
}

// applySaved executes a saved plan.
func (p *planner) applySaved(ctx context.Context, s *streams, f *flags, name string) (err error) {
	var problem error
	f.Visit(func(set *flag.Flag) {
		if slices.Contains([]string{"config", "target", "exclude", "prune", "var", "var-file"}, set.Name) {
			problem = fmt.Errorf("a saved plan is executed as it is: -%s cannot go with it", set.Name)
		}
	})
	if problem != nil {
		return problem
	}
	saved, err := readPlan(name)
	if err == nil && saved.MaxDestroy != "" && p.maxDestroy.text == "" {
		err = p.maxDestroy.Set(saved.MaxDestroy)
	}
	if err != nil {
		return err
	}
	db, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	a := applyView{planView: viewPlan(saved.Plan), Version: saved.Plan.BaseVersion}
	a.Saved = viewSaved(name, saved)
	if done, err := p.begin(s, &a); done || err != nil {
		return err
	}
	working, lock, err := p.locks.take(ctx, s, &p.target, db, "apply")
	if errors.Is(err, store.ErrNoSchema) && saved.Plan.Registry == uuid.Nil {
		if err = db.Migrate(ctx); err == nil {
			working, lock, err = p.locks.take(ctx, s, &p.target, db, "apply")
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = lock.end(ctx, err) }()
	ctx = working
	if saved.Plan.Registry == uuid.Nil {
		if err := firstPlan(ctx, db, saved.Plan, name); err != nil {
			return err
		}
	}
	err = p.execute(ctx, s, lock, &a, p.why.of("")) // of which commit the plan was made is not known here
	var stale *store.ErrStale
	switch {
	case errors.As(err, &stale):
		return fmt.Errorf("Saved plan is stale: it was made from registry version %d (revision %d), and the registry is now at version %d (revision %d); nothing was changed.\nMake the plan again: nsready plan -out %s",
			stale.BaseVersion, stale.BaseRevision, stale.Version, stale.Revision, shellQuote(name))
	case errors.Is(err, store.ErrOtherRegistry):
		return fmt.Errorf("%s: %w. Is it the right database? -database-url, DATABASE_URL and -data say which", name, err)
	}
	return err
}

// firstPlan readies a plan that was made for a database without tables: for this one, when there is nothing in it.
func firstPlan(ctx context.Context, db *store.Store, plan *registry.Plan, name string) error {
	current, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	empty := current.Version == 0
	for range current.Objects {
		empty = false
	}
	if !empty {
		return fmt.Errorf("Saved plan is stale: it was made for an empty registry, and this one is at version %d (revision %d); nothing was changed.\nMake the plan again: nsready plan -out %s",
			current.Version, current.Revision, shellQuote(name))
	}
	plan.Registry, plan.BaseVersion, plan.BaseRevision = current.Registry, current.Version, current.Revision
	return nil
}

// begin shows a plan that is about to be executed. done tells that it must not be, which has been said.
func (p *planner) begin(s *streams, a *applyView) (done bool, err error) {
	refused := p.judge(a.Plan)
	a.FailedOn = failedOn(refused)
	switch {
	case p.lines != nil:
		err = p.lines.plan(a.planView, refused)
	case !p.json:
		err = printPlan(s.stdout, a.planView, p.expand)
	case len(refused) > 0:
		err = writeJSON(s.stdout, a)
	}
	switch {
	case err != nil:
		return false, err
	case len(refused) > 0:
		return true, p.refuse(s, refused)
	}
	return false, a.Refusal()
}

// execute applies a plan and reports the outcome.
func (p *planner) execute(ctx context.Context, s *streams, lock *held, a *applyView, by store.Author) error {
	progress, begun := s.progress("Waiting for other changes of the registry"), time.Now()
	p.lines.applying("apply_start", "", len(a.Changes), begun, "Applying "+objects(len(a.Changes))+" in one transaction")
	told := context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == errInterrupted {
			fmt.Fprintln(s.stderr, "Interrupted: taking back what was begun, or ending it where it cannot be. Interrupt again to end at once; the registry's lock then ends by its lease.")
		}
	})
	defer told()
	version, err := lock.Apply(store.WithProgress(ctx, func(kind registry.Kind, n int) {
		progress.now("Applying " + counted(kind, n))
		p.lines.applying("apply_progress", kind, n, begun, "Applying "+counted(kind, n))
	}), a.Plan, by)
	progress.stop()
	if err != nil {
		p.lines.applying("apply_errored", "", 0, begun, err.Error())
		return err
	}
	p.lines.applying("apply_complete", "", len(a.Changes), begun, fmt.Sprintf("Registry version %d is made", version))
	a.Version, a.Applied = version, !a.Empty()
	if err := p.end(s, a); err != nil || context.Cause(ctx) != errInterrupted {
		return err
	}
	return exit(exitInterrupted)
}

// end reports the outcome.
func (p *planner) end(s *streams, a *applyView) (err error) {
	switch {
	case p.lines != nil:
		p.lines.applied(a)
	case p.json:
		err = writeJSON(s.stdout, a)
	case a.Applied:
		_, err = fmt.Fprintf(s.stdout, "\nApply complete! Resources: %s.\nRegistry version %d.\n", a.Summary.done(), a.Version)
	case a.Version != a.BaseVersion:
		_, err = fmt.Fprintf(s.stdout, "\nRegistry version %d records the registry as it is.\n", a.Version)
	}
	return err
}

// question is what to ask before a plan is executed.
func (sum summary) question() string {
	question := "\nDo you want nsready to do this?"
	if sum.Destroy > 0 {
		question += fmt.Sprintf(" It destroys %s; history stays.", objects(sum.Destroy))
	}
	return question
}

// approval is how a command gets leave to change something.
type approval struct{ given, input bool }

func (a *approval) register(f *flags) {
	f.BoolVar(&a.given, "auto-approve", false, "do not ask")
	f.BoolVar(&a.input, "input", isOn(cmp.Or(os.Getenv("NSREADY_INPUT"), "true")), "ask on the terminal; -input=false, like NSREADY_INPUT=0, never does")
}

// approve asks on the terminal whether to go on, unless it was said already. args are those of the command.
func (a *approval) approve(ctx context.Context, s *streams, command string, args []string, question string, asJSON bool) error {
	why := ""
	switch {
	case a.given:
		return nil
	case asJSON:
		why = "-json does not ask"
	case !a.input:
		why = "-input=false does not ask"
	case !isTerminal(s.stdin):
		why = "there is no terminal to ask on"
	default:
		return confirm(ctx, s, question)
	}
	return fmt.Errorf("the changes were not approved, and %s. To apply them, run:\n\n  nsready %s %s", why, command, approvedArgs(args))
}

// confirm asks a question on the terminal. Anything but yes is an error.
func confirm(ctx context.Context, s *streams, question string) error {
	if _, err := fmt.Fprint(s.stdout, question+"\nOnly 'yes' is taken for a yes.\n\n  Enter a value: "); err != nil {
		return err
	}
	type line struct {
		text string
		err  error
	}
	answer := make(chan line, 1)
	go func() { // ends with the process, if nobody answers
		text, err := bufio.NewReader(s.stdin).ReadString('\n')
		answer <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.stdout)
		return ctx.Err()
	case a := <-answer:
		if a.err != nil && a.err != io.EOF {
			return fmt.Errorf("reading the answer: %w", a.err)
		}
		if strings.TrimRight(a.text, "\r\n") != "yes" {
			return fmt.Errorf("not approved, nothing was changed")
		}
	}
	return nil
}

// approvedArgs are the arguments that would have needed no question, for a shell, without the database's password.
func approvedArgs(args []string) string {
	list := []string{"-auto-approve"}
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if name != "database-url" {
			list = append(list, shellQuote(args[i]))
			continue
		}
		list = append(list, `-database-url "$DATABASE_URL"`)
		if !inline {
			i++
		}
	}
	return strings.Join(list, " ")
}

func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./,:@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
