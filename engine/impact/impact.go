// Package impact says what a plan does to the telemetry that is stored, to the disk and to alerts. It only looks: nothing is
// written, and nothing waits for it.
package impact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// Options say how far to look.
type Options struct {
	Now      time.Time
	Backtest time.Duration // how much history thresholds and parameters are tried on
	Limit    time.Duration // for all of it together; what is not found out by then is told as such

	// What the database may grow to, in bytes, and what says so, for people; 0 when it is not known. With Free it is what is
	// free beside what the database has now.
	Disk       int64
	Free       bool
	DiskSource string
}

// Report is what a plan does to data.
type Report struct {
	Changes []*Impact `json:"changes"` // those of the plan that have an impact, in its order
	Disk    *Disk     `json:"disk,omitempty"`

	RowsDropped    int64 `json:"rows_dropped"`
	BytesDropped   int64 `json:"bytes_dropped"`
	RowsExact      bool  `json:"rows_exact"` // false: RowsDropped is estimated
	AlertsStarting int   `json:"alerts_starting"`
	AlertsStopping int   `json:"alerts_stopping"`

	// Retention would drop rows, or it could not be found out whether it would.
	DataLoss bool `json:"data_loss"`

	of map[step]*Impact
}

// Of returns the impact of a change of the plan, nil when it has none. A nil Report has none.
func (r *Report) Of(c *registry.Change) *Impact {
	if r == nil {
		return nil
	}
	return r.of[step{c.Action, c.Address}]
}

// step tells the changes of a plan apart: what leaves an address and what takes it do so by different actions.
type step struct {
	action  registry.Action
	address registry.Address
}

// Impact is what one change does. Times are UTC.
type Impact struct {
	Action      registry.Action  `json:"action"`
	Address     registry.Address `json:"address"`
	Retention   *Retention       `json:"retention,omitempty"`
	Compression *Compression     `json:"compression,omitempty"`
	Device      *Device          `json:"device,omitempty"`
	Parameter   *Parameter       `json:"parameter,omitempty"`
	Threshold   *Threshold       `json:"threshold,omitempty"`
	Unknown     string           `json:"unknown,omitempty"` // why something is not known
}

// Retention is what the engine drops at its next hourly run and would keep without the change. Days are dropped whole, as
// soon as all of a day is too old.
type Retention struct {
	Rows      int64     `json:"rows"`
	RowsExact bool      `json:"rows_exact"` // false: estimated
	Bytes     int64     `json:"bytes"`
	Days      int       `json:"days"`
	First     string    `json:"first_day,omitempty"` // 2006-01-02
	Last      string    `json:"last_day,omitempty"`
	Oldest    time.Time `json:"oldest,omitzero"` // point that is dropped; that day's beginning when rows are estimated

	// Where nothing is dropped: the oldest day that there is, and when it is dropped, before and after the change. There is
	// no such time when it is kept for ever.
	OldestDay  string    `json:"oldest_day,omitempty"`
	EndsBefore time.Time `json:"oldest_day_ends_before,omitzero"`
	EndsAfter  time.Time `json:"oldest_day_ends_after,omitzero"`

	before, after time.Duration
}

// Compression is what is compressed that would not be without the change.
type Compression struct {
	Supported bool    `json:"supported"` // false: the database has no TimescaleDB
	Bytes     int64   `json:"bytes"`     // that will be compressed
	Days      int     `json:"days"`
	Ratio     float64 `json:"ratio,omitempty"` // bytes after to bytes before, of the days that are compressed already; 0 when there are none

	longer bool
}

// Device is the history of a device that is retired, returns or moves.
type Device struct {
	Rows      int64     `json:"rows"`
	RowsExact bool      `json:"rows_exact"` // false: estimated from its newest days
	Bytes     int64     `json:"bytes"`      // estimated: its share of each day
	Oldest    time.Time `json:"oldest,omitzero"`
	Newest    time.Time `json:"newest,omitzero"`
	KeptUntil time.Time `json:"kept_until,omitzero"` // when retention drops the newest row; zero for never
	Alerts    int       `json:"open_alerts"`         // that get resolved with it: it goes, or leaves the project of their thresholds

	firing int // of these
}

// Parameter is how the stored values of a parameter go with it as it will be.
type Parameter struct {
	Look
	Outside        int64 `json:"values_outside"`        // of its type or range, as it will be
	OutsideBefore  int64 `json:"values_outside_before"` // as it is
	OutsideDevices int   `json:"devices_outside"`
	Senders        int   `json:"devices_sending"` // in the last 24 hours

	to *registry.Parameter // nil when it is retired
}

// Threshold is what a rule that is added, changed or removed does.
type Threshold struct {
	// Alerts that the newest values start and stop, if they stay as they are for as long as the rule wants. Devices that
	// have sent nothing for 24 hours are left out.
	Starting   int                `json:"alerts_starting"`
	StartingOn []registry.Address `json:"starting_on,omitempty"` // a few of their devices
	Stopping   int                `json:"alerts_stopping"`

	Look
	Fires       int `json:"fires"`        // over the history, of the rule as it will be; 0 when it is removed
	FiresBefore int `json:"fires_before"` // as it is; 0 when it is new

	// Of the rule as it will be, or, when it is removed, as it is.
	FiredDevices int              `json:"fired_devices"`
	LastFired    time.Time        `json:"last_fired,omitzero"`
	LastDevice   registry.Address `json:"last_device,omitzero"`

	action registry.Action
	hold   string // how long the limit must be exceeded
}

// Look is how much of the history was looked at.
type Look struct {
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`   // where the time was over; zero when there was enough for what is newer
	Values   int64     `json:"values"`           // that were looked at
	Devices  int       `json:"devices"`          // whose values were looked at
	Of       int       `json:"of_devices"`       // that have sent such values in the time
	Complete bool      `json:"history_complete"` // false: there was no time for all of it

	some bool // of the devices only
}

const (
	recent    = 24 * time.Hour // within which a device has sent something that still sends
	exactRows = 20_000_000     // the most that are counted one by one
	week      = 7              // days, to judge growth by
	fewNames  = 3
)

// assessment is a report in the making.
type assessment struct {
	ctx      context.Context
	db       *store.Store
	current  *registry.Snapshot
	o        Options
	deadline time.Time
	most     int64 // rows of history to look at
	few      int64 // rows that may be looked at without a thought
	waiting  int   // events that may wait in memory
	report   *Report
	changes  []*registry.Change
	impacts  []*Impact         // of changes, nil where there is none
	stored   map[string]string // by the keys that parameters will have: see storedKeys

	overriding map[uuid.UUID]*overriding // devices that override parameters, now or after the plan

	days    []store.Day
	measure measure
	keep    time.Duration // after the plan; 0 for ever
}

// overriding is a device with overrides, as it is and as it will be.
type overriding struct {
	before, after *registry.Device
	own           map[*ranges][2]*registry.Parameter // before and after
}

// override finds the devices that override parameters.
func (a *assessment) override(plan *registry.Plan) {
	a.overriding = map[uuid.UUID]*overriding{}
	for _, d := range a.current.Devices {
		if len(d.Overrides) > 0 {
			a.overriding[d.ID] = &overriding{d, d, map[*ranges][2]*registry.Parameter{}}
		}
	}
	for i := range plan.Changes {
		before, _ := plan.Changes[i].Before.(*registry.Device)
		after, _ := plan.Changes[i].After.(*registry.Device)
		if before != nil && after != nil && len(before.Overrides)+len(after.Overrides) > 0 {
			a.overriding[after.ID] = &overriding{before, after, map[*ranges][2]*registry.Parameter{}}
		}
	}
}

// sameRanges reports whether the overrides of a device leave the ranges of its values as they are.
func sameRanges(a, b *registry.Device) bool {
	same := func(o registry.Override, d *registry.Device) bool {
		p := d.Override(o.Parameter)
		return o.Min == p.Min && o.Max == p.Max && o.OnViolation == p.OnViolation
	}
	return !slices.ContainsFunc(a.Overrides, func(o registry.Override) bool { return !same(o, b) }) &&
		!slices.ContainsFunc(b.Overrides, func(o registry.Override) bool { return !same(o, a) })
}

var errOverrides = errors.New("stored values are not compared with the ranges that a device overrides")

// Assess looks at what a plan would do. It returns nil when no change of it concerns data. What cannot be found out, or not
// within the limit, is told in the report; the error is that of ctx alone.
func Assess(ctx context.Context, db *store.Store, current *registry.Snapshot, plan *registry.Plan, o Options) (*Report, error) {
	a := &assessment{ctx: ctx, db: db, current: current, o: o, deadline: time.Now().Add(o.Limit), most: mostRows, few: fewRows, waiting: mostWaiting, report: &Report{RowsExact: true}}
	var retention, devices, overrides, history []int
	grows := false
	a.stored = storedKeys(plan.Changes)
	a.override(plan)
	if current.Retention != nil {
		a.keep = current.Retention.Raw
	}
	for i := range plan.Changes {
		c := &plan.Changes[i]
		a.changes = append(a.changes, c)
		if c.Action == registry.Release { // it stays as it is
			continue
		}
		switch c.Address.Kind {
		case registry.KindRetention:
			before, after := retentionOf(c.Before), retentionOf(c.After)
			if a.keep = after.Raw; before.Raw != after.Raw || before.CompressAfter != after.CompressAfter {
				retention = append(retention, i)
			}
		case registry.KindDevice:
			if c.Action == registry.Delete || c.From != nil || c.Action == registry.Create && c.Before != nil {
				devices = append(devices, i)
			}
			grows = grows || c.Action == registry.Create
			if c.Before != nil && c.After != nil && !sameRanges(c.Before.(*registry.Device), c.After.(*registry.Device)) {
				overrides = append(overrides, i)
			}
		case registry.KindParameter:
			if c.Before != nil && (c.After == nil || !sameRange(c.Before.(*registry.Parameter), c.After.(*registry.Parameter))) {
				history = append(history, i)
			}
		case registry.KindThreshold:
			if c.Before == nil || c.After == nil || !sameRule(c.Before.(*registry.Threshold), a.asStored(c.After.(*registry.Threshold))) {
				history = append(history, i)
			}
		}
	}
	a.impacts = make([]*Impact, len(a.changes))
	for _, i := range overrides {
		a.unknown(i, errOverrides)
	}
	if len(retention)+len(devices) > 0 || grows {
		if err := a.look(); err != nil {
			for _, i := range slices.Concat(retention, devices) {
				a.unknown(i, err)
			}
			a.report.DataLoss = len(retention) > 0
		} else {
			for _, i := range retention {
				a.retain(i)
			}
			a.hold(devices)
			a.grow()
		}
	}
	if len(history) > 0 {
		a.replay(history)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.report.of = map[step]*Impact{}
	for _, im := range a.impacts {
		if im != nil {
			a.report.add(im)
		}
	}
	if len(a.report.Changes) == 0 && a.report.Disk == nil {
		return nil, nil
	}
	return a.report, nil
}

func (r *Report) add(im *Impact) {
	r.Changes = append(r.Changes, im)
	r.of[step{im.Action, im.Address}] = im
	if d := im.Retention; d != nil && d.Days > 0 {
		r.RowsDropped += d.Rows
		r.BytesDropped += d.Bytes
		r.RowsExact = r.RowsExact && d.RowsExact
		r.DataLoss = r.DataLoss || d.Rows > 0 || !d.RowsExact
	}
	if d := im.Device; d != nil {
		r.AlertsStopping += d.firing
	}
	if t := im.Threshold; t != nil {
		r.AlertsStarting += t.Starting
		r.AlertsStopping += t.Stopping
	}
}

// at returns the impact of the change i, which has one from here on.
func (a *assessment) at(i int) *Impact {
	if a.impacts[i] == nil {
		a.impacts[i] = &Impact{Action: a.changes[i].Action, Address: a.changes[i].Address}
	}
	return a.impacts[i]
}

func (a *assessment) unknown(i int, err error) {
	why := err.Error()
	if store.TimedOut(err) {
		why = fmt.Sprintf("the database did not answer within %s", a.o.Limit)
	}
	if im := a.at(i); im.Unknown == "" {
		im.Unknown = why
	}
}

// within returns a context that ends with a part of the time that is left.
func (a *assessment) within(part float64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(a.ctx, time.Duration(part*float64(max(time.Until(a.deadline), time.Millisecond))))
}

// look finds out what days there are.
func (a *assessment) look() (err error) {
	ctx, cancel := a.within(1)
	defer cancel()
	if a.days, err = a.db.Days(ctx); err != nil {
		return err
	}
	if a.measure.size, a.measure.valuesPerRow, err = a.db.Size(ctx); err != nil {
		return err
	}
	return a.weigh(ctx)
}

// retain says what a retention drops and compresses.
func (a *assessment) retain(i int) {
	before, after := retentionOf(a.changes[i].Before), retentionOf(a.changes[i].After)
	if before.Raw != after.Raw && len(a.days) > 0 {
		r := &Retention{RowsExact: true, before: before.Raw, after: after.Raw}
		if drop := a.between(before.Raw, after.Raw); len(drop) > 0 {
			if err := a.drop(r, drop); err != nil {
				a.unknown(i, err)
				a.report.DataLoss = true
			}
		} else {
			oldest := &a.days[0]
			r.OldestDay = oldest.Start.Format(time.DateOnly)
			if before.Raw > 0 {
				r.EndsBefore = oldest.End.Add(before.Raw)
			}
			if after.Raw > 0 {
				r.EndsAfter = oldest.End.Add(after.Raw)
			}
		}
		a.at(i).Retention = r
	}
	if before.CompressAfter != after.CompressAfter {
		c := &Compression{Supported: a.db.Compresses(), Ratio: a.measure.ratio,
			longer: after.CompressAfter == 0 || before.CompressAfter > 0 && after.CompressAfter > before.CompressAfter}
		for _, d := range a.between(before.CompressAfter, after.CompressAfter) {
			if c.Supported && !d.Compressed && (after.Raw == 0 || !d.Expired(a.o.Now.Add(-after.Raw))) {
				c.Days++
				c.Bytes += d.Bytes
			}
		}
		a.at(i).Compression = c
	}
}

// between returns the days that are older than after and were not older than before; 0 is for ever.
func (a *assessment) between(before, after time.Duration) (list []*store.Day) {
	for i := range a.days {
		d := &a.days[i]
		if after > 0 && d.Expired(a.o.Now.Add(-after)) && !(before > 0 && d.Expired(a.o.Now.Add(-before))) {
			list = append(list, d)
		}
	}
	return list
}

// drop sums days up. It counts their rows where that is quick.
func (a *assessment) drop(r *Retention, days []*store.Day) error {
	r.Days, r.First, r.Last = len(days), days[0].Start.Format(time.DateOnly), days[len(days)-1].Start.Format(time.DateOnly)
	r.Oldest = days[0].Start
	estimate := int64(0)
	for _, d := range days {
		r.Bytes += d.Bytes
		estimate += a.measure.rows(d)
	}
	ctx, cancel := a.within(0.5)
	defer cancel()
	r.RowsExact = estimate <= exactRows
	found := false
	for _, d := range days {
		if r.RowsExact {
			n, oldest, err := a.db.CountDay(ctx, d)
			if err == nil {
				if r.Rows += n; n > 0 && !found {
					r.Oldest, found = oldest, true
				}
				continue
			}
			if !store.TimedOut(err) {
				return err
			}
			r.RowsExact = false
		}
		r.Rows += a.measure.rows(d)
	}
	return nil
}

// hold says what devices that go or return have stored.
func (a *assessment) hold(changes []int) {
	if len(changes) == 0 {
		return
	}
	ctx, cancel := a.within(0.5)
	defer cancel()
	devices := make(map[int32]*Device, len(changes))
	var refs []int32
	for _, i := range changes {
		ref := a.changes[i].Before.(*registry.Device).Ref
		refs = append(refs, ref)
		devices[ref] = &Device{RowsExact: true}
	}
	counted, all := int64(0), int64(0)
	var failed error
	for i := len(a.days) - 1; i >= 0; i-- {
		d := &a.days[i]
		rows := a.measure.rows(d)
		all += rows
		if failed != nil {
			continue
		}
		found, err := a.db.Holdings(ctx, d, refs)
		if err != nil {
			failed = err
			continue
		}
		counted += rows
		for ref, h := range found {
			v := devices[ref]
			v.Rows += h.Rows
			v.Bytes += int64(float64(h.Rows) / float64(max(rows, h.Rows)) * float64(d.Bytes))
			v.Oldest = h.Oldest.UTC()
			if v.Newest.IsZero() {
				v.Newest = h.Newest.UTC()
			}
			if a.measure.isWhole(d) {
				a.measure.leaving[ref] += h.Rows
			}
		}
	}
	if failed != nil && (counted == 0 || !store.TimedOut(failed)) {
		for _, i := range changes {
			a.unknown(i, failed)
		}
		return
	}
	alerts, firing := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	open, err := a.db.OpenAlerts(ctx)
	for _, o := range open {
		alerts[o.Device]++
		if o.State == alert.Firing {
			firing[o.Device]++
		}
	}
	for _, i := range changes {
		before := a.changes[i].Before.(*registry.Device)
		v := devices[before.Ref]
		if failed != nil { // the oldest days were not counted: they are taken to be like the newer ones
			share := float64(all) / float64(max(counted, 1))
			v.Rows, v.Bytes, v.RowsExact = int64(float64(v.Rows)*share), int64(float64(v.Bytes)*share), false
			v.Oldest = time.Time{}
		}
		after, stays := a.changes[i].After.(*registry.Device)
		if stays {
			delete(a.measure.leaving, before.Ref)
		}
		if !stays || after.ProjectID != before.ProjectID { // the rules of its alerts are those of a project that it is not in
			v.Alerts, v.firing = alerts[before.ID], firing[before.ID]
			if err != nil {
				a.unknown(i, err)
			}
		}
		if v.Rows == 0 && v.Alerts == 0 {
			continue
		}
		if a.keep > 0 && !v.Newest.IsZero() {
			v.KeptUntil = v.Newest.Truncate(24*time.Hour).AddDate(0, 0, 1).Add(a.keep)
		}
		a.at(i).Device = v
	}
}

func retentionOf(o registry.Object) registry.Retention {
	if r, ok := o.(*registry.Retention); ok && r != nil {
		return *r
	}
	return registry.Retention{}
}

func sameRange(a, b *registry.Parameter) bool {
	return !a.Retired && a.Type == b.Type && a.Min == b.Min && a.Max == b.Max && a.OnViolation == b.OnViolation
}

func sameRule(a, b *registry.Threshold) bool {
	return a.ParameterKey == b.ParameterKey && a.Above == b.Above && a.Below == b.Below && a.For == b.For && a.Deadband == b.Deadband
}

// storedKeys returns under which keys the values are stored of parameters that will have others, and "" for those that take
// the key of one that gives it up: nothing is stored of them.
func storedKeys(changes []registry.Change) map[string]string {
	stored := map[string]string{}
	for i := range changes {
		before, was := changes[i].Before.(*registry.Parameter)
		after, is := changes[i].After.(*registry.Parameter)
		if !was || !is || before.Key == after.Key {
			continue
		}
		stored[after.Key] = before.Key
		if _, taken := stored[before.Key]; !taken {
			stored[before.Key] = ""
		}
	}
	return stored
}

// asStored returns a rule as it will be, for the values as they are stored.
func (a *assessment) asStored(t *registry.Threshold) *registry.Threshold {
	key, renamed := a.stored[t.ParameterKey]
	if !renamed {
		return t
	}
	rule := *t
	rule.ParameterKey = key
	return &rule
}

// stopped reports whether an error means that the time is over, which is told by what was looked at.
func stopped(err error) bool { return store.TimedOut(err) || errors.Is(err, errEnough) }

var errEnough = errors.New("enough was looked at")
