// Package registry says what exists: customers, projects, sites, devices, parameter templates, thresholds and
// retention, as one immutable Snapshot; and how one Snapshot becomes another, as a Plan. It does no I/O.
package registry

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Object is one declared thing. The set of implementations is closed.
type Object interface {
	Address() Address
	// Fields are the attributes that a plan compares, in display order, in canonical text.
	// An unset attribute has the text ""; one of an override is left out.
	Fields() []Field

	id() uuid.UUID // zero for kinds that have none
	status() *Status
	setAddress(Address)
	clone() Object
}

// Field is one attribute of an object in canonical text.
type Field struct{ Name, Value string }

// Status is what the registry knows of an object beside its attributes. A declaration leaves it zero.
type Status struct {
	Managed bool   `json:"managed,omitzero"`    // created or adopted by an apply, rather than by the API or by SQL
	Owner   string `json:"managed_by,omitzero"` // name of the declaration that manages it; "" for DefaultOwner, or when none does
	Retired bool   `json:"retired,omitzero"`    // deleted from the declaration; its history stays
}

// DefaultOwner is the name of a declaration that does not say its own.
const DefaultOwner = "default"

// OwnerOf returns the name of the declaration that manages an object, "" when none does.
func OwnerOf(o Object) string {
	s := o.status()
	if !s.Managed {
		return ""
	}
	return cmp.Or(s.Owner, DefaultOwner)
}

// Lifecycle is what the block of that name says of an object.
type Lifecycle struct {
	PreventDestroy bool `json:"prevent_destroy,omitzero"` // no plan deletes it until an apply has taken this back
}

func (l Lifecycle) field() Field {
	if l.PreventDestroy {
		return Field{"lifecycle.prevent_destroy", "true"}
	}
	return Field{"lifecycle.prevent_destroy", ""}
}

func (l *Lifecycle) lifecycle() Lifecycle { return *l }

// lifecycleOf is zero for objects that have none.
func lifecycleOf(o Object) Lifecycle {
	if o, ok := o.(interface{ lifecycle() Lifecycle }); ok {
		return o.lifecycle()
	}
	return Lifecycle{}
}

// Customer is a tenant. Parent names the customer that groups it for reports; it is no access boundary.
type Customer struct {
	Status
	Lifecycle
	Addr     Address   `json:"address,omitzero"`
	ID       uuid.UUID `json:"id,omitzero"`
	Parent   string    `json:"parent,omitzero"`   // name of another customer, "" for none
	Metadata string    `json:"metadata,omitzero"` // JSON object in canonical form, "" for none

	Rate       Rate `json:"rate,omitzero"`        // of all its devices together; zero for that of Limits
	DeviceRate Rate `json:"device_rate,omitzero"` // of each of its devices; zero for that of Limits
}

// Project belongs to a customer.
type Project struct {
	Status
	Lifecycle
	Addr        Address   `json:"address,omitzero"`
	ID          uuid.UUID `json:"id,omitzero"`
	Description string    `json:"description,omitzero"`
}

// Site belongs to a project.
type Site struct {
	Status
	Lifecycle
	Addr     Address   `json:"address,omitzero"`
	ID       uuid.UUID `json:"id,omitzero"`
	Location string    `json:"location,omitzero"` // JSON object in canonical form, "" for none
}

// Device belongs to a site.
type Device struct {
	Status
	Lifecycle
	Addr       Address       `json:"address,omitzero"`
	ID         uuid.UUID     `json:"id,omitzero"`
	Ref        int32         `json:"ref,omitzero"`         // the registry's short number for it; 0 in a declaration
	Type       string        `json:"type,omitzero"`        // free text: meter, sensor, controller, …
	ExternalID string        `json:"external_id,omitzero"` // unique over the registry; "" for none
	State      string        `json:"status,omitzero"`      // free text: active, inactive, maintenance; ingest does not look at it
	Interval   time.Duration `json:"interval_ns,omitzero"`
	Parameters []string      `json:"parameters,omitzero"` // short names of the parameters it sends, sorted; nil when not declared
	Rate       Rate          `json:"rate,omitzero"`       // zero for that of its customer, or of Limits
	Overrides  []Override    `json:"overrides,omitzero"`  // of parameters of its project, none of them empty, sorted by their short names

	Gateway Address `json:"gateway,omitzero"` // the device that it is reached through, of the same customer; zero for none

	ProjectID uuid.UUID `json:"project_id,omitzero"`
	SiteID    uuid.UUID `json:"site_id,omitzero"`
	GatewayID uuid.UUID `json:"gateway_id,omitzero"`
}

// DataType is the type a parameter's values must have. They are stored as float64 whatever it is.
type DataType string

const (
	TypeFloat DataType = "float"
	TypeInt   DataType = "int"  // integral
	TypeBool  DataType = "bool" // 0 or 1
)

// Violation says what happens to a value outside its parameter's type or range.
type Violation string

const (
	Flag   Violation = "flag"   // stored with its quality lowered to telemetry.QualityUncertain
	Reject Violation = "reject" // the event is refused
	Accept Violation = "accept" // stored as sent
)

// Parameter is a parameter template of a project.
type Parameter struct {
	Status
	Lifecycle
	Addr        Address       `json:"address,omitzero"` // …/project/short name
	ID          uuid.UUID     `json:"id,omitzero"`
	Key         string        `json:"key,omitzero"`  // "project:<project id>:<short name>", unique over the registry
	Name        string        `json:"name,omitzero"` // for display
	Unit        string        `json:"unit,omitzero"`
	Type        DataType      `json:"type,omitzero"`
	Min         Bound         `json:"min,omitzero"`
	Max         Bound         `json:"max,omitzero"`
	Required    bool          `json:"required,omitzero"`
	Precision   Bound         `json:"precision,omitzero"`      // decimals that a value is shown with; stored ones stay whole
	Interval    time.Duration `json:"interval_ns,omitzero"`    // expected time between values; 0 when not declared
	StaleAfter  time.Duration `json:"stale_after_ns,omitzero"` // age of the newest value from which on it is stale; 0 when not declared
	Description string        `json:"description,omitzero"`
	OnViolation Violation     `json:"on_violation,omitzero"`
	Quality     uint8         `json:"default_quality,omitzero"` // for values that come without one
}

// Bound is an optional number.
type Bound struct {
	Set   bool    `json:"set,omitzero"`
	Value float64 `json:"value,omitzero"`
}

// Threshold raises an alert when a parameter's value is above or below a limit for some time.
type Threshold struct {
	Status
	Addr         Address       `json:"address,omitzero"` // …/project/parameter/name
	ID           uuid.UUID     `json:"id,omitzero"`
	ParameterKey string        `json:"parameter_key,omitzero"`
	Above        Bound         `json:"above,omitzero"`
	Below        Bound         `json:"below,omitzero"`
	For          time.Duration `json:"for_ns,omitzero"`   // the limit must be exceeded this long before the alert fires
	Deadband     float64       `json:"deadband,omitzero"` // how far the value must come back before it clears
	Severity     string        `json:"severity,omitzero"` // warning or critical
}

// Platform is a threshold on the platform's own health, such as the queue's depth.
type Platform struct {
	Status
	Addr     Address `json:"address,omitzero"` // metric
	Warning  Bound   `json:"warning,omitzero"`
	Critical Bound   `json:"critical,omitzero"`
}

// Retention says how long telemetry is kept. There is one, at the address retention.telemetry.
type Retention struct {
	Status
	Addr          Address       `json:"address,omitzero"`
	Raw           time.Duration `json:"raw_ns,omitzero"`            // rows older than this are dropped
	CompressAfter time.Duration `json:"compress_after_ns,omitzero"` // rows older than this are compressed, where the storage can
}

// RetentionAddress is the address of the registry's only Retention.
var RetentionAddress = Address{KindRetention, "telemetry"}

// MaxPrecision is the most decimals that a parameter can declare: a float64 has no more.
const MaxPrecision = 15

// ShortName turns a parameter's name into the last part of its key, by the rule of the original platform:
// lower case, spaces to underscores, nothing else.
func ShortName(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "_") }

// ParameterKey is the key of the parameter with the given short name in a project.
func ParameterKey(project uuid.UUID, short string) string {
	return "project:" + project.String() + ":" + short
}

// Project returns the address of the device's project.
func (d *Device) Project() Address {
	return Address{KindProject, Address{KindSite, d.Addr.ParentPath()}.ParentPath()}
}

func (c *Customer) Address() Address  { return c.Addr }
func (p *Project) Address() Address   { return p.Addr }
func (s *Site) Address() Address      { return s.Addr }
func (d *Device) Address() Address    { return d.Addr }
func (p *Parameter) Address() Address { return p.Addr }
func (t *Threshold) Address() Address { return t.Addr }
func (p *Platform) Address() Address  { return p.Addr }
func (r *Retention) Address() Address { return r.Addr }
func (l *Limits) Address() Address    { return l.Addr }

func (c *Customer) id() uuid.UUID  { return c.ID }
func (p *Project) id() uuid.UUID   { return p.ID }
func (s *Site) id() uuid.UUID      { return s.ID }
func (d *Device) id() uuid.UUID    { return d.ID }
func (p *Parameter) id() uuid.UUID { return p.ID }
func (t *Threshold) id() uuid.UUID { return t.ID }
func (*Platform) id() uuid.UUID    { return uuid.Nil }
func (*Retention) id() uuid.UUID   { return uuid.Nil }
func (*Limits) id() uuid.UUID      { return uuid.Nil }
func (*Policy) id() uuid.UUID      { return uuid.Nil }
func (*Discovery) id() uuid.UUID   { return uuid.Nil }

func (c *Customer) setAddress(a Address)  { c.Addr = a }
func (p *Project) setAddress(a Address)   { p.Addr = a }
func (s *Site) setAddress(a Address)      { s.Addr = a }
func (d *Device) setAddress(a Address)    { d.Addr = a }
func (p *Parameter) setAddress(a Address) { p.Addr = a }
func (t *Threshold) setAddress(a Address) { t.Addr = a }
func (p *Platform) setAddress(a Address)  { p.Addr = a }
func (r *Retention) setAddress(a Address) { r.Addr = a }
func (l *Limits) setAddress(a Address)    { l.Addr = a }
func (p *Policy) setAddress(a Address)    { p.Addr = a }
func (d *Discovery) setAddress(a Address) { d.Addr = a }

func (c *Customer) clone() Object  { return new(*c) }
func (p *Project) clone() Object   { return new(*p) }
func (s *Site) clone() Object      { return new(*s) }
func (d *Device) clone() Object    { return new(*d) }
func (p *Parameter) clone() Object { return new(*p) }
func (t *Threshold) clone() Object { return new(*t) }
func (p *Platform) clone() Object  { return new(*p) }
func (r *Retention) clone() Object { return new(*r) }
func (l *Limits) clone() Object    { return new(*l) }
func (p *Policy) clone() Object    { return new(*p) }
func (d *Discovery) clone() Object { return new(*d) }

func (s *Status) status() *Status { return s }

func (c *Customer) Fields() []Field {
	return []Field{
		{"parent", c.Parent}, {"metadata", c.Metadata},
		{"limits.events_per_second", c.Rate.perSecond()}, {"limits.burst", c.Rate.burst()},
		{"limits.device.events_per_second", c.DeviceRate.perSecond()}, {"limits.device.burst", c.DeviceRate.burst()},
		c.field(),
	}
}

func (p *Project) Fields() []Field { return []Field{{"description", p.Description}, p.field()} }

func (s *Site) Fields() []Field { return []Field{{"location", s.Location}, s.field()} }

func (d *Device) Fields() []Field {
	list := []Field{
		{"type", d.Type}, {"external_id", d.ExternalID}, {"status", d.State},
		{"gateway", formatAddress(d.Gateway)}, {"interval", FormatDuration(d.Interval)}, {"parameters", strings.Join(d.Parameters, ", ")},
		{"limits.events_per_second", d.Rate.perSecond()}, {"limits.burst", d.Rate.burst()},
		d.field(),
	}
	for _, o := range d.Overrides {
		list = append(list, o.fields()...)
	}
	return list
}

func (p *Parameter) Fields() []Field {
	return []Field{
		{"name", p.Name}, {"unit", p.Unit}, {"type", string(p.Type)}, {"min", p.Min.String()}, {"max", p.Max.String()},
		{"precision", p.Precision.String()}, {"required", formatBool(p.Required)}, {"interval", FormatDuration(p.Interval)}, {"stale_after", FormatDuration(p.StaleAfter)},
		{"description", p.Description}, {"on_violation", string(p.OnViolation)}, {"default_quality", formatInt(int(p.Quality))},
		p.field(),
	}
}

func (t *Threshold) Fields() []Field {
	return []Field{
		{"above", t.Above.String()}, {"below", t.Below.String()}, {"for", FormatDuration(t.For)},
		{"deadband", formatFloat(t.Deadband)}, {"severity", t.Severity},
	}
}

func (p *Platform) Fields() []Field {
	return []Field{{"warning", p.Warning.String()}, {"critical", p.Critical.String()}}
}

func (r *Retention) Fields() []Field {
	return []Field{{"raw", FormatDuration(r.Raw)}, {"compress_after", FormatDuration(r.CompressAfter)}}
}

func (l *Limits) Fields() []Field {
	return []Field{
		{"connections", formatCount(l.Connections)}, {"connections_per_address", formatCount(l.ConnectionsPerAddress)},
		{"device.events_per_second", l.Device.perSecond()}, {"device.burst", l.Device.burst()},
		{"customer.events_per_second", l.Customer.perSecond()}, {"customer.burst", l.Customer.burst()},
	}
}

// same reports whether two objects at one address have the same attributes. It is the fast form of comparing Fields.
func same(a, b Object) bool {
	switch a := a.(type) {
	case *Device:
		b := b.(*Device)
		return a.Type == b.Type && a.ExternalID == b.ExternalID && a.State == b.State && a.Gateway == b.Gateway && a.Interval == b.Interval &&
			a.Rate == b.Rate && a.Lifecycle == b.Lifecycle && slices.Equal(a.Parameters, b.Parameters) && slices.Equal(a.Overrides, b.Overrides)
	default:
		return slices.Equal(a.Fields(), b.Fields())
	}
}

// StatusOf returns what the registry knows of an object beside its attributes.
func StatusOf(o Object) Status { return *o.status() }

// IDOf returns the id of an object, zero for one of a kind that has none.
func IDOf(o Object) uuid.UUID { return o.id() }
