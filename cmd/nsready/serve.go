package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nsready/nsready/engine"
	"github.com/nsready/nsready/engine/store"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	roles, name      string
	databaseURL      string
	queue            engine.ExternalQueue
	monitors         string
	collector, admin string
	queueBytes       byteSize
	readyFile        string
	asJSON           bool
	adminToken       string
	parsedRoles      engine.Roles
}

// runServe runs parts of the service against an external database and queue until it is interrupted.
func runServe(ctx context.Context, s *streams, args []string) error {
	var o serveOptions
	f := newFlags(s, "serve [flags]", `Runs the collector, workers, the admin API, or any of them, against a PostgreSQL and a NATS server that others run.
Several processes may share them: workers divide the queue among themselves, and take over from one that dies within
seconds. It waits for a database or a server that is not there yet, and brings the database's schema up to date.

Environment: DATABASE_URL, NATS_URL, ADMIN_BEARER_TOKEN.

Example:
  DATABASE_URL=postgres://nsready:secret@db/nsready NATS_URL=nats://nats:4222 nsready serve -role collector,worker -collector :8001`)
	f.StringVar(&o.roles, "role", "collector,worker,admin", "`parts` to run, separated by commas")
	f.StringVar(&o.name, "name", "", "`name` of this process among those that run workers; one that starts under the name of another\nthat has died takes over at once (default HOST/PID, which in a container stays the same)")
	f.StringVar(&o.databaseURL, "database-url", "", "`URL` of the database, as postgres://USER:PASSWORD@HOST:PORT/DATABASE (default $DATABASE_URL)")
	f.StringVar(&o.queue.URL, "nats-url", "", "`URLs` of the NATS servers, as nats://HOST:4222, separated by commas (default $NATS_URL)")
	f.StringVar(&o.queue.Credentials, "nats-credentials", "", "`file` with a NATS user's JWT and seed")
	f.StringVar(&o.queue.CA, "nats-ca", "", "`file` with the authorities that sign the NATS servers' certificates, PEM")
	f.StringVar(&o.monitors, "nats-monitor-urls", "", "`URLs` of the NATS servers' monitors, as http://HOST:8222, one for each server, separated by commas:\nthey tell whether an acknowledgement means that an event is synced to disk")
	f.IntVar(&o.queue.Replicas, "replicas", 0, "`copies` of the queue in the NATS cluster (default 1 for a new queue, else what it has)")
	f.IntVar(&o.queue.Partitions, "partitions", 4, "`number` of partitions of a new queue: no more workers than that have work")
	f.StringVar(&o.collector, "collector", "127.0.0.1:8001", "`address` of the collector, and of health and metrics of a worker")
	f.StringVar(&o.admin, "admin", "127.0.0.1:8000", "`address` of the admin API")
	f.Var(&o.queueBytes, "queue-size", "the most that the queue may hold, a `size` such as 10GiB (default 10GiB)")
	f.StringVar(&o.readyFile, "ready-file", "", "`file` to write when ready: where it listens, as JSON")
	f.BoolVar(&o.asJSON, "json", false, "log as JSON, and print the content of the ready file when ready")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if err := o.complete(); err != nil {
		return err
	}
	err := o.serve(ctx, s, newLogger(s.stderr, o.asJSON))
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// complete checks the flags and fills in what they leave out.
func (o *serveOptions) complete() error {
	for role := range strings.SplitSeq(o.roles, ",") {
		switch strings.TrimSpace(role) {
		case "collector":
			o.parsedRoles.Collector = true
		case "worker":
			o.parsedRoles.Worker = true
		case "admin":
			o.parsedRoles.Admin = true
		default:
			return fmt.Errorf("-role %q: want collector, worker, admin, or several of them separated by commas", o.roles)
		}
	}
	if o.databaseURL = cmp.Or(o.databaseURL, os.Getenv("DATABASE_URL")); o.databaseURL == "" {
		return errors.New("which database? Name it with -database-url URL or with the environment variable DATABASE_URL; 'nsready up' brings its own")
	}
	o.queue.URL = cmp.Or(o.queue.URL, os.Getenv("NATS_URL"))
	if o.queue.URL == "" && (o.parsedRoles.Collector || o.parsedRoles.Worker) {
		return errors.New("which NATS server? Name it with -nats-url URL or with the environment variable NATS_URL; 'nsready up' brings its own")
	}
	if o.adminToken = os.Getenv("ADMIN_BEARER_TOKEN"); o.adminToken == "" && o.parsedRoles.Admin {
		return errors.New("the admin API needs a token: set the environment variable ADMIN_BEARER_TOKEN")
	}
	if o.queue.Partitions < 1 || o.queue.Partitions > engine.MaxPartitions {
		return fmt.Errorf("-partitions: want 1 to %d", engine.MaxPartitions)
	}
	if o.queue.Replicas < 0 || o.queue.Replicas > 5 {
		return errors.New("-replicas: want 1 to 5, which NATS allows")
	}
	if o.queueBytes == 0 {
		o.queueBytes = 10 << 30
	}
	if o.queueBytes < minQueue {
		return fmt.Errorf("-queue-size: %d MiB are the least that the queue works with", minQueue>>20)
	}
	for flag, address := range map[string]string{"collector": o.collector, "admin": o.admin} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("-%s: want HOST:PORT, or :PORT for all of this machine's addresses: %w", flag, err)
		}
	}
	if o.monitors != "" {
		o.queue.Monitors = strings.Split(o.monitors, ",")
	}
	for _, monitor := range o.queue.Monitors {
		if u, err := url.Parse(monitor); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("-nats-monitor-urls: want URLs such as http://nats:8222, not %q", monitor)
		}
	}
	for flag, name := range map[string]string{"nats-credentials": o.queue.Credentials, "nats-ca": o.queue.CA} {
		if name == "" {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("-%s: %w", flag, err)
		}
	}
	if o.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("-name: this machine has no name of its own: %w", err)
		}
		o.name = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	return nil
}

// serve runs the service until ctx ends.
func (o *serveOptions) serve(ctx context.Context, s *streams, log *slog.Logger) error {
	spareMemory()
	begin := func(ctx context.Context) (*engine.Engine, error) {
		e, err := newEngine(ctx, engine.Options{
			Roles: o.parsedRoles, Name: o.name, DatabaseURL: o.databaseURL, External: &o.queue, QueueBytes: int64(o.queueBytes),
			Collector: o.collector, Admin: o.admin, AdminToken: o.adminToken, Log: log,
		})
		if err != nil {
			return nil, err
		}
		a := e.Addresses()
		if err := o.announce(s, a, log); err != nil {
			return nil, errors.Join(err, e.Close())
		}
		o.collector, o.admin = cmp.Or(a.Collector, o.collector), cmp.Or(a.Admin, o.admin) // should it begin anew
		return e, nil
	}
	e, err := begin(ctx)
	if err != nil {
		return err
	}
	err = runEngine(ctx, log, e, begin)
	if o.readyFile != "" {
		err = errors.Join(err, ignoreMissing(os.Remove(o.readyFile)))
	}
	return err
}

// runEngine runs an engine until ctx ends. When it finds its queue replaced by another, or cut, another one begins anew,
// which takes stock of what is there.
func runEngine(ctx context.Context, log *slog.Logger, e *engine.Engine, begin func(context.Context) (*engine.Engine, error)) error {
	for {
		err := e.Run(ctx)
		if !errors.Is(err, engine.ErrQueueReplaced) || ctx.Err() != nil {
			return err
		}
		log.Error("beginning anew", "err", err)
		if e, err = begin(ctx); err != nil {
			return err
		}
	}
}

// newEngine makes an engine, for which it waits for the database.
func newEngine(ctx context.Context, o engine.Options) (*engine.Engine, error) {
	for {
		if err := awaitDatabase(ctx, o.DatabaseURL, o.Log); err != nil {
			return nil, err
		}
		e, err := engine.New(ctx, o)
		if err == nil || !store.MayPass(err) || isListening(err) || ctx.Err() != nil {
			return e, err
		}
		// The database went away while the queue was waited for, say.
		o.Log.Warn("cannot start yet, will try again", "err", err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// isListening reports whether an error is that of an address to listen on, which does not pass by itself.
func isListening(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "listen"
}

// serving is what -ready-file holds.
type serving struct {
	Roles     string `json:"roles"`
	Name      string `json:"name"`
	Collector string `json:"collector,omitempty"`
	Admin     string `json:"admin,omitempty"`
	Pid       int    `json:"pid"`
}

func (o *serveOptions) announce(s *streams, a engine.Addresses, log *slog.Logger) error {
	r := serving{Roles: o.roles, Name: o.name, Pid: os.Getpid()}
	if a.Collector != "" {
		r.Collector = "http://" + a.Collector
	}
	if a.Admin != "" {
		r.Admin = "http://" + a.Admin
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil && o.readyFile != "" {
		err = writeFile(o.readyFile, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	if o.asJSON {
		if _, err := fmt.Fprintln(s.stdout, string(text)); err != nil {
			return fmt.Errorf("announcing: %w", err)
		}
	}
	log.Info("ready", "roles", o.roles, "collector", a.Collector, "admin", a.Admin)
	return nil
}

// awaitDatabase waits until the database answers, and brings its schema up to date. What cannot pass by itself, such as a
// schema of a newer program, is an error at once.
func awaitDatabase(ctx context.Context, url string, log *slog.Logger) error {
	const shortest, longest = 200 * time.Millisecond, 5 * time.Second
	said := ""
	for pause := shortest; ; pause = min(2*pause, longest) {
		db, err := store.Open(ctx, url)
		if err == nil {
			err = db.Migrate(ctx)
			db.Close()
			if err == nil || !store.MayPass(err) {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, store.ErrMalformedURL) {
			return err
		}
		if text := err.Error(); text != said {
			log.Warn("the database cannot be used yet, will go on trying", "err", err)
			said = text
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}
