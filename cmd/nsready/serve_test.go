package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/loadgen"
)

// takeOver is how long the partitions of a worker that died may stand still.
const takeOver = 10 * time.Second

// installation is a database and a NATS server with the demo's declaration, and what runs on them.
type installation struct {
	t          *testing.T
	url, nats  string
	db         *pgx.Conn
	collectors int
}

func install(t *testing.T) *installation {
	in := &installation{t: t, url: storetest.Database(t)}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	in.nats = s.ClientURL()
	apply := launch(t, "apply", "-config", "../../nsready.hcl", "-database-url", in.url, "-auto-approve")
	if code := apply.exit(); code != 0 {
		t.Fatalf("apply exits with %d: %s", code, apply.out.String())
	}
	if in.db, err = pgx.Connect(t.Context(), in.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.db.Close(context.Background()) })
	return in
}

// serve runs a process and waits until it is ready.
func (in *installation) serve(name, role, address string) (*program, serving) {
	in.t.Helper()
	file := filepath.Join(in.t.TempDir(), "ready.json")
	p := launch(in.t, "serve", "-name", name, "-role", role, "-collector", address, "-database-url", in.url, "-nats-url", in.nats, "-queue-size", "256MiB", "-ready-file", file)
	in.t.Cleanup(func() {
		if in.t.Failed() {
			in.t.Logf("%s: %s", name, p.out.String())
		}
	})
	var r serving
	in.until("a process to be ready", 60*time.Second, func() bool {
		select {
		case <-p.done:
			in.t.Fatalf("serve ended: %s", p.out.String())
		default:
		}
		text, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(text, &r) == nil
	})
	return p, r
}

// until waits for a condition and returns how long that took.
func (in *installation) until(what string, limit time.Duration, holds func() bool) time.Duration {
	in.t.Helper()
	return until(in.t, what, limit, holds)
}

// until waits for a condition and returns how long that took.
func until(t *testing.T, what string, limit time.Duration, holds func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(start) > limit {
			t.Fatalf("waited %s for %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

func (in *installation) number(sql string, args ...any) (n int) {
	in.t.Helper()
	if err := in.db.QueryRow(in.t.Context(), sql, args...).Scan(&n); err != nil {
		in.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// moving waits until each partition's live lane has stored something more, as far as there is load on all of them.
func (in *installation) moving(what string) {
	in.t.Helper()
	var now time.Time
	if err := in.db.QueryRow(in.t.Context(), "SELECT now()").Scan(&now); err != nil {
		in.t.Fatal(err)
	}
	took := in.until("all partitions to move after "+what, takeOver, func() bool {
		return in.number("SELECT count(*) FROM partitions WHERE id < 4 AND updated_at > $1", now) == 4
	})
	in.t.Logf("after %s: all partitions move again within %.1f s", what, took.Seconds())
}

func health(t *testing.T, collector string) (h struct {
	Service    string   `json:"service"`
	QueueDepth int      `json:"queue_depth"`
	Durability string   `json:"durability"`
	Problems   []string `json:"problems"`
}) {
	t.Helper()
	resp, err := http.Get(collector + "/v1/health")
	if err != nil {
		return h
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		t.Fatal(err)
	}
	return h
}

// Two collectors and three workers share a queue and a database. Under load they are killed, paused past their lease and
// started again.
func TestManyProcesses(t *testing.T) {
	in := install(t)
	workers := map[string]*program{}
	for _, name := range []string{"one", "two", "three"} {
		workers[name], _ = in.serve(name, "worker", "127.0.0.1:0")
	}
	_, first := in.serve("first", "collector", "127.0.0.1:0")
	second, secondReady := in.serve("second", "collector", "127.0.0.1:0")
	if n := in.number("SELECT count(*) FROM workers"); n != 3 {
		t.Fatalf("%d workers are alive, want 3", n)
	}
	if h := health(t, first.Collector); h.Durability != "unsynced" { // no monitor was named, and there is one copy
		t.Errorf("durability is %q", h.Durability)
	}

	sending, stop := context.WithCancel(t.Context())
	defer stop()
	reports := make(chan loadgen.Report, 2)
	for _, target := range []string{first.Collector, secondReady.Collector} {
		go func() { reports <- in.load(sending, target) }()
	}
	in.until("the first values", 30*time.Second, func() bool { return in.number("SELECT count(*) FROM partitions WHERE id < 4 AND seq > 0") == 4 })

	kill := func(p *program, s syscall.Signal) {
		t.Helper()
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	kill(workers["one"], syscall.SIGKILL)
	in.moving("the kill of a worker")
	kill(workers["two"], syscall.SIGSTOP)
	in.moving("the pause of another")
	kill(workers["two"], syscall.SIGCONT)
	in.until("the paused worker to come back", takeOver, func() bool {
		return in.number("SELECT count(*) FROM workers WHERE seen_at > now() - interval '2 s'") == 2
	})
	in.moving("the paused worker has come back")
	kill(second, syscall.SIGKILL)
	second.exit()
	in.serve("second", "collector", strings.TrimPrefix(secondReady.Collector, "http://"))
	in.serve("one", "worker", "127.0.0.1:0")
	in.moving("all are there again")
	stop()
	for range 2 {
		if r := <-reports; !r.Ok() {
			t.Errorf("the promise is broken: %+v", r)
		} else {
			t.Logf("%+v of %+v", r.Values, r.Answers)
		}
	}
}

func (in *installation) load(ctx context.Context, target string) loadgen.Report {
	db, err := store.Open(in.t.Context(), in.url)
	if err != nil {
		in.t.Error(err)
		return loadgen.Report{}
	}
	defer db.Close()
	snapshot, err := db.LoadRegistry(in.t.Context())
	if err != nil {
		in.t.Error(err)
		return loadgen.Report{}
	}
	r, err := loadgen.Run(ctx, loadgen.Options{Target: target, Snapshot: snapshot, Stored: db, Rate: 60, Batch: 40, Timeout: 5 * time.Second})
	if err != nil {
		in.t.Errorf("load: %v", err)
	}
	return r
}

// A stream that is deleted takes what was not stored with it. That is named and counted, and the service goes on.
func TestADeletedStreamIsSaid(t *testing.T) {
	in := install(t)
	worker, _ := in.serve("worker", "worker", "127.0.0.1:0")
	_, r := in.serve("collector", "collector", "127.0.0.1:0")
	nc, err := nats.Connect(in.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var device, project, site string
	err = in.db.QueryRow(t.Context(), `SELECT d.id, p.id, s.id FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id
		WHERE d.name = 'main-incomer'`).Scan(&device, &project, &site)
	if err != nil {
		t.Fatal(err)
	}
	send := func(i int) error {
		body := fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"HTTP","source_timestamp":%q,"metrics":[{"parameter_key":"project:%s:voltage","value":230,"quality":192}]}`,
			project, site, device, time.Now().Add(time.Duration(i)*time.Millisecond).UTC().Format(time.RFC3339Nano), project)
		resp, err := http.Post(r.Collector+"/v1/ingest", "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("the collector answers %s", resp.Status)
		}
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		must(send(i))
	}
	in.until("the first events to be stored", 20*time.Second, func() bool { return in.number("SELECT count(*) FROM telemetry") == 3 })
	must(worker.cmd.Process.Signal(syscall.SIGSTOP))
	defer worker.cmd.Process.Signal(syscall.SIGCONT)
	for i := range 4 {
		must(send(10 + i))
	}
	lostSQL := "SELECT coalesce(max(q.newest - coalesce(p.seq, 0)), 0) FROM queue_streams q LEFT JOIN partitions p USING (epoch, id)"
	in.until("the frames to be noted", 20*time.Second, func() bool { return in.number(lostSQL) == 4 })

	js, err := nc.JetStream()
	must(err)
	var stream string
	for name := range js.StreamNames() {
		if info, err := js.StreamInfo(name); err == nil && info.State.Msgs > 0 {
			stream = name
		}
	}
	must(js.DeleteStream(stream))
	want := "its frames 4 to 7 were not stored and are lost"
	in.until("health to say what is lost", 30*time.Second, func() bool { return strings.Contains(strings.Join(health(t, r.Collector).Problems, "\n"), want) })
	must(worker.cmd.Process.Signal(syscall.SIGCONT))
	in.until("events to be taken again", 20*time.Second, func() bool { return send(20) == nil })
	in.until("events to be stored again", 30*time.Second, func() bool { return in.number("SELECT count(*) FROM telemetry") >= 4 })
}

func TestServeRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-role", "collektor"}, "-role"},
		{[]string{"-database-url", ""}, "DATABASE_URL"},
		{[]string{"-database-url", "postgres://u:secret@h:x/db", "-nats-url", "nats://127.0.0.1:1"}, "malformed"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", ""}, "NATS_URL"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", "nats://127.0.0.1:1", "-partitions", "1000"}, "-partitions"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", "nats://127.0.0.1:1", "-role", "admin"}, "ADMIN_BEARER_TOKEN"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", "nats://127.0.0.1:1", "-collector", "8001"}, "-collector: want HOST:PORT"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", "nats://127.0.0.1:1", "-nats-monitor-urls", "nats:8222"}, "-nats-monitor-urls"},
		{[]string{"-database-url", "postgres://u@127.0.0.1/db", "-nats-url", "nats://127.0.0.1:1", "-nats-ca", "missing.pem"}, "-nats-ca"},
	} {
		p := launch(t, append([]string{"serve"}, append([]string{"-role", "worker"}, c.args...)...)...)
		if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), c.want) || strings.Contains(p.out.String(), "secret") {
			t.Errorf("serve %v exits with %d: %s", c.args, code, p.out.String())
		}
	}
	// A port that is taken is said at once.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	in := install(t)
	p := launch(t, "serve", "-role", "collector", "-collector", l.Addr().String(), "-database-url", in.url, "-nats-url", in.nats)
	if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), "address already in use") {
		t.Errorf("serve on a taken port exits with %d: %s", code, p.out.String())
	}
}
