package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/nsready/nsready/engine"
)

// discover declares, by SQL, that events of unknown devices are held, and waits until that is known.
func (s *service) discover(set string) {
	s.t.Helper()
	s.exec("INSERT INTO discovery DEFAULT VALUES")
	if set != "" {
		s.exec("UPDATE discovery SET " + set)
	}
	revision := s.rows("SELECT revision FROM registry_state")
	wait(s.t, "the declaration", func() bool { return fmt.Sprint(s.engine.Snapshot().Revision) == revision })
}

// stranger returns an event of a device that is not registered, in the site of the others.
func (s *service) stranger(id uuid.UUID, at time.Time, metrics ...string) string {
	return strings.Replace(s.event(0, at, metrics...), s.device(0).ID.String(), id.String(), 1)
}

// register makes a device by SQL, with an external id or without.
func (s *service) register(id uuid.UUID, external string) {
	s.t.Helper()
	s.exec("INSERT INTO devices (id, site_id, name, device_type, external_id) VALUES ($1, $2, $3, 'meter', nullif($4, ''))", id, s.device(0).SiteID, "new "+id.String(), external)
}

// held waits until all is stored, and expects so many events to wait.
func (s *service) held(want int) {
	s.t.Helper()
	s.drained()
	expect(s.t, "events held", s.rows("SELECT count(*) FROM dead_letters WHERE reason = 'pending_device'"), want)
}

// replayed waits until nothing waits, and all is stored.
func (s *service) replayed() {
	s.t.Helper()
	wait(s.t, "what was held to be replayed", func() bool {
		return s.rows("SELECT count(*) FROM dead_letters WHERE reason = 'pending_device'") == "0"
	})
	s.drained()
}

// remoteWrite is a body of Prometheus with one sample.
func remoteWrite(name, instance string, bits uint64, at time.Time) string {
	field := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	b := field(nil, 1, field(field(nil, 1, []byte("__name__")), 2, []byte(name)))
	b = field(b, 1, field(field(nil, 1, []byte("instance")), 2, []byte(instance)))
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), bits)
	b = field(b, 2, protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(at.UnixMilli())))
	return string(snappy.Encode(nil, field(nil, 1, b)))
}

func TestHeldUntilTheDeviceIsKnown(t *testing.T) {
	s := start(t, func(o *engine.Options) { o.MQTT = "127.0.0.1:0" })
	s.discover("")
	id, other := uuid.New(), uuid.New()
	at := time.Now().Truncate(time.Second)
	a := s.post("application/json", s.stranger(id, at, "voltage", "500", "current", "null"))
	if a.status != 200 || !strings.HasPrefix(a.body, `{"status":"queued","trace_id":"`) || !strings.HasSuffix(a.body, `","held":1}`) {
		t.Errorf("one event: %d %s", a.status, a.body)
	}
	elsewhere := strings.Replace(s.stranger(id, at, "voltage", "1"), s.device(0).SiteID.String(), uuid.NewString(), 1)
	batch := []string{s.event(0, at, "voltage", "230"), s.stranger(id, at.Add(time.Second), "voltage", "2"), elsewhere,
		s.stranger(id, at, "nonsense", "1"), s.stranger(id, at.Add(time.Hour), "voltage", "1"), s.stranger(id, at, "count", "1.5"), s.stranger(id, at.Add(time.Second), "voltage", "3")}
	a = s.post("application/x-ndjson", strings.Join(batch, "\n"))
	if a.status != 200 || !strings.Contains(a.body, `"accepted":3,"held":2,"rejected":4,`) || strings.Count(a.body, `"code":"unknown_device"`) != 4 {
		t.Errorf("a batch: %d %s", a.status, a.body)
	}
	stamp := fmt.Sprint(at.UnixNano())
	expect(t, "line protocol", s.write("/api/v2/write", "modbus,host=meter\\ 7 voltage=231,current=7i,status=\"on\",other=1 "+stamp+"\nm,host="+other.String()+" voltage=4 "+stamp).status, 204)
	expect(t, "Prometheus", s.write("/api/v1/write", remoteWrite("voltage", "meter 8", 0x4014000000000000, at), "Content-Type", "application/x-protobuf", "Content-Encoding", "snappy").status, 204)
	client, _ := s.mqtt()
	s.acknowledged(client.Publish("nsready/device/meter 9/voltage", 1, false, "6"))
	s.held(7)
	expect(t, "the ledger", s.rows("SELECT sum(accepted)::int, sum(stored)::int, sum(dead)::int FROM ledger"), "8 1 7")
	expect(t, "names", s.rows("SELECT pending, count(*), count(device_id) FROM dead_letters WHERE pending !~ '^[0-9a-f-]{36}$' GROUP BY 1 ORDER BY 1"), "meter 7 1 0\nmeter 8 1 0\nmeter 9 1 0")
	expect(t, "sets", s.rows("SELECT count(*) FROM parameter_sets"), 1) // nothing of strangers

	s.register(id, "")
	s.register(other, "")
	for i, external := range []string{"meter 7", "meter 8", "meter 9"} {
		s.register(uuid.NewSHA1(uuid.Nil, []byte{byte(i)}), external)
	}
	s.replayed()
	expect(t, "stored", s.rows(`SELECT coalesce(d.external_id, d.id::text) AS n, right(parameter_key, length(parameter_key) - 45) AS p, value, quality, source, extract(epoch FROM time)::bigint - $1
		FROM ingest_events e JOIN devices d ON d.id = e.device_id WHERE external_id IS DISTINCT FROM 'meter 9' AND d.name NOT LIKE 'dev-%' ORDER BY d.external_id, d.id = $2, time, p`, at.Unix(), other),
		"meter 7 current 7 192 influx 0\nmeter 7 voltage 231 192 influx 0\nmeter 8 voltage 5 192 prometheus 0\n"+
			fmt.Sprintf("%[1]s current <nil> 192 HTTP 0\n%[1]s voltage 500 84 HTTP 0\n%[1]s voltage 3 192 HTTP 1\n%[2]s voltage 4 192 influx 0", id, other))
	expect(t, "the value that came without a time", s.rows("SELECT value FROM ingest_events e JOIN devices d ON d.id = e.device_id WHERE external_id = 'meter 9'"), 6)
	expect(t, "dead letters", s.rows("SELECT count(*) FROM dead_letters"), 0)
	expect(t, "the ledger afterwards", s.rows("SELECT sum(accepted)::int, sum(stored)::int, sum(merged)::int, sum(dead)::int FROM ledger"), "15 7 1 7")
	expect(t, "alerts of what is old", s.rows("SELECT count(*) FROM alerts"), 1) // the value of 500 is the newest of its device
}

// What a device cannot have after all stays among the dead letters, with the reason.
func TestHeldAndUnwanted(t *testing.T) {
	s := start(t)
	s.discover("")
	id := uuid.New()
	at := time.Now()
	s.exec("INSERT INTO sites (project_id, name) VALUES ($1, 'south')", s.snapshot.Projects[0].ID)
	south := s.rows("SELECT id::text FROM sites WHERE name = 'south'")
	wait(t, "the other site", func() bool { return len(s.engine.Snapshot().Sites) == 2 })
	expect(t, "of another site", s.post("application/json", strings.Replace(s.stranger(id, at, "voltage", "1"), s.device(0).SiteID.String(), south, 1)).status, 200)
	expect(t, "of no parameter", s.write("/write", "m,host=meter other=1").status, 204)
	s.held(2)
	s.register(id, "")
	s.register(uuid.New(), "meter")
	s.replayed()
	expect(t, "letters", s.rows("SELECT reason, device_id IS NOT NULL FROM dead_letters ORDER BY reason"), "site_mismatch true\nunknown_parameter true")
}

// What is acknowledged while the database is away is held as well, and by a crash nothing of it is lost or stored twice.
func TestHeldWhileTheDatabaseIsAway(t *testing.T) {
	s := start(t)
	s.discover("")
	id := uuid.New()
	at := time.Now().Add(-time.Minute)
	back := s.away()
	for i := range 3 {
		expect(t, "a stranger", s.post("application/json", s.stranger(id, at.Add(time.Duration(i)*time.Second), "voltage", fmt.Sprint(i))).status, 200)
		expect(t, "a point", s.write("/write", "m,host=meter voltage=1").status, 204)
	}
	a := s.post("application/x-ndjson", s.event(0, at, "voltage", "230")+"\n"+s.stranger(id, at, "nonsense", "1"))
	if a.status != 200 || !strings.Contains(a.body, `"accepted":1,"rejected":1`) || !strings.Contains(a.body, "registry_down") {
		t.Errorf("what can't be held: %d %s", a.status, a.body)
	}
	a = s.write("/write", "m,host=meter voltage=1\nm,host="+s.device(0).ID.String()+" nonsense=1")
	if a.status != 503 || !strings.Contains(a.body, "registry_down") {
		t.Errorf("points that can only be judged later: %d %s", a.status, a.body)
	}
	s.stop()
	back()
	s.run()
	s.held(6)
	expect(t, "the ledger", s.rows("SELECT sum(accepted)::int, sum(stored)::int, sum(dead)::int FROM ledger"), "7 1 6")
}

func TestHeldWithinBounds(t *testing.T) {
	s := start(t)
	s.discover("max_devices = 3, max_events = 8, max_events_per_device = 4")
	at := time.Now().Add(-time.Minute)
	points := func(device string, n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("m,host=%s voltage=1 %d", device, at.Add(time.Duration(i)*time.Second).UnixNano()))
		}
		return list
	}
	sends := func(what string, want int, lines ...string) {
		t.Helper()
		before := s.rows("SELECT count(*) FROM dead_letters")
		a := s.write("/write", strings.Join(lines, "\n"))
		if refused := len(lines) - want; refused > 0 && (a.status != 400 || !strings.Contains(a.body, fmt.Sprintf("partial write: %d of %d points refused", refused, len(lines))) || !strings.Contains(a.body, "unknown_device")) ||
			refused == 0 && a.status != 204 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		s.drained()
		expect(t, what, s.rows("SELECT count(*) - $1::int FROM dead_letters", before), want)
	}
	sends("more than a device may", 4, points("a", 6)...)
	sends("another", 1, points("b", 1)...)
	sends("a third and a fourth", 1, append(points("c", 1), points("d", 1)...)...)
	sends("more than all may", 2, append(points("b", 2), points("c", 2)...)...)
	var endless []string
	for i := range 10_000 {
		endless = append(endless, fmt.Sprintf("m,host=device-%d voltage=1", i))
	}
	sends("made-up devices", 0, endless...)
	s.stop()
	s.run()
	sends("after a restart", 0, points("d", 1)...)
	s.exec("DELETE FROM dead_letters WHERE pending = 'a'")
	wait(t, "room for others", func() bool { return s.write("/write", points("d", 1)[0]).status == 204 })
	s.drained()
	expect(t, "devices", s.rows("SELECT string_agg(DISTINCT pending, ' ') FROM dead_letters"), "b c d")
}

func TestHeldForSoLong(t *testing.T) {
	s := start(t)
	s.discover("hold_seconds = 3600")
	expect(t, "points", s.write("/write", "m,host=old voltage=1\nm,host=new voltage=1").status, 204)
	s.held(2)
	s.exec("UPDATE dead_letters SET created_at = now() - interval '61 minutes' WHERE pending = 'old'")
	s.stop()
	s.run()
	wait(t, "the old one to go", func() bool { return s.rows("SELECT string_agg(pending, ' ') FROM dead_letters") == "new" })

	// An apply that registers the device may take the block away.
	s.exec("BEGIN; DELETE FROM discovery; UPDATE devices SET external_id = 'new' WHERE name = 'dev-0'; COMMIT")
	s.replayed()
	expect(t, "stored", s.rows("SELECT value FROM ingest_events"), 1)
	expect(t, "a stranger", s.write("/write", "m,host=newer voltage=1").status, 400)
}
