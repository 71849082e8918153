package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func runShow(_ context.Context, s *streams, args []string) error {
	f := newFlags(s, "show [flags] FILE", `
Show a plan that 'nsready plan -out FILE' saved: who made it, when, and what it would change.

Example:
  nsready show -expand estate.plan`)
	asJSON := f.Bool("json", false, "print JSON")
	expand := f.Bool("expand", false, "show every change, also when many are alike")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("show what? Name a saved plan: nsready show FILE")
	}
	err = showPlan(s, rest[0], *asJSON, *expand)
	if *asJSON {
		return reportJSON(s.stdout, err)
	}
	return err
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
	_, err = fmt.Fprintf(s.stdout, "Saved plan of %s by %s, made with nsready %s.\n\n", saved.Created.Format(time.RFC3339), clean(saved.Author), clean(saved.Tool))
	if err != nil {
		return err
	}
	return printPlan(s.stdout, v, expand)
}
