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
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/api"
	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/mqtt"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/stream"
	"github.com/nsready/nsready/engine/telemetry"
	"github.com/nsready/nsready/engine/worker"
)

// Roles are the parts of the service that a process runs.
type Roles struct{ Collector, Worker, Admin bool }

// Everything is all roles in one process.
var Everything = Roles{Collector: true, Worker: true, Admin: true}

// queue reports whether a role needs the queue. Such a process listens where the collector does, if only for its health.
func (r Roles) queue() bool { return r.Collector || r.Worker }

// Options of the service.
type Options struct {
	Roles       Roles
	Name        string // of this process among those that run workers
	DatabaseURL string
	External    *ExternalQueue // nil for the embedded queue
	QueueDir    string         // directory of the embedded queue
	QueueBytes  int64          // the most that the queue may hold
	MinFree     int64          // bytes that must stay free on the queue's file system
	Collector   string         // addresses to listen on, host:port, port 0 for a free one
	Admin       string
	MQTT        string // of the collector; "" for none
	Monitor     string // of JetStream's own HTTP monitor
	AdminToken  string
	Log         *slog.Logger
}

// ErrQueueReplaced is wrapped by Run's error when the queue is not the one any more with which the service began, or has
// fewer frames than it had. A new Engine takes stock of what is there.
var ErrQueueReplaced = stream.ErrReplaced

// Engine is the service. New makes it, Run runs it once.
type Engine struct {
	options Options
	log     *slog.Logger

	store      *store.Store
	view       *view
	server     *stream.Server
	queue      *stream.Queue
	crew       *crew
	workers    []*worker.Worker              // one for each partition, whoever has it
	claims     []atomic.Pointer[store.Claim] // of the workers that have one
	rejections *rejections
	ingest     *ingest.Service
	registry   *prometheus.Registry
	metrics    *metrics

	collector, admin net.Listener
	collectorHTTP    *api.Server
	adminHTTP        *http.Server
	mqtt             net.Listener // nil for none
	receiver         *mqtt.Receiver

	accepted  atomic.Int64 // events, since the start
	imbalance atomic.Int64 // of the ledger, when it was last looked at
	dbError   atomic.Pointer[error]
	problems  []string           // found at the start
	missing   uint64             // frames that the queue had, were not stored, and are gone, as found at the start
	seen      []uint64           // newest frames that the database was told of; only watchHealth looks at it
	written   marks              // by this run; only watchHealth looks at it, and the stop after it
	told      []telemetry.Offset // how far all was stored a second ago; only watchHealth looks at it
	cleanups  []cleanup
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
	if o.Roles.queue() {
		if e.collector, err = e.listen("collector", o.Collector); err != nil {
			return nil, err
		}
	}
	if o.Roles.Admin {
		if e.admin, err = e.listen("admin", o.Admin); err != nil {
			return nil, err
		}
	}
	if o.Roles.Collector && o.MQTT != "" {
		if e.mqtt, err = e.listen("MQTT", o.MQTT); err != nil {
			return nil, err
		}
	}
	if e.store, err = store.Open(ctx, o.DatabaseURL); err != nil {
		return nil, err
	}
	e.defers("database", func() error { e.store.Close(); return nil })
	if o.Roles.queue() {
		if err := e.newPipeline(ctx); err != nil {
			return nil, err
		}
		var in api.Accepter
		if o.Roles.Collector {
			devices := accepter{e.ingest, e}
			in = devices
			e.receiver = &mqtt.Receiver{Ingest: devices, Metrics: e.metrics.mqtt, Log: e.log.With("component", "mqtt"), Grace: answerTimeout}
		}
		e.collectorHTTP = api.NewServer(e.newHTTP(e.collectorHandler(in)))
	}
	if o.Roles.Admin {
		admin := &api.Admin{Token: o.AdminToken, Inventory: e.store, Log: e.log.With("component", "api")}
		e.adminHTTP = e.newHTTP(admin.Handler())
	}
	return e, nil
}

// newPipeline assembles what a value passes through.
func (e *Engine) newPipeline(ctx context.Context) error {
	e.view = &view{store: e.store, log: e.log.With("component", "registry")}
	if err := e.view.reload(ctx); err != nil {
		return err
	}
	if err := e.openQueue(ctx); err != nil {
		return err
	}
	e.metrics = newMetrics(e.registry, e)
	e.metrics.worker.Gaps.Add(float64(e.missing))
	e.seen = make([]uint64, len(e.queue.Partitions()))
	n := len(e.queue.Partitions()) / telemetry.Lanes
	e.claims = make([]atomic.Pointer[store.Claim], n)
	turn := make(chan struct{}, 1)
	for i := range n {
		e.workers = append(e.workers, e.newWorker(i, n, turn))
	}
	e.rejections = &rejections{store: e.store, log: e.log.With("component", "ingest")}
	e.ingest = e.newIngest()
	if e.view.Snapshot().Discovery != nil {
		counts, err := e.store.CountPending(ctx)
		if err != nil {
			return err
		}
		e.ingest.Pending.Settle(counts, false)
	}
	e.crew = newCrew(e.store, e.options.Name, e.queue.Connected, e.log.With("component", "worker"))
	if e.options.Roles.Worker {
		return e.crew.join(ctx)
	}
	return nil
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

func (e *Engine) newWorker(i, n int, turn chan struct{}) *worker.Worker {
	return &worker.Worker{
		Partition: i, Partitions: n,
		Claim: func(ctx context.Context) (worker.Claim, error) {
			var streams [telemetry.Lanes]store.Stream
			for lane := range streams {
				number := lane*n + i
				streams[lane] = store.Stream{Epoch: e.queue.Partitions()[number].Epoch, Number: number}
			}
			ctx, cancel := context.WithTimeout(ctx, claimTimeout)
			defer cancel()
			c, err := e.store.Claim(ctx, e.crew.member, streams)
			switch {
			case errors.Is(err, store.ErrOwned):
				return nil, worker.ErrOwned
			case err != nil:
				return nil, err
			}
			e.claims[i].Store(c)
			return claim{c, &e.claims[i]}, nil
		},
		Read:     func(lane int, after uint64) worker.Reader { return e.queue.Read(lane*n+i, after) },
		Registry: e.view.Snapshot,
		Turn:     turn,
		Metrics:  &e.metrics.worker,
		Log:      e.log.With("component", "worker"),
	}
}

// stored returns how far a stream of the queue is stored, and how many of its events workers have taken.
func (e *Engine) stored(number int) (o telemetry.Offset, taken uint64) {
	w, lane := e.workers[number%len(e.workers)], number/len(e.workers)
	return w.Stored(lane), w.Taken(lane)
}

// claim makes a *store.Claim a worker.Claim.
type claim struct {
	*store.Claim
	at *atomic.Pointer[store.Claim]
}

func (c claim) Close() {
	c.at.Store(nil)
	c.Claim.Close()
}

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
	a.count(result, err)
	return result, err
}

func (a accepter) Submit(ctx context.Context, format ingest.Format, body []byte) (ingest.Result, func(context.Context) error, error) {
	result, wait, err := a.Service.Submit(ctx, format, body)
	if wait == nil {
		a.count(result, err)
		return result, nil, err
	}
	return result, func(ctx context.Context) error {
		err := wait(ctx)
		a.count(result, err)
		return err
	}, nil
}

func (a accepter) count(result ingest.Result, err error) {
	m := a.e.metrics
	if err != nil {
		if r := (*ingest.Rejection)(nil); !errors.As(err, &r) {
			m.unqueued.Inc()
		}
		return
	}
	a.e.accepted.Add(int64(result.Accepted))
	m.queued.Add(float64(result.Accepted))
	m.untimed.Add(float64(result.Untimed))
	m.held.Add(float64(result.Held))
}

// newIngest makes what judges devices' events and queues them.
func (e *Engine) newIngest() *ingest.Service {
	return &ingest.Service{
		Registry: e.view, Queue: e.queue, Partitions: len(e.workers),
		Reject: func(device uuid.UUID, r *ingest.Rejection) {
			if r.Fields > 0 { // the event itself is accepted
				e.metrics.fields.Add(float64(r.Fields))
			} else {
				e.metrics.refused.Inc()
				switch r.Code {
				case ingest.CodeRateLimitedDevice:
					e.metrics.limitedDevice.Inc()
				case ingest.CodeRateLimitedCustomer:
					e.metrics.limitedCustomer.Inc()
				default:
					e.metrics.invalid.Inc()
				}
			}
			e.rejections.add(device, r)
		},
	}
}

// collectorHandler serves devices, or health and metrics alone where there is no collector and in is nil.
func (e *Engine) collectorHandler(in api.Accepter) http.Handler {
	collector := &api.Collector{
		Ingest: in,
		Health: e.health, Ready: e.ready, Latency: e.metrics.request, Log: e.log.With("component", "api"),
		Metrics: promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{}),
	}
	return collector.Handler()
}

// limitConnections holds a listener to the registry's limits.
func (e *Engine) limitConnections(l net.Listener) net.Listener {
	return &api.Listener{Listener: l, Refused: e.metrics.connections.Inc, Limits: func() (total, perAddress int64) {
		limits := e.view.Snapshot().EffectiveLimits()
		return limits.Connections, limits.ConnectionsPerAddress
	}}
}

func (e *Engine) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(e.log.With("component", "api").Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second,
		MaxHeaderBytes: 16 << 10,
	}
}

// Addresses are where the service listens, as host:port, "" where it does not.
type Addresses struct{ Collector, Admin, MQTT, Monitor string }

// Addresses returns the bound addresses.
func (e *Engine) Addresses() (a Addresses) {
	if e.collector != nil {
		a.Collector = e.collector.Addr().String()
	}
	if e.admin != nil {
		a.Admin = e.admin.Addr().String()
	}
	if e.mqtt != nil {
		a.MQTT = e.mqtt.Addr().String()
	}
	if e.server != nil {
		a.Monitor = e.server.MonitorAddr()
	}
	return a
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
	queueDone, mqttDone := make(chan struct{}), make(chan struct{})

	if e.options.Roles.Admin {
		g.Go(func() error { return ignoreClosed(e.adminHTTP.Serve(e.admin)) })
	}
	if e.options.Roles.queue() {
		g.Go(func() error { return ignoreClosed(e.collectorHTTP.Serve(e.limitConnections(e.collector))) })
		g.Go(func() error { defer close(mqttDone); return e.serveMQTT(running) })
		g.Go(func() error { defer close(queueDone); return e.queue.Run(queueCtx) })
		if e.server != nil {
			g.Go(func() error { return e.server.Run(workCtx) })
		}
		g.Go(func() error { return e.view.watch(workCtx) })
		g.Go(func() error { return e.rejections.run(workCtx) })
		g.Go(func() error { return e.watchHealth(workCtx) })
		g.Go(func() error { return e.discover(running) })
	} else {
		close(mqttDone)
		close(queueDone)
	}
	if e.options.Roles.Worker {
		g.Go(func() error { return e.crew.run(workCtx) })
		for _, w := range e.workers {
			g.Go(func() error { return e.crew.work(workCtx, w) })
		}
		g.Go(func() error { return e.tidyQueue(workCtx) })
		g.Go(func() error { return e.tidyStore(workCtx) })
	}
	g.Go(func() error {
		<-running.Done()
		e.log.Info("stopping")
		stop, cancel := context.WithTimeout(base, answerTimeout)
		defer cancel()
		var err error
		if e.collectorHTTP != nil {
			err = shutdown(stop, e.collectorHTTP)
		}
		if e.adminHTTP != nil {
			err = errors.Join(err, shutdown(stop, e.adminHTTP))
		}
		<-mqttDone
		stopQueue()
		<-queueDone
		e.drain(base)
		stopWork()
		return err
	})
	err = g.Wait()
	if e.options.Roles.queue() {
		err = errors.Join(err, e.writeMarks())
	}
	return err
}

// serveMQTT serves devices until ctx ends, and acknowledges what is in flight then.
func (e *Engine) serveMQTT(ctx context.Context) error {
	if e.mqtt == nil {
		return nil
	}
	if err := e.receiver.Serve(ctx, e.limitConnections(e.mqtt)); err != nil {
		return fmt.Errorf("MQTT: %w", err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown lets requests in flight finish, and cuts off those that take too long.
func shutdown(ctx context.Context, s interface {
	Shutdown(context.Context) error
	Close() error
}) error {
	if err := s.Shutdown(ctx); err != nil {
		return s.Close()
	}
	return nil
}

// drain waits until the workers have stored what is in the queue of this process, or time is up. An external queue is
// left to the other processes.
func (e *Engine) drain(ctx context.Context) {
	if e.server == nil {
		return
	}
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
