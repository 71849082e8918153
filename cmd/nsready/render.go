package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
)

// planView is a plan as commands show it, as JSON and, from the same values, as text.
type planView struct {
	FormatVersion string `json:"format_version"`
	*registry.Plan
	Summary  summary        `json:"summary"`
	Impact   *impact.Report `json:"impact,omitempty"`    // nil when no change concerns data
	FailedOn []string       `json:"failed_on,omitempty"` // the conditions that forbid it
	Saved    *savedView     `json:"saved_plan,omitempty"`
	ByHand   []driftEntry   `json:"changed_by_hand,omitempty"` // since the last apply

	savedOnly bool // apply takes it from a file alone
	unsettled bool // an apply may have something to record though the plan is empty
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

// changedByHand returns the drift without new objects that nobody manages: the plan lists them, or takes them over.
func (v planView) changedByHand() (list []driftEntry) {
	for _, d := range v.ByHand {
		if d.Kind != registry.CreatedByHand || registry.OwnerOf(d.Object) != "" {
			list = append(list, d)
		}
	}
	return list
}

// printPlan writes a plan for people. Without expand it shows changes that are alike together.
func printPlan(w io.Writer, v planView, expand bool) error {
	paint := painter(w)
	var out bytes.Buffer
	if drift := v.changedByHand(); len(drift) > 0 {
		printDriftEntries(&out, paint, drift, maxDrift)
		out.WriteByte('\n')
	}
	switch {
	case v.Empty() && v.Refusal() != nil:
		fmt.Fprintln(&out, "No changes that could be made.")
	case v.Empty() && (v.Excluded != nil || v.Kept != nil):
		fmt.Fprintln(&out, "No changes, but for what -exclude or -prune=false leaves alone.")
	case v.Empty() && v.Targets != nil:
		fmt.Fprintln(&out, "No changes. What -target names is in the registry as it is declared.")
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
		printChanges(&out, paint, v, expand)
		fmt.Fprintf(&out, "\nPlan: %s.\n", v.Summary.todo())
		if printImpacts(&out, v.Impact); v.Impact == nil && v.DataLoss {
			fmt.Fprintln(&out, "Data: stored telemetry is lost; -impact says how much.")
		}
	}
	printOwnership(&out, paint, v.Plan)
	printLeftOut(&out, v.Plan)
	for _, text := range warnings(v.Plan) {
		fmt.Fprintf(&out, "\n%s: %s\n", paint(yellow, "Warning"), text)
	}
	_, err := w.Write(legible(out.Bytes()))
	return err
}

// warnings of a plan that is not all there is to do.
func warnings(plan *registry.Plan) (list []string) {
	var flags []string
	if plan.Targets != nil {
		flags = append(flags, "-target")
	}
	if plan.Excluded != nil {
		flags = append(flags, "-exclude")
	}
	if n := len(flags); n > 0 {
		is := map[int]string{1: "is", 2: "are"}[n]
		list = append(list, strings.Join(flags, " and ")+" "+is+" in effect, and the plan is partial: the rest of the declaration is not looked at, and may still differ\n"+
			"from the registry. It is meant for exceptions; plan without it afterwards.")
	}
	return list
}

// printLeftOut names the objects that a plan leaves alone.
func printLeftOut(out *bytes.Buffer, plan *registry.Plan) {
	list := func(adjective, why string, addresses []registry.Address) {
		n := len(addresses)
		if n == 0 {
			return
		}
		are := "are"
		if n == 1 {
			are = "is"
		}
		fmt.Fprintf(out, "\nNote: %s%s:\n", strings.Replace(objects(n), " ", " "+adjective, 1), fmt.Sprintf(why, are))
		printAddresses(out, addresses)
	}
	list("unmanaged ", " in the registry, made outside nsready, %s left alone", plan.Unmanaged)
	list("", " not declared any more %s kept, for -prune=false", plan.Kept)
	list("", " %s left out, too, because of what is excluded or kept", plan.LeftOut)
}

// printAddresses lists the first addresses of many.
func printAddresses(out *bytes.Buffer, list []registry.Address) {
	for _, a := range list[:min(len(list), maxListed)] {
		fmt.Fprintf(out, "    %s\n", clean(a.String()))
	}
	printMore(out, len(list)-maxListed)
}

// printMore says how many of a list are not shown, if any.
func printMore(out *bytes.Buffer, n int) {
	if n > 0 {
		fmt.Fprintf(out, "    and %s more; -json lists all\n", grouped(n))
	}
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
		printMore(out, n-maxListed)
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

// maxListed is how many objects are named that are alike: unmanaged ones, those that change in the same way, and of those
// that are destroyed, purged or released all of a kind.
const maxListed = 20

// likeness is what changes have in common that are shown together.
type likeness struct {
	action               registry.Action
	kind                 registry.Kind
	parent, from, remark string // from is the parent of where a moved object was
	fields               string // their names
}

func likenessOf(c *registry.Change) likeness {
	l := likeness{action: c.Action, kind: c.Address.Kind}
	if goes(c) {
		return l
	}
	l.parent, l.remark = c.Address.ParentPath(), remark(c)
	if c.From != nil {
		l.from = c.From.ParentPath()
	}
	for _, f := range c.Fields {
		l.fields += f.Name + "\x00"
	}
	return l
}

// goes reports whether a change takes an object away, or out of nsready's hands.
func goes(c *registry.Change) bool {
	return c.Action == registry.Delete || c.Action == registry.Purge || c.Action == registry.Release
}

// printChanges writes changes in their order, many that are alike where the first of them is. What is destroyed, purged
// or released is named, up to maxListed of each kind. Below each is what it does to data.
func printChanges(out *bytes.Buffer, paint func(color, string) string, v planView, expand bool) {
	changes := v.Changes
	alike := map[likeness][]*registry.Change{}
	if !expand {
		for i := range changes {
			l := likenessOf(&changes[i])
			alike[l] = append(alike[l], &changes[i])
		}
	}
	shown := map[likeness]int{}
	hidden := false
	for i := range changes {
		c := &changes[i]
		l := likenessOf(c)
		group := alike[l]
		shown[l]++
		more := len(group) - maxListed
		switch {
		case more <= 0:
			printChange(out, paint, c)
			printImpact(out, v.Impact, c)
		case goes(c):
			if shown[l] <= maxListed {
				printChange(out, paint, c)
				printImpact(out, v.Impact, c)
			} else if shown[l] == len(group) {
				number, noun, _ := strings.Cut(counted(c.Address.Kind, more), " ")
				fmt.Fprintf(out, "  %s and %s more %s\n", paint(colors[c.Action], string(rune(c.Action))), number, noun)
				hidden = true
			}
		case shown[l] == 1:
			printAlike(out, paint, group)
			hidden = true
		}
	}
	if hidden && !automated() {
		fmt.Fprint(out, "\nChanges that are alike are shown together; -expand shows each.\n")
	}
}

// colors of the actions' symbols.
var colors = map[registry.Action]color{
	registry.Create: green, registry.Update: yellow, registry.Delete: red, registry.Purge: red,
	registry.Move: yellow, registry.Import: green, registry.Release: red,
}

// printAlike writes changes that have the same likeness as one, with the values of the first. What follows … differs among them.
func printAlike(out *bytes.Buffer, paint func(color, string) string, group []*registry.Change) {
	first := group[0]
	fmt.Fprintf(out, "  %s %s like %s …", paint(colors[first.Action], string(rune(first.Action))), counted(first.Address.Kind, len(group)), place(first))
	fmt.Fprintf(out, "%s\n", remark(first))
	for i, f := range first.Fields {
		rest := ""
		for _, c := range group {
			if c.Fields[i] != f {
				rest = " …"
				break
			}
		}
		printField(out, first.Action, f, rest)
	}
}

func printChange(out *bytes.Buffer, paint func(color, string) string, c *registry.Change) {
	fmt.Fprintf(out, "  %s %s", paint(colors[c.Action], string(rune(c.Action))), place(c))
	fmt.Fprintf(out, "%s\n", remark(c))
	for _, f := range c.Fields {
		printField(out, c.Action, f, "")
	}
}

// remark is what there is to say of a change beside what it does.
func remark(c *registry.Change) string {
	switch {
	case c.Reason != "":
		return " (" + clean(c.Reason) + ")"
	case c.Cause == registry.ByHand:
		return " (undoes a change by hand)"
	case c.Cause == registry.ByBoth:
		return " (undoes a change by hand, too)"
	}
	return ""
}

// place is where an object is, or where it goes.
func place(c *registry.Change) string {
	if c.From != nil {
		return clean(c.From.String()) + " -> " + clean(c.Address.String())
	}
	return clean(c.Address.String())
}

func printField(out *bytes.Buffer, action registry.Action, f registry.FieldChange, rest string) {
	value := showValue(f.After)
	if action != registry.Create {
		value = showValue(f.Before) + " -> " + value
	}
	fmt.Fprintf(out, "      %s: %s%s\n", clean(f.Name), value, rest)
}

// counted counts objects of a kind in words.
func counted(kind registry.Kind, n int) string {
	if n == 1 {
		return "1 " + strings.TrimSuffix(nouns(kind), "s")
	}
	return grouped(n) + " " + nouns(kind)
}

// nouns is the plural of a kind.
func nouns(kind registry.Kind) string {
	switch kind {
	case registry.KindPlatform:
		return "platform thresholds"
	case registry.KindLimits:
		return "limits"
	case registry.KindPolicy:
		return "policy settings"
	case registry.KindDiscovery:
		return "discovery"
	}
	return string(kind) + "s"
}

// grouped writes a count with commas between thousands.
func grouped[N int | int64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
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
