package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// TestSuffix is how the names of files with tests end. They lie beside a declaration and are no part of it.
const TestSuffix = ".nsreadytest.hcl"

// Place is a part of a source file.
type Place = hcl.Range

// Test is a test block: what devices send, and what should come of it. Its devices, parameters and thresholds are those of
// the declaration that it was read for.
type Test struct {
	Name  string
	Place Place
	Start time.Time // of its clock

	Series    []Series
	Messages  []Message
	Alerts    []AlertExpected
	Qualities []QualityExpected
	Counts    []Count // of what is declared
	Fired     *Count  // alerts that fire, or nil
}

// Series is what one device sends of one parameter at even times. Place is its block.
type Series struct {
	Place     Place
	Device    *registry.Device
	Parameter *registry.Parameter
	Start     time.Time
	Interval  time.Duration
	Runs      []Run
	Quality   int // that is sent with each value; -1 for none
	Rejected  int // samples that should be refused
}

// Message is one body in JSON that is sent. Place is its block, or its expect_error.
type Message struct {
	Place Place
	At    time.Time
	Body  []byte
	Code  string // of the refusal that is expected, AnyCode for whichever; "" when the event should be accepted
	Field string // that is refused; "" for any
}

// AnyCode stands for the code of any refusal.
const AnyCode = "*"

// AlertExpected is where the alert of a threshold and a device should stand when all that came until At is evaluated.
type AlertExpected struct {
	Place, StatePlace, ValuePlace Place

	At        time.Time
	Threshold *registry.Threshold
	Device    *registry.Device
	State     string         // pending, firing, resolved, or none: there was none yet
	Value     registry.Bound // that led to the state, when it is set
}

// QualityExpected is the quality with which a value of the time At should be stored.
type QualityExpected struct {
	Place     Place
	At        time.Time
	Device    *registry.Device
	Parameter *registry.Parameter
	Quality   byte
}

// Count is how many of something there should be.
type Count struct {
	Place Place
	Of    string // customers, projects, sites, devices, parameters, thresholds or alerts
	Want  int
}

// counted are the attributes of an expect block.
var counted = []string{"customers", "projects", "sites", "devices", "parameters", "thresholds"}

const (
	maxTestSpan = 10 * 365 * 24 * time.Hour
	maxEvent    = 512 << 10 // bytes of an event, as the collector takes
	maxSeries   = 1 << 20   // bytes of a series
)

var defaultStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var (
	testFileSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "locals"}, {Type: "test", LabelNames: []string{"name"}}}}
	testSchema     = &hcl.BodySchema{
		Attributes: attributes("", "start", "expect_alerts", "expect_no_alerts"),
		Blocks:     []hcl.BlockHeaderSchema{{Type: "series"}, {Type: "event"}, {Type: "expect_alert"}, {Type: "expect_quality"}, {Type: "expect"}},
	}
	seriesSchema = &hcl.BodySchema{Attributes: slices.Concat(attributes("device", "start", "quality", "expect_rejected"),
		attributes("parameter"), attributes("interval"), attributes("values"))}
	eventSchema = &hcl.BodySchema{
		Attributes: attributes("", "at", "json", "device", "values", "quality", "time", "expect"),
		Blocks:     []hcl.BlockHeaderSchema{{Type: "expect_error"}},
	}
	expectErrorSchema   = &hcl.BodySchema{Attributes: attributes("code", "field")}
	expectAlertSchema   = &hcl.BodySchema{Attributes: slices.Concat(attributes("device", "parameter", "value"), attributes("threshold"), attributes("at"), attributes("state"))}
	expectQualitySchema = &hcl.BodySchema{Attributes: slices.Concat(attributes("device"), attributes("parameter"), attributes("at"), attributes("quality"))}
	expectSchema        = &hcl.BodySchema{Attributes: attributes("", counted...)}
)

// TestFiles returns the files of tests at path, sorted: itself, or those in a directory.
func TestFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, reason(err))
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, reason(err))
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), TestSuffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	return names, nil
}

// LoadTests reads a file of tests for a declaration. It reports all it finds wrong at once, ordered by place, and returns no
// tests then.
func LoadTests(path string, declared *registry.Snapshot) ([]*Test, *Sources, hcl.Diagnostics) {
	l := newLoader()
	unreadable := func(err error) ([]*Test, *Sources, hcl.Diagnostics) {
		_, _, diags := l.refuse("Test file not readable", "%s: %s.", path, reason(err))
		return nil, l.sources, diags
	}
	src, err := readRegular(os.Stat, os.OpenFile, path, maxFileSize)
	if err != nil {
		return unreadable(err)
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return unreadable(err)
	}
	defer root.Close()
	l.reach(filepath.Dir(path), root)
	return l.tests(path, src, declared)
}

// tests reads a file of tests from memory.
func (l *loader) tests(path string, src []byte, declared *registry.Snapshot) ([]*Test, *Sources, hcl.Diagnostics) {
	l.schema = testFileSchema
	l.add(path, src)
	l.prepare()
	r := testReader{loader: l, declared: declared}
	names := map[string]*block{}
	var tests []*Test
	for _, b := range l.root.blocks {
		t := r.test(b)
		if first := names[t.Name]; first != nil {
			l.report(b.rng, nil, "Duplicate test", "A test named %s is at %s:%d already.", quote(t.Name), first.rng.Filename, first.rng.Start.Line)
		}
		names[t.Name] = b
		tests = append(tests, t)
	}
	if len(tests) == 0 && !l.diags.HasErrors() {
		l.report(hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}, nil, "No test", "Begin with: test \"NAME\" { … }")
	}
	l.sortDiags()
	if l.diags.HasErrors() {
		return nil, l.sources, l.diags
	}
	return tests, l.sources, l.diags
}

// testReader reads tests for a declaration.
type testReader struct {
	*loader
	declared *registry.Snapshot
	samples  int // of the test at hand
}

func (r *testReader) test(b *block) *Test {
	f := fields{l: r.loader, b: b}
	t := &Test{Place: b.rng, Start: defaultStart}
	t.Name, _ = f.name()
	if v, ok := f.value("start"); ok {
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(v)); err == nil && at.Year() >= 1970 {
			t.Start = at.UTC()
		} else {
			f.wrong("start", "Invalid time", "start is %s; want a time such as \"2026-01-01T00:00:00Z\".", describe(v))
		}
	}
	r.samples = 0
	for _, b := range b.blocks {
		f := fields{l: r.loader, b: b}
		switch b.kind {
		case "series":
			t.Series = append(t.Series, r.series(f, t))
		case "event":
			t.Messages = append(t.Messages, r.message(f, t))
		case "expect_alert":
			t.Alerts = append(t.Alerts, r.alert(f, t))
		case "expect_quality":
			t.Qualities = append(t.Qualities, r.quality(f, t))
		case "expect":
			for _, name := range counted {
				if f.b.attrs[name] != nil {
					t.Counts = append(t.Counts, f.want(name, name))
				}
			}
		}
	}
	none := f.bool("expect_no_alerts")
	switch {
	case none && b.attrs["expect_alerts"] != nil:
		f.wrong("expect_no_alerts", "Contradictory expectation", "Set expect_alerts or expect_no_alerts.")
	case none:
		t.Fired = &Count{Place: b.attrs["expect_no_alerts"].Range, Of: "alerts"}
	case b.attrs["expect_alerts"] != nil:
		c := f.want("expect_alerts", "alerts")
		t.Fired = &c
	}
	if len(t.Messages)+len(t.Alerts)+len(t.Qualities)+len(t.Counts) == 0 && t.Fired == nil && !none && !r.partial {
		r.report(b.rng, nil, "Nothing expected", "Add expect_alert, expect_alerts, expect_no_alerts, expect_quality, expect or an event.")
	}
	return t
}

func (f fields) want(name, of string) Count {
	f.required(name)
	return Count{Place: f.b.attrs[name].Range, Of: of, Want: f.wholeNumber(name, 0, maxObjects)}
}

// moment reads a time: since the start of the test, or absolute.
func (f fields) moment(name string, start, otherwise time.Time) time.Time {
	v, ok := f.value(name)
	if !ok {
		return otherwise
	}
	s, _ := v.(string)
	if d, why := parseDuration(s); why == "" && d <= maxTestSpan {
		return start.Add(d)
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil && at.Sub(start).Abs() <= maxTestSpan && at.Unix() >= 0 {
		return at.UTC()
	}
	f.wrong(name, "Invalid time", "%s is %s; want a duration since the start of the test, such as \"40s\", or a time such as \"2026-01-01T00:00:40Z\", within ten years of it.", name, describe(v))
	return otherwise
}

func (r *testReader) series(f fields, t *Test) Series {
	s := Series{Place: f.b.rng, Device: r.device(f), Quality: -1, Start: f.moment("start", t.Start, t.Start), Interval: f.duration("interval", time.Millisecond)}
	f.required("interval")
	s.Parameter = r.parameter(f, s.Device)
	if _, ok := f.value("quality"); ok {
		s.Quality = f.wholeNumber("quality", 0, 255)
	}
	s.Rejected = f.wholeNumber("expect_rejected", 0, maxSamples)
	f.required("values")
	text := f.text("values", maxSeries)
	if text == "" {
		return s
	}
	runs, at, size, why := parseSeries(text, maxSamples-r.samples)
	if why != "" {
		attr := f.b.attrs["values"]
		r.report(r.within(attr.Expr.Range(), text, at, size), nil, "Invalid series", "In values, %s.", why).Context = &attr.Range
		return s
	}
	s.Runs = runs
	n := 0
	for _, run := range runs {
		n += run.Count
	}
	if r.samples += n; s.Interval > 0 && float64(n)*float64(s.Interval) > float64(maxTestSpan) {
		f.wrong("values", "Invalid time", "The series ends more than ten years after it begins.")
		s.Interval = 0
	}
	return s
}

// within returns the place of a part of a text that is written as it is, or of the whole expression.
func (r *testReader) within(rng hcl.Range, text string, at, size int) hcl.Range {
	src := r.sources.Files[rng.Filename].Bytes
	if rng.End.Byte > len(src) || string(src[rng.Start.Byte:rng.End.Byte]) != `"`+text+`"` {
		return rng
	}
	forward := func(pos hcl.Pos, s string) hcl.Pos {
		return hcl.Pos{Line: pos.Line, Column: pos.Column + utf8.RuneCountInString(s), Byte: pos.Byte + len(s)}
	}
	start := forward(rng.Start, `"`+text[:at])
	return hcl.Range{Filename: rng.Filename, Start: start, End: forward(start, text[at:at+size])}
}

// device returns the device that an attribute names, or nil.
func (r *testReader) device(f fields) *registry.Device {
	ref := f.reference("device")
	if ref.name == "" {
		f.required("device")
		return nil
	}
	path := strings.TrimPrefix(ref.name, string(registry.KindDevice)+".")
	devices := r.declared.Devices
	i, found := slices.BinarySearchFunc(devices, path, func(d *registry.Device, path string) int { return strings.Compare(d.Addr.Path, path) })
	if found {
		return devices[i]
	}
	if d := r.declared.DeviceByExternalID(ref.name); d != nil {
		return d
	}
	paths := map[string]bool{}
	for _, d := range devices[:min(len(devices), 1001)] {
		paths[d.Addr.Path] = true
	}
	r.report(*ref.rng, nil, "Unknown device", "The declaration has no device %s.%s", quote(ref.name), elseAmong(path, options(paths)))
	return nil
}

// parameterOf finds a parameter of a device's project by its short name, or its name. It is nil when there is none.
func (r *testReader) parameterOf(d *registry.Device, name string) (*registry.Parameter, []string) {
	if p := r.declared.Parameter(registry.ParameterKey(d.ProjectID, registry.ShortName(name))); p != nil {
		return p, nil
	}
	project, names := d.Project().Path, map[string]bool{}
	for _, p := range r.declared.Parameters {
		if p.Addr.ParentPath() == project {
			if p.Name == name {
				return p, nil
			}
			names[p.Addr.Name()] = true
		}
	}
	return nil, options(names)
}

func (r *testReader) parameter(f fields, d *registry.Device) *registry.Parameter {
	ref := f.reference("parameter")
	if ref.name == "" || d == nil {
		return nil
	}
	p, others := r.parameterOf(d, ref.name)
	if p == nil {
		r.report(*ref.rng, nil, "Unknown parameter", "The project of %s has no parameter %s.%s", d.Addr, quote(ref.name), elseAmong(ref.name, others))
	}
	return p
}

func (r *testReader) message(f fields, t *Test) Message {
	e := Message{Place: f.b.rng, At: f.moment("at", t.Start, t.Start)}
	if expect := f.choice("expect", "accepted", "error"); expect == "error" || f.b.attrs["expect"] != nil {
		e.Place = f.b.attrs["expect"].Range
		if inner, ok := f.inner("expect_error"); ok && expect == "accepted" {
			r.report(inner.b.rng, nil, "Contradictory event", "The event can't be accepted and refused. Leave expect or expect_error out.")
		}
		if expect == "error" {
			e.Code = AnyCode
		}
	}
	if inner, ok := f.inner("expect_error"); ok {
		e.Place, e.Code, e.Field = inner.b.rng, inner.word("code", AnyCode), inner.text("field", maxName)
	}
	attr := f.b.attrs
	switch {
	case attr["json"] != nil && (attr["device"] != nil || attr["values"] != nil || attr["quality"] != nil || attr["time"] != nil):
		f.wrong("json", "Contradictory event", "json is the whole event: set it, or device and values.")
	case attr["json"] != nil:
		e.Body = r.raw(f)
	case attr["device"] != nil && attr["values"] != nil:
		e.Body = r.composed(f, t, e.At)
	case !r.partial:
		r.report(f.b.rng, nil, "Contradictory event", "Set device and values, or json.")
	}
	return e
}

// raw returns the attribute json: a text as it is, anything else as JSON.
func (r *testReader) raw(f fields) []byte {
	v, ok := f.required("json")
	if !ok {
		return nil
	}
	if s, isText := v.(string); isText {
		if len(s) > maxEvent {
			f.wrong("json", "Value too large", "An event may have up to %d bytes; this has %d.", maxEvent, len(s))
			return nil
		}
		return []byte(s)
	}
	if _, ok := weigh(v, maxEvent, maxDepth); !ok {
		f.wrong("json", "Value too large", "An event may have up to %d bytes and be nested %d deep.", maxEvent, maxDepth)
		return nil
	}
	return marshal(v)
}

// marshal writes a value that was weighed. Its numbers are finite and its keys text, so that there is always JSON for it.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// metric is a value in an event.
type metric struct {
	Key     string `json:"parameter_key"`
	Value   any    `json:"value"`
	Quality any    `json:"quality,omitempty"`
}

// composed writes an event of a device. Its metrics are in the order of their names.
func (r *testReader) composed(f fields, t *Test, at time.Time) []byte {
	d := r.device(f)
	v, ok := f.required("values")
	if !ok || d == nil {
		return nil
	}
	values, ok := v.(map[string]any)
	if !ok {
		f.wrong("values", "Wrong type", "values is an object, such as { voltage = 230 }; this is %s.", describe(v))
		return nil
	}
	if _, ok := weigh(values, maxEvent, maxDepth); !ok {
		f.wrong("values", "Value too large", "An event may have up to %d bytes and be nested %d deep.", maxEvent, maxDepth)
		return nil
	}
	quality, ok := f.value("quality")
	if ok && !isPlain(quality) {
		f.wrong("quality", "Wrong type", "quality is a number; this is %s.", describe(quality))
		return nil
	}
	metrics := []metric{}
	for _, name := range sortedKeys(values) {
		p, others := r.parameterOf(d, name)
		if p == nil {
			f.wrong("values", "Unknown parameter", "The project of %s has no parameter %s.%s", d.Addr, quote(name), elseAmong(name, others))
			continue
		}
		metrics = append(metrics, metric{p.Key, values[name], quality})
	}
	stamp := at.Format(time.RFC3339Nano)
	if s := f.text("time", maxName); s != "" {
		stamp = s
		if since, why := parseDuration(s); why == "" {
			stamp = t.Start.Add(since).Format(time.RFC3339Nano)
		}
	}
	return marshal(map[string]any{
		"project_id": d.ProjectID, "site_id": d.SiteID, "device_id": d.ID,
		"protocol": "TEST", "source_timestamp": stamp, "metrics": metrics,
	})
}

// AppendSample appends the event, in JSON, that the device of a series sends at a time.
func (s *Series) AppendSample(b []byte, at time.Time, value float64) []byte {
	d := s.Device
	b = append(append(append(append(b, `{"project_id":"`...), d.ProjectID.String()...), `","site_id":"`...), d.SiteID.String()...)
	b = append(append(append(b, `","device_id":"`...), d.ID.String()...), `","protocol":"TEST","source_timestamp":"`...)
	b = append(at.AppendFormat(b, time.RFC3339Nano), `","metrics":[{"parameter_key":`...)
	b = append(append(b, marshal(s.Parameter.Key)...), `,"value":`...)
	if math.IsNaN(value) {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendFloat(b, value, 'g', -1, 64)
	}
	if s.Quality >= 0 {
		b = strconv.AppendInt(append(b, `,"quality":`...), int64(s.Quality), 10)
	}
	return append(b, "}]}"...)
}

func (r *testReader) alert(f fields, t *Test) AlertExpected {
	a := AlertExpected{Place: f.b.rng, Device: r.device(f), State: f.choice("state", "firing", "pending", "resolved", "none"),
		Value: f.bound("value"), At: f.moment("at", t.Start, t.Start)}
	f.required("at")
	f.required("state")
	a.StatePlace, a.ValuePlace = a.Place, a.Place
	if attr := f.b.attrs["state"]; attr != nil {
		a.StatePlace = attr.Range
	}
	if attr := f.b.attrs["value"]; attr != nil {
		a.ValuePlace = attr.Range
		if a.State == "none" {
			f.wrong("value", "Contradictory expectation", "An alert that there is not has no value.")
		}
	}
	ref := f.reference("threshold")
	if a.Device == nil || ref.name == "" {
		return a
	}
	p := r.parameter(f, a.Device)
	var found []string
	project, names := a.Device.Project(), map[string]bool{}
	for _, th := range r.declared.Thresholds {
		parameter := registry.Address{Kind: registry.KindParameter, Path: th.Addr.ParentPath()}
		if parameter.ParentPath() != project.Path || p != nil && p.Addr != parameter {
			continue
		}
		names[th.Addr.Name()] = true
		if th.Addr.Name() == ref.name {
			a.Threshold = th
			found = append(found, parameter.Name())
		}
	}
	switch {
	case len(found) == 0:
		r.report(*ref.rng, nil, "Unknown threshold", "The project of %s has no threshold %s.%s", a.Device.Addr, quote(ref.name), elseAmong(ref.name, options(names)))
	case len(found) > 1:
		r.report(*ref.rng, nil, "Unknown threshold", "Several parameters have a threshold %s: %s. Say which with parameter.", quote(ref.name), quoteAll(found))
	}
	return a
}

func (r *testReader) quality(f fields, t *Test) QualityExpected {
	q := QualityExpected{Place: f.b.rng, Device: r.device(f), At: f.moment("at", t.Start, t.Start), Quality: byte(f.wholeNumber("quality", 0, 255))}
	f.required("at")
	f.required("quality")
	q.Parameter = r.parameter(f, q.Device)
	return q
}
