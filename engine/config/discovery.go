package config

import (
	"strconv"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

var discoverySchema = &hcl.BodySchema{Attributes: attributes("", "hold", "max_devices", "max_events", "max_events_per_device")}

func (l *loader) discovery(b *block) {
	f := fields{l: l, b: b}
	l.declare(&registry.Discovery{
		Addr: registry.DiscoveryAddress, Hold: f.duration("hold", registry.MinHold), MaxDevices: f.most("max_devices", registry.MaxPendingDevices),
		MaxEvents: f.most("max_events", registry.MaxPendingEvents), MaxEventsPerDevice: f.most("max_events_per_device", registry.MaxPendingEvents),
	}, f.origin())
}

// discovery writes the block even when it is empty: that it is there says something.
func (w *writer) discovery(d *registry.Discovery) {
	b := &body{w: w, addr: d.Addr}
	b.duration("hold", d.Hold, registry.MinHold)
	b.most("max_devices", d.MaxDevices, registry.MaxPendingDevices)
	b.most("max_events", d.MaxEvents, registry.MaxPendingEvents)
	b.most("max_events_per_device", d.MaxEventsPerDevice, registry.MaxPendingEvents)
	w.begin("discovery")
	w.attributes(b)
	w.end()
}

// most sets what fields.most reads. It reports whether there is something.
func (b *body) most(name string, n, high int64) bool {
	if n < 0 || n > high {
		b.omit(name, "%d is not from 1 to %d", n, high)
		return false
	}
	if n > 0 {
		b.set(name, name, strconv.FormatInt(n, 10))
	}
	return n > 0
}
