package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// fleet writes bodies as a fleet of devices of one project does: value by value different, alike in form.
func fleet(n, metrics int, format, item, separator string) [][]byte {
	keys := []string{"voltage", "current", "power", "frequency", "power_factor", "energy", "temperature", "humidity", "pressure", "flow"}
	project, site := uuid.NewSHA1(uuid.Nil, []byte("p")), uuid.NewSHA1(uuid.Nil, []byte("s"))
	bodies := make([][]byte, n)
	for i := range bodies {
		var list []string
		for m := range metrics {
			list = append(list, fmt.Sprintf(item, fmt.Sprint("project:", project, ":", keys[m]), float64(2000+(i*31+m*7)%1000)/10))
		}
		bodies[i] = fmt.Appendf(nil, format, project, site, uuid.NewSHA1(site, fmt.Append(nil, i)),
			fmt.Sprintf("2026-11-01T%02d:%02d:%02dZ", i/3600%24, i/60%60, i%60), strings.Join(list, separator))
	}
	return bodies
}

const (
	compactEvent  = `{"project_id":"%s","site_id":"%s","device_id":"%s","protocol":"GPRS","source_timestamp":"%s","metrics":[%s]}`
	compactMetric = `{"parameter_key":"%s","value":%v,"quality":192,"attributes":{}}`
	spacedEvent   = `{"project_id": "%s", "site_id": "%s", "device_id": "%s", "protocol": "GPRS", "source_timestamp": "%s", "metrics": [%s]}`
	spacedMetric  = `{"parameter_key": "%s", "value": %v, "quality": 192, "attributes": {"unit": "V", "phase": 1}}`
)

func BenchmarkDecode(b *testing.B) {
	for _, test := range []struct {
		name   string
		bodies [][]byte
	}{
		{"1", fleet(1000, 1, compactEvent, compactMetric, ",")},
		{"10", fleet(1000, 10, compactEvent, compactMetric, ",")},
		{"10spaced", fleet(1000, 10, spacedEvent, spacedMetric, ", ")},
		{"10mixed", append(fleet(500, 10, compactEvent, compactMetric, ","), fleet(500, 10, spacedEvent, spacedMetric, ", ")...)},
		{"10unknown", fleet(1000, 10, strings.Replace(compactEvent, "{", `{"firmware":"1.2",`, 1), compactMetric, ",")},
	} {
		b.Run(test.name, func(b *testing.B) {
			var d decoder
			var e rawEvent
			b.ReportAllocs()
			b.SetBytes(int64(len(test.bodies[0])))
			for i := 0; b.Loop(); i++ {
				if r := d.decode(test.bodies[i%len(test.bodies)], &e); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}

// FuzzNumber holds number against the JSON grammar of package encoding/json and the rounding of strconv.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5", "-0.0", "9007199254740993", "9007199254740992.0", "1e22", "1e23", "123456789012345678.9",
		"0.000000000000000001", "5e-324", "1.7976931348623159e308", "01", "1.", ".5", "1e", "1e+", "-", "9999999999999999999", "18446744073709551616",
		"0.1e-5", "2.2250738585072011e-308"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, n := number([]byte(s), 0)
		if n == 0 {
			if v, err := strconv.ParseFloat(s, 64); err == nil && json.Valid([]byte(s)) && !strings.ContainsAny(s, " \t\r\n") && len(s) <= maxNumber {
				t.Errorf("%q is not read as %v", s, v)
			}
			return
		}
		if !json.Valid([]byte(s[:n])) {
			t.Fatalf("%q is not a JSON number", s[:n])
		}
		want, err := strconv.ParseFloat(s[:n], 64)
		if err != nil {
			t.Fatal(err)
		}
		if want == 0 {
			want = 0
		}
		if math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%q is %v, not %v", s[:n], want, got)
		}
	})
}

func TestNumberRounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		digits := strconv.FormatUint(1e14+rng.Uint64N(1e18)>>rng.IntN(12), 10)
		point := 1 + rng.IntN(len(digits)-1)
		s := digits[:point] + "." + digits[point:]
		want, err := strconv.ParseFloat(s, 64)
		if got, n := number([]byte(s), 0); err != nil || n != len(s) || got != want {
			t.Fatalf("%s is %v, not %v", s, want, got)
		}
	}
}

func TestText(t *testing.T) {
	// Every byte at every place of a word, with every other odd byte behind it.
	for place := range 20 {
		for c := range 256 {
			for _, behind := range []byte{'a', '"', '\\', 0x80, 0xff, 0x7f, 0x1f, 0} {
				s := `"` + strings.Repeat("x", place) + string([]byte{byte(c), behind}) + strings.Repeat("y", 9) + `"`
				got, n := text([]byte(s), 0, 100)
				plain := func(c byte) bool { return c >= ' ' && c < 0x7f && c != '\\' }
				want := ""
				if end := strings.IndexByte(s[1:], '"') + 1; end > 0 && !strings.ContainsFunc(s[1:end], func(r rune) bool { return r >= 0x7f || !plain(byte(r)) }) {
					want = s[:end+1]
				}
				if n != len(want) || n > 0 && string(got) != want[1:n-1] {
					t.Fatalf("%q: %q and %d, want %q", s, got, n, want)
				}
			}
		}
	}
	if s, n := text([]byte(`"12345678"`), 0, 8); n != 10 || string(s) != "12345678" {
		t.Errorf("at the limit: %q, %d", s, n)
	}
	if _, n := text([]byte(`"123456789"`), 0, 8); n != 0 {
		t.Error("above the limit: taken")
	}
}

func TestParseUUID(t *testing.T) {
	const canonical = "7a1f8e9c-0123-4567-89ab-cdefABCDEF98"
	for place := range canonical {
		for c := range 256 {
			s := []byte(canonical)
			s[place] = byte(c)
			var got uuid.UUID
			ok := parseUUID(s, &got)
			want, err := uuid.Parse(string(s))
			if ok != (err == nil) || ok && got != want {
				t.Fatalf("%q: %v %v, want %v %v", s, got, ok, want, err)
			}
		}
	}
}

// reference is what package json makes of an event.
type reference struct {
	Project  *string `json:"project_id"`
	Site     *string `json:"site_id"`
	Device   *string `json:"device_id"`
	Protocol *string `json:"protocol"`
	Time     *string `json:"source_timestamp"`
	Metrics  []*struct {
		Key        *string        `json:"parameter_key"`
		Value      jsontext.Value `json:"value"`
		Quality    jsontext.Value `json:"quality"`
		Attributes jsontext.Value `json:"attributes"`
	} `json:"metrics"`
	EventID  *string        `json:"event_id"`
	Version  *string        `json:"config_version"`
	Metadata jsontext.Value `json:"metadata"`
}

// acceptable reports whether the event is well inside of all limits, so that to refuse it is wrong.
func (ref *reference) acceptable() bool {
	identifier := func(s *string) bool {
		return s != nil && *s != "" && len(*s) <= maxIdentifier && !strings.ContainsFunc(*s, func(r rune) bool { return r < ' ' || r > '~' })
	}
	id := func(s *string) bool {
		if s == nil || len(*s) != 36 {
			return false
		}
		_, err := uuid.Parse(*s)
		return err == nil
	}
	emptyObject := func(v jsontext.Value) bool { return v == nil || string(v) == "{}" || string(v) == "null" }
	if !id(ref.Project) || !id(ref.Site) || !id(ref.Device) || !identifier(ref.Protocol) || ref.EventID != nil && !identifier(ref.EventID) ||
		ref.Version != nil && !identifier(ref.Version) || !emptyObject(ref.Metadata) || len(ref.Metrics) == 0 || len(ref.Metrics) > maxMetrics ||
		ref.Time == nil {
		return false
	}
	when, ok := stdTime(*ref.Time)
	if _, offset := when.Zone(); !ok || when.Year() < 1971 || when.Year() > 9998 || offset > 14*3600 || offset < -14*3600 {
		return false
	}
	for _, m := range ref.Metrics {
		if m == nil || !identifier(m.Key) || !emptyObject(m.Attributes) || len(m.Quality) > 2 || strings.Trim(string(m.Quality), "0123456789") != "" {
			return false
		}
		if v := string(m.Value); v != "" && v != "null" {
			if _, err := strconv.ParseFloat(v, 64); err != nil || len(v) > maxNumber {
				return false
			}
		}
	}
	return true
}

// event is the outcome that a decoder must have.
func (ref *reference) event(t *testing.T) *rawEvent {
	canonical := []byte(strings.ToUpper(*ref.Time))
	canonical[10] = 'T'
	when, ok := stdTime(string(canonical))
	if !ok {
		t.Fatalf("%q is not a time", *ref.Time)
	}
	id := func(s *string) uuid.UUID {
		u, err := uuid.Parse(*s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	e := &rawEvent{Project: id(ref.Project), Site: id(ref.Site), Device: id(ref.Device), Time: telemetry.MicrosOf(when), Protocol: []byte(*ref.Protocol)}
	if ref.EventID != nil && *ref.EventID != "" {
		e.EventID = []byte(*ref.EventID)
	}
	for _, r := range ref.Metrics {
		m := rawMetric{Key: []byte(*r.Key), Value: math.NaN(), Quality: -1}
		if r.Value.Kind() == '0' {
			v, err := strconv.ParseFloat(string(r.Value), 64)
			if err != nil {
				t.Fatal(err)
			}
			if m.Value = v; v == 0 {
				m.Value = 0
			}
		}
		if r.Quality != nil {
			q, err := strconv.ParseUint(strings.TrimPrefix(string(r.Quality), "-"), 10, 8)
			if err != nil {
				t.Fatal(err)
			}
			m.Quality = int16(q)
		}
		var members map[string]any
		if r.Attributes != nil {
			if err := jsonv2.Unmarshal(r.Attributes, &members); err != nil {
				t.Fatal(err)
			}
		}
		if len(members) > 0 {
			m.Attributes = r.Attributes
		}
		e.Metrics = append(e.Metrics, m)
	}
	return e
}

// FuzzDecode holds the two ways of the decoder together, and both to package json.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		plain,
		edit(f, `"protocol"`, `"event_id":"e\u0041","config_version":"3","metadata":{"a":1},"protocol"`),
		edit(f, `"attributes":{}`, `"attributes":{"unit":"V","a":-0.5,"b":[true,null,{"c":"\ud83d\ude00"}]}`),
		edit(f, `{}}]`, `{ }},{"value":null,"parameter_key":"é"},{"parameter_key":"k","value":1e-7,"quality":192,"attributes":{}}]`),
		edit(f, `"protocol"`, `"Protocol":1,"x":[[]],"protocol"`),
		edit(f, "05.678901Z", "05+05:30"), "[]", "{}", " ", "null",
	} {
		f.Add([]byte(body))
	}
	var used decoder // and never reset: what it remembers must not show
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		var quick, strict, got rawEvent
		n := used.fast(body, space(body, 0), &quick)
		var fresh decoder
		m, r := fresh.strict(body, &strict)
		if n > 0 && (r != nil || m != n || !sameEvent(&quick, &strict)) {
			t.Fatalf("fast takes %d bytes: %+v\nstrict takes %d: %+v, %v", n, quick, m, strict, r)
		}
		if r = used.decode(body, &got); r == nil && !sameEvent(&got, &strict) {
			t.Fatalf("decode: %+v\nstrict: %+v", got, strict)
		}
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		var ref reference
		if r != nil {
			checkBounds(t, r)
			if err := jsonv2.Unmarshal(body, &ref, jsonv2.RejectUnknownMembers(true)); err == nil && ref.acceptable() {
				t.Fatalf("refused: %v", r)
			}
			return
		}
		if err := jsonv2.Unmarshal(body, &ref); err != nil {
			t.Fatalf("package json refuses it: %v", err)
		}
		if want := ref.event(t); !sameEvent(&got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}
