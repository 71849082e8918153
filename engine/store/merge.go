package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

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
}

// merge stores events whose row may exist: per device and time the values are merged by parameter, the last one wins.
// The row keeps its receive time, and takes source and event id from the last event.
func (c *Claim) merge(ctx context.Context, events []*telemetry.Event) error {
	rows, err := c.existing(ctx, events)
	if err != nil {
		return err
	}
	var order []*merged
	seen := map[rowKey]bool{}
	for _, e := range events {
		d := c.devices[e.Device]
		d.high = max(d.high, e.Time)
		key := rowKey{d.ref, e.Time}
		row := rows[key]
		if row == nil {
			row = &merged{key: key, event: *e, set: c.sets[e.Set]}
			rows[key] = row
		} else if err := c.overlay(ctx, row, e); err != nil {
			return err
		}
		if !seen[key] {
			seen[key] = true
			order = append(order, row)
		}
	}
	c.stage.reset()
	for _, row := range order {
		c.stage.event(&row.event, row.key.ref, row.set)
	}
	if err := c.copy(ctx, "stage", telemetryColumns, &c.stage); err != nil {
		return err
	}
	const upsert = `INSERT INTO telemetry AS t SELECT * FROM stage ORDER BY device_ref, time
		ON CONFLICT (device_ref, time) DO UPDATE
		SET set_id = excluded.set_id, vals = excluded.vals, quality = excluded.quality, source = excluded.source,
		    event_id = excluded.event_id, attributes = excluded.attributes
		WHERE (t.set_id, t.vals, t.quality, t.source, t.event_id, t.attributes) IS DISTINCT FROM
		      (excluded.set_id, excluded.vals, excluded.quality, excluded.source, excluded.event_id, excluded.attributes)`
	if err := c.exec(ctx, upsert+"; DELETE FROM stage"); err != nil {
		return fmt.Errorf("merging %d rows into telemetry: %w", len(order), err)
	}
	return c.mergeLatest(ctx, order)
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
	c.stage.reset()
	for _, row := range newest {
		c.stage.latest(&row.event, row.key.ref, row.set)
	}
	if err := c.writeLatest(ctx); err != nil {
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
		row.was = []int32{row.set}
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
	for _, row := range found {
		keys, err := c.setKeys(ctx, row.set)
		if err != nil {
			return nil, err
		}
		row.event.Set = &telemetry.ParameterSet{Keys: keys}
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
	oldAttributes, err := attributeList(old.Attributes, len(old.Set.Keys))
	if err != nil {
		return err
	}
	newAttributes, err := attributeList(e.Attributes, len(e.Set.Keys))
	if err != nil {
		return err
	}
	keys := slices.Concat(old.Set.Keys, e.Set.Keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	values, quality, attributes := make([]float64, len(keys)), make([]byte, len(keys)), make([]json.RawMessage, len(keys))
	take := func(from *telemetry.Event, list []json.RawMessage) {
		for i, k := range from.Set.Keys {
			at, _ := slices.BinarySearch(keys, k)
			values[at], attributes[at], quality[at] = from.Values[i], list[i], telemetry.QualityGood
			if from.Quality != nil {
				quality[at] = from.Quality[i]
			}
		}
	}
	take(&old, oldAttributes)
	take(e, newAttributes)
	row.event.Set = &telemetry.ParameterSet{Keys: keys}
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
