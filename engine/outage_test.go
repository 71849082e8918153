package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine"
	"github.com/nsready/nsready/engine/postgres"
	"github.com/nsready/nsready/engine/store/storetest"
)

// proxy stands between the service and its database.
type proxy struct {
	listener net.Listener
	to       string
	delay    atomic.Int64 // nanoseconds, of each piece in each direction
	silent   atomic.Bool  // all that comes is swallowed
	commits  atomic.Int64 // so many of the next COMMITs have no answer: every other one gets through
	accepted atomic.Int64 // connections
	running  sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			p.serve(c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.running.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	db, err := net.Dial("tcp", p.to)
	if err != nil {
		c.Close()
		return
	}
	p.mu.Lock()
	p.open = append(p.open, c, db)
	p.mu.Unlock()
	p.running.Go(func() { p.pump(c, db) })
	p.running.Go(func() { p.pump(db, c) })
}

func (p *proxy) pump(from, to net.Conn) {
	carryOut := false
	defer func() {
		from.Close()
		if carryOut { // a reset would take back what the database has not read
			to.(*net.TCPConn).CloseWrite()
		} else {
			to.Close()
		}
	}()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if d := time.Duration(p.delay.Load()); d > 0 {
			<-time.After(d)
		}
		cut := int64(0)
		if bytes.Contains(piece[:n], []byte("COMMIT\x00")) {
			cut = max(p.commits.Add(-1)+1, 0)
		}
		if n > 0 && !p.silent.Load() && cut%2 == 0 {
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if cut > 0 {
			carryOut = cut%2 == 0
			return
		}
		if err != nil {
			return
		}
	}
}

// outage is a database that things happen to.
type outage struct {
	t       *testing.T
	cluster *postgres.Cluster
	options postgres.Options
	name    string // of the database
	admin   *pgx.Conn
	proxy   *proxy
}

func (o *outage) connect() (*pgx.Conn, error) {
	return pgx.Connect(context.Background(), o.cluster.URL(o.name))
}

func (o *outage) exec(sql string) {
	o.t.Helper()
	if _, err := o.admin.Exec(context.Background(), sql); err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
}

// cut ends all connections of the service.
func (o *outage) cut() {
	o.t.Helper()
	o.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'nsready%'")
}

// repeat calls do every interval until the function that it returns is called.
func repeat(interval time.Duration, do func()) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				do()
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// TestDatabaseOutages does to the database what befalls databases. Meanwhile events are accepted, the database is not stormed,
// and health tells; afterwards all is stored by itself.
// TestACommitWithoutAnAnswer cuts connections just before and just after a COMMIT reaches the database: the worker cannot know
// which, and asks the database for its offset.
func TestACommitWithoutAnAnswer(t *testing.T) {
	direct := storetest.Database(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	s := startOn(t, u.String())
	const cuts = 10
	p.commits.Store(cuts)
	events := 0
	for deadline := time.Now().Add(60 * time.Second); p.commits.Load() > 0; events++ {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d commits were cut", cuts-p.commits.Load(), cuts)
		}
		at := time.Now().Add(-time.Minute).Add(time.Duration(events) * time.Millisecond)
		expect(t, "status", s.post("application/json", s.event(events%4, at, "voltage", fmt.Sprint(events))).status, 200)
	}
	s.drained()
	db, err := pgx.Connect(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	var rows, different, stored, others int
	err = db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM telemetry), (SELECT count(DISTINCT vals[1]) FROM telemetry),
		(SELECT sum(stored) FROM ledger), (SELECT sum(accepted - stored) FROM ledger)`).Scan(&rows, &different, &stored, &others)
	if err != nil {
		t.Fatal(err)
	}
	if rows != events || different != events || stored != events || others != 0 {
		t.Errorf("%d events were acknowledged; there are %d rows, %d different ones, and in the ledger %d stored and %d others", events, rows, different, stored, others)
	}
}

func TestDatabaseOutages(t *testing.T) {
	// PostgreSQL's user must be able to reach the small file system by its path.
	dir, err := os.MkdirTemp("", "nsready-outage-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := postgres.Options{Dir: filepath.Join(dir, "postgres"), NoSync: true, Settings: map[string]string{"max_connections": "20"}}
	cluster, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.Addr = cluster.Addr()
	defer func() {
		if err := cluster.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()

	const lasts = 5 * time.Second
	for _, c := range []struct {
		name  string
		quiet bool          // the database goes on, so that health need not tell
		lasts time.Duration // when not as long as the others
		begin func(t *testing.T, o *outage) (heal func())
	}{
		{name: "down", begin: func(t *testing.T, o *outage) func() {
			if err := cluster.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			return func() {
				if cluster, err = postgres.Start(context.Background(), options); err != nil {
					t.Fatal(err)
				}
				o.cluster = cluster
			}
		}},
		{name: "sessions are killed", lasts: 3 * time.Second, begin: func(t *testing.T, o *outage) func() { return repeat(200*time.Millisecond, o.cut) }},
		{name: "slow", quiet: true, lasts: 3 * time.Second, begin: func(t *testing.T, o *outage) func() {
			o.proxy.delay.Store(int64(100 * time.Millisecond))
			return func() { o.proxy.delay.Store(0) }
		}},
		{name: "silent", lasts: 12 * time.Second, begin: func(t *testing.T, o *outage) func() {
			o.proxy.silent.Store(true)
			return func() { o.proxy.silent.Store(false) }
		}},
		{name: "read-only", lasts: 3 * time.Second, begin: func(t *testing.T, o *outage) func() {
			o.exec("ALTER SYSTEM SET default_transaction_read_only = on")
			o.exec("SELECT pg_reload_conf()")
			return func() {
				o.exec("ALTER SYSTEM RESET default_transaction_read_only")
				o.exec("SELECT pg_reload_conf()")
			}
		}},
		{name: "out of connections", begin: func(t *testing.T, o *outage) func() {
			var held []*pgx.Conn
			for mine := 1; mine > 0; {
				o.cut()
				for {
					c, err := o.connect()
					if err != nil {
						break
					}
					held = append(held, c)
				}
				const ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'nsready%'"
				if err := o.admin.QueryRow(context.Background(), ours).Scan(&mine); err != nil {
					t.Fatal(err)
				}
			}
			return func() {
				for _, c := range held {
					c.Close(context.Background())
				}
			}
		}},
		{name: "password rotated", begin: func(t *testing.T, o *outage) func() {
			o.exec("ALTER ROLE service PASSWORD 'new'")
			o.cut()
			return func() { o.passfile("new") }
		}},
		{name: "tables locked", begin: func(t *testing.T, o *outage) func() {
			o.exec("BEGIN")
			o.exec("LOCK TABLE telemetry, telemetry_latest, partitions IN ACCESS EXCLUSIVE MODE")
			return func() { o.exec("ROLLBACK") }
		}},
		{name: "full disk", begin: func(t *testing.T, o *outage) func() {
			path := filepath.Join(dir, "small", "ballast")
			f, err := os.Create(path)
			if err == nil {
				if _, err = io.Copy(f, zeros{}); errors.Is(err, syscall.ENOSPC) {
					err = nil
				}
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			space := ""
			if c.name == "full disk" {
				space = " TABLESPACE small"
				smallSpace(t, cluster, filepath.Join(dir, "small"))
			}
			o := newOutage(t, cluster, space)
			s := startOn(t, cluster.URL(o.name), func(e *engine.Options) { e.DatabaseURL = o.url() })
			began := time.Now().Add(-time.Minute).Truncate(time.Second)
			sent := 0
			var took []time.Duration
			send := func() {
				t.Helper()
				sent++
				start := time.Now()
				if a := s.post("application/json", s.event(sent%4, began.Add(time.Duration(sent)*time.Millisecond), "voltage", "1")); a.status != 200 {
					t.Fatalf("event %d: %d %s", sent, a.status, a.body)
				}
				took = append(took, time.Since(start))
			}
			health := func() (h struct {
				Service string
			}) {
				text := s.get(s.engine.Addresses().Collector + "/v1/health").body
				if err := json.Unmarshal([]byte(text), &h); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				return h
			}
			send()
			s.drained()

			heal := c.begin(t, o)
			attempts := o.proxy.accepted.Load()
			outageBegan, told := time.Now(), time.Duration(0)
			took = took[:0]
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			if c.lasts == 0 {
				c.lasts = lasts
			}
			for time.Since(outageBegan) < c.lasts {
				send()
				if told == 0 && health().Service == "degraded" {
					told = time.Since(outageBegan)
				}
				<-tick.C
			}
			rate := float64(o.proxy.accepted.Load()-attempts) / c.lasts.Seconds()
			heal()
			healed := time.Now()
			if !c.quiet && (told == 0 || told > 5*time.Second) {
				t.Errorf("health told the outage after %v", told)
			}
			const mayTry = 2*5 + 4 // a second: two workers, and four that look after other things
			if rate > mayTry {
				t.Errorf("the database got %.1f connections a second, want at most %d", rate, mayTry)
			}
			for time.Since(healed) < 10*time.Second && (s.engine.Depth() > 0 || health().Service != "ok") {
				<-tick.C
			}
			recovered := time.Since(healed)
			if h := health(); s.engine.Depth() > 0 || h.Service != "ok" {
				t.Errorf("10 s later %d events wait, and the service is %s: %s", s.engine.Depth(), h.Service,
					s.get(s.engine.Addresses().Collector+"/v1/health").body)
				wait(t, "the rest to be stored", func() bool { return s.engine.Depth() == 0 })
			}
			conn, err := o.connect()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			var stored int
			if err := conn.QueryRow(context.Background(), "SELECT count(*) FROM ingest_events").Scan(&stored); err != nil {
				t.Fatal(err)
			}
			expect(t, "stored values", stored, sent)
			slices.Sort(took)
			t.Logf("%d events, p99 of an answer %v, %.1f connections a second, told after %v, all well %v after the end",
				sent, took[len(took)*99/100], rate, told.Round(time.Millisecond), recovered.Round(time.Millisecond))
		})
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var databases atomic.Int64

// newOutage makes an empty database of the cluster, and a way to it for the service, with a user and password of its own.
func newOutage(t *testing.T, cluster *postgres.Cluster, space string) *outage {
	t.Helper()
	o := &outage{t: t, cluster: cluster, name: "postgres"}
	o.name = fmt.Sprintf("outage_%d", databases.Add(1))
	asSuperuser(t, cluster, "CREATE DATABASE "+o.name+" TEMPLATE template0"+space)
	if o.name == "outage_1" {
		asSuperuser(t, cluster, "CREATE ROLE service SUPERUSER LOGIN")
	}
	asSuperuser(t, cluster, "ALTER ROLE service PASSWORD 'old'")
	var err error
	if o.admin, err = o.connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.admin.Close(context.Background())
		asSuperuser(t, o.cluster, "DROP DATABASE "+o.name+" WITH (FORCE)")
	})
	o.proxy = startProxy(t, cluster.Addr())
	t.Setenv("PGPASSFILE", filepath.Join(t.TempDir(), "passwords"))
	o.passfile("old")
	return o
}

// url is the service's, by way of the proxy, without the password.
func (o *outage) url() string {
	u := url.URL{Scheme: "postgres", User: url.User("service"), Host: o.proxy.listener.Addr().String(), Path: "/" + o.name, RawQuery: "sslmode=disable"}
	return u.String()
}

func (o *outage) passfile(password string) {
	o.t.Helper()
	if err := os.WriteFile(os.Getenv("PGPASSFILE"), []byte("*:*:*:service:"+password+"\n"), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// smallSpace makes a tablespace on a file system of little room; the log is elsewhere.
func smallSpace(t *testing.T, cluster *postgres.Cluster, path string) {
	t.Helper()
	skip := func(err error) {
		fmt.Fprintln(os.Stderr, "NOT TESTED: a full disk under the database, which takes a mount:", err)
		t.Skip(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=64m,mode=0755"); err != nil {
		skip(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	place := filepath.Join(path, "space")
	var owner syscall.Stat_t
	if err := errors.Join(os.Mkdir(place, 0o700), syscall.Stat(filepath.Join(filepath.Dir(path), "postgres"), &owner), os.Chown(place, int(owner.Uid), int(owner.Gid))); err != nil {
		t.Fatal(err)
	}
	asSuperuser(t, cluster, "CREATE TABLESPACE small LOCATION '"+place+"'")
	t.Cleanup(func() { asSuperuser(t, cluster, "DROP TABLESPACE small") })
}

func asSuperuser(t *testing.T, cluster *postgres.Cluster, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
