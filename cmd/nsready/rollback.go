package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsready/nsready/engine/store"
)

func runRollback(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "rollback [flags] REV", `
Make the registry again what a version of it declared: show the plan, ask, and execute it in one transaction, as apply does.
Retired objects return with their ids and history, and renamed ones to their places; what the declaration has adopted since
is not managed any more, and stays. It makes a new version, and it needs
no declaration; but change that too, or the next apply undoes the rollback. 'nsready history' lists the versions.
The exit code is 2 when the plan does what -fail-on and -max-destroy forbid; then nothing is changed.

Example:
  nsready rollback -auto-approve 12`)
	p := planner{prune: true}
	p.registerDatabase(f)
	p.registerLimits(f)
	p.registerExecution(f, args)
	owner := f.String("declaration", "", "`NAME` of the declaration whose objects to roll back, where several manage the registry")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	p.start(s)
	if len(rest) == 0 {
		return errors.New("roll back to what? Name a version: nsready rollback REV")
	}
	version, ok := parseVersion(rest[0])
	if !ok {
		return fmt.Errorf("%q is no version: want a number such as 12; 'nsready history' lists them", rest[0])
	}
	if err := p.check(); err != nil {
		return err
	}
	db, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return p.locks.hold(ctx, s, &p.target, db, "rollback", func(ctx context.Context, lock *store.Lock) error {
		v, err := p.planRollback(ctx, s, db, version, *owner)
		if err != nil {
			return err
		}
		a := applyView{planView: v, Version: v.BaseVersion}
		if err := p.present(s, &a); err != nil {
			return err
		}
		if a.Empty() {
			return p.end(s, &a)
		}
		if err := p.ask.approve(ctx, s, a.Summary.question(), p.json); err != nil {
			return err
		}
		by := p.why.of("")
		by.Commit = "" // the declaration of that version may be of any
		if by.Message == "" {
			by.Message = fmt.Sprintf("rollback to version %d", version)
		}
		if err := p.execute(ctx, s, lock, &a, by); err != nil || p.json {
			return err
		}
		_, err = fmt.Fprintln(s.stdout, "Change the declaration too: the next apply of it as it is undoes this rollback.")
		return err
	})
}

// planRollback plans the way back to what a version of a declaration was.
func (p *planner) planRollback(ctx context.Context, s *streams, db *store.Store, version int64, owner string) (v planView, err error) {
	progress := s.progress("Reading the registry")
	defer progress.stop()
	live, err := db.LoadRegistry(ctx)
	if err != nil {
		return v, err
	}
	state, err := db.StateAt(ctx, version)
	if err != nil {
		return v, err
	}
	if owner, err = chooseOwner(owner, state, live); err != nil {
		return v, err
	}
	desired := state.Of(owner)
	desired.MoveBack(live)
	adopted, err := db.AdoptedSince(ctx, version, owner)
	if err != nil {
		return v, err
	}
	desired.ReleaseAdopted(live, adopted)
	return p.compare(ctx, db, live, desired, progress)
}
