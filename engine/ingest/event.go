package ingest

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// Limits on one event. Sizes are in bytes, of strings after their escapes are resolved.
const (
	maxDepth      = 16   // of nested objects and arrays; the event itself is the first
	maxMetrics    = 256  // metrics of an event
	maxMembers    = 256  // members of any object
	maxElements   = 4096 // elements of any array but metrics
	maxString     = 4096 // any string or member name
	maxKey        = 256  // parameter_key
	maxIdentifier = 128  // event_id, protocol
	maxNumber     = 64   // a number as written
	maxExponent   = 999  // of a number in attributes; far inside PostgreSQL's numeric
	maxInput      = 64   // characters of Rejection.Input
	maxMessage    = 300  // bytes of Rejection.Message
	maxField      = 128  // characters of Rejection.Field
)

// Codes of a Rejection that say that a body is not what JSON or the event's shape allows.
const (
	CodeJSONInvalid      = "json_invalid"
	CodeTooDeep          = "too_deep"
	CodeUTF8Invalid      = "utf8_invalid"
	CodeSurrogateInvalid = "surrogate_invalid" // \ud800 without its other half
	CodeDuplicateKey     = "duplicate_key"     // an object names a member twice
	CodeFieldCase        = "field_case"        // differs from a known field only by case
	CodeTypeInvalid      = "type_invalid"      // an object, array or string is expected
	CodeMissing          = "missing"
	CodeTooManyMembers   = "too_many_members"
)

// Codes of a Rejection that say that the value of a field is not acceptable.
const (
	CodeUUIDInvalid          = "uuid_invalid"
	CodeTimestampInvalid     = "timestamp_invalid"
	CodeTimestampZoneMissing = "timestamp_zone_missing"
	CodeProtocolRequired     = "protocol_required"
	CodeParameterKeyRequired = "parameter_key_required"
	CodeMetricsRequired      = "metrics_required"
	CodeTooManyMetrics       = "too_many_metrics"
	CodeValueNotANumber      = "value_not_a_number"
	CodeValueOutOfRange      = "value_out_of_range"
	CodeQualityNotAnInteger  = "quality_not_an_integer"
	CodeQualityOutOfRange    = "quality_out_of_range"
	CodeNumberTooLong        = "number_too_long"
	CodeStringTooLong        = "string_too_long"
	CodeControlCharacter     = "control_character"
)

// rawEvent is a decoded event, not yet checked against the registry. Its slices point into the body, or into memory of
// the decoder where a string had escapes: they hold until the decoder is used again.
type rawEvent struct {
	Project, Site, Device uuid.UUID

	Time     telemetry.Micros
	Protocol []byte
	EventID  []byte // nil when absent, null or empty
	Metrics  []rawMetric

	Point *rawPoint // of a protocol that knows neither projects nor parameter keys; nil for others
}

// rawMetric is one value of a rawEvent.
type rawMetric struct {
	Key        []byte
	Value      float64 // NaN when null or absent
	Quality    int16   // -1 when absent
	Attributes []byte  // JSON object as sent; nil when absent, null or empty
}

// Rejection says why an event, or a whole body, is refused.
type Rejection struct {
	Line    int    `json:"line,omitempty"`   // line or element of a batch, from 1; 0 for a single event
	Code    string `json:"code"`             // one of the Code constants; stable
	Field   string `json:"field,omitempty"`  // such as metrics[2].value; empty for the event itself
	Message string `json:"message"`          // one sentence: what is wrong and what is expected
	Input   string `json:"input,omitempty"`  // the offending scalar, at most 64 characters, control characters escaped
	Fields  int    `json:"fields,omitempty"` // not 0: the event is accepted without so many of its fields
	Limit   *Limit `json:"limit,omitempty"`  // that the event would have exceeded; nil when it is refused for another reason
}

func (r *Rejection) Error() string {
	if r.Field == "" {
		return r.Code + ": " + r.Message
	}
	return r.Code + ": " + r.Field + ": " + r.Message
}

// refuse makes a Rejection whose texts have bounded size whatever the sender wrote.
func refuse(code, field string, input []byte, message string, args ...any) *Rejection {
	text := fmt.Sprintf(message, args...)
	return &Rejection{
		Code:    code,
		Field:   printable(field, maxField),
		Message: strings.ToValidUTF8(text[:min(len(text), maxMessage)], ""),
		Input:   printable(string(input[:min(len(input), 8*maxInput)]), maxInput),
	}
}

// printable escapes what does not print, and cuts s to the given number of characters.
func printable(s string, limit int) string {
	var out strings.Builder
	length := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		text := s[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			text = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsPrint(r) && r <= 0xffff:
			text = fmt.Sprintf(`\u%04x`, r)
		case !unicode.IsPrint(r):
			text = fmt.Sprintf(`\U%08x`, r)
		}
		i += size
		n := utf8.RuneCountInString(text)
		if length+n > limit || length+n == limit && i < len(s) {
			out.WriteString("…")
			break
		}
		length += n
		out.WriteString(text)
	}
	return out.String()
}

// decoder decodes events. It keeps memory from event to event and is not safe for concurrent use; the zero value is
// ready to use.
//
// There are two ways through it. fast is written by hand, accepts what devices send day by day, and has no opinion on
// the rest. strict is built on a stock library, accepts the same and more, and is the only one to say what is wrong.
// What fast accepts, strict accepts with the same outcome; fuzzing holds the two together.
type decoder struct {
	shapes []shape // of the metrics of earlier events, by their place in the list

	data    []byte // what json reads
	json    jsontext.Decoder
	input   bytes.Buffer
	scratch []byte // strings whose escapes were resolved
}

// decode reads the one event that fills data; white space around it is allowed. After a rejection e is undefined.
func (d *decoder) decode(data []byte, e *rawEvent) *Rejection {
	n, r := d.next(data, e)
	if r != nil {
		return r
	}
	if end := space(data, n); end < len(data) {
		return refuse(CodeJSONInvalid, "", nil, "There is more after the end of the event, at byte %d: send one JSON object.", end)
	}
	return nil
}

// next reads one event from the front of data and returns how many bytes it took. The number comes with a rejection as
// well when the event's end is certain, so that the reading can go on behind it; it is 0 when the JSON itself is broken.
func (d *decoder) next(data []byte, e *rawEvent) (int, *Rejection) {
	if n := d.fast(data, space(data, 0), e); n > 0 {
		return n, nil
	}
	return d.strict(data, e)
}
