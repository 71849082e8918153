package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/uuid"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/nsready/nsready/engine"
)

const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
)

// encodingClasses are those of what is around the JSON.
func encodingClasses() []class {
	whole := func(name, want, code, kind string, spoil edit, header ...string) member {
		return body(name, want, code, kind, func(x *trial) string { return spoil(x.refusable()) }, header...)
	}
	fine := func(name, kind string, change edit, header ...string) member {
		return body(name, "200", "", kind, func(x *trial) string { return change(x.good("stored")) }, header...)
	}
	same := edit(func(e string) string { return e })
	utf16Of := func(order binary.AppendByteOrder, text string) string {
		var out []byte
		for _, u := range utf16.Encode([]rune(text)) {
			out = order.AppendUint16(out, u)
		}
		return string(out)
	}
	gz := []string{"Content-Encoding", "gzip"}
	mebibyte := gzipped(times(1<<20, "\x00"))
	raw := func(e string) string { // a member of gzip that stores, so that its checksum can be wrong
		b := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01")
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e)))
		b = binary.LittleEndian.AppendUint16(b, ^uint16(len(e)))
		b = append(b, e...)
		b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(e)))
		return string(binary.LittleEndian.AppendUint32(b, uint32(len(e))))
	}
	flip := func(fromEnd int) edit {
		return func(e string) string {
			b := []byte(raw(e))
			b[len(b)-fromEnd] ^= 1
			return string(b)
		}
	}
	cut := func(n int) edit { return func(e string) string { z := gzipped(e); return z[:len(z)-n] } }
	untyped := func(name string, header ...string) member {
		return member{name, func(x *trial) {
			x.check(x.send(x.T, "POST", "/v1/ingest", x.refusable(), header...), "415")
		}}
	}
	// A frame's magic number, its descriptor, then the window's exponent and mantissa (RFC 8878, 3.1.1.1.2), and an empty block.
	window := func(exponent byte) string {
		return "\x28\xb5\x2f\xfd\x00" + string([]byte{exponent << 3}) + "\x01\x00\x00"
	}
	return []class{
		{"EN01", "no Content-Type", []member{
			untyped("none"), untyped("empty", "Content-Type", ""), untyped("in another header", "Accept", typeJSON), untyped("two", "Content-Type", typeJSON, "Content-Type", typeNDJSON),
		}},
		{"EN02", "another Content-Type", []member{
			whole("text", "415", "content_type_unsupported", "text/plain", same),
			whole("form", "415", "content_type_unsupported", "application/x-www-form-urlencoded", same),
			whole("multipart", "415", "content_type_unsupported", "multipart/form-data; boundary=x", same),
			whole("protobuf", "415", "content_type_unsupported", "application/x-protobuf", same),
			whole("none known", "415", "content_type_unsupported", "application/json+x; =", same),
			whole("100 parameters", "415", "content_type_unsupported", "text/json"+times(100, ";a=b"), same),
		}},
		{"EN03", "a charset that is not utf-8", []member{
			whole("latin1", "415", "content_type_unsupported", "application/json; charset=iso-8859-1", same),
			whole("utf-16", "415", "content_type_unsupported", "application/json; charset=UTF-16", same),
			whole("utf-7", "415", "content_type_unsupported", "application/json; charset=utf-7", same),
			whole("empty", "415", "content_type_unsupported", `application/json; charset=""`, same),
			fine("utf-8 is right", `application/json; charset="UTF-8"`, same),
		}},
		{"EN04", "a byte order mark", []member{
			bad("before the event", 400, "json_invalid", "", before("\ufeff")),
			whole("before an array", "400", "json_invalid", typeJSON, func(e string) string { return "\ufeff[" + e + "]" }),
			whole("alone", "400", "json_invalid", typeJSON, instead("\ufeff")),
		}},
		{"EN05", "UTF-16 and UTF-32", []member{
			whole("16, little-endian", "400", "json_invalid", typeJSON, func(e string) string { return utf16Of(binary.LittleEndian, e) }),
			whole("16, big-endian with mark", "400", "json_invalid", typeJSON, func(e string) string { return utf16Of(binary.BigEndian, "\ufeff"+e) }),
			whole("32", "400", "json_invalid", typeJSON, func(e string) string { return strings.Join(strings.Split(e, ""), "\x00\x00\x00") }),
			whole("16 in NDJSON", "422", "json_invalid", typeNDJSON, func(e string) string { return utf16Of(binary.LittleEndian, e) }),
		}},
		{"EN06", "an empty body", []member{
			whole("JSON", "400", "empty_body", typeJSON, instead("")),
			whole("NDJSON", "400", "empty_body", typeNDJSON, instead("")),
			whole("gzip of nothing", "400", "empty_body", typeJSON, instead(gzipped("")), gz...),
		}},
		{"EN07", "a body of white space", []member{
			whole("JSON", "400", "empty_body", typeJSON, instead(" \r\n\t ")),
			whole("NDJSON", "400", "empty_body", typeNDJSON, instead("\n\r\n \n")),
			whole("8 MB", "400|413", "", typeNDJSON, instead(times(8<<20, " "))),
		}},
		{"EN08", "gzip bombs", []member{
			whole("1 GiB in 1 MiB", "413", "body_too_large", typeJSON, instead(times(1024, mebibyte)), gz...),
			whole("1 GiB in NDJSON", "413", "body_too_large", typeNDJSON, instead(times(1024, mebibyte)), gz...),
			whole("1 MiB in 1 kB", "413", "compression_ratio", typeJSON, instead(mebibyte), gz...),
			whole("64 MiB in one member", "413", "compression_ratio", typeJSON, instead(gzipped(times(64<<20, " "))), gz...),
		}},
		{"EN09", "gzip in gzip", []member{
			whole("named once", "400", "json_invalid", typeJSON, func(e string) string { return gzipped(gzipped(e)) }, gz...),
			whole("three times", "400", "json_invalid", typeJSON, func(e string) string { return gzipped(gzipped(gzipped(e))) }, gz...),
			whole("in NDJSON", "422", "json_invalid", typeNDJSON, func(e string) string { return gzipped(gzipped(e)) }, gz...),
		}},
		{"EN10", "two Content-Encodings", []member{
			whole("in a list", "415", "content_encoding_unsupported", typeJSON, func(e string) string { return gzipped(gzipped(e)) }, "Content-Encoding", "gzip, gzip"),
			whole("in two headers", "415", "content_encoding_unsupported", typeJSON, func(e string) string { return gzipped(gzipped(e)) }, "Content-Encoding", "gzip", "Content-Encoding", "gzip"),
			whole("different ones", "415", "content_encoding_unsupported", typeJSON, same, "Content-Encoding", "gzip, zstd"),
		}},
		{"EN11", "gzip that is cut off", []member{
			whole("by a byte", "400", "gzip_invalid", typeJSON, cut(1), gz...),
			whole("by its checksum", "400", "gzip_invalid", typeJSON, cut(8), gz...),
			whole("by half", "400", "gzip_invalid", typeNDJSON, cut(150), gz...),
			whole("in its header", "400", "gzip_invalid", typeJSON, instead("\x1f\x8b\x08"), gz...),
			whole("in a member behind", "400", "gzip_invalid", typeNDJSON, func(e string) string { return gzipped(e+"\n") + gzipped(e)[:50] }, gz...),
		}},
		{"EN12", "gzip with a wrong checksum or length", []member{
			whole("checksum", "400", "gzip_invalid", typeJSON, flip(8), gz...),
			whole("length", "400", "gzip_invalid", typeJSON, flip(1), gz...),
			whole("a byte of the event", "400", "gzip_invalid", typeNDJSON, flip(20), gz...),
			fine("with both right it is stored", typeJSON, raw, gz...),
		}},
		{"EN13", "gzip of many members: the limits are for all together", []member{
			fine("two", typeJSON, func(e string) string { return gzipped(e[:100]) + gzipped(e[100:]) }, gz...),
			whole("9 times 1 MiB", "413", "", typeNDJSON, func(e string) string { return times(9, raw(times(60_000, "x"))+mebibyte) }, gz...),
			whole("100,000 empty ones", "400", "empty_body", typeJSON, instead(times(100_000, raw(""))), gz...),
			whole("a broken one behind", "400", "gzip_invalid", typeJSON, func(e string) string { return gzipped(e) + "\x1f\x8b\x08\x00" }, gz...),
		}},
		{"EN14", "other encodings, and windows of zstd", []member{
			unknownEncoding("deflate"), unknownEncoding("br"), unknownEncoding("compress"), unknownEncoding("x-gzip"), unknownEncoding("*"),
			whole("a window of 2 GiB", "400", "zstd_invalid", typeJSON, instead(window(21)), "Content-Encoding", "zstd"),
			whole("a window of 16 MiB", "400", "zstd_invalid", typeJSON, instead(window(14)), "Content-Encoding", "zstd"),
			whole("zstd bomb", "413", "compression_ratio", typeJSON, instead(zstdOf(times(64<<20, "\x00"))), "Content-Encoding", "zstd"),
			fine("zstd is right", typeJSON, func(e string) string { return zstdOf(e, zstd.WithWindowSize(1<<20)) }, "Content-Encoding", "zstd"),
		}},
		{"EN15", "gzip in the header, plain in the body", []member{
			whole("JSON", "400", "gzip_invalid", typeJSON, same, gz...),
			whole("NDJSON", "400", "gzip_invalid", typeNDJSON, same, gz...),
			whole("nothing", "400", "gzip_invalid", typeJSON, instead(""), gz...),
			whole("zstd", "400", "gzip_invalid", typeJSON, func(e string) string { return zstdOf(e) }, gz...),
			whole("and the other way round", "400", "json_invalid", typeJSON, gzipped),
		}},
		{"EN16", "bytes behind gzip", []member{
			whole("one", "400", "gzip_invalid", typeJSON, func(e string) string { return gzipped(e) + "x" }, gz...),
			whole("zeros", "400", "gzip_invalid", typeJSON, func(e string) string { return gzipped(e) + times(512, "\x00") }, gz...),
			whole("an event", "400", "gzip_invalid", typeNDJSON, func(e string) string { return gzipped(e+"\n") + e }, gz...),
		}},
	}
}

func unknownEncoding(name string) member {
	return member{name, func(x *trial) {
		a := x.ingest(typeJSON, x.refusable(), "Content-Encoding", name)
		x.check(a, "415")
		if got := a.header.Get("Accept-Encoding"); got != "gzip, zstd" {
			x.fail("Accept-Encoding is %q", got)
		}
	}}
}

func names(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, `"x%d":1,`, i)
	}
	return strings.TrimSuffix(out.String(), ",")
}

// syntaxClasses are those of JSON's grammar and shape.
func syntaxClasses() []class {
	const broken = "json_invalid"
	nested := func(n int) edit { return extra(`"x":` + times(n, "[") + times(n, "]")) }
	array := func(name, want, code string, make func(e string) string) member {
		return body(name, want, code, typeJSON, func(x *trial) string { return make(x.refusable()) })
	}
	return []class{
		{"JS01", "JSON that is cut off; see TestTruncatedJSON for every byte", []member{
			bad("in a string", 400, broken, "*", func(e string) string { return e[:20] }),
			bad("by a byte", 400, broken, "*", func(e string) string { return e[:len(e)-1] }),
			bad("in the list", 400, broken, "*", func(e string) string { return e[:len(e)-4] }),
			bad("after its first byte", 400, broken, "*", instead("{")),
		}},
		{"JS02", "a comma too many", []member{
			bad("in the event", 400, broken, "*", func(e string) string { return e[:len(e)-1] + ",}" }),
			bad("in the list", 400, broken, "*", swap(`}]}`, `},]}`)),
			bad("in a metric", 400, broken, "*", quality("192,")),
			bad("at the front", 400, broken, "*", swap("{", "{,")),
			array("behind an array's last", "400", "", func(e string) string { return "[" + e + ",]" }),
		}},
		{"JS03", "comments", []member{
			bad("in front", 400, broken, "*", before("/* x */")),
			bad("behind", 400, broken, "*", after("# x")),
			bad("in between", 400, broken, "*", swap(`"protocol"`, `/**/"protocol"`)),
			bad("of a line", 400, broken, "*", swap(`"protocol"`, "// x\n\"protocol\"")),
		}},
		{"JS04", "single quotes", []member{
			bad("all", 400, broken, "*", func(e string) string { return strings.ReplaceAll(e, `"`, `'`) }),
			bad("a value's", 400, broken, "*", protocol("'HTTP'")),
			bad("a name's", 400, broken, "*", swap(`"value"`, "'value'")),
		}},
		{"JS05", "names without quotes", []member{
			bad("of a field", 400, broken, "*", swap(`"protocol"`, "protocol")),
			bad("of a metric's field", 400, broken, "*", swap(`"value"`, "value")),
			bad("a number", 400, broken, "*", extra("1:2")),
		}},
		{"JS06", "NaN and infinities", []member{
			bad("NaN", 400, broken, "*", value("NaN")), bad("Infinity", 400, broken, "*", value("Infinity")), bad("-Infinity", 400, broken, "*", value("-Infinity")),
			bad("nan", 400, broken, "*", value("nan")), bad("inf", 400, broken, "*", value("inf")),
		}},
		{"JS07", "numbers that JSON does not write so", []member{
			bad("01", 400, broken, "*", value("01")), bad("+1", 400, broken, "*", value("+1")), bad(".5", 400, broken, "*", value(".5")),
			bad("1.", 400, broken, "*", value("1.")), bad("0x10", 400, broken, "*", value("0x10")), bad("1e", 400, broken, "*", value("1e")),
			bad("1_000", 400, broken, "*", value("1_000")), bad("--1", 400, broken, "*", value("--1")), bad("0b1", 400, broken, "*", value("0b1")),
		}},
		{"JS08", "a second value", []member{
			bad("the event again", 400, broken, "*", func(e string) string { return e + e }),
			bad("a number", 400, broken, "*", after(" 1")),
			bad("an empty object", 400, broken, "*", after("{}")),
			array("a second array", "400", broken, func(e string) string { return "[" + e + "][" + e + "]" }),
		}},
		{"JS09", "garbage behind the value", []member{
			bad("a letter", 400, broken, "*", after("x")), bad("NUL", 400, broken, "*", after("\x00")), bad("a brace", 400, broken, "*", after("}")),
			array("behind an array", "400", broken, func(e string) string { return "[" + e + "]\x00" }),
		}},
		// The original answers 422 to what is JSON and no event, and so it is here; so for JS11.
		{"JS10", "a scalar instead of an event", []member{
			bad("null", 422, "type_invalid", "", instead("null")), bad("a string", 422, "type_invalid", "", instead(`"x"`)), bad("a number", 422, "type_invalid", "", instead("12")),
			bad("true", 422, "type_invalid", "", instead("true")),
		}},
		{"JS11", "an array where an object belongs, and the other way round", []member{
			bad("metrics", 422, "type_invalid", "metrics", func(e string) string { return e[:strings.Index(e, "[")] + "{}}" }),
			bad("a metric", 422, "type_invalid", "metrics[0]", func(e string) string { return e[:strings.Index(e, "[")] + "[[]]}" }),
			bad("attributes", 422, "type_invalid", "metrics[0].attributes", attributes("[]")),
			bad("metadata", 422, "type_invalid", "metadata", extra(`"metadata":[]`)),
			bad("a name", 422, "type_invalid", "protocol", protocol("{}")),
			array("an array in an array", "422", "type_invalid", func(e string) string { return "[[" + e + "]]" }),
		}},
		{"JS12", "nested 17 deep", []member{
			bad("arrays", 400, "too_deep", "", nested(16)),
			bad("objects", 400, "too_deep", "", attributes(times(14, `{"a":`)+"1"+times(14, "}"))),
			bad("in metadata", 400, "too_deep", "", extra(`"metadata":{"a":`+times(15, "[")+times(15, "]")+"}")),
			stored("16 are not too deep", "{1}", nested(15)),
		}},
		{"JS13", "nested 10,000 and 1,000,000 deep", []member{
			bad("10,000", 400, "too_deep", "", nested(10_000)),
			bad("500,000 that never close", 400, "too_deep", "", instead(`{"x":`+times(500_000, "["))),
			bad("objects", 400, "too_deep", "", extra(`"x":`+times(50_000, `{"a":`))),
			body("1,000,000 in NDJSON", "422", "too_deep", typeNDJSON, func(*trial) string { return times(1_000_000, "[") }),
		}},
		{"JS14", "a name twice with one value", []member{
			bad("of a field", 400, "duplicate_key", "protocol", extra(`"protocol":"HTTP"`)),
			bad("of a metric's field", 400, "duplicate_key", "metrics[0].value", value(`1,"value":1`)),
			bad("in attributes", 400, "duplicate_key", "metrics[0].attributes.a", attributes(`{"a":1,"a":1}`)),
		}},
		{"JS15", "a name twice with two values", []member{
			bad("device_id", 400, "duplicate_key", "device_id", extra(`"device_id":"00000000-0000-4000-8000-000000000000"`)),
			bad("value", 400, "duplicate_key", "metrics[0].value", value(`1,"value":2`)),
			bad("of an unknown field", 400, "duplicate_key", "x", extra(`"x":1,"x":2`)),
			bad("metrics", 400, "duplicate_key", "metrics", extra(`"metrics":[]`).and(func(e string) string {
				return strings.Replace(e, `"metrics":[]`, `"metrics":[{"parameter_key":"x"}]`, 1)
			})),
		}},
		{"JS16", "names in another case", []member{
			bad("Device_id", 400, "field_case", "Device_id", swap(`"device_id"`, `"Device_id"`)),
			bad("VALUE", 400, "field_case", "metrics[0].VALUE", swap(`"value"`, `"VALUE"`)),
			bad("beside the right one", 400, "field_case", "Protocol", extra(`"Protocol":"x"`)),
		}},
		{"JS17", "a name twice, once by escape", []member{
			bad("value", 400, "duplicate_key", "metrics[0].value", value(`1,"v\u0061lue":2`)),
			bad("protocol", 400, "duplicate_key", "protocol", extra(`"\u0070rotocol":"x"`)),
			bad("in attributes", 400, "duplicate_key", "metrics[0].attributes.a", attributes(`{"a":1,"\u0061":1}`)),
		}},
		{"JS18", "unknown fields: passed over", []member{
			stored("of the event", "{1}", extra(`"firmware":{"version":[1,2]}`)),
			stored("of a metric", "{1}", quality(`192,"unit":"V"`)),
			stored("by another name", "{1}", extra(`"deviceid":"x","timestamp":0`)),
		}},
		{"JS19", "names that mean something elsewhere", []member{
			stored("__proto__", `{1}|[{"__proto__": {"x": 1}}]`, extra(`"__proto__":{"value":2}`).and(attributes(`{"__proto__":{"x":1}}`))),
			stored("constructor", "{1}", extra(`"constructor":{"prototype":{"x":1}}`)),
			stored("the empty one", `{1}|[{"": 1}]`, extra(`"":1`).and(attributes(`{"":1}`))),
			stored("$ref and @type", "{1}", extra(`"$ref":"#/","@type":"java.lang.Runtime"`)),
		}},
		{"JS20", "100,000 unknown names", []member{
			body("in an event of NDJSON", "422", "too_many_members", typeNDJSON, func(x *trial) string { return extra(names(100_000))(x.refusable()) }),
			bad("257 in metadata", 400, "too_many_members", "*", extra(`"metadata":{`+names(257)+`}`)),
			bad("257 in attributes", 400, "too_many_members", "*", attributes(`{`+names(257)+`}`)),
			bad("40,000 in the event", 400, "too_many_members", "*", extra(names(40_000))),
		}},
		{"JS21", "a name of 1 MB", []member{
			bad("of the event", 422, "string_too_long", "*", extra(`"`+times(1<<20, "x")+`":1`)),
			bad("of attributes", 422, "string_too_long", "*", attributes(`{"`+times(1<<20, "x")+`":1}`)),
			bad("in escapes", 422, "string_too_long", "*", extra(`"`+times(1<<17, `\u0000`)+`":1`)),
		}},
		{"JS22", "a string of 1 MB", []member{
			bad("a key", 422, "string_too_long", "metrics[0].parameter_key", parameter(times(1<<20, "x"))),
			bad("in attributes", 422, "string_too_long", "metrics[0].attributes.a", attributes(`{"a":"`+times(1<<20, "é")+`"}`)),
			bad("of an unknown field", 422, "string_too_long", "x", extra(`"x":"`+times(1<<20, "x")+`"`)),
		}},
		{"JS23", "NDJSON in every form", []member{
			ndjson("CRLF", 2, 0, func(x *trial) string { return x.good("stored") + "\r\n" + x.good("stored") + "\r\n" }),
			ndjson("blank lines", 2, 0, func(x *trial) string { return "\n\n" + x.good("stored") + "\n \t\n" + x.good("stored") + "\n\n\n" }),
			ndjson("the last line unterminated", 2, 0, func(x *trial) string { return x.good("stored") + "\n" + x.good("stored") }),
			ndjson("one bad line", 2, 1, func(x *trial) string { return x.good("stored") + "\n{broken\n" + x.good("stored") + "\n" }),
			ndjson("an event over two lines", 1, 2, func(x *trial) string {
				return x.good("stored") + "\n" + strings.Replace(x.refusable(), ",", ",\n", 1)
			}),
			ndjson("CR alone", 0, 1, func(x *trial) string { return x.refusable() + "\r" + x.refusable() }),
			ndjson("a line that is an array", 1, 1, func(x *trial) string { return "[" + x.refusable() + "]\n" + x.good("stored") }),
		}},
		{"JS24", "arrays in a row, and text sequences", []member{
			array("arrays", "400", broken, func(e string) string { return "[" + e + "]\n[" + e + "]" }),
			bad("a record separator in front", 400, broken, "", before("\x1e")),
			bad("a record separator behind", 400, broken, "", after("\x1e")),
			body("events with commas", "400", broken, typeJSON, func(x *trial) string { return x.refusable() + "," + x.refusable() }),
			body("an array in NDJSON's name", "422", "type_invalid", typeNDJSON, func(x *trial) string { return "[" + x.refusable() + "," + x.refusable() + "]" }),
		}},
	}
}

func ndjson(name string, accepted, rejected int, make func(x *trial) string) member {
	return member{name, func(x *trial) {
		want := "200"
		if accepted == 0 {
			want = "422"
		}
		r := x.check(x.ingest(typeNDJSON, make(x)), want)
		if r.Accepted != accepted || r.Rejected != rejected {
			x.fail("%d are accepted and %d rejected, want %d and %d", r.Accepted, r.Rejected, accepted, rejected)
		}
	}}
}

// numberClasses are those of values and qualities.
func numberClasses() []class {
	const at = "metrics[0].value"
	big := func(name, v string) member { return bad(name, 422, "value_out_of_range", at, value(v)) }
	other := func(name, v string) member { return bad(name, 422, "value_not_a_number", at, value(v)) }
	odd := func(name, v, content string) member { return stored(name, content, value(v)) }
	current := swap(":voltage", ":current") // has no limits
	return []class{
		{"NU01", "too large for a float", []member{big("1e999", "1e999"), big("1.8e308", "1.8e308"), big("just past the limit", "1.7976931348623159e308"), big("digits", "1"+times(40, "0")+"e300")}},
		{"NU02", "too far below zero for a float", []member{big("-1e999", "-1e999"), big("-1.8e308", "-1.8e308"), big("just past the limit", "-1.7976931348623159e308")}},
		{"NU03", "too small for a float: stored as 0", []member{odd("1e-400", "1e-400", "{0}"), odd("4.9e-325", "1e-325", "{0}"), odd("-1e-999", "-1e-999", "{0}")}},
		{"NU04", "-0: stored as 0", []member{odd("-0", "-0", "{0}"), odd("-0.0", "-0.0", "{0}"), odd("-0e-9", "-0e-9", "{0}")}},
		// Values are float8, as the original's are.
		{"NU05", "integers above 2^53: stored as the nearest float", []member{
			stored("2^53+1", "{9.007199254740992e+15}", value("9007199254740993").and(current)),
			stored("2^53", "{9.007199254740992e+15}", value("9007199254740992").and(current)),
			stored("-2^53-1", "{-9.007199254740992e+15}", value("-9007199254740993").and(current)),
		}},
		{"NU06", "integers above 2^63: stored as the nearest float", []member{
			stored("2^63", "{9.223372036854776e+18}", value("9223372036854775808").and(current)),
			stored("2^64", "{1.8446744073709552e+19}", value("18446744073709551616").and(current)),
			stored("-2^63-1", "{-9.223372036854776e+18}", value("-9223372036854775809").and(current)),
			bad("as a quality", 422, "quality_out_of_range", "metrics[0].quality", quality("9223372036854775808")),
		}},
		{"NU07", "endless numbers: refused without an echo", []member{
			noEcho("100,000 digits", value(times(100_000, "1"))), noEcho("100,000 digits behind the point", value("0."+times(100_000, "1"))),
			noEcho("65 characters", value("1."+times(63, "0"))), noEcho("in attributes", attributes(`{"a":`+times(100_000, "9")+"}")),
			noEcho("an exponent", value("1e"+times(100_000, "0"))),
		}},
		{"NU08", "exponents in all forms", []member{
			big("1E400", "1E400"), big("1E+400", "1E+400"), big("1e99999999999999999999", "1e99999999999999999999"),
			bad("in attributes", 422, "value_out_of_range", "metrics[0].attributes.a", attributes(`{"a":1e20000}`)),
			odd("1E+2 is a number", "1E+2", "{100}"), odd("1e-2 is a number", "1.5e-2", "{0.015}"),
		}},
		{"NU09", "the smallest floats", []member{odd("5e-324", "5e-324", "{5e-324}"), odd("2.2250738585072011e-308", "2.2250738585072011e-308", "{2.225073858507201e-308}"), odd("3e-324", "3e-324", "{5e-324}")}},
		{"NU10", "the largest floats", []member{
			stored("max", "{1.7976931348623157e+308}", value("1.7976931348623157e308").and(current)),
			stored("min", "{-1.7976931348623157e+308}", value("-1.7976931348623157e308").and(current)),
			stored("rounded to max", "{1.7976931348623157e+308}", value("1.7976931348623158e308").and(current)),
		}},
		{"NU11", "numbers in strings", []member{other("12.5", `"12.5"`), other("0", `"0"`), other("empty", `""`), other("blank", `" 1"`)}},
		{"NU12", "NaN in strings", []member{other("NaN", `"NaN"`), other("Infinity", `"Infinity"`), other("-inf", `"-inf"`)}},
		{"NU13", "booleans", []member{other("true", "true"), other("false", "false"), bad("as a quality", 422, "quality_not_an_integer", "metrics[0].quality", quality("true"))}},
		{"NU14", "null: no reading", []member{
			odd("null", "null", "{NULL}"),
			stored("no value at all", "{NULL}", swap(`"value":1,`, "")),
			bad("as a quality", 422, "quality_not_an_integer", "metrics[0].quality", quality("null")),
		}},
		{"NU15", "arrays and objects", []member{other("array", "[1]"), other("object", `{"value":1}`), other("empty array", "[]"), other("a large one", "["+times(4000, "1,")+"1]")}},
		{"NU16", "outside the parameter's limits: flagged, or refused where it says so", []member{
			odd("above", "481", "{481}|{84}"), odd("below", "-1", "{-1}|{84}"), odd("far above", "1e300", "{1e+300}|{84}"),
			bad("where it is refused", 422, "outside_limits", at, value("1000001").and(swap(":voltage", ":count"))),
		}},
		{"NU17", "units that are not the parameter's: kept as they are", []member{
			stored("kV", `{1}|[{"unit": "kV"}]`, attributes(`{"unit":"kV"}`)),
			stored("a number", `{1}|[{"unit": 5}]`, attributes(`{"unit":5}`)),
			other("in the value", `"230 V"`),
		}},
		{"NU18", "values that the parameter's type does not have", []member{
			bad("a fraction of a count", 422, "type_violation", at, value("1.5").and(swap(":voltage", ":count"))),
			bad("a tiny fraction", 422, "type_violation", at, value("1e-300").and(swap(":voltage", ":count"))),
			bad("a word", 422, "value_not_a_number", at, value(`"on"`).and(swap(":voltage", ":count"))),
		}},
		{"NU19", "qualities that are none", []member{
			bad("256", 422, "quality_out_of_range", "metrics[0].quality", quality("256")), bad("-1", 422, "quality_out_of_range", "metrics[0].quality", quality("-1")),
			bad("192.0", 422, "quality_not_an_integer", "metrics[0].quality", quality("192.0")), bad("1e2", 422, "quality_not_an_integer", "metrics[0].quality", quality("1e2")),
			bad("a string", 422, "quality_not_an_integer", "metrics[0].quality", quality(`"192"`)),
			bad("100,000 digits", 422, "quality_out_of_range", "metrics[0].quality", quality(times(100_000, "9"))),
		}},
		{"NU20", "counters that go back: values as others", []member{
			{"reset", func(x *trial) {
				for _, v := range []string{"999999", "0"} {
					x.check(x.ingest(typeJSON, value(v).and(swap(":voltage", ":count"))(x.good("stored"))), "200")
				}
			}},
			stored("rollover", "{0}", value("0").and(swap(":voltage", ":count"))),
			stored("negative", "{-1}", value("-1").and(swap(":voltage", ":count"))),
		}},
		{"NU21", "decimal commas", []member{bad("bare", 400, "json_invalid", "*", value("1,5")), other("in a string", `"1,5"`), other("with thousands", `"1.000,5"`), bad("apostrophes", 400, "json_invalid", "*", value("1'000"))}},
		{"NU22", "other digits", []member{bad("Arabic-Indic", 400, "json_invalid", "*", value("١٢")), other("in a string", `"١٢"`), bad("full width", 400, "json_invalid", "*", value("１２")), bad("a blank", 400, "json_invalid", "*", value("1 000"))}},
	}
}

// noEcho is an event with a number that is too long.
func noEcho(name string, spoil edit) member {
	return member{name, func(x *trial) {
		bad(name, 400, "number_too_long", "*", spoil).try(x)
		r := x.check(x.ingest(typeJSON, spoil(x.refusable())), "400")
		if len(r.detail) == 1 && len(r.detail[0].Input) > 64 {
			x.fail("the echo is %q", r.detail[0].Input)
		}
	}}
}

// stringClasses are those of strings.
func stringClasses() []class {
	const key = "metrics[0].parameter_key"
	control := func(name, at string, spoil edit) member { return bad(name, 422, "control_character", at, spoil) }
	unknown := func(name string, spoil edit) member { return bad(name, 422, "unknown_parameter", key, spoil) }
	utf8 := func(name string, spoil edit) member { return bad(name, 400, "utf8_invalid", "*", spoil) }
	text := func(name, s, content string) member {
		return stored(name, `{1}|[{"text": "`+content+`"}]`, attributes(`{"text":"`+s+`"}`))
	}
	device := func(name, code string, f func(id string) string) member { // of its id
		return member{name, func(x *trial) {
			_, _, id := x.ids()
			bad(name, 422, code, "device_id", swap(id, f(id))).try(x)
		}}
	}
	return []class{
		{"ST01", "bytes that are no UTF-8", []member{utf8("in a key", parameter("\xff")), utf8("in a name", extra("\"\x80\":1")), utf8("cut off", attributes("{\"a\":\"\xe2\x82\"}")), utf8("latin1", protocol("\"Z\xfcrich\""))}},
		{"ST02", "half a surrogate pair", []member{
			bad("in a key", 422, "surrogate_invalid", key, parameter(`\ud800`)), bad("the lower half", 422, "surrogate_invalid", "metrics[0].attributes.a", attributes(`{"a":"\udc00"}`)),
			bad("two upper halves", 422, "surrogate_invalid", "protocol", protocol(`"\ud800\ud800"`)), bad("in an unknown field", 422, "surrogate_invalid", "x", extra(`"x":"\udfff"`)),
		}},
		{"ST03", "overlong UTF-8", []member{utf8("slash", parameter("\xc0\xaf")), utf8("NUL", protocol("\"\xc0\x80\"")), utf8("of three bytes", parameter("\xe0\x80\x80")), utf8("surrogates", attributes("{\"a\":\"\xed\xa0\x80\"}"))}},
		{"ST04", `\u0000, which PostgreSQL cannot store`, []member{
			control("in a key", key, parameter(`\u0000`)), control("in protocol", "protocol", protocol(`"a\u0000"`)),
			control("in an attribute", "metrics[0].attributes.a", attributes(`{"a":"\u0000"}`)), control("in an attribute's name", "*", attributes(`{"a\u0000":1}`)),
			bad("raw", 400, "json_invalid", "*", parameter("\x00")),
		}},
		{"ST05", "control characters", []member{
			control("DEL", key, parameter("\x7f")), control("C1", key, parameter("\u0085")), control("C0", "protocol", protocol(`"a\u001fb"`)), control("a bell", "protocol", protocol(`"\u0007"`)),
			bad("raw", 400, "json_invalid", "*", protocol("\"a\x01b\"")),
		}},
		{"ST06", "line breaks in names", []member{
			control("LF", key, parameter(`\n`)), control("CRLF", "protocol", protocol(`"a\r\nlevel=ERROR msg=x"`)), control("line separator", key, parameter("\u2028")),
			control("paragraph separator", "protocol", protocol("\"a\u2029\"")),
		}},
		{"ST07", "terminal escapes", []member{
			control("colour", key, parameter(`\u001b[31m`)), control("title", "protocol", protocol(`"\u001b]0;x\u0007"`)), control("C1 CSI", "protocol", protocol("\"\u009b31m\"")),
			bad("raw", 400, "json_invalid", "*", protocol("\"\x1b[2J\"")),
		}},
		{"ST08", "characters that turn the direction of text", []member{control("override", key, parameter("\u202e")), control("isolate", "protocol", protocol(`"a\u2066"`)), control("mark", key, parameter("\u200f"))}},
		{"ST09", "characters of no width", []member{control("space", key, parameter("\u200b")), control("byte order mark", key, parameter("\ufeff")), control("joiner", "protocol", protocol("\"a\u200db\"")), control("filler", key, parameter("\u3164"))}},
		{"ST10", "names that look the same: only the registered bytes are known", []member{
			unknown("composed", parameter("\u00e9")), unknown("decomposed", parameter("e\u0301")), unknown("ligature", swap(":voltage", ":\ufb01")),
		}},
		{"ST11", "device ids of letters that look the same", []member{
			device("Cyrillic", "uuid_invalid", func(id string) string { return "а" + id[1:] }),
			device("full width", "uuid_invalid", func(id string) string { return "１" + id[1:] }),
			device("another dash", "uuid_invalid", func(id string) string { return strings.Replace(id, "-", "\u2010", 1) }),
			device("O for 0", "uuid_invalid", func(id string) string { return "O" + id[1:] }),
		}},
		{"ST12", "characters beyond the basic plane: kept", []member{
			text("emoji", "🔌⚡", "🔌⚡"), text("by escape", `\ud83d\udd0c`, "🔌"), text("joined", "👩\u200d🔧", "👩\u200d🔧"), text("CJK", "𠮷野家", "𠮷野家"),
		}},
		{"ST13", "strings a byte too long", []member{
			bad("4 KiB", 422, "string_too_long", "metrics[0].attributes.a", attributes(`{"a":"`+times(4097, "x")+`"}`)),
			bad("a key", 422, "string_too_long", key, parameter(times(257, "x"))),
			bad("protocol", 422, "string_too_long", "protocol", protocol(`"`+times(129, "p")+`"`)),
			bad("in bytes, not characters", 422, "string_too_long", "protocol", protocol(`"`+times(65, "é")+`"`)),
			text("not too long", times(4096, "x"), times(4096, "x")),
		}},
		{"ST14", "characters that are none", []member{
			unknown("U+FFFE", parameter("\ufffe")), unknown("U+FDD0", parameter("\ufdd0")), text("in values they are kept", "\uffff", "\uffff"), unknown("private", parameter("\ue000")),
		}},
		{"ST15", "blanks around names", []member{unknown("behind", parameter(" ")), unknown("in front", swap(":voltage", ": voltage")), unknown("that does not break", parameter("\u00a0")),
			device("around an id", "uuid_invalid", func(id string) string { return " " + id })}},
		{"ST16", "names in another case", []member{
			unknown("upper", swap(":voltage", ":VOLTAGE")), unknown("title", swap(":voltage", ":Voltage")), unknown("dotless i", swap(":voltage", ":current\u0131")),
			{"ids have no case", func(x *trial) {
				_, _, id := x.ids()
				stored("ids have no case", "{1}", swap(id, strings.ToUpper(id))).try(x)
			}},
		}},
		{"ST17", "many combining marks", []member{
			unknown("a few", parameter(times(20, "\u0301"))), bad("too many", 422, "string_too_long", key, parameter(times(200, "\u0301\u0302"))), text("in values they are kept", "a"+times(50, "\u0301"), "a"+times(50, "\u0301")),
		}},
		{"ST18", "strings that are code elsewhere: stored as they are", []member{
			text("SQL", `'; DROP TABLE telemetry; --`, `'; DROP TABLE telemetry; --`), text("HTML", `<script>alert(1)</script>`, `<script>alert(1)</script>`),
			text("JNDI", "${jndi:ldap://x/a}", "${jndi:ldap://x/a}"), text("format", "%s%n%d", "%s%n%d"), text("template", "{{7*7}}", "{{7*7}}"),
			stored("as protocol", "{1}", protocol(`"'; DROP TABLE telemetry; --"`)), unknown("as a key", parameter("' OR ''='")), unknown("as HTML", parameter("<img src=x onerror=alert(1)>")),
		}},
	}
}

var regexpFraction = regexp.MustCompile(`("source_timestamp":"[^".Z]*)(\.\d+)?Z"`)

// timeClasses are those of source_timestamp.
func timeClasses() []class {
	no := func(name, v string) member { return bad(name, 422, "timestamp_invalid", "source_timestamp", when(v)) }
	zone := func(name, v string) member {
		return bad(name, 422, "timestamp_zone_missing", "source_timestamp", when(v))
	}
	at := func(name, code string, d time.Duration) member {
		return bad(name, 422, code, "source_timestamp", func(e string) string { return when(`"` + time.Now().Add(d).UTC().Format(time.RFC3339) + `"`)(e) })
	}
	const old, soon = "timestamp_too_old", "timestamp_in_future"
	day := 24 * time.Hour
	// pair sends two events of device 1 at one time of its own and says what is stored for it then.
	pair := func(name, want string, first, second edit) member {
		return member{name, func(x *trial) {
			x.mu.Lock()
			x.made++
			at := x.now.Add(-time.Hour - time.Duration(x.made)*time.Second).UTC()
			x.stored[x.id("pair")]++
			x.mu.Unlock()
			for _, change := range []edit{first, second} {
				e := x.event(1, at, "voltage", "1")
				e = strings.Replace(e, `"metrics"`, fmt.Sprintf(`"event_id":%q,"metrics"`, x.id("pair")), 1)
				x.check(x.ingest(typeJSON, change(e)), "200")
			}
			x.drained()
			got := x.rows("SELECT count(*), min(vals::text) FROM telemetry WHERE event_id = $1", x.id("pair"))
			if got != want {
				x.fail("stored is %s, want %s", got, want)
			}
		}}
	}
	fraction := func(digits string) edit {
		return func(e string) string {
			return regexpFraction.ReplaceAllString(e, `$1.`+digits+`Z"`)
		}
	}
	asIs := edit(func(e string) string { return e })
	return []class{
		{"TM01", "no time", []member{
			bad("not there", 422, "missing", "source_timestamp", func(e string) string { return stampPattern.ReplaceAllString(e, `"x":1`) }),
			no("null", "null"), no("an object", "{}"), no("an array", "[]"),
		}},
		{"TM02", "words", []member{no("empty", `""`), no("now", `"now"`), no("today", `"today"`), no("blank", `"  "`)}},
		{"TM03", "epochs of any unit", []member{no("s", "1767323045"), no("ms", "1767323045678"), no("us", "1767323045678901"), no("ns", `"1767323045678901234"`), no("with a fraction", "1767323045.5")}},
		{"TM04", "before 1970", []member{no("-1", "-1"), no("1969", `"1969-12-31T23:59:59Z"`), no("by its zone", `"1970-01-01T00:00:00+00:01"`), no("a negative year", `"-2026-01-01T00:00:00Z"`)}},
		{"TM05", "years at the ends", []member{
			no("0", `"0000-01-01T00:00:00Z"`), bad("9999", 422, soon, "source_timestamp", when(`"9999-12-31T23:59:59Z"`)), no("10000", `"10000-01-01T00:00:00Z"`), no("292277", `"292277-01-01T00:00:00Z"`),
			bad("1970", 422, old, "source_timestamp", when(`"1970-01-01T00:00:00Z"`)),
		}},
		{"TM06", "no zone", []member{zone("T", `"2026-01-02T03:04:05"`), zone("blank", `"2026-01-02 03:04:05.678"`), no("a date", `"2026-01-02"`)}},
		{"TM07", "leap seconds", []member{no("with a zone", `"2016-12-31T23:59:60Z"`), no("anywhere", `"2026-01-02T03:04:60Z"`), no("61", `"2026-06-30T23:59:61Z"`)}},
		{"TM08", "days and hours that there are not", []member{
			no("30 February", `"2026-02-30T03:04:05Z"`), no("29 February", `"2026-02-29T03:04:05Z"`), no("month 13", `"2026-13-01T03:04:05Z"`), no("24:00", `"2026-01-02T24:00:00Z"`), no("minute 60", `"2026-01-02T03:60:00Z"`), no("day 0", `"2026-01-00T03:04:05Z"`),
		}},
		{"TM09", "offsets that there are not", []member{no("+15:00", `"2026-01-02T03:04:05+15:00"`), no("-14:01", `"2026-01-02T03:04:05-14:01"`), no("minute 60", `"2026-01-02T03:04:05+05:60"`), no("without a colon", `"2026-01-02T03:04:05+0530"`), no("a zone's letters", `"2026-01-02T03:04:05 CEST"`)}},
		{"TM10", "more than 5 minutes ahead", []member{at("6 minutes", soon, 6*time.Minute), at("a day", soon, day), at("a century", soon, 36500*day)}},
		{"TM11", "older than what is kept", []member{at("91 days", old, -91*day), at("10 years", old, -3650*day), at("a second", old, -90*day-time.Second)}},
		{"TM12", "nanoseconds: cut off, so that a repeated event is the same", []member{
			pair("repeated with fewer digits", "1 {2}", fraction("123456789"), fraction("123456").and(value("2"))),
			pair("never rounded up", "1 {2}", fraction("999999999"), fraction("999999").and(value("2"))),
			pair("100 digits", "1 {2}", fraction("5"+times(100, "9")), fraction("599999").and(value("2"))),
			no("no digits", `"2026-01-02T03:04:05.Z"`), no("a comma", `"2026-01-02T03:04:05,5Z"`),
		}},
		{"TM13", "names of zones", []member{no("behind", `"2026-03-29T02:30:00 Europe/Berlin"`), no("in brackets", `"2026-03-29T02:30:00[Europe/Berlin]"`), no("beside an offset", `"2026-10-25T02:30:00+01:00[Europe/Berlin]"`)}},
		{"TM14", "what PostgreSQL takes for a time", []member{no("infinity", `"infinity"`), no("-infinity", `"-infinity"`), no("epoch", `"epoch"`), no("tomorrow", `"tomorrow"`), no("BC", `"2026-01-02T03:04:05Z BC"`)}},
		{"TM15", "the same time again: merged, the last one wins", []member{
			pair("another value", "1 {2}", asIs, value("2")),
			pair("another parameter", "1 {2,1}", asIs, value("2").and(swap(":voltage", ":current"))),
			pair("another offset", "1 {2}", asIs, func(e string) string { return value("2")(strings.Replace(e, `Z","`, `+00:00","`, 1)) }),
		}},
		{"TM16", "out of order, and bursts of the same", []member{
			{"backwards", func(x *trial) {
				var list []string
				for range 100 {
					list = append(list, x.good("stored"))
				}
				slices.Reverse(list)
				x.check(x.ingest(typeNDJSON, strings.Join(list, "\n")), "200")
			}},
			{"the same 1,000 times", func(x *trial) {
				r := x.check(x.ingest(typeNDJSON, times(1000, x.good("stored")+"\n")), "200")
				expect(x.T, x.id("accepted"), r.Accepted, 1000)
			}},
			{"the same in 50 requests", func(x *trial) {
				e := x.good("stored")
				for range 50 {
					x.check(x.ingest(typeJSON, e), "200")
				}
			}},
		}},
	}
}

// volumeClasses are those of size, number and rate.
func volumeClasses() []class {
	const most = 10_000
	unknownDevice := func(x *trial, e string) string {
		_, _, id := x.ids()
		return strings.Replace(e, id, uuid.NewString(), 1)
	}
	many := func(name, want, code, kind, event, between string, n int) member {
		return body(name, want, code, kind, func(*trial) string {
			list := strings.TrimSuffix(times(n, event+between), between)
			if kind == typeJSON {
				return "[" + list + "]"
			}
			return list
		})
	}
	metrics := func(n int) edit {
		return func(e string) string {
			i := strings.Index(e, "[")
			m := e[i+1 : len(e)-2]
			return e[:i+1] + strings.TrimSuffix(times(n, m+","), ",") + "]}"
		}
	}
	// capped wants n refused events, of which 100 are told.
	capped := func(name, kind string, make func(x *trial) string, n int) member {
		return member{name, func(x *trial) {
			r := x.check(x.ingest(kind, make(x)), "422")
			if r.Rejected != n || len(r.Errors) != min(n, 100) || len(r.detail) != min(n, 100) || r.Accepted != 0 {
				x.fail("%d rejected, %d and %d of them told, %d accepted", r.Rejected, len(r.detail), len(r.Errors), r.Accepted)
			}
		}}
	}
	alternating := func(name, kind string, spoil func(x *trial, e string) string) member {
		return member{name, func(x *trial) {
			var list []string
			for range 500 {
				list = append(list, x.good("stored"), spoil(x, x.refusable()))
			}
			text := strings.Join(list, "\n")
			if kind == typeJSON {
				text = "[" + strings.Join(list, ",") + "]"
			}
			r := x.check(x.ingest(kind, text), "200")
			if r.Accepted != 500 || r.Rejected != 500 || len(r.Errors) != 100 || r.Errors[99].Line != 200 {
				x.fail("%d accepted, %d rejected, %d told", r.Accepted, r.Rejected, len(r.Errors))
			}
		}}
	}
	spoilValue := func(_ *trial, e string) string { return value(`"x"`)(e) }
	return []class{
		{"VO01", "no events", []member{
			body("an empty array", "400", "empty_body", typeJSON, func(*trial) string { return "[]" }),
			body("blanks in an array", "400", "empty_body", typeJSON, func(*trial) string { return " [ \n ] " }),
			body("blank lines", "400", "empty_body", typeNDJSON, func(*trial) string { return "\n\n\n" }),
			bad("no metrics", 422, "metrics_required", "metrics", func(e string) string { return e[:strings.Index(e, "[")] + "[]}" }),
		}},
		{"VO02", "10,001 events", []member{
			many("NDJSON", "413", "too_many_events", typeNDJSON, "{}", "\n", most+1),
			many("an array", "413", "too_many_events", typeJSON, "{}", ",", most+1),
			many("an array of numbers", "413", "too_many_events", typeJSON, "1", ",", 1_000_000),
			body("good ones", "413", "too_many_events", typeNDJSON, func(x *trial) string { return times(most+1, x.refusable()+"\n") }),
			many("10,000 are not too many", "422", "missing", typeNDJSON, "{}", "\n", most),
		}},
		{"VO03", "257 metrics", []member{
			bad("the same", 422, "too_many_metrics", "metrics", metrics(257)), bad("1,000", 422, "too_many_metrics", "metrics", metrics(1000)),
			bad("empty ones", 422, "too_many_metrics", "metrics", func(e string) string {
				return e[:strings.Index(e, "[")] + "[" + times(256, `{"parameter_key":"x"},`) + `{}]}`
			}),
			bad("256 are not too many, but the same", 422, "duplicate_parameter", "metrics[1].parameter_key", metrics(256)),
		}},
		{"VO04", "an event of 1 MiB", []member{
			body("of blanks", "413", "body_too_large", typeJSON, func(x *trial) string { return x.refusable() + times(1<<20, " ") }),
			body("of attributes", "413", "body_too_large", typeJSON, func(x *trial) string {
				return attributes(`{` + times(300, `"a":"`+times(4000, "x")+`",`) + `"b":1}`)(x.refusable())
			}),
			capped("in NDJSON", typeNDJSON, func(x *trial) string {
				return strings.ReplaceAll(metrics(256)(attributes(`{"a":"`+times(4000, "x")+`"}`)(x.refusable())), "\n", "")
			}, 1),
			body("compressed", "413", "", typeJSON, func(x *trial) string { return gzipped(x.refusable() + times(1<<20, " ")) }, "Content-Encoding", "gzip"),
		}},
		{"VO05", "10,000 devices in one batch", []member{
			{"known ones", func(x *trial) {
				_, site, _ := x.ids()
				x.exec(`INSERT INTO devices (site_id, name, device_type) SELECT $1, 'many-' || i, 'meter' FROM generate_series(1, $2) i`, site, most)
				wait(x.T, "the devices", func() bool { return len(x.engine.Snapshot().Devices) >= most })
				var list []string
				_, _, id := x.ids()
				for _, d := range x.engine.Snapshot().Devices {
					if len(list) < most && strings.Contains(d.Addr.Path, "many-") {
						list = append(list, strings.Replace(x.good("stored"), id, d.ID.String(), 1))
					}
				}
				r := x.check(x.ingest(typeNDJSON, strings.Join(list, "\n")), "200")
				expect(x.T, x.id("accepted"), r.Accepted, most)
			}},
			capped("unknown ones", typeNDJSON, func(x *trial) string {
				var list []string
				for range most {
					list = append(list, unknownDevice(x, x.refusable()))
				}
				return strings.Join(list, "\n")
			}, most),
			capped("unknown ones in an array", typeJSON, func(x *trial) string {
				var list []string
				for range most {
					list = append(list, unknownDevice(x, x.refusable()))
				}
				return "[" + strings.Join(list, ",") + "]"
			}, most),
		}},
		{"VO06", "nothing but refused events: 100 reasons, and their number", []member{
			capped("missing fields", typeNDJSON, func(*trial) string { return times(1000, "{}\n") }, 1000),
			capped("broken lines", typeNDJSON, func(*trial) string { return times(most, "{\n") }, most),
			capped("long inputs", typeNDJSON, func(x *trial) string { return times(1000, parameter(times(200, "\u0301")[:200])(x.refusable())+"\n") }, 1000),
			capped("control characters", typeJSON, func(x *trial) string {
				return "[" + times(499, protocol(`"`+times(120, `\u0001`)+`"`)(x.refusable())+",") + protocol(`"\u0001"`)(x.refusable()) + "]"
			}, 500),
			capped("10 of them", typeJSON, func(*trial) string { return "[" + times(9, "{},") + "{}]" }, 10),
		}},
		{"VO07", "good and bad ones in turn", []member{
			alternating("words for values", typeNDJSON, spoilValue),
			alternating("in an array", typeJSON, spoilValue),
			alternating("broken lines", typeNDJSON, func(_ *trial, e string) string { return e[:len(e)/2] }),
			alternating("unknown devices", typeNDJSON, unknownDevice),
		}},
		{"VO08", "more events than a device or customer may send: 429 with Retry-After and the limit", []member{
			limited("of a device", "UPDATE devices SET events_per_second = 0.01, burst = 5 WHERE name = 'dev-1'", "rate_limited_device", 5, 1),
			limited("of a customer", "UPDATE customers SET events_per_second = 0.01, burst = 5", "rate_limited_customer", 5, 20),
			limited("in a batch", "UPDATE devices SET events_per_second = 0.01, burst = 100 WHERE name = 'dev-1'", "rate_limited_device", 100, 1),
		}},
		{"VO09", "a burst exactly at the limit passes", []member{
			limited("of 1", "UPDATE devices SET events_per_second = 0.01, burst = 1 WHERE name = 'dev-1'", "rate_limited_device", 1, 1),
			limited("of 2", "UPDATE devices SET events_per_second = 0.001, burst = 2 WHERE name = 'dev-1'", "rate_limited_device", 2, 1),
			limited("of 1,000", "UPDATE devices SET events_per_second = 0.01, burst = 1000 WHERE name = 'dev-1'", "rate_limited_device", 1000, 1),
		}},
		{"VO10", "10,000 unknown devices, one after another", []member{
			capped("in batches", typeNDJSON, func(x *trial) string {
				var list []string
				for range most {
					list = append(list, unknownDevice(x, x.refusable()))
				}
				return strings.Join(list, "\n")
			}, most),
			{"one a request", func(x *trial) {
				var senders sync.WaitGroup
				for range 20 {
					senders.Go(func() {
						for range 10 {
							x.check(x.ingest(typeJSON, unknownDevice(x, x.refusable())), "422")
						}
					})
				}
				senders.Wait()
			}},
			{"a known one is not held up", func(x *trial) {
				x.check(x.ingest(typeJSON, x.good("stored")), "200")
			}},
		}},
		{"VO11", "idle connections: no more than an address may have, the others are closed at once", []member{
			idle("one address", 1, false), idle("many addresses", 7, false), idle("all that there may be", 9, true),
		}},
		{"VO12", "a full queue: 503, and nothing is lost", []member{
			fullQueue("an event", typeJSON, func(x *trial) string { return x.refusable() }),
			fullQueue("an array", typeJSON, func(x *trial) string { return "[" + x.refusable() + "]" }),
			fullQueue("NDJSON with a bad line", typeNDJSON, func(x *trial) string { return x.refusable() + "\n{\n" + x.refusable() }),
		}},
	}
}

// limited sets a limit, sends as many events at once as it lets pass and one more, and removes it. The events come from
// devices, of which the first is dev-1.
func limited(name, sql, code string, burst, devices int) member {
	return member{name, func(x *trial) {
		change := func(sql string) {
			revision := x.engine.Snapshot().Revision
			x.exec(sql)
			wait(x.T, "the engine to see the limit", func() bool { return x.engine.Snapshot().Revision > revision })
		}
		change(sql)
		defer func() {
			change("UPDATE devices SET events_per_second = NULL, burst = NULL")
			change("UPDATE customers SET events_per_second = NULL, burst = NULL")
			x.check(x.ingest(typeJSON, x.good("without a limit")), "200") // and the engine forgets what the limit counted
		}()
		_, _, id := x.ids()
		from := func(i int, e string) string {
			return strings.Replace(e, id, x.device(1+i%min(devices, 3)).ID.String(), 1)
		}
		var list []string
		for i := range burst {
			list = append(list, from(i, x.good("stored")))
		}
		r := x.check(x.ingest(typeNDJSON, strings.Join(append(list, from(0, x.refusable())), "\n")), "200")
		if r.Accepted != burst || len(r.Errors) != 1 || r.Errors[0].Code != code {
			x.fail("%d accepted, the reasons are %+v", r.Accepted, r.Errors)
		}
		a := x.ingest(typeJSON, from(0, x.refusable()))
		if r := x.check(a, "429"); len(r.detail) != 1 || r.detail[0].Code != code || !strings.Contains(a.body, `"burst":`+strconv.Itoa(burst)) {
			x.fail("one more: %s", a.body)
		}
		x.check(x.ingest(typeJSON, "["+from(0, x.refusable())+","+from(0, x.refusable())+"]"), "429")
	}}
}

// idle opens more connections than addresses may have, which have sent one request each.
func idle(name string, addresses int, full bool) member {
	return member{name, func(x *trial) {
		per, total := 1024, 8192
		var files syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			x.Fatal(err)
		}
		if room := int(min(files.Cur, 1<<20)); room < 2*total+1500 { // both ends are ours
			per = max(room-1500, 64) / 18
			total = 8 * per
			x.exec("UPDATE limits SET connections = $1, connections_per_address = $2", total, per)
			defer x.exec("UPDATE limits SET connections = NULL, connections_per_address = NULL")
			wait(x.T, "the limits", func() bool { return x.engine.Snapshot().EffectiveLimits().Connections == int64(total) })
		}
		x.client.CloseIdleConnections()
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
			wait(x.T, "a healthy request after all of them", func() bool {
				c := x.dial("")
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				fmt.Fprint(c, lastRequest)
				statuses, err := x.answers(c)
				return err == nil && slices.Equal(statuses, []string{"200"})
			})
		}()
		refused := 0
		buffer := make([]byte, 1024)
		for i := range addresses {
			for range per + 10 {
				c := x.dial(fmt.Sprintf("127.0.1.%d", i+1))
				c.SetDeadline(time.Now().Add(10 * time.Second))
				fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
				x.mu.Lock()
				x.requests++
				x.mu.Unlock()
				if n, err := c.Read(buffer); n > 0 {
					open = append(open, c)
				} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
					x.Fatalf("%s: a connection is neither answered nor closed", x.id(""))
				} else {
					c.Close()
					refused++
				}
			}
		}
		want := min(addresses*per, total)
		if len(open) > want || len(open) < want-40 || refused != addresses*(per+10)-len(open) { // a few may be open besides
			x.fail("%d connections are open and %d refused, want %d open", len(open), refused, want)
		}
		if !full {
			x.check(x.ingest(typeJSON, x.good("beside the others")), "200")
		}
	}}
}

// fullQueue fills a queue of its own while there is no database, and sends it one more body.
func fullQueue(name, kind string, make func(x *trial) string) member {
	return member{name, func(x *trial) {
		x.Run(name, func(t *testing.T) {
			small := &hostile{service: start(t, func(o *engine.Options) { o.QueueBytes = 2 << 20 }), now: x.now, stored: map[string]int{}}
			defer small.client.CloseIdleConnections()
			y := &trial{t, small, x.class, x.name}
			back := y.away()
			for i := 0; ; i++ {
				var list []string
				for range 2000 {
					list = append(list, y.make("stored"))
				}
				a := y.ingest(typeNDJSON, strings.Join(list, "\n"))
				if a.status == 503 {
					break
				}
				y.check(a, "200")
				y.stored[y.id("stored")] += len(list)
				if i > 100 {
					t.Fatal("the queue never fills")
				}
			}
			r := y.check(y.ingest(kind, make(y)), "503")
			if len(r.detail) != 1 || r.detail[0].Code != "queue_full" {
				y.fail("the reasons are %+v", r.detail)
			}
			y.check(y.ingest(typeJSON, "{"), "400")
			back()
			y.drained()
			y.service.stop()
			if got := y.rows("SELECT count(*) FROM telemetry WHERE event_id LIKE '%refused'"); got != "0" {
				y.fail("%s events are stored that were answered with 503", got)
			}
		})
	}}
}

// pointClasses are the same for line protocol and remote write, where they are told.
func pointClasses() []class {
	write := func(name, path, want, code string, text func(x *trial) string, header ...string) member {
		return member{name, func(x *trial) {
			a := x.send(x.T, "POST", path, text(x), header...)
			x.check(a, want)
			if !strings.Contains(a.body, code) {
				x.fail("answer %q, want one with %s", a.body, code)
			}
		}}
	}
	line := func(name, want, code, text string) member {
		return member{name, func(x *trial) {
			for _, path := range []string{"/write", "/api/v2/write"} {
				x.mu.Lock()
				x.made++
				good := fmt.Sprintf(`m,host=host\ 3 voltage=1 %d`, x.now.Add(time.Duration(x.made)*time.Millisecond).UnixNano())
				x.stored["influx"]++
				x.mu.Unlock()
				a := x.send(x.T, "POST", path, good+"\n"+text+"\n")
				x.check(a, want)
				if !strings.Contains(a.body, code) {
					x.fail("%s: answer %q, want one with %s", path, a.body, code)
				}
			}
		}}
	}
	const host = `m,host=host\ 2 `
	remote := func(name, want, code, message string) member {
		return write(name, "/api/v1/write", want, code, func(*trial) string { return string(snappy.Encode(nil, []byte(message))) },
			"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy")
	}
	plain := func(text string) func(*trial) string { return func(*trial) string { return text } }
	return []class{
		{"LP", "line protocol: what is good of it is stored", []member{
			line("JSON", "400", "line_invalid", `{"a":1}`), line("no fields", "400", "line_invalid", host), line("bytes that are no UTF-8", "400", "", "m,host=\xff voltage=1"),
			line("NUL", "400", "", "m,host=a\x00b voltage=1"), line("terminal escapes", "400", "", "m,host=a\x1b[31m voltage=1"), line("a quote that never closes", "400", "", host+`voltage="`+times(100_000, "x")),
			line("1e999", "400", "", host+"voltage=1e999"), line("NaN", "400", "", host+"voltage=NaN"), line("a large integer", "400", "", host+"voltage=99999999999999999999i"),
			line("a time that is none", "400", "", host+"voltage=1 99999999999999999999"), line("in the future", "400", "timestamp_in_future", host+"voltage=1 4102444800000000000"), line("a negative time", "400", "", host+"voltage=1 -1"),
			line("an unknown host", "400", "unknown_device", "m,host=nobody voltage=1"), line("10,000 fields", "400", "", host+strings.TrimSuffix(times(10_000, "x=1,"), ",")),
			line("a long tag", "400", "", "m,host="+times(100_000, "x")+" voltage=1"), line("SQL", "400", "unknown_device", `m,host=';\ DROP\ TABLE\ x voltage=1`),
		}},
		{"LE", "line protocol: encodings and sizes", []member{
			write("a gzip bomb", "/write", "413", "", plain(gzipped(times(64<<20, " "))), "Content-Encoding", "gzip"), write("not gzip", "/api/v2/write", "400", "gzip_invalid", plain("x"), "Content-Encoding", "gzip"),
			write("too large", "/write", "413", "body_too_large", plain(times(9<<20, "#"))), write("too many", "/api/v2/write", "413", "too_many_events", plain(times(10_001, "x\n"))),
			write("an unknown precision", "/write?precision=%00", "400", "precision_unknown", plain("m v=1")), write("100,000 commas", "/write", "400", "", plain(times(100_000, ","))),
		}},
		{"RW", "remote write", []member{
			write("not snappy", "/api/v1/write", "400", "snappy_invalid", plain("\x05hello"), "Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"),
			write("4 GiB in 6 bytes", "/api/v1/write", "413", "body_too_large", plain("\xff\xff\xff\xff\x0f\x00"), "Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"),
			write("JSON", "/api/v1/write", "415", "content_type_unsupported", plain("{}"), "Content-Type", typeJSON, "Content-Encoding", "snappy"),
			remote("text", "400", "protobuf_invalid", "voltage 1"), remote("a length past the end", "400", "protobuf_invalid", "\x0a\x7f"), remote("an endless number", "400", "protobuf_invalid", "\x0a"+times(20, "\xff")),
			remote("groups in groups", "400", "protobuf_invalid", times(100_000, "\x0b")), remote("100,000 empty series", "204|400|413", "", times(100_000, "\x0a\x00")),
		}},
	}
}

// An event, an array and NDJSON that are cut at any byte are refused, or taken up to the cut; see JS01.
func TestTruncatedJSON(t *testing.T) {
	h := &hostile{service: start(t), now: time.Now().Add(-time.Hour).Truncate(time.Second), stored: map[string]int{}}
	defer h.client.CloseIdleConnections()
	x := &trial{t, h, &class{id: "JS01", what: "JSON that is cut off"}, "at any byte"}
	event := attributes(`{"text":"\u00e9\\\"é","list":[1.5e-3,true,null,{}]}`)(x.make("first"))
	second := x.make("second")
	for n := range len(event) {
		x.check(x.ingest(typeJSON, event[:n]), "400")
	}
	array := "[" + event + "," + second + "]"
	for n := range len(array) {
		x.check(x.ingest(typeJSON, array[:n]), "400")
	}
	expect(t, "stored of cut JSON", x.rows("SELECT count(*) FROM telemetry"), "0")
	lines := event + "\n" + second
	for n := range len(lines) {
		a := x.ingest(typeNDJSON, lines[:n])
		switch {
		case n == 0:
			x.check(a, "400")
		case n < len(event):
			x.check(a, "422")
		default:
			r, rejected := x.check(a, "200"), min(max(0, n-len(event)-1), 1)
			if r.Accepted != 1 || r.Rejected != rejected {
				x.fail("%d bytes of NDJSON: %d accepted, %d rejected", n, r.Accepted, r.Rejected)
			}
		}
	}
	x.drained()
	expect(t, "stored of cut NDJSON", x.rows("SELECT count(*), min(event_id) FROM telemetry"), "1 "+x.id("first"))
}
