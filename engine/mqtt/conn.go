package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

// conn is a client's connection. One goroutine reads packets and queues what they publish; another waits for the disk and
// acknowledges in the order of the publishes, so that a client's publishes in flight share an fsync.
type conn struct {
	net.Conn
	r        *Receiver
	in       *bufio.Reader
	clientID string        // as named by Receiver.name; "" for none
	idle     time.Duration // the longest silence; 0 for any
	writing  sync.Mutex
	ending   atomic.Pointer[string] // why reading has to end
}

func newConn(r *Receiver, socket net.Conn) *conn {
	return &conn{Conn: socket, r: r, in: bufio.NewReaderSize(socket, readBuffer)}
}

// end makes the connection read nothing more. What is in flight is still acknowledged.
func (c *conn) end(reason string) {
	c.ending.CompareAndSwap(nil, &reason)
	c.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection, which reads nothing either
}

// deadline allows the time d for what is read next, or any time if d is 0.
func (c *conn) deadline(d time.Duration) error {
	var t time.Time
	if d > 0 {
		t = time.Now().Add(d)
	}
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	if c.ending.Load() != nil { // its deadline may have been the one before
		return os.ErrDeadlineExceeded
	}
	return nil
}

var (
	errDisconnected = errors.New("the client disconnects")
	errHeld         = &telemetry.UnavailableError{Code: "too_many_requests", RetryAfter: minPause, Err: errors.New("too many packets are being read")}
)

// unavailable is an error that passes: the client shall send again.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// ack is an acknowledgement that waits for the disk.
type ack struct {
	wait   func(context.Context) error // nil when there is nothing to wait for
	packet [4]byte
	silent bool // QoS 0
}

// serve serves the client until one of the two has enough, or stop ends. work ends when there is no more time.
func (c *conn) serve(stop, work context.Context) {
	log := c.r.Log.With("client", c.RemoteAddr().String())
	defer c.Close()
	defer func() {
		if cause := recover(); cause != nil {
			log.Error("panic while serving a connection", "panic", cause, "stack", string(debug.Stack()))
		}
	}()
	err := c.connect()
	if err == nil {
		err = c.converse(work)
	}
	reason := reasonNone
	var (
		broken  violation
		passing unavailable
	)
	switch {
	case errors.As(err, &passing):
		reason = reasonUnavailable
		c.pause(stop, passing)
	case errors.As(err, &broken):
		reason = reasonProtocol
	case c.ending.Load() != nil:
		reason = *c.ending.Load()
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = reasonTimeout
	}
	if reason != reasonNone {
		c.r.Metrics.Closed.WithLabelValues(reason).Inc()
	}
	log.Debug("connection ends", "reason", reason, "err", err)
}

// pause keeps a client from coming back at once.
func (c *conn) pause(stop context.Context, passing unavailable) {
	pause := minPause
	if u := (*telemetry.UnavailableError)(nil); errors.As(passing, &u) {
		pause = min(max(u.RetryAfter, minPause), maxPause)
	}
	select {
	case <-time.After(pause):
	case <-stop.Done():
	}
}

// connect reads the CONNECT packet and answers it.
func (c *conn) connect() error {
	if err := c.deadline(connectTimeout); err != nil {
		return err
	}
	first, err := c.in.ReadByte()
	if err != nil {
		return err
	}
	if first != connectPacket<<4 {
		return violation("the first packet is no CONNECT")
	}
	length, err := readLength(c.in)
	if err != nil {
		return err
	}
	if length > maxConnect {
		return violation(fmt.Sprintf("a CONNECT of more than %d bytes", maxConnect))
	}
	b := c.r.body()
	defer b.release()
	if err := b.read(c.in, length); err != nil {
		return err
	}
	asked, code, err := decodeConnect(b.data)
	if err != nil {
		return err
	}
	if code != 0 {
		return errors.Join(violation(fmt.Sprintf("a CONNECT that is refused with code %d", code)), c.send([]byte{connackPacket << 4, 2, 0, code}))
	}
	c.idle = asked.keepAlive + asked.keepAlive/2
	c.r.name(c, asked.clientID)
	return c.send([]byte{connackPacket << 4, 2, 0, 0})
}

// converse serves packets until one side ends it, and returns after the last acknowledgement.
func (c *conn) converse(work context.Context) (err error) {
	acks := make(chan ack, window)
	acknowledged := make(chan error, 1)
	go func() { acknowledged <- c.acknowledge(work, acks) }()
	defer func() {
		close(acks)
		if failed := <-acknowledged; failed != nil {
			err = failed // it is the reason why reading ended
		}
	}()
	for {
		if err := c.packet(work, acks); err != nil {
			return err
		}
	}
}

// acknowledge sends acknowledgements when their time has come. After the first that fails it sends none, as their order is
// the publishes'; the client sends again what it has none for.
func (c *conn) acknowledge(work context.Context, acks <-chan ack) (failed error) {
	fail := func(err error, reason string) {
		if failed == nil {
			failed = err
			c.end(reason)
		}
	}
	for a := range acks {
		if a.wait != nil {
			if err := a.wait(work); err != nil {
				c.r.Metrics.Unavailable.Inc()
				if !a.silent {
					fail(unavailable{err}, reasonUnavailable)
				}
				continue
			}
			c.r.Metrics.Queued.Inc()
		}
		if failed == nil && !a.silent {
			if err := c.send(a.packet[:]); errors.Is(err, os.ErrDeadlineExceeded) {
				fail(err, reasonTimeout)
			} else if err != nil {
				fail(err, reasonNone)
			}
		}
	}
	return failed
}

// packet reads a packet and does what it says.
func (c *conn) packet(work context.Context, acks chan<- ack) error {
	if c.in.Buffered() == 0 {
		if err := c.deadline(c.idle); err != nil {
			return err
		}
	}
	first, err := c.in.ReadByte()
	if err != nil {
		return err
	}
	length, err := readLength(c.in)
	if err != nil {
		return err
	}
	kind, flags := first>>4, first&0x0f
	switch {
	case length > MaxPacket:
		return violation(fmt.Sprintf("a packet of more than %d bytes", MaxPacket))
	case !flagsAllowed(kind, flags):
		return violation("a packet with flags that its type does not have")
	}
	if c.in.Buffered() < length {
		if err := c.deadline(packetTimeout); err != nil {
			return err
		}
	}
	b := c.r.body()
	defer b.release()
	if err := b.read(c.in, length); err != nil {
		return err
	}
	switch {
	case kind == publishPacket:
		p, err := decodePublish(flags, b.data)
		if err != nil {
			return err
		}
		return c.publish(work, p, acks)
	case kind == pubrelPacket && length == 2: // the end of a publish with QoS 2, whose PUBREC said already that it is on disk
		id := answer(pubcompPacket, uint16(b.data[0])<<8|uint16(b.data[1]))
		return c.send(id[:])
	case kind == subscribePacket:
		id, filters, err := decodeFilters(kind, b.data)
		if err != nil {
			return err
		}
		return c.send(suback(id, filters))
	case kind == unsubscribePacket:
		id, _, err := decodeFilters(kind, b.data)
		if err != nil {
			return err
		}
		done := answer(unsubackPacket, id)
		return c.send(done[:])
	case kind == pingreqPacket && length == 0:
		return c.send([]byte{pingrespPacket << 4, 0})
	case kind == disconnectPacket && length == 0:
		return errDisconnected
	}
	return violation(fmt.Sprintf("a packet of type %d and %d bytes, which a client does not send", kind, length))
}

// publish queues what a client publishes. QoS 2 is QoS 1 with two packets more: an event that comes twice is stored once.
func (c *conn) publish(work context.Context, p publish, acks chan<- ack) error {
	a := ack{packet: answer(pubackPacket, p.id), silent: p.qos == 0}
	if p.qos == 2 {
		a.packet = answer(pubrecPacket, p.id)
	}
	format, payload, code := decodeTopic(string(p.topic), p.payload)
	if code != "" {
		c.r.Ingest.Refuse(code, p.topic, refusals[code])
		c.r.Metrics.Refused.Inc()
		acks <- a
		return nil
	}
	_, wait, err := c.r.Ingest.Submit(work, format, payload)
	var refused *ingest.Rejection
	switch {
	case errors.As(err, &refused), err == nil && wait == nil:
		c.r.Metrics.Refused.Inc()
	case err != nil:
		c.r.Metrics.Unavailable.Inc()
		if a.silent {
			return nil
		}
		return unavailable{err}
	}
	a.wait = wait
	acks <- a
	return nil
}

func (c *conn) send(b []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// body is a packet's body, read into memory that is used again.
type body struct {
	r    *Receiver
	data []byte
	held int64
}

func (r *Receiver) body() *body {
	if b, ok := r.bodies.Get().(*body); ok {
		return b
	}
	return &body{r: r}
}

func (b *body) release() {
	b.r.held.Add(-b.held)
	b.held = 0
	if cap(b.data) <= keptRead {
		b.r.bodies.Put(b)
	}
}

// read reads n bytes. Memory grows with what has come, and is counted against what the receiver may hold.
func (b *body) read(in io.Reader, n int) error {
	b.data = b.data[:0]
	for len(b.data) < n {
		size := min(n, max(aheadRead, 2*len(b.data)))
		b.held += int64(size - len(b.data))
		if b.r.held.Add(int64(size-len(b.data))) > maxHeld {
			return unavailable{errHeld}
		}
		if cap(b.data) < size {
			b.data = append(make([]byte, 0, size), b.data...)
		}
		have := len(b.data)
		b.data = b.data[:size]
		if got, err := io.ReadFull(in, b.data[have:]); err != nil {
			b.data = b.data[:have+got]
			return err
		}
	}
	return nil
}
