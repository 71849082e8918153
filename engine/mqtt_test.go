package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/uuid"

	"github.com/nsready/nsready/engine"
)

const mqttTopic = "nsready/ingest"

func withMQTT(o *engine.Options) { o.MQTT = "127.0.0.1:0" }

// mqtt returns a connected client, a stock one, and its store of what is not acknowledged, which it sends again.
func (s *service) mqtt() (paho.Client, paho.Store) {
	s.t.Helper()
	store := paho.NewMemoryStore()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.engine.Addresses().MQTT).SetClientID("device").SetProtocolVersion(4).
		SetCleanSession(false).SetStore(store).SetMaxReconnectInterval(time.Second))
	s.acknowledged(c.Connect())
	s.t.Cleanup(func() { c.Disconnect(0) })
	return c, store
}

func (s *service) acknowledged(token paho.Token) {
	s.t.Helper()
	if !token.WaitTimeout(20 * time.Second) {
		s.t.Fatal("no acknowledgement comes")
	}
	if err := token.Error(); err != nil {
		s.t.Fatal(err)
	}
}

// counts reports whether the service's metrics have this line.
func (s *service) counts(line string) bool {
	s.t.Helper()
	return strings.Contains(s.get(s.engine.Addresses().Collector+"/metrics").body, line+"\n")
}

func TestEventsOverMQTT(t *testing.T) {
	s := start(t, withMQTT)
	c, _ := s.mqtt()
	now := time.Now().Truncate(time.Second)
	events := func(from, n int) string {
		var list []string
		for i := range n {
			list = append(list, s.event(i%4, now.Add(time.Duration(-from-i)*time.Second), "voltage", fmt.Sprint(from+i)))
		}
		return strings.Join(list, "\n")
	}
	stranger := strings.Replace(events(0, 1), s.device(0).ID.String(), uuid.NewString(), 1)
	var tokens []paho.Token
	for _, p := range []struct {
		qos            byte
		topic, payload string
	}{
		{1, mqttTopic, events(1, 1)},
		{1, mqttTopic, "{"},
		{2, mqttTopic, events(2, 1)},
		{1, mqttTopic, stranger},
		{1, "nsready/nonsense", events(3, 1)},
		{1, mqttTopic, "[" + events(4, 1) + "," + stranger + "]"},
		{1, mqttTopic + "/ndjson", events(5, 10)},
		{0, mqttTopic, events(15, 1)},
		{1, mqttTopic, ""},
		{1, mqttTopic, events(16, 1)},
	} {
		tokens = append(tokens, c.Publish(p.topic, p.qos, true, p.payload))
	}
	for _, token := range tokens {
		s.acknowledged(token)
	}
	wait(t, "what had no acknowledgement", func() bool { return s.counts(`nsready_mqtt_publishes_total{outcome="queued"} 6`) })
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*), sum(value) FROM ingest_events"), fmt.Sprint(15, " ", 1+2+4+(5+14)*5+15+16))
	wait(t, "the refused events in error_logs", func() bool {
		return s.rows("SELECT context->>'code', sum((context->>'count')::int) FROM error_logs GROUP BY 1 ORDER BY 1") ==
			"empty_body 1\njson_invalid 1\ntopic_unknown 1\nunknown_device 2"
	})
	if !s.counts(`nsready_mqtt_publishes_total{outcome="refused"} 4`) || !s.counts(`nsready_mqtt_connections 1`) {
		t.Error("the metrics do not say it")
	}
	s.acknowledged(c.Publish(mqttTopic, 1, false, events(17, 1)))
	s.stop() // with a client connected
	s.run()
	s.drained()
	expect(t, "stored after a restart", s.rows("SELECT count(*) FROM ingest_events"), "16")
}

func TestAValueByItsTopic(t *testing.T) {
	s := start(t, withMQTT)
	c, _ := s.mqtt()
	id := s.device(0).ID.String()
	s.acknowledged(c.Publish("nsready/device/"+id+"/voltage", 1, false, "231.5"))
	s.acknowledged(c.Publish("nsready/ingest/influx", 1, false, fmt.Sprintf("m,device_id=%s current=4 %d", id, time.Now().UnixNano())))
	s.drained()
	expect(t, "stored", s.rows("SELECT parameter_key = $1, value FROM ingest_events ORDER BY value", s.key("voltage")), "false 4\ntrue 231.5")
}

func TestAFullQueueAcknowledgesNothing(t *testing.T) {
	s := start(t, withMQTT, func(o *engine.Options) { o.QueueBytes = 4 << 20 })
	c, store := s.mqtt()
	back := s.away()
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	note := fmt.Sprintf(`192,"attributes":{"note":%q}`, strings.Repeat("x", 4000))
	for n := 0; ; n++ {
		large := strings.Replace(s.event(0, at.Add(time.Duration(n)*time.Millisecond), "voltage", "1"), "192", note, 1)
		if a := s.post("application/json", large); a.status == 503 {
			break
		}
		if n > 4<<20/4000 {
			t.Fatal("the queue never fills")
		}
	}
	c.Publish(mqttTopic, 1, false, s.event(0, at.Add(-time.Hour), "current", "7"))
	wait(t, "the end of the connection", func() bool { return s.counts(`nsready_mqtt_closed_connections_total{reason="unavailable"} 1`) })
	expect(t, "not acknowledged", len(store.All()), 1)
	back()
	wait(t, "the acknowledgement", func() bool { return len(store.All()) == 0 })
	s.drained()
	expect(t, "stored", s.rows("SELECT value FROM ingest_events WHERE parameter_key = $1", s.key("current")), "7")
}

// An event that nobody can judge keeps its batch waiting: over MQTT there is no answer for a part of it.
func TestABatchThatCannotBeJudgedIsNotAcknowledged(t *testing.T) {
	s := start(t, withMQTT)
	c, store := s.mqtt()
	back := s.away()
	known := s.event(0, time.Now(), "voltage", "1")
	c.Publish(mqttTopic+"/ndjson", 1, false, known+"\n"+strings.Replace(known, s.device(0).ID.String(), uuid.NewString(), 1))
	wait(t, "the end of the connection", func() bool { return s.counts(`nsready_mqtt_closed_connections_total{reason="unavailable"} 1`) })
	expect(t, "queued meanwhile", s.engine.Depth(), 0)
	expect(t, "not acknowledged", len(store.All()), 1)
	back()
	wait(t, "the acknowledgement", func() bool { return len(store.All()) == 0 })
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*) FROM ingest_events"), "1")
}
