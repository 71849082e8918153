package stream

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
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
// message is synced to disk before it is acknowledged.
type Server struct {
	server *server.Server
}

// StartServer starts the embedded server and waits until it is ready.
func StartServer(o ServerOptions) (*Server, error) {
	opts := &server.Options{
		ServerName: "nsready", DontListen: true, NoSigs: true, NoSystemAccount: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: o.Dir, SyncAlways: true,
		JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 1 << 50, // the stream's MaxBytes is the limit
		MaxPayload: maxPayload,
	}
	if o.Monitor != "" {
		host, port, err := net.SplitHostPort(o.Monitor)
		if err != nil {
			return nil, fmt.Errorf("JetStream monitor address %q: %w", o.Monitor, err)
		}
		opts.HTTPHost = host
		if opts.HTTPPort, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("JetStream monitor address %q: port %q is not a number", o.Monitor, port)
		}
		// The server only logs a failure to listen, so it is tried here first.
		l, err := net.Listen("tcp", o.Monitor)
		if err != nil {
			return nil, fmt.Errorf("JetStream monitor: %w", err)
		}
		l.Close()
		if opts.HTTPPort == 0 {
			opts.HTTPPort = server.RANDOM_PORT
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("starting JetStream: %w", err)
	}
	logger := &serverLog{log: o.Log}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if !s.ReadyForConnections(10*time.Second) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("starting JetStream in %s: %s", o.Dir, logger.reason("not ready after 10 s"))
	}
	return &Server{server: s}, nil
}

// Connect returns a connection through memory. It never buffers what it cannot send.
func (s *Server) Connect() (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s.server), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.Name("nsready"))
}

// MonitorAddr returns the bound address of the HTTP monitor, "" when there is none.
func (s *Server) MonitorAddr() string {
	if a := s.server.MonitorAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Shutdown stops the server and waits for it.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
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
