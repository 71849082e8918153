package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/nsready/nsready/engine"
	"github.com/nsready/nsready/engine/postgres"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/stream"
	"github.com/nsready/nsready/loadgen"
)

// runUp runs everything on this machine until it is interrupted.
func runUp(ctx context.Context, s *streams, args []string) error {
	var o upOptions
	var asJSON bool
	f := newFlags(s, "up [flags]", `Runs the queue, a private PostgreSQL, the collector, the workers and the admin API in one process tree, after it
applied the declaration, unless that destroys more objects than -max-destroy allows. Ctrl-C stores what is in the queue and
stops everything.

Example:
  nsready up -config nsready.hcl -simulate`)
	f.StringVar(&o.config, "config", defaultConfig, configUsage)
	var given variables
	given.register(f)
	f.StringVar(&o.data, "data", ".nsready", "`directory` of all that is kept")
	f.StringVar(&o.collector, "collector", "127.0.0.1:8001", "`address` of the collector, port 0 for a free one")
	f.StringVar(&o.admin, "admin", "127.0.0.1:8000", "`address` of the admin API")
	f.StringVar(&o.mqtt, "mqtt", "", "`address` to receive MQTT 3.1.1 on, such as 127.0.0.1:1883; by default none")
	f.StringVar(&o.monitor, "nats-monitor", "127.0.0.1:8222", "`address` of JetStream's monitor")
	f.StringVar(&o.databaseAddr, "postgres", "127.0.0.1:0", "`address` of the private PostgreSQL")
	f.Var(&o.queueBytes, "queue-size", "the most that the queue may hold, a `size` such as 10GiB; by default that, or a power of two up to half of the free space")
	f.Var(&o.maxDestroy, "max-destroy", maxDestroyUsage)
	f.BoolVar(&o.simulate, "simulate", false, "send plausible values from all declared devices")
	f.StringVar(&o.readyFile, "ready-file", "", "`file` to write when ready: where everything is, as JSON")
	f.BoolVar(&asJSON, "json", false, "log as JSON, and print the content of the ready file when ready")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	declared, err := loadConfig(ctx, s, o.config, asJSON, given)
	if err != nil {
		return err
	}
	m := &machine{options: o, log: newLogger(s.stderr, asJSON), say: func(format string, args ...any) {
		if !asJSON {
			fmt.Fprintf(s.stdout, format+"\n", args...)
		}
	}}
	if err = m.start(ctx, declared); err == nil {
		err = m.announce(s.stdout, asJSON)
	}
	if err == nil {
		defer context.AfterFunc(ctx, func() { m.say("Stopping.") })()
		err = m.run(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, m.stop())
}

// newLogger logs text to a terminal and JSON elsewhere.
func newLogger(w io.Writer, asJSON bool) *slog.Logger {
	if f, ok := w.(*os.File); ok && !asJSON && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}

// byteSize is a flag such as 512MiB or 10GB.
type byteSize int64

func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }

func (b *byteSize) Set(s string) error {
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			if err != nil || n <= 0 || n > math.MaxInt64/u.factor {
				break
			}
			*b = byteSize(n * u.factor)
			return nil
		}
	}
	return errors.New("want a number and a unit, such as 512MiB or 10GB")
}

// databaseName is the original platform's, so that the runbook's psql commands fit.
const databaseName = "nsready"

const (
	minFree  = 256 << 20 // what must stay free on the queue's file system
	minQueue = 64 << 20
)

// upOptions are the flags of up.
type upOptions struct {
	config, data, readyFile                 string
	collector, admin, monitor, databaseAddr string
	mqtt                                    string // "" for none
	queueBytes                              byteSize
	maxDestroy                              destroyLimit
	simulate                                bool
}

// machine is the whole service on one machine: a private PostgreSQL cluster, and the engine on it.
type machine struct {
	options upOptions
	log     *slog.Logger
	say     func(format string, args ...any) // progress, for people

	data     string // absolute
	lock     *os.File
	cluster  atomic.Pointer[postgres.Cluster]
	database string // URL
	token    string
	engine   atomic.Pointer[engine.Engine]
}

// ready is what -ready-file and DATA/ready.json hold.
type ready struct {
	Collector   string `json:"collector"`
	Admin       string `json:"admin"`
	MQTT        string `json:"mqtt,omitempty"` // only with -mqtt
	DatabaseURL string `json:"database_url"`
	NATSMonitor string `json:"nats_monitor"`
	AdminToken  string `json:"admin_token"`
	Data        string `json:"data"`
	Pid         int    `json:"pid"`
}

// start brings everything up to where events are accepted. What it started is stopped by stop, also after an error.
func (m *machine) start(ctx context.Context, declared *registry.Snapshot) error {
	if err := m.prepare(); err != nil {
		return err
	}
	began := time.Now()
	cluster, err := postgres.Start(ctx, m.clusterOptions(m.options.databaseAddr))
	if err != nil {
		return err
	}
	m.cluster.Store(cluster)
	m.say("PostgreSQL %s runs at %s (%.1f s)", cluster.Binaries().Version, cluster.Addr(), time.Since(began).Seconds())
	if err := store.CreateDatabase(ctx, cluster.URL("postgres"), databaseName); err != nil {
		return err
	}
	m.database = cluster.URL(databaseName)
	if err := m.declare(ctx, declared); err != nil {
		return err
	}
	if m.token, err = secret(filepath.Join(m.data, "admin-token"), "ADMIN_BEARER_TOKEN"); err != nil {
		return err
	}
	spareMemory()
	return m.take(engine.New(ctx, m.engineOptions()))
}

func (m *machine) engineOptions() engine.Options {
	return engine.Options{
		Roles: engine.Everything, Name: "up", DatabaseURL: m.database, QueueDir: filepath.Join(m.data, "queue"), QueueBytes: int64(m.options.queueBytes), MinFree: minFree,
		Collector: m.options.collector, Admin: m.options.admin, MQTT: m.options.mqtt, Monitor: m.options.monitor, AdminToken: m.token, Log: m.log,
	}
}

// take makes a new engine the machine's, and keeps its addresses for the next one, should there be any.
func (m *machine) take(e *engine.Engine, err error) error {
	if err != nil {
		return err
	}
	m.engine.Store(e)
	a := e.Addresses()
	m.options.collector, m.options.admin, m.options.monitor, m.options.mqtt = a.Collector, a.Admin, a.Monitor, a.MQTT
	return nil
}

// beginAnew makes another engine. PostgreSQL may be about to be started again.
func (m *machine) beginAnew(ctx context.Context) (*engine.Engine, error) {
	err := m.take(newEngine(ctx, m.engineOptions()))
	return m.engine.Load(), err
}

// prepare makes the data directory, takes its lock, and finds out early what would fail late.
func (m *machine) prepare() (err error) {
	if m.options.data == "" {
		return errors.New("-data is empty: name a directory")
	}
	if m.data, err = filepath.Abs(m.options.data); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(m.data, "queue"), 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	if m.lock, err = lockData(m.data); err != nil {
		return err
	}
	for _, path := range m.readyFiles() { // of an earlier run
		if err := ignoreMissing(os.Remove(path)); err != nil {
			return fmt.Errorf("removing an old ready file: %w", err)
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return fmt.Errorf("-ready-file: %w", err)
		}
	}
	// PostgreSQL's port may be held by a server that is about to be taken over.
	for _, port := range []struct{ flag, address string }{
		{"-collector", m.options.collector}, {"-admin", m.options.admin}, {"-nats-monitor", m.options.monitor}, {"-mqtt", m.options.mqtt},
	} {
		if port.address == "" { // -mqtt alone may be
			continue
		}
		l, failed := net.Listen("tcp", port.address)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w; choose another address, port 0 picks a free one", port.flag, failed))
			continue
		}
		l.Close()
	}
	if err != nil {
		return err
	}
	free, err := stream.FreeSpace(m.data)
	if err != nil {
		return err
	}
	if m.options.queueBytes == 0 {
		m.options.queueBytes = byteSize(queueSize(free))
	}
	if m.options.queueBytes < minQueue {
		return fmt.Errorf("-queue-size: %d MiB are the least that the queue works with", minQueue>>20)
	}
	if err := stream.Ballast(m.data); err != nil {
		return fmt.Errorf("no space: %w", err)
	}
	if free < 2*minFree {
		return fmt.Errorf("no space: %d MiB are free in %s, at least %d MiB are needed", free>>20, m.data, 2*minFree>>20)
	}
	return nil
}

// queueSize is what the queue may hold where nobody said: 10 GiB, or a power of two of about half of the free space, so that
// it is not another at each start.
func queueSize(free int64) int64 {
	if half := uint64(max(free, 0)) / 2; half < 10<<30 {
		return max(int64(1)<<bits.Len64(half)>>1, minQueue)
	}
	return 10 << 30
}

// lockData makes this process the only one on a data directory.
func lockData(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0) // who it is only makes the message better
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by another nsready, pid %s: stop it, or choose another with -data", dir, strings.TrimSpace(string(holder[:n])))
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		f.Close()
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func (m *machine) clusterOptions(addr string) postgres.Options {
	return postgres.Options{Dir: filepath.Join(m.data, "postgres"), Addr: addr, Log: m.log.With("component", "postgres")}
}

// declare migrates the schema and applies the declaration.
func (m *machine) declare(ctx context.Context, declared *registry.Snapshot) error {
	s, err := store.Open(ctx, m.database)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	current, err := s.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	plan := registry.Diff(current, declared)
	if err := plan.Refusal(); err != nil {
		return err
	}
	if refused := (&planner{maxDestroy: m.options.maxDestroy}).judge(plan); len(refused) > 0 {
		return fmt.Errorf("the declaration is not applied: %s", refused[0].why)
	}
	if current.RequiresSavedPlan() && !plan.Empty() {
		m.say("%s: not applied, the registry stays as it is: its policy is require_saved_plan. Run: nsready plan -out estate.plan, then: nsready apply estate.plan", m.options.config)
		return nil
	}
	if plan.Empty() {
		m.say("%s: no changes, %s", m.options.config, declared)
		if current.AppliedRevision == current.Revision {
			return nil
		} // else what was done by hand may be something to record
	}
	// Whoever holds the lock lost this database when it was last stopped, and could renew it only now.
	if held, err := s.LockStatus(ctx); err != nil {
		return err
	} else if held != nil {
		if _, err := s.ForceUnlock(ctx, held.ID); err != nil {
			return err
		}
		m.say("released the registry's lock, which %s held before the database was stopped", clean(held.Who))
	}
	var why occasion
	version, err := s.Apply(ctx, plan, why.of(m.options.config))
	if err != nil || plan.Empty() {
		return err
	}
	m.say("%s: %s, registry version %d", m.options.config, viewPlan(plan).Summary.done(), version)
	return nil
}

// secret returns the value of an environment variable, or else a random one that a file keeps.
func secret(path, variable string) (string, error) {
	if v := os.Getenv(variable); v != "" {
		return v, nil
	}
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) >= 32 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the admin token: %w", err)
	}
	var random [32]byte
	rand.Read(random[:])
	token := "nsr_" + hex.EncodeToString(random[:])
	if err := writeFile(path, []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("keeping the admin token: %w", err)
	}
	return token, nil
}

func (m *machine) ready() ready {
	a := m.engine.Load().Addresses()
	r := ready{
		Collector: "http://" + a.Collector, Admin: "http://" + a.Admin, NATSMonitor: "http://" + a.Monitor,
		DatabaseURL: m.database, AdminToken: m.token, Data: m.data, Pid: os.Getpid(),
	}
	if a.MQTT != "" {
		r.MQTT = "mqtt://" + a.MQTT
	}
	return r
}

// readyFiles returns where to write what ready returns.
func (m *machine) readyFiles() []string {
	files := []string{filepath.Join(m.data, "ready.json")}
	if m.options.readyFile != "" {
		files = append(files, m.options.readyFile)
	}
	return files
}

// announce writes the ready files and says where everything is.
func (m *machine) announce(stdout io.Writer, asJSON bool) error {
	r := m.ready()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	for _, path := range m.readyFiles() {
		if err := writeFile(path, append(text, '\n')); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	if asJSON {
		if _, err := fmt.Fprintln(stdout, string(text)); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
	}
	mqtt := ""
	if r.MQTT != "" {
		mqtt = fmt.Sprintf("  MQTT        %s   (topics: nsready/ingest, nsready/ingest/ndjson)\n", r.MQTT)
	}
	m.say(`Ready.
  collector   %s/v1/ingest   (health: /v1/health, metrics: /metrics)
%s  admin       %s   (token in %s)
  database    psql "$(sed -n 's/.*"database_url": "\(.*\)",/\1/p' %s)"
  JetStream   %s/jsz?streams=1
%sStop with Ctrl-C.`, r.Collector, mqtt, r.Admin, filepath.Join(m.data, "admin-token"), quote(filepath.Join(m.data, "ready.json")), r.NATSMonitor, m.example(r.Collector))
	return nil
}

// example is a command that sends an event of the first device, ready to be pasted.
func (m *machine) example(collector string) string {
	for _, d := range m.engine.Load().Snapshot().Devices {
		if d.Retired || len(d.Parameters) == 0 {
			continue
		}
		return fmt.Sprintf(`Send an event of %s:
  curl %s/v1/ingest -H 'Content-Type: application/json' -d '{"project_id":"%s","site_id":"%s","device_id":"%s",
    "protocol":"HTTP","source_timestamp":"'$(date -u +%%FT%%TZ)'","metrics":[{"parameter_key":"%s","value":1,"quality":192}]}'
`, d.Addr.Path, collector, d.ProjectID, d.SiteID, d.ID, registry.ParameterKey(d.ProjectID, d.Parameters[0]))
	}
	return ""
}

// run serves until ctx ends.
func (m *machine) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return runEngine(ctx, m.log, m.engine.Load(), m.beginAnew) })
	g.Go(func() error { return m.supervise(ctx) })
	if m.options.simulate {
		g.Go(func() error { return m.simulate(ctx) })
	}
	return g.Wait()
}

// supervise starts PostgreSQL again when it ends by itself. Meanwhile events wait in the queue.
func (m *machine) supervise(ctx context.Context) error {
	for {
		c := m.cluster.Load()
		select {
		case <-ctx.Done():
			return nil
		case <-c.Done():
		}
		m.log.Error("PostgreSQL has stopped by itself, starting it again", "err", c.Wait())
		for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
			again, err := postgres.Start(ctx, m.clusterOptions(c.Addr()))
			if err == nil {
				m.cluster.Store(again)
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			m.log.Error("PostgreSQL does not start, will go on trying", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	}
}

// simulate sends what the declared devices might, and shows what arrives in the database.
func (m *machine) simulate(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return loadgen.Simulate(ctx, loadgen.SimulateOptions{Target: "http://" + m.engine.Load().Addresses().Collector, Registry: func() *registry.Snapshot { return m.engine.Load().Snapshot() },
			Progress: func(_, refused int) {
				if refused > 0 {
					m.say("%d simulated events were refused: see error_logs", refused)
				}
			}})
	})
	g.Go(func() error { return m.show(ctx) })
	return g.Wait()
}

// show says every few seconds what is in the database.
func (m *machine) show(ctx context.Context) error {
	const interval, devices, parameters = 3 * time.Second, 3, 4
	var db *store.Store
	defer func() {
		if db != nil {
			db.Close()
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if db == nil {
			var err error
			if db, err = store.Open(ctx, m.database); err != nil { // the engine logs that the database is away
				continue
			}
		}
		events, err := db.CountEvents(ctx)
		var newest []store.Reading
		if err == nil {
			newest, err = db.Newest(ctx, devices)
		}
		if err != nil {
			continue
		}
		m.say("\n%s  %d events stored, %d in the queue", time.Now().Format(time.TimeOnly), events, m.engine.Load().Depth())
		for len(newest) > 0 {
			device := newest[0].Device
			line, n := "", 0
			for len(newest) > 0 && newest[0].Device == device {
				if r := newest[0]; r.Value != nil && n < parameters {
					line += fmt.Sprintf("  %s %s %s", r.Parameter, shownValue(*r.Value, r.Precision), r.Unit)
					n++
				}
				newest = newest[1:]
			}
			m.say("  %-50s%s", device, line)
		}
	}
}

// shownValue writes a value for people, with the decimals of its parameter where it declares them.
func shownValue(v float64, precision *int) string {
	if precision == nil || math.Abs(v) >= 1e15 {
		return strconv.FormatFloat(v, 'g', 5, 64)
	}
	return strconv.FormatFloat(v, 'f', *precision, 64)
}

// stop stops what start started.
func (m *machine) stop() (err error) {
	if e := m.engine.Load(); e != nil {
		err = e.Close()
	}
	if c := m.cluster.Load(); c != nil {
		err = errors.Join(err, c.Stop(context.Background()))
	}
	if m.lock != nil {
		for _, path := range m.readyFiles() {
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
		}
		err = errors.Join(err, m.lock.Close())
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
