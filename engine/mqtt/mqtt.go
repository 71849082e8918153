// Package mqtt is the MQTT 3.1.1 side of the collector: devices publish events, and have their acknowledgement when these
// are on disk. It is a receiver, not a broker: nobody can subscribe, and nothing of a session outlives its connection.
//
// MQTT 3.1.1 has no negative acknowledgement. What can never be accepted is acknowledged all the same, or the device would
// send it for ever, and is reported as every refused event. What may be accepted later is not acknowledged; the connection
// is closed after a moment, and the device sends it again when it is back.
package mqtt

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/ingest"
)

// Limits on clients, in bytes unless they say otherwise.
const (
	MaxPacket   = 512 << 10 // what comes after a packet's header
	MaxClients  = 8192
	maxConnect  = 16 << 10 // a CONNECT packet
	maxClientID = 256
	maxHeld     = 64 << 20 // of all packets that are being read
	aheadRead   = 4 << 10  // the most that is set aside for a packet before it has come
	keptRead    = 64 << 10 // the most that is kept after it
	readBuffer  = 2 << 10  // of each connection
	window      = 64       // publishes of a connection that wait for the disk; no more are read meanwhile

	connectTimeout = 10 * time.Second // from the connection to the end of CONNECT
	packetTimeout  = 30 * time.Second // from a packet's header to its end
	writeTimeout   = 10 * time.Second
	minPause       = time.Second // before a connection is closed on which something was not accepted just now
	maxPause       = 5 * time.Second
	acceptPause    = 100 * time.Millisecond // after the system refused a new connection
)

// Ingester takes bodies in; see ingest.Service.
type Ingester interface {
	Submit(ctx context.Context, format ingest.Format, body []byte) (result ingest.Result, wait func(context.Context) error, err error)
	Refuse(code string, input []byte, message string)
}

// Metrics of a Receiver.
type Metrics struct {
	Connections prometheus.Gauge
	Closed      *prometheus.CounterVec // connections that the receiver ended, by one of Reasons
	Queued      prometheus.Counter     // publishes of which at least one event was accepted
	Refused     prometheus.Counter     // publishes of which none ever will
	Unavailable prometheus.Counter     // publishes that could not be accepted just then
}

// Reasons why the receiver ends a connection.
var Reasons = []string{reasonProtocol, reasonTimeout, reasonUnavailable, reasonLimit, reasonTakenOver}

const (
	reasonProtocol    = "protocol"    // the client breaks it, or a packet is too large
	reasonTimeout     = "timeout"     // the client is silent for longer than it said, or reads nothing
	reasonUnavailable = "unavailable" // a publish was not acknowledged
	reasonLimit       = "limit"       // there are MaxClients
	reasonTakenOver   = "taken_over"  // another connection has the same client identifier
	reasonNone        = ""            // the client ended it, or the service stops: not counted
)

// Receiver serves devices. Its fields are set before Serve.
type Receiver struct {
	Ingest  Ingester
	Metrics Metrics
	Log     *slog.Logger
	Grace   time.Duration // how long a stop waits for publishes in flight

	held   atomic.Int64
	bodies sync.Pool

	mu      sync.Mutex
	conns   map[*conn]struct{}
	clients map[string]*conn // by client identifier
	serving sync.WaitGroup
}

// Serve accepts connections until ctx ends. Then it reads nothing more, acknowledges what is in flight, and returns.
func (r *Receiver) Serve(ctx context.Context, l net.Listener) error {
	r.conns, r.clients = map[*conn]struct{}{}, map[string]*conn{}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	err := r.accept(ctx, work, l)
	r.mu.Lock()
	for c := range r.conns {
		c.end(reasonNone)
	}
	r.mu.Unlock()
	late := time.AfterFunc(r.Grace, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		for c := range r.conns {
			c.Close()
		}
	})
	defer late.Stop()
	r.serving.Wait()
	return err
}

func (r *Receiver) accept(ctx, work context.Context, l net.Listener) error {
	for {
		socket, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				socket.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // such as too many open files, which passes
			r.Log.Warn("cannot accept a connection, will go on trying", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		c := newConn(r, socket)
		if !r.add(c) {
			r.Metrics.Closed.WithLabelValues(reasonLimit).Inc()
			socket.Close()
			continue
		}
		r.serving.Go(func() {
			defer r.remove(c)
			c.serve(ctx, work)
		})
	}
}

func (r *Receiver) add(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.conns) >= MaxClients {
		return false
	}
	r.conns[c] = struct{}{}
	r.Metrics.Connections.Inc()
	return true
}

func (r *Receiver) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	if r.clients[c.clientID] == c {
		delete(r.clients, c.clientID)
	}
	r.Metrics.Connections.Dec()
}

// name gives a connection its client's identifier, and ends the one that had it: most often the same device's, cut off.
func (r *Receiver) name(c *conn, clientID string) {
	if clientID == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.clients[clientID]; old != nil {
		old.end(reasonTakenOver)
	}
	r.clients[clientID], c.clientID = c, clientID
}
