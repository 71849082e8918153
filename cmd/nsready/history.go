package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// historyView is what history -json prints.
type historyView struct {
	FormatVersion string          `json:"format_version"`
	Versions      []store.Version `json:"versions"` // the newest first
}

func runHistory(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "history [flags]", `
List the versions of the registry, the newest first: when and by whom each was applied, from which commit, what for, and how
many objects it added, changed and destroyed, and, where there are such, imported, moved and released.

Example:
  nsready history -limit 5`)
	var t target
	t.registerDatabase(f)
	asJSON := f.json("print JSON")
	limit := f.Int("limit", 20, "the most versions to list: a `NUMBER`")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if *limit < 1 {
		return fmt.Errorf("-limit: want a number from 1 on, not %d", *limit)
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	v := historyView{FormatVersion: formatVersion, Versions: []store.Version{}}
	list, err := db.Versions(ctx, *limit)
	if err != nil {
		return err
	}
	v.Versions = append(v.Versions, list...)
	if *asJSON {
		return writeJSON(s.stdout, v)
	}
	return printHistory(s.stdout, v.Versions)
}

func printHistory(w io.Writer, versions []store.Version) error {
	if len(versions) == 0 {
		_, err := fmt.Fprintln(w, "Nothing was applied yet.")
		return err
	}
	titles := []string{"imported", "moved", "added", "changed", "destroyed", "released"}
	shown := []bool{false, false, true, true, true, false} // of the others those that a version has some of
	counts := func(v *store.Version) []int {
		return []int{v.Imported, v.Moved, v.Created, v.Updated, v.Destroyed, v.Released}
	}
	for i := range versions {
		for j, n := range counts(&versions[i]) {
			shown[j] = shown[j] || n > 0
		}
	}
	lines := [][]string{{"version", "applied", "by", "commit"}}
	for j, title := range titles {
		if shown[j] {
			lines[0] = append(lines[0], title)
		}
	}
	lines[0] = append(lines[0], "message")
	for i := range versions {
		v := &versions[i]
		line := []string{strconv.FormatInt(v.Version, 10), v.At.Format("2006-01-02 15:04:05Z"), clean(v.Author), "-"}
		if v.Commit != "" {
			line[3] = clean(v.Commit[:min(len(v.Commit), 12)])
		}
		for j, n := range counts(v) {
			switch {
			case shown[j] && v.Recorded:
				line = append(line, strconv.Itoa(n))
			case shown[j]:
				line = append(line, "?")
			}
		}
		lines = append(lines, append(line, clean(v.Message)))
	}
	wide := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	var out bytes.Buffer
	for _, line := range lines {
		var row strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i == 0 || i >= 4 && i < len(line)-1 { // numbers
				cell = pad + cell
			} else {
				cell += pad
			}
			if i > 0 {
				row.WriteString("  ")
			}
			row.WriteString(cell)
		}
		fmt.Fprintln(&out, strings.TrimRight(row.String(), " "))
	}
	_, err := w.Write(out.Bytes())
	return err
}

// parseVersion reads the number of a version.
func parseVersion(text string) (version int64, ok bool) {
	version, err := strconv.ParseInt(text, 10, 32)
	return version, err == nil && version > 0
}

// versionView is what show -json prints of a version: its changes, or its state.
type versionView struct {
	FormatVersion string `json:"format_version"`
	store.Version
	Changes []registry.Change `json:"changes,omitzero"`
	Objects []objectView      `json:"objects,omitzero"`
}

// objectView is an object of a state.
type objectView struct {
	Address   registry.Address  `json:"address"`
	ManagedBy string            `json:"managed_by"`
	Fields    map[string]string `json:"fields"` // in canonical text; those that are not set are left out
}

// showVersion prints what a version changed, or its whole state.
func (t *target) showVersion(ctx context.Context, s *streams, version int64, whole, expand, asJSON bool) error {
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	v := versionView{FormatVersion: formatVersion}
	var changes []registry.Change
	if v.Version, changes, err = db.Changes(ctx, version); err != nil {
		return err
	}
	if whole {
		state, err := db.StateAt(ctx, version)
		if err != nil {
			return err
		}
		v.Objects = []objectView{}
		for o := range state.Objects {
			view := objectView{o.Address(), registry.OwnerOf(o), map[string]string{}}
			for _, f := range o.Fields() {
				if f.Value != "" {
					view.Fields[f.Name] = f.Value
				}
			}
			v.Objects = append(v.Objects, view)
		}
		changes = registry.Creates(state)
	} else {
		v.Changes = append([]registry.Change{}, changes...)
	}
	if asJSON {
		return writeJSON(s.stdout, v)
	}
	return printVersion(s.stdout, v.Version, changes, whole, expand)
}

func printVersion(w io.Writer, v store.Version, changes []registry.Change, whole, expand bool) error {
	paint := painter(w)
	var out bytes.Buffer
	fmt.Fprintf(&out, "Version %d, applied %s by %s", v.Version, v.At.Format("2006-01-02 15:04:05Z"), clean(v.Author))
	if v.Tool != "" {
		fmt.Fprintf(&out, " with nsready %s", clean(v.Tool))
	}
	out.WriteByte('\n')
	if v.Commit != "" {
		fmt.Fprintf(&out, "Commit %s\n", clean(v.Commit))
	}
	if v.Message != "" {
		fmt.Fprintf(&out, "\n    %s\n", clean(v.Message))
	}
	out.WriteByte('\n')
	switch {
	case whole:
		for _, c := range changes {
			fmt.Fprintf(&out, "  %s\n", clean(c.Address.String()))
			for _, f := range c.Fields {
				fmt.Fprintf(&out, "      %s: %s\n", f.Name, showValue(f.After))
			}
		}
		fmt.Fprintf(&out, "\n%d objects.\n", len(changes))
	case len(changes) == 0:
		fmt.Fprintln(&out, "It changed nothing, and begins what is recorded.")
	default:
		view := viewPlan(&registry.Plan{Changes: changes})
		printChanges(&out, paint, view, expand)
		fmt.Fprintf(&out, "\n%s.\n", view.Summary.done())
	}
	_, err := w.Write(legible(out.Bytes()))
	return err
}

// diffView is what diff -json prints.
type diffView struct {
	FormatVersion string            `json:"format_version"`
	From          string            `json:"from"`
	To            string            `json:"to"`
	Changes       []registry.Change `json:"changes"`
	Summary       summary           `json:"summary"`
}

func runDiff(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "diff [flags] REV REV", `
Show what differs between two versions of the registry. A REV is the number of a version, 0 for nothing, or live for what
nsready manages in the registry as it is now. 'nsready history' lists the versions. What was moved is shown as moved.
The exit code is 0 when they are the same, 2 when they differ, and 1 when that could not be found out.

Example:
  nsready diff 12 live`)
	var t target
	t.registerDatabase(f)
	asJSON := f.json("print JSON")
	expand := f.Bool("expand", false, "show every change, also when many are alike")
	rest, err := f.parse(args, 2)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("diff what? Name two versions, or a version and live: nsready diff REV REV")
	}
	for _, rev := range rest {
		if _, ok := parseVersion(rev); !ok && rev != "live" && rev != "0" {
			return fmt.Errorf("%q is no version: want a number such as 12, or live; 'nsready history' lists them", rev)
		}
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	var states [2]*registry.Snapshot
	for i, rev := range rest {
		if states[i], err = stateOf(ctx, db, rev); err != nil {
			return err
		}
	}
	v := diffView{FormatVersion: formatVersion, From: rest[0], To: rest[1], Changes: append([]registry.Change{}, registry.TellMoves(registry.Between(states[0], states[1]))...)}
	v.Summary = viewPlan(&registry.Plan{Changes: v.Changes}).Summary
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printDiff(s.stdout, v, *expand)
	}
	if err == nil && len(v.Changes) > 0 {
		return exit(exitNo)
	}
	return err
}

// stateOf reads what a version declared, or what is managed now.
func stateOf(ctx context.Context, db *store.Store, rev string) (*registry.Snapshot, error) {
	if rev == "live" {
		live, err := db.LoadRegistry(ctx)
		if err != nil {
			return nil, err
		}
		return live.Managed(), nil
	}
	version, _ := parseVersion(rev)
	return db.StateAt(ctx, version)
}

func printDiff(w io.Writer, v diffView, expand bool) error {
	paint := painter(w)
	var out bytes.Buffer
	printChanges(&out, paint, viewPlan(&registry.Plan{Changes: v.Changes}), expand)
	if len(v.Changes) == 0 {
		fmt.Fprintln(&out, "No differences.")
	} else {
		fmt.Fprintf(&out, "\nFrom %s to %s: %s.\n", v.From, v.To, v.Summary.done())
	}
	_, err := w.Write(legible(out.Bytes()))
	return err
}
