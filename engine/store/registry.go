package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// ErrNoSchema says that the database was never migrated.
var ErrNoSchema = errors.New("the database has no registry yet: the first 'nsready apply' or 'nsready up' makes it")

// LoadRegistry reads the whole registry as it is at one moment: retired and unmanaged objects too.
// Addresses follow from names. A parameter template whose key names no project has its whole key as its path.
// Rows written by other programs are read leniently: what cannot be understood takes its default.
// A database without tables yields ErrNoSchema; tables that are not as this program knows them, and rows that belong to
// nothing, an *UnreadableError.
func (s *Store) LoadRegistry(ctx context.Context) (*registry.Snapshot, error) {
	var snapshot *registry.Snapshot
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		snapshot, err = loadRegistry(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the registry: %w", s.schemaError(ctx, err))
	}
	return snapshot, nil
}

// loadRegistry reads the registry as a transaction sees it.
func loadRegistry(ctx context.Context, tx pgx.Tx) (*registry.Snapshot, error) {
	l := loader{ctx: ctx, conn: tx.Conn().PgConn()}
	for _, step := range []struct {
		table string
		load  func() error
	}{
		{"registry_state", l.loadState}, {"customers", l.loadCustomers}, {"projects", l.loadProjects}, {"sites", l.loadSites},
		{"devices", l.loadDevices}, {"parameter_templates", l.loadParameters}, {"thresholds", l.loadThresholds},
		{"platform_thresholds", l.loadPlatform}, {"retention", l.loadRetention}, {"limits", l.loadLimits}, {"policy", l.loadPolicy}, {"discovery", l.loadDiscovery},
	} {
		if err := step.load(); err != nil {
			if unreadable := (*UnreadableError)(nil); errors.As(err, &unreadable) {
				unreadable.Table = step.table
				return nil, unreadable
			}
			return nil, fmt.Errorf("table %s: %w", step.table, err)
		}
	}
	snapshot := registry.NewSnapshot(l.objects)
	snapshot.Registry, snapshot.Version, snapshot.Revision, snapshot.AppliedRevision = l.id, l.version, l.revision, l.applied
	return snapshot, nil
}

// UnreadableError says that the registry is there and cannot be read. Its text holds nothing that is secret.
type UnreadableError struct {
	Table    string // "" when it is the schema as a whole
	Reason   string
	Outdated bool // the schema is older than this program, and Migrate brings it up to date
}

func (e *UnreadableError) Error() string {
	if e.Table == "" {
		return e.Reason
	}
	return "table " + e.Table + ": " + e.Reason
}

// loader gathers objects, table by table, parents first.
type loader struct {
	ctx  context.Context
	conn *pgconn.PgConn

	id                         uuid.UUID
	version, revision, applied int64

	objects    []registry.Object
	customers  map[uuid.UUID]registry.Address
	projects   map[uuid.UUID]registry.Address
	sites      map[uuid.UUID]*site
	parameters map[string]registry.Address    // by key
	names      map[string]string              // few values in many rows: types, states, units
	lists      map[string][]string            // parameters of devices, by their binary form
	overrides  map[string][]registry.Override // of devices, by their JSON
}

type site struct {
	addr    registry.Address
	project uuid.UUID
	devices []*registry.Device
}

// row is the columns of one result row in binary form, nil for null. It is valid until the next row. A column of another
// type than it is asked for as reads as null, and fails the load.
type row struct {
	values [][]byte
	fields []pgconn.FieldDescription
	failed *error
}

func (r row) fail(format string, args ...any) {
	if *r.failed == nil {
		*r.failed = &UnreadableError{Reason: fmt.Sprintf(format, args...)}
	}
}

// column returns a column that has one of some types, which all look the same in binary form.
func (r row) column(i int, types ...uint32) []byte {
	if slices.Contains(types, r.fields[i].DataTypeOID) {
		return r.values[i]
	}
	r.fail("column %s is of type %s, and should be %s", r.fields[i].Name, typeName(r.fields[i].DataTypeOID), typeName(types[0]))
	return nil
}

// present is a column that is never null.
func (r row) present(i int, kind uint32) []byte {
	v := r.column(i, kind)
	if v == nil {
		r.fail("column %s is null", r.fields[i].Name)
	}
	return v
}

func typeName(oid uint32) string {
	if t, ok := pgtype.NewMap().TypeForOID(oid); ok {
		return t.Name
	}
	return fmt.Sprint("number ", oid)
}

func (r row) uuid(i int) (id uuid.UUID) {
	copy(id[:], r.present(i, pgtype.UUIDOID))
	return id
}

func (r row) bool(i int) bool {
	b := r.column(i, pgtype.BoolOID)
	return len(b) == 1 && b[0] != 0
}

func (r row) int32(i int) int32 {
	if b := r.present(i, pgtype.Int4OID); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r row) int64(i int) int64 {
	if b := r.present(i, pgtype.Int8OID); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r row) micros(i int) telemetry.Micros {
	v := r.present(i, pgtype.TimestamptzOID)
	if v == nil {
		return 0
	}
	return telemetry.Micros(binary.BigEndian.Uint64(v)) + pgEpoch
}

func (r row) bytes(i int) []byte {
	return r.column(i, pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID)
}

func (r row) text(i int) string { return string(r.bytes(i)) }

// float takes a null for 0, and what is no finite number, too.
func (r row) float(i int) float64 { return r.bound(i).Value }

// bound takes a null, and what is no finite number, for none.
func (r row) bound(i int) registry.Bound {
	b := r.column(i, pgtype.Float8OID)
	if b == nil {
		return registry.Bound{}
	}
	v := math.Float64frombits(binary.BigEndian.Uint64(b))
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return registry.Bound{}
	}
	return registry.BoundOf(v)
}

func (r row) count(i int) int64 {
	if r.values[i] == nil {
		return 0
	}
	return r.int64(i)
}

// rate reads two columns.
func (r row) rate(i int) registry.Rate {
	return registry.Rate{PerSecond: r.float(i), Burst: r.count(i + 1)}
}

// json returns a jsonb column's text without the leading format version.
func (r row) json(i int) []byte {
	if b := r.column(i, pgtype.JSONBOID); len(b) > 0 {
		return b[1:]
	}
	return nil
}

// object returns a jsonb column in canonical form, or as it is when it is no object.
func (r row) object(i int) string {
	text := r.json(i)
	canonical, err := registry.CanonicalJSON(text)
	if err != nil {
		return string(text)
	}
	return canonical
}

// status reads columns managed, managed_by and "retired_at IS NOT NULL".
func (l *loader) status(r row, i int) registry.Status {
	s := registry.Status{Managed: r.bool(i), Retired: r.bool(i + 2)}
	if s.Managed {
		s.Owner = l.name(r.bytes(i + 1))
	}
	return s
}

func (r row) lifecycle(i int) registry.Lifecycle {
	return registry.Lifecycle{PreventDestroy: r.bool(i)}
}

// seconds turns a number of seconds into a duration, exactly the one that an apply stored: of many days a float64 holds
// microseconds.
func seconds(s float64) time.Duration {
	const most = float64(math.MaxInt64 / int64(time.Second))
	if !(math.Abs(s) < most) { // NaN too
		return 0
	}
	whole, part := math.Modf(s)
	d := time.Duration(whole)*time.Second + time.Duration(math.Round(part*1e9))
	for _, unit := range []time.Duration{time.Millisecond, time.Microsecond} {
		if round := d.Round(unit); round.Seconds() == s {
			return round
		}
	}
	return d
}

// each calls f for each row of the result, in binary form.
func (l *loader) each(sql string, f func(row)) error {
	result := l.conn.ExecParams(l.ctx, sql, nil, nil, nil, []int16{pgx.BinaryFormatCode})
	var unreadable error
	for result.NextRow() {
		f(row{result.Values(), result.FieldDescriptions(), &unreadable})
		if unreadable != nil {
			break
		}
	}
	if _, err := result.Close(); err != nil {
		return err
	}
	return unreadable
}

// name returns a text column's value, allocated once for all rows.
func (l *loader) name(b []byte) string {
	if s, ok := l.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(l.names) < 4096 {
		l.names[s] = s
	}
	return s
}

func (l *loader) loadState() error {
	l.customers, l.projects = map[uuid.UUID]registry.Address{}, map[uuid.UUID]registry.Address{}
	l.sites, l.parameters = map[uuid.UUID]*site{}, map[string]registry.Address{}
	l.names, l.lists, l.overrides = map[string]string{}, map[string][]string{}, map[string][]registry.Override{}
	there := false
	err := l.each(`SELECT s.revision, coalesce(v.version, 0)::bigint, coalesce(c.settled, 0), s.registry_id FROM registry_state s
		LEFT JOIN (SELECT id, version FROM registry_versions
			WHERE project_id IS NULL AND version IS NOT NULL ORDER BY version DESC LIMIT 1) v ON true
		LEFT JOIN registry_changes c ON c.version_id = v.id`,
		func(r row) {
			l.revision, l.version, l.applied, l.id, there = r.int64(0), r.int64(1), r.int64(2), r.uuid(3), true
		})
	if err == nil && !there {
		return errNoState()
	}
	return err
}

func (l *loader) loadCustomers() error {
	return l.each(`SELECT c.id, c.name, c.managed, c.managed_by, c.retired_at IS NOT NULL, p.name, c.metadata,
		c.events_per_second, c.burst, c.device_events_per_second, c.device_burst, c.prevent_destroy
		FROM customers c LEFT JOIN customers p ON p.id = c.parent_customer_id`, func(r row) {
		c := &registry.Customer{
			Status: l.status(r, 2), Lifecycle: r.lifecycle(11), Addr: registry.NewAddress(registry.KindCustomer, r.text(1)), ID: r.uuid(0),
			Parent: r.text(5), Metadata: r.object(6), Rate: r.rate(7), DeviceRate: r.rate(9),
		}
		l.customers[c.ID] = c.Addr
		l.objects = append(l.objects, c)
	})
}

func (l *loader) loadProjects() error {
	return l.each(`SELECT id, name, managed, managed_by, retired_at IS NOT NULL, customer_id, description, prevent_destroy FROM projects`, func(r row) {
		if _, ok := l.customers[r.uuid(5)]; !ok {
			r.fail("the project %s is of the customer %s, which does not exist", r.uuid(0), r.uuid(5))
			return
		}
		p := &registry.Project{
			Status: l.status(r, 2), Lifecycle: r.lifecycle(7), Addr: l.customers[r.uuid(5)].Child(registry.KindProject, r.text(1)), ID: r.uuid(0),
			Description: r.text(6),
		}
		l.projects[p.ID] = p.Addr
		l.objects = append(l.objects, p)
	})
}

func (l *loader) loadSites() error {
	return l.each(`SELECT id, name, managed, managed_by, retired_at IS NOT NULL, project_id, location, prevent_destroy FROM sites`, func(r row) {
		project := r.uuid(5)
		if _, ok := l.projects[project]; !ok {
			r.fail("the site %s is of the project %s, which does not exist", r.uuid(0), project)
			return
		}
		s := &registry.Site{
			Status: l.status(r, 2), Lifecycle: r.lifecycle(7), Addr: l.projects[project].Child(registry.KindSite, r.text(1)), ID: r.uuid(0),
			Location: r.object(6),
		}
		l.sites[s.ID] = &site{addr: s.Addr, project: project}
		l.objects = append(l.objects, s)
	})
}

// loadDevices is the one that must be quick: devices are many. It hands them over in order of address, so that
// registry.NewSnapshot finds them sorted; sorting them site by site is several times faster.
func (l *loader) loadDevices() error {
	var free []registry.Device // devices are allocated many at a time
	var current *site
	var currentID uuid.UUID
	count, gateways := 0, map[uuid.UUID]registry.Address{}
	err := l.each(`SELECT id, name, managed, managed_by, retired_at IS NOT NULL, site_id, device_type, external_id, status, ref,
		reporting_interval_seconds, parameters, events_per_second, burst, prevent_destroy, gateway_id, overrides FROM devices`, func(r row) {
		if len(free) == 0 {
			free = make([]registry.Device, 256)
		}
		d := &free[0]
		free = free[1:]
		d.SiteID = r.uuid(5)
		if current == nil || currentID != d.SiteID {
			current, currentID = l.sites[d.SiteID], d.SiteID
		}
		if current == nil {
			r.fail("the device %s is of the site %s, which does not exist", r.uuid(0), d.SiteID)
			return
		}
		d.Status, d.ID, d.Ref, d.ProjectID = l.status(r, 2), r.uuid(0), r.int32(9), current.project
		d.Addr = current.addr.Child(registry.KindDevice, r.text(1))
		d.Type, d.ExternalID, d.State = l.name(r.bytes(6)), r.text(7), l.name(r.bytes(8))
		d.Interval, d.Parameters = seconds(r.float(10)), l.list(r.column(11, pgtype.TextArrayOID, pgtype.VarcharArrayOID))
		d.Rate, d.Lifecycle, d.Overrides = r.rate(12), r.lifecycle(14), l.overridden(r.json(16))
		if r.values[15] != nil {
			d.GatewayID = r.uuid(15)
			gateways[d.GatewayID] = registry.Address{}
		}
		current.devices = append(current.devices, d)
		count++
	})
	byPath := func(a, b *registry.Device) int { return strings.Compare(a.Addr.Path, b.Addr.Path) }
	l.objects = slices.Grow(l.objects, count)
	if len(gateways) > 0 {
		l.nameGateways(gateways)
	}
	sites := slices.Collect(maps.Values(l.sites))
	slices.SortFunc(sites, func(a, b *site) int { return strings.Compare(a.addr.Path+"/", b.addr.Path+"/") })
	for _, s := range sites {
		slices.SortFunc(s.devices, byPath)
		for _, d := range s.devices {
			l.objects = append(l.objects, d)
		}
	}
	return err
}

// nameGateways gives devices the addresses of the gateways that have these ids.
func (l *loader) nameGateways(addresses map[uuid.UUID]registry.Address) {
	for _, s := range l.sites {
		for _, d := range s.devices {
			if _, wanted := addresses[d.ID]; wanted {
				addresses[d.ID] = d.Addr
			}
		}
	}
	for _, s := range l.sites {
		for _, d := range s.devices {
			if d.GatewayID != uuid.Nil {
				d.Gateway = addresses[d.GatewayID]
			}
		}
	}
}

// list reads a text[] in binary form, sorted; nil for null and for none. The same array yields the same slice.
func (l *loader) list(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	if list, ok := l.lists[string(b)]; ok {
		return list
	}
	list := textArray(b)
	slices.Sort(list)
	l.lists[string(b)] = list
	return list
}

// textArray reads what array_send writes (arrayfuncs.c): number of dimensions, null flag, element type, then length and
// lower bound of each dimension, then the elements with their sizes. Nulls are left out.
func textArray(b []byte) (list []string) {
	dimensions := int(binary.BigEndian.Uint32(b))
	for b = b[12+8*dimensions:]; len(b) > 0; {
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if size >= 0 {
			list = append(list, string(b[:size]))
			b = b[size:]
		}
	}
	return list
}

func (l *loader) loadParameters() error {
	projects := make(map[string]registry.Address, len(l.projects))
	for id, addr := range l.projects {
		projects[registry.ParameterKey(id, "")] = addr
	}
	return l.each(`SELECT id, key, managed, managed_by, retired_at IS NOT NULL, name, unit, metadata, prevent_destroy FROM parameter_templates`, func(r row) {
		p := &registry.Parameter{Status: l.status(r, 2), Lifecycle: r.lifecycle(8), ID: r.uuid(0), Key: r.text(1), Name: r.text(5), Unit: l.name(r.bytes(6))}
		p.Addr = parameterAddress(projects, p.Key)
		parseTemplate(p, r.json(7))
		l.parameters[p.Key] = p.Addr
		l.objects = append(l.objects, p)
	})
}

// parameterAddress finds the project by the key's text up to the short name, as registry.ParameterKey writes it.
func parameterAddress(projects map[string]registry.Address, key string) registry.Address {
	if end := len("project:") + len(uuid.Nil.String()) + len(":"); len(key) > end {
		if project, ok := projects[key[:end]]; ok {
			return project.Child(registry.KindParameter, key[end:])
		}
	}
	return registry.NewAddress(registry.KindParameter, key)
}

// parseTemplate fills in what the metadata of a parameter template says. Its attributes may be missing, null, of
// another type or misspelt: then they have their default.
func parseTemplate(p *registry.Parameter, metadata []byte) {
	var m struct {
		DType          any `json:"dtype"`
		Min            any `json:"min"`
		Max            any `json:"max"`
		Required       any `json:"required"`
		Description    any `json:"description"`
		Precision      any `json:"precision"`
		Interval       any `json:"interval_seconds"`
		StaleAfter     any `json:"stale_after_seconds"`
		OnViolation    any `json:"on_violation"`
		DefaultQuality any `json:"default_quality"`
	}
	// What does not decode, such as an array or a null, leaves m empty.
	_ = json.Unmarshal(metadata, &m)
	switch t, _ := m.DType.(string); strings.ToLower(t) {
	case "int", "integer":
		p.Type = registry.TypeInt
	case "bool", "boolean":
		p.Type = registry.TypeBool
	default:
		p.Type = registry.TypeFloat
	}
	p.Min, p.Max = jsonBound(m.Min), jsonBound(m.Max)
	p.Required = jsonTruth(m.Required)
	p.Description, _ = m.Description.(string)
	p.Precision = jsonBound(m.Precision)
	p.Interval, p.StaleAfter = seconds(jsonBound(m.Interval).Value), seconds(jsonBound(m.StaleAfter).Value)
	switch v, _ := m.OnViolation.(string); registry.Violation(v) {
	case registry.Reject, registry.Accept:
		p.OnViolation = registry.Violation(v)
	default:
		p.OnViolation = registry.Flag
	}
	if q := jsonBound(m.DefaultQuality).Value; q >= 0 && q <= 255 {
		p.Quality = uint8(q)
	}
}

// jsonBound accepts a number and a number in quotes.
func jsonBound(v any) registry.Bound {
	switch v := v.(type) {
	case float64:
		return registry.BoundOf(v)
	case string:
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return registry.BoundOf(f)
		}
	}
	return registry.Bound{}
}

// jsonTruth accepts what the original platform took for true.
func jsonTruth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case float64:
		return v == 1
	case string:
		return slices.Contains([]string{"true", "t", "yes", "y", "1"}, strings.ToLower(strings.TrimSpace(v)))
	}
	return false
}

func (l *loader) loadThresholds() error {
	return l.each(`SELECT id, parameter_key, name, managed, managed_by, false, above, below, for_seconds, deadband, severity FROM thresholds`, func(r row) {
		t := &registry.Threshold{
			Status: l.status(r, 3), ID: r.uuid(0), ParameterKey: r.text(1),
			Above: r.bound(6), Below: r.bound(7), For: seconds(r.float(8)), Deadband: r.float(9), Severity: l.name(r.bytes(10)),
		}
		parameter, ok := l.parameters[t.ParameterKey]
		if !ok {
			r.fail("the threshold %s is of the parameter %q, which does not exist", t.ID, t.ParameterKey)
			return
		}
		t.Addr = parameter.Child(registry.KindThreshold, r.text(2))
		l.objects = append(l.objects, t)
	})
}

func (l *loader) loadPlatform() error {
	return l.each(`SELECT metric, managed, managed_by, false, warning, critical FROM platform_thresholds`, func(r row) {
		l.objects = append(l.objects, &registry.Platform{
			Status: l.status(r, 1), Addr: registry.NewAddress(registry.KindPlatform, r.text(0)), Warning: r.bound(4), Critical: r.bound(5),
		})
	})
}

func (l *loader) loadRetention() error {
	return l.each(`SELECT managed, managed_by, false, raw_seconds, compress_after_seconds FROM retention`, func(r row) {
		l.objects = append(l.objects, &registry.Retention{
			Status: l.status(r, 0), Addr: registry.RetentionAddress, Raw: seconds(r.float(3)), CompressAfter: seconds(r.float(4)),
		})
	})
}

func (l *loader) loadLimits() error {
	return l.each(`SELECT managed, managed_by, false, connections, connections_per_address, device_events_per_second, device_burst,
		customer_events_per_second, customer_burst FROM limits`, func(r row) {
		l.objects = append(l.objects, &registry.Limits{
			Status: l.status(r, 0), Addr: registry.LimitsAddress, Connections: r.count(3), ConnectionsPerAddress: r.count(4),
			Device: r.rate(5), Customer: r.rate(7),
		})
	})
}

func (l *loader) loadPolicy() error {
	return l.each(`SELECT managed, managed_by, false, require_saved_plan FROM policy`, func(r row) {
		l.objects = append(l.objects, &registry.Policy{Status: l.status(r, 0), Addr: registry.PolicyAddress, RequireSavedPlan: r.bool(3)})
	})
}

func (l *loader) loadDiscovery() error {
	return l.each(`SELECT managed, managed_by, false, hold_seconds, max_devices, max_events, max_events_per_device FROM discovery`, func(r row) {
		l.objects = append(l.objects, &registry.Discovery{
			Status: l.status(r, 0), Addr: registry.DiscoveryAddress, Hold: seconds(r.float(3)), MaxDevices: r.count(4), MaxEvents: r.count(5), MaxEventsPerDevice: r.count(6),
		})
	})
}
