package ingest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// resolver checks events against one snapshot. It remembers the lists of parameter keys that it has met.
type resolver struct {
	snapshot *registry.Snapshot
	oldest   time.Duration // age of the oldest event to accept
	limits   *limits

	discovery *registry.Discovery     // nil where events of unknown devices are refused
	sites     map[uuid.UUID]uuid.UUID // then: projects by the ids of their sites

	mu      sync.RWMutex
	layouts map[string]*layout    // by the keys joined
	own     map[ownLayout]*layout // of devices that override parameters
	points  map[string]*fields    // by project, measurement and the names of the fields joined
	named   int                   // bytes of points' keys
}

// layout is what is known of a list of parameter keys, in the order in which a device sends them.
type layout struct {
	keys       []string
	parameters []*registry.Parameter
	set        *telemetry.ParameterSet // the keys sorted
	place      []int                   // of each key in set; nil when they come sorted
	checked    bool                    // some parameter has a type or limits to check
}

// ownLayout is a list of keys that a device with overrides sends.
type ownLayout struct {
	device *registry.Device
	shared *layout
}

// maxLayouts bounds a resolver's memory; past it the layouts are forgotten and built again.
const maxLayouts = 1 << 14

// current returns the resolver of the newest snapshot.
func (s *Service) current() *resolver {
	r := s.resolver.Load()
	if r != nil && r.snapshot == s.Registry.Snapshot() {
		return r
	}
	s.next.Lock() // so that no two resolvers follow the same one: what the limits have let pass is handed on
	defer s.next.Unlock()
	snapshot := s.Registry.Snapshot()
	if r = s.resolver.Load(); r != nil && r.snapshot == snapshot {
		return r
	}
	var before *limits
	if r != nil {
		before = r.limits
	}
	next := &resolver{snapshot: snapshot, oldest: maxAge, limits: newLimits(before, snapshot, s.time()), layouts: map[string]*layout{}, own: map[ownLayout]*layout{}, points: map[string]*fields{}}
	if snapshot.Retention != nil {
		next.oldest = snapshot.Retention.Raw
	}
	if next.discovery = snapshot.EffectiveDiscovery(); next.discovery != nil {
		next.sites = sites(snapshot)
	}
	s.resolver.Store(next)
	return next
}

// resolve turns x.raw into x.event and x.record.
func (s *Service) resolve(r *resolver, now telemetry.Micros, x *scratch) *Rejection {
	raw, e := &x.raw, &x.event
	device := r.snapshot.Device(raw.Device)
	if raw.Point != nil {
		device = r.deviceOf(raw)
	}
	switch {
	case device == nil && raw.Point != nil:
		return raw.Point.unknown()
	case device == nil:
		return refuse(CodeUnknownDevice, "device_id", []byte(raw.Device.String()), "No such device is registered.")
	case device.Retired:
		return refuse(CodeDeviceRetired, "device_id", []byte(raw.Device.String()), "The device %s is retired.", device.Addr.Path)
	case device.ProjectID != raw.Project && raw.Point == nil:
		return refuse(CodeProjectMismatch, "project_id", []byte(raw.Project.String()), "The device %s belongs to another project.", device.Addr.Path)
	case device.SiteID != raw.Site && raw.Point == nil:
		return refuse(CodeSiteMismatch, "site_id", []byte(raw.Site.String()), "The device %s belongs to another site.", device.Addr.Path)
	}
	if rejection := r.checkTime(now, raw.Time); rejection != nil {
		return rejection
	}
	l := x.layout
	if raw.Point != nil {
		var rejection *Rejection
		if l, rejection = s.fit(r, device.ProjectID, x); rejection != nil {
			return rejection
		}
	} else if x.owner != r || !l.fits(raw.Metrics) {
		var rejection *Rejection
		if l, rejection = s.layout(r, raw.Metrics); rejection != nil {
			return rejection
		}
		x.layout, x.owner = l, r
	}
	if len(device.Overrides) > 0 {
		l = r.ownLayout(device, l)
	}
	e.Device, e.Time, e.Set, e.Source, e.EventID = raw.Device, raw.Time, l.set, raw.Protocol, raw.EventID
	e.Quality = slices.Grow(x.quality[:0], len(raw.Metrics))
	x.quality = e.Quality
	if rejection := l.fill(raw.Metrics, e); rejection != nil {
		return rejection
	}
	x.record = telemetry.AppendRecord(x.record[:0], e)
	if len(x.record) > maxRecord {
		return refuse(CodeEventTooLarge, "", nil, "The event takes %d bytes in the queue, %d is the limit.", len(x.record), maxRecord)
	}
	if x.replay {
		return nil
	}
	return r.limits.take(device, x.now, &x.limited)
}

func (l *layout) fits(metrics []rawMetric) bool {
	if len(metrics) != len(l.keys) {
		return false
	}
	for i := range metrics {
		if string(metrics[i].Key) != l.keys[i] {
			return false
		}
	}
	return true
}

// layout finds or builds the layout of a list of metrics.
func (s *Service) layout(r *resolver, metrics []rawMetric) (*layout, *Rejection) {
	var name []byte
	for i := range metrics {
		name = append(append(name, metrics[i].Key...), 0)
	}
	r.mu.RLock()
	l := r.layouts[string(name)]
	r.mu.RUnlock()
	if l != nil {
		return l, nil
	}
	l = &layout{}
	for i := range metrics {
		key := string(metrics[i].Key)
		field := fmt.Sprintf("metrics[%d].parameter_key", i)
		p := r.snapshot.Parameter(key)
		switch {
		case p == nil:
			return nil, refuse(CodeUnknownParameter, field, metrics[i].Key, "No such parameter is registered.")
		case p.Retired:
			return nil, refuse(CodeParameterRetired, field, metrics[i].Key, "The parameter is retired.")
		case slices.Contains(l.keys, p.Key):
			return nil, refuse(CodeDuplicateParameter, field, metrics[i].Key, "The event has this parameter twice.")
		}
		l.keys = append(l.keys, p.Key)
		l.add(p)
	}
	sorted := slices.Sorted(slices.Values(l.keys))
	l.set = s.sets.intern(sorted)
	if !slices.Equal(sorted, l.keys) {
		for _, k := range l.keys {
			at, _ := slices.BinarySearch(sorted, k)
			l.place = append(l.place, at)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.layouts) >= maxLayouts {
		clear(r.layouts)
	}
	r.layouts[string(name)] = l
	return l, nil
}

func (l *layout) add(p *registry.Parameter) {
	l.parameters = append(l.parameters, p)
	if p.OnViolation != registry.Accept && (p.Min.Set || p.Max.Set || p.Type != registry.TypeFloat) {
		l.checked = true
	}
}

// ownLayout finds or builds a layout with the parameters as a device has them.
func (r *resolver) ownLayout(device *registry.Device, shared *layout) *layout {
	name := ownLayout{device, shared}
	r.mu.RLock()
	l := r.own[name]
	r.mu.RUnlock()
	if l != nil {
		return l
	}
	l = &layout{keys: shared.keys, set: shared.set, place: shared.place}
	for _, p := range shared.parameters {
		l.add(device.OwnParameter(p))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.own) >= maxLayouts+len(r.snapshot.Devices) {
		clear(r.own)
	}
	r.own[name] = l
	return l
}

// fill sets the values, qualities and attributes of e, in the order of the parameter set. e.Quality must have room.
func (l *layout) fill(metrics []rawMetric, e *telemetry.Event) *Rejection {
	n := len(metrics)
	e.Values = slices.Grow(e.Values[:0], n)[:n]
	e.Quality = e.Quality[:n]
	e.Attributes = e.Attributes[:0]
	good, attributes := true, false
	for i := range metrics {
		m := &metrics[i]
		at := i
		if l.place != nil {
			at = l.place[i]
		}
		quality := l.parameters[i].Quality
		if m.Quality >= 0 {
			quality = byte(m.Quality)
		}
		if l.checked {
			bad, rejection := check(l.parameters[i], m, i)
			if rejection != nil {
				return rejection
			}
			if quality > bad {
				quality = bad
			}
		}
		good = good && quality == telemetry.QualityGood
		attributes = attributes || m.Attributes != nil
		e.Values[at], e.Quality[at] = m.Value, quality
	}
	if attributes {
		e.Attributes = l.attributes(metrics, e.Attributes)
	}
	if good {
		e.Quality = nil
	}
	return nil
}

// check compares a value with its parameter's type and limits. It returns the best quality that the value may have.
func check(p *registry.Parameter, m *rawMetric, i int) (byte, *Rejection) {
	v := m.Value
	code, quality := "", byte(255)
	if p.OnViolation != registry.Accept {
		switch p.Fit(v) {
		case registry.WrongType:
			code, quality = CodeTypeViolation, telemetry.QualityUncertain
		case registry.OutsideLimits:
			code, quality = CodeOutsideLimits, telemetry.QualityUncertainLimits
		}
	}
	if code == "" || p.OnViolation != registry.Reject {
		return quality, nil
	}
	field, input := fmt.Sprintf("metrics[%d].value", i), []byte(fmt.Sprint(v))
	if code == CodeTypeViolation {
		return 0, refuse(code, field, input, "The parameter %s takes values of type %s.", p.Addr.Name(), p.Type)
	}
	return 0, refuse(code, field, input, "The parameter %s takes values from %s to %s.", p.Addr.Name(), orAny(p.Min), orAny(p.Max))
}

func orAny(b registry.Bound) string {
	if !b.Set {
		return "any"
	}
	return b.String()
}

// attributes appends the JSON array of the metrics' attributes, in the order of the parameter set.
func (l *layout) attributes(metrics []rawMetric, b []byte) []byte {
	ordered := make([][]byte, len(metrics))
	for i := range metrics {
		at := i
		if l.place != nil {
			at = l.place[i]
		}
		ordered[at] = metrics[i].Attributes
	}
	for i, a := range ordered {
		b = append(b, "[,"[min(i, 1)])
		if a == nil {
			b = append(b, "null"...)
		} else {
			b = append(b, a...)
		}
	}
	return append(b, ']')
}

// setTable interns parameter sets: equal lists of keys are one set, with one id.
type setTable struct {
	mu   sync.Mutex
	sets map[string]*telemetry.ParameterSet
	last uint32
}

// intern returns the set of sorted keys. Ids are never used twice; a forgotten set comes back under another one.
func (t *setTable) intern(keys []string) *telemetry.ParameterSet {
	name := strings.Join(keys, "\x00")
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sets[name]; s != nil {
		return s
	}
	if t.sets == nil || len(t.sets) >= maxLayouts {
		t.sets = map[string]*telemetry.ParameterSet{}
	}
	t.last++
	s := &telemetry.ParameterSet{ID: t.last, Keys: keys}
	t.sets[name] = s
	return s
}
