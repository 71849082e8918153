package mqtt

import (
	"testing"

	"github.com/nsready/nsready/engine/ingest"
)

func TestTopics(t *testing.T) {
	for _, c := range []struct {
		topic, payload string
		format         ingest.Format
		body, code     string
	}{
		{"nsready/ingest", "{}", ingest.JSON, "{}", ""},
		{"nsready/ingest/ndjson", "{}", ingest.NDJSON, "{}", ""},
		{"nsready/ingest/influx", "m v=1", ingest.InfluxNanoseconds, "m v=1", ""},
		{"nsready/device/EM-1/voltage", " 230.5\n", ingest.InfluxNanoseconds, "value,device=EM-1 voltage=230.5", ""},
		{"nsready/device/a b,c=d/x y", "-1e3", ingest.InfluxNanoseconds, `value,device=a\ b\,c\=d x\ y=-1e3`, ""},
		{"nsready/device/EM-1/door", "true", ingest.InfluxNanoseconds, "value,device=EM-1 door=true", ""},
		{"nsready/device/EM-1/voltage", "1,current=2", 0, "", CodeValueInvalid},
		{"nsready/device/EM-1/voltage", "", 0, "", CodeValueInvalid},
		{"nsready/device/EM-1/voltage", "1i 5", 0, "", CodeValueInvalid},
		{"nsready/device/EM-1", "1", 0, "", CodeTopicUnknown},
		{"nsready/device//voltage", "1", 0, "", CodeTopicUnknown},
		{"nsready/device/EM-1/", "1", 0, "", CodeTopicUnknown},
		{"nsready/device/EM-1/a/b", "1", 0, "", CodeTopicUnknown},
		{"nsready/device/EM\n1/a", "1", 0, "", CodeTopicUnknown},
		{`nsready/device/EM\/a`, "1", 0, "", CodeTopicUnknown},
		{"nsready", "1", 0, "", CodeTopicUnknown},
	} {
		format, body, code := decodeTopic(c.topic, []byte(c.payload))
		if format != c.format || string(body) != c.body || code != c.code {
			t.Errorf("%q %q: %v %q %q, want %v %q %q", c.topic, c.payload, format, body, code, c.format, c.body, c.code)
		}
	}
}
