package mqtt

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/nsready/nsready/engine/ingest"
)

// Topics. The last one takes a single value as text, such as nsready/device/EM-1/voltage with the payload 230.4: the device
// by its external id or UUID, the parameter by its short name. Its time is when it is received.
const (
	topicEvents = "nsready/ingest"
	topicLines  = "nsready/ingest/ndjson"
	topicInflux = "nsready/ingest/influx"
	topicValue  = "nsready/device/"
)

// Codes of publishes that are refused for their topic, or for what it says of the payload.
const (
	CodeTopicUnknown = "topic_unknown"
	CodeValueInvalid = "value_invalid"
)

var refusals = map[string]string{
	CodeTopicUnknown: "Nobody takes this topic: publish events to nsready/ingest, nsready/ingest/ndjson or nsready/ingest/influx, a value to nsready/device/DEVICE/PARAMETER.",
	CodeValueInvalid: "The payload of nsready/device/DEVICE/PARAMETER is a number, true or false.",
}

// decodeTopic returns the form of a payload, and the payload in that form; or the code of a refusal.
func decodeTopic(topic string, payload []byte) (format ingest.Format, body []byte, code string) {
	switch topic {
	case topicEvents:
		return ingest.JSON, payload, ""
	case topicLines:
		return ingest.NDJSON, payload, ""
	case topicInflux:
		return ingest.InfluxNanoseconds, payload, ""
	}
	name, is := strings.CutPrefix(topic, topicValue)
	device, parameter, both := strings.Cut(name, "/")
	if !is || !both || device == "" || parameter == "" || strings.ContainsAny(name, "\n\\") || strings.Contains(parameter, "/") {
		return 0, nil, CodeTopicUnknown
	}
	value := string(bytes.TrimSpace(payload))
	if _, err := strconv.ParseFloat(value, 64); err != nil && value != "true" && value != "false" {
		return 0, nil, CodeValueInvalid
	}
	// One point of line protocol, whose way a single value goes.
	const separators = ", ="
	line := append([]byte("value,device="), escape(device, separators)...)
	line = append(append(line, ' '), escape(parameter, separators)...)
	return ingest.InfluxNanoseconds, append(append(line, '='), value...), ""
}

// escape puts a backslash before each of some characters.
func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(special, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
