package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ServerOptions configures the embedded JetStream server.
type ServerOptions struct {
	Dir     string // where the streams are stored
	Monitor string // host:port of the HTTP monitor, port 0 for a free one; "" for none
	Log     *slog.Logger
}

// Server is a JetStream server inside this process. It has no client port: only this process can reach it. Every stored
// message is synced to disk before it is acknowledged. While Run runs, a server whose store broke is replaced by a new one
// on the same directory, and the connections follow by themselves.
type Server struct {
	options  ServerOptions
	monitor  string // address, once it is known
	mu       sync.Mutex
	server   *server.Server // nil between two
	restarts atomic.Uint64
	damaged  atomic.Uint64
}

// A file store that met a write error refuses everything until its server is started anew.
const (
	lookInterval    = 500 * time.Millisecond
	shortestRestart = time.Second
	longestRestart  = 30 * time.Second
)

// StartServer starts the embedded server and waits until it is ready.
func StartServer(o ServerOptions) (*Server, error) {
	s := &Server{options: o, monitor: o.Monitor}
	if err := s.start(); err != nil {
		return nil, err
	}
	s.monitor = s.MonitorAddr() // a restart keeps the port
	return s, nil
}

func (s *Server) start() error {
	opts := &server.Options{
		ServerName: "nsready", DontListen: true, NoSigs: true, NoSystemAccount: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: s.options.Dir, SyncAlways: true,
		JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 1 << 50, // the stream's MaxBytes is the limit
		MaxPayload: maxPayload,
	}
	if s.monitor != "" {
		host, port, err := net.SplitHostPort(s.monitor)
		if err != nil {
			return fmt.Errorf("JetStream monitor address %q: %w", s.monitor, err)
		}
		opts.HTTPHost = host
		if opts.HTTPPort, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("JetStream monitor address %q: port %q is not a number", s.monitor, port)
		}
		// The server only logs a failure to listen, so it is tried here first.
		l, err := net.Listen("tcp", s.monitor)
		if err != nil {
			return fmt.Errorf("JetStream monitor: %w", err)
		}
		l.Close()
		if opts.HTTPPort == 0 {
			opts.HTTPPort = server.RANDOM_PORT
		}
	}
	damaged, err := mend(s.options.Dir, s.options.Log)
	s.damaged.Add(damaged)
	if err != nil {
		return fmt.Errorf("starting JetStream: %w", err)
	}
	n, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("starting JetStream: %w", err)
	}
	logger := &serverLog{log: s.options.Log}
	n.SetLoggerV2(logger, false, false, false)
	n.Start()
	if !n.ReadyForConnections(10*time.Second) || !n.JetStreamEnabled() {
		n.Shutdown()
		n.WaitForShutdown()
		return fmt.Errorf("starting JetStream in %s: %s", s.options.Dir, logger.reason("not ready after 10 s"))
	}
	s.mu.Lock()
	s.server = n
	s.mu.Unlock()
	return nil
}

// Run watches the store until ctx ends, and restarts the server when it is broken: at once, then at growing intervals.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	pause, last := shortestRestart, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		why := s.broken()
		if why == "" || time.Since(last) < pause {
			continue
		}
		if time.Since(last) > 2*longestRestart {
			pause = shortestRestart
		} else {
			pause = min(2*pause, longestRestart)
		}
		err := s.restart()
		last = time.Now()
		if err != nil {
			s.options.Log.Error("JetStream is broken and does not start again, will go on trying", "why", why, "err", err, "next", pause)
		} else {
			s.options.Log.Warn("JetStream was broken and was started again", "why", why, "restarts", s.Restarts())
		}
	}
}

// broken returns why the server has to be replaced, or "".
func (s *Server) broken() string {
	n := s.current()
	switch {
	case n == nil:
		return "it did not start"
	case !n.JetStreamEnabled():
		return "it has switched JetStream off"
	}
	for _, e := range n.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			return e.Error
		}
	}
	return ""
}

// restart replaces the server by a new one on the same directory.
func (s *Server) restart() error {
	s.restarts.Add(1)
	s.Shutdown()
	return s.start()
}

// Restarts returns how many times the server was started again.
func (s *Server) Restarts() uint64 { return s.restarts.Load() }

// Damaged returns how many damaged frames were found in the store's files and passed over.
func (s *Server) Damaged() uint64 { return s.damaged.Load() }

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// InProcessConn gives nats.go a connection to the present server.
func (s *Server) InProcessConn() (net.Conn, error) {
	n := s.current()
	if n == nil {
		return nil, errors.New("JetStream is being started")
	}
	return n.InProcessConn()
}

// Connect returns a connection through memory. It never buffers what it cannot send.
func (s *Server) Connect() (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0), nats.Name("nsready"))
}

// MonitorAddr returns the bound address of the HTTP monitor, "" when there is none.
func (s *Server) MonitorAddr() string {
	if n := s.current(); n != nil {
		if a := n.MonitorAddr(); a != nil {
			return a.String()
		}
	}
	return s.monitor
}

// Shutdown stops the server and waits for it.
func (s *Server) Shutdown() {
	s.mu.Lock()
	n := s.server
	s.server = nil
	s.mu.Unlock()
	if n != nil {
		n.Shutdown()
		n.WaitForShutdown()
	}
}

// serverLog hands the server's warnings and errors to slog, and remembers the last for StartServer's error.
type serverLog struct {
	log  *slog.Logger
	last atomic.Pointer[string]
}

func (l *serverLog) reason(otherwise string) string {
	if last := l.last.Load(); last != nil {
		return *last
	}
	return otherwise
}

func (l *serverLog) Noticef(format string, v ...any) {}
func (l *serverLog) Debugf(format string, v ...any)  {}
func (l *serverLog) Tracef(format string, v ...any)  {}
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.last.Store(&text)
	l.log.Error(text)
}
func (l *serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }
