package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// prepare looks up the devices, parameter sets and daily partitions that events need and that the claim does not know.
func (c *Claim) prepare(ctx context.Context, events []telemetry.Event) error {
	var ids []uuid.UUID
	var days []int64
	for i := range events {
		e := &events[i]
		if _, ok := c.devices[e.Device]; !ok {
			c.devices[e.Device] = nil
			ids = append(ids, e.Device)
		}
		if _, ok := c.sets[e.Set]; !ok {
			if err := c.lookUpSet(ctx, e.Set); err != nil {
				return err
			}
		}
		if d := e.Time.Day(); len(days) == 0 || days[len(days)-1] != d {
			days = append(days, d)
		}
	}
	if len(ids) > 0 {
		if err := c.lookUpDevices(ctx, ids); err != nil {
			return err
		}
	}
	return c.store.days.ensure(ctx, c.conn, days)
}

// lookUpDevices fills c.devices. A device that the registry does not hold stays nil.
func (c *Claim) lookUpDevices(ctx context.Context, ids []uuid.UUID) error {
	rows, err := c.conn.Query(ctx, `SELECT d.id, d.ref, (SELECT max(l.time) FROM telemetry_latest l WHERE l.device_ref = d.ref)
		FROM devices d WHERE d.id = ANY ($1)`, ids)
	if err != nil {
		return fmt.Errorf("looking up devices: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var high *time.Time
		d := &device{high: -1 << 63}
		if err := rows.Scan(&id, &d.ref, &high); err != nil {
			return fmt.Errorf("looking up devices: %w", err)
		}
		if high != nil {
			d.high = telemetry.MicrosOf(*high)
		}
		c.devices[id] = d
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("looking up devices: %w", err)
	}
	for _, id := range ids { // what is unknown now may be known next time
		if c.devices[id] == nil {
			delete(c.devices, id)
		}
	}
	return nil
}

// maxSets bounds a claim's memory of parameter sets.
const maxSets = 1 << 16

func (c *Claim) lookUpSet(ctx context.Context, set *telemetry.ParameterSet) error {
	id, err := c.setID(ctx, set.Keys)
	if err != nil {
		return err
	}
	if len(c.sets) > maxSets {
		clear(c.sets)
		clear(c.keys)
	}
	c.sets[set] = id
	c.keys[id] = set.Keys
	return nil
}

func (c *Claim) setID(ctx context.Context, keys []string) (id int32, err error) {
	if err := c.conn.QueryRow(ctx, "SELECT parameter_set_id($1)", keys).Scan(&id); err != nil {
		return 0, fmt.Errorf("looking up the parameter set of %d keys: %w", len(keys), err)
	}
	return id, nil
}

// write stores events: those later than everything of their device by plain COPY, the others by a merge with what is
// there. look makes it merge them all.
func (c *Claim) write(ctx context.Context, events []telemetry.Event, look bool) error {
	c.batch++
	for _, b := range c.copies {
		b.reset()
	}
	var late []*telemetry.Event
	var marked []*device
	for i := range events {
		e := &events[i]
		d := c.devices[e.Device]
		if d == nil {
			return &telemetry.RejectedError{Reason: "unknown_device", Err: fmt.Errorf("device %s is not in the registry any more", e.Device)}
		}
		set, known := c.sets[e.Set]
		if !known { // the memory of sets was cleared while the batch was prepared
			if err := c.lookUpSet(ctx, e.Set); err != nil {
				return err
			}
			set = c.sets[e.Set]
		}
		if look || e.Time <= d.high {
			late = append(late, e)
			continue
		}
		d.high = e.Time
		day := c.store.days.key(e.Time)
		b := c.copies[day]
		if b == nil {
			b = &copyBuffer{}
			c.copies[day] = b
		}
		b.event(e, d.ref, set)
		if d.mark(set, c.batch, e) {
			marked = append(marked, d)
		}
	}
	for day, b := range c.copies {
		if b.rows == 0 { // of an earlier write
			delete(c.copies, day)
			continue
		}
		if err := c.copy(ctx, c.store.days.table(day), telemetryColumns, b); err != nil {
			return err
		}
	}
	c.stage.reset()
	for _, d := range marked {
		for _, m := range d.marks {
			if m.batch == c.batch {
				c.stage.latest(m.event, d.ref, m.set)
			}
		}
	}
	if err := c.writeLatest(ctx); err != nil {
		return err
	}
	if len(late) > 0 {
		return c.merge(ctx, late)
	}
	return nil
}

// mark notes the newest event of a set. It reports whether it is the device's first in this batch.
func (d *device) mark(set int32, batch uint64, e *telemetry.Event) bool {
	first := true
	for i := range d.marks {
		m := &d.marks[i]
		if m.batch == batch {
			first = false
		}
		if m.set == set {
			m.batch, m.event = batch, e
			return first && !slices.ContainsFunc(d.marks[i+1:], func(m mark) bool { return m.batch == batch })
		}
	}
	d.marks = append(d.marks, mark{set, batch, e})
	return first
}

func (c *Claim) copy(ctx context.Context, table, columns string, b *copyBuffer) error {
	if _, err := c.conn.PgConn().CopyFrom(ctx, bytes.NewReader(b.finish()), "COPY "+table+" ("+columns+") FROM STDIN BINARY"); err != nil {
		return fmt.Errorf("copying %d rows to %s: %w", b.rows, table, err)
	}
	return nil
}

// writeLatest moves telemetry_latest forward to the rows in c.stage.
func (c *Claim) writeLatest(ctx context.Context) error {
	if c.stage.rows == 0 {
		return nil
	}
	if err := c.copy(ctx, "stage_latest", latestColumns, &c.stage); err != nil {
		return err
	}
	const forward = `INSERT INTO telemetry_latest AS l SELECT * FROM stage_latest ORDER BY device_ref, set_id
		ON CONFLICT (device_ref, set_id) DO UPDATE SET time = excluded.time, vals = excluded.vals, quality = excluded.quality, source = excluded.source
		WHERE excluded.time >= l.time`
	if err := c.exec(ctx, forward+"; DELETE FROM stage_latest"); err != nil {
		return fmt.Errorf("writing the latest values: %w", err)
	}
	return nil
}

// identifiers of the columns that copyBuffer writes, in its order.
var (
	telemetryColumns = strings.Join([]string{"time", "received_at", "device_ref", "set_id", "vals", "quality", "source", "event_id", "attributes"}, ", ")
	latestColumns    = strings.Join([]string{"device_ref", "set_id", "time", "vals", "quality", "source"}, ", ")
)
