package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/stream"
)

// impactOptions are the flags that say how far a plan looks at the data that it touches.
type impactOptions struct {
	on       bool
	backtest string
	limit    time.Duration
	disk     byteSize
}

func (o *impactOptions) register(f *flags) {
	f.BoolVar(&o.on, "impact", true, "look at what the changes do to stored data, the disk and alerts")
	o.registerHow(f)
}

// registerHow registers all but whether to look.
func (o *impactOptions) registerHow(f *flags) {
	f.StringVar(&o.backtest, "backtest", "30d", "how much history thresholds and parameters are tried on: a `time` such as 90m, 24h or 30d")
	f.DurationVar(&o.limit, "impact-time", 5*time.Second, "the most `time` to look; the plan says what there was no time for")
	f.Var(&o.disk, "disk", "what the database may grow to, a `size` such as 500GB, to tell when it is full\n(default the free space below -data, when 'nsready up' runs the database there)")
}

// check refuses values that make no sense.
func (o *impactOptions) check() error {
	if o.limit <= 0 {
		return fmt.Errorf("-impact-time: want a time such as 5s, not %s", o.limit)
	}
	_, err := o.since(time.Now())
	return err
}

// since returns where the history that is looked at begins.
func (o *impactOptions) since(now time.Time) (time.Time, error) {
	from, err := parseMoment(o.backtest, now)
	if err == nil && !from.Before(now) {
		err = fmt.Errorf("want a time that has passed, not %q", o.backtest)
	}
	if err != nil {
		return from, fmt.Errorf("-backtest: %w", err)
	}
	return from, nil
}

// assess says what a plan does to data, nil when that is nothing. An error is that of ctx, or of the flags.
func (o *impactOptions) assess(ctx context.Context, t *target, db *store.Store, current *registry.Snapshot, plan *registry.Plan) (*impact.Report, error) {
	if !o.on || plan.Empty() || current.Revision == 0 {
		return nil, nil
	}
	now := time.Now()
	from, err := o.since(now)
	if err != nil {
		return nil, err
	}
	options := impact.Options{Now: now, Backtest: now.Sub(from), Limit: o.limit, Disk: int64(o.disk), DiskSource: "-disk"}
	if options.Disk == 0 && t.url() == "" {
		if free, err := stream.FreeSpace(t.data); err == nil {
			options.Disk, options.Free, options.DiskSource = free, true, "with the free space of "+t.data
		}
	}
	return impact.Assess(ctx, db, current, plan, options)
}

// printImpact writes what a change does to data, below the change.
func printImpact(out *bytes.Buffer, report *impact.Report, c *registry.Change) {
	if im := report.Of(c); im != nil {
		for _, line := range im.Lines() {
			fmt.Fprintf(out, "      # %s\n", clean(line))
		}
	}
}

// printImpacts writes what a plan does to data in all.
func printImpacts(out *bytes.Buffer, report *impact.Report) {
	if report == nil {
		return
	}
	if text := report.Summary(); text != "" {
		fmt.Fprintln(out, text)
	}
}
