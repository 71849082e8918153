package config

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// A block of limits says what the block that it stands in may send; at the top of a file, what everything may that has
// no limits of its own.
var (
	limitsSchema = &hcl.BodySchema{
		Attributes: attributes("", "connections", "connections_per_address"),
		Blocks:     []hcl.BlockHeaderSchema{{Type: "device"}, {Type: "customer"}},
	}
	customerLimitsSchema = &hcl.BodySchema{
		Attributes: attributes("", "events_per_second", "burst"),
		Blocks:     []hcl.BlockHeaderSchema{{Type: "device"}},
	}
	rateSchema = &hcl.BodySchema{Attributes: append(attributes("events_per_second"), attributes("burst")...)}
)

const maxConnections = 1_000_000

func (l *loader) limits(b *block) {
	f := fields{l: l, b: b}
	o := &registry.Limits{Addr: registry.LimitsAddress, Connections: f.most("connections", maxConnections),
		ConnectionsPerAddress: f.most("connections_per_address", maxConnections)}
	if o.Connections > 0 && o.ConnectionsPerAddress > o.Connections {
		f.wrong("connections_per_address", "Contradictory limits", "connections_per_address must not be above connections, which is %d.", o.Connections)
	}
	if device, ok := f.inner("device"); ok {
		o.Device = device.rate()
	}
	if customer, ok := f.inner("customer"); ok {
		o.Customer = customer.rate()
	}
	if len(b.attrs) == 0 && len(b.blocks) == 0 && !l.partial {
		l.report(b.rng, nil, "Missing limit", "Set connections or connections_per_address, or add a device or customer block.")
	}
	l.declare(o, f.origin())
}

// customerLimits reads the block of limits inside a customer.
func (f fields) customerLimits() (all, device registry.Rate) {
	limits, ok := f.inner("limits")
	if !ok {
		return all, device
	}
	b := limits.b
	rate, burst := b.attrs["events_per_second"] != nil, b.attrs["burst"] != nil
	switch {
	case rate && burst:
		all = limits.rate()
	case rate || burst:
		f.l.report(b.rng, f.in, "Missing limit", "events_per_second and burst go together: set both.")
	case len(b.blocks) == 0 && !f.l.partial:
		f.l.report(b.rng, f.in, "Missing limit", "Set events_per_second and burst, or add a device block.")
	}
	if inner, ok := limits.inner("device"); ok {
		device = inner.rate()
	}
	return all, device
}

// rate reads a block's events_per_second and burst.
func (f fields) rate() (r registry.Rate) {
	const name = "events_per_second"
	if _, ok := f.required(name); ok {
		if b := f.bound(name); b.Set {
			if r.PerSecond = b.Value; r.PerSecond < registry.MinPerSecond || r.PerSecond > registry.MaxPerSecond {
				f.wrong(name, "Invalid limit", "%s is a number from %g to %.0f; this is %s.", name, registry.MinPerSecond, registry.MaxPerSecond, b)
				return registry.Rate{}
			}
		}
	}
	if _, ok := f.required("burst"); ok {
		r.Burst = f.most("burst", registry.MaxBurst)
	}
	if r.PerSecond > 0 && r.Burst > 0 && !r.Valid() {
		f.wrong("burst", "Contradictory limits", "At %g events a second a burst of %d would take more than %.0f days to be there again. Lower burst, or raise events_per_second.",
			r.PerSecond, r.Burst, registry.MaxRefill.Hours()/24)
	}
	return r
}

// most returns an attribute that is a whole number from 1 to high, or 0 when it is not set.
func (f fields) most(name string, high int) int64 {
	if _, ok := f.value(name); !ok {
		return 0
	}
	return int64(f.wholeNumber(name, 1, high))
}

// inner returns the block of a type that a block may have once.
func (f fields) inner(kind string) (found fields, ok bool) {
	for _, b := range f.b.blocks {
		switch {
		case b.kind != kind:
		case ok:
			f.l.report(b.rng, f.in, "Duplicate "+kind, "The block around it has a %s block already, at %s:%d.", kind, found.b.rng.Filename, found.b.rng.Start.Line)
		default:
			found, ok = fields{f.l, b, f.in}, true
		}
	}
	return found, ok
}
