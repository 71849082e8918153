package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// growing is a registry whose database knows more than the snapshot does.
type growing struct {
	now, next *registry.Snapshot
	asked     int
	err       error
}

func (g *growing) Snapshot() *registry.Snapshot { return g.now }

func (g *growing) Refresh(context.Context) error {
	g.asked++
	if g.err == nil && g.next != nil {
		g.now = g.next
	}
	return g.err
}

// mill has the parameters named, beside voltage, current, cpu_idle, mem.free and count, and the devices meter-1 and meter-2;
// another project has a voltage of its own, and the device there.
func mill(more ...string) *registry.Snapshot {
	project := registry.NewAddress(registry.KindProject, "c", "p")
	site := project.Child(registry.KindSite, "s")
	objects := []registry.Object{&registry.Project{Addr: project}, &registry.Site{Addr: site}}
	for _, name := range append([]string{"voltage", "current", "cpu_idle", "mem.free", "count", "old"}, more...) {
		p := &registry.Parameter{Addr: project.Child(registry.KindParameter, name), Type: registry.TypeFloat, OnViolation: registry.Flag}
		if name == "count" {
			p.Type, p.OnViolation = registry.TypeInt, registry.Reject
		}
		p.Retired = name == "old"
		objects = append(objects, p)
	}
	for i := range 2 {
		objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprint(i+1)), ExternalID: fmt.Sprintf("meter-%d", i+1)})
	}
	for _, name := range more {
		objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, name), ExternalID: name})
	}
	other := registry.NewAddress(registry.KindProject, "c", "q")
	objects = append(objects, &registry.Project{Addr: other}, &registry.Site{Addr: other.Child(registry.KindSite, "s")},
		&registry.Parameter{Addr: other.Child(registry.KindParameter, "voltage"), Type: registry.TypeFloat},
		&registry.Device{Addr: other.Child(registry.KindSite, "s").Child(registry.KindDevice, "x"), ExternalID: "there"})
	return registry.Declare(objects)
}

// kept is what a Service has queued and refused.
type kept struct {
	events  []string // external id, time in µs, source, short name=value …
	refused []string // code, and known when the device is
}

// accept gives a body to a Service over a registry.
func accept(t testing.TB, g *growing, format Format, body string) (Result, kept, error) {
	t.Helper()
	var k kept
	s := &Service{Registry: g, Partitions: 2, Reject: func(d uuid.UUID, r *Rejection) {
		known := ""
		if g.now.Device(d) != nil {
			known = " known"
		}
		k.refused = append(k.refused, r.Code+known)
		if len(r.Message) > maxMessage || len(r.Field) > 4*maxField || len(r.Input) > 4*maxInput {
			t.Errorf("a rejection without bounds: %+v", r)
		}
	}}
	s.Queue = queueFunc(func(b telemetry.Block) {
		for _, e := range decoded(t, b) {
			device := g.now.Device(e.Device)
			text := fmt.Sprint(device.ExternalID, " ", int64(e.Time), " ", string(e.Source))
			for i, key := range e.Set.Keys {
				if !strings.HasPrefix(key, registry.ParameterKey(device.ProjectID, "")) {
					t.Errorf("%s has %s of another project", text, key)
				}
				text += fmt.Sprintf(" %s=%v", key[strings.LastIndexByte(key, ':')+1:], e.Values[i])
			}
			if e.Quality != nil || e.EventID != nil || e.Attributes != nil {
				t.Errorf("%s has quality %v, event id %q, attributes %q", text, e.Quality, e.EventID, e.Attributes)
			}
			k.events = append(k.events, text)
		}
	})
	result, err := s.Accept(context.Background(), format, []byte(body))
	if result.Accepted != len(k.events) || err == nil && result.Rejected+result.Partial != len(k.refused) {
		t.Errorf("the result is %+v, but %d events were queued and %d refusals reported", result, len(k.events), len(k.refused))
	}
	slices.Sort(k.events)
	return result, k, err
}

// decoded returns the events of a block, as a worker gets them.
func decoded(t testing.TB, b telemetry.Block) []telemetry.Event {
	t.Helper()
	frame := telemetry.SealFrame(append(make([]byte, telemetry.HeaderSize), b.Records...), telemetry.Header{Events: b.Events, Held: b.Held}, b.Sets)
	var d telemetry.Decoder
	var batch telemetry.Batch
	if _, err := d.Append(&batch, frame); err != nil {
		t.Fatal(err)
	}
	return batch.Events
}

type queueFunc func(telemetry.Block)

func (f queueFunc) Append(_ int, b telemetry.Block) (func(context.Context) error, error) {
	f(b)
	return func(context.Context) error { return nil }, nil
}

func TestLinesFitTheRegistry(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	sec, us := now.Unix(), fmt.Sprint(now.UnixMicro())
	id := mill().Devices[0].ID.String()
	key := registry.ParameterKey(mill().Projects[0].ID, "voltage")
	for name, c := range map[string]struct {
		body    string // @ is the time in seconds
		events  []string
		refused []string
	}{
		"one value":               {"m,host=meter-1 voltage=1.5 @", []string{"meter-1 " + us + " influx voltage=1.5"}, nil},
		"two devices, a comment":  {"# c\n\nm,host=meter-1 voltage=1 @\r\n  m,host=meter-2 current=2 @\n", []string{"meter-1 " + us + " influx voltage=1", "meter-2 " + us + " influx current=2"}, nil},
		"by uuid":                 {"m,device_id=" + id + " voltage=1 @", []string{"meter-1 " + us + " influx voltage=1"}, nil},
		"by uuid in capitals":     {"m,host=" + strings.ToUpper(id) + " voltage=1 @", []string{"meter-1 " + us + " influx voltage=1"}, nil},
		"the first tag decides":   {"m,host=meter-2,device=meter-1,a=b voltage=1 @", []string{"meter-1 " + us + " influx voltage=1"}, nil},
		"instance is no tag":      {"m,instance=meter-1 voltage=1 @", nil, []string{"missing"}},
		"unknown device":          {"m,host=web voltage=1 @\nm,host=meter-1 voltage=1 @", []string{"meter-1 " + us + " influx voltage=1"}, []string{"unknown_device"}},
		"the next tag is no help": {"m,device=sda,host=meter-1 voltage=1 @", nil, []string{"unknown_device"}},
		"measurement_field":       {"cpu,host=meter-1 idle=3 @", []string{"meter-1 " + us + " influx cpu_idle=3"}, nil},
		"measurement.field":       {"mem,host=meter-1 free=3 @", []string{"meter-1 " + us + " influx mem.free=3"}, nil},
		"another measurement":     {"cpu,host=meter-1 idle=3 @\nmem,host=meter-1 idle=3 @", []string{"meter-1 " + us + " influx cpu_idle=3"}, []string{"unknown_parameter known"}},
		"another project":         {"m,host=meter-1 voltage=3 @\nm,host=there voltage=4 @", []string{"meter-1 " + us + " influx voltage=3", "there " + us + " influx voltage=4"}, nil},
		"whole key":               {"m,host=meter-1 " + key + "=3 @", []string{"meter-1 " + us + " influx voltage=3"}, nil},
		"sorted or not":           {"m,host=meter-1 voltage=1,current=2 @", []string{"meter-1 " + us + " influx current=2 voltage=1"}, nil},
		"booleans and integers":   {"m,host=meter-1 voltage=true,current=-7i,count=9u @", []string{"meter-1 " + us + " influx count=9 current=-7 voltage=1"}, nil},
		"some fields unknown":     {"m,host=meter-1 a=1,voltage=2,b=3,current=4,c=\"x\" @", []string{"meter-1 " + us + " influx current=4 voltage=2"}, []string{"unknown_parameter known"}},
		"a string beside":         {"m,host=meter-1 voltage=2,s=\"x,y z\\\"\" @", []string{"meter-1 " + us + " influx voltage=2"}, []string{"type_violation known"}},
		"all fields unknown":      {"m,host=meter-1 a=1,b=3 @", nil, []string{"unknown_parameter known"}},
		"all fields strings":      {"m,host=meter-1 a=\"1\" @", nil, []string{"type_violation known"}},
		"string for a parameter":  {"m,host=meter-1 voltage=\"1\" @", nil, []string{"type_violation known"}},
		"retired parameter":       {"m,host=meter-1 old=1,voltage=2 @", []string{"meter-1 " + us + " influx voltage=2"}, []string{"parameter_retired known"}},
		"twice":                   {"cpu,host=meter-1 idle=1,cpu_idle=2 @", []string{"meter-1 " + us + " influx cpu_idle=1"}, []string{"duplicate_parameter known"}},
		"a type that is declared": {"m,host=meter-1 count=1.5,voltage=2 @", nil, []string{"type_violation known"}},
		"in the future":           {"m,host=meter-1 voltage=1 9999999999", nil, []string{"timestamp_in_future known"}},
		"too old":                 {"m,host=meter-1 voltage=1 1", nil, []string{"timestamp_too_old known"}},
		"broken neighbours": {"m\nm,host=meter-1 voltage=1 @\nm,host= voltage=1 @\n=,\nm,host=meter-1 voltage=1,= @\nm,host=meter-1 voltage=\"1 @\nm,host=meter-2 voltage=2 @",
			[]string{"meter-1 " + us + " influx voltage=1", "meter-2 " + us + " influx voltage=2"},
			[]string{"line_invalid", "line_invalid", "line_invalid", "line_invalid", "line_invalid"}},
		"unprintable device":    {"m,host=a\x00b voltage=1 @", nil, []string{"utf8_invalid"}},
		"device not UTF-8":      {"m,host=a\xff voltage=1 @", nil, []string{"utf8_invalid"}},
		"measurement not UTF-8": {"m\xff,host=meter-1 voltage=1 @", nil, []string{"utf8_invalid known"}},
		"field not UTF-8":       {"m,host=meter-1 \xff=1,voltage=2 @", []string{"meter-1 " + us + " influx voltage=2"}, []string{"unknown_parameter known"}},
		"nothing":               {" \n# all\n", nil, nil},
		"many fields":           {"m,host=meter-1 " + strings.Repeat("a=1,", 1024) + "voltage=2 @\nm,host=meter-1 voltage=2 @", []string{"meter-1 " + us + " influx voltage=2"}, []string{"too_many_metrics"}},
		"a long name":           {"m,host=meter-1 " + strings.Repeat("a", 257) + "=1 @", nil, []string{"string_too_long"}},
		"a long device":         {"m,host=" + strings.Repeat("a", 4097) + " voltage=1 @", nil, []string{"string_too_long"}},
	} {
		t.Run(name, func(t *testing.T) {
			result, k, err := accept(t, &growing{now: mill()}, InfluxSeconds, strings.ReplaceAll(c.body, "@", fmt.Sprint(sec)))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(k.events, c.events) {
				t.Errorf("queued %q, want %q", k.events, c.events)
			}
			if !slices.Equal(k.refused, c.refused) {
				t.Errorf("refused %q, want %q: %+v", k.refused, c.refused, result.Rejections)
			}
		})
	}
}

func TestARefusalNamesLineAndFields(t *testing.T) {
	body := "# a comment\nm,host=meter-1 s=\"two\nlines\",voltage=1\n\nm,host=meter-1 voltage=1,a=1,b=2,c=\"x\"\nm,host=web voltage=1\nm,host=meter-2 voltage=x"
	result, _, err := accept(t, &growing{now: mill()}, InfluxNanoseconds, body)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range result.Rejections {
		got += fmt.Sprintf("%d %s %s %d %q\n", r.Line, r.Code, r.Field, r.Fields, r.Input)
	}
	const want = `2 type_violation fields.s 1 ""
5 unknown_parameter fields.a 3 ""
6 unknown_device host 0 "web"
7 value_not_a_number fields.voltage 0 "x"
`
	if got != want {
		t.Errorf("rejections are\n%s, want\n%s", got, want)
	}
	if m := result.Rejections[1].Message; !strings.Contains(m, "Nor stored: b") || !strings.Contains(m, "string: c") {
		t.Errorf("the other fields are not named: %s", m)
	}
	if result.Accepted != 2 || result.Partial != 2 || result.Rejected != 2 || result.Untimed != 2 {
		t.Errorf("the result is %+v", result)
	}
}

func TestTheRegistryIsAskedOnceForUnknownFields(t *testing.T) {
	g := &growing{now: mill()}
	s := &Service{Registry: g, Queue: nowhere{}, Partitions: 1, Reject: func(uuid.UUID, *Rejection) {}}
	send := func(body string) Result {
		t.Helper()
		r, err := s.Accept(context.Background(), InfluxSeconds, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	expect := func(what string, r Result, accepted, partial, rejected, asked int) {
		t.Helper()
		if r.Accepted != accepted || r.Partial != partial || r.Rejected != rejected || g.asked != asked {
			t.Errorf("%s: %+v after %d questions, want %d accepted, %d partial, %d rejected, %d questions", what, r, g.asked, accepted, partial, rejected, asked)
		}
	}
	line := "m,host=meter-1 voltage=1,power=2\n"
	expect("first", send(strings.Repeat(line, 3)), 3, 3, 0, 1)
	expect("again", send(line), 1, 1, 0, 1)
	g.err = errors.New("away")
	expect("while the database is away", send(line), 1, 1, 0, 1)
	for _, body := range []string{"m,host=meter-9 voltage=1", line + "m,host=meter-9 voltage=1", line + "m,host=meter-1 voltage=1,energy=2\n"} {
		if r, err := s.Accept(context.Background(), InfluxSeconds, []byte(body)); !errors.As(err, new(*telemetry.UnavailableError)) || r.Accepted != 0 {
			t.Errorf("%s while the database is away: %+v, %v", body, r, err)
		}
	}
	g.err, g.next, g.asked = nil, mill("power"), 0
	g.now = mill() // a new snapshot: what was found out about the old one is forgotten
	expect("declared since", send(line+"m,host=power voltage=1,power=2"), 2, 0, 0, 1)
	expect("known now", send(line), 1, 0, 0, 1)
}

func TestPrecision(t *testing.T) {
	for name, want := range map[string]string{"": "1767323045678901", "ns": "1767323045678901", "n": "1767323045678901", "us": "1767323045678901000",
		"u": "1767323045678901000", "ms": "1767323045678", "s": "1767323045", "m": "29455384", "h": "490923"} {
		format, ok := InfluxPrecision(name)
		if !ok {
			t.Fatalf("%q is unknown", name)
		}
		var at telemetry.Micros
		ok = lineTime([]byte(want), format, &at)
		switch name {
		case "us", "u": // in the year 57973, as nanoseconds in their place are
			if ok {
				t.Errorf("%s: %d is a time", name, at)
			}
		default:
			unit := map[string]int64{"": 0, "ns": 0, "n": 0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}[name]
			if n := int64(1767323045678901); !ok || unit == 0 && int64(at) != n/1000 || unit > 0 && int64(at) != n/unit*unit {
				t.Errorf("%q: %d, %v", name, at, ok)
			}
		}
	}
	if _, ok := InfluxPrecision("d"); ok {
		t.Error("days are a precision")
	}
	for _, bad := range []string{"-1", "9223372036854775808", "99999999999999999999"} {
		if lineTime([]byte(bad), InfluxNanoseconds, new(telemetry.Micros)) {
			t.Errorf("%s is a time", bad)
		}
	}
}

func TestLineEscapes(t *testing.T) {
	var d lineDecoder
	e := rawEvent{Point: &rawPoint{}}
	line := `we\ at=h\,er\=\x,ho\st=n,host=a\ b\,c\=d\\e\ ,z=\  f\ 1\,\==1e3,g="a\"b\\",h\i=.5 1767323045678901234` + "\r\n"
	n, r := d.next([]byte(line+"next"), InfluxNanoseconds, 0, &e)
	if r != nil || n != len(line) {
		t.Fatal(n, r)
	}
	p := e.Point
	if m := string(p.Measurement); m != `we at=h,er=\x` && m != `we at=h,er\=\x` {
		t.Errorf("measurement %s", m)
	}
	if string(p.Device) != `a b,c=d\\e ` || p.Tag != "host" || p.Texts != 1 || string(p.Text) != "g" || p.Untimed || e.Time != 1767323045678901 {
		t.Errorf("point %+v, device %s", e, p.Device)
	}
	if len(e.Metrics) != 2 || string(e.Metrics[0].Key) != "f 1,=" || e.Metrics[0].Value != 1000 || string(e.Metrics[1].Key) != `h\i` || e.Metrics[1].Value != .5 {
		t.Errorf("metrics %+v", e.Metrics)
	}
}

func TestLineValues(t *testing.T) {
	for text, want := range map[string]any{
		"1": 1., "-1.5": -1.5, "1e3": 1e3, "1E-3": 1e-3, "007": 7., ".5": .5, "5.": 5., "+5": 5., "-0": 0., "0i": 0., "-3i": -3., "9007199254740993i": 9007199254740992.,
		"9223372036854775807i": 9223372036854775807., "18446744073709551615u": 18446744073709551615., "1.7976931348623157e308": math.MaxFloat64, "1e-400": 0.,
		"t": 1., "True": 1., "TRUE": 1., "f": 0., "false": 0., "F": 0.,
		"": CodeValueNotANumber, "x": CodeValueNotANumber, "NaN": CodeValueNotANumber, "inf": CodeValueNotANumber, "0x1p2": CodeValueNotANumber, "1_000": CodeValueNotANumber,
		"1.5i": CodeValueNotANumber, "-1u": CodeValueNotANumber, "i": CodeValueNotANumber, "-i": CodeValueNotANumber, "1ii": CodeValueNotANumber, "--1": CodeValueNotANumber,
		"tRUE": CodeValueNotANumber, "1e": CodeValueNotANumber, "-": CodeValueNotANumber, "1\"": CodeValueNotANumber,
		"9223372036854775808i": CodeValueOutOfRange, "18446744073709551616u": CodeValueOutOfRange, "1e309": CodeValueOutOfRange,
		strings.Repeat("1", 65): CodeNumberTooLong,
	} {
		for _, after := range []string{"", " 1", "\n", ",x=1", "\r\n"} {
			v, end, code := lineValue([]byte(text+after), 0)
			if code != "" && code != want || code == "" && v != want || end != len(text) || math.Signbit(v) && v == 0 {
				t.Errorf("%q before %q: %v, %q, %d bytes; want %v", text, after, v, code, end, want)
			}
		}
	}
}

func TestTooManyPoints(t *testing.T) {
	body := strings.Repeat("m,host=meter-1 voltage=1\n", MaxEvents)
	if r, _, err := accept(t, &growing{now: mill()}, InfluxSeconds, "#\n"+body); err != nil || r.Accepted != MaxEvents {
		t.Errorf("%+v, %v", r, err)
	}
	_, k, err := accept(t, &growing{now: mill()}, InfluxSeconds, body+"x")
	if rejection := (*Rejection)(nil); !errors.As(err, &rejection) || rejection.Code != CodeTooManyEvents || len(k.events) > 0 {
		t.Errorf("%v after %d events", err, len(k.events))
	}
}

// A scratch that took points takes JSON again.
func TestPointsLeaveNothingToEvents(t *testing.T) {
	g := &growing{now: mill()}
	s := &Service{Registry: g, Queue: nowhere{}, Partitions: 1, Reject: func(uuid.UUID, *Rejection) {}}
	for range 10 {
		if r, err := s.Accept(context.Background(), InfluxSeconds, []byte("m,host=meter-1 voltage=1")); err != nil || r.Accepted != 1 {
			t.Fatal(r, err)
		}
		d := g.now.Devices[0]
		event := fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"x","source_timestamp":%q,"metrics":[{"parameter_key":"voltage","value":1}]}`,
			d.ProjectID, d.SiteID, d.ID, time.Now().Format(time.RFC3339))
		r, err := s.Accept(context.Background(), JSON, []byte(event))
		if err != nil || r.Accepted != 0 || r.Rejections[0].Code != CodeUnknownParameter {
			t.Fatalf("an event with a short name: %+v, %v", r, err)
		}
	}
}

// What comes before a good line, whatever it is, does not spoil it.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{"m,host=meter-1 voltage=1 1", `m,host=meter-1 s="`, "m,a=\\", "#", `m,host=a\ b v=t,w="x\`, "a b=1i,c=2u -3\r", "\xff,host=\x00 \xfe=1", "a,host=meter-1 voltage=1e,"} {
		f.Add(seed)
	}
	g := &growing{now: mill()}
	f.Fuzz(func(t *testing.T, before string) {
		if len(before) > maxText/2 {
			return
		}
		_, first, err := accept(t, g, InfluxSeconds, before)
		if err != nil {
			return
		}
		result, both, err := accept(t, g, InfluxSeconds, before+"\nm,host=meter-2 current=77.25")
		if err != nil || len(both.events) != len(first.events)+1 {
			t.Errorf("%d events and then %d, %v: %+v", len(first.events), len(both.events), err, result.Rejections)
		}
	})
}

// A point that is written as Telegraf's serializer does is read as it was.
func FuzzLineRoundTrip(f *testing.F) {
	f.Add("cpu", "host 1", "usage,idle", 1.5, "text \"quoted\"\nnext", int64(1767323045678901234))
	escape := func(s string) string { return strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`).Replace(s) }
	f.Fuzz(func(t *testing.T, measurement, host, field string, value float64, text string, at int64) {
		bad := func(s string) bool {
			return s == "" || len(s) > 100 || strings.ContainsAny(s, "\n\r\t\f\\") || strings.HasPrefix(s, "#")
		}
		if bad(measurement) || bad(host) || bad(field) || strings.Contains(measurement, "=") || math.IsNaN(value) || math.IsInf(value, 0) || at < 0 {
			return
		}
		if s := fmt.Sprintf("%f", value); len(s) > 50 {
			return
		}
		line := fmt.Sprintf("%s,host=%s %s=%s,t=\"%s\" %d\n", strings.NewReplacer(",", `\,`, " ", `\ `).Replace(measurement), escape(host), escape(field),
			strconv.FormatFloat(value, 'f', -1, 64), strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(text), at)
		if len(line) > maxText {
			return
		}
		var d lineDecoder
		e := rawEvent{Point: &rawPoint{}}
		n, r := d.next([]byte(line), InfluxNanoseconds, 0, &e)
		if r != nil {
			if r.Code == CodeNumberTooLong {
				return
			}
			t.Fatalf("%q: %v", line, r)
		}
		if n != len(line) || string(e.Point.Measurement) != measurement || string(e.Point.Device) != host || e.Time != telemetry.Micros(at/1000) ||
			len(e.Metrics) != 1 || string(e.Metrics[0].Key) != field || e.Metrics[0].Value != value || e.Point.Texts != 1 {
			t.Errorf("%q was read as %+v, %+v", line, e, e.Point)
		}
	})
}

func BenchmarkLines(b *testing.B) {
	names := []string{"voltage", "current", "power", "frequency", "power_factor", "energy", "temperature", "humidity", "pressure", "flow"}
	s := &Service{Registry: &growing{now: mill(names[2:]...)}, Queue: nowhere{}, Partitions: 2, Reject: func(_ uuid.UUID, r *Rejection) { b.Fatal(r) }}
	at := time.Now().UnixNano()
	for _, fields := range []int{1, 10} {
		b.Run(fmt.Sprint(fields), func(b *testing.B) {
			const lines = 1000
			var body []byte
			for i := range lines {
				body = fmt.Appendf(body, "modbus,host=meter-%d,name=main\\ incomer,slave_id=1,type=holding_register", i%2+1)
				for j := range fields {
					body = append(body, " ,"[min(j, 1)])
					body = fmt.Appendf(body, "%s=%g", names[j], float64(2000+(i*31+j)%1000)/10)
				}
				body = fmt.Appendf(body, " %d\n", at+int64(i)*1e6)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if r, err := s.Accept(context.Background(), InfluxNanoseconds, body); err != nil || r.Accepted != lines {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/line")
		})
	}
}
