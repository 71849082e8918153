package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// planner is what plan, apply and rollback share: the way to a plan, and what it must not do.
type planner struct {
	target
	only, not  addressList // -target, -exclude
	prune      bool
	failOn     conditions
	maxDestroy destroyLimit
	look       impactOptions
	expand     bool
	jsonForm

	// Of apply and rollback, which execute the plan.
	executes bool
	locks    locking
	why      occasion
	ask      approval
}

func (p *planner) register(f *flags) {
	p.target.register(f)
	f.group("What to plan", func() {
		f.Var(&p.only, "target", "`ADDRESS` of an object, such as site.acme/mill/north: plan it, everything below it, and what these need, and\nnothing else; may be given several times")
		f.Var(&p.not, "exclude", "`ADDRESS` of an object: leave it alone, with everything below it and what cannot be done without it; may be\ngiven several times")
		f.BoolVar(&p.prune, "prune", true, "retire what is not declared any more; -prune=false keeps it")
	})
	p.registerLimits(f)
}

// registerLimits registers what any plan has, wherever it comes from.
func (p *planner) registerLimits(f *flags) {
	f.group("What the plan must not do", func() {
		f.Var(&p.failOn, "fail-on", "`CONDITIONS`, separated by commas, on which to exit with 2 and change nothing: "+listed(conditionNames))
		f.Var(&p.maxDestroy, "max-destroy", maxDestroyUsage)
	})
	f.group("What the changes do to data", func() { p.look.register(f) })
	f.BoolVar(&p.expand, "expand", false, "show every change, also when many are alike")
	f.Var(&p.jsonForm, "json", "print one JSON document in the end; -json=stream prints lines of JSON, each when it happens")
	f.streams.json = &p.json
}

// registerExecution registers what a command has that executes its plan. args are those of the command.
func (p *planner) registerExecution(f *flags, args []string) {
	p.executes = true
	p.locks.register(f)
	p.why.register(f)
	p.ask.register(f, args)
}

// check refuses flags that make no sense, or none together.
func (p *planner) check() error {
	if slices.Contains(p.failOn, "data-loss") && !p.look.on {
		return errors.New("-fail-on=data-loss needs the look at the data that -impact=false leaves out")
	}
	return p.look.check()
}

// plan compares a declaration with the registry, and says what the changes do to data and what was changed by hand. What the
// declaration says of the registry and is not so is an error.
func (p *planner) plan(ctx context.Context, s *streams, db *store.Store, declared *registry.Snapshot) (v planView, err error) {
	progress := s.progress("Reading the registry")
	defer progress.stop()
	current, _, err := loadRegistry(ctx, db)
	if err != nil {
		return v, err
	}
	return p.compare(ctx, db, current, declared, progress)
}

// compare plans the way from the registry to a declaration.
func (p *planner) compare(ctx context.Context, db *store.Store, current, declared *registry.Snapshot, progress *progress) (v planView, err error) {
	plan := registry.Diff(current, declared)
	if err := problems(plan); err != nil {
		return v, err
	}
	gate := slices.Contains(p.failOn, "drift")
	drift, err := attribute(ctx, db, current, plan, gate || p.executes || !plan.Empty())
	unknown := (*store.ErrNotRecorded)(nil)
	switch {
	case errors.As(err, &unknown) && !gate: // the next apply is the first that is recorded
	case errors.As(err, &unknown):
		return v, fmt.Errorf("-fail-on=drift: %w", err)
	case err != nil:
		return v, err
	}
	plan.Drift = len(drift)
	if len(p.only) > 0 {
		if err := checkAddresses("-target", p.only, declared, current); err != nil {
			return v, err
		}
		plan = plan.Target(p.only)
	}
	if len(p.not) > 0 {
		if err := checkAddresses("-exclude", p.not, declared, current); err != nil {
			return v, err
		}
		plan = plan.Exclude(p.not)
	}
	if !p.prune {
		plan = plan.KeepAll()
	}
	progress.now("Looking at the data")
	report, err := p.look.assess(ctx, &p.target, db, current, plan)
	if err != nil {
		return v, err
	}
	plan.DataLoss = report != nil && report.DataLoss
	v = viewPlan(plan)
	v.Impact, v.ByHand = report, drift
	v.savedOnly = current.RequiresSavedPlan() || declared.RequiresSavedPlan()
	v.unsettled = !plan.Partial() && current.Version > 0 && (current.AppliedRevision != current.Revision || len(drift) > 0)
	return v, nil
}

// checkAddresses refuses addresses that none of the snapshots has.
func checkAddresses(flag string, list []registry.Address, in ...*registry.Snapshot) error {
	known := map[registry.Address]bool{}
	for _, snapshot := range in {
		for o := range snapshot.Objects {
			known[o.Address()] = true
		}
	}
	var problems []error
	for _, a := range list {
		if known[a] {
			continue
		}
		text := fmt.Sprintf("%s: there is no %s", flag, a)
		names := func(yield func(string) bool) {
			for k := range known {
				if !yield(k.String()) {
					return
				}
			}
		}
		if best := nearest(a.String(), names); best != "" {
			text += fmt.Sprintf(". Did you mean %q?", best)
		}
		problems = append(problems, errors.New(text))
	}
	return errors.Join(problems...)
}

// nearest returns the one of names that text was probably meant to be, or "": what is further away than two edits was not meant.
func nearest(text string, names iter.Seq[string]) (best string) {
	least := 3
	for name := range names {
		if d := len(name) - len(text); d > 2 || d < -2 {
			continue
		}
		if d := levenshtein.Distance(strings.ToLower(text), strings.ToLower(name), nil); d < least || d == least && best != "" && name < best {
			least, best = d, name
		}
	}
	return best
}

// addressList is the value of a flag that may be given several times.
type addressList []registry.Address

func (l *addressList) String() string { return "" }

func (l *addressList) Set(text string) error {
	a, err := registry.ParseAddress(text)
	if err == nil && !slices.Contains(*l, a) {
		*l = append(*l, a)
	}
	return err
}

// conditionNames are what -fail-on takes.
var conditionNames = []string{"destroy", "drift", "data-loss"}

// conditions is the value of -fail-on.
type conditions []string

func (c *conditions) String() string { return strings.Join(*c, ",") }

func (c *conditions) Set(text string) error {
	for _, name := range strings.Split(text, ",") {
		if name == "hand-edit" {
			name = "drift"
		}
		if !slices.Contains(conditionNames, name) {
			hint := ""
			if best := nearest(name, slices.Values(conditionNames)); best != "" {
				hint = fmt.Sprintf(". Did you mean %q?", best)
			}
			return fmt.Errorf("there is no condition %q, only %s%s", name, listed(conditionNames), hint)
		}
		if !slices.Contains(*c, name) {
			*c = append(*c, name)
		}
	}
	return nil
}

const maxDestroyUsage = "the most objects to destroy: a `NUMBER`, or a percentage of the managed ones, such as 20%\n(default 10, or 5% where that is more)"

// destroyLimit is the value of -max-destroy.
type destroyLimit struct {
	text    string // "" when it was not given
	n       int
	percent bool
}

func (l *destroyLimit) String() string { return l.text }

func (l *destroyLimit) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || percent && n > 100 {
		return errors.New("want a number of objects, such as 25, or a percentage up to 100%")
	}
	*l = destroyLimit{text, int(n), percent}
	return nil
}

// of returns how many of so many managed objects may be destroyed. A small estate is free to change whole.
func (l *destroyLimit) of(managed int) int {
	switch {
	case l.text == "":
		return max(10, managed*5/100)
	case l.percent:
		return managed * l.n / 100
	}
	return l.n
}

// veto is why a plan is not to be applied.
type veto struct {
	condition string // a word of conditionNames, or max-destroy
	why       string
}

// judge returns what forbids a plan.
func (p *planner) judge(plan *registry.Plan) (list []veto) {
	destroys := plan.Count().Deletes
	for _, name := range conditionNames {
		why := ""
		switch {
		case !slices.Contains(p.failOn, name):
		case name == "destroy" && destroys > 0:
			why = "it destroys " + objects(destroys)
		case name == "drift" && plan.Drift > 0:
			why = objects(plan.Drift) + " changed outside nsready, as 'nsready drift' lists"
		case name == "data-loss" && plan.DataLoss:
			why = "it loses stored telemetry"
		}
		if why != "" {
			list = append(list, veto{name, why + ", which -fail-on=" + name + " forbids"})
		}
	}
	if most := p.maxDestroy.of(plan.Managed); destroys > most {
		limit := fmt.Sprintf("-max-destroy=%s allows %s", p.maxDestroy.text, grouped(most))
		if p.maxDestroy.text == "" {
			limit = fmt.Sprintf("%s are allowed (10, or 5%% where that is more)", grouped(most))
		}
		list = append(list, veto{"max-destroy", fmt.Sprintf("it destroys %s of %s that are managed, and %s; to allow them: -max-destroy=%d",
			objects(destroys), grouped(plan.Managed), limit, destroys)})
	}
	return list
}

// refuse says why a plan is not applied, or should not be, unless its output has said so, and returns the command's exit.
func refuse(s *streams, list []veto) error {
	if s.lines != nil {
		return exit(exitNo)
	}
	for _, r := range list {
		if _, err := fmt.Fprintf(s.stderr, "Error: the plan is refused: %s\n", clean(r.why)); err != nil {
			return err
		}
	}
	return exit(exitNo)
}

// failedOn returns the conditions of vetoes.
func failedOn(list []veto) (names []string) {
	for _, r := range list {
		names = append(names, r.condition)
	}
	return names
}

// objects counts objects in words.
func objects(n int) string {
	if n == 1 {
		return "1 object"
	}
	return grouped(n) + " objects"
}

// listed joins words as "a, b and c".
func listed(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// automated reports whether no person is likely to read along: hints on what to type next are left out then.
func automated() bool {
	return os.Getenv("NSREADY_IN_AUTOMATION") != "" || isOn(os.Getenv("CI"))
}

// isOn reads a variable that is a switch: anything but nothing, 0 and false is on.
func isOn(value string) bool {
	on, err := strconv.ParseBool(value)
	return value != "" && (on || err != nil)
}
