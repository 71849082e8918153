package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nsready/nsready/engine/telemetry"
)

// prepare looks up the devices, parameter sets and daily partitions that events need and that the claim does not know.
func (c *Claim) prepare(ctx context.Context, events []telemetry.Event) error {
	if c.revision == "" {
		if err := c.conn.QueryRow(ctx, "SELECT revision::text FROM registry_state").Scan(&c.revision); err != nil {
			return fmt.Errorf("reading the registry's revision: %w", err)
		}
	}
	var ids []uuid.UUID
	var days []int64
	for i := range events {
		e := &events[i]
		if e.Held != nil { // becomes a dead letter
			continue
		}
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
	rows, err := c.conn.Query(ctx, `SELECT d.id, d.ref, p.customer_id, (SELECT max(l.time) FROM telemetry_latest l WHERE l.device_ref = d.ref)
		FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id WHERE d.id = ANY ($1)`, ids)
	if err != nil {
		return fmt.Errorf("looking up devices: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var high *time.Time
		d := &device{high: -1 << 63}
		if err := rows.Scan(&id, &d.ref, &d.customer, &high); err != nil {
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
	var keys []string // a parameter may have been renamed since the event was accepted
	if err := c.conn.QueryRow(ctx, "SELECT current_parameter_keys($1)", set.Keys).Scan(&keys); err != nil {
		return fmt.Errorf("looking up %d parameter keys: %w", len(set.Keys), err)
	}
	id, err := c.setID(ctx, keys)
	if err != nil {
		return err
	}
	if len(c.sets) > maxSets {
		clear(c.sets)
		clear(c.keys)
	}
	c.sets[set] = id
	c.keys[id] = keys
	return nil
}

func (c *Claim) setID(ctx context.Context, keys []string) (id int32, err error) {
	if err := c.conn.QueryRow(ctx, "SELECT parameter_set_id($1)", keys).Scan(&id); err != nil {
		return 0, fmt.Errorf("looking up the parameter set of %d keys: %w", len(keys), err)
	}
	return id, nil
}

// write stores events: those later than everything of their device by plain COPY, the others by a merge with what is
// there. look makes it merge them all. What the database did is counted in c.ledger. Held events are none of its business.
func (c *Claim) write(ctx context.Context, events []telemetry.Event, look bool) error {
	c.batch++
	c.ledger.trying, c.raised = c.ledger.trying[:0], c.raised[:0]
	for i := range events { // before anything is sent, so that refusing costs nothing
		if c.ledger.strangers && c.devices[events[i].Device] == nil && events[i].Held == nil {
			return &telemetry.RejectedError{Reason: "unknown_device", Err: fmt.Errorf("device %s is not in the registry any more", events[i].Device)}
		}
	}
	for _, b := range c.copies {
		b.reset()
	}
	clear(c.fresh)
	c.fresh = c.fresh[:0]
	var late []*telemetry.Event
	var marked []*device
	for i := range events {
		yield(i)
		e := &events[i]
		if e.Held != nil {
			continue
		}
		d := c.devices[e.Device]
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
		c.raise(d, e.Time)
		c.ledger.try(c.batch, d, e.ReceivedAt).Stored++
		c.fresh = append(c.fresh, tableRow{e, d.ref, set})
		if d.mark(set, c.batch, e) {
			marked = append(marked, d)
		}
	}
	c.encode()
	copied := int64(0)
	for day, b := range c.copies {
		if b.rows == 0 { // of an earlier write
			delete(c.copies, day)
			continue
		}
		n, err := c.copy(ctx, c.store.days.table(day), telemetryColumns, b)
		if err != nil {
			return err
		}
		copied += n
	}
	if stored := c.ledger.tried().Stored; stored != copied {
		return fmt.Errorf("%w: the database took %d of %d rows", ErrUnbalanced, copied, stored)
	}
	var newest []tableRow
	for _, d := range marked {
		for _, m := range d.marks {
			if m.batch == c.batch {
				newest = append(newest, tableRow{m.event, d.ref, m.set})
			}
		}
	}
	if err := c.writeLatest(ctx, newest); err != nil {
		return err
	}
	if len(late) > 0 {
		return c.merge(ctx, late)
	}
	return nil
}

// yield lets others run after some events: a batch takes tens of milliseconds, Go's own time slice is 10 ms, and requests
// wait for their acknowledgement meanwhile.
func yield(event int) {
	if event%64 == 63 {
		runtime.Gosched()
	}
}

// encode fills the copy buffers with the fresh rows, in the order of the primary key, in which PostgreSQL finds its way
// through the index fastest.
func (c *Claim) encode() {
	slices.SortFunc(c.fresh, func(a, b tableRow) int {
		if a.ref != b.ref {
			return int(a.ref) - int(b.ref)
		}
		return cmp.Compare(a.event.Time, b.event.Time)
	})
	for i, r := range c.fresh {
		yield(i)
		day := c.store.days.key(r.event.Time)
		b := c.copies[day]
		if b == nil {
			b = &copyBuffer{}
			c.copies[day] = b
		}
		b.event(r.event, r.ref, r.set)
	}
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

// raise moves a device's high-water mark to t, for undo to take back.
func (c *Claim) raise(d *device, t telemetry.Micros) {
	if d.raised != c.batch {
		d.raised = c.batch
		c.raised = append(c.raised, raised{d, d.high})
	}
	d.high = max(d.high, t)
}

// copy copies the rows of b and returns how many the database says it took.
func (c *Claim) copy(ctx context.Context, table, columns string, b *copyBuffer) (int64, error) {
	tag, err := c.conn.PgConn().CopyFrom(ctx, bytes.NewReader(b.finish()), "COPY "+table+" ("+columns+") FROM STDIN BINARY")
	if err != nil {
		return 0, fmt.Errorf("copying %d rows to %s: %w", b.rows, table, err)
	}
	return tag.RowsAffected(), nil
}

// fewRows is how many rows go in statements of their own, in one round trip. Staging more is cheaper; but rows that were
// staged and deleted in a transaction are in the way until it ends, and a batch that is halved down stages thousands of times.
const fewRows = 4

// tableRow is a row of telemetry, or of telemetry_latest, in the making.
type tableRow struct {
	event    *telemetry.Event
	ref, set int32
}

// writeLatest moves telemetry_latest forward.
func (c *Claim) writeLatest(ctx context.Context, rows []tableRow) error {
	const conflict = ` ON CONFLICT (device_ref, set_id) DO UPDATE
		SET time = excluded.time, vals = excluded.vals, quality = excluded.quality, source = excluded.source WHERE excluded.time >= l.time`
	failed := func(err error) error { return fmt.Errorf("writing the latest values: %w", err) }
	if len(rows) == 0 {
		return nil
	}
	if len(rows) <= fewRows {
		var b pgx.Batch
		for _, r := range rows {
			e := r.event
			b.Queue("INSERT INTO telemetry_latest AS l VALUES ($1, $2, $3, $4, $5, $6)"+conflict,
				r.ref, r.set, e.Time.Time(), floats(e.Values), qualities(e.Quality), text(e.Source))
		}
		if err := c.conn.SendBatch(ctx, &b).Close(); err != nil {
			return failed(err)
		}
		return nil
	}
	c.stage.reset()
	for _, r := range rows {
		c.stage.latest(r.event, r.ref, r.set)
	}
	if _, err := c.copy(ctx, "stage_latest", latestColumns, &c.stage); err != nil {
		return err
	}
	if err := c.exec(ctx, "INSERT INTO telemetry_latest AS l SELECT * FROM stage_latest ORDER BY device_ref, set_id"+conflict+"; DELETE FROM stage_latest"); err != nil {
		return failed(err)
	}
	return nil
}

// floats, qualities and text are values of an event as parameters, like those that copyBuffer writes.
func floats(values []float64) []pgtype.Float8 {
	list := make([]pgtype.Float8, len(values))
	for i, v := range values {
		list[i] = pgtype.Float8{Float64: v, Valid: !math.IsNaN(v)}
	}
	return list
}

func qualities(q []byte) []int16 {
	if q == nil {
		return nil
	}
	list := make([]int16, len(q))
	for i, v := range q {
		list[i] = int16(v)
	}
	return list
}

func text(s []byte) pgtype.Text { return pgtype.Text{String: string(s), Valid: len(s) > 0} }

// identifiers of the columns that copyBuffer writes, in its order.
var (
	telemetryColumns = strings.Join([]string{"time", "received_at", "device_ref", "set_id", "vals", "quality", "source", "event_id", "attributes"}, ", ")
	latestColumns    = strings.Join([]string{"device_ref", "set_id", "time", "vals", "quality", "source"}, ", ")
)
