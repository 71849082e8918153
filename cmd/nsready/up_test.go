package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// program is a running nsready.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	out  lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// binary returns the path of nsready, which is this test's binary under another name.
func binary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "nsready")
	if err := os.Symlink(self, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// launch runs nsready.
func launch(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(binary(t), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// exit waits for the end and returns the exit code.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		p.t.Fatalf("the program does not end: %s", p.out.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// awaitPostgres waits until the PostgreSQL of a killed `nsready up` is gone too, and writes no more.
func awaitPostgres(t *testing.T, data string) {
	text, err := os.ReadFile(filepath.Join(data, "postgres", "postmaster.pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.SplitN(string(text), "\n", 2)[0])
	if err != nil {
		t.Error(err)
		return
	}
	tick := time.Tick(10 * time.Millisecond)
	for deadline := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; <-tick {
		if time.Now().After(deadline) {
			t.Errorf("PostgreSQL, pid %d, outlives its service", pid)
			return
		}
	}
}

// up starts `nsready up` on free ports and waits until it is ready.
func up(t *testing.T, data string, args ...string) (*program, ready) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready.json")
	t.Cleanup(func() { awaitPostgres(t, data) })
	p := launch(t, append([]string{"up", "-config", "../../nsready.hcl", "-data", data, "-ready-file", file,
		"-collector", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-nats-monitor", "127.0.0.1:0"}, args...)...)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for {
		select {
		case <-tick.C:
		case <-p.done:
			t.Fatalf("up ended: %s", p.out.String())
		case <-deadline:
			t.Fatalf("up is not ready: %s", p.out.String())
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var r ready
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		return p, r
	}
}

func TestUp(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	began := time.Now()
	p, r := up(t, data)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the first start took %s", took)
	}
	if r.Pid != p.cmd.Process.Pid || r.Data != data || !strings.HasPrefix(r.DatabaseURL, "postgres://") || len(r.AdminToken) < 32 {
		t.Errorf("ready file %+v", r)
	}
	for _, url := range []string{r.Collector + "/v1/health", r.Admin + "/health", r.NATSMonitor + "/varz"} {
		resp, err := http.Get(url)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", url, resp, err)
		}
		resp.Body.Close()
	}

	// Load from the declared devices, and the comparison with what is stored.
	load := launch(t, "load", "-data", data, "-rate", "50", "-duration", "2s", "-batch", "3", "-json")
	if code := load.exit(); code != 0 || !strings.Contains(load.out.String(), `"lost": 0`) {
		t.Errorf("load exits with %d: %s", code, load.out.String())
	}
	plan := launch(t, "plan", "-data", data, "-config", "../../nsready.hcl", "-detailed-exitcode")
	if code := plan.exit(); code != 0 {
		t.Errorf("plan after up exits with %d: %s", code, plan.out.String())
	}

	// Nobody else gets the data directory, or a port that is taken.
	second := launch(t, "up", "-config", "../../nsready.hcl", "-data", data)
	if code := second.exit(); code != 1 || !strings.Contains(second.out.String(), fmt.Sprintf("in use by another nsready, pid %d", r.Pid)) || strings.Count(second.out.String(), "\n") != 1 {
		t.Errorf("a second up exits with %d: %s", code, second.out.String())
	}
	taken := launch(t, "up", "-config", "../../nsready.hcl", "-data", filepath.Join(t.TempDir(), "other"), "-collector", strings.TrimPrefix(r.Collector, "http://"))
	if code := taken.exit(); code != 1 || !strings.Contains(taken.out.String(), "-collector: ") || strings.Count(taken.out.String(), "\n") != 1 {
		t.Errorf("up on a taken port exits with %d: %s", code, taken.out.String())
	}

	// Ctrl-C stops it, and what it started.
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("up exits with %d: %s", code, p.out.String())
	}
	for _, gone := range []string{filepath.Join(data, "ready.json"), filepath.Join(data, "postgres", "postmaster.pid")} {
		if _, err := os.Stat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", gone, err)
		}
	}

	began = time.Now()
	_, again := up(t, data)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the second start took %s", took)
	}
	if again.AdminToken != r.AdminToken {
		t.Error("the second start has another admin token")
	}
}

func TestUpGoesOnAfterAKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p, _ := up(t, data, "-simulate")
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.exit()
	stale := launch(t, "load", "-data", data, "-rate", "1", "-duration", "1s")
	if code := stale.exit(); code != 1 {
		t.Errorf("load against a killed service exits with %d: %s", code, stale.out.String())
	}
	up(t, data)
}

func TestUpRefuses(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.hcl")
	if err := os.WriteFile(broken, []byte("customer \"a\" {\n  projekt \"b\" {}\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "up", "-config", broken, "-data", filepath.Join(t.TempDir(), "data"))
	if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), "broken.hcl:2:3") || !strings.Contains(p.out.String(), `"project"`) {
		t.Errorf("a broken declaration: %d, %s", code, p.out.String())
	}

	data := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(data, "postgres"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "postgres", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = launch(t, "up", "-config", "../../nsready.hcl", "-data", data, "-collector", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-nats-monitor", "127.0.0.1:0")
	if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), "PostgreSQL 9") {
		t.Errorf("a cluster of another major: %d, %s", code, p.out.String())
	}

	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "NOT TESTED without root: up on a full disk, which takes a mount")
		return
	}
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=96m"); err != nil {
		fmt.Fprintln(os.Stderr, "NOT TESTED: up on a full disk: mounting a tmpfs:", err)
		return
	}
	defer syscall.Unmount(small, 0)
	p = launch(t, "up", "-config", "../../nsready.hcl", "-data", filepath.Join(small, "data"), "-collector", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-nats-monitor", "127.0.0.1:0")
	if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), "no space: ") {
		t.Errorf("a full disk: %d, %s", code, p.out.String())
	}
}

// TestDemoValuesArrive sends one event of a device of nsready.hcl, by the ids that follow from its address.
func TestDemoValuesArrive(t *testing.T) {
	_, r := up(t, filepath.Join(t.TempDir(), "data"))
	declared, _, diags := config.Load("../../nsready.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := declared.Devices[0]
	key := "project:" + d.ProjectID.String() + ":" + d.Parameters[0]
	body := fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"HTTP","source_timestamp":%q,"metrics":[{"parameter_key":%q,"value":1}]}`,
		d.ProjectID, d.SiteID, d.ID, time.Now().UTC().Format(time.RFC3339), key)
	resp, err := http.Post(r.Collector+"/v1/ingest", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status  string    `json:"status"`
		TraceID uuid.UUID `json:"trace_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 || answer.Status != "queued" {
		t.Errorf("%d %+v %v", resp.StatusCode, answer, err)
	}
	db, err := store.Open(t.Context(), r.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stored(t, db, 1)
	newest, err := db.Newest(t.Context(), 1)
	if err != nil || len(newest) != 1 || newest[0].Value == nil || *newest[0].Value != 1 || !strings.HasSuffix(newest[0].Device, d.Addr.Name()) {
		t.Errorf("stored is %+v, %v", newest, err)
	}
}

func TestShownValue(t *testing.T) {
	two, none := 2, 0
	for _, test := range []struct {
		value     float64
		precision *int
		want      string
	}{
		{230.456789, nil, "230.46"}, {1234567, nil, "1.2346e+06"}, {230.456, &two, "230.46"}, {230, &two, "230.00"}, {0.5, &none, "0"}, {1234567, &none, "1234567"}, {1e300, &two, "1e+300"},
	} {
		if got := shownValue(test.value, test.precision); got != test.want {
			t.Errorf("%v is shown as %s, want %s", test.value, got, test.want)
		}
	}
}

// TestSimulatedValuesArrive is what make run shows.
func TestSimulatedValuesArrive(t *testing.T) {
	_, r := up(t, filepath.Join(t.TempDir(), "data"), "-simulate")
	db, err := store.Open(t.Context(), r.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stored(t, db, 20)
}

// stored waits until the database holds at least n events.
func stored(t *testing.T, db *store.Store, n int64) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		have, err := db.CountEvents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if have >= n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d events are stored, want %d", have, n)
		}
	}
}

// An engine that begins anew while PostgreSQL is away waits for it.
func TestUpBeginsAnewWithoutItsDatabase(t *testing.T) {
	url := migrated(t)
	c, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	name := pgx.Identifier{c.Database}.Sanitize()
	c.Database = "postgres"
	db, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	allow := func(connections bool) {
		if _, err := db.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %t`, name, connections)); err != nil {
			t.Fatal(err)
		}
	}
	var log lockedBuffer
	m := &machine{data: t.TempDir(), database: url, token: "secret", log: slog.New(slog.NewTextHandler(&log, nil)), options: upOptions{
		collector: "127.0.0.1:0", admin: "127.0.0.1:0", monitor: "127.0.0.1:0", queueBytes: minQueue}}
	allow(false)
	began := make(chan error, 1)
	go func() {
		e, err := m.beginAnew(t.Context())
		if err == nil {
			err = e.Close()
		}
		began <- err
	}()
	until(t, "the wait to be logged", 30*time.Second, func() bool {
		return len(began) > 0 || strings.Contains(log.String(), "the database cannot be used yet")
	})
	allow(true)
	if err := <-began; err != nil {
		t.Error(err)
	}
}

// A declaration that lost most of its objects by mistake is not applied by a start either.
func TestUpDestroysNoMoreThanApplyDoes(t *testing.T) {
	m := &machine{database: migrated(t), say: func(string, ...any) {}}
	load := func(devices int) *registry.Snapshot {
		t.Helper()
		text := "customer \"acme\" {\n  project \"mill\" {\n    site \"north\" {\n"
		for i := range devices {
			text += fmt.Sprintf("      device \"d%d\" {\n        type = \"meter\"\n      }\n", i)
		}
		name := filepath.Join(t.TempDir(), "nsready.hcl")
		if err := os.WriteFile(name, []byte(text+"    }\n  }\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		declared, _, diags := config.Load(name)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return declared
	}
	if err := m.declare(t.Context(), load(20)); err != nil {
		t.Fatal(err)
	}
	if err := m.declare(t.Context(), load(5)); err == nil || !strings.Contains(err.Error(), "it destroys 15 objects of 23 that are managed") || !strings.Contains(err.Error(), "-max-destroy=15") {
		t.Errorf("%v", err)
	}
	const live = `SELECT count(*) FROM devices WHERE retired_at IS NULL`
	if n := ask[int](t, m.database, live); n != 20 {
		t.Errorf("%d devices are left", n)
	}
	if err := m.options.maxDestroy.Set("15"); err != nil {
		t.Fatal(err)
	}
	if err := m.declare(t.Context(), load(5)); err != nil || ask[int](t, m.database, live) != 5 {
		t.Error(err)
	}
}
