package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
)

// table says how the objects of one kind are written: their rows are copied to a staging table, stage_<name>, and from
// there update the rows that are there and insert the others.
type table struct {
	kind    registry.Kind
	name    string
	columns []string                                 // of the staging table and of the table: name and type; the first is what objectID returns
	extra   []string                                 // of the staging table alone
	key     []string                                 // the columns that say which row is the object's
	resolve string                                   // SQL that completes the staging table
	place   []string                                 // the columns that say where the object is, its name the last; nil for what never moves
	retired string                                   // what retiring sets; "" when rows are deleted instead
	row     func(*copyBuffer, registry.Object) error // appends columns and extra
}

// tables in the order of writing, parents first.
var tables = []*table{
	{
		kind: registry.KindPlatform, name: "platform_thresholds", key: []string{"metric"},
		columns: []string{"metric text", "warning double precision", "critical double precision"},
		row: func(c *copyBuffer, o registry.Object) error {
			p := o.(*registry.Platform)
			c.string(p.Addr.Name())
			c.bound(p.Warning)
			c.bound(p.Critical)
			return nil
		},
	},
	{
		kind: registry.KindRetention, name: "retention", key: []string{"id"},
		columns: []string{"id boolean", "raw_seconds double precision", "compress_after_seconds double precision"},
		row: func(c *copyBuffer, o registry.Object) error {
			r := o.(*registry.Retention)
			c.bool(true)
			c.float8(r.Raw.Seconds())
			c.seconds(r.CompressAfter)
			return nil
		},
	},
	{
		kind: registry.KindLimits, name: "limits", key: []string{"id"},
		columns: []string{
			"id boolean", "connections bigint", "connections_per_address bigint", "device_events_per_second double precision", "device_burst bigint",
			"customer_events_per_second double precision", "customer_burst bigint",
		},
		row: func(c *copyBuffer, o registry.Object) error {
			l := o.(*registry.Limits)
			c.bool(true)
			c.count(l.Connections)
			c.count(l.ConnectionsPerAddress)
			c.rate(l.Device)
			c.rate(l.Customer)
			return nil
		},
	},
	{
		kind: registry.KindPolicy, name: "policy", key: []string{"id"},
		columns: []string{"id boolean", "require_saved_plan boolean"},
		row: func(c *copyBuffer, o registry.Object) error {
			c.bool(true)
			c.bool(o.(*registry.Policy).RequireSavedPlan)
			return nil
		},
	},
	{
		kind: registry.KindDiscovery, name: "discovery", key: []string{"id"},
		columns: []string{"id boolean", "hold_seconds double precision", "max_devices bigint", "max_events bigint", "max_events_per_device bigint"},
		row: func(c *copyBuffer, o registry.Object) error {
			d := o.(*registry.Discovery)
			c.bool(true)
			c.seconds(d.Hold)
			c.count(d.MaxDevices)
			c.count(d.MaxEvents)
			c.count(d.MaxEventsPerDevice)
			return nil
		},
	},
	{
		kind: registry.KindCustomer, name: "customers", key: []string{"id"}, place: []string{"name"}, retired: "retired_at = now()",
		columns: []string{
			"id uuid", "name text", "metadata jsonb", "events_per_second double precision", "burst bigint",
			"device_events_per_second double precision", "device_burst bigint", "prevent_destroy boolean",
		},
		extra: []string{"parent text"},
		row: func(c *copyBuffer, o registry.Object) error {
			customer := o.(*registry.Customer)
			c.uuid(customer.ID)
			c.string(customer.Addr.Name())
			c.object(customer.Metadata)
			c.rate(customer.Rate)
			c.rate(customer.DeviceRate)
			c.bool(customer.PreventDestroy)
			c.text([]byte(customer.Parent))
			return nil
		},
	},
	{
		kind: registry.KindProject, name: "projects", key: []string{"id"}, place: []string{"customer_id", "name"}, retired: "retired_at = now()",
		columns: []string{"id uuid", "customer_id uuid", "name text", "description text", "prevent_destroy boolean"}, extra: []string{"customer text"},
		resolve: `UPDATE stage_projects s SET customer_id = c.id FROM customers c WHERE c.name = s.customer`,
		row: func(c *copyBuffer, o registry.Object) error {
			p := o.(*registry.Project)
			names := p.Addr.Names()
			c.uuid(p.ID)
			c.null()
			c.string(names[1])
			c.text([]byte(p.Description))
			c.bool(p.PreventDestroy)
			c.string(names[0])
			return nil
		},
	},
	{
		kind: registry.KindSite, name: "sites", key: []string{"id"}, place: []string{"project_id", "name"}, retired: "retired_at = now()",
		columns: []string{"id uuid", "project_id uuid", "name text", "location jsonb", "prevent_destroy boolean"},
		extra:   []string{"customer text", "project text"},
		resolve: `UPDATE stage_sites s SET project_id = p.id FROM projects p JOIN customers c ON c.id = p.customer_id
			WHERE (c.name, p.name) = (s.customer, s.project)`,
		row: func(c *copyBuffer, o registry.Object) error {
			s := o.(*registry.Site)
			names := s.Addr.Names()
			c.uuid(s.ID)
			c.null()
			c.string(names[2])
			c.object(s.Location)
			c.bool(s.PreventDestroy)
			c.string(names[0])
			c.string(names[1])
			return nil
		},
	},
	{
		// Known by its key: a template that another program left behind when it deleted the project is adopted.
		kind: registry.KindParameter, name: "parameter_templates", key: []string{"key"}, place: []string{"key"}, retired: "retired_at = now()",
		columns: []string{"id uuid", "key text", "name text", "unit text", "metadata jsonb", "prevent_destroy boolean"},
		row: func(c *copyBuffer, o registry.Object) error {
			p := o.(*registry.Parameter)
			metadata, err := templateMetadata(p)
			if err != nil {
				return err
			}
			c.uuid(p.ID)
			c.string(p.Key)
			c.string(p.Name)
			c.text([]byte(p.Unit))
			c.jsonb(metadata)
			c.bool(p.PreventDestroy)
			return nil
		},
	},
	{
		kind: registry.KindThreshold, name: "thresholds", key: []string{"parameter_key", "name"}, place: []string{"parameter_key", "name"},
		columns: []string{
			"id uuid", "parameter_key text", "name text", "above double precision", "below double precision",
			"for_seconds double precision", "deadband double precision", "severity text",
		},
		row: func(c *copyBuffer, o registry.Object) error {
			t := o.(*registry.Threshold)
			c.uuid(t.ID)
			c.string(t.ParameterKey)
			c.string(t.Addr.Name())
			c.bound(t.Above)
			c.bound(t.Below)
			c.float8(t.For.Seconds())
			c.float8(t.Deadband)
			c.string(t.Severity)
			return nil
		},
	},
	{
		// A retired device gives its external id up, so that its replacement may take it.
		kind: registry.KindDevice, name: "devices", key: []string{"id"}, place: []string{"site_id", "name"}, retired: "retired_at = now(), external_id = NULL",
		columns: []string{
			"id uuid", "site_id uuid", "name text", "device_type text", "external_id text", "status text",
			"reporting_interval_seconds double precision", "parameters text[]", "events_per_second double precision", "burst bigint",
			"prevent_destroy boolean", "gateway_id uuid", "overrides jsonb",
		},
		row: func(c *copyBuffer, o registry.Object) error {
			d := o.(*registry.Device)
			c.uuid(d.ID)
			c.uuid(d.SiteID)
			c.string(d.Addr.Name())
			c.string(d.Type)
			c.text([]byte(d.ExternalID))
			c.string(d.State)
			c.seconds(d.Interval)
			c.texts(d.Parameters)
			c.rate(d.Rate)
			c.bool(d.PreventDestroy)
			if d.GatewayID == uuid.Nil {
				c.null()
			} else {
				c.uuid(d.GatewayID)
			}
			return c.overrides(d)
		},
	},
}

// template is the metadata of a parameter template, as the original platform names it, and ours.
type template struct {
	ProjectID      string             `json:"project_id"`
	DType          registry.DataType  `json:"dtype"`
	Min            *float64           `json:"min"`
	Max            *float64           `json:"max"`
	Required       bool               `json:"required"`
	Description    *string            `json:"description"`
	Precision      *float64           `json:"precision"`
	Interval       *float64           `json:"interval_seconds"`
	StaleAfter     *float64           `json:"stale_after_seconds"`
	OnViolation    registry.Violation `json:"on_violation"`
	DefaultQuality uint8              `json:"default_quality"`
}

func templateMetadata(p *registry.Parameter) ([]byte, error) {
	t := template{DType: p.Type, Required: p.Required, OnViolation: p.OnViolation, DefaultQuality: p.Quality}
	if parts := strings.SplitN(p.Key, ":", 3); len(parts) == 3 {
		t.ProjectID = parts[1]
	}
	if p.Min.Set {
		t.Min = &p.Min.Value
	}
	if p.Max.Set {
		t.Max = &p.Max.Value
	}
	if p.Description != "" {
		t.Description = &p.Description
	}
	if p.Precision.Set {
		t.Precision = &p.Precision.Value
	}
	if seconds := p.Interval.Seconds(); seconds != 0 {
		t.Interval = &seconds
	}
	if seconds := p.StaleAfter.Seconds(); seconds != 0 {
		t.StaleAfter = &seconds
	}
	metadata, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Addr, err)
	}
	return metadata, nil
}

// put creates and updates the objects of changes.
func (t *table) put(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	if len(changes) == 0 {
		return nil
	}
	if err := t.stage(ctx, tx, changes); err != nil {
		return err
	}
	if err := t.move(ctx, tx, changes); err != nil {
		return err
	}
	// Updates come first and all at once: devices swap external ids, and new ones take what was freed.
	updated, err := tx.Exec(ctx, t.update())
	if err != nil {
		return err
	}
	inserted, err := tx.Exec(ctx, t.insert())
	if err != nil {
		return err
	}
	if n := updated.RowsAffected() + inserted.RowsAffected(); n != int64(len(changes)) {
		return fmt.Errorf("%d of %d rows could be written: ids of the plan are not those of the registry", n, len(changes))
	}
	return nil
}

// moves reports whether a change gives its object another address.
func moves(c *registry.Change) bool { return c.From != nil }

// move puts the rows of moved objects where they go. All leave their old places first: they may follow one another.
func (t *table) move(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	if !slices.ContainsFunc(changes, moves) {
		return nil
	}
	name := t.place[len(t.place)-1]
	if _, err := tx.Exec(ctx, `UPDATE `+t.name+` t SET `+name+` = 'moving ' || t.id FROM stage_`+t.name+` s WHERE t.id = s.id AND s.moved`); err != nil {
		return err
	}
	var set []string
	for _, column := range t.place {
		set = append(set, column+" = s."+column)
	}
	_, err := tx.Exec(ctx, `UPDATE `+t.name+` t SET `+strings.Join(set, ", ")+` FROM stage_`+t.name+` s WHERE t.id = s.id AND s.moved`)
	return err
}

// stage copies the objects of changes to the staging table. Its column fresh tells a create from an update, moved an object
// that comes from another place.
func (t *table) stage(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	columns := slices.Concat([]string{"fresh boolean", "moved boolean", "managed_by text"}, t.columns, t.extra)
	if _, err := tx.Exec(ctx, `CREATE TEMP TABLE stage_`+t.name+` (`+strings.Join(columns, ", ")+`) ON COMMIT DROP`); err != nil {
		return err
	}
	var rows copyBuffer
	for _, c := range changes {
		rows.row(int16(len(columns)))
		rows.bool(c.Action == registry.Create)
		rows.bool(moves(c))
		rows.string(registry.OwnerOf(c.After))
		if err := t.row(&rows, c.After); err != nil {
			return err
		}
	}
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(rows.finish()), `COPY stage_`+t.name+` FROM STDIN BINARY`); err != nil {
		return err
	}
	if t.resolve == "" {
		return nil
	}
	_, err := tx.Exec(ctx, t.resolve)
	return err
}

// update returns the SQL that updates the rows that are there. A create must not find its row alive.
func (t *table) update() string {
	var set []string
	for _, column := range names(t.columns) {
		switch {
		case column == "id" || slices.Contains(t.key, column):
		case t.kind == registry.KindParameter && column == "metadata": // keeps what others wrote there
			set = append(set, `metadata = CASE jsonb_typeof(t.metadata) WHEN 'object' THEN t.metadata ELSE '{}' END || s.metadata`)
		default:
			set = append(set, column+" = s."+column)
		}
	}
	where := tuple("t", t.key) + " = " + tuple("s", t.key)
	set = append(set, "managed = s.managed_by <> ''", "managed_by = nullif(s.managed_by, '')")
	if t.retired != "" {
		set = append(set, "retired_at = NULL")
		if t.kind != registry.KindParameter {
			where += " AND (t.retired_at IS NOT NULL OR NOT s.fresh)"
		}
	}
	return `UPDATE ` + t.name + ` t SET ` + strings.Join(set, ", ") + ` FROM stage_` + t.name + ` s WHERE ` + where
}

// insert returns the SQL that inserts the rows that are not there.
func (t *table) insert() string {
	columns := strings.Join(names(t.columns), ", ")
	return `INSERT INTO ` + t.name + ` (` + columns + `, managed, managed_by) SELECT ` + columns + `, managed_by <> '', nullif(managed_by, '') FROM stage_` + t.name + ` s
		WHERE fresh AND NOT EXISTS (SELECT FROM ` + t.name + ` t WHERE ` + tuple("t", t.key) + ` = ` + tuple("s", t.key) + `)`
}

// remove retires the objects of changes, or deletes those that are never retired.
func (t *table) remove(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	do := `DELETE FROM ` + t.name
	if t.retired != "" {
		do = `UPDATE ` + t.name + ` SET ` + t.retired
	}
	return t.exec(ctx, tx, do, changes)
}

// release leaves the objects of changes to others.
func (t *table) release(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	return t.exec(ctx, tx, `UPDATE `+t.name+` SET managed = false, managed_by = NULL`, changes)
}

// purge deletes the objects of changes.
func (t *table) purge(ctx context.Context, tx pgx.Tx, changes []*registry.Change) error {
	return t.exec(ctx, tx, `DELETE FROM `+t.name, changes)
}

// exec executes a statement without its condition, for the objects of changes.
func (t *table) exec(ctx context.Context, tx pgx.Tx, do string, changes []*registry.Change) error {
	if len(changes) == 0 {
		return nil
	}
	id, kind, _ := strings.Cut(t.columns[0], " ")
	_, err := tx.Exec(ctx, do+` WHERE `+id+` = ANY($1::text[]::`+kind+`[])`, idsOf(changes))
	return err
}

// idsOf returns what objectID returns for the objects that changes remove.
func idsOf(changes []*registry.Change) []string {
	ids := make([]string, len(changes))
	for i, c := range changes {
		ids[i] = objectID(c.Before)
	}
	return ids
}

// objectID returns the value of the table's first column for an object, as text.
func objectID(o registry.Object) string {
	if id := registry.IDOf(o); id != uuid.Nil {
		return id.String()
	}
	switch o.(type) {
	case *registry.Retention, *registry.Limits, *registry.Policy, *registry.Discovery:
		return "true"
	}
	return o.Address().Name()
}

// names returns the names of columns.
func names(columns []string) []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i], _, _ = strings.Cut(c, " ")
	}
	return list
}

// tuple writes columns of a table for a comparison.
func tuple(of string, columns []string) string {
	return "(" + of + "." + strings.Join(columns, ", "+of+".") + ")"
}

func (c *copyBuffer) string(s string) {
	c.int32(len(s))
	c.b = append(c.b, s...)
}

func (c *copyBuffer) uuid(id uuid.UUID) {
	c.int32(len(id))
	c.b = append(c.b, id[:]...)
}

func (c *copyBuffer) bool(v bool) {
	c.int32(1)
	if v {
		c.b = append(c.b, 1)
	} else {
		c.b = append(c.b, 0)
	}
}

func (c *copyBuffer) float8(v float64) {
	c.int32(8)
	c.b = binary.BigEndian.AppendUint64(c.b, math.Float64bits(v))
}

func (c *copyBuffer) bound(b registry.Bound) {
	if !b.Set {
		c.null()
		return
	}
	c.float8(b.Value)
}

// seconds writes 0 as null.
func (c *copyBuffer) seconds(d time.Duration) {
	if d == 0 {
		c.null()
		return
	}
	c.float8(d.Seconds())
}

// count writes 0 as null.
func (c *copyBuffer) count(n int64) {
	if n == 0 {
		c.null()
		return
	}
	c.int32(8)
	c.b = binary.BigEndian.AppendUint64(c.b, uint64(n))
}

// rate writes two columns, null for a rate that is not declared.
func (c *copyBuffer) rate(r registry.Rate) {
	if r == (registry.Rate{}) {
		c.null()
		c.null()
		return
	}
	c.float8(r.PerSecond)
	c.count(r.Burst)
}

// object writes a JSON object, {} for "".
func (c *copyBuffer) object(text string) {
	if text == "" {
		text = "{}"
	}
	c.jsonb([]byte(text))
}

// texts writes nil as null.
func (c *copyBuffer) texts(list []string) {
	if len(list) == 0 {
		c.null()
		return
	}
	size := 20
	for _, s := range list {
		size += 4 + len(s)
	}
	c.int32(size)
	c.int32(1) // dimensions
	c.int32(0) // no nulls
	c.int32(oidText)
	c.int32(len(list))
	c.int32(1) // lower bound
	for _, s := range list {
		c.string(s)
	}
}

const oidText = 25 // of the type text, from pg_type.dat
