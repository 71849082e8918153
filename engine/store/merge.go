package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nsready/nsready/engine/telemetry"
)

// rowKey is the primary key of telemetry.
type rowKey struct {
	ref  int32
	time telemetry.Micros
}

// merged is a row in the making: an event, and which of the registry's parameter sets its keys are.
type merged struct {
	key   rowKey
	event telemetry.Event
	set   int32
	was   []int32 // sets that the row had before

	found   bool // in the database
	written bool // by the database, which leaves rows alone that stay the same
	events  int  // of the batch that go into it
	changes int  // of them that change it, or seem to: what seems no change is none
}

// step is an event on its way into a row.
type step struct {
	event   *telemetry.Event
	row     *merged
	first   bool // of its row's events in the batch
	changed bool // the row, as far as can be told before it is written
}

// merge stores events whose row may exist: per device and time the values are merged by parameter, the last one wins.
// The row keeps its receive time, and takes source and event id from the last event.
func (c *Claim) merge(ctx context.Context, events []*telemetry.Event) error {
	rows, err := c.existing(ctx, events)
	if err != nil {
		return err
	}
	order := make([]*merged, 0, len(events))
	steps := make([]step, len(events))
	for i, e := range events {
		d := c.devices[e.Device]
		c.raise(d, e.Time)
		key := rowKey{d.ref, e.Time}
		row := rows[key]
		if row == nil {
			row = &merged{key: key, event: *e, set: c.sets[e.Set]}
			rows[key] = row
			steps[i].changed = true
		} else {
			before, set := row.event, row.set
			if err := c.overlay(ctx, row, e); err != nil {
				return err
			}
			steps[i].changed = set != row.set || !same(&before, &row.event)
		}
		steps[i].event, steps[i].row, steps[i].first = e, row, row.events == 0
		if row.events++; row.events == 1 {
			order = append(order, row)
		}
		if steps[i].changed {
			row.changes++
		}
	}
	order = slices.DeleteFunc(order, func(row *merged) bool { return row.found && row.changes == 0 })
	if err := c.upsert(ctx, order, rows); err != nil {
		return fmt.Errorf("merging %d rows into telemetry: %w", len(order), err)
	}
	if err := c.countMerged(steps); err != nil {
		return err
	}
	return c.mergeLatest(ctx, order)
}

// upsert writes rows into telemetry, and marks those that the database inserted or changed. all finds rows by their keys.
func (c *Claim) upsert(ctx context.Context, order []*merged, all map[rowKey]*merged) error {
	const conflict = ` ON CONFLICT (device_ref, time) DO UPDATE
		SET set_id = excluded.set_id, vals = excluded.vals, quality = excluded.quality, source = excluded.source,
		    event_id = excluded.event_id, attributes = excluded.attributes
		WHERE (t.set_id, t.vals, t.quality, t.source, t.event_id, t.attributes) IS DISTINCT FROM
		      (excluded.set_id, excluded.vals, excluded.quality, excluded.source, excluded.event_id, excluded.attributes)`
	if len(order) == 0 {
		return nil
	}
	if len(order) <= fewRows {
		var b pgx.Batch
		for _, row := range order {
			e := &row.event
			b.Queue("INSERT INTO telemetry AS t ("+telemetryColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"+conflict, e.Time.Time(), e.ReceivedAt.Time(),
				row.key.ref, row.set, floats(e.Values), qualities(e.Quality), text(e.Source), text(e.EventID), text(e.Attributes)).
				Exec(func(tag pgconn.CommandTag) error { row.written = tag.RowsAffected() == 1; return nil })
		}
		return c.conn.SendBatch(ctx, &b).Close()
	}
	c.stage.reset()
	for _, row := range order {
		c.stage.event(&row.event, row.key.ref, row.set)
	}
	staged, err := c.copy(ctx, "stage", telemetryColumns, &c.stage)
	if err != nil {
		return err
	}
	if staged != int64(len(order)) {
		return fmt.Errorf("%w: the database took %d of %d rows", ErrUnbalanced, staged, len(order))
	}
	rows, err := c.conn.Query(ctx, "WITH gone AS (DELETE FROM stage RETURNING *) INSERT INTO telemetry AS t SELECT * FROM gone ORDER BY device_ref, time"+
		conflict+" RETURNING device_ref, time")
	if err != nil {
		return err
	}
	var ref int32
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&ref, &at}, func() error {
		row := all[rowKey{ref, telemetry.MicrosOf(at)}]
		if row == nil || row.changes == 0 {
			return fmt.Errorf("%w: the database wrote a row that it was not given", ErrUnbalanced)
		}
		row.written = true
		return nil
	})
	return err
}

// countMerged counts what became of each event: the first of a new row stored it, the others changed their row or found
// it the same. Of a single event the database knows; of several for one row it knows whether they changed it together.
func (c *Claim) countMerged(steps []step) error {
	for i := range steps {
		s := &steps[i]
		row, e := s.row, s.event
		row.events--
		t := c.ledger.try(c.batch, c.devices[e.Device], e.ReceivedAt)
		switch {
		case !row.found && !row.written:
			return fmt.Errorf("%w: the database neither had the row of device %s at %s nor took it", ErrUnbalanced, e.Device, e.Time.Time())
		case !row.found && s.first:
			t.Stored++
		case row.found && !row.written && row.changes == 1: // what seemed a change is none for the database
			t.Duplicate++
		case s.changed:
			t.Merged++
		default:
			t.Duplicate++
		}
	}
	return nil
}

// same reports whether two contents of a row with one parameter set are the same.
func same(a, b *telemetry.Event) bool {
	for i, v := range a.Values {
		if w := b.Values[i]; v != w && !(math.IsNaN(v) && math.IsNaN(w)) {
			return false
		}
	}
	return string(a.Source) == string(b.Source) && string(a.EventID) == string(b.EventID) && bytes.Equal(a.Quality, b.Quality) &&
		(a.Quality == nil) == (b.Quality == nil) && sameJSON(a.Attributes, b.Attributes)
}

func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	x, errX := exactJSON(a)
	y, errY := exactJSON(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// exactJSON parses JSON and keeps its numbers as they are written, so that no two are taken for one.
func exactJSON(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// mergeLatest moves telemetry_latest forward to rows. A row whose set grew leaves the entry of the set it had.
func (c *Claim) mergeLatest(ctx context.Context, rows []*merged) error {
	type entry struct{ ref, set int32 }
	newest := map[entry]*merged{}
	var refs, sets []int32
	var times []time.Time
	for _, row := range rows {
		k := entry{row.key.ref, row.set}
		if n := newest[k]; n == nil || row.key.time >= n.key.time {
			newest[k] = row
		}
		for _, was := range row.was {
			if was != row.set {
				refs, sets, times = append(refs, row.key.ref), append(sets, was), append(times, row.key.time.Time())
			}
		}
	}
	latest := make([]tableRow, 0, len(newest))
	for _, row := range newest {
		latest = append(latest, tableRow{&row.event, row.key.ref, row.set})
	}
	if err := c.writeLatest(ctx, latest); err != nil {
		return err
	}
	if len(refs) == 0 {
		return nil
	}
	_, err := c.conn.Exec(ctx, `DELETE FROM telemetry_latest l USING unnest($1::int[], $2::int[], $3::timestamptz[]) w (ref, set, time)
		WHERE l.device_ref = w.ref AND l.set_id = w.set AND l.time = w.time`, refs, sets, times)
	if err != nil {
		return fmt.Errorf("writing the latest values: %w", err)
	}
	return nil
}

// existing reads the rows that the events' keys already have.
func (c *Claim) existing(ctx context.Context, events []*telemetry.Event) (map[rowKey]*merged, error) {
	refs, times := make([]int32, len(events)), make([]time.Time, len(events))
	first, last := events[0].Time, events[0].Time
	for i, e := range events {
		refs[i], times[i] = c.devices[e.Device].ref, e.Time.Time()
		first, last = min(first, e.Time), max(last, e.Time)
	}
	rows, err := c.conn.Query(ctx, `SELECT t.device_ref, t.time, t.set_id, t.vals, t.quality, t.source, t.event_id, t.attributes, t.received_at
		FROM (SELECT DISTINCT * FROM unnest($1::int[], $2::timestamptz[])) k (ref, time)
		JOIN telemetry t ON t.device_ref = k.ref AND t.time = k.time
		WHERE t.time BETWEEN $3 AND $4`, refs, times, first.Time(), last.Time())
	if err != nil {
		return nil, fmt.Errorf("reading the rows to merge with: %w", err)
	}
	found := map[rowKey]*merged{}
	for rows.Next() {
		var (
			row            merged
			at, received   time.Time
			values         []*float64
			quality        []int16
			source, id     *string
			attributesJSON []byte
		)
		if err := rows.Scan(&row.key.ref, &at, &row.set, &values, &quality, &source, &id, &attributesJSON, &received); err != nil {
			rows.Close()
			return nil, fmt.Errorf("reading the rows to merge with: %w", err)
		}
		row.key.time = telemetry.MicrosOf(at)
		row.was, row.found = []int32{row.set}, true
		row.event = telemetry.Event{Time: row.key.time, ReceivedAt: telemetry.MicrosOf(received), Attributes: attributesJSON}
		if source != nil {
			row.event.Source = []byte(*source)
		}
		if id != nil {
			row.event.EventID = []byte(*id)
		}
		for _, v := range values {
			if v == nil {
				row.event.Values = append(row.event.Values, math.NaN())
			} else {
				row.event.Values = append(row.event.Values, *v)
			}
		}
		for _, q := range quality {
			row.event.Quality = append(row.event.Quality, byte(q))
		}
		found[row.key] = &row
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the rows to merge with: %w", err)
	}
	return found, nil
}

func (c *Claim) setKeys(ctx context.Context, set int32) ([]string, error) {
	if keys, ok := c.keys[set]; ok {
		return keys, nil
	}
	var keys []string
	if err := c.conn.QueryRow(ctx, "SELECT keys FROM parameter_sets WHERE id = $1", set).Scan(&keys); err != nil {
		return nil, fmt.Errorf("looking up parameter set %d: %w", set, err)
	}
	c.keys[set] = keys
	return keys, nil
}

// overlay puts the values of e over those of the row.
func (c *Claim) overlay(ctx context.Context, row *merged, e *telemetry.Event) error {
	set := c.sets[e.Set]
	old := row.event
	row.event.Source, row.event.EventID = e.Source, e.EventID
	if set == row.set {
		row.event.Values, row.event.Quality, row.event.Attributes = e.Values, e.Quality, e.Attributes
		return nil
	}
	oldKeys, err := c.setKeys(ctx, row.set) // as they are called now
	if err != nil {
		return err
	}
	newKeys, err := c.setKeys(ctx, set)
	if err != nil {
		return err
	}
	oldAttributes, err := attributeList(old.Attributes, len(oldKeys))
	if err != nil {
		return err
	}
	newAttributes, err := attributeList(e.Attributes, len(newKeys))
	if err != nil {
		return err
	}
	keys := slices.Concat(oldKeys, newKeys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	values, quality, attributes := make([]float64, len(keys)), make([]byte, len(keys)), make([]json.RawMessage, len(keys))
	take := func(from *telemetry.Event, names []string, list []json.RawMessage) {
		for i, k := range names {
			at, _ := slices.BinarySearch(keys, k)
			values[at], attributes[at], quality[at] = from.Values[i], list[i], telemetry.QualityGood
			if from.Quality != nil {
				quality[at] = from.Quality[i]
			}
		}
	}
	take(&old, oldKeys, oldAttributes)
	take(e, newKeys, newAttributes)
	row.event.Values, row.event.Quality, row.event.Attributes = values, quality, nil
	if !slices.ContainsFunc(quality, func(q byte) bool { return q != telemetry.QualityGood }) {
		row.event.Quality = nil
	}
	if slices.ContainsFunc(attributes, func(a json.RawMessage) bool { return a != nil }) {
		if row.event.Attributes, err = json.Marshal(attributes); err != nil {
			return fmt.Errorf("merging attributes: %w", err)
		}
	}
	if row.set, err = c.setID(ctx, keys); err != nil {
		return err
	}
	c.keys[row.set] = keys
	row.was = append(row.was, set)
	return nil
}

// attributeList splits the attributes of an event: one for each of n keys, nil where there are none.
func attributeList(attributes []byte, n int) ([]json.RawMessage, error) {
	list := make([]json.RawMessage, n)
	if len(attributes) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(attributes, &list); err != nil || len(list) != n {
		return nil, &telemetry.RejectedError{Reason: "attributes", Err: fmt.Errorf("attributes are not a list of %d: %w", n, err)}
	}
	for i, a := range list {
		if string(a) == "null" {
			list[i] = nil
		}
	}
	return list, nil
}
