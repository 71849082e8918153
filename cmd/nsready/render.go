package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
)

// planView is a plan as commands show it, as JSON and, from the same values, as text.
type planView struct {
	FormatVersion string `json:"format_version"`
	*registry.Plan
	Summary summary        `json:"summary"`
	Impact  *impact.Report `json:"impact,omitempty"` // nil when no change concerns data
}

// summary counts the changes of a plan.
type summary struct {
	Import  int `json:"import"`
	Move    int `json:"move"`
	Add     int `json:"add"`
	Change  int `json:"change"`
	Destroy int `json:"destroy"`
	Release int `json:"release"`
}

// todo is what a plan is going to do, such as "1 to move, 3 to add, 0 to change, 0 to destroy".
func (s summary) todo() string {
	return s.list("%d to import", "%d to move", "%d to add", "%d to change", "%d to destroy", "%d to release")
}

// done is what an apply has done.
func (s summary) done() string {
	return s.list("%d imported", "%d moved", "%d added", "%d changed", "%d destroyed", "%d released")
}

// list leaves out what there is none of, but always has what is added, changed and destroyed.
func (s summary) list(forms ...string) string {
	var parts []string
	for i, n := range []int{s.Import, s.Move, s.Add, s.Change, s.Destroy, s.Release} {
		if n > 0 || i >= 2 && i <= 4 {
			parts = append(parts, fmt.Sprintf(forms[i], n))
		}
	}
	return strings.Join(parts, ", ")
}

func viewPlan(plan *registry.Plan) planView {
	v := planView{FormatVersion: formatVersion, Plan: plan}
	n := plan.Count()
	v.Summary = summary{Import: n.Imports, Move: n.Moves, Add: n.Creates, Change: n.Updates, Destroy: n.Deletes, Release: n.Releases}
	if plan.Changes == nil {
		listed := *plan
		listed.Changes = []registry.Change{} // a list in JSON, too
		v.Plan = &listed
	}
	return v
}

// printPlan writes a plan for people.
func printPlan(w io.Writer, v planView) error {
	paint := painter(w)
	var out bytes.Buffer
	switch {
	case v.Empty() && v.Refusal() != nil:
		fmt.Fprintln(&out, "No changes that could be made.")
	case v.Empty():
		fmt.Fprintln(&out, "No changes. The registry matches the declaration.")
	default:
		base := "Against an empty registry"
		if v.BaseVersion > 0 {
			base = fmt.Sprintf("Against registry version %d", v.BaseVersion)
		} else if v.BaseRevision > 1 {
			base = "Against a registry that was never applied to"
		}
		fmt.Fprintf(&out, "%s, nsready will:\n\n", base)
		for _, c := range v.Changes {
			printChange(&out, paint, c)
			printImpact(&out, v.Impact, &c)
		}
		fmt.Fprintf(&out, "\nPlan: %s.\n", v.Summary.todo())
		printImpacts(&out, v.Impact)
	}
	printOwnership(&out, paint, v.Plan)
	if n := len(v.Unmanaged); n > 0 {
		objects, are := "objects", "are"
		if n == 1 {
			objects, are = "object", "is"
		}
		fmt.Fprintf(&out, "\nNote: %d unmanaged %s in the registry, made outside nsready, %s left alone:\n", n, objects, are)
		for _, a := range v.Unmanaged[:min(n, maxListed)] {
			fmt.Fprintf(&out, "    %s\n", clean(a.String()))
		}
		if n > maxListed {
			fmt.Fprintf(&out, "    and %d more\n", n-maxListed)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// printOwnership says what keeps a plan from being applied, and whose objects it leaves alone.
func printOwnership(out *bytes.Buffer, paint func(color, string) string, plan *registry.Plan) {
	list := func(title string, n int, line func(i int) string) {
		if n == 0 {
			return
		}
		fmt.Fprintf(out, "\n%s:\n", title)
		for i := range min(n, maxListed) {
			fmt.Fprintf(out, "    %s\n", line(i))
		}
		if n > maxListed {
			fmt.Fprintf(out, "    and %d more\n", n-maxListed)
		}
	}
	refused := paint(red, "This plan cannot be applied")
	list(refused+": another declaration manages what this one declares", len(plan.Conflicts), func(i int) string {
		return fmt.Sprintf("%s (%s)", clean(plan.Conflicts[i].Address.String()), clean(plan.Conflicts[i].Owner))
	})
	list(refused+": it would destroy what is protected", len(plan.Protected), func(i int) string {
		return fmt.Sprintf("%s (%s)", clean(plan.Protected[i].Address.String()), clean(plan.Protected[i].Reason))
	})
	owners := slices.Sorted(maps.Keys(plan.Foreign))
	list("Note: objects of other declarations are left alone", len(owners), func(i int) string {
		return fmt.Sprintf("%s: %d", clean(owners[i]), plan.Foreign[owners[i]])
	})
}

// maxListed is how many unmanaged objects a plan names.
const maxListed = 20

func printChange(out *bytes.Buffer, paint func(color, string) string, c registry.Change) {
	colors := map[registry.Action]color{
		registry.Create: green, registry.Update: yellow, registry.Delete: red,
		registry.Move: yellow, registry.Import: green, registry.Release: red,
	}
	fmt.Fprintf(out, "  %s ", paint(colors[c.Action], string(rune(c.Action))))
	if c.From != nil {
		fmt.Fprintf(out, "%s -> ", clean(c.From.String()))
	}
	out.WriteString(clean(c.Address.String()))
	if c.Reason != "" {
		fmt.Fprintf(out, " (%s)", c.Reason)
	}
	out.WriteByte('\n')
	for _, f := range c.Fields {
		if c.Action != registry.Create {
			fmt.Fprintf(out, "      %s: %s -> %s\n", f.Name, showValue(f.Before), showValue(f.After))
		} else {
			fmt.Fprintf(out, "      %s: %s\n", f.Name, showValue(f.After))
		}
	}
}

// showValue quotes a value, except JSON objects, which escape by themselves what must be.
func showValue(v string) string {
	switch {
	case v == "":
		return "(none)"
	case strings.HasPrefix(v, "{") && json.Valid([]byte(v)):
		return clean(v)
	}
	return fmt.Sprintf("%q", v)
}
