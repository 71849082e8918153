package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsready/nsready/engine/registry"
)

var errSavedPlanRequired = errors.New("the policy of the registry is require_saved_plan: a plan is saved and looked at before it is applied; nothing was changed")

var errPolicyRolledBack = errors.New("the version to go back to had no policy require_saved_plan, and a rollback does not take it back; nothing was changed. Take it out of the declaration first, with a saved plan")

// takesPolicyBack reports whether a plan ends that saved plans alone are applied.
func (v *planView) takesPolicyBack() bool {
	return slices.ContainsFunc(v.Changes, func(c registry.Change) bool {
		after, ok := c.After.(*registry.Policy)
		return c.Address == registry.PolicyAddress && (!ok || !after.RequireSavedPlan)
	})
}

// savedPlanRequired refuses an apply that has planned for itself, with the commands to use instead of it.
func savedPlanRequired(f *flags, args []string) error {
	database := []string{"database-url", "data"}
	own := []string{"lock-timeout", "lock-lease", "author", "message"} // of apply, and not of plan
	plan, apply := "nsready plan -out estate.plan", "nsready apply"
	for _, one := range f.given(args) {
		words := " " + one.quoted()
		switch {
		case one.name == "": // apply has none, but for a saved plan
		case slices.Contains(own, one.name):
			apply += words
		case one.name == "auto-approve" || one.name == "input" || one.name == "json" || one.name == "expand":
		case slices.Contains(database, one.name):
			plan, apply = plan+words, apply+words
		default:
			plan += words
		}
	}
	return fmt.Errorf("%w. Run:\n\n  %s\n  %s estate.plan", errSavedPlanRequired, plan, apply)
}

// givenFlag is a flag as it was given, with its value, or another argument, without a name.
type givenFlag struct {
	name  string
	words []string
}

// quoted writes it for a shell, without the database's password.
func (g givenFlag) quoted() string {
	if g.name == "database-url" {
		return `-database-url "$DATABASE_URL"`
	}
	var list []string
	for _, w := range g.words {
		list = append(list, shellQuote(w))
	}
	return strings.Join(list, " ")
}

// given returns arguments that were parsed.
func (f *flags) given(args []string) (list []givenFlag) {
	plain := false
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		known := f.Lookup(name)
		plain = plain || args[i] == "--"
		if plain || known == nil || !strings.HasPrefix(args[i], "-") {
			list = append(list, givenFlag{words: args[i : i+1]})
			continue
		}
		given := givenFlag{name, args[i : i+1]}
		if b, ok := known.Value.(interface{ IsBoolFlag() bool }); !inline && !(ok && b.IsBoolFlag()) && i+1 < len(args) {
			given.words = args[i : i+2]
			i++
		}
		list = append(list, given)
	}
	return list
}
