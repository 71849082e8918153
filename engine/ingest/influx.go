package ingest

import (
	"bytes"
	"math"
	"strconv"

	"github.com/nsready/nsready/engine/telemetry"
)

// Line protocol, as https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/ describes it: a measurement with
// tags, fields, and a time. What the page leaves open is read as InfluxDB does: a string may hold a newline, and a backslash
// that escapes nothing stands for itself.

var sourceInflux = []byte("influx")

// maxText bounds a string of a line, so that a quote that is never closed does not swallow the lines after it.
const maxText = 64 << 10

// CodeLineInvalid says that a line is not line protocol.
const CodeLineInvalid = "line_invalid"

// InfluxPrecision returns the format of line protocol whose timestamps have a precision: ns, us, ms or s, as version 2 of
// InfluxDB's API names them, or n, u, ms, s, m or h, as version 1 does. Without one it is nanoseconds.
func InfluxPrecision(name string) (Format, bool) {
	switch name {
	case "", "ns", "n":
		return InfluxNanoseconds, true
	case "us", "u", "µ":
		return InfluxMicroseconds, true
	case "ms":
		return InfluxMilliseconds, true
	case "s":
		return InfluxSeconds, true
	case "m":
		return InfluxMinutes, true
	case "h":
		return InfluxHours, true
	}
	return 0, false
}

// micros is how many microseconds the unit of a format has; nanoseconds are the exception.
var micros = [...]int64{InfluxMicroseconds: 1, InfluxMilliseconds: 1e3, InfluxSeconds: 1e6, InfluxMinutes: 60e6, InfluxHours: 3600e6}

// eachPointLine calls one for every line that is neither empty nor a comment.
func eachPointLine(body []byte, one func(line int, data []byte) (int, *Rejection)) *Rejection {
	for line := 1; ; {
		start := space(body, 0)
		line += bytes.Count(body[:start], newline)
		if body = body[start:]; len(body) == 0 {
			return nil
		}
		n := lineEnd(body, 0)
		if body[0] != '#' {
			var r *Rejection
			if n, r = one(line, body); r != nil {
				return r
			}
		}
		line += bytes.Count(body[:n], newline)
		body = body[n:]
	}
}

var newline = []byte{'\n'}

// lineEnd returns the index behind the first newline from b[i] on.
func lineEnd(b []byte, i int) int {
	if end := bytes.IndexByte(b[i:], '\n'); end >= 0 {
		return i + end + 1
	}
	return len(b)
}

// Classes of bytes in line protocol, outside of strings.
const (
	escape   = 1 + iota // the backslash
	ends                // ends a word, and does not when it is escaped
	endsLine            // ends a word
)

var lineClass = [256]uint8{'\\': escape, ',': ends, '=': ends, ' ': ends, '\n': endsLine}

// word returns the index of the first byte from b[i] on that ends a word, and whether a backslash escapes one before it.
func word(b []byte, i int) (end int, escaped bool) {
	for ; i < len(b); i++ {
		switch lineClass[b[i]] {
		case escape:
			if i+1 < len(b) && lineClass[b[i+1]] == ends {
				i++
				escaped = true
			}
		case ends, endsLine:
			return i, escaped
		}
	}
	return i, escaped
}

// lineDecoder decodes line protocol. It keeps memory from line to line; the zero value is ready to use.
type lineDecoder struct {
	text []byte // words whose escapes were resolved
}

// plain resolves the escapes of a word.
func (d *lineDecoder) plain(s []byte, escaped bool) []byte {
	if !escaped {
		return s
	}
	start := len(d.text)
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && lineClass[s[i+1]] == ends {
			i++
		}
		d.text = append(d.text, s[i])
	}
	return d.text[start:]
}

// next reads the line at the front of b, which is neither empty nor a comment, and returns how many bytes it took, its
// newline included. After a rejection e is undefined.
func (d *lineDecoder) next(b []byte, format Format, now telemetry.Micros, e *rawEvent) (int, *Rejection) {
	p := e.Point
	*p = rawPoint{}
	d.text = d.text[:0]
	e.Time, e.Protocol, e.EventID, e.Metrics = now, sourceInflux, nil, e.Metrics[:0]

	i, escaped := word(b, 0)
	for i < len(b) && b[i] == '=' { // which is a plain letter here
		var more bool
		i, more = word(b, i+1)
		escaped = escaped || more
	}
	if i == 0 {
		return broken(b, i, "a measurement")
	}
	if p.Measurement = d.plain(b[:i], escaped); i > maxKey {
		return lineEnd(b, i), refuse(CodeStringTooLong, "measurement", p.Measurement, "The measurement's name has more than %d bytes.", maxKey)
	}
	for i < len(b) && b[i] == ',' {
		start := i + 1
		var value int
		value, escaped = word(b, start)
		if value >= len(b) || b[value] != '=' || value == start {
			return broken(b, value, "a tag, as key=value,")
		}
		key := d.plain(b[start:value], escaped)
		value++
		if i, escaped = word(b, value); i == value || i < len(b) && b[i] == '=' {
			return broken(b, i, "a tag, as key=value,")
		}
		if len(key) <= len("external_id") { // the longest of deviceTags
			p.tag(key, d.plain(b[value:i], escaped), deviceTags[:influxTags])
		}
	}
	if i >= len(b) || b[i] != ' ' {
		return broken(b, i, "a space and fields")
	}
	for count := 0; ; count++ {
		start := i + 1
		for count == 0 && start < len(b) && b[start] == ' ' {
			start++
		}
		var value int
		value, escaped = word(b, start)
		if value >= len(b) || b[value] != '=' || value == start {
			return broken(b, value, "a field, as key=value,")
		}
		key := d.plain(b[start:value], escaped)
		if value++; value < len(b) && b[value] == '"' {
			end, whole := textEnd(b, value+1)
			if !whole {
				return lineEnd(b, value), refuse(CodeLineInvalid, "", key, "The string of a field has no closing quote, or more than %d bytes.", maxText)
			}
			if p.Texts++; p.Texts == 1 {
				p.Text = key
			}
			i = end
		} else {
			v, end, code := lineValue(b, value)
			if code != "" {
				return lineEnd(b, end), refuse(code, fieldPath(string(key)), b[value:end], "%s", badValue[code])
			}
			if len(key) > maxKey {
				return lineEnd(b, end), refuse(CodeStringTooLong, "", key, "The field's name has more than %d bytes.", maxKey)
			}
			e.Metrics = append(e.Metrics, rawMetric{Key: key, Value: v, Quality: telemetry.QualityGood})
			i = end
		}
		if count == maxFields {
			return lineEnd(b, i), refuse(CodeTooManyMetrics, "fields", nil, "The point has more than %d fields.", maxFields)
		}
		if i >= len(b) || b[i] != ',' {
			break
		}
	}
	for i < len(b) && b[i] == ' ' {
		i++
	}
	start := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	time := b[start:i]
	for i < len(b) && b[i] == ' ' {
		i++
	}
	if i < len(b) && b[i] == '\r' {
		i++
	}
	if i < len(b) && b[i] != '\n' {
		return broken(b, i, "a timestamp in digits, or the end of the line,")
	}
	n := lineEnd(b, i)
	if len(time) == 0 {
		p.Untimed = true
	} else if !lineTime(time, format, &e.Time) {
		return n, refuse(CodeTimestampInvalid, "timestamp", time, "The timestamp lies outside of 1970 to 9999: check the precision that the request announces.")
	}
	if p.Tag == "" {
		return n, refuse(CodeMissing, "tags", nil, "The point names no device: it needs one of the tags device_id, device, external_id, host.")
	}
	return n, nil
}

// broken refuses a line for what stands at b[i], and returns the index behind it.
func broken(b []byte, i int, want string) (int, *Rejection) {
	line := bytes.LastIndexByte(b[:i], '\n') + 1
	near := b[line:min(lineEnd(b, i), line+8*maxInput)]
	return lineEnd(b, i), refuse(CodeLineInvalid, "", bytes.TrimRight(near, "\r\n"), "The line is broken at byte %d: want %s there.", i-line, want)
}

// textEnd returns the index behind the quote that ends the string at b[i].
func textEnd(b []byte, i int) (end int, whole bool) {
	b = b[:min(len(b), i+maxText+1)]
	for i < len(b) {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return 0, false
		}
		slashes := 0
		for slashes < n && b[i+n-1-slashes] == '\\' {
			slashes++
		}
		if i += n + 1; slashes%2 == 0 {
			return i, true
		}
	}
	return 0, false
}

// badValue says what is wrong with the value of a field.
var badValue = map[string]string{
	CodeValueNotANumber:  "The value is no number, integer with i or u, boolean, or string in double quotes.",
	CodeValueOutOfRange:  "The value is too large for its type.",
	CodeNumberTooLong:    "The number is too long.",
	CodeTimestampInvalid: "The timestamp is not one.",
}

// lineValue reads the number or boolean at b[i], and returns the index behind it. Its code is empty when there is one.
func lineValue(b []byte, i int) (v float64, end int, code string) {
	if v, end = number(b, i); end > 0 {
		if valueEnds(b, end) {
			return v, end, ""
		}
		if b[end] == 'i' && end-i <= 18 && valueEnds(b, end+1) && integral(b[i:end]) {
			return v, end + 1, ""
		}
	}
	end, _ = word(b, i)
	s := b[i:end]
	if n := len(s); n > 0 && s[n-1] == '\r' {
		s = s[:n-1]
		end--
	}
	v, code = oddValue(s)
	return v, end, code
}

// valueEnds reports whether a value may end before b[i].
func valueEnds(b []byte, i int) bool {
	return i >= len(b) || b[i] == ',' || b[i] == ' ' || b[i] == '\n' || b[i] == '\r' && (i+1 == len(b) || b[i+1] == '\n')
}

// integral reports whether a number is written without fraction and exponent.
func integral(s []byte) bool {
	for i, c := range s {
		if c-'0' > 9 && (i > 0 || c != '-') {
			return false
		}
	}
	return len(s) > 0 && s[len(s)-1] != '-'
}

// oddValue reads what is written in a rarer way than JSON's numbers.
func oddValue(s []byte) (v float64, code string) {
	switch string(s) {
	case "t", "T", "true", "True", "TRUE":
		return 1, ""
	case "f", "F", "false", "False", "FALSE":
		return 0, ""
	}
	if len(s) > maxNumber {
		return 0, CodeNumberTooLong
	}
	if len(s) == 0 {
		return 0, CodeValueNotANumber
	}
	whole := s[:len(s)-1]
	switch s[len(s)-1] {
	case 'i':
		if !integral(whole) {
			return 0, CodeValueNotANumber
		}
		n, err := strconv.ParseInt(string(whole), 10, 64)
		if err != nil {
			return 0, CodeValueOutOfRange
		}
		return float64(n), ""
	case 'u':
		if !integral(whole) || whole[0] == '-' {
			return 0, CodeValueNotANumber
		}
		n, err := strconv.ParseUint(string(whole), 10, 64)
		if err != nil {
			return 0, CodeValueOutOfRange
		}
		return float64(n), ""
	}
	for _, c := range s { // what Go reads beside: hexadecimal, underscores, inf and nan
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c|0x20 != 'e' {
			return 0, CodeValueNotANumber
		}
	}
	v, err := strconv.ParseFloat(string(s), 64)
	if math.IsInf(v, 0) {
		return 0, CodeValueOutOfRange
	}
	if err != nil {
		return 0, CodeValueNotANumber
	}
	if v == 0 {
		v = 0 // of either sign
	}
	return v, ""
}

// lineTime reads a timestamp of a format. Nanoseconds are cut to the microsecond, so that a repeated point gets the same key.
func lineTime(s []byte, format Format, t *telemetry.Micros) bool {
	n, err := strconv.ParseInt(string(s), 10, 64)
	switch {
	case err != nil || n < 0:
		return false
	case format == InfluxNanoseconds:
		n /= 1000
	case n > int64(lastMicros)/micros[format]:
		return false
	default:
		n *= micros[format]
	}
	*t = telemetry.Micros(n)
	return true
}
