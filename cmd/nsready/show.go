package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func runShow(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "show [flags] REV|FILE", `
Show a version of the registry, by its number: who applied it, when, and what it changed, or with -state all that it declared;
'nsready history' lists the versions. Or show a plan that 'nsready plan -out FILE' saved: who made it, when, and what it would
change; with -impact also what that does to the data in the database that it was made for. A file whose name is a number is ./12.

Example:
  nsready show -state 12
  nsready show -impact estate.plan`)
	var p planner
	p.registerDatabase(f)
	looks := f.Bool("impact", false, "look at what a saved plan does to stored data, the disk and alerts")
	p.look.registerHow(f)
	state := f.Bool("state", false, "show the whole state of a version, not its changes")
	asJSON := f.json("print JSON")
	expand := f.Bool("expand", false, "show every change, also when many are alike")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("show what? Name a version or a saved plan: nsready show REV, or nsready show FILE")
	}
	if version, ok := parseVersion(rest[0]); ok {
		return p.showVersion(ctx, s, version, *state, *expand, *asJSON)
	}
	p.look.on = *looks
	return p.showPlan(ctx, s, rest[0], *asJSON, *expand)
}

// showPlan prints a saved plan.
func (p *planner) showPlan(ctx context.Context, s *streams, name string, asJSON, expand bool) error {
	saved, err := readPlan(name)
	if err == nil {
		err = p.look.check()
	}
	if err != nil {
		return err
	}
	v := viewPlan(saved.Plan)
	v.Saved = viewSaved(name, saved)
	if p.look.on {
		db, err := p.open(ctx)
		if err != nil {
			return err
		}
		defer db.Close()
		if v, err = p.review(ctx, s, db, name, saved); err != nil {
			return stalePlan(name, err)
		}
	}
	if asJSON {
		return writeJSON(s.stdout, v)
	}
	commit := ""
	if isCommit(saved.Commit) {
		commit = ", at commit " + saved.Commit[:12]
	}
	_, err = fmt.Fprintf(s.stdout, "Saved plan of %s by %s%s, made with nsready %s.\n\n", saved.Created.Format(time.RFC3339), clean(saved.Author), commit, clean(saved.Tool))
	if err != nil {
		return err
	}
	return printPlan(s.stdout, v, expand)
}
