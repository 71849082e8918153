package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// plain is an event that the fast path takes.
const plain = `{"project_id":"7a1f8e9c-1111-4111-8111-0123456789ab","site_id":"7a1f8e9c-2222-4222-8222-0123456789ab",` +
	`"device_id":"7a1f8e9c-3333-4333-8333-0123456789ab","protocol":"GPRS","source_timestamp":"2026-01-02T03:04:05.678901Z",` +
	`"metrics":[{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}]}`

// edit replaces one part of plain.
func edit(t testing.TB, old, new string) string {
	t.Helper()
	if strings.Count(plain, old) != 1 {
		t.Fatalf("%q does not stand once in the plain event", old)
	}
	return strings.Replace(plain, old, new, 1)
}

func plainEvent() rawEvent {
	return rawEvent{
		Project:  uuid.MustParse("7a1f8e9c-1111-4111-8111-0123456789ab"),
		Site:     uuid.MustParse("7a1f8e9c-2222-4222-8222-0123456789ab"),
		Device:   uuid.MustParse("7a1f8e9c-3333-4333-8333-0123456789ab"),
		Time:     1767323045678901,
		Protocol: []byte("GPRS"),
		Metrics:  []rawMetric{{Key: []byte("k"), Value: 1.5, Quality: 192}},
	}
}

// sameEvent compares events bit by bit; nil and empty slices differ where the type says so.
func sameEvent(a, b *rawEvent) bool {
	if a.Project != b.Project || a.Site != b.Site || a.Device != b.Device || a.Time != b.Time ||
		!sameBytes(a.Protocol, b.Protocol) || !sameBytes(a.EventID, b.EventID) || len(a.Metrics) != len(b.Metrics) {
		return false
	}
	for i, m := range a.Metrics {
		n := b.Metrics[i]
		if !sameBytes(m.Key, n.Key) || m.Quality != n.Quality || !sameBytes(m.Attributes, n.Attributes) ||
			math.IsNaN(m.Value) != math.IsNaN(n.Value) ||
			!math.IsNaN(m.Value) && math.Float64bits(m.Value) != math.Float64bits(n.Value) {
			return false
		}
	}
	return true
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// members writes n members of an object.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":%d`, i, i)
	}
	return b.String()[1:]
}

func TestDecodeAccepts(t *testing.T) {
	change := func(f func(*rawEvent)) rawEvent {
		e := plainEvent()
		f(&e)
		return e
	}
	same := plainEvent()
	spaced := " \r\n\t" + strings.NewReplacer(`",`, "\" ,\n", `":`, "\"\t: ", "{", "{ ", "}", " }", "[", "[ ", "]", " ]", ",", " , ").Replace(plain) + "\n"
	value := func(v float64) rawEvent { return change(func(e *rawEvent) { e.Metrics[0].Value = v }) }
	at := func(micros telemetry.Micros) rawEvent { return change(func(e *rawEvent) { e.Time = micros }) }
	attributes := func(s string) rawEvent {
		return change(func(e *rawEvent) { e.Metrics[0].Attributes = []byte(s) })
	}
	const fast, slow = true, false
	for _, test := range []struct {
		name string
		fast bool
		body string
		want rawEvent
	}{
		{"plain", fast, plain, same},
		{"spaces", fast, spaced, same},
		{"fields in another order", fast, `{"metrics":[{"quality":192,"value":1.5,"parameter_key":"k"}],` + edit(t, `,"metrics":[{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}]`, "")[1:], same},
		{"all optional fields null", fast, edit(t, `"protocol"`, `"event_id":null,"config_version":null,"metadata":null,"protocol"`), same},
		{"all optional fields", fast, edit(t, `"protocol"`, `"event_id":"e-1","config_version":"3","metadata":{"a":1},"protocol"`),
			change(func(e *rawEvent) { e.EventID = []byte("e-1") })},
		{"empty event id", fast, edit(t, `"protocol"`, `"event_id":"","protocol"`), same},
		{"value null", fast, edit(t, "1.5", "null"), value(math.NaN())},
		{"no value", fast, edit(t, `"value":1.5,`, ""), value(math.NaN())},
		{"no quality", fast, edit(t, `"quality":192,`, ""), change(func(e *rawEvent) { e.Metrics[0].Quality = -1 })},
		{"attributes null", fast, edit(t, `"attributes":{}`, `"attributes":null`), same},
		{"attributes with nothing but space", fast, edit(t, `"attributes":{}`, `"attributes":{ }`), same},
		{"no attributes", fast, edit(t, `,"attributes":{}`, ""), same},
		{"flat attributes", fast, edit(t, `"attributes":{}`, `"attributes":{"unit":"V", "":-0.5, "a":true,"b":false,"c":null}`),
			attributes(`{"unit":"V", "":-0.5, "a":true,"b":false,"c":null}`)},
		{"upper-case UUID", fast, edit(t, "7a1f8e9c-1111", "7A1F8E9C-1111"), same},
		{"128 bytes of protocol", fast, edit(t, "GPRS", strings.Repeat("p", 128)),
			change(func(e *rawEvent) { e.Protocol = bytes.Repeat([]byte("p"), 128) })},
		{"256 metrics", fast, edit(t, `[{"par`, "["+strings.Repeat(`{"parameter_key":"j"},`, 255)+`{"par`), change(func(e *rawEvent) {
			list := make([]rawMetric, 255)
			for i := range list {
				list[i] = rawMetric{Key: []byte("j"), Value: math.NaN(), Quality: -1}
			}
			e.Metrics = append(list, e.Metrics...)
		})},

		{"UUID without hyphens", slow, edit(t, "7a1f8e9c-1111-4111-8111-0123456789ab", "7a1f8e9c1111411181110123456789ab"), same},
		{"UUID in braces", slow, edit(t, "7a1f8e9c-1111-4111-8111-0123456789ab", "{7a1f8e9c-1111-4111-8111-0123456789ab}"), same},
		{"UUID as URN", slow, edit(t, "7a1f8e9c-1111", "URN:uuid:7a1f8e9c-1111"), same},
		{"UUID with escapes", slow, edit(t, "7a1f8e9c-1111", `\u0037a1f8e9c-1111`), same},
		{"JS17 escape in a name", slow, edit(t, `"value"`, `"v\u0061lue"`), same},
		{"JS18 unknown fields", slow, edit(t, `"protocol"`, `"trace_id":{"a":[1,{"b":null}]},"protocol"`), same},
		{"JS18 unknown metric field", slow, edit(t, `"value"`, `"unit":"V","value"`), same},
		{"JS19 odd names", slow, edit(t, `"protocol"`, `"__proto__":1,"constructor":{},"":[],"protocol"`), same},
		{"brackets in strings", slow, edit(t, `"protocol"`, `"x":"\"`+strings.Repeat("[", 20)+`\\","y":"`+strings.Repeat("{", 20)+`","protocol"`), same},
		{"JS12 depth 16", slow, edit(t, `"protocol"`, `"x":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)+`,"protocol"`), same},
		{"nested attributes", slow, edit(t, `"attributes":{}`, `"attributes": {"a":{"b":[1e-9]}}`), attributes(`{"a":{"b":[1e-9]}}`)},
		{"nine attributes", slow, edit(t, `"attributes":{}`, `"attributes":{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1}`),
			attributes(`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1}`)},
		{"4096 elements", slow, edit(t, `"protocol"`, `"x":[`+strings.Repeat("1,", 4095)+`[]],"protocol"`), same},
		{"256 members", slow, edit(t, `"protocol"`, `"x":{`+members(256)+`},"protocol"`), same},
		{"escapes in strings", slow, edit(t, `"protocol":"GPRS"`, `"event_id":"a\/b","protocol":"\u0047PRS"`),
			change(func(e *rawEvent) { e.EventID = []byte("a/b") })},
		{"ST12 astral", slow, edit(t, `"attributes":{}`, `"attributes":{"face":"😀","pair":"\ud83d\ude00"}`), attributes(`{"face":"😀","pair":"\ud83d\ude00"}`)},
		{"ST12 astral identifier", slow, edit(t, `"k"`, `"\ud83d\ude00"`), change(func(e *rawEvent) { e.Metrics[0].Key = []byte("😀") })},
		{"ST14 noncharacter", slow, edit(t, `"attributes":{}`, `"attributes":{"a":"\ufffe"}`), attributes(`{"a":"\ufffe"}`)},
		{"ST15 spaces around", fast, edit(t, `"k"`, `" k "`), change(func(e *rawEvent) { e.Metrics[0].Key = []byte(" k ") })},
		{"ST18 text of other languages", fast, edit(t, `"k"`, `"'; DROP TABLE x; -- <script>${jndi:x}%s%n{{"`),
			change(func(e *rawEvent) { e.Metrics[0].Key = []byte(`'; DROP TABLE x; -- <script>${jndi:x}%s%n{{`) })},
		{"4096 bytes of string", slow, edit(t, `"attributes":{}`, `"attributes":{"a":"`+strings.Repeat(`\u0061`, 4096)+`"}`),
			attributes(`{"a":"` + strings.Repeat(`\u0061`, 4096) + `"}`)},

		{"NU03 underflow", fast, edit(t, "1.5", "1e-400"), value(0)},
		{"NU04 minus zero", fast, edit(t, "1.5", "-0"), value(0)},
		{"NU04 minus zero with fraction", fast, edit(t, "1.5", "-0.000"), value(0)},
		{"NU04 minus zero by underflow", fast, edit(t, "1.5", "-1e-400"), value(0)},
		{"NU05 above 2^53", fast, edit(t, "1.5", "9007199254740993"), value(9007199254740992)},
		{"NU06 above int64", fast, edit(t, "1.5", "18446744073709551616"), value(18446744073709551616)},
		{"NU09 smallest denormal", fast, edit(t, "1.5", "4.9406564584124654e-324"), value(math.SmallestNonzeroFloat64)},
		{"NU10 largest", fast, edit(t, "1.5", "-1.7976931348623157E+308"), value(-math.MaxFloat64)},
		{"NU19 quality 255", fast, edit(t, "192", "255"), change(func(e *rawEvent) { e.Metrics[0].Quality = 255 })},
		{"NU19 quality 0", fast, edit(t, "192", "0"), change(func(e *rawEvent) { e.Metrics[0].Quality = 0 })},

		{"offset", fast, edit(t, "05.678901Z", "05.678901+05:30"), at(1767323045678901 - 5.5*3600e6)},
		{"largest offset", fast, edit(t, "05.678901Z", "05.678901-14:00"), at(1767323045678901 + 14*3600e6)},
		{"space and small letters", fast, edit(t, "2026-01-02T03:04:05.678901Z", "2026-01-02 03:04:05.678901z"), at(1767323045678901)},
		{"TM12 nanoseconds", fast, edit(t, "678901Z", "678901999Z"), at(1767323045678901)},
		{"TM05 year 9999", fast, edit(t, "2026", "9999"), at(telemetry.MicrosOf(time.Date(9999, 1, 2, 3, 4, 5, 678901000, time.UTC)))},
		{"leap day", fast, edit(t, "2026-01-02T03:04:05.678901Z", "2000-02-29t00:00:00Z"), at(951782400000000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d decoder
			var got rawEvent
			if r := d.decode([]byte(test.body), &got); r != nil {
				t.Fatalf("refused: %v (input %q)", r, r.Input)
			}
			if !sameEvent(&got, &test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			body := []byte(test.body)
			if n := d.fast(body, space(body, 0), &got); n > 0 != test.fast {
				t.Errorf("fast: %v, want %v", n > 0, test.fast)
			}
			var strictly rawEvent
			if n, r := d.strict(body, &strictly); r != nil || n != len(strings.TrimSpace(test.body))+space(body, 0) {
				t.Errorf("strict: took %d of %d bytes, %v", n, len(body), r)
			} else if !sameEvent(&strictly, &test.want) {
				t.Errorf("strict: got  %+v\nwant %+v", strictly, test.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	value := func(v string) string { return edit(t, "1.5", v) }
	key := func(s string) string { return edit(t, `"k"`, `"`+s+`"`) }
	attributes := func(s string) string { return edit(t, `"attributes":{}`, `"attributes":`+s) }
	extra := func(s string) string { return edit(t, `"protocol"`, s+`,"protocol"`) }
	when := func(s string) string { return edit(t, `"2026-01-02T03:04:05.678901Z"`, s) }
	for _, test := range []struct {
		class, body, code, field string
	}{
		{"EN04", "\xef\xbb\xbf" + plain, CodeJSONInvalid, ""},
		{"EN05", "\xff\xfe{\x00}\x00", CodeJSONInvalid, ""},
		{"EN06", "", CodeMissing, ""},
		{"EN07", " \r\n", CodeMissing, ""},

		{"JS02", edit(t, `{}}]}`, `{}}],}`), CodeJSONInvalid, ""},
		{"JS02", edit(t, `{}}]}`, `{}},]}`), CodeJSONInvalid, "metrics[1]"},
		{"JS02", edit(t, `{}}]}`, `{},}]}`), CodeJSONInvalid, "metrics[0]"},
		{"JS02", edit(t, `"protocol"`, `,"protocol"`), CodeJSONInvalid, ""},
		{"JS03", "/* x */" + plain, CodeJSONInvalid, ""},
		{"JS03", edit(t, `"protocol"`, "// x\n\"protocol\""), CodeJSONInvalid, ""},
		{"JS03", plain + "# x", CodeJSONInvalid, ""},
		{"JS04", strings.ReplaceAll(plain, `"`, `'`), CodeJSONInvalid, ""},
		{"JS04", edit(t, `"k"`, `'k'`), CodeJSONInvalid, "metrics[0].parameter_key"},
		{"JS04", edit(t, `"k"`, `'k"`), CodeJSONInvalid, "metrics[0].parameter_key"},
		{"JS05", edit(t, `"value"`, `value`), CodeJSONInvalid, "metrics[0]"},
		{"JS05", edit(t, `"protocol"`, `protocol`), CodeJSONInvalid, ""},
		{"JS05", edit(t, `"value"`, `1`), CodeJSONInvalid, "metrics[0]"},
		{"JS06", value("NaN"), CodeJSONInvalid, "metrics[0].value"},
		{"JS06", value("Infinity"), CodeJSONInvalid, "metrics[0].value"},
		{"JS06", value("-Infinity"), CodeJSONInvalid, "metrics[0].value"},
		{"JS07", value("01.5"), CodeJSONInvalid, "metrics[0]"},
		{"JS07", value("+1"), CodeJSONInvalid, "metrics[0].value"},
		{"JS07", value(".5"), CodeJSONInvalid, "metrics[0].value"},
		{"JS07", value("1."), CodeJSONInvalid, "metrics[0].value"},
		{"JS07", value("0x10"), CodeJSONInvalid, "metrics[0]"},
		{"JS07", value("1e"), CodeJSONInvalid, "metrics[0].value"},
		{"JS07", value("-"), CodeJSONInvalid, "metrics[0].value"},
		{"JS08", plain + plain, CodeJSONInvalid, ""},
		{"JS08", plain + "\n" + plain, CodeJSONInvalid, ""},
		{"JS08", plain + " 1", CodeJSONInvalid, ""},
		{"JS09", plain + "x", CodeJSONInvalid, ""},
		{"JS09", plain + "\x00", CodeJSONInvalid, ""},
		{"JS09", plain + "}", CodeJSONInvalid, ""},
		{"JS10", "null", CodeTypeInvalid, ""},
		{"JS10", `"x"`, CodeTypeInvalid, ""},
		{"JS10", "12", CodeTypeInvalid, ""},
		{"JS10", "true", CodeTypeInvalid, ""},
		{"JS11", "[" + plain + "]", CodeTypeInvalid, ""},
		{"JS11", edit(t, `[{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}]`, `{}`), CodeTypeInvalid, "metrics"},
		{"JS11", edit(t, `{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}`, `[]`), CodeTypeInvalid, "metrics[0]"},
		{"JS11", edit(t, `[{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}]`, `null`), CodeTypeInvalid, "metrics"},
		{"JS11", attributes(`[]`), CodeTypeInvalid, "metrics[0].attributes"},
		{"JS11", attributes(`"x"`), CodeTypeInvalid, "metrics[0].attributes"},
		{"JS11", extra(`"metadata":[]`), CodeTypeInvalid, "metadata"},
		{"JS11", extra(`"config_version":3`), CodeTypeInvalid, "config_version"},
		{"JS11", extra(`"event_id":{}`), CodeTypeInvalid, "event_id"},
		{"JS11", edit(t, `"GPRS"`, `1`), CodeTypeInvalid, "protocol"},
		{"JS11", edit(t, `"k"`, `null`), CodeTypeInvalid, "metrics[0].parameter_key"},
		{"JS12", extra(`"x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16)), CodeTooDeep, ""},
		{"JS12", attributes(strings.Repeat(`{"a":`, 14) + "1" + strings.Repeat("}", 14)), CodeTooDeep, ""},
		{"JS12", strings.Repeat("[", 17) + strings.Repeat("]", 17), CodeTooDeep, ""},
		{"JS13", strings.Repeat("[", 10_000), CodeTooDeep, ""},
		{"JS13", strings.Repeat("[", 1_000_000), CodeTooDeep, ""},
		{"JS13", extra(`"x":` + strings.Repeat(`{"a":`, 100_000)), CodeTooDeep, ""},
		{"JS14", extra(`"protocol":"GPRS"`), CodeDuplicateKey, "protocol"},
		{"JS14", edit(t, `"value":1.5`, `"value":1.5,"value":1.5`), CodeDuplicateKey, "metrics[0].value"},
		{"JS14", attributes(`{"a":1,"a":1}`), CodeDuplicateKey, "metrics[0].attributes.a"},
		{"JS15", edit(t, `"value":1.5`, `"value":1.5,"value":2.5`), CodeDuplicateKey, "metrics[0].value"},
		{"JS15", extra(`"device_id":"7a1f8e9c-4444-4333-8333-0123456789ab"`), CodeDuplicateKey, "device_id"},
		{"JS15", extra(`"x":1,"x":2`), CodeDuplicateKey, "x"},
		{"JS16", extra(`"Device_id":"7a1f8e9c-3333-4333-8333-0123456789ab"`), CodeFieldCase, "Device_id"},
		{"JS16", edit(t, `"value"`, `"Value"`), CodeFieldCase, "metrics[0].Value"},
		{"JS16", edit(t, `"site_id"`, `"ſite_id"`), CodeFieldCase, "ſite_id"},
		{"JS16", edit(t, `"parameter_key"`, `"parameter_Key"`), CodeFieldCase, "metrics[0].parameter_Key"},
		{"JS17", edit(t, `"value":1.5`, `"value":1.5,"v\u0061lue":1.5`), CodeDuplicateKey, "metrics[0].value"},
		{"JS17", attributes(`{"a":1,"\u0061":1}`), CodeDuplicateKey, "metrics[0].attributes.a"},
		{"JS17", extra(`"\u0070rotocol":"GPRS"`), CodeDuplicateKey, "protocol"},
		{"JS20", extra(members(100_000)), CodeTooManyMembers, "*"},
		{"JS20", extra(`"metadata":{` + members(257) + `}`), CodeTooManyMembers, "*"},
		{"JS20", attributes(`{` + members(257) + `}`), CodeTooManyMembers, "*"},
		{"JS20", attributes(`{"a":[` + strings.Repeat("1,", 4096) + `1]}`), CodeTooManyMembers, "*"},
		{"JS20", extra(`"x":[` + strings.Repeat("[],", 4096) + `1]`), CodeTooManyMembers, "*"},
		{"JS21", extra(`"` + strings.Repeat("x", 1<<20) + `":1`), CodeStringTooLong, "*"},
		{"JS21", attributes(`{"` + strings.Repeat("x", 4097) + `":1}`), CodeStringTooLong, "*"},
		{"JS21", extra(`"` + strings.Repeat(`\u0000`, 1<<17) + `":1`), CodeStringTooLong, "*"},
		{"JS22", key(strings.Repeat("x", 1<<20)), CodeStringTooLong, "metrics[0].parameter_key"},
		{"JS22", extra(`"config_version":"` + strings.Repeat("x", 1<<20) + `"`), CodeStringTooLong, "config_version"},
		{"JS22", attributes(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`), CodeStringTooLong, "metrics[0].attributes.a"},
		{"JS24", "\x1e" + plain, CodeJSONInvalid, ""},
		{"JS24", plain + "\x1e", CodeJSONInvalid, ""},
		{"JS24", plain + "," + plain, CodeJSONInvalid, ""},

		{"missing", edit(t, `"project_id":"7a1f8e9c-1111-4111-8111-0123456789ab",`, ""), CodeMissing, "project_id"},
		{"missing", edit(t, `"protocol":"GPRS",`, ""), CodeMissing, "protocol"},
		{"missing", edit(t, `"parameter_key":"k",`, ""), CodeMissing, "metrics[0].parameter_key"},
		{"missing", edit(t, `{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}`, `{}`), CodeMissing, "metrics[0].parameter_key"},
		{"missing", "{}", CodeMissing, "project_id"},
		{"empty", edit(t, `{"parameter_key":"k","value":1.5,"quality":192,"attributes":{}}`, ``), CodeMetricsRequired, "metrics"},
		{"empty", edit(t, `"GPRS"`, `""`), CodeProtocolRequired, "protocol"},
		{"empty", key(""), CodeParameterKeyRequired, "metrics[0].parameter_key"},
		{"VO03", edit(t, `[{"par`, "["+strings.Repeat(`{"parameter_key":"j"},`, 256)+`{"par`), CodeTooManyMetrics, "metrics"},

		{"ID14", edit(t, "7a1f8e9c-1111", "7a1f8e9g-1111"), CodeUUIDInvalid, "project_id"},
		{"ID14", edit(t, "7a1f8e9c-2222", "7a1f8e9c2222"), CodeUUIDInvalid, "site_id"},
		{"ID14", edit(t, "7a1f8e9c-3333", "{7a1f8e9c-3333"), CodeUUIDInvalid, "device_id"},
		{"ID14", edit(t, `"7a1f8e9c-3333-4333-8333-0123456789ab"`, `7`), CodeUUIDInvalid, "device_id"},
		{"ID14", edit(t, `"7a1f8e9c-3333-4333-8333-0123456789ab"`, `null`), CodeUUIDInvalid, "device_id"},
		{"ID14", edit(t, `"7a1f8e9c-3333-4333-8333-0123456789ab"`, `""`), CodeUUIDInvalid, "device_id"},
		{"ID14", edit(t, `"7a1f8e9c-3333-4333-8333-0123456789ab"`, `"{}"`), CodeUUIDInvalid, "device_id"},
		{"ID14", edit(t, `7a1f8e9c-3333-4333-8333-0123456789ab`, strings.Repeat("7", 1<<20)), CodeUUIDInvalid, "device_id"},

		{"NU01", value("1e999"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU01", value("1.7976931348623159e308"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU02", value("-1e999"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU02", value("-1.8e308"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU07", value(strings.Repeat("1", 100_000)), CodeNumberTooLong, "metrics[0].value"},
		{"NU07", value("1." + strings.Repeat("0", 64)), CodeNumberTooLong, "metrics[0].value"},
		{"NU07", attributes(`{"a":` + strings.Repeat("1", 65) + `}`), CodeNumberTooLong, "metrics[0].attributes.a"},
		{"NU08", value("1E400"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU08", value("1E+400"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU08", value("0.1e+99999999999999999999"), CodeValueOutOfRange, "metrics[0].value"},
		{"NU08", attributes(`{"a":[1e200000]}`), CodeValueOutOfRange, "metrics[0].attributes.a[0]"},
		{"NU08", attributes(`{"a":1e-20000}`), CodeValueOutOfRange, "metrics[0].attributes.a"},
		{"NU08", attributes(`{"a":1e99999999999999999999}`), CodeValueOutOfRange, "metrics[0].attributes.a"},
		{"NU11", value(`"12.5"`), CodeValueNotANumber, "metrics[0].value"},
		{"NU12", value(`"NaN"`), CodeValueNotANumber, "metrics[0].value"},
		{"NU12", value(`""`), CodeValueNotANumber, "metrics[0].value"},
		{"NU13", value(`true`), CodeValueNotANumber, "metrics[0].value"},
		{"NU13", value(`false`), CodeValueNotANumber, "metrics[0].value"},
		{"NU14", edit(t, "192", "null"), CodeQualityNotAnInteger, "metrics[0].quality"},
		{"NU15", value(`[1]`), CodeValueNotANumber, "metrics[0].value"},
		{"NU15", value(`{"v":1}`), CodeValueNotANumber, "metrics[0].value"},
		{"NU19", edit(t, "192", "256"), CodeQualityOutOfRange, "metrics[0].quality"},
		{"NU19", edit(t, "192", "-1"), CodeQualityOutOfRange, "metrics[0].quality"},
		{"NU19", edit(t, "192", strings.Repeat("9", 100_000)), CodeQualityOutOfRange, "metrics[0].quality"},
		{"NU19", edit(t, "192", "192.0"), CodeQualityNotAnInteger, "metrics[0].quality"},
		{"NU19", edit(t, "192", "1e2"), CodeQualityNotAnInteger, "metrics[0].quality"},
		{"NU19", edit(t, "192", `"192"`), CodeQualityNotAnInteger, "metrics[0].quality"},
		{"NU19", edit(t, "192", `true`), CodeQualityNotAnInteger, "metrics[0].quality"},
		{"NU21", value("1,5"), CodeJSONInvalid, "metrics[0]"},
		{"NU21", value(`"1,5"`), CodeValueNotANumber, "metrics[0].value"},
		{"NU22", value("١٢"), CodeJSONInvalid, "metrics[0].value"},
		{"NU22", value(`"١٢"`), CodeValueNotANumber, "metrics[0].value"},
		{"NU22", value("1 000"), CodeJSONInvalid, "metrics[0]"},

		{"ST01", key("\xff"), CodeUTF8Invalid, "*"},
		{"ST01", extra("\"\x80\":1"), CodeUTF8Invalid, "*"},
		{"ST01", attributes("{\"a\":\"\xe2\x82\"}"), CodeUTF8Invalid, "*"},
		{"ST02", key(`\ud800`), CodeSurrogateInvalid, "metrics[0].parameter_key"},
		{"ST02", attributes(`{"a":"\udc00"}`), CodeSurrogateInvalid, "metrics[0].attributes.a"},
		{"ST02", attributes(`{"a":"\ud800\ud800"}`), CodeSurrogateInvalid, "metrics[0].attributes.a"},
		{"ST03", key("\xc0\xaf"), CodeUTF8Invalid, "*"},
		{"ST03", key("\xe0\x80\x80"), CodeUTF8Invalid, "*"},
		{"ST03", key("\xed\xa0\x80"), CodeUTF8Invalid, "*"},
		{"ST04", key(`\u0000`), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST04", extra(`"event_id":"a\u0000"`), CodeControlCharacter, "event_id"},
		{"ST04", attributes(`{"a":"b\u0000"}`), CodeControlCharacter, "metrics[0].attributes.a"},
		{"ST04", attributes(`{"a":{"b\u0000":1}}`), CodeControlCharacter, "*"},
		{"ST04", key("\x00"), CodeJSONInvalid, "metrics[0].parameter_key"},
		{"ST05", key("\x7f"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST05", key("\u0085"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST05", edit(t, `"GPRS"`, `"G\u001fPRS"`), CodeControlCharacter, "protocol"},
		{"ST06", key(`a\nb`), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST06", edit(t, `"GPRS"`, `"a\r\nb"`), CodeControlCharacter, "protocol"},
		{"ST06", key("a\u2028b"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST07", key(`\u001b[31m`), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST07", extra(`"event_id":"\u001b]0;x\u0007"`), CodeControlCharacter, "event_id"},
		{"ST07", edit(t, `"GPRS"`, "\"\u009b31m\""), CodeControlCharacter, "protocol"},
		{"ST08", key("a\u202eb"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST08", key(`a\u2066b`), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST08", extra("\"event_id\":\"\u200f1\""), CodeControlCharacter, "event_id"},
		{"ST09", key("a\u200bb"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST09", key("\ufeffa"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST09", key("a\u3164"), CodeControlCharacter, "metrics[0].parameter_key"},
		{"ST13", key(strings.Repeat("k", 257)), CodeStringTooLong, "metrics[0].parameter_key"},
		{"ST13", edit(t, "GPRS", strings.Repeat("p", 129)), CodeStringTooLong, "protocol"},
		{"ST13", extra(`"event_id":"` + strings.Repeat("é", 65) + `"`), CodeStringTooLong, "event_id"},
		{"ST13", attributes(`{"a":"` + strings.Repeat("x", 4097) + `"}`), CodeStringTooLong, "metrics[0].attributes.a"},
		{"ST17", key(strings.Repeat("a\u0300\u0301\u0302", 40)), CodeStringTooLong, "metrics[0].parameter_key"},

		{"TM01", edit(t, `"source_timestamp":"2026-01-02T03:04:05.678901Z",`, ""), CodeMissing, "source_timestamp"},
		{"TM01", when("null"), CodeTimestampInvalid, "source_timestamp"},
		{"TM01", when("{}"), CodeTimestampInvalid, "source_timestamp"},
		{"TM02", when(`""`), CodeTimestampInvalid, "source_timestamp"},
		{"TM02", when(`"now"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM02", when(`"today"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM03", when("1767323045"), CodeTimestampInvalid, "source_timestamp"},
		{"TM03", when("1767323045678"), CodeTimestampInvalid, "source_timestamp"},
		{"TM03", when(`"1767323045678901234"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM04", when("-1"), CodeTimestampInvalid, "source_timestamp"},
		{"TM04", when(`"1969-12-31T23:59:59Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM04", when(`"1970-01-01T00:00:00+00:01"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM05", when(`"0000-01-01T00:00:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM05", when(`"10000-01-01T00:00:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM05", when(`"292277-01-01T00:00:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM05", when(`"9999-12-31T23:59:59-00:01"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM05", when(`"-2026-01-01T00:00:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM06", when(`"2026-01-02T03:04:05"`), CodeTimestampZoneMissing, "source_timestamp"},
		{"TM06", when(`"2026-01-02 03:04:05.678"`), CodeTimestampZoneMissing, "source_timestamp"},
		{"TM06", when(`"2026-01-02"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM07", when(`"2026-01-02T03:04:60Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM07", when(`"2016-12-31T23:59:60Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM07", when(`"2016-12-31T23:59:60"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-02-30T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-02-29T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2100-02-29T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-13-01T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-00-01T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-04-31T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-01-00T03:04:05Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-01-02T24:00:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM08", when(`"2026-01-02T23:60:00Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM09", when(`"2026-01-02T03:04:05+15:00"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM09", when(`"2026-01-02T03:04:05-14:01"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM09", when(`"2026-01-02T03:04:05+05:60"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM09", when(`"2026-01-02T03:04:05+0530"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM09", when(`"2026-01-02T03:04:05+05"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM12", when(`"2026-01-02T03:04:05.Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM12", when(`"2026-01-02T03:04:05,5Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM12", when(`"2026-01-02T03:04Z"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM13", when(`"2026-01-02T03:04:05 Europe/Berlin"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM13", when(`"2026-01-02T03:04:05[Europe/Berlin]"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM13", when(`"2026-01-02T03:04:05 CEST"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM14", when(`"infinity"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM14", when(`"-infinity"`), CodeTimestampInvalid, "source_timestamp"},
		{"TM14", when(`"epoch"`), CodeTimestampInvalid, "source_timestamp"},
	} {
		t.Run(test.class, func(t *testing.T) {
			var d decoder
			var e rawEvent
			r := d.decode([]byte(test.body), &e)
			if r == nil {
				t.Fatalf("accepted %.300q", test.body)
			}
			if r.Code != test.code || test.field != "*" && r.Field != test.field {
				t.Errorf("%.300q\ngot  %s at %q: %s\nwant %s at %q", test.body, r.Code, r.Field, r.Message, test.code, test.field)
			}
			checkBounds(t, r)
		})
	}
}

// checkBounds holds what a Rejection promises of its size and of what it echoes.
func checkBounds(t *testing.T, r *Rejection) {
	t.Helper()
	if n := utf8.RuneCountInString(r.Input); n > 64 {
		t.Errorf("input of %d characters", n)
	}
	if len(r.Message) > 300 || r.Message == "" {
		t.Errorf("message of %d bytes", len(r.Message))
	}
	if n := utf8.RuneCountInString(r.Field); n > maxField {
		t.Errorf("field of %d characters", n)
	}
	for _, s := range []string{r.Code, r.Field, r.Message, r.Input} {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x202e }) {
			t.Errorf("not fit to print: %q", s)
		}
	}
	if text, err := json.Marshal(r); err != nil || len(text) > 3000 {
		t.Errorf("%d bytes as JSON, %v", len(text), err)
	}
}

func TestRejectionEchoes(t *testing.T) {
	for _, test := range []struct{ body, want string }{
		{edit(t, "1.5", `"12.5"`), `"12.5"`},
		{edit(t, "1.5", "1e999"), "1e999"},
		{edit(t, "1.5", "true"), "true"},
		{edit(t, "1.5", "[1]"), ""},
		{edit(t, "1.5", strings.Repeat("1", 65)), ""},
		{edit(t, `"k"`, `"a\nb"`), `a\u000ab`},
		{edit(t, `"k"`, "\"a\u202eb\""), `a\u202eb`},
		{edit(t, `"GPRS"`, `"`+strings.Repeat("é", 100)+`"`), strings.Repeat("é", 63) + "…"},
		{edit(t, `"2026-01-02T03:04:05.678901Z"`, `"now"`), "now"},
	} {
		var d decoder
		var e rawEvent
		r := d.decode([]byte(test.body), &e)
		if r == nil {
			t.Fatalf("accepted %q", test.body)
		}
		if r.Input != test.want {
			t.Errorf("%s: echoes %q, want %q", r, r.Input, test.want)
		}
	}
}

func TestTruncatedIsRefused(t *testing.T) {
	full := edit(t, `"attributes":{}`, `"attributes":{"a":"\ud83d\ude00é","b":[1,{"c":null}]}`)
	for _, body := range []string{plain, full} {
		var d decoder
		var e rawEvent
		for cut := range body {
			n, r := d.next([]byte(body[:cut]), &e)
			if r == nil || n != 0 {
				t.Fatalf("cut at byte %d: took %d, %v", cut, n, r)
			}
			checkBounds(t, r)
		}
		if r := d.decode([]byte(body), &e); r != nil {
			t.Fatal(r)
		}
	}
}

// Reading goes on behind an event whose contents are refused, but not behind broken JSON.
func TestNextFindsTheEnd(t *testing.T) {
	for _, test := range []struct {
		body string
		ends bool
	}{
		{plain, true},
		{"  \n" + plain, true},
		{edit(t, `"protocol"`, `"x":1,"protocol"`), true},
		{edit(t, `"protocol"`, `"x":1,"x":1,"protocol"`), true},
		{edit(t, `"k"`, "\"\xff\""), true},
		{edit(t, `"k"`, `"\ud800"`), true},
		{edit(t, "192", "999"), true},
		{`[[],"}"]`, true},
		{`null`, true},
		{edit(t, "1.5", "NaN"), false},
		{edit(t, `"k"`, `"k`), false},
		{strings.Repeat("[", 17) + strings.Repeat("]", 17), false},
	} {
		var d decoder
		var e rawEvent
		n, _ := d.next([]byte(test.body+" ,"+strings.Repeat("[", 20)), &e)
		if want := len(test.body); test.ends && n != want || !test.ends && n != 0 {
			t.Errorf("%q: took %d of %d", test.body, n, want)
		}
		if d.data != nil || d.input.Len() > 0 {
			t.Errorf("%q: the decoder holds on to the body", test.body)
		}
	}
}

// A decoder remembers how metrics were written. What it remembers must not show.
func TestDecoderHasNoMemory(t *testing.T) {
	bodies := []string{
		plain, edit(t, "1.5", "null"), plain, edit(t, "1.5", `"x"`), edit(t, "1.5", "-2e3"), edit(t, `,"attributes":{}`, ""),
		edit(t, `"attributes":{}`, `"attributes":{"a":1}`), edit(t, `,"quality":192,"attributes":{}`, ""), plain,
		edit(t, `"k"`, `"key"`), edit(t, `"k"`, `""`), edit(t, `"quality":192`, `"quality":1`), edit(t, `"quality":192`, `"quality":1920`),
		edit(t, `{}}]`, `{}},{"value":3,"parameter_key":"z"}]`), edit(t, `"value":1.5,"quality":192`, `"quality":192,"value":1.5`),
		edit(t, `"value":1.5,"quality":192,"attributes":{}`, `"quality":192,"value":1.5`), edit(t, `"value":1.5,"quality":192`, `"quality":192,"value":1.5,"quality":1`),
		edit(t, "1.5", "1.50"), edit(t, "1.5", "1.5 "), edit(t, "1.5", "01"), plain[:len(plain)-3],
	}
	var used decoder
	var e rawEvent
	for range 2 {
		for _, first := range bodies {
			for _, body := range bodies {
				used.decode([]byte(first), &e)
				got := used.decode([]byte(body), &e)
				var fresh decoder
				var want rawEvent
				r := fresh.decode([]byte(body), &want)
				if !reflect.DeepEqual(got, r) {
					t.Fatalf("%q after %q: %v, want %v", body, first, got, r)
				}
				if r == nil && !sameEvent(&e, &want) {
					t.Fatalf("%q after %q:\ngot  %+v\nwant %+v", body, first, e, want)
				}
			}
		}
	}
}

func TestDecodeFastAllocatesNothing(t *testing.T) {
	var d decoder
	var e rawEvent
	bodies := append(fleet(10, 10, compactEvent, compactMetric, ","), fleet(10, 10, spacedEvent, spacedMetric, ", ")...)
	for _, body := range bodies {
		d.decode(body, &e)
	}
	if n := testing.AllocsPerRun(10, func() {
		for _, body := range bodies {
			if r := d.decode(body, &e); r != nil {
				t.Fatal(r)
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
