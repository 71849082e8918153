package ingest

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// deviceTags are the tags, or labels, that may name a point's device, by its UUID or by its external id. The first of them
// that a point has decides. The last one is for Prometheus alone.
var deviceTags = [...]string{"device_id", "device", "external_id", "host", "instance"}

const influxTags = 4 // of deviceTags

// Limits on a point.
const (
	maxFields = 1024    // fields as sent; maxMetrics of them can be stored
	maxNamed  = 4 << 20 // bytes of the keys of a resolver's points
)

// rawPoint is what a protocol that knows neither projects nor parameter keys tells of an event, beside its time and values.
// The metrics of its rawEvent have the names of fields for keys. Project and site are those of the device.
type rawPoint struct {
	Tag         string // the device tag that decides; empty when there is none
	Device      []byte // its value: UUID or external id
	Measurement []byte // nil where there is no such thing
	Texts       int    // fields that are strings, and not among the metrics
	Text        []byte // name of the first
	Untimed     bool   // it came without a time
}

// pointScratch is the memory of one call of Accept for points.
type pointScratch struct {
	raw     rawPoint
	line    lineDecoder
	series  series
	format  Format
	events  int
	key     []byte
	fields  *fields // of the point before
	owner   *resolver
	ask     *fields    // the point at hand has fields for which the registry was not asked yet
	asked   bool       // it was, in this call
	refused *Rejection // of fields of the point at hand, which is accepted; nil when all are
}

// tag sets the device of a point by one of its tags, when that ranks before what was found.
func (p *rawPoint) tag(key, value []byte, tags []string) {
	for _, t := range tags {
		if t == p.Tag {
			return
		}
		if string(key) == t {
			p.Tag, p.Device = t, value
			return
		}
	}
}

// deviceOf finds the device of a point, and gives the point its id.
func (r *resolver) deviceOf(raw *rawEvent) *registry.Device {
	raw.Device = uuid.Nil
	if parseUUID(raw.Point.Device, &raw.Device) {
		if d := r.snapshot.Device(raw.Device); d != nil {
			return d
		}
	}
	d := r.snapshot.DeviceByExternalID(string(raw.Point.Device))
	if d != nil {
		raw.Device = d.ID
	}
	return d
}

// unknown refuses a point whose device the snapshot does not know.
func (p *rawPoint) unknown() *Rejection {
	switch {
	case len(p.Device) > maxString:
		return refuse(CodeStringTooLong, p.Tag, p.Device, "The external id has %d bytes, %d is the limit.", len(p.Device), maxString)
	case !storable(p.Device):
		return refuse(CodeUTF8Invalid, p.Tag, p.Device, "The external id is not UTF-8, or has control characters.")
	}
	return refuse(CodeUnknownDevice, p.Tag, p.Device, "No device is registered with this id or external_id.")
}

// storable reports whether the database could hold s as text, and a line could show it.
func storable(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(s)
}

// fields is how the fields of the points of a measurement fit the parameters of a project.
type fields struct {
	project     uuid.UUID
	measurement string
	names       []string
	layout      *layout     // of those that have a parameter; nil when none has
	take        []int       // their places among the names; nil when it is all of them
	unknown     []int       // places of those without one
	asked       atomic.Bool // the registry was asked for these, and a snapshot that knows them would be another one
	refused     *Rejection  // of the others; nil when there are none
}

func (f *fields) fits(project uuid.UUID, raw *rawEvent) bool {
	if f.project != project || len(f.names) != len(raw.Metrics) || f.measurement != string(raw.Point.Measurement) {
		return false
	}
	for i := range raw.Metrics {
		if f.names[i] != string(raw.Metrics[i].Key) {
			return false
		}
	}
	return true
}

// fit leaves those metrics of the point in x.raw that have a parameter, and returns their layout. It is an error when there
// are none; when it says that the parameters are unknown and sets x.point.ask, the registry has to be asked first.
func (s *Service) fit(r *resolver, project uuid.UUID, x *scratch) (*layout, *Rejection) {
	p, raw := &x.point, &x.raw
	f := p.fields
	if p.owner != r || !f.fits(project, raw) {
		var rejection *Rejection
		if f, rejection = s.fields(r, project, x); rejection != nil {
			return nil, rejection
		}
		p.fields, p.owner = f, r
	}
	if len(f.unknown) > 0 && !p.asked && !f.asked.Load() {
		p.ask = f
		return nil, f.refusal(raw.Point)
	}
	if f.refused != nil || raw.Point.Texts > 0 {
		p.refused = f.refusal(raw.Point)
	}
	if f.layout == nil {
		p.refused.Fields = 0
		return nil, p.refused
	}
	if f.take != nil {
		for i, at := range f.take {
			raw.Metrics[i] = raw.Metrics[at]
		}
		raw.Metrics = raw.Metrics[:len(f.take)]
	}
	return f.layout, nil
}

// refusal says which fields of a point are not stored.
func (f *fields) refusal(p *rawPoint) *Rejection {
	if f.refused == nil {
		r := refuse(CodeTypeViolation, fieldPath(string(p.Text)), nil, "The field is a string: parameters take numbers and booleans.")
		r.Fields = p.Texts
		return r
	}
	r := *f.refused
	if p.Texts > 0 {
		r.Fields += p.Texts
		r.Message = printable(fmt.Sprintf("%s Nor stored, because it is a string: %s", r.Message, p.Text), maxMessage)
	}
	return &r
}

func fieldPath(name string) string { return "fields." + name }

// fields finds or builds how the fields of a point fit.
func (s *Service) fields(r *resolver, project uuid.UUID, x *scratch) (*fields, *Rejection) {
	raw := &x.raw
	if len(raw.Metrics) == 0 {
		return nil, refuse(CodeTypeViolation, fieldPath(string(raw.Point.Text)), nil, "All fields are strings: parameters take numbers and booleans.")
	}
	name := append(x.point.key[:0], raw.Point.Measurement...)
	for _, b := range project {
		name = append(name, b)
	}
	for i := range raw.Metrics {
		name = append(append(name, raw.Metrics[i].Key...), 0)
	}
	x.point.key = name
	r.mu.RLock()
	f := r.points[string(name)]
	r.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	if !storable(raw.Point.Measurement) {
		return nil, refuse(CodeUTF8Invalid, "measurement", raw.Point.Measurement, "The measurement's name is not UTF-8, or has control characters.")
	}
	f = &fields{project: project, measurement: string(raw.Point.Measurement)}
	var metrics []rawMetric
	var keys, left []string
	code, message := "", ""
	for i := range raw.Metrics {
		n := string(raw.Metrics[i].Key)
		f.names = append(f.names, n)
		why, text := "", ""
		p := r.parameter(f, n)
		switch {
		case p == nil:
			why, text = CodeUnknownParameter, "No parameter of the device's project has the name of the field."
			if storable(raw.Metrics[i].Key) {
				f.unknown = append(f.unknown, i)
			}
		case p.Retired:
			why, text = CodeParameterRetired, "The field's parameter is retired."
		case slices.Contains(keys, p.Key):
			why, text = CodeDuplicateParameter, "The point has the field's parameter twice."
		default:
			keys = append(keys, p.Key)
			metrics = append(metrics, rawMetric{Key: []byte(p.Key)})
			f.take = append(f.take, i)
			continue
		}
		if left = append(left, n); len(left) == 1 {
			code, message = why, text
		}
	}
	if len(metrics) > maxMetrics {
		return nil, refuse(CodeTooManyMetrics, "fields", nil, "The point has %d fields that are parameters, %d is the limit.", len(metrics), maxMetrics)
	}
	if len(left) == 0 {
		f.take = nil
	} else {
		if len(left) > 1 {
			message += " Nor stored: " + strings.Join(left[1:min(len(left), 9)], ", ")
			if len(left) > 9 {
				message += ", …"
			}
		}
		f.refused = refuse(code, fieldPath(left[0]), nil, "%s", printable(message, maxMessage))
		f.refused.Fields = len(left)
	}
	if len(metrics) > 0 {
		var rejection *Rejection
		if f.layout, rejection = s.layout(r, metrics); rejection != nil {
			return nil, rejection
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.points) >= maxLayouts || r.named+len(name) > maxNamed {
		clear(r.points)
		r.named = 0
	}
	r.named += len(name)
	r.points[string(name)] = f
	return f, nil
}

// candidates are the keys of the parameters that a field may be for, the first before the others.
func (f *fields) candidates(name string) []string {
	list := []string{registry.ParameterKey(f.project, name)}
	if f.measurement != "" {
		list = append(list, registry.ParameterKey(f.project, f.measurement+"_"+name), registry.ParameterKey(f.project, f.measurement+"."+name))
	}
	return append(list, name)
}

// parameter finds the parameter that a field is for, or nil.
func (r *resolver) parameter(f *fields, name string) *registry.Parameter {
	for _, key := range f.candidates(name) {
		if p := r.snapshot.Parameter(key); p != nil {
			return p
		}
	}
	return nil
}

// eachPoint calls one for every line, or series, of a body of points.
func eachPoint(format Format, body []byte, x *scratch, one func(line int, data []byte) (int, *Rejection)) *Rejection {
	x.result.Batch, x.whole, x.limited.whole = true, true, true
	x.raw = rawEvent{Metrics: x.raw.Metrics, Point: &x.point.raw}
	x.point.format, x.point.events, x.point.series.data = format, 0, nil
	if format == Prometheus {
		return eachSeries(body, one)
	}
	return eachPointLine(body, one)
}

// onePoint decodes the line or series at the front of data and judges its points. It returns how many bytes it took.
func (s *Service) onePoint(r *resolver, now telemetry.Micros, line int, data []byte, x *scratch) (int, *Rejection) {
	m := missed{line: line, data: data}
	if x.point.format != Prometheus {
		n, rejection := x.point.line.next(data, x.point.format, now, &x.raw)
		return n, s.point(r, now, m, rejection, x)
	}
	if rejection := x.point.series.read(data, &x.raw); rejection != nil {
		return len(data), s.point(r, now, m, rejection, x)
	}
	for m.sample = range x.point.series.samples {
		skip, rejection := x.point.series.sample(m.sample, &x.raw)
		if skip {
			continue
		}
		if tooMany := s.point(r, now, m, rejection, x); tooMany != nil {
			return len(data), tooMany
		}
	}
	return len(data), nil
}

// point judges the point in x.raw, or the rejection that reading it gave. It returns a rejection of the whole body.
func (s *Service) point(r *resolver, now telemetry.Micros, m missed, rejection *Rejection, x *scratch) *Rejection {
	if x.point.events++; x.point.events > MaxEvents {
		return refuse(CodeTooManyEvents, "", nil, "A body may have %d points at most.", MaxEvents)
	}
	if rejection == nil {
		if rejection = s.takePoint(r, now, m, x); rejection == nil {
			return nil
		}
		m.device = x.raw.Device
		if rejection.Code == CodeUnknownDevice && s.waits(r, x) && s.hold(r, now, x) {
			return nil
		}
		if rejection.Code == CodeUnknownDevice || x.point.ask != nil {
			rejection.Line = m.line
			m.rejection, m.fields = rejection, x.point.ask
			x.missed = append(x.missed, m)
			return nil
		}
	}
	rejection.Line = m.line
	s.refused(x, m.device, rejection)
	return nil
}

// takePoint resolves the point in x.raw and adds it to the blocks.
func (s *Service) takePoint(r *resolver, now telemetry.Micros, m missed, x *scratch) *Rejection {
	p := &x.point
	p.ask, p.refused = nil, nil
	if rejection := s.resolve(r, now, x); rejection != nil {
		rejection.Field = x.raw.Point.path(rejection.Field)
		return rejection
	}
	s.add(x)
	if x.raw.Point.Untimed {
		x.result.Untimed++
	}
	if p.refused == nil {
		return nil
	}
	x.result.Partial++
	p.refused.Line = m.line
	if len(x.result.Rejections) < maxReported {
		x.result.Rejections = append(x.result.Rejections, *p.refused)
	}
	s.Reject(x.event.Device, p.refused)
	return nil
}

// path turns the path of an event's field into what a point has in its place.
func (p *rawPoint) path(field string) string {
	switch {
	case field == "source_timestamp":
		return "timestamp"
	case field == "device_id":
		return p.Tag
	case strings.HasPrefix(field, "metrics["): // the message names the parameter
		return "fields"
	}
	return field
}

// pointAgain judges a missed point for good.
func (s *Service) pointAgain(r *resolver, now telemetry.Micros, m missed, x *scratch) (rejection *Rejection) {
	x.point.asked = true
	if x.point.format == Prometheus {
		if rejection = x.point.series.read(m.data, &x.raw); rejection == nil {
			_, rejection = x.point.series.sample(m.sample, &x.raw)
		}
	} else {
		_, rejection = x.point.line.next(m.data, x.point.format, now, &x.raw)
	}
	if rejection == nil {
		rejection = s.takePoint(r, now, m, x)
	}
	return rejection
}
