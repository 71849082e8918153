package ingest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"

	"github.com/google/uuid"
)

// The fields of an event, as bits of a set.
const (
	fieldProject = 1 << iota
	fieldSite
	fieldDevice
	fieldProtocol
	fieldTime
	fieldMetrics
	fieldEventID
	fieldConfigVersion
	fieldMetadata

	fieldsRequired = fieldProject | fieldSite | fieldDevice | fieldProtocol | fieldTime | fieldMetrics
)

// The fields of a metric, as bits of a set.
const (
	metricKey = 1 << iota
	metricValue
	metricQuality
	metricAttributes
)

// shape is how a metric was written around its value. A device writes its next event in the same way, so comparing with
// the shape finds what parsing it again would find.
type shape struct {
	head             []byte // from the brace to the value
	keyStart, keyEnd int    // of the key in head; keyEnd is 0 when there is no shape
	tail             []byte // from behind the value to behind the brace
	quality          int16
}

// maxShape bounds the memory that a shape takes.
const maxShape = 512

// fast reads the event that starts at b[i] and returns the index behind it, or 0 when it is for strict to judge.
// It knows no unknown fields, and no strings but printable ASCII without escapes.
func (d *decoder) fast(b []byte, i int, e *rawEvent) int {
	if i >= len(b) || b[i] != '{' {
		return 0
	}
	e.EventID, e.Metrics = nil, e.Metrics[:0]
	seen := 0
	for i = space(b, i+1); ; i = space(b, i+1) {
		field := 0
		switch {
		case at(b, i, `"project_id"`):
			field, i = fieldProject, i+len(`"project_id"`)
		case at(b, i, `"site_id"`):
			field, i = fieldSite, i+len(`"site_id"`)
		case at(b, i, `"device_id"`):
			field, i = fieldDevice, i+len(`"device_id"`)
		case at(b, i, `"metrics"`):
			field, i = fieldMetrics, i+len(`"metrics"`)
		case at(b, i, `"protocol"`):
			field, i = fieldProtocol, i+len(`"protocol"`)
		case at(b, i, `"source_timestamp"`):
			field, i = fieldTime, i+len(`"source_timestamp"`)
		case at(b, i, `"event_id"`):
			field, i = fieldEventID, i+len(`"event_id"`)
		case at(b, i, `"config_version"`):
			field, i = fieldConfigVersion, i+len(`"config_version"`)
		case at(b, i, `"metadata"`):
			field, i = fieldMetadata, i+len(`"metadata"`)
		}
		if field == 0 || seen&field != 0 {
			return 0
		}
		seen |= field
		if i = colon(b, i); i == 0 {
			return 0
		}
		switch field {
		case fieldProject:
			i = readUUID(b, i, &e.Project)
		case fieldSite:
			i = readUUID(b, i, &e.Site)
		case fieldDevice:
			i = readUUID(b, i, &e.Device)
		case fieldProtocol:
			e.Protocol, i = text(b, i, maxIdentifier)
			if len(e.Protocol) == 0 {
				return 0
			}
		case fieldTime:
			var s []byte
			if s, i = text(b, i, maxString); i == 0 {
				return 0
			}
			var code string
			if e.Time, code = parseTime(s); code != "" {
				return 0
			}
		case fieldMetrics:
			i = d.metrics(b, i, e)
		case fieldEventID:
			if at(b, i, "null") {
				i += len("null")
			} else if e.EventID, i = text(b, i, maxIdentifier); len(e.EventID) == 0 {
				e.EventID = nil
			}
		case fieldConfigVersion:
			if at(b, i, "null") {
				i += len("null")
			} else {
				_, i = text(b, i, maxString)
			}
		case fieldMetadata:
			_, i = flatObject(b, i)
		}
		if i == 0 {
			return 0
		}
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			break
		}
	}
	if i >= len(b) || b[i] != '}' || seen&fieldsRequired != fieldsRequired {
		return 0
	}
	return i + 1
}

// metrics reads the list of metrics at b[i] and returns the index behind it, or 0.
func (d *decoder) metrics(b []byte, i int, e *rawEvent) int {
	if i >= len(b) || b[i] != '[' {
		return 0
	}
	for i = space(b, i+1); ; i = space(b, i+1) {
		n := len(e.Metrics)
		if n == maxMetrics {
			return 0
		}
		if n == len(d.shapes) {
			d.shapes = append(d.shapes, shape{})
		}
		if n < cap(e.Metrics) {
			e.Metrics = e.Metrics[:n+1]
		} else {
			e.Metrics = append(e.Metrics, rawMetric{})
		}
		if i = readMetric(b, i, &e.Metrics[n], &d.shapes[n]); i == 0 {
			return 0
		}
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			break
		}
	}
	if i >= len(b) || b[i] != ']' {
		return 0
	}
	return i + 1
}

// readMetric reads the metric at b[i] and returns the index behind it, or 0.
func readMetric(b []byte, i int, m *rawMetric, s *shape) int {
	start, seen := i, 0
	keyStart, valueStart, valueEnd := 0, 0, 0
	m.Key, m.Value, m.Quality, m.Attributes = nil, math.NaN(), -1, nil
	if v, n := s.value(b, i); n > 0 {
		keyStart, valueStart, valueEnd = i+s.keyStart, i+len(s.head), n
		m.Key, m.Value = b[keyStart:i+s.keyEnd:i+s.keyEnd], v
		if end := n + len(s.tail); end <= len(b) && string(b[n:end]) == string(s.tail) {
			m.Quality = s.quality
			return end
		}
		seen = metricKey | metricValue
		if i = space(b, n); i < len(b) && b[i] == '}' {
			s.learn(b[start:i+1], keyStart-start, len(m.Key), valueStart-start, valueEnd-start, m)
			return i + 1
		}
		if i >= len(b) || b[i] != ',' {
			return 0
		}
	} else if i >= len(b) || b[i] != '{' {
		return 0
	}
	learnable := true
	for i = space(b, i+1); ; i = space(b, i+1) {
		field := 0
		switch {
		case at(b, i, `"parameter_key"`):
			field, i = metricKey, i+len(`"parameter_key"`)
		case at(b, i, `"value"`):
			field, i = metricValue, i+len(`"value"`)
		case at(b, i, `"quality"`):
			field, i = metricQuality, i+len(`"quality"`)
		case at(b, i, `"attributes"`):
			field, i = metricAttributes, i+len(`"attributes"`)
		}
		if field == 0 || seen&field != 0 {
			return 0
		}
		if i = colon(b, i); i == 0 {
			return 0
		}
		switch field {
		case metricKey:
			keyStart = i + 1
			if m.Key, i = text(b, i, maxKey); len(m.Key) == 0 {
				return 0
			}
		case metricValue:
			if at(b, i, "null") {
				i += len("null")
				learnable = false
				break
			}
			learnable = seen == metricKey
			valueStart = i
			m.Value, i = number(b, i)
			valueEnd = i
		case metricQuality:
			m.Quality, i = readQuality(b, i)
		case metricAttributes:
			m.Attributes, i = flatObject(b, i)
		}
		if i == 0 {
			return 0
		}
		seen |= field
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			break
		}
	}
	if i >= len(b) || b[i] != '}' || seen&metricKey == 0 {
		return 0
	}
	i++
	if learnable && valueEnd > 0 && m.Attributes == nil {
		s.learn(b[start:i], keyStart-start, len(m.Key), valueStart-start, valueEnd-start, m)
	}
	return i
}

// value reads the number that follows the head when that stands at b[i], and returns the index behind it, or 0.
func (s *shape) value(b []byte, i int) (float64, int) {
	n := i + len(s.head)
	if s.keyEnd == 0 || n > len(b) || string(b[i:n]) != string(s.head) {
		return 0, 0
	}
	return number(b, n)
}

// learn keeps how a metric without attributes is written, given the places of its key and value.
func (s *shape) learn(metric []byte, key, keyLength, value, valueEnd int, m *rawMetric) {
	if len(metric) > maxShape {
		return
	}
	s.head = append(s.head[:0], metric[:value]...)
	s.keyStart, s.keyEnd = key, key+keyLength
	s.tail = append(s.tail[:0], metric[valueEnd:]...)
	s.quality = m.Quality
}

// flatObject reads null or an object of at most eight distinct names and scalars at b[i]. It returns the object as
// written, nil for null and {}, and the index behind it, or 0.
func flatObject(b []byte, i int) ([]byte, int) {
	const most = 8
	if at(b, i, "null") {
		return nil, i + len("null")
	}
	if i >= len(b) || b[i] != '{' {
		return nil, 0
	}
	start := i
	if i = space(b, i+1); i < len(b) && b[i] == '}' {
		return nil, i + 1
	}
	var names [most][]byte
	for n := 0; ; n++ {
		if n == most {
			return nil, 0
		}
		if names[n], i = text(b, i, maxString); i == 0 {
			return nil, 0
		}
		for _, earlier := range names[:n] {
			if string(earlier) == string(names[n]) {
				return nil, 0
			}
		}
		if i = colon(b, i); i == 0 || i >= len(b) {
			return nil, 0
		}
		switch b[i] {
		case '"':
			_, i = text(b, i, maxString)
		case 't':
			i = literal(b, i, "true")
		case 'f':
			i = literal(b, i, "false")
		case 'n':
			i = literal(b, i, "null")
		default:
			i = plainNumber(b, i)
		}
		if i == 0 {
			return nil, 0
		}
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			break
		}
		i = space(b, i+1)
	}
	if i >= len(b) || b[i] != '}' {
		return nil, 0
	}
	return b[start : i+1 : i+1], i + 1
}

func literal(b []byte, i int, s string) int {
	if !at(b, i, s) {
		return 0
	}
	return i + len(s)
}

// at reports whether s stands at b[i].
func at(b []byte, i int, s string) bool {
	return len(b)-i >= len(s) && string(b[i:i+len(s)]) == s
}

// space returns the index of the first byte from b[i] on that is not white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// colon returns the index of what follows the colon at b[i] or behind white space there, or 0.
func colon(b []byte, i int) int {
	i = space(b, i)
	if i >= len(b) || b[i] != ':' {
		return 0
	}
	return space(b, i+1)
}

// Eight bytes in a word: ones has 1 in each, highs the high bit.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// text reads the string of printable ASCII without escapes at b[i]. It returns its contents and the index behind it,
// or nil and 0.
func text(b []byte, i, limit int) ([]byte, int) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0
	}
	start := i + 1
	i = start
	for ; len(b)-i >= 8; i += 8 {
		// A byte's high bit gets set where it is a quote, a backslash, below a space, DEL or not ASCII. A carry
		// can set it wrongly, but only above a byte where it is set rightly, and the lowest one counts.
		w := binary.LittleEndian.Uint64(b[i:])
		quote, backslash := w^('"'*ones), w^('\\'*ones)
		odd := (quote-ones)&^quote | (backslash-ones)&^backslash | (w-' '*ones)&^w | (w + ones) | w
		if odd &= highs; odd != 0 {
			i += bits.TrailingZeros64(odd) / 8
			break
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' {
			if i-start > limit {
				return nil, 0
			}
			return b[start:i:i], i + 1
		} else if c < ' ' || c >= 0x7f || c == '\\' {
			return nil, 0
		}
	}
	return nil, 0
}

// readUUID reads a string with a UUID in its canonical form, in either case, and returns the index behind it, or 0.
func readUUID(b []byte, i int, u *uuid.UUID) int {
	if len(b)-i < 38 || b[i] != '"' || b[i+37] != '"' || !parseUUID(b[i+1:i+37], u) {
		return 0
	}
	return i + 38
}

// parseUUID reads the canonical form, in either case.
func parseUUID(s []byte, u *uuid.UUID) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	le := binary.LittleEndian
	a, b, c, d := le.Uint64(s), uint64(le.Uint32(s[9:]))|uint64(le.Uint32(s[14:]))<<32,
		uint64(le.Uint32(s[19:]))|uint64(le.Uint32(s[24:]))<<32, le.Uint64(s[28:])
	if (hexDigits(a) & hexDigits(b) & hexDigits(c) & hexDigits(d)) != highs {
		return false
	}
	le.PutUint32(u[0:], hexValue(a))
	le.PutUint32(u[4:], hexValue(b))
	le.PutUint32(u[8:], hexValue(c))
	le.PutUint32(u[12:], hexValue(d))
	return true
}

// hexDigits sets the high bit of each byte of w that is a hexadecimal digit, and no other bit.
func hexDigits(w uint64) uint64 {
	ascii := w &^ highs // so that sums do not carry into the next byte
	letter := ascii | ' '*ones
	return ((ascii+(0x80-'0')*ones)&^(ascii+(0x80-'9'-1)*ones) | (letter+(0x80-'a')*ones)&^(letter+(0x80-'f'-1)*ones)) &^ w & highs
}

// hexValue is the value of eight hexadecimal digits, the first byte of text becoming the first byte of memory.
func hexValue(w uint64) uint32 {
	w = w&(0x0f*ones) + 9*(w>>6&ones) // letters, and only they, have bit 6
	w = (w<<4 | w>>8) & 0x00ff00ff00ff00ff
	w = (w | w>>8) & 0x0000ffff0000ffff
	return uint32(w | w>>16)
}

// readQuality reads a number of one to three digits up to 255, and returns the index behind it, or 0.
func readQuality(b []byte, i int) (int16, int) {
	start, q := i, 0
	for i < len(b) && i-start < 3 && b[i]-'0' <= 9 {
		q = 10*q + int(b[i]-'0')
		i++
	}
	if i == start || i-start > 1 && b[start] == '0' || q > math.MaxUint8 || i >= len(b) || b[i]-'0' <= 9 || b[i] == '.' || b[i]|0x20 == 'e' {
		return 0, 0
	}
	return int16(q), i
}

// pow10 are the powers of ten that float64 holds exactly.
var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
	1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// number reads the number at b[i], rounded as strconv does, and returns the index behind it, or 0. Zero loses its sign.
func number(b []byte, i int) (float64, int) {
	start := i
	negative := i < len(b) && b[i] == '-'
	if negative {
		i++
	}
	first := i
	mantissa := uint64(0)
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		mantissa = 10*mantissa + uint64(b[i]-'0')
	}
	digits, fraction := i-first, 0
	if digits == 0 || digits > 1 && b[first] == '0' {
		return 0, 0
	}
	if i < len(b) && b[i] == '.' {
		point := i
		for i++; i < len(b) && b[i]-'0' <= 9; i++ {
			mantissa = 10*mantissa + uint64(b[i]-'0')
		}
		if fraction = i - point - 1; fraction == 0 {
			return 0, 0
		}
	}
	// The mantissa is an exact float64 and so is the power of ten: one division, rounded once (Clinger).
	if digits+fraction <= 19 && mantissa <= 1<<53 && (i >= len(b) || b[i]|0x20 != 'e') {
		v := float64(mantissa)
		if fraction > 0 {
			v /= pow10[fraction]
		}
		if negative && mantissa != 0 {
			v = -v
		}
		return v, i
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		exponent := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == exponent {
			return 0, 0
		}
	}
	if i-start > maxNumber {
		return 0, 0
	}
	v, err := strconv.ParseFloat(string(b[start:i]), 64)
	if err != nil {
		return 0, 0
	}
	if v == 0 {
		v = 0 // of either sign
	}
	return v, i
}

// plainNumber skips a number without exponent at b[i], and returns the index behind it, or 0.
func plainNumber(b []byte, i int) int {
	start := i
	_, i = number(b, i)
	for _, c := range b[start:max(start, i)] {
		if c|0x20 == 'e' {
			return 0
		}
	}
	return i
}
