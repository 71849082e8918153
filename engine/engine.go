// Package engine assembles the service from its parts and runs it: the collector, the queue, the workers and the admin
// API.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/api"
	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/stream"
	"github.com/nsready/nsready/engine/telemetry"
	"github.com/nsready/nsready/engine/worker"
)

// Options of the service.
type Options struct {
	DatabaseURL string
	QueueDir    string // directory of the embedded queue
	QueueBytes  int64  // the most that the queue may hold
	MinFree     int64  // bytes that must stay free on the queue's file system
	Collector   string // addresses to listen on, host:port, port 0 for a free one
	Admin       string
	Monitor     string // of JetStream's own HTTP monitor
	AdminToken  string
	Log         *slog.Logger
}

// Engine is the service. New makes it, Run runs it once.
type Engine struct {
	options Options
	log     *slog.Logger

	store      *store.Store
	view       *view
	server     *stream.Server
	queue      *stream.Queue
	workers    []*worker.Worker
	rejections *rejections
	registry   *prometheus.Registry
	metrics    *metrics

	collector, admin net.Listener
	collectorHTTP    *http.Server
	adminHTTP        *http.Server

	accepted atomic.Int64 // events, since the start
	dbError  atomic.Pointer[error]
	problems []string // found at the start
	missing  uint64   // frames that the queue had, were not stored, and are gone, as found at the start
	written  marks    // by this run; only watchHealth looks at it, and the stop after it
	cleanups []cleanup
}

type cleanup struct {
	name string
	run  func() error
}

// New assembles the service: it opens the database, whose schema and registry must be there, starts the queue, and binds
// the addresses. On failure nothing of it is left.
func New(ctx context.Context, o Options) (_ *Engine, err error) {
	e := &Engine{options: o, log: o.Log, registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	// The addresses come first: a taken port is the commonest mistake, and costs nothing to find.
	if e.collector, err = e.listen("collector", o.Collector); err != nil {
		return nil, err
	}
	if e.admin, err = e.listen("admin", o.Admin); err != nil {
		return nil, err
	}
	if e.store, err = store.Open(ctx, o.DatabaseURL); err != nil {
		return nil, err
	}
	e.defers("database", func() error { e.store.Close(); return nil })
	e.view = &view{store: e.store, log: e.log.With("component", "registry")}
	if err := e.view.reload(ctx); err != nil {
		return nil, err
	}
	if err := e.openQueue(ctx); err != nil {
		return nil, err
	}
	e.metrics = newMetrics(e.registry, e)
	e.metrics.worker.Gaps.Add(float64(e.missing))
	for i, p := range e.queue.Partitions() {
		e.workers = append(e.workers, e.newWorker(i, p.Epoch))
	}
	e.rejections = &rejections{store: e.store, log: e.log.With("component", "ingest")}
	e.serve()
	return e, nil
}

func (e *Engine) listen(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	e.defers(name, func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

func (e *Engine) openQueue(ctx context.Context) (err error) {
	log := e.log.With("component", "queue")
	if e.server, err = stream.StartServer(stream.ServerOptions{Dir: filepath.Clean(e.options.QueueDir), Monitor: e.options.Monitor, Log: log}); err != nil {
		return err
	}
	e.defers("JetStream", func() error { e.server.Shutdown(); return nil })
	nc, err := e.server.Connect()
	if err != nil {
		return fmt.Errorf("connecting to the embedded queue: %w", err)
	}
	e.defers("queue connection", func() error { nc.Close(); return nil })
	e.queue, err = stream.Open(ctx, nc, stream.Options{
		Partitions: min(runtime.GOMAXPROCS(0), 16), MaxBytes: e.options.QueueBytes,
		Dir: e.options.QueueDir, MinFree: e.options.MinFree, Log: log,
	})
	if err != nil {
		return err
	}
	known, err := e.readMarks()
	if err != nil {
		e.log.Error("frames that are missing at the queue's end will not be noticed", "err", err)
	}
	for i, p := range e.queue.Partitions() {
		if err := e.compare(ctx, i, p, known[p.Epoch]); err != nil {
			return err
		}
	}
	return nil
}

// compare finds out whether a partition is what the database and the marks know. A queue that was made anew, set back or
// cut may have lost what was not stored yet: that is said, never hidden. One that is behind the database begins a new
// epoch, or the workers would pass new frames over as stored.
func (e *Engine) compare(ctx context.Context, i int, p *stream.Partition, mark uint64) error {
	seq, other, err := e.store.Offset(ctx, p.Epoch, i)
	if err != nil {
		return err
	}
	last := p.Last()
	problem := ""
	switch {
	case p.Fresh && other:
		problem = fmt.Sprintf("queue: partition %d was made anew: what it held and was not stored is lost", i)
	case last < seq:
		problem = fmt.Sprintf("queue: partition %d ends at frame %d, though %d frames of it were stored: what came after them is lost", i, last, seq)
		if err := e.queue.NewEpoch(ctx, i); err != nil {
			return err
		}
	case last < mark:
		problem = fmt.Sprintf("queue: partition %d ends at frame %d, though it had %d: acknowledged events are lost", i, last, mark)
	default:
		return nil
	}
	if mark > max(last, seq) {
		e.missing += mark - max(last, seq)
	}
	e.log.Error(problem, "component", "queue")
	e.problems = append(e.problems, problem)
	return nil
}

func (e *Engine) newWorker(i int, epoch string) *worker.Worker {
	return &worker.Worker{
		Partition: i, Partitions: len(e.queue.Partitions()),
		Claim: func(ctx context.Context) (worker.Claim, error) {
			c, err := e.store.Claim(ctx, epoch, i)
			if err != nil {
				return nil, err
			}
			return claim{c}, nil
		},
		Read: func(ctx context.Context, after uint64) (worker.Reader, error) {
			r, err := e.queue.Read(ctx, i, after)
			if err != nil {
				return nil, err
			}
			return r, nil
		},
		Registry: e.view.Snapshot,
		Metrics:  &e.metrics.worker,
		Log:      e.log.With("component", "worker"),
	}
}

// claim makes a *store.Claim a worker.Claim.
type claim struct{ *store.Claim }

func (c claim) Begin(ctx context.Context, events []telemetry.Event) (worker.Tx, error) {
	tx, err := c.Claim.Begin(ctx, events)
	if err != nil {
		return nil, err
	}
	return tx, nil
}

// accepter counts what ingest decides.
type accepter struct {
	*ingest.Service
	e *Engine
}

func (a accepter) Accept(ctx context.Context, format ingest.Format, body []byte) (ingest.Result, error) {
	result, err := a.Service.Accept(ctx, format, body)
	m := a.e.metrics
	if err != nil {
		if r := (*ingest.Rejection)(nil); !errors.As(err, &r) {
			m.unqueued.Inc()
		}
		return result, err
	}
	a.e.accepted.Add(int64(result.Accepted))
	m.queued.Add(float64(result.Accepted))
	return result, nil
}

func (e *Engine) serve() {
	service := &ingest.Service{
		Registry: e.view, Queue: e.queue, Partitions: len(e.workers),
		Reject: func(device uuid.UUID, r *ingest.Rejection) {
			e.metrics.refused.Inc()
			e.metrics.invalid.Inc()
			e.rejections.add(device, r)
		},
	}
	log := e.log.With("component", "api")
	collector := &api.Collector{
		Ingest: accepter{service, e}, Health: e.health, Ready: e.ready, Latency: e.metrics.request, Log: log,
		Metrics: promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{}),
	}
	admin := &api.Admin{Token: e.options.AdminToken, Inventory: e.store, Log: log}
	e.collectorHTTP, e.adminHTTP = newHTTP(collector.Handler(), log), newHTTP(admin.Handler(), log)
}

func newHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second,
		MaxHeaderBytes: 16 << 10,
	}
}

// Addresses are where the service listens, as host:port.
type Addresses struct{ Collector, Admin, Monitor string }

// Addresses returns the bound addresses.
func (e *Engine) Addresses() Addresses {
	return Addresses{e.collector.Addr().String(), e.admin.Addr().String(), e.server.MonitorAddr()}
}

// Snapshot returns the registry as the service sees it now.
func (e *Engine) Snapshot() *registry.Snapshot { return e.view.Snapshot() }

// Limits on how long a stop may take; what is in the queue then waits there for the next start.
const (
	answerTimeout = 15 * time.Second // for requests in flight
	drainTimeout  = 10 * time.Second // for the queue
)

// Run serves until ctx ends or a part fails. Then it stops in the order of a value's way: no new requests, answers to
// those in flight, the queue published, the workers drained.
func (e *Engine) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, e.Close()) }()
	g, running := errgroup.WithContext(ctx)
	base := context.WithoutCancel(ctx)
	queueCtx, stopQueue := context.WithCancel(base)
	workCtx, stopWork := context.WithCancel(base)
	defer stopQueue()
	defer stopWork()
	queueDone := make(chan struct{})

	g.Go(func() error { return ignoreClosed(e.collectorHTTP.Serve(e.collector)) })
	g.Go(func() error { return ignoreClosed(e.adminHTTP.Serve(e.admin)) })
	g.Go(func() error { defer close(queueDone); return e.queue.Run(queueCtx) })
	for _, w := range e.workers {
		g.Go(func() error { return w.Run(workCtx) })
	}
	g.Go(func() error { return e.view.watch(workCtx) })
	g.Go(func() error { return e.rejections.run(workCtx) })
	g.Go(func() error { return e.watchHealth(workCtx) })
	g.Go(func() error { return e.tidyQueue(workCtx) })
	g.Go(func() error { return e.tidyStore(workCtx) })
	g.Go(func() error {
		<-running.Done()
		e.log.Info("stopping")
		stop, cancel := context.WithTimeout(base, answerTimeout)
		defer cancel()
		err := errors.Join(shutdown(stop, e.collectorHTTP), shutdown(stop, e.adminHTTP))
		stopQueue()
		<-queueDone
		e.drain(base)
		stopWork()
		return err
	})
	return errors.Join(g.Wait(), e.writeMarks())
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown lets requests in flight finish, and cuts off those that take too long.
func shutdown(ctx context.Context, s *http.Server) error {
	if err := s.Shutdown(ctx); err != nil {
		return s.Close()
	}
	return nil
}

// drain waits until the workers have stored what is in the queue, or time is up.
func (e *Engine) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		d := e.depth()
		if d.QueueDepth == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.log.Warn("events stay in the queue for the next start", "events", d.QueueDepth)
			return
		}
	}
}

// defers names a clean-up for close.
func (e *Engine) defers(name string, run func() error) {
	e.cleanups = append(e.cleanups, cleanup{name, run})
}

// Close frees what New has taken. It is for an Engine that is not run, and does nothing after Run.
func (e *Engine) Close() (err error) {
	for len(e.cleanups) > 0 {
		c := e.cleanups[len(e.cleanups)-1]
		e.cleanups = e.cleanups[:len(e.cleanups)-1]
		if failed := c.run(); failed != nil {
			err = errors.Join(err, fmt.Errorf("closing %s: %w", c.name, failed))
		}
	}
	return err
}
