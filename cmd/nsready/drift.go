package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// driftView is what drift -json prints.
type driftView struct {
	FormatVersion string             `json:"format_version"`
	Version       int64              `json:"version"` // of the last apply, which the registry is compared with
	Drift         []driftEntry       `json:"drift"`
	Unmanaged     []registry.Address `json:"unmanaged"` // made by others before the last apply, which left them alone
	Summary       driftSummary       `json:"summary"`
}

type driftSummary struct {
	Edited  int `json:"edited"`
	Created int `json:"created"`
	Deleted int `json:"deleted"`
}

// driftEntry is one object that was changed by hand, and who did it last, as far as is known.
type driftEntry struct {
	registry.Drifted
	By   *store.Touch `json:"by,omitempty"`
	Next string       `json:"next,omitempty"` // what the next apply does about it: undo or keep; "" when that is not asked
}

func runDrift(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "drift [flags]", `
List what was changed in the registry by other means than an apply since the last one: edited, created and deleted by hand,
with who did it and when. Objects that nsready never managed are listed too, but are no drift. With -config it is said
whether the next apply of that declaration would undo a change or keep it. Nothing is changed.
The exit code is 0 when there is no drift, 2 when there is, and 1 when that could not be found out.

Example:
  nsready drift -json -config estates/north`)
	var t target
	t.registerDatabase(f)
	f.StringVar(&t.config, "config", "", "`PATH` of the declaration to compare with, a file or directory")
	t.variables.register(f)
	asJSON := f.json("print the drift as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	var declared *registry.Snapshot
	if t.config != "" {
		var err error
		if declared, err = loadConfig(ctx, s, t.config, *asJSON, t.variables); err != nil {
			return err
		}
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	live, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	v, _, err := readDrift(ctx, db, live, true)
	if err != nil {
		return err
	}
	if declared != nil {
		v.foretell(registry.Diff(live, declared))
	}
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printDrift(s.stdout, v)
	}
	if err == nil && len(v.Drift) > 0 {
		return exit(exitNo)
	}
	return err
}

// readDrift compares the registry with what the last apply left behind, which it returns too. That is nil, and not read, when
// nothing is said to have changed since; thorough looks, too, whether something did that no trigger saw.
func readDrift(ctx context.Context, db *store.Store, live *registry.Snapshot, thorough bool) (v driftView, applied *registry.Snapshot, err error) {
	v = driftView{FormatVersion: formatVersion, Version: live.Version, Drift: []driftEntry{}, Unmanaged: []registry.Address{}}
	var drift []registry.Drifted
	var audit store.Audit
	changed := live.Version > 0 && live.AppliedRevision != live.Revision
	if live.Version > 0 && thorough && !changed {
		untouched, err := db.Untouched(ctx)
		if err != nil {
			return v, nil, err
		}
		changed = !untouched
	}
	if changed {
		if applied, err = db.StateAt(ctx, live.Version); err != nil {
			return v, nil, err
		}
		if audit, err = db.Audit(ctx, live.AppliedRevision); err != nil {
			return v, nil, err
		}
		drift = registry.Drift(applied, live)
	} else {
		drift = unmanaged(live)
	}
	for _, d := range drift {
		if d.Kind == registry.CreatedByHand && registry.OwnerOf(d.Object) == "" && !audit.Made(d.Object) {
			v.Unmanaged = append(v.Unmanaged, d.Address)
			continue
		}
		v.Drift = append(v.Drift, driftEntry{Drifted: d, By: audit.Of(d.Object)})
		switch d.Kind {
		case registry.EditedByHand:
			v.Summary.Edited++
		case registry.CreatedByHand:
			v.Summary.Created++
		case registry.DeletedByHand:
			v.Summary.Deleted++
		}
	}
	return v, applied, nil
}

// unmanaged lists the objects that nobody manages, of a registry that is as the last apply left it.
func unmanaged(live *registry.Snapshot) (list []registry.Drifted) {
	for o := range live.Objects {
		if registry.OwnerOf(o) == "" && !registry.Retired(o) {
			list = append(list, registry.Drifted{Kind: registry.CreatedByHand, Address: o.Address(), Object: o})
		}
	}
	return list
}

// attribute says of a plan what each change is due to, and returns what was changed by hand. Of a registry whose last apply
// was not recorded neither is known: then the error is a *store.ErrNotRecorded. thorough is as for readDrift.
func attribute(ctx context.Context, db *store.Store, live *registry.Snapshot, plan *registry.Plan, thorough bool) ([]driftEntry, error) {
	v, applied, err := readDrift(ctx, db, live, thorough)
	if err != nil {
		return nil, err
	}
	plan.Attribute(applied)
	return v.Drift, nil
}

// foretell notes what a plan does about the drift.
func (v *driftView) foretell(plan *registry.Plan) {
	changed := map[registry.Address]bool{}
	for _, c := range plan.Changes {
		changed[c.Address] = true
		if c.From != nil {
			changed[*c.From] = true
		}
	}
	for i := range v.Drift {
		d := &v.Drift[i]
		d.Next = "keep"
		if changed[d.Address] || changed[d.Object.Address()] {
			d.Next = "undo"
		}
	}
}

// maxDrift is how many changes by hand a plan names.
const maxDrift = 20

func printDrift(w io.Writer, v driftView) error {
	paint := painter(w)
	var out bytes.Buffer
	switch {
	case len(v.Drift) > 0:
		printDriftEntries(&out, paint, v.Drift, len(v.Drift))
		fmt.Fprintf(&out, "\nDrift since version %d: %d edited, %d created, %d deleted by hand.\n", v.Version, v.Summary.Edited, v.Summary.Created, v.Summary.Deleted)
	case v.Version == 0:
		fmt.Fprintln(&out, "No drift. Nothing was applied yet.")
	default:
		fmt.Fprintf(&out, "No drift. What nsready manages is as version %d left it.\n", v.Version)
	}
	if n := len(v.Unmanaged); n > 0 {
		fmt.Fprintf(&out, "\nNote: %s in the registry, made outside nsready:\n", strings.Replace(objects(n), " ", " unmanaged ", 1))
		printAddresses(&out, v.Unmanaged)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// printDriftEntries lists up to most changes by hand.
func printDriftEntries(out *bytes.Buffer, paint func(color, string) string, drift []driftEntry, most int) {
	fmt.Fprintln(out, paint(bold, "Registry changed outside of nsready:"))
	fmt.Fprintln(out)
	for _, d := range drift[:min(most, len(drift))] {
		fmt.Fprintf(out, "  %s %s %s", paint(yellow, "!"), clean(d.Address.String()), strings.ReplaceAll(string(d.Kind), "_", " "))
		if d.By != nil {
			fmt.Fprintf(out, ": %s", clean(d.By.Who))
			if d.By.Via != "" {
				fmt.Fprintf(out, " via %s", clean(d.By.Via))
			}
			fmt.Fprintf(out, ", %s", d.By.At.Format("2006-01-02 15:04:05Z"))
		}
		switch d.Next {
		case "undo":
			fmt.Fprint(out, " (the next apply undoes it)")
		case "keep":
			fmt.Fprint(out, " (the next apply keeps it)")
		}
		out.WriteByte('\n')
		for _, f := range d.Fields {
			fmt.Fprintf(out, "      %s: %s -> %s\n", clean(f.Name), showValue(f.Before), showValue(f.After))
		}
	}
	if n := len(drift) - most; n > 0 {
		fmt.Fprintf(out, "    and %d more, which 'nsready drift' lists\n", n)
	}
}
