package registry

import (
	"cmp"
	"time"
)

// Discovery holds events of devices that the registry does not know until it does. There is one, at the address
// discovery.devices; what it leaves zero has the value of DefaultDiscovery. Without one such events are refused.
type Discovery struct {
	Status
	Addr               Address       `json:"address"`
	Hold               time.Duration `json:"hold_ns,omitzero"`               // what was held for longer is dropped
	MaxDevices         int64         `json:"max_devices,omitzero"`           // of which events are held
	MaxEvents          int64         `json:"max_events,omitzero"`            // of all of them together
	MaxEventsPerDevice int64         `json:"max_events_per_device,omitzero"` // so that one does not use up what is there for all
}

// DiscoveryAddress is the address of the registry's only Discovery.
var DiscoveryAddress = Address{KindDiscovery, "devices"}

// DefaultDiscovery is what holds where a Discovery is silent.
var DefaultDiscovery = Discovery{Addr: DiscoveryAddress, Hold: 7 * 24 * time.Hour, MaxDevices: 1000, MaxEvents: 100_000, MaxEventsPerDevice: 10_000}

// Bounds of a Discovery. The devices are in memory, the events in the database.
const (
	MinHold           = time.Minute
	MaxPendingDevices = 100_000
	MaxPendingEvents  = 1_000_000
)

// EffectiveDiscovery returns what holds, or nil when none is declared. What another program wrote out of bounds counts as silence.
func (s *Snapshot) EffectiveDiscovery() *Discovery {
	if s.Discovery == nil {
		return nil
	}
	d, declared := DefaultDiscovery, s.Discovery
	if declared.Hold >= MinHold {
		d.Hold = declared.Hold
	}
	d.MaxDevices = cmp.Or(min(max(declared.MaxDevices, 0), MaxPendingDevices), d.MaxDevices)
	d.MaxEvents = cmp.Or(min(max(declared.MaxEvents, 0), MaxPendingEvents), d.MaxEvents)
	d.MaxEventsPerDevice = cmp.Or(min(max(declared.MaxEventsPerDevice, 0), MaxPendingEvents), d.MaxEventsPerDevice)
	return &d
}

func (d *Discovery) Address() Address { return d.Addr }

func (d *Discovery) Fields() []Field {
	return []Field{
		{"hold", FormatDuration(d.Hold)}, {"max_devices", formatCount(d.MaxDevices)}, {"max_events", formatCount(d.MaxEvents)},
		{"max_events_per_device", formatCount(d.MaxEventsPerDevice)},
	}
}
