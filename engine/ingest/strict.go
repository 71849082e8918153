package ingest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// The names of the fields, in the order of their bits.
var (
	eventFields = []string{"project_id", "site_id", "device_id", "protocol", "source_timestamp", "metrics",
		"event_id", "config_version", "metadata"}
	metricFields = []string{"parameter_key", "value", "quality", "attributes"}
)

// syntaxOnly lets the library look at nothing but the grammar.
var syntaxOnly = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// strict does what next promises, for any input. It reads the event twice: the first time to be certain of its end.
func (d *decoder) strict(data []byte, e *rawEvent) (int, *Rejection) {
	defer d.read(nil) // lets go of data
	if tooDeep(data) {
		return 0, refuse(CodeTooDeep, "", nil, "Objects and arrays are nested deeper than %d levels.", maxDepth)
	}
	d.read(data, syntaxOnly...)
	if _, err := d.json.ReadValue(); err != nil {
		return 0, d.broken(err)
	}
	n := int(d.json.InputOffset())
	d.read(data[:n])
	d.scratch = d.scratch[:0]
	return n, d.event(e)
}

// read points the library's decoder at data, which it reads in place.
func (d *decoder) read(data []byte, options ...jsontext.Options) {
	d.data = data
	d.input = *bytes.NewBuffer(data)
	d.json.Reset(&d.input, options...)
}

// tooDeep looks at the first value of data. It keeps deep nesting from the library, which recurses.
func tooDeep(data []byte) bool {
	depth, quoted := 0, false
	start := space(data, 0)
	if start == len(data) || data[start] != '{' && data[start] != '[' {
		return false
	}
	for i := start; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return false
			}
		}
	}
	return false
}

// broken words the library's complaint about the grammar.
func (d *decoder) broken(err error) *Rejection {
	if err == io.EOF {
		return refuse(CodeMissing, "", nil, "There is nothing: send one JSON object.")
	}
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return refuse(CodeJSONInvalid, "", nil, "This is not JSON: %s.", printable(err.Error(), maxInput))
	}
	if syntax.Err == io.ErrUnexpectedEOF {
		return refuse(CodeJSONInvalid, path(syntax.JSONPointer), nil, "The JSON ends unfinished, at byte %d.", syntax.ByteOffset)
	}
	return refuse(CodeJSONInvalid, path(syntax.JSONPointer), nil, "This is not JSON: %s, at byte %d.",
		printable(syntax.Err.Error(), 2*maxInput), syntax.ByteOffset)
}

// unfit words the library's complaint about what the grammar allows: names, and the encoding of strings.
func (d *decoder) unfit(err error) *Rejection {
	var syntax *jsontext.SyntacticError
	switch {
	case !errors.As(err, &syntax):
		return d.broken(err)
	case syntax.Err == jsontext.ErrDuplicateName:
		return refuse(CodeDuplicateKey, path(syntax.JSONPointer), nil, "The same name stands twice in one object.")
	case !utf8.Valid(d.data):
		return refuse(CodeUTF8Invalid, path(syntax.JSONPointer), nil, "The text is not UTF-8, at byte %d.", syntax.ByteOffset)
	default:
		return refuse(CodeSurrogateInvalid, path(syntax.JSONPointer), nil,
			"The escape at byte %d is half of a surrogate pair: write both halves.", syntax.ByteOffset)
	}
}

// path rewrites /metrics/2/value as metrics[2].value.
func path(p jsontext.Pointer) string {
	var out strings.Builder
	for token := range p[:min(len(p), 4*maxField)].Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			out.WriteString("[" + token + "]")
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('.')
		}
		out.WriteString(token)
	}
	return out.String()
}

// refuse names the value read last as the one to blame.
func (d *decoder) refuse(code string, input []byte, message string, args ...any) *Rejection {
	return refuse(code, path(d.json.StackPointer()), input, message, args...)
}

// scalar is what a rejection may echo of a value: nothing of objects, arrays and endless numbers.
func scalar(raw jsontext.Value) []byte {
	if kind := raw.Kind(); kind == '{' || kind == '[' || kind == '0' && len(raw) > maxNumber {
		return nil
	}
	return raw
}

func (d *decoder) missing(field string) *Rejection {
	at := path(d.json.StackPointer())
	if at != "" {
		at += "."
	}
	return refuse(CodeMissing, at+field, nil, "%s is required.", field)
}

// event reads the event that d.data holds, whose grammar is known to be right.
func (d *decoder) event(e *rawEvent) *Rejection {
	if d.json.PeekKind() != '{' {
		v, r := d.value()
		if r != nil {
			return r
		}
		return d.refuse(CodeTypeInvalid, scalar(v), "An event must be a JSON object.")
	}
	e.EventID, e.Metrics = nil, e.Metrics[:0]
	seen, r := d.object(eventFields, func(field int) *Rejection {
		var r *Rejection
		switch field {
		case fieldProject:
			e.Project, r = d.uuid("project_id")
		case fieldSite:
			e.Site, r = d.uuid("site_id")
		case fieldDevice:
			e.Device, r = d.uuid("device_id")
		case fieldProtocol:
			if e.Protocol, r = d.identifier("protocol", maxIdentifier); r == nil && len(e.Protocol) == 0 {
				return d.refuse(CodeProtocolRequired, nil, "protocol must not be empty: name it, such as GPRS, SMS or HTTP.")
			}
		case fieldTime:
			r = d.time(e)
		case fieldMetrics:
			r = d.metricList(e)
		case fieldEventID:
			if d.json.PeekKind() == 'n' {
				return d.free(false)
			}
			if e.EventID, r = d.identifier("event_id", maxIdentifier); len(e.EventID) == 0 {
				e.EventID = nil
			}
		case fieldConfigVersion:
			if kind := d.json.PeekKind(); kind == 'n' || kind == '"' {
				return d.free(false)
			}
			return d.wrongType("config_version must be a string or null.")
		case fieldMetadata:
			if kind := d.json.PeekKind(); kind == 'n' || kind == '{' {
				return d.free(false)
			}
			return d.wrongType("metadata must be an object or null.")
		}
		return r
	})
	if r != nil {
		return r
	}
	for i, name := range eventFields {
		if fieldsRequired&^seen&(1<<i) != 0 {
			return d.missing(name)
		}
	}
	return nil
}

func (d *decoder) metricList(e *rawEvent) *Rejection {
	if d.json.PeekKind() != '[' {
		return d.wrongType("metrics must be an array of objects.")
	}
	if _, err := d.json.ReadToken(); err != nil {
		return d.unfit(err)
	}
	for d.json.PeekKind() != ']' {
		if len(e.Metrics) == maxMetrics {
			return refuse(CodeTooManyMetrics, "metrics", nil, "An event carries at most %d metrics: send several events.", maxMetrics)
		}
		m := rawMetric{Value: math.NaN(), Quality: -1}
		if r := d.metric(&m); r != nil {
			return r
		}
		e.Metrics = append(e.Metrics, m)
	}
	if _, err := d.json.ReadToken(); err != nil {
		return d.unfit(err)
	}
	if len(e.Metrics) == 0 {
		return d.refuse(CodeMetricsRequired, nil, "metrics must have at least one element.")
	}
	return nil
}

func (d *decoder) metric(m *rawMetric) *Rejection {
	if d.json.PeekKind() != '{' {
		return d.wrongType("A metric must be an object.")
	}
	seen, r := d.object(metricFields, func(field int) *Rejection {
		var r *Rejection
		switch field {
		case metricKey:
			if m.Key, r = d.identifier("parameter_key", maxKey); r == nil && len(m.Key) == 0 {
				return d.refuse(CodeParameterKeyRequired, nil, "parameter_key must not be empty.")
			}
		case metricValue:
			m.Value, r = d.number()
		case metricQuality:
			m.Quality, r = d.quality()
		case metricAttributes:
			m.Attributes, r = d.attributes()
		}
		return r
	})
	if r == nil && seen&metricKey == 0 {
		return d.missing("parameter_key")
	}
	return r
}

// object reads an object: for the value of the i-th of the named fields it calls read with the bit 1<<i, others it
// skips. It returns the set of fields that were there.
func (d *decoder) object(fields []string, read func(field int) *Rejection) (seen int, r *Rejection) {
	if _, err := d.json.ReadToken(); err != nil {
		return 0, d.unfit(err)
	}
members:
	for d.json.PeekKind() != '}' {
		name, r := d.text("A name", maxString)
		if r != nil {
			return 0, r
		}
		if r := d.crowded(); r != nil {
			return 0, r
		}
		for i, field := range fields {
			if string(name) == field {
				if r := read(1 << i); r != nil {
					return 0, r
				}
				seen |= 1 << i
				continue members
			}
			if len(name) < 2*len(field) && strings.EqualFold(string(name), field) {
				return 0, d.refuse(CodeFieldCase, nil, "The name of this field is written %s, in small letters.", field)
			}
		}
		if r := d.free(false); r != nil {
			return 0, r
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return 0, d.unfit(err)
	}
	return seen, nil
}

// crowded refuses the object or array being read when it has too many members.
func (d *decoder) crowded() *Rejection {
	switch kind, length := d.json.StackIndex(d.json.StackDepth()); {
	case kind == '{' && length > 2*maxMembers:
		return d.refuse(CodeTooManyMembers, nil, "The object around this has more than %d members.", maxMembers)
	case kind == '[' && length > maxElements:
		return d.refuse(CodeTooManyMembers, nil, "The array around this has more than %d elements.", maxElements)
	}
	return nil
}

// value reads one value, with everything in it.
func (d *decoder) value() (jsontext.Value, *Rejection) {
	v, err := d.json.ReadValue()
	if err != nil {
		return nil, d.unfit(err)
	}
	return v, nil
}

func (d *decoder) wrongType(message string) *Rejection {
	v, r := d.value()
	if r != nil {
		return r
	}
	return d.refuse(CodeTypeInvalid, scalar(v), "%s", message)
}

// text reads a string or a name. What it returns lies in the body, or in scratch when there were escapes.
func (d *decoder) text(what string, limit int) ([]byte, *Rejection) {
	raw, r := d.value()
	if r != nil {
		return nil, r
	}
	if raw.Kind() != '"' {
		return nil, d.refuse(CodeTypeInvalid, scalar(raw), "%s must be a string.", what)
	}
	end := int(d.json.InputOffset()) - 1
	s := d.data[end-len(raw)+2 : end : end]
	if len(s) <= 6*limit && bytes.IndexByte(s, '\\') >= 0 { // an escape takes at most 6 bytes for one
		start := len(d.scratch)
		unquoted, err := jsontext.AppendUnquote(d.scratch, raw)
		if err != nil {
			return nil, d.unfit(err)
		}
		d.scratch = unquoted
		s = unquoted[start:len(unquoted):len(unquoted)]
	}
	if len(s) > limit {
		return nil, d.refuse(CodeStringTooLong, s, "%s must not be longer than %d bytes.", what, limit)
	}
	return s, nil
}

// identifier reads a string that names something: no character in it may hide from the eye or steer a terminal.
func (d *decoder) identifier(what string, limit int) ([]byte, *Rejection) {
	s, r := d.text(what, limit)
	if r != nil {
		return nil, r
	}
	for _, c := range string(s) {
		if c < ' ' || c >= 0x7f && unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point) {
			return nil, d.refuse(CodeControlCharacter, s, "%s must not contain control, bidirectional or zero-width characters (here U+%04X).", what, c)
		}
	}
	return s, nil
}

// uuid reads a UUID, with or without hyphens, in braces or as a URN.
func (d *decoder) uuid(what string) (u uuid.UUID, r *Rejection) {
	raw, r := d.value()
	if r != nil {
		return u, r
	}
	if raw.Kind() == '"' && len(raw) <= 2*maxIdentifier {
		if s, err := jsontext.AppendUnquote(nil, raw); err == nil && anyUUID(s, &u) {
			return u, nil
		}
	}
	return u, d.refuse(CodeUUIDInvalid, scalar(raw), "%s must be a UUID, such as 6f0c7c1e-53d1-4a7e-9a51-6e7372656164.", what)
}

func anyUUID(s []byte, u *uuid.UUID) bool {
	const urn = "urn:uuid:"
	if len(s) > len(urn) && strings.EqualFold(string(s[:len(urn)]), urn) {
		s = s[len(urn):]
	} else if n := len(s); n > 2 && s[0] == '{' && s[n-1] == '}' {
		s = s[1 : n-1]
	}
	if len(s) == 32 {
		s = []byte(string(s[:8]) + "-" + string(s[8:12]) + "-" + string(s[12:16]) + "-" + string(s[16:20]) + "-" + string(s[20:]))
	}
	return parseUUID(s, u)
}

func (d *decoder) time(e *rawEvent) *Rejection {
	const example = "an RFC 3339 time with its zone, such as 2026-01-02T03:04:05.678Z"
	if d.json.PeekKind() != '"' {
		raw, r := d.value()
		if r != nil {
			return r
		}
		return d.refuse(CodeTimestampInvalid, scalar(raw), "source_timestamp must be %s, as a string.", example)
	}
	s, r := d.text("source_timestamp", maxString)
	if r != nil {
		return r
	}
	var code string
	switch e.Time, code = parseTime(s); code {
	case "":
		return nil
	case CodeTimestampZoneMissing:
		return d.refuse(code, s, "source_timestamp has no zone: end it with Z or an offset such as +05:30.")
	default:
		return d.refuse(code, s, "source_timestamp must be %s, from 1970 to 9999.", example)
	}
}

// number reads a metric's value.
func (d *decoder) number() (float64, *Rejection) {
	raw, r := d.value()
	if r != nil {
		return 0, r
	}
	switch raw.Kind() {
	case 'n':
		return math.NaN(), nil
	case '0':
	default:
		return 0, d.refuse(CodeValueNotANumber, scalar(raw), "value must be a JSON number or null.")
	}
	if len(raw) > maxNumber {
		return 0, d.refuse(CodeNumberTooLong, scalar(raw), "value must be written with at most %d characters.", maxNumber)
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return 0, d.refuse(CodeValueOutOfRange, scalar(raw), "value must fit a 64-bit float, at most 1.7976931348623157e308 from zero.")
	}
	if v == 0 {
		v = 0 // of either sign
	}
	return v, nil
}

func (d *decoder) quality() (int16, *Rejection) {
	raw, r := d.value()
	if r != nil {
		return 0, r
	}
	if raw.Kind() != '0' || bytes.ContainsAny(raw, ".eE") {
		return 0, d.refuse(CodeQualityNotAnInteger, scalar(raw), "quality must be an integer from 0 to 255, such as 192 for good; leave it out when unknown.")
	}
	q, err := strconv.ParseInt(string(raw[:min(len(raw), maxNumber)]), 10, 64)
	if err != nil || q < 0 || q > math.MaxUint8 {
		return 0, d.refuse(CodeQualityOutOfRange, scalar(raw), "quality must be from 0 to 255, such as 192 for good.")
	}
	return int16(q), nil
}

// attributes reads an object, or null, that PostgreSQL can store as jsonb.
func (d *decoder) attributes() ([]byte, *Rejection) {
	kind := d.json.PeekKind()
	if kind != '{' && kind != 'n' {
		return nil, d.wrongType("attributes must be an object or null.")
	}
	before := int(d.json.InputOffset())
	if r := d.free(true); r != nil {
		return nil, r
	}
	end := int(d.json.InputOffset())
	object := d.data[before:end:end]
	object = object[max(0, bytes.IndexByte(object, '{')):]
	if kind == 'n' || space(object, 1) == len(object)-1 {
		return nil, nil
	}
	return object, nil
}

// free reads any value and applies the limits that hold everywhere, and for one that is stored those of jsonb.
func (d *decoder) free(stored bool) *Rejection {
	for around := d.json.StackDepth(); ; {
		switch d.json.PeekKind() {
		case '{', '[', '}', ']':
			if _, err := d.json.ReadToken(); err != nil {
				return d.unfit(err)
			}
		case '"':
			s, r := d.text("A string", maxString)
			if r != nil {
				return r
			}
			if stored && bytes.IndexByte(s, 0) >= 0 {
				return d.refuse(CodeControlCharacter, s, `Attributes must not contain the character \u0000.`)
			}
		default:
			raw, r := d.value()
			if r != nil {
				return r
			}
			if raw.Kind() != '0' {
				break
			}
			if len(raw) > maxNumber {
				return d.refuse(CodeNumberTooLong, scalar(raw), "A number must be written with at most %d characters.", maxNumber)
			}
			if i := bytes.IndexAny(raw, "eE"); stored && i >= 0 {
				if exponent, err := strconv.Atoi(string(raw[i+1:])); err != nil || exponent > maxExponent || exponent < -maxExponent {
					return d.refuse(CodeValueOutOfRange, scalar(raw), "The exponent of a number in attributes must be from %d to %d.", -maxExponent, maxExponent)
				}
			}
		}
		if r := d.crowded(); r != nil {
			return r
		}
		if d.json.StackDepth() == around {
			return nil
		}
	}
}
