package engine_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nsready/nsready/engine"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/stream"
	"github.com/nsready/nsready/engine/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// service is a running engine over a database of its own, and its estate: one site with devices dev-0 to dev-3.
type service struct {
	t        *testing.T
	engine   *engine.Engine
	db       *pgx.Conn
	snapshot *registry.Snapshot
	options  engine.Options
	stop     func() // waits until the engine has stopped
}

func estate() *registry.Snapshot {
	project := registry.NewAddress(registry.KindProject, "Acme", "energy")
	site := project.Child(registry.KindSite, "north")
	unlimited := registry.Rate{PerSecond: registry.MaxPerSecond, Burst: registry.MaxBurst}
	objects := []registry.Object{
		&registry.Limits{Addr: registry.LimitsAddress, Device: unlimited, Customer: unlimited},
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "Acme")},
		&registry.Project{Addr: project}, &registry.Site{Addr: site},
		&registry.Retention{Addr: registry.RetentionAddress, Raw: 90 * 24 * time.Hour},
		&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "queue_depth"), Warning: registry.BoundOf(1000)},
	}
	for name, change := range map[string]func(*registry.Parameter){
		"voltage": func(p *registry.Parameter) { p.Min, p.Max, p.Quality = registry.BoundOf(0), registry.BoundOf(480), 192 },
		"current": func(p *registry.Parameter) {},
		"count": func(p *registry.Parameter) {
			p.Type, p.OnViolation, p.Max = registry.TypeInt, registry.Reject, registry.BoundOf(1e6)
		},
	} {
		p := &registry.Parameter{Addr: project.Child(registry.KindParameter, name), Name: name, Type: registry.TypeFloat, OnViolation: registry.Flag}
		change(p)
		objects = append(objects, p)
	}
	objects = append(objects, &registry.Threshold{Addr: registry.NewAddress(registry.KindThreshold, "Acme", "energy", "voltage", "high"),
		Above: registry.BoundOf(253), Severity: "critical"})
	for i := range 4 {
		objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprintf("dev-%d", i)), Type: "meter", State: "active"})
	}
	return registry.Declare(objects)
}

func start(t *testing.T, change ...func(*engine.Options)) *service {
	t.Helper()
	return startOn(t, storetest.Database(t), change...)
}

// startOn starts an engine on an empty database.
func startOn(t *testing.T, url string, change ...func(*engine.Options)) *service {
	t.Helper()
	st, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	current, err := st.LoadRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	desired := estate()
	if _, err := st.Apply(t.Context(), registry.Diff(current, desired), store.Author{User: "test", Host: "test"}); err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, snapshot: desired, options: engine.Options{
		Roles: engine.Everything, Name: "test",
		DatabaseURL: url, QueueDir: t.TempDir(), QueueBytes: 256 << 20, MinFree: 1 << 20,
		Collector: "127.0.0.1:0", Admin: "127.0.0.1:0", Monitor: "127.0.0.1:0", AdminToken: "secret", Log: slog.New(slog.DiscardHandler),
	}}
	for _, c := range change {
		c(&s.options)
	}
	if s.db, err = pgx.Connect(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close(context.Background()) })
	s.run()
	return s
}

// run starts the engine, for the first time or again.
func (s *service) run() {
	s.t.Helper()
	e, err := engine.New(s.t.Context(), s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	s.engine = e
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(s.stop)
}

func (s *service) device(i int) *registry.Device { return s.snapshot.Devices[i] }

func (s *service) key(name string) string {
	return registry.ParameterKey(s.snapshot.Projects[0].ID, name)
}

// event returns an event of a device as JSON; metrics are parameter name and JSON value, in turn.
func (s *service) event(device int, at time.Time, metrics ...string) string {
	d := s.device(device)
	var list []string
	for i := 0; i < len(metrics); i += 2 {
		list = append(list, fmt.Sprintf(`{"parameter_key":%q,"value":%s,"quality":192}`, s.key(metrics[i]), metrics[i+1]))
	}
	return fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"HTTP","source_timestamp":%q,"metrics":[%s]}`,
		d.ProjectID, d.SiteID, d.ID, at.UTC().Format(time.RFC3339Nano), strings.Join(list, ","))
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (s *service) post(kind, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+s.engine.Addresses().Collector+"/v1/ingest", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return s.do(req)
}

func (s *service) get(url string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return s.do(req)
}

func (s *service) do(req *http.Request) answer {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// drained waits until all that was acknowledged is stored. The ledger then accounts for it.
func (s *service) drained() {
	s.t.Helper()
	wait(s.t, "the queue to drain", func() bool { return s.engine.Depth() == 0 })
	expect(s.t, "events unaccounted for", s.rows("SELECT count(*) FROM ledger WHERE accepted <> stored + merged + duplicate + dead + lost"), "0")
}

// rows returns the result of a query, a line a row, columns separated by spaces.
func (s *service) rows(sql string, args ...any) string {
	s.t.Helper()
	rows, err := s.db.Query(s.t.Context(), sql, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return strings.TrimSuffix(fmt.Sprintln(values...), "\n"), err
	})
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}

func (s *service) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, got, want)
	}
}

const readingsSQL = `SELECT right(parameter_key, length(parameter_key) - 45) AS p, value, quality, source, attributes::text
	FROM ingest_events ORDER BY device_id, time, p`

func TestOneEventIsStored(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Microsecond)
	a := s.post("application/json", s.event(0, now, "voltage", "230.5", "current", "10.25"))
	expect(t, "status", a.status, 200)
	var body struct {
		Status  string    `json:"status"`
		TraceID uuid.UUID `json:"trace_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Status != "queued" || body.TraceID.Version() != 4 {
		t.Errorf("answer %s: %v", a.body, err)
	}
	s.drained()
	expect(t, "rows", s.rows(readingsSQL), "current 10.25 192 HTTP {}\nvoltage 230.5 192 HTTP {}")
	expect(t, "telemetry", s.rows("SELECT count(*), min(quality) IS NULL FROM telemetry"), "1 true")
	id := s.device(0).ID.String()
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000")
	if now.Nanosecond() == 0 {
		stamp = now.UTC().Format("2006-01-02T15:04:05")
	}
	expect(t, "event id", s.rows("SELECT event_id FROM ingest_events WHERE parameter_key LIKE '%voltage'"),
		id+":"+stamp+"+00:00:"+s.key("voltage"))
	expect(t, "latest", s.rows("SELECT value, quality FROM v_scada_latest WHERE parameter_key = $1", s.key("voltage")), "230.5 192")
	expect(t, "history", s.rows("SELECT count(*) FROM v_scada_history"), "2")
}

func TestBatches(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	good := func(i int) string {
		return s.event(i%4, now.Add(time.Duration(-i)*time.Second), "voltage", fmt.Sprint(i))
	}
	unknown := strings.Replace(good(1), s.device(1).ID.String(), "00000000-0000-4000-8000-000000000001", 1)
	for name, c := range map[string]struct{ kind, body, want string }{
		"ndjson":     {"application/x-ndjson", good(0) + "\r\n\n{broken\n" + unknown + "\n" + good(1), `2 2 [{3 json_invalid} {4 unknown_device device_id}]`},
		"array":      {"application/json; charset=UTF-8", " [" + good(2) + ", " + unknown + ",\n" + good(3) + "] ", `2 1 [{2 unknown_device device_id}]`},
		"array of 1": {"application/json", "[" + good(4) + "]", `1 0 []`},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.post(c.kind, c.body)
			var body struct {
				Accepted, Rejected int
				Errors             []struct {
					Line        int
					Code, Field string
				}
			}
			if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != 200 {
				t.Fatalf("%d %s: %v", a.status, a.body, err)
			}
			got := fmt.Sprintf("%d %d %v", body.Accepted, body.Rejected, body.Errors)
			expect(t, "answer", strings.ReplaceAll(got, " }", "}"), c.want)
		})
	}
	a := s.post("application/x-ndjson", unknown+"\n"+unknown)
	if a.status != 422 || !strings.Contains(a.body, `"accepted":0,"rejected":2,"errors":[{"line":1,"code":"unknown_device","field":"device_id"`) || !strings.Contains(a.body, `"line":2`) {
		t.Errorf("a batch of refused events: %d %s", a.status, a.body)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, good(5)+"\n"+good(6)+"\n")
	z.Close()
	expect(t, "gzip", s.post("application/x-ndjson", zipped.String(), "Content-Encoding", "gzip").status, 200)
	s.drained()
	expect(t, "values", s.rows("SELECT count(*), sum(value) FROM ingest_events"), "7 21")
	wait(t, "error_logs", func() bool {
		return s.rows("SELECT sum((context->>'count')::int) FROM error_logs WHERE context->>'code' = 'unknown_device'") == s.rows("SELECT 4::bigint")
	})
}

func TestRefusals(t *testing.T) {
	s := start(t)
	now := time.Now()
	good := s.event(0, now, "voltage", "1")
	other := uuid.NewString()
	d := s.device(0)
	long := strings.Repeat("x", 600<<10)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		z.Write(make([]byte, 1<<20))
	}
	z.Close()
	for name, c := range map[string]struct {
		kind, body string
		header     []string
		status     int
		code       string
	}{
		"no content type":     {"", good, nil, 415, "content_type_unsupported"},
		"form":                {"application/x-www-form-urlencoded", good, nil, 415, "content_type_unsupported"},
		"charset":             {"application/json; charset=latin1", good, nil, 415, "content_type_unsupported"},
		"deflate":             {"application/json", good, []string{"Content-Encoding", "deflate"}, 415, "content_encoding_unsupported"},
		"gzip twice":          {"application/json", good, []string{"Content-Encoding", "gzip, gzip"}, 415, "content_encoding_unsupported"},
		"not gzip":            {"application/json", good, []string{"Content-Encoding", "gzip"}, 400, "gzip_invalid"},
		"gzip bomb":           {"application/json", bomb.String(), []string{"Content-Encoding", "gzip"}, 413, "compression_ratio"},
		"empty":               {"application/json", " \n", nil, 400, "empty_body"},
		"empty array":         {"application/json", "[]", nil, 400, "empty_body"},
		"empty ndjson":        {"application/x-ndjson", "\n\n", nil, 400, "empty_body"},
		"no json":             {"application/json", "{", nil, 400, "json_invalid"},
		"two events":          {"application/json", good + good, nil, 400, "json_invalid"},
		"broken array":        {"application/json", "[" + good + "," + good, nil, 400, "json_invalid"},
		"trailing comma":      {"application/json", "[" + good + ",]", nil, 400, ""},
		"garbage after array": {"application/json", "[" + good + "]x", nil, 400, "json_invalid"},
		"large event":         {"application/json", strings.Replace(good, "HTTP", long, 1), nil, 413, "body_too_large"},
		"large body":          {"application/x-ndjson", strings.Repeat(long, 15), nil, 413, "body_too_large"},
		"many events":         {"application/x-ndjson", strings.Repeat("{}\n", 10_001), nil, 413, "too_many_events"},
		"missing field":       {"application/json", strings.Replace(good, "protocol", "protokol", 1), nil, 422, "missing"},
		"no protocol":         {"application/json", strings.Replace(good, "HTTP", "", 1), nil, 400, "protocol is required"},
		"text value":          {"application/json", strings.Replace(good, `"value":1`, `"value":"x"`, 1), nil, 422, "value_not_a_number"},
		"unknown device":      {"application/json", strings.Replace(good, d.ID.String(), other, 1), nil, 422, "unknown_device"},
		"other project":       {"application/json", strings.Replace(good, d.ProjectID.String(), other, 1), nil, 422, "project_mismatch"},
		"other site":          {"application/json", strings.Replace(good, d.SiteID.String(), other, 1), nil, 422, "site_mismatch"},
		"unknown parameter":   {"application/json", strings.Replace(good, ":voltage", ":volts", 1), nil, 422, "unknown_parameter"},
		"parameter twice":     {"application/json", s.event(0, now, "voltage", "1", "voltage", "2"), nil, 422, "duplicate_parameter"},
		"future":              {"application/json", s.event(0, now.Add(6*time.Minute), "voltage", "1"), nil, 422, "timestamp_in_future"},
		"past":                {"application/json", s.event(0, now.Add(-91*24*time.Hour), "voltage", "1"), nil, 422, "timestamp_too_old"},
		"fraction of a count": {"application/json", s.event(0, now, "count", "1.5"), nil, 422, "type_violation"},
		"count too large":     {"application/json", s.event(0, now, "count", "1000001"), nil, 422, "outside_limits"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.post(c.kind, c.body, c.header...)
			if a.status != c.status || !strings.Contains(a.body, c.code) {
				t.Errorf("answer %d %s, want %d with %s", a.status, a.body, c.status, c.code)
			}
			if len(a.body) > 4<<10 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			for _, leak := range []string{"SQLSTATE", "SELECT", "goroutine", ".go:"} {
				if strings.Contains(a.body, leak) {
					t.Errorf("the answer shows its inside: %s", a.body)
				}
			}
		})
	}
	a := s.post("application/json", s.event(0, now, "voltage", "1", "current", `"x"`))
	if !strings.Contains(a.body, `"loc":["body","metrics",1,"value"]`) {
		t.Errorf("no path to the field: %s", a.body)
	}
	expect(t, "stored", s.rows("SELECT count(*) FROM telemetry"), "0")
	expect(t, "unknown path", s.get(s.engine.Addresses().Collector+"/v1/nothing").status, 404)
	expect(t, "wrong method", s.get(s.engine.Addresses().Collector+"/v1/ingest").status, 405)
}

func TestValuesOutsideLimitsAreFlagged(t *testing.T) {
	s := start(t)
	now := time.Now()
	bad := strings.Replace(s.event(1, now, "voltage", "9999"), `"quality":192`, `"quality":0`, 1)
	omitted := strings.Replace(s.event(2, now, "current", "7", "voltage", "8"), `,"quality":192`, "", -1)
	for _, body := range []string{s.event(0, now, "voltage", "481", "current", "1"), bad, omitted, s.event(3, now, "voltage", "null")} {
		expect(t, "status", s.post("application/json", body).status, 200)
	}
	s.drained()
	expect(t, "rows", s.rows(`SELECT right(parameter_key, 7), value, quality FROM ingest_events JOIN devices d ON d.id = device_id ORDER BY d.name, 1`),
		"current 1 192\nvoltage 481 84\nvoltage 9999 0\ncurrent 7 0\nvoltage 8 192\nvoltage <nil> 192")
}

func TestASecondEventAtTheSameTimeMerges(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	with := func(body, attributes string) string {
		return strings.Replace(body, `"quality":192`, `"quality":192,"attributes":`+attributes, 1)
	}
	for _, body := range []string{
		s.event(0, now, "voltage", "1", "current", "2"),
		with(s.event(0, now, "current", "3", "count", "4"), `{"unit":"A"}`),
		s.event(0, now, "count", "5"), s.event(0, now, "count", "5"),
		s.event(0, now.Add(-time.Minute), "voltage", "6"), // late: must not move the latest values back
	} {
		expect(t, "status", s.post("application/json", body).status, 200)
		s.drained()
	}
	// The same again in one body, so that one transaction merges them.
	expect(t, "status", s.post("application/x-ndjson", strings.Join([]string{s.event(1, now, "voltage", "1", "current", "2"),
		with(s.event(1, now, "current", "3", "count", "4"), `{"unit":"A"}`), s.event(1, now, "count", "5")}, "\n")).status, 200)
	s.drained()
	const want = "count 5 192 {}\ncurrent 3 192 {\"unit\": \"A\"}\nvoltage 1 192 {}"
	for i := range 2 {
		expect(t, fmt.Sprint("device ", i), s.rows(`SELECT right(parameter_key, length(parameter_key) - 45) AS p, value, quality, attributes::text
			FROM ingest_events WHERE device_id = $1 AND time = $2 ORDER BY p`, s.device(i).ID, now), want)
		expect(t, fmt.Sprint("latest of device ", i), s.rows(`SELECT right(parameter_key, length(parameter_key) - 45) AS p, value, time = $2
			FROM v_scada_latest WHERE device_id = $1 ORDER BY p`, s.device(i).ID, now), "count 5 true\ncurrent 3 true\nvoltage 1 true")
	}
	expect(t, "rows", s.rows("SELECT count(*) FROM telemetry"), "3")
}

func TestDevicesMadeBySQLAreHonoured(t *testing.T) {
	s := start(t)
	d := s.device(0)
	id := uuid.New()
	body := func() string {
		return strings.Replace(s.event(0, time.Now(), "voltage", "1"), d.ID.String(), id.String(), 1)
	}
	expect(t, "before", s.post("application/json", body()).status, 422)
	s.exec("INSERT INTO devices (id, site_id, name, device_type) VALUES ($1, $2, 'by hand', 'sensor')", id, d.SiteID)
	expect(t, "after", s.post("application/json", body()).status, 200)
	key := s.key("by_hand")
	s.exec("INSERT INTO parameter_templates (key, name) VALUES ($1, 'By hand')", key)
	expect(t, "parameter", s.post("application/json", strings.Replace(body(), s.key("voltage"), key, 1)).status, 200)
	s.exec("UPDATE devices SET retired_at = now() WHERE id = $1", id)
	wait(t, "the retired device to be refused", func() bool { return s.post("application/json", body()).status == 422 })
	s.drained()
}

func TestRefusedRowsGoToTheDeadLettersAlone(t *testing.T) {
	s := start(t)
	s.exec("ALTER TABLE telemetry ADD CHECK (vals[1] <> 13)")
	now := time.Now().Truncate(time.Second)
	var lines []string
	for i := range 100 {
		lines = append(lines, s.event(i%4, now.Add(time.Duration(i-100)*time.Second), "current", fmt.Sprint(i%20)))
	}
	expect(t, "status", s.post("application/x-ndjson", strings.Join(lines, "\n")).status, 200)
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*), count(*) FILTER (WHERE value = 13) FROM ingest_events"), "95 0")
	expect(t, "ledger", s.rows("SELECT c.name, sum(accepted)::int, sum(stored)::int, sum(merged)::int, sum(duplicate)::int, sum(dead)::int, sum(lost)::int FROM ledger l JOIN customers c ON c.id = customer_id GROUP BY 1"),
		"Acme 100 95 0 0 5 0")
	expect(t, "dead", s.rows("SELECT count(*), min(reason), min(event->'metrics'->0->>'value'), max(event->'metrics'->0->>'value') FROM dead_letters"), "5 23514 13 13")
	metrics := s.get(s.engine.Addresses().Collector + "/metrics").body
	for _, want := range []string{`ingest_events_total{status="queued"} 100`, `ingest_events_total{status="success"} 95`,
		`ingest_events_total{status="dlq"} 5`, `ingest_errors_total{error_type="processing"} 5`, "ingest_queue_depth 0",
		`nsready_ledger_events_total{outcome="stored"} 95`, `nsready_ledger_events_total{outcome="dead"} 5`, "nsready_ledger_imbalance 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestWorkersOutliveTheirConnections(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	const n = 50
	for i := range n {
		if i%10 == 5 {
			s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		}
		expect(t, "status", s.post("application/json", s.event(i%4, now.Add(time.Duration(i-n)*time.Second), "voltage", fmt.Sprint(i))).status, 200)
	}
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*), count(DISTINCT value) FROM ingest_events"), "50 50")
}

func TestAStopLosesNothingAndAStartGoesOn(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	expect(t, "status", s.post("application/json", s.event(0, now, "voltage", "1")).status, 200)
	s.stop()
	expect(t, "stored by the stop", s.rows("SELECT count(*) FROM telemetry"), "1")
	s.run()
	expect(t, "status", s.post("application/json", s.event(0, now.Add(time.Second), "voltage", "2")).status, 200)
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*), sum(value) FROM ingest_events"), "2 3")
	expect(t, "offsets", s.rows("SELECT sum(events) FROM partitions"), s.rows("SELECT 2::numeric"))
}

func TestARestoredDatabaseGetsItsRowsAgain(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	for i := range 20 {
		expect(t, "status", s.post("application/json", s.event(i%4, now.Add(time.Duration(i-20)*time.Second), "voltage", fmt.Sprint(i))).status, 200)
	}
	s.drained()
	const backup = "TRUNCATE telemetry; TRUNCATE telemetry_latest; DELETE FROM partitions" // what one from before the first event holds
	back := func() bool { return s.rows("SELECT count(*), sum(value) FROM ingest_events") == "20 190" }
	s.stop()
	s.exec(backup)
	s.run()
	wait(t, "the rows to come back after a restart", back)
	s.exec(backup)
	wait(t, "the rows to come back to an idle service", back)
}

// removeQueueFiles takes files of the queue away.
func (s *service) removeQueueFiles(glob string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.options.QueueDir, glob))
	if err != nil || len(files) == 0 {
		s.t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.RemoveAll(f); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestAQueueThatWasSetBackIsSaidAndGoesOn takes the queue's files away between two runs.
func TestAQueueThatWasSetBackIsSaidAndGoesOn(t *testing.T) {
	for what, glob := range map[string]string{"ends at frame": "jetstream/*/streams/INGRESS_*/msgs", "was made anew": "jetstream/*/streams/INGRESS_*"} {
		t.Run(what, func(t *testing.T) {
			s := start(t)
			now := time.Now().Truncate(time.Second)
			send := func(from, to int) {
				for i := from; i < to; i++ {
					expect(t, "status", s.post("application/json", s.event(i%4, now.Add(time.Duration(i-60)*time.Second), "voltage", fmt.Sprint(i))).status, 200)
				}
			}
			send(0, 20)
			s.drained()
			s.stop()
			s.removeQueueFiles(glob)
			s.run()
			send(20, 40)
			s.drained()
			expect(t, "stored", s.rows("SELECT count(*), sum(value) FROM ingest_events"), "40 780")
			if body := s.get(s.engine.Addresses().Collector + "/v1/health").body; !strings.Contains(body, what) || !strings.Contains(body, "degraded") {
				t.Errorf("health does not say it: %s", body)
			}
		})
	}
}

// TestFramesCutOffTheQueueAreSaid takes acknowledged frames away that were not stored, as JetStream does with what lies
// behind a damage.
func TestFramesCutOffTheQueueAreSaid(t *testing.T) {
	s := start(t)
	back := s.away()
	for i := range 20 {
		expect(t, "status", s.post("application/json", s.event(i%4, time.Now(), "voltage", "1")).status, 200)
	}
	s.stop()
	back()
	s.removeQueueFiles("jetstream/*/streams/INGRESS_*/msgs")
	s.run()
	if body := s.get(s.engine.Addresses().Collector + "/v1/health").body; !strings.Contains(body, "acknowledged events are lost") || !strings.Contains(body, "degraded") {
		t.Errorf("health does not say it: %s", body)
	}
	if metrics := s.get(s.engine.Addresses().Collector + "/metrics").body; !strings.Contains(metrics, "nsready_queue_missing_frames_total 20") {
		t.Error("the missing frames are not counted")
	}
	expect(t, "status", s.post("application/json", s.event(0, time.Now(), "voltage", "1")).status, 200)
	s.drained()
}

func TestABrokenFrameIsADeadLetter(t *testing.T) {
	s := start(t)
	for i := range 8 {
		if a := s.post("application/json", s.event(i%4, time.Now(), "voltage", "230")); a.status != 200 {
			t.Fatal(a)
		}
	}
	s.drained()
	s.stop()
	server, err := stream.StartServer(stream.ServerOptions{Dir: s.options.QueueDir, Log: s.options.Log})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	// The header is intact and says 3 events, the records are not, and the message says 5.
	h := telemetry.Header{Events: 3, ReceivedAt: 1}
	frame := telemetry.SealFrame(append(make([]byte, telemetry.HeaderSize), "nonsense"...), h, nil)
	m := &nats.Msg{Subject: "ingress.events.0", Data: frame, Header: nats.Header{"Nsready-Events": {"5"}}}
	if _, err := nc.RequestMsg(m, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	server.Shutdown()
	s.run()
	s.drained()
	if got := s.rows("SELECT reason FROM dead_letters"); got != "frame" {
		t.Errorf("dead letters: %q", got)
	}
	expect(t, "ledger", s.rows("SELECT sum(accepted)::int, sum(stored + merged + duplicate)::int, sum(dead)::int FROM ledger"), "11 8 3")
}

func TestTheViewTakesDeletes(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	for i := range 4 {
		s.post("application/json", s.event(i, now.Add(time.Duration(-i)*time.Hour), "voltage", "1", "current", "2", "count", "3"))
	}
	s.post("application/json", s.event(0, now.Add(time.Second), "voltage", "7"))
	s.drained()
	s.exec("DELETE FROM ingest_events WHERE time > $1", now) // the newest value of the first device
	s.exec("DELETE FROM ingest_events WHERE time < $1", now.Add(-90*time.Minute))
	expect(t, "after deleting by time", s.rows("SELECT count(*), sum(value) FROM ingest_events"), "6 12")
	s.exec("DELETE FROM ingest_events WHERE parameter_key = $1", s.key("current"))
	expect(t, "after deleting a parameter", s.rows(readingsSQL),
		"count 3 192 HTTP {}\nvoltage 1 192 HTTP {}\ncount 3 192 HTTP {}\nvoltage 1 192 HTTP {}")
	const same = `SELECT (SELECT count(*) FROM v_scada_latest), count(*) FROM (SELECT DISTINCT ON (device_id, parameter_key) * FROM ingest_events
		ORDER BY device_id, parameter_key, time DESC) e JOIN v_scada_latest l USING (device_id, parameter_key, time, value, quality)`
	expect(t, "latest values after deletes", s.rows(same), "4 4")
	s.exec("DELETE FROM devices WHERE id = $1", s.device(0).ID)
	expect(t, "after deleting a device", s.rows("SELECT count(*) FROM telemetry"), "1")
	expect(t, "latest values then", s.rows(same), "2 2")
}

// A device is deleted while events of it come in: none of them stays behind as a row of nobody.
func TestADeletionTakesWhatComesMeanwhile(t *testing.T) {
	s := start(t)
	post := func(i int) {
		expect(t, "status", s.post("application/json", s.event(0, time.Now().Add(time.Duration(i)*time.Millisecond), "voltage", "1")).status, 200)
	}
	post(0)
	s.drained()
	tx, err := s.db.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "DELETE FROM devices WHERE id = $1", s.device(0).ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		post(10 + i)
	}
	s.drained() // an open transaction keeps nobody waiting
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, "rows of nobody", s.rows("SELECT count(*) FROM telemetry t WHERE NOT EXISTS (SELECT FROM devices d WHERE d.ref = t.device_ref)"), "0")
}

func TestThresholdsRaiseAlerts(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	send := func(i int, value string) {
		expect(t, "status", s.post("application/json", s.event(0, now.Add(time.Duration(i-10)*time.Second), "voltage", value)).status, 200)
		s.drained()
	}
	const state = "SELECT state, severity, value FROM alerts ORDER BY id"
	send(0, "250")
	expect(t, "below the threshold", s.rows(state), "")
	send(1, "254")
	expect(t, "above the threshold", s.rows(state), "firing critical 254")
	s.stop()
	s.run()
	send(2, "255")
	expect(t, "after a restart", s.rows(state), "firing critical 254")
	send(3, "240")
	expect(t, "back", s.rows(state), "resolved critical 240")
}

// What nobody sends any more cannot come back: alerts are resolved when their device is retired, whether anything comes in or
// not, and when it was retired while the service was away.
func TestAlertsOfRetiredDevicesAreResolved(t *testing.T) {
	s := start(t)
	send := func(device int) {
		expect(t, "status", s.post("application/json", s.event(device, time.Now(), "voltage", "254")).status, 200)
		s.drained()
	}
	retire := func(device int) {
		s.exec("UPDATE devices SET retired_at = now() WHERE id = $1", s.device(device).ID)
	}
	state := func() string { return s.rows("SELECT state, severity, value FROM alerts ORDER BY id") }
	send(0)
	send(1)
	expect(t, "above the threshold", state(), "firing critical 254\nfiring critical 254")
	retire(0)
	wait(t, "a resolved alert", func() bool { return state() == "resolved critical 254\nfiring critical 254" })
	s.stop()
	retire(1)
	s.run()
	wait(t, "two resolved alerts", func() bool { return state() == "resolved critical 254\nresolved critical 254" })
}

func TestHealth(t *testing.T) {
	s := start(t)
	c := s.engine.Addresses().Collector
	var h map[string]any
	wait(t, "a healthy service", func() bool {
		h = nil
		a := s.get(c + "/v1/health")
		return a.status == 200 && json.Unmarshal([]byte(a.body), &h) == nil && h["service"] == "ok"
	})
	storage := "native-partitions"
	if s.rows("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'") == "1" {
		storage = "timescaledb"
	}
	if h["queue_depth"] != 0.0 || h["db"] != "connected" || h["queue"].(map[string]any)["consumer"] != "ingest_workers" || h["storage"] != storage {
		t.Errorf("health is %v", h)
	}
	for _, path := range []string{"/health", "/healthz", "/readyz", "/metrics"} {
		expect(t, path, s.get(c+path).status, 200)
	}
	lock, err := s.db.Begin(t.Context())
	if err == nil {
		_, err = lock.Exec(t.Context(), "LOCK TABLE partitions IN EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i := range 1500 {
		lines = append(lines, s.event(i%4, time.Now().Add(-time.Duration(i)*time.Millisecond), "voltage", "1"))
	}
	expect(t, "status", s.post("application/x-ndjson", strings.Join(lines, "\n")).status, 200)
	if body := s.get(c + "/v1/health").body; !strings.Contains(body, `"queue_depth":1500`) || !strings.Contains(body, `"status":"warning"`) {
		t.Errorf("health with 1500 events waiting: %s", body)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := s.get(s.engine.Addresses().Monitor + "/jsz?streams=1"); !strings.Contains(a.body, `"INGRESS_0"`) {
		t.Errorf("the JetStream monitor says %s", a.body)
	}
}

func TestTheLedgerCountsEventsThatAreMissingFromTheQueue(t *testing.T) {
	s := start(t)
	for _, h := range []telemetry.Header{{Producer: 7, Events: 3}, {Producer: 7, Before: 10, Events: 2}} {
		h.ReceivedAt = telemetry.MicrosOf(time.Now())
		frame := telemetry.SealFrame(append(make([]byte, telemetry.HeaderSize), "nonsense"...), h, nil)
		if err := s.engine.PublishRaw(t.Context(), 0, frame); err != nil {
			t.Fatal(err)
		}
	}
	// The frame after them lets the queue see that there are such as nobody has acknowledged: they are the first partition's.
	for i := range 4 {
		expect(t, "status", s.post("application/json", s.event(i, time.Now(), "voltage", "1")).status, 200)
	}
	wait(t, "the ledger", func() bool {
		return s.rows("SELECT coalesce(sum(accepted), 0)::int, coalesce(sum(dead), 0)::int, coalesce(sum(lost), 0)::int FROM ledger") == "16 5 7"
	})
}

func TestAnImbalanceOfTheLedgerIsAProblem(t *testing.T) {
	s := start(t)
	expect(t, "status", s.post("application/json", s.event(0, time.Now(), "voltage", "1")).status, 200)
	s.drained()
	s.exec("UPDATE ledger SET stored = stored + 2")
	if err := s.engine.MeasureLedger(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := s.engine.Addresses().Collector
	if body := s.get(c + "/v1/health").body; !strings.Contains(body, `"ledger: 2 events are unaccounted for"`) || !strings.Contains(body, `"degraded"`) {
		t.Errorf("health is %s", body)
	}
	if body := s.get(c + "/metrics").body; !strings.Contains(body, "nsready_ledger_imbalance 2") {
		t.Error("the imbalance is not in the metrics")
	}
}

func TestAdmin(t *testing.T) {
	s := start(t)
	a := s.engine.Addresses().Admin
	const token = "Bearer secret"
	expect(t, "health", s.get(a+"/health").body, `{"service":"ok"}`)
	expect(t, "no token", s.get(a+"/admin/devices").status, 401)
	expect(t, "wrong token", s.get(a+"/admin/devices", "Authorization", "Bearer secreT").status, 401)
	for path, want := range map[string]int{"customers": 1, "projects": 1, "sites": 1, "devices": 4, "parameter_templates": 3} {
		for customer, want := range map[string]int{"": want, s.snapshot.Customers[0].ID.String(): want} {
			var items []map[string]any
			got := s.get(a+"/admin/"+path, "Authorization", token, "X-Customer-ID", customer)
			if err := json.Unmarshal([]byte(got.body), &items); err != nil || len(items) != want {
				t.Errorf("%s of %q: %s, %v", path, customer, got.body, err)
				continue
			}
			item := s.get(a+"/admin/"+path+"/"+items[0]["id"].(string), "Authorization", token)
			if item.status != 200 || !strings.Contains(item.body, "created_at") {
				t.Errorf("item of %s: %d %s", path, item.status, item.body)
			}
		}
	}
	expect(t, "unknown item", s.get(a+"/admin/sites/"+uuid.NewString(), "Authorization", token).body, `{"detail":"Site not found"}`)
	expect(t, "bad id", s.get(a+"/admin/sites/x", "Authorization", token).status, 400)
	expect(t, "bad customer", s.get(a+"/admin/sites", "Authorization", token, "X-Customer-ID", "x").status, 400)
	expect(t, "unknown customer", s.get(a+"/admin/sites", "Authorization", token, "X-Customer-ID", uuid.NewString()).status, 404)
}

// away keeps the service from its database until the function that it returns is called.
func (s *service) away() (back func()) {
	const allow = "UPDATE pg_database SET datallowconn = $1 WHERE datname = current_database()"
	s.exec(allow, false)
	wait(s.t, "the connections to end", func() bool { // one that was being made meanwhile shows late
		return s.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()") == ""
	})
	return func() { s.exec(allow, true) }
}

func TestAFullQueueAnswers503UntilThereIsRoom(t *testing.T) {
	s := start(t, func(o *engine.Options) { o.QueueBytes = 4 << 20 })
	back := s.away()
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	accepted := 0
	var refusal answer
	for refusal.status == 0 {
		var lines []string
		for range 1000 {
			lines = append(lines, s.event(accepted%4, start.Add(time.Duration(accepted/4+len(lines))*time.Millisecond), "voltage", "1"))
		}
		a := s.post("application/x-ndjson", strings.Join(lines, "\n"))
		if a.status != 200 {
			refusal = a
			break
		}
		accepted += 4000 // 1000 events, the times of the next go on after them
		if accepted > 4*1000*1000 {
			t.Fatal("the queue never fills")
		}
	}
	if refusal.status != 503 || !strings.Contains(refusal.body, "queue_full") || refusal.header.Get("Retry-After") == "" {
		t.Errorf("a full queue answers %d %v %s", refusal.status, refusal.header, refusal.body)
	}
	expect(t, "readyz", s.get(s.engine.Addresses().Collector+"/readyz").status, 503)
	back()
	s.drained()
	wait(t, "the queue to accept again", func() bool {
		return s.post("application/json", s.event(0, start.Add(-time.Minute), "voltage", "1")).status == 200
	})
	if n := s.rows("SELECT count(*) >= $1 FROM telemetry", accepted/4); n != "true" {
		t.Errorf("%s rows are stored, %d were acknowledged", s.rows("SELECT count(*) FROM telemetry"), accepted/4)
	}
}

func TestStoredFramesMakeRoomOldestFirst(t *testing.T) {
	s := start(t, func(o *engine.Options) { o.QueueBytes = 4 << 20 })
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	const bodies, each = 40, 2000
	for i := range bodies { // all of one device, so that one partition takes it: 40 times 100 kB, and 2 MB are its limit
		var lines []string
		for j := range each {
			lines = append(lines, s.event(0, start.Add(time.Duration(i*each+j)*time.Millisecond), "voltage", "1"))
		}
		wait(t, "room in the queue", func() bool {
			a := s.post("application/x-ndjson", strings.Join(lines, "\n"))
			if a.status != 200 && a.status != 503 {
				t.Fatal(a)
			}
			return a.status == 200
		})
	}
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*) FROM telemetry"), bodies*each)
	if strings.Contains(s.get(s.engine.Addresses().Collector+"/metrics").body, "nsready_queue_bytes 0\n") {
		t.Error("nothing was kept for a replay")
	}
}

func TestManyParameterSetsFitTheirFrames(t *testing.T) {
	s := start(t)
	for i := range 16 {
		s.exec("INSERT INTO parameter_templates (key, name) VALUES ($1, 'x')", s.key(fmt.Sprintf("%s_%d", strings.Repeat("x", 180), i)))
	}
	now := time.Now().Truncate(time.Second)
	var lines []string
	for i := 1; i <= 4000; i++ { // each with another subset
		var metrics []string
		for b := range 16 {
			if i>>b&1 == 1 {
				metrics = append(metrics, fmt.Sprintf("%s_%d", strings.Repeat("x", 180), b), "1")
			}
		}
		lines = append(lines, s.event(0, now.Add(time.Duration(-i)*time.Second), metrics...))
	}
	a := s.post("application/x-ndjson", strings.Join(lines[:3000], "\n"))
	if a.status != 200 || !strings.Contains(a.body, `"accepted":3000`) {
		t.Fatalf("%d %.300s", a.status, a.body)
	}
	s.drained()
	expect(t, "stored", s.rows("SELECT count(*), count(DISTINCT set_id) FROM telemetry"), "3000 3000")
}

func TestAHalfClosedClientIsAnswered(t *testing.T) {
	s := start(t)
	c, err := net.Dial("tcp", s.engine.Addresses().Collector)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := s.event(0, time.Now(), "voltage", "1")
	fmt.Fprintf(c, "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 200 OK") {
		t.Errorf("answer %q, %v", text, err)
	}
}

func TestTooManyBodiesAtOnceAreAnswered429(t *testing.T) {
	s := start(t)
	const large = 8 << 20
	answers := make(chan string, 100)
	for range 64<<20/large + 1 { // all but the last byte
		c, err := net.Dial("tcp", s.engine.Addresses().Collector)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			line, _ := bufio.NewReader(c).ReadString('\n') // "" when the test ends
			answers <- line
		}()
		fmt.Fprintf(c, "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", large)
		c.Write(make([]byte, large-1)) // fails when it is refused meanwhile
	}
	select {
	case line := <-answers:
		expect(t, "the first of the large bodies to be answered", strings.TrimSpace(line), "HTTP/1.1 429 Too Many Requests")
	case <-time.After(10 * time.Second):
		t.Error("all of the large bodies are held")
	}
	expect(t, "a small body", s.post("application/json", s.event(0, time.Now(), "voltage", "1")).status, 200)
}

func TestADatabaseThatIsAwayStopsNobodyWhoIsKnown(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	back := s.away()
	known, unknown := s.event(0, now, "voltage", "1"), strings.Replace(s.event(1, now, "voltage", "2"), s.device(1).ID.String(), uuid.NewString(), 1)
	a := s.post("application/x-ndjson", known+"\n"+unknown)
	if a.status != 200 || !strings.Contains(a.body, `"accepted":1,"rejected":1`) || !strings.Contains(a.body, "registry_down") {
		t.Errorf("a batch with an unknown device: %d %s", a.status, a.body)
	}
	if a := s.post("application/json", unknown); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("an unknown device: %d %s", a.status, a.body)
	}
	wait(t, "health to say it", func() bool {
		body := s.get(s.engine.Addresses().Collector + "/v1/health").body
		return strings.Contains(body, `"db":"disconnected"`) && strings.Contains(body, `"service":"degraded"`)
	})
	expect(t, "depth", s.engine.Depth(), 1)
	back()
	s.drained()
	expect(t, "stored", s.rows("SELECT sum(value) FROM ingest_events"), "1")
	wait(t, "health to recover", func() bool {
		return strings.Contains(s.get(s.engine.Addresses().Collector+"/v1/health").body, `"db":"connected"`)
	})
}

func TestFramesThatCannotBeReadGoToTheDeadLetters(t *testing.T) {
	s := start(t)
	partitions := strings.Count(s.rows("SELECT id FROM partitions"), "\n") + 1
	for p := range partitions {
		if err := s.engine.PublishRaw(t.Context(), p, []byte("no frame")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		expect(t, "status", s.post("application/json", s.event(i, time.Now(), "voltage", "1")).status, 200)
	}
	wait(t, "the events behind the broken frames", func() bool { return s.rows("SELECT count(*) FROM telemetry") == "4" })
	expect(t, "dead letters", s.rows("SELECT DISTINCT reason, event->>'frame', device_id IS NULL FROM dead_letters"), "frame bm8gZnJhbWU= true")
	expect(t, "each once", s.rows("SELECT count(*) FROM dead_letters"), partitions)
	if err := s.engine.PublishRaw(t.Context(), 0, []byte("no frame either")); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.run() // with a broken frame as the newest
	expect(t, "status", s.post("application/json", s.event(0, time.Now(), "current", "1")).status, 200)
	wait(t, "the event behind it", func() bool { return s.rows("SELECT count(*) FROM telemetry") == "5" })
}

// Limits that SQL sets hold at once, without a restart; so do those that it takes away.
func TestEventsOverTheirLimitAreAnswered429(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	sent := 0
	event := func(device int) string {
		sent++
		return s.event(device, now.Add(time.Duration(-sent)*time.Second), "voltage", "1")
	}
	revision := func() int64 { return s.engine.Snapshot().Revision }
	change := func(sql string) {
		t.Helper()
		before := revision()
		s.exec(sql)
		wait(t, "the engine to see it", func() bool { return revision() > before })
	}
	change("UPDATE devices SET events_per_second = 0.01, burst = 2 WHERE name = 'dev-0'")
	for range 2 {
		expect(t, "within the burst", s.post("application/json", event(0)).status, 200)
	}
	type problem struct {
		Type, Code string
		Loc        []string
		Limit      struct {
			Name, Of        string
			EventsPerSecond float64 `json:"events_per_second"`
			Burst           int64
		}
	}
	type body struct {
		Accepted, Rejected int
		Detail, Errors     []problem
	}
	read := func(a answer) (b body) {
		t.Helper()
		if err := json.Unmarshal([]byte(a.body), &b); err != nil {
			t.Fatalf("%s: %v", a.body, err)
		}
		return b
	}
	const limit = "{device Acme/energy/north/dev-0 0.01 2}"
	a := s.post("application/json", event(0))
	expect(t, "one more", fmt.Sprint(a.status, a.header.Get("Retry-After"), read(a).Detail), "429100[{rate_limited_device  [body device_id] "+limit+"}]")
	a = s.post("application/x-ndjson", event(0)+"\n"+event(1)+"\n"+event(0))
	expect(t, "among others", fmt.Sprint(a.status, a.header.Get("Retry-After"), read(a)),
		"200200{1 2 [] [{ rate_limited_device [] "+limit+"} { rate_limited_device [] "+limit+"}]}")
	a = s.post("application/json", "["+event(0)+"]")
	expect(t, "a batch of nothing else", fmt.Sprint(a.status, a.header.Get("Retry-After"), read(a).Detail[0].Limit), "429100"+limit)
	unknown := strings.Replace(event(0), s.device(0).ID.String(), uuid.NewString(), 1)
	a = s.post("application/json", "["+event(0)+","+unknown+"]")
	expect(t, "a batch with another mistake", fmt.Sprint(a.status, a.header.Get("Retry-After")), "422100")

	change("UPDATE customers SET events_per_second = 0.01, burst = 3")
	for range 3 {
		expect(t, "within the customer's burst", s.post("application/json", event(2)).status, 200)
	}
	a = s.post("application/json", event(3))
	expect(t, "one more of the customer", fmt.Sprint(a.status, read(a).Detail), "429 [{rate_limited_customer  [body device_id] {customer Acme 0.01 3}}]")

	change("UPDATE customers SET events_per_second = NULL, burst = NULL")
	expect(t, "without the customer's limit", s.post("application/json", event(3)).status, 200)
	expect(t, "with the device's", s.post("application/json", event(0)).status, 429)
	change("UPDATE devices SET events_per_second = NULL, burst = NULL")
	wait(t, "room", func() bool { return s.post("application/json", event(0)).status == 200 })

	s.drained()
	metrics := s.get(s.engine.Addresses().Collector + "/metrics").body
	for _, want := range []string{`nsready_rate_limited_events_total{limit="customer"} 1`, `nsready_refused_connections_total 0`, `ingest_errors_total{error_type="validation"} 1`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	wait(t, "error_logs", func() bool {
		return s.rows("SELECT sum((context->>'count')::int) >= 6 FROM error_logs WHERE context->>'code' = 'rate_limited_device'") == "true"
	})
}

func TestConnectionsOverTheirLimitAreClosed(t *testing.T) {
	s := start(t)
	s.exec("UPDATE limits SET connections_per_address = 2")
	wait(t, "the engine to see it", func() bool { return s.engine.Snapshot().Limits.ConnectionsPerAddress == 2 })
	http.DefaultClient.CloseIdleConnections()
	var open []net.Conn
	refused := func() bool {
		c, err := net.Dial("tcp", s.engine.Addresses().Collector)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		if line == "" {
			return true
		}
		expect(t, "answer", strings.TrimSpace(line), "HTTP/1.1 200 OK")
		open = append(open, c)
		return false
	}
	wait(t, "a connection to be refused", refused)
	expect(t, "open", len(open), 2)
	open[0].Close()
	wait(t, "room for another", func() bool { return !refused() })
	wait(t, "the connections", func() bool { return refused() }) // the one that was closed is counted once
	families, err := s.engine.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "nsready_refused_connections_total" && f.GetMetric()[0].GetCounter().GetValue() >= 2 {
			return
		}
	}
	t.Error("the refused connections are not counted")
}

// A sender of made-up device ids fills neither error_logs nor keeps what is added meanwhile from being found.
func TestUnknownDevicesCostLittle(t *testing.T) {
	s := start(t)
	now := time.Now()
	lines := func() string {
		var list []string
		for range 5000 {
			list = append(list, strings.Replace(s.event(0, now, "voltage", "1"), s.device(0).ID.String(), uuid.NewString(), 1))
		}
		return strings.Join(list, "\n")
	}
	for i := range 4 {
		flood := make(chan int, 1)
		go func() { flood <- s.post("application/x-ndjson", lines()).status }()
		id := uuid.New()
		s.exec("INSERT INTO devices (id, site_id, name, device_type) VALUES ($1, $2, $3, 'meter')", id, s.device(0).SiteID, fmt.Sprint("late-", i))
		expect(t, "a device that was just added", s.post("application/json", strings.Replace(s.event(0, now, "voltage", "1"), s.device(0).ID.String(), id.String(), 1)).status, 200)
		expect(t, "made-up devices", <-flood, 422)
	}
	wait(t, "error_logs", func() bool { // the count of all, in few rows
		return s.rows("SELECT sum((context->>'count')::int) FROM error_logs") == "20000"
	})
	if n := s.rows("SELECT count(*) <= 900 FROM error_logs"); n != "true" {
		t.Errorf("error_logs has %s rows", s.rows("SELECT count(*) FROM error_logs"))
	}
}

func TestMetricsFollowTheirConventions(t *testing.T) {
	s := start(t)
	problems, err := testutil.GatherAndLint(s.engine.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
