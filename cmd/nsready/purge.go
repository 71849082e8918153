package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// purgeView is what purge -json prints.
type purgeView struct {
	applyView
	StoredRows []storedRows `json:"stored_rows"` // of telemetry, that go with it
}

// storedRows counts the rows of telemetry of one object.
type storedRows struct {
	Address registry.Address `json:"address"`
	Rows    int64            `json:"rows"`
}

func runPurge(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "purge [flags] ADDRESS...", `
Remove retired objects, and everything below them, from the registry for good, in one transaction: show what goes, ask, and do it.
What is declared again afterwards is new. An object that is not retired is refused: take it out of the declaration and
apply that first.
A device that has telemetry, and a parameter of which values are stored, is refused too, unless -allow-data-loss names it, or an object
above it that is purged; its telemetry goes with it, and so do a device's alerts. Dead letters and the ledger stay.
The exit code is 2 when data would be lost that may not be; then nothing is changed.

Example:
  nsready purge device.acme/mill/north/press-01 -allow-data-loss=device.acme/mill/north/press-01`)
	var t target
	t.registerDatabase(f)
	var allowed addressList
	f.Var(&allowed, "allow-data-loss", "`ADDRESS` of an object whose stored telemetry may go, and with it that of what is below it; may be given several times")
	expand := f.Bool("expand", false, "show every object")
	asJSON := f.json("print JSON")
	var locks locking
	locks.register(f)
	var why occasion
	why.register(f)
	var ask approval
	ask.register(f, args)
	rest, err := f.parse(args, -1)
	if err != nil {
		return err
	}
	var addresses addressList
	for _, text := range rest {
		if err := addresses.Set(text); err != nil {
			return err
		}
	}
	if len(addresses) == 0 {
		return errors.New("purge what? Name retired objects: nsready purge ADDRESS...")
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return locks.hold(ctx, s, &t, db, "purge", func(ctx context.Context, lock *store.Lock) error {
		v, err := planPurge(ctx, s, db, addresses, allowed)
		if err != nil {
			return err
		}
		refused := judgePurge(&v)
		v.FailedOn = failedOn(refused)
		if !*asJSON {
			err = printPurge(s.stdout, &v, *expand)
		} else if len(refused) > 0 {
			err = writeJSON(s.stdout, v)
		}
		switch {
		case err != nil:
			return err
		case len(refused) > 0:
			return refuse(s, refused)
		}
		if err := ask.approve(ctx, s, "\nDo you want nsready to remove this for good? It cannot be undone.", *asJSON); err != nil {
			return err
		}
		by := why.of("")
		if by.Message == "" {
			by.Message = "purge of " + addresses[0].String()
			if more := len(addresses) - 1; more > 0 {
				by.Message += fmt.Sprintf(" and %d more", more)
			}
		}
		if v.Version, err = applyPlan(ctx, s, lock, "Purging", v.Plan, by, nil); err != nil {
			return err
		}
		v.Applied = true
		if *asJSON {
			return writeJSON(s.stdout, v)
		}
		_, err = fmt.Fprintf(s.stdout, "\nPurge complete! %s removed for good.\nRegistry version %d.\n", objects(v.Summary.Destroy), v.Version)
		return err
	})
}

// planPurge finds out what would go.
func planPurge(ctx context.Context, s *streams, db *store.Store, addresses, allowed addressList) (v purgeView, err error) {
	progress := s.progress("Reading the registry")
	defer progress.stop()
	current, _, err := loadRegistry(ctx, db)
	if err == nil {
		err = errors.Join(checkAddresses("purge", addresses, current), checkAddresses("-allow-data-loss", allowed, current))
	}
	if err != nil {
		return v, err
	}
	plan, err := registry.PlanPurge(current, addresses, allowed)
	if err != nil {
		return v, err
	}
	progress.now("Counting stored telemetry")
	rows, err := db.StoredRows(ctx, plan)
	if err != nil {
		return v, err
	}
	plan.DataLoss = len(rows) > 0
	v.StoredRows = []storedRows{} // a list in JSON, too
	for i := range plan.Changes {
		c := &plan.Changes[i]
		if n := rows[c.Address]; n > 0 {
			c.Reason = "has " + countedRows(n)
			v.StoredRows = append(v.StoredRows, storedRows{c.Address, n})
		}
	}
	slices.SortFunc(v.StoredRows, func(a, b storedRows) int { return registry.Compare(a.Address, b.Address) })
	v.planView, v.Version = viewPlan(plan), plan.BaseVersion
	return v, nil
}

// judgePurge refuses the loss of telemetry that is not allowed.
func judgePurge(v *purgeView) []veto {
	var lost []storedRows
	for _, r := range v.StoredRows {
		if !slices.Contains(v.AllowDataLoss, r.Address) {
			lost = append(lost, r)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.SortStableFunc(lost, func(a, b storedRows) int { return -cmp.Compare(a.Rows, b.Rows) })
	why := "telemetry would be lost. To allow it:"
	for _, r := range lost[:min(len(lost), maxListed)] {
		why += fmt.Sprintf(" -allow-data-loss=%s (%s)", shellQuote(r.Address.String()), countedRows(r.Rows))
	}
	if n := len(lost) - maxListed; n > 0 {
		why += fmt.Sprintf(" and %d more; naming what they belong to allows all of it", n)
	}
	return []veto{{"data-loss", why}}
}

func printPurge(w io.Writer, v *purgeView, expand bool) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "From registry version %d, nsready will remove for good:\n\n", v.BaseVersion)
	printChanges(&out, painter(w), v.planView, expand)
	with, rows := "", int64(0)
	for _, r := range v.StoredRows {
		rows += r.Rows
	}
	if rows > 0 {
		with = ", with " + countedRows(rows)
	}
	fmt.Fprintf(&out, "\nPlan: %d to purge%s.\n", v.Summary.Destroy, with)
	_, err := w.Write(legible(out.Bytes()))
	return err
}

func countedRows(n int64) string {
	if n == 1 {
		return "1 row of telemetry"
	}
	return grouped(n) + " rows of telemetry"
}
