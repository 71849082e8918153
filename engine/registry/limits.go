package registry

import (
	"cmp"
	"strconv"
	"time"
)

// Rate bounds how many events may come: PerSecond in the long run, and Burst at once after a quiet time.
// The zero Rate means that none is declared.
type Rate struct {
	PerSecond float64 `json:"events_per_second,omitzero"`
	Burst     int64   `json:"burst,omitzero"`
}

// Bounds of a Rate. An empty burst is full again after Burst/PerSecond seconds.
const (
	MinPerSecond = 0.001
	MaxPerSecond = 1e9
	MaxBurst     = 1_000_000_000
	MaxRefill    = 366 * 24 * time.Hour
)

// Refill returns how long a burst that was used up takes to be there again.
func (r Rate) Refill() time.Duration {
	return time.Duration(min(float64(r.Burst)/r.PerSecond, 2*MaxRefill.Seconds()) * float64(time.Second))
}

// Valid reports whether a rate is within its bounds, and so declared.
func (r Rate) Valid() bool {
	return r.PerSecond >= MinPerSecond && r.PerSecond <= MaxPerSecond && r.Burst >= 1 && r.Burst <= MaxBurst && r.Refill() <= MaxRefill
}

// or returns r, or another rate where r is not declared or, being written by another program, not valid.
func (r Rate) or(other Rate) Rate {
	if r.Valid() {
		return r
	}
	return other
}

func (r Rate) perSecond() string {
	if r == (Rate{}) {
		return ""
	}
	return formatFloat(r.PerSecond)
}

func (r Rate) burst() string { return formatCount(r.Burst) }

// Limits keep one sender from using up what is there for all. There is one, at the address limits.ingest; what it leaves
// zero has the value of DefaultLimits.
type Limits struct {
	Status
	Addr                  Address `json:"address"`
	Connections           int64   `json:"connections,omitzero"`             // of HTTP, in all
	ConnectionsPerAddress int64   `json:"connections_per_address,omitzero"` // of HTTP, from one IPv4 address or one IPv6 network of 64 bits
	Device                Rate    `json:"device,omitzero"`                  // of each that has no Rate of its own
	Customer              Rate    `json:"customer,omitzero"`
}

// LimitsAddress is the address of the registry's only Limits.
var LimitsAddress = Address{KindLimits, "ingest"}

// DefaultLimits hold where nothing is declared. A device that sent an event a second to its own memory for a day hands
// them over at once. All devices behind a proxy or a mobile network's translation share an address.
var DefaultLimits = Limits{
	Addr:        LimitsAddress,
	Connections: 8192, ConnectionsPerAddress: 1024,
	Device:   Rate{PerSecond: 200, Burst: 100_000},
	Customer: Rate{PerSecond: 50_000, Burst: 1_000_000},
}

// EffectiveLimits returns what holds: what is declared, and the defaults for the rest.
func (s *Snapshot) EffectiveLimits() Limits {
	l := DefaultLimits
	if d := s.Limits; d != nil {
		l.Connections, l.ConnectionsPerAddress = cmp.Or(max(d.Connections, 0), l.Connections), cmp.Or(max(d.ConnectionsPerAddress, 0), l.ConnectionsPerAddress)
		l.Device, l.Customer = d.Device.or(l.Device), d.Customer.or(l.Customer)
	}
	return l
}

// Of returns the rates that hold for a customer: of all its devices together, and of each that has none of its own.
func (l Limits) Of(c *Customer) (all, device Rate) {
	return c.Rate.or(l.Customer), c.DeviceRate.or(l.Device)
}

// Own returns the rate of the device itself, or the one of its customer's devices.
func (d *Device) Own(customers Rate) Rate { return d.Rate.or(customers) }

func formatCount(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
