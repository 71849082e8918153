package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/mqtt"
	"github.com/nsready/nsready/engine/telemetry"
)

// Where a code comes from.
const (
	fromDeclaration = "declaration" // validate, plan, apply and the like
	fromLint        = "lint"
	fromTest        = "test" // files of tests
	fromCollector   = "collector"
	fromDeadLetter  = "dead_letter"
)

// explanation is what a code stands for. One code may have two, from different places.
type explanation struct {
	Code    string `json:"code"`
	From    string `json:"from"`
	Summary string `json:"summary"`
	Text    string `json:"explanation"`
	Wrong   string `json:"wrong,omitempty"` // a source with the mistake
	Right   string `json:"right,omitempty"` // and one without
}

// explanations is what explain -json prints.
type explanations struct {
	FormatVersion string        `json:"format_version"`
	Codes         []explanation `json:"codes"`
}

// answers are the codes with which the collector refuses events and bodies, over HTTP and MQTT, and those of dead letters.
// Those that end in … are the beginnings of codes of PostgreSQL.
var answers = []explanation{
	{Code: ingest.CodeEmpty, Summary: "The body is empty", Text: "Nothing was sent, or only white space, or an empty array. Send at least one event."},
	{Code: ingest.CodeJSONInvalid, Summary: "The JSON is broken", Text: "The body is cut off, has something behind its end, or is no JSON. The message names the byte. A gateway that cuts large bodies is a common cause."},
	{Code: ingest.CodeProtobufInvalid, Summary: "The protobuf is broken", Text: "The body is no WriteRequest of Prometheus remote write 1.0."},
	{Code: ingest.CodeLineInvalid, Summary: "The line is broken", Text: "The line is not in InfluxDB's line protocol: measurement,tags fields timestamp. The message names the byte."},
	{Code: ingest.CodeTooDeep, Summary: "Nested too deep", Text: "Objects and arrays may be nested 16 deep, the event itself being the first."},
	{Code: ingest.CodeUTF8Invalid, Summary: "Not UTF-8", Text: "JSON is UTF-8. A device that sends Latin-1 must convert its texts."},
	{Code: ingest.CodeSurrogateInvalid, Summary: "Half a surrogate pair", Text: "An escape such as \\ud800 is half of a character: it needs its other half behind it."},
	{Code: ingest.CodeDuplicateKey, Summary: "A member twice", Text: "An object names one of its members twice, and it could not be told which is meant."},
	{Code: ingest.CodeFieldCase, Summary: "A field in capital letters", Text: "The names of fields are written in small letters, as device_id."},
	{Code: ingest.CodeTypeInvalid, Summary: "A value of another type", Text: "A string, object or array is expected there; the message says which."},
	{Code: ingest.CodeMissing, Summary: "A field is missing", Text: "An event has project_id, site_id, device_id, protocol, source_timestamp and metrics; the field says which of them is not there."},
	{Code: ingest.CodeTooManyMembers, Summary: "Too many members", Text: "An object may have 256 members, and an array 4096 elements."},
	{Code: ingest.CodeUUIDInvalid, Summary: "Not a UUID", Text: "Projects, sites and devices are named by UUIDs, which follow from their addresses; the admin API and nsready up tell them."},
	{Code: ingest.CodeTimestampInvalid, Summary: "Not a time", Text: "source_timestamp is a time as in RFC 3339, such as 2026-01-01T00:00:00Z, between 1970 and 9999."},
	{Code: ingest.CodeTimestampZoneMissing, Summary: "A time without its zone", Text: "A time needs Z or an offset such as +05:30 at its end: without one it could be any of a day's hours."},
	{Code: ingest.CodeProtocolRequired, Summary: "No protocol", Text: "protocol says how the device is reached, such as GPRS or HTTP. It is free text and not empty."},
	{Code: ingest.CodeParameterKeyRequired, Summary: "No parameter key", Text: "Each metric needs its parameter_key, such as project:PROJECT-UUID:voltage."},
	{Code: ingest.CodeMetricsRequired, Summary: "No metrics", Text: "An event carries at least one metric."},
	{Code: ingest.CodeTooManyMetrics, Summary: "Too many metrics", Text: "An event may carry 256 metrics. Send several events with the same time; they become one."},
	{Code: ingest.CodeValueNotANumber, Summary: "A value that is no number", Text: "A value is a number or null. For a bool parameter send 0 or 1."},
	{Code: ingest.CodeValueOutOfRange, Summary: "A number too large", Text: "Values are kept as float64, which goes up to 1.8e308."},
	{Code: ingest.CodeQualityNotAnInteger, Summary: "A quality that is no whole number", Text: "A quality is an OPC quality code, a whole number from 0 to 255; 192 is good."},
	{Code: ingest.CodeQualityOutOfRange, Summary: "A quality out of range", Text: "A quality is an OPC quality code from 0 to 255; 192 is good."},
	{Code: ingest.CodeNumberTooLong, Summary: "A number too long", Text: "A number may be written with 64 characters, and in attributes with an exponent of three digits."},
	{Code: ingest.CodeStringTooLong, Summary: "A text too long", Text: "Texts, names and keys have limits; the message names the one that was exceeded."},
	{Code: ingest.CodeControlCharacter, Summary: "A control character", Text: "Names and keys must not contain characters that can't be seen, and no text the character U+0000."},
	{Code: ingest.CodeTooManyEvents, Summary: "Too many events", Text: "A body may carry 10,000 events. Send the rest in another."},
	{Code: ingest.CodeUnknownDevice, Summary: "The device is not registered", Text: "No device has this UUID, or, in bodies of points, this external id. Declare it and run nsready apply; ingest knows it within a second. With a discovery block in the declaration such events are held until then, as many as it says. A device that was renamed or moved without a moved block is another one, with another UUID."},
	{Code: ingest.CodeDeviceRetired, Summary: "The device is retired", Text: "The device left the declaration. Its history stays; declare it again at the same address and it may send again."},
	{Code: ingest.CodeProjectMismatch, Summary: "Another project's device", Text: "The device belongs to another project than project_id says. Was the device moved, or its configuration copied from another?"},
	{Code: ingest.CodeSiteMismatch, Summary: "Another site's device", Text: "The device belongs to another site than site_id says. Was the device moved, or its configuration copied from another?"},
	{Code: ingest.CodeUnknownParameter, Summary: "The parameter is not registered", Text: "No parameter has this key. Declare it in the project, or in a template of it, and run nsready apply."},
	{Code: ingest.CodeParameterRetired, Summary: "The parameter is retired", Text: "The parameter left the declaration. Declare it again, or stop sending it."},
	{Code: ingest.CodeDuplicateParameter, Summary: "A parameter twice", Text: "An event has each parameter once. Values of different times belong into events of their own."},
	{Code: ingest.CodeOutsideLimits, Summary: "Outside min and max", Text: "The parameter is declared with on_violation = \"reject\" and refuses values outside its range. With \"flag\" they would be stored with the quality 84."},
	{Code: ingest.CodeTypeViolation, Summary: "Not of the parameter's type", Text: "The parameter is declared as int or bool, with on_violation = \"reject\". With \"flag\" the value would be stored with the quality 64."},
	{Code: ingest.CodeTooOld, Summary: "Older than what is kept", Text: "The time lies before the retention, or more than a year back where none is declared: the value would be dropped at once. A device without a battery for its clock may begin at 1970 or 2000."},
	{Code: ingest.CodeInFuture, Summary: "From the future", Text: "The time lies more than five minutes ahead. Set the device's clock; a time zone that is applied twice shows as whole hours."},
	{Code: ingest.CodeEventTooLarge, Summary: "The event is too large", Text: "An event may take 256 KiB in the queue. Attributes are what makes it large."},
	{Code: ingest.CodeRateLimitedDevice, Summary: "The device sends too much", Text: "The device is over its events_per_second and has used up its burst. Send the event again after Retry-After; or raise the limit in the declaration."},
	{Code: ingest.CodeRateLimitedCustomer, Summary: "The customer's devices send too much", Text: "All devices of the customer together are over its events_per_second and have used up its burst. Send the event again after Retry-After; or raise the limit in the declaration."},
	{Code: ingest.CodeRegistryDown, Summary: "The registry can't be asked", Text: "The device or parameter is not known yet, and the database, which may know it by now, can't be reached. Known devices are not concerned. Send the event again after Retry-After."},

	{Code: "body_too_large", Summary: "The body is too large", Text: "A single event may have 512 KiB, a batch 8 MiB, decompressed. Send smaller batches."},
	{Code: "body_incomplete", Summary: "The body is cut off", Text: "The connection ended before the announced Content-Length, or the chunks are not framed as HTTP wants it."},
	{Code: "body_timeout", Summary: "The body came too slowly", Text: "A body must have come 30 seconds after the request's head. Begin to send when all of it is at hand."},
	{Code: "content_type_unsupported", Summary: "Unknown content type", Text: "Send application/json or application/x-ndjson in UTF-8; for remote write application/x-protobuf."},
	{Code: "content_encoding_unsupported", Summary: "Unknown content encoding", Text: "Send gzip or zstd, once, or none; for remote write snappy."},
	{Code: "gzip_invalid", Summary: "The gzip is broken", Text: "The body announces gzip and is none, or is cut off."},
	{Code: "zstd_invalid", Summary: "The zstd is broken", Text: "The body announces zstd and is none, is cut off, needs a dictionary, or was made with a window of more than 8 MiB."},
	{Code: "snappy_invalid", Summary: "The snappy is broken", Text: "Remote write sends a block of snappy, not its framed format."},
	{Code: "compression_ratio", Summary: "Too well compressed", Text: "A body may be 100 times larger than it was sent. More is what attacks look like; send it less compressed, or in parts."},
	{Code: "precision_unknown", Summary: "Unknown precision", Text: "The precision of timestamps in the line protocol is ns, us, ms, s, m or h."},
	{Code: "http_version_unsupported", Summary: "Not HTTP/1.1", Text: "The collector speaks HTTP/1.1 and 1.0. Put a proxy before it for HTTP/2."},
	{Code: "url_too_long", Summary: "The URL is too long", Text: "A URL may have 2 KiB. Events belong into the body."},
	{Code: "too_many_headers", Summary: "Too many headers", Text: "A request may have 100 headers."},
	{Code: "too_many_requests", Summary: "Too many bodies at once", Text: "The collector holds as many bodies in memory as it may. Send again after Retry-After, and over fewer connections."},
	{Code: "queue_full", Summary: "The queue is full", Text: "The database has not taken events for so long that the queue is at its size. Nothing that was acknowledged is lost. See nsready health for the reason; -queue-size bounds the queue."},
	{Code: "disk_full", Summary: "The queue's disk is nearly full", Text: "So little is free on the queue's disk that nothing more is taken. Make room; deleting the file ballast in the data directory gives 64 MiB at once."},
	{Code: "queue_down", Summary: "The queue can't store events", Text: "Writing to the queue fails, or the service is stopping. Send again after Retry-After; nsready health and the service's log tell the reason."},
	{Code: mqtt.CodeTopicUnknown, Summary: "Unknown topic", Text: "The topics are nsready/ingest, nsready/ingest/ndjson, nsready/ingest/influx and nsready/device/DEVICE/PARAMETER."},
	{Code: mqtt.CodeValueInvalid, Summary: "The payload is no value", Text: "The topic of a single parameter takes a number, true or false."},

	{Code: "unknown_device", From: fromDeadLetter, Summary: "The device was deleted meanwhile", Text: "The event was acknowledged, and SQL deleted its device before it was stored. When the device is back: nsready dlq replay -where reason=unknown_device"},
	{Code: telemetry.PendingDevice, From: fromDeadLetter, Summary: "The device is not registered yet", Text: "The declaration has a discovery block, and the event is held until its device is registered: it is replayed by itself then, or dropped after the time of hold. nsready devices pending lists such devices."},
	{Code: "attributes", From: fromDeadLetter, Summary: "The attributes do not fit", Text: "The attributes of the event are not one for each of its metrics. What ingest accepts is not like that: the frame was written by another program."},
	{Code: "frame", From: fromDeadLetter, Summary: "A frame that can't be read", Text: "A frame of the queue was damaged, by the disk or memory. The letter holds its bytes and how many events its header tells of; it can't be replayed."},
	{Code: "22…", From: fromDeadLetter, Summary: "PostgreSQL refuses the data", Text: "The reason is a SQLSTATE of class 22, data exception: a value does not fit its column (PostgreSQL documentation, appendix A). nsready dlq show tells the message."},
	{Code: "23…", From: fromDeadLetter, Summary: "PostgreSQL's constraints refuse the data", Text: "The reason is a SQLSTATE of class 23, integrity constraint violation (PostgreSQL documentation, appendix A), such as a constraint that was added by hand. nsready dlq show tells the message."},
}

// allExplanations lists every code, in the order of the help.
func allExplanations() []explanation {
	from := map[string]string{"NSC": fromDeclaration, "NSL": fromLint, "NST": fromTest}
	var list []explanation
	for _, e := range config.Explanations() {
		list = append(list, explanation{e.Code, from[e.Code[:3]], e.Summary, e.Text, e.Wrong, e.Right})
	}
	for _, e := range answers {
		if e.From == "" {
			e.From = fromCollector
		}
		list = append(list, e)
	}
	return list
}

func runExplain(_ context.Context, s *streams, args []string) error {
	f := newFlags(s, "explain [flags] CODE", `
Explain a code: of an error in a declaration (NSC…), a finding of lint (NSL…), an error in a file of tests (NST…), a refusal
of the collector, such as unknown_device, or the reason of a dead letter. Nothing is connected to.

Example:
  nsready explain NSC0052`)
	asJSON := f.json("print JSON")
	all := f.Bool("all", false, "list all codes")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	v := explanations{FormatVersion: formatVersion}
	switch {
	case *all && len(rest) > 0:
		return fmt.Errorf("name a code or -all, not both")
	case *all:
		v.Codes = allExplanations()
	case len(rest) == 0:
		return fmt.Errorf("which code? 'nsready explain -all' lists them")
	default:
		if v.Codes, err = explain(rest[0]); err != nil {
			return err
		}
	}
	if *asJSON {
		return writeJSON(s.stdout, v)
	}
	var out bytes.Buffer
	for i, e := range v.Codes {
		if *all {
			fmt.Fprintf(&out, "%-28s %-12s %s\n", e.Code, e.From, e.Summary)
		} else {
			if i > 0 {
				out.WriteByte('\n')
			}
			printExplanation(&out, e)
		}
	}
	_, err = s.stdout.Write(legible(out.Bytes()))
	return err
}

// explain finds a code, whatever its case.
func explain(code string) ([]explanation, error) {
	all := allExplanations()
	found := slices.DeleteFunc(slices.Clone(all), func(e explanation) bool {
		begin, isClass := strings.CutSuffix(e.Code, "…")
		return !strings.EqualFold(e.Code, code) && !(isClass && len(code) == 5 && strings.HasPrefix(code, begin))
	})
	if len(found) > 0 {
		return found, nil
	}
	hint := "'nsready explain -all' lists them."
	codes := func(yield func(string) bool) {
		for _, e := range all {
			if !yield(e.Code) {
				return
			}
		}
	}
	if best := nearest(code, codes); best != "" {
		hint = fmt.Sprintf("Did you mean %q?", best)
	}
	return nil, fmt.Errorf("there is no code %q. %s", code, hint)
}

func printExplanation(out *bytes.Buffer, e explanation) {
	fmt.Fprintf(out, "%s (%s): %s\n\n%s\n", e.Code, strings.ReplaceAll(e.From, "_", " "), e.Summary, e.Text)
	for _, example := range []struct{ title, src string }{{"Wrong", e.Wrong}, {"Right", e.Right}} {
		if example.src == "" {
			continue
		}
		fmt.Fprintf(out, "\n%s:\n\n", example.title)
		for line := range strings.Lines(example.src) {
			if line != "\n" {
				out.WriteString("    ")
			}
			out.WriteString(line)
		}
	}
}
