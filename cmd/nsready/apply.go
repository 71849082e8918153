package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
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
	p.registerExecution(f, args)
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	p.start(s)
	if err := p.check(); err != nil {
		return err
	}
	if len(rest) > 0 {
		return p.applySaved(ctx, s, f, rest[0])
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
	// The lock comes first: what is shown is what is applied.
	err = p.locks.hold(ctx, s, &p.target, db, "apply", func(ctx context.Context, lock *store.Lock) error {
		a, err := p.propose(ctx, s, f, db, declared)
		switch {
		case err != nil:
			return err
		case a.Empty() && !a.unsettled:
			return p.end(s, a)
		}
		return p.execute(ctx, s, lock, a, p.why.of(p.config))
	})
	if errors.Is(err, store.ErrNoSchema) {
		return p.applyFirst(ctx, s, f, db, declared)
	}
	return err
}

// applyFirst applies a declaration to a database without tables. There is nothing to lock; the tables are made once it is
// certain that this is the database, and the plan then gets the registry to start from.
func (p *planner) applyFirst(ctx context.Context, s *streams, f *flags, db *store.Store, declared *registry.Snapshot) error {
	a, err := p.propose(ctx, s, f, db, declared)
	if err != nil {
		return err
	}
	if a.Empty() {
		return p.end(s, a)
	}
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	return p.locks.hold(ctx, s, &p.target, db, "apply", func(ctx context.Context, lock *store.Lock) error {
		if a.planView, err = p.plan(ctx, s, db, declared); err != nil {
			return err
		}
		if a.BaseVersion > 0 {
			return &store.ErrStale{Version: a.BaseVersion, Revision: a.BaseRevision}
		}
		return p.execute(ctx, s, lock, a, p.why.of(p.config))
	})
}

// propose plans, shows the plan, and asks for leave to execute it, which one without changes does not need.
func (p *planner) propose(ctx context.Context, s *streams, f *flags, db *store.Store, declared *registry.Snapshot) (*applyView, error) {
	v, err := p.plan(ctx, s, db, declared)
	if err != nil {
		return nil, err
	}
	a := &applyView{planView: v, Version: v.BaseVersion}
	if err := p.present(s, a); err != nil || a.Empty() {
		return a, err
	}
	if a.savedOnly {
		return a, savedPlanRequired(f, p.ask.args)
	}
	return a, p.ask.approve(ctx, s, a.Summary.question(), p.json)
}

// applySaved executes a saved plan.
func (p *planner) applySaved(ctx context.Context, s *streams, f *flags, name string) error {
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
	execute := func(ctx context.Context, lock *store.Lock) error {
		v, err := p.review(ctx, s, db, name, saved)
		if err != nil {
			return err
		}
		a := applyView{planView: v, Version: saved.Plan.BaseVersion}
		if err := p.present(s, &a); err != nil {
			return err
		}
		by := p.why.of("")
		if isCommit(saved.Commit) { // CI may have gone on since
			by.Commit = saved.Commit
		}
		return p.execute(ctx, s, lock, &a, by)
	}
	err = p.locks.hold(ctx, s, &p.target, db, "apply", execute)
	if errors.Is(err, store.ErrNoSchema) {
		if saved.Plan.Registry != uuid.Nil {
			err = store.ErrOtherRegistry
		} else if err = db.Migrate(ctx); err == nil {
			err = p.locks.hold(ctx, s, &p.target, db, "apply", execute)
		}
	}
	return stalePlan(name, err)
}

// stalePlan says what to do when a saved plan is not of the registry as it is.
func stalePlan(name string, err error) error {
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

// review checks that the registry as it is leads to a saved plan, whose file is not sealed with a secret, and says what the plan does
// to data as it is now.
func (p *planner) review(ctx context.Context, s *streams, db *store.Store, name string, saved *registry.SavedPlan) (v planView, err error) {
	progress := s.progress("Reading the registry")
	defer progress.stop()
	plan := saved.Plan
	if plan.Registry != uuid.Nil {
		if err := db.CheckBase(ctx, plan); err != nil {
			return v, err
		}
	}
	current, err := db.LoadRegistry(ctx)
	if err == nil && plan.Registry == uuid.Nil {
		err = firstPlan(current, plan, name)
	}
	if err != nil {
		return v, err
	}
	if err := plan.Verify(current); err != nil {
		return v, fmt.Errorf("%s: %w.\nMake the plan again: nsready plan -out %s", name, err, shellQuote(name))
	}
	progress.now("Looking at the data")
	report, err := p.look.assess(ctx, &p.target, db, current, plan)
	if err != nil {
		return v, err
	}
	plan.DataLoss = plan.DataLoss || report != nil && report.DataLoss
	v = viewPlan(plan)
	v.Saved, v.Impact = viewSaved(name, saved), report
	return v, nil
}

// firstPlan readies a plan that was made for a database without tables: for this one, when there is nothing in it.
func firstPlan(current *registry.Snapshot, plan *registry.Plan, name string) error {
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

// present shows a plan that is about to be executed. The error says why it must not be.
func (p *planner) present(s *streams, a *applyView) error {
	refused := p.judge(a.Plan)
	a.FailedOn = failedOn(refused)
	var err error
	switch {
	case s.lines != nil:
		err = s.lines.plan(a.planView, refused)
	case !p.json:
		err = printPlan(s.stdout, a.planView, p.expand)
	case len(refused) > 0:
		err = writeJSON(s.stdout, a)
	}
	switch {
	case err != nil:
		return err
	case len(refused) > 0:
		return refuse(s, refused)
	}
	return a.Refusal()
}

// execute applies a plan and reports the outcome. One without changes may still have to record what was done by hand.
func (p *planner) execute(ctx context.Context, s *streams, lock *store.Lock, a *applyView, by store.Author) error {
	begun := time.Now()
	s.lines.applying("apply_start", "", len(a.Changes), begun, "Applying "+objects(len(a.Changes))+" in one transaction")
	told := context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == errInterrupted {
			fmt.Fprintln(s.stderr, "Interrupted: taking back what was begun, or ending it where it cannot be. Interrupt again to end at once; the registry's lock then ends by its lease.")
		}
	})
	defer told()
	version, err := applyPlan(ctx, s, lock, "Applying", a.Plan, by, func(kind registry.Kind, n int) {
		s.lines.applying("apply_progress", kind, n, begun, "Applying "+counted(kind, n))
	})
	if err != nil {
		s.lines.applying("apply_errored", "", 0, begun, err.Error())
		return err
	}
	s.lines.applying("apply_complete", "", len(a.Changes), begun, fmt.Sprintf("Registry version %d is made", version))
	a.Version, a.Applied = version, !a.Empty()
	if err := p.end(s, a); err != nil {
		return fmt.Errorf("the plan is applied, and the registry at version %d; saying so: %w", version, err)
	}
	if context.Cause(ctx) == errInterrupted {
		return exit(exitInterrupted)
	}
	return nil
}

// applyPlan executes a plan and returns the registry's version after it. doing is as "Applying", for who waits; step, if any, is
// called as store.WithProgress says.
func applyPlan(ctx context.Context, s *streams, lock *store.Lock, doing string, plan *registry.Plan, by store.Author, step func(registry.Kind, int)) (version int64, err error) {
	progress := s.progress("Waiting for other changes of the registry")
	defer progress.stop()
	return lock.Apply(store.WithProgress(ctx, func(kind registry.Kind, n int) {
		progress.now(doing + " " + counted(kind, n))
		if step != nil {
			step(kind, n)
		}
	}), plan, by)
}

// end reports the outcome.
func (p *planner) end(s *streams, a *applyView) (err error) {
	switch {
	case s.lines != nil:
		s.lines.applied(a)
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
