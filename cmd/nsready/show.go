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
change. A file whose name is a number is ./12.

Example:
  nsready show -state 12
  nsready show -expand estate.plan`)
	var t target
	t.registerDatabase(f)
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
		return t.showVersion(ctx, s, version, *state, *expand, *asJSON)
	}
	return showPlan(s, rest[0], *asJSON, *expand)
}

// showPlan prints a saved plan.
func showPlan(s *streams, name string, asJSON, expand bool) error {
	saved, err := readPlan(name)
	if err != nil {
		return err
	}
	v := viewPlan(saved.Plan)
	v.Saved = viewSaved(name, saved)
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
