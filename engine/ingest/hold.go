package ingest

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Limits on what is held of devices that the registry does not know.
const (
	maxPendingName = registry.MaxName // bytes of an external id: longer ones cannot be declared
	maxHeldRecord  = 16 << 10         // of one event in the queue
)

// Pending counts the events that are held, by what they call their devices, so that there are no more than is declared. It
// knows of those that this process has taken, and of the database's since Settle. The zero value holds nothing.
type Pending struct {
	mu     sync.Mutex
	counts map[string]int64 // all of them
	total  int64

	stored         map[string]int64 // what the database had when it was last looked at
	older, younger map[string]int64 // what was taken before and since a look: the database may have it by now, or not yet
}

// take counts an event of a device, unless that would be too many.
func (p *Pending) take(device string, d *registry.Discovery) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.counts[device]
	if n >= d.MaxEventsPerDevice || p.total >= d.MaxEvents || n == 0 && int64(len(p.counts)) >= d.MaxDevices {
		return false
	}
	if p.counts == nil {
		p.counts = map[string]int64{}
	}
	if p.younger == nil {
		p.younger = map[string]int64{}
	}
	p.counts[device]++
	p.younger[device]++
	p.total++
	return true
}

// has reports whether events of a device are held.
func (p *Pending) has(device string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[device] > 0
}

// Settle takes over what the database has. What was taken before the call of Settle before counts on until settled says that
// all of it was stored when the database was asked; then what came since takes its place, and rotated is true. In between
// events may count twice.
func (p *Pending) Settle(stored map[string]int64, settled bool) (rotated bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored = stored
	if settled || len(p.older) == 0 {
		p.older, p.younger, rotated = p.younger, nil, true
	}
	p.counts, p.total = map[string]int64{}, 0
	for _, part := range []map[string]int64{p.stored, p.older, p.younger} {
		for device, n := range part {
			p.counts[device] += n
			p.total += n
		}
	}
	return rotated
}

// sites returns the projects of the sites at which a device may be discovered, by the sites' ids.
func sites(s *registry.Snapshot) map[uuid.UUID]uuid.UUID {
	projects := make(map[string]uuid.UUID, len(s.Projects))
	for _, p := range s.Projects {
		if !p.Retired {
			projects[p.Addr.Path] = p.ID
		}
	}
	list := make(map[uuid.UUID]uuid.UUID, len(s.Sites))
	for _, site := range s.Sites {
		if project, ok := projects[site.Addr.ParentPath()]; ok && !site.Retired {
			list[site.ID] = project
		}
	}
	return list
}

// waits reports whether events of the device of the event in x.raw are held already. The registry need not be asked for it
// again: it tells when it is changed, and what was held is replayed.
func (s *Service) waits(r *resolver, x *scratch) bool {
	if r.discovery == nil {
		return false
	}
	name, _, ok := heldName(&x.raw)
	return ok && s.Pending.has(name)
}

// heldName returns what an event calls its device, and an id to tell it by.
func heldName(raw *rawEvent) (name string, id uuid.UUID, ok bool) {
	if raw.Point == nil {
		return raw.Device.String(), raw.Device, true
	}
	external := raw.Point.Device
	if parseUUID(external, &id) {
		return id.String(), id, true
	}
	if len(external) == 0 || len(external) > maxPendingName || !storable(external) {
		return "", uuid.Nil, false
	}
	name = string(external)
	return name, telemetry.Unregistered(name), true
}

// hold adds the event in x.raw to the blocks when nothing is wrong with it but that its device is unknown, and there is room.
func (s *Service) hold(r *resolver, now telemetry.Micros, x *scratch) bool {
	raw, e := &x.raw, &x.event
	name, id, ok := heldName(raw)
	if r.discovery == nil || !ok || r.checkTime(now, raw.Time) != nil {
		return false
	}
	held := &telemetry.Held{Device: name}
	e.Device, e.Time, e.Source, e.EventID = id, raw.Time, raw.Protocol, raw.EventID
	if raw.Point != nil {
		if !heldPoint(raw, e) {
			return false
		}
		held.Measurement = string(raw.Point.Measurement)
	} else {
		if project, known := r.sites[raw.Site]; !known || project != raw.Project {
			return false
		}
		l, rejection := s.layout(r, raw.Metrics)
		if rejection != nil {
			return false
		}
		held.Project, held.Site = raw.Project, raw.Site
		e.Set = l.set
		e.Quality = slices.Grow(x.quality[:0], len(raw.Metrics))
		x.quality = e.Quality
		if l.fill(raw.Metrics, e) != nil {
			return false
		}
	}
	e.Held = held
	x.record = telemetry.AppendRecord(x.record[:0], e)
	taken := len(x.record) <= maxHeldRecord && s.Pending.take(name, r.discovery)
	if taken {
		s.add(x)
		x.result.Held++
	}
	e.Held = nil
	return taken
}

// heldPoint makes an event of a point, with the names of its fields for keys. Strings among them are lost, as they always are.
func heldPoint(raw *rawEvent, e *telemetry.Event) bool {
	if len(raw.Metrics) == 0 || len(raw.Metrics) > maxMetrics || !storable(raw.Point.Measurement) {
		return false
	}
	e.Set, e.Values, e.Quality, e.Attributes = &telemetry.ParameterSet{}, e.Values[:0], nil, nil
	for i := range raw.Metrics {
		m := &raw.Metrics[i]
		if !storable(m.Key) {
			return false
		}
		e.Set.Keys, e.Values = append(e.Set.Keys, string(m.Key)), append(e.Values, m.Value)
	}
	return true
}

// holdMissed judges again those of the missed events whose device is unknown, and keeps the rest of the missed.
func (s *Service) holdMissed(r *resolver, now telemetry.Micros, x *scratch) {
	rest := x.missed[:0]
	for _, m := range x.missed {
		if m.rejection.Code == CodeUnknownDevice {
			rejection := s.again(r, now, m, x)
			if rejection == nil || rejection.Code == CodeUnknownDevice && s.hold(r, now, x) {
				continue
			}
			m.rejection = rejection
		}
		rest = append(rest, m)
	}
	clear(x.missed[len(rest):])
	x.missed = rest
}

// Replay queues events that were held, as if they came now, with their order, behind what else waits, and beside the limits on
// what devices may send. It returns for each why it is refused, or nil; CodeUnknownDevice where the device is still not known.
// When it returns an error the same may be replayed again.
func (s *Service) Replay(ctx context.Context, events []telemetry.Event) ([]*Rejection, error) {
	x := s.scratchpad()
	defer s.release(x)
	r, now := s.current(), telemetry.MicrosOf(s.time())
	x.replay, x.late, x.point.asked = true, math.MaxInt64, true
	refused := make([]*Rejection, len(events))
	var point rawPoint
	for i := range events {
		e := &events[i]
		x.raw = rawEvent{Project: e.Held.Project, Site: e.Held.Site, Device: e.Device, Time: e.Time, Protocol: e.Source, EventID: e.EventID, Metrics: x.raw.Metrics[:0]}
		attributes := make([]json.RawMessage, len(e.Values))
		if e.Attributes != nil {
			if err := json.Unmarshal(e.Attributes, &attributes); err != nil || len(attributes) != len(e.Values) {
				refused[i] = refuse(CodeTypeInvalid, "metrics", nil, "The attributes are not one for each of the metrics.")
				continue
			}
		}
		for k, key := range e.Set.Keys {
			m := rawMetric{Key: []byte(key), Value: e.Values[k], Quality: telemetry.QualityGood}
			if e.Quality != nil {
				m.Quality = int16(e.Quality[k])
			}
			if a := attributes[k]; a != nil && string(a) != "null" {
				m.Attributes = a
			}
			x.raw.Metrics = append(x.raw.Metrics, m)
		}
		if !e.Held.Point() {
			refused[i] = s.resolve(r, now, x)
			if refused[i] == nil {
				s.add(x)
			}
			continue
		}
		point = rawPoint{Tag: "device", Device: []byte(e.Held.Device)}
		if e.Held.Measurement != "" {
			point.Measurement = []byte(e.Held.Measurement)
		}
		x.raw.Point = &point
		refused[i] = s.takePoint(r, now, missed{}, x)
	}
	return refused, s.queue(ctx, x)
}

// checkTime refuses times that telemetry cannot have.
func (r *resolver) checkTime(now, at telemetry.Micros) *Rejection {
	switch {
	case at > now+telemetry.Micros(maxFuture.Microseconds()):
		return refuse(CodeInFuture, "source_timestamp", []byte(at.Time().Format(time.RFC3339Nano)),
			"The time lies more than %s in the future: check the device's clock.", maxFuture)
	case at < now-telemetry.Micros(r.oldest.Microseconds()):
		return refuse(CodeTooOld, "source_timestamp", []byte(at.Time().Format(time.RFC3339Nano)),
			"The time lies more than %d days back, where telemetry is not kept.", int(r.oldest.Hours()/24))
	}
	return nil
}
