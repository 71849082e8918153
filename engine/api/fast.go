package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HotPath is the one path whose requests a Server serves itself.
const HotPath = "/v1/ingest"

const (
	readBuffer = 4 << 10         // of a connection; a longer head is net/http's
	keptAnswer = 16 << 10        // the most that is kept after a long answer
	maxDiscard = 256 << 10       // of a body that its handler did not want; net/http's limit
	lingering  = time.Second / 2 // for a client that still sends, to see its answer before the reset
	coarse     = time.Second     // how far a deadline may be off, as setting one for each request costs
)

// Server serves HTTP/1.1 as the http.Server that it has does, with a shorter way for the plain requests to HotPath: one
// read, the handler, one write, on a goroutine that the connection keeps. A connection whose next request is not plain is
// handed to the http.Server with all that was not answered yet, and stays there. So only the grammar below is served
// here, and any doubt is for net/http to resolve; two readings of one request cannot arise.
//
//	POST /v1/ingest HTTP/1.1 CRLF, then headers that end in CRLF each and an empty line, in 4 KiB together
//	a header is a token of RFC 9110, a colon, and printable ASCII with blanks around it; none is continued or comes twice
//	Host, of letters, digits and .-:[]_ only, is there
//	Content-Length, 1 to 7 digits without leading zeros, at most MaxBatchBody, is there
//	Connection, if any, is keep-alive
//	Transfer-Encoding, TE, Trailer, Expect and Upgrade are not there
type Server struct {
	http *http.Server
	rest *handover

	closing  atomic.Bool
	date     atomic.Pointer[date]
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]*fast // that are ours, or have their first request with net/http
	stopped  chan struct{}      // closed when closing
	none     chan struct{}      // closed when closing and there are no conns
}

// NewServer returns a Server that serves h's handler within h's limits on time, which must be set. It takes h over. The
// handler must not keep a request to HotPath, or anything of it, after it has returned.
func NewServer(h *http.Server) *Server {
	s := &Server{http: h, conns: map[net.Conn]*fast{}, stopped: make(chan struct{}), none: make(chan struct{})}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		// Its first request was in flight when it was handed over, and h.Shutdown drops what is not with a handler yet.
		if c := c.(*handed); c.listed && (state == http.StateIdle || state == http.StateClosed || state == http.StateHijacked) {
			c.listed = false
			s.forget(c.Conn)
		}
	}
	return s
}

// Serve accepts connections until Shutdown or Close, when it returns http.ErrServerClosed, or until the listener fails.
// It returns when all connections that are its own have ended.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return http.ErrServerClosed
	}
	s.listener, s.rest = l, &handover{addr: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	s.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { s.http.Serve(s.rest) }) // ends with s.http, or when rest is closed
	err := s.accept(l, &running)
	if !s.closing.Load() {
		s.stop()
		s.rest.Close()
	} else {
		err = http.ErrServerClosed
	}
	running.Wait()
	return err
}

func (s *Server) accept(l net.Listener, running *sync.WaitGroup) error {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			// Too many open files, for one, pass.
			if failed := (net.Error)(nil); !s.closing.Load() && errors.As(err, &failed) && failed.Temporary() {
				pause = min(max(2*pause, 5*time.Millisecond), time.Second)
				s.logf("accepting failed, next attempt in %v: %v", pause, err)
				select {
				case <-time.After(pause):
					continue
				case <-s.stopped:
				}
			}
			return err
		}
		pause = 0
		c := fasts.Get().(*fast)
		c.begin(s, conn)
		s.mu.Lock()
		if s.closing.Load() {
			s.mu.Unlock()
			conn.Close()
			continue
		}
		s.conns[conn] = c
		s.mu.Unlock()
		running.Go(c.run)
	}
}

func (s *Server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
	}
}

// forget takes a connection off the list.
func (s *Server) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	s.checkNone()
}

func (s *Server) checkNone() {
	if s.closing.Load() && len(s.conns) == 0 {
		select {
		case <-s.none:
		default:
			close(s.none)
		}
	}
}

// stop accepts nothing more and closes what waits for a request.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing.Swap(true) {
		close(s.stopped)
	}
	if s.listener != nil {
		s.listener.Close()
	}
	for conn, c := range s.conns {
		if c.state.CompareAndSwap(waiting, cut) {
			conn.Close()
		}
	}
	s.checkNone()
}

// Shutdown accepts nothing more, closes idle connections, and waits until requests in flight are answered, as that of
// http.Server. When ctx ends first it returns its error; Close then cuts the rest.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	s.http.SetKeepAlivesEnabled(false) // and no more: a request of ours may yet be handed over
	select {
	case <-s.none:
		return s.http.Shutdown(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all connections.
func (s *Server) Close() error {
	s.stop()
	err := s.http.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
	return err
}

// handover is the listener that net/http accepts handed connections from.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.addr }

// handed is a connection of which something was read already.
type handed struct {
	net.Conn
	rest   []byte
	listed bool // in the Server's conns; only its own goroutine looks at it
}

func (h *handed) Read(p []byte) (int, error) {
	if len(h.rest) > 0 {
		n := copy(p, h.rest)
		if h.rest = h.rest[n:]; len(h.rest) == 0 {
			h.rest = nil
		}
		return n, nil
	}
	return h.Conn.Read(p)
}

// CloseWrite is what net/http looks for when it lingers.
func (h *handed) CloseWrite() error { return closeWrite(h.Conn) }

// States of a connection. A stop may close one that waits, and it does so or the connection serves a request, never both.
const (
	waiting int32 = iota // for the first byte of a request
	serving
	cut
)

// fast is a connection and the memory for its requests.
type fast struct {
	server *Server
	conn   net.Conn
	state  atomic.Int32

	buffer     [readBuffer]byte
	from, to   int       // of what was read and not used
	head       head      // of the request at hand
	left       int64     // of its body, to be read
	began      time.Time // when its first bytes were there
	readLimit  time.Time // deadlines that are set
	writeLimit time.Time
	request    http.Request
	url        url.URL
	answer     answer
	served     bool // a request, just before
	eof        bool // the client sends no more
}

var fasts = sync.Pool{New: func() any { return new(fast) }}

func (c *fast) begin(s *Server, conn net.Conn) {
	c.server, c.conn = s, conn
	c.state.Store(waiting)
	c.from, c.to, c.served, c.eof = 0, 0, false, false
	c.readLimit, c.writeLimit = time.Time{}, time.Time{}
	c.head.text = c.head.text[:0]
	c.url = url.URL{Path: HotPath}
	c.request = http.Request{RemoteAddr: conn.RemoteAddr().String()}
}

// run serves requests until the connection ends or is not for it.
func (c *fast) run() {
	s, conn := c.server, c.conn
	handedOver := false
	defer func() {
		if cause := recover(); cause != nil && cause != http.ErrAbortHandler {
			s.logf("panic serving %v: %v\n%s", conn.RemoteAddr(), cause, debug.Stack())
		}
		if handedOver { // it is still in conns, and so is not for another connection
			return
		}
		conn.Close()
		s.forget(conn)
		fasts.Put(c)
	}()
	for {
		switch c.next() {
		case plain:
			if !c.serve() {
				return
			}
		case unusual:
			rest := bytes.Clone(c.buffer[c.from:c.to])
			if conn.SetDeadline(time.Time{}) != nil {
				return
			}
			select {
			case s.rest.conns <- &handed{conn, rest, true}:
				handedOver = true
			case <-s.rest.closed:
			}
			return
		case ended:
			return
		}
	}
}

// verdict on what comes next on a connection.
type verdict int

const (
	more    verdict = iota // cannot be told yet
	plain                  // a request that is served here
	unusual                // net/http's
	ended                  // nothing
)

// next reads the head of the next request.
func (c *fast) next() verdict {
	limits := c.server.http
	// After a request, what comes is looked at from its fourth byte on, so that blank lines are nothing yet.
	want, limit := 1, limits.ReadHeaderTimeout // a connection is opened to send something
	if c.served {
		want, limit = len(blanks), limits.IdleTimeout
	}
	if c.to-c.from < want {
		c.compact()
		c.state.Store(waiting)
	}
	if c.server.closing.Load() {
		return ended
	}
	if c.to-c.from < want {
		for since := time.Now(); c.to-c.from < want; {
			if !c.read(since, limit, coarse) {
				return ended
			}
		}
		if !c.state.CompareAndSwap(waiting, serving) {
			return ended
		}
	}
	if c.served { // net/http forgives old clients what they send after a POST
		start := c.buffer[c.from : c.from+len(blanks)]
		c.from += len(start) - len(bytes.TrimLeft(start, blanks))
	}
	c.began = time.Now()
	for {
		n, v := c.head.read(c.buffer[c.from:c.to])
		if v != more {
			c.from += n
			return v
		}
		if c.compact(); c.to == len(c.buffer) {
			return unusual
		}
		if !c.read(c.began, limits.ReadHeaderTimeout, 0) {
			if c.eof {
				return unusual // there is half a request, and net/http knows what to say
			}
			return ended
		}
	}
}

// blanks are the most that may come between two requests.
const blanks = "\r\n\r\n"

// compact makes room for what is to be read.
func (c *fast) compact() {
	if c.from > 0 {
		c.to = copy(c.buffer[:], c.buffer[c.from:c.to])
		c.from = 0
	}
}

// read reads into the buffer, until limit after since. It returns false at the end.
func (c *fast) read(since time.Time, limit, tolerance time.Duration) bool {
	n, err := c.readUntil(c.buffer[c.to:], since, limit, tolerance)
	c.to += n
	return n > 0 || err == nil
}

// readUntil reads with a deadline. One that is set and not further than tolerance before the right one stays.
func (c *fast) readUntil(p []byte, since time.Time, limit, tolerance time.Duration) (int, error) {
	if at := since.Add(limit); at.Before(c.readLimit) || at.Sub(c.readLimit) > tolerance {
		if err := c.conn.SetReadDeadline(at); err != nil {
			return 0, err
		}
		c.readLimit = at
	}
	n, err := c.conn.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// Read reads the request's body.
func (c *fast) Read(p []byte) (n int, err error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	if c.from < c.to {
		n = copy(p, c.buffer[c.from:c.to])
		c.from += n
	} else if n, err = c.readUntil(p, c.began, c.server.http.ReadTimeout, 0); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if c.left -= int64(n); c.left == 0 {
		err = io.EOF // a reader that is told now need not ask again
	}
	return n, err
}

// Close is the body's.
func (c *fast) Close() error { return nil }

// serve answers a request and returns whether the connection is good for another.
func (c *fast) serve() bool {
	c.left, c.served = c.head.length, true
	r := &c.request
	*r = http.Request{Method: http.MethodPost, URL: &c.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: c.head.header,
		Body: c, ContentLength: c.head.length, Host: c.head.host, RemoteAddr: r.RemoteAddr, RequestURI: HotPath}
	a := &c.answer
	a.reset()
	c.server.http.Handler.ServeHTTP(a, r)
	keep := !c.server.closing.Load() && a.header.Get("Connection") != "close"
	if keep && c.left > 0 { // many clients send all before they read
		if c.left < maxDiscard {
			io.Copy(io.Discard, c)
		}
		keep = c.left == 0
	}
	now := time.Now()
	if at := now.Add(c.server.http.WriteTimeout); at.Sub(c.writeLimit) > coarse {
		if c.conn.SetWriteDeadline(at) != nil {
			return false
		}
		c.writeLimit = at
	}
	if _, err := c.conn.Write(a.encode(keep, c.server.dateAt(now))); err != nil {
		return false
	}
	if !keep && (c.left > 0 || c.from < c.to) && !c.eof && closeWrite(c.conn) == nil {
		c.conn.SetReadDeadline(now.Add(lingering))
		io.Copy(io.Discard, c.conn)
	}
	return keep
}

// head is the head of a plain request. Devices send the same head again and again but for the length, so one that is like
// the one before is not taken apart again.
type head struct {
	text     []byte // of the head before, or none
	from, to int    // of the digits of its Content-Length

	length int64
	host   string
	header http.Header // without Host and Content-Length
}

// maxLength is the most digits of a Content-Length: those of MaxBatchBody.
const maxLength = 7

// read takes a head off the front of b and returns its size.
func (h *head) read(b []byte) (int, verdict) {
	if len(h.text) > 0 && len(b) > h.from && bytes.Equal(b[:h.from], h.text[:h.from]) {
		length, n := parseLength(b[h.from:])
		end := h.from + n + len(h.text) - h.to
		if length >= 0 && len(b) >= end && bytes.Equal(b[h.from+n:end], h.text[h.to:]) {
			h.length = length
			return end, plain
		}
	}
	h.text = h.text[:0]
	n, v := h.parse(b)
	if v == plain {
		h.text = append(h.text, b[:n]...)
	}
	return n, v
}

const requestLine = "POST " + HotPath + " HTTP/1.1\r\n"

func (h *head) parse(b []byte) (int, verdict) {
	if n := min(len(b), len(requestLine)); string(b[:n]) != requestLine[:n] {
		return 0, unusual
	} else if n < len(requestLine) {
		return 0, more
	}
	h.length, h.host, h.header = -1, "", http.Header{}
	at := len(requestLine)
	for {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			return 0, more
		}
		line := b[at : at+end]
		if end == 0 || line[end-1] != '\r' {
			return 0, unusual
		}
		line = line[:end-1]
		if len(line) == 0 {
			if h.host == "" || h.length < 0 {
				return 0, unusual
			}
			return at + end + 1, plain
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !all(line[:colon], isToken) || !all(line[colon+1:], isPrintable) {
			return 0, unusual
		}
		value := bytes.TrimLeft(line[colon+1:], " ")
		from := at + len(line) - len(value)
		value = bytes.TrimRight(value, " ")
		name := http.CanonicalHeaderKey(string(line[:colon]))
		if !h.field(name, value) {
			return 0, unusual
		}
		if name == "Content-Length" {
			h.from, h.to = from, from+len(value)
		}
		at += end + 1
	}
}

// field takes a header in, if it is plain.
func (h *head) field(name string, value []byte) bool {
	switch name {
	case "Content-Length":
		length, n := parseLength(value)
		if h.length >= 0 || length < 0 || n < len(value) {
			return false
		}
		h.length = length
		return true
	case "Host":
		if h.host != "" || len(value) == 0 || !all(value, isHost) {
			return false
		}
		h.host = string(value)
		return true
	case "Transfer-Encoding", "Te", "Trailer", "Expect", "Upgrade":
		return false
	case "Connection":
		if !bytes.EqualFold(value, []byte("keep-alive")) {
			return false
		}
	}
	if _, twice := h.header[name]; twice {
		return false
	}
	h.header[name] = []string{string(value)}
	return true
}

// parseLength reads the digits at the front of b and returns how many there are. The length is negative when it is none
// of a plain request.
func parseLength(b []byte) (length int64, n int) {
	for n < len(b) && n <= maxLength && '0' <= b[n] && b[n] <= '9' {
		length = 10*length + int64(b[n]-'0')
		n++
	}
	if n == 0 || n > maxLength || length > MaxBatchBody || n > 1 && b[0] == '0' {
		return -1, n
	}
	return length, n
}

func all(b []byte, is func(byte) bool) bool {
	for _, c := range b {
		if !is(c) {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isToken(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isHost(c byte) bool { return isAlphanumeric(c) || strings.IndexByte(".-:[]_", c) >= 0 }

func isPrintable(c byte) bool { return ' ' <= c && c <= '~' }

// answer is an http.ResponseWriter that keeps the answer until it is complete.
type answer struct {
	header http.Header
	status int // 0 until it is known
	body   []byte
	wire   bytes.Buffer
}

func (a *answer) reset() {
	if a.header == nil {
		a.header = http.Header{}
	}
	clear(a.header)
	if cap(a.body) > keptAnswer {
		a.body = nil
	}
	if a.wire.Cap() > keptAnswer {
		a.wire = bytes.Buffer{}
	}
	a.status, a.body = 0, a.body[:0]
	a.wire.Reset()
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p...)
	return len(p), nil
}

// framing is what encode says itself.
var framing = map[string]bool{"Connection": true, "Content-Length": true, "Date": true, "Transfer-Encoding": true}

// encode returns the whole answer, valid until reset.
func (a *answer) encode(keep bool, date []byte) []byte {
	a.WriteHeader(http.StatusOK)
	w := &a.wire
	if a.status == http.StatusOK {
		w.WriteString("HTTP/1.1 200 OK\r\n")
	} else {
		w.WriteString("HTTP/1.1 " + strconv.Itoa(a.status) + " " + http.StatusText(a.status) + "\r\n")
	}
	if kind := a.header["Content-Type"]; len(a.header) == 1 && len(kind) == 1 && kind[0] == contentJSON[0] {
		w.WriteString("Content-Type: application/json\r\n")
	} else {
		a.header.WriteSubset(w, framing)
	}
	w.WriteString("Date: ")
	w.Write(date)
	w.WriteString("\r\nContent-Length: ")
	w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(len(a.body)), 10))
	if !keep {
		w.WriteString("\r\nConnection: close")
	}
	w.WriteString("\r\n\r\n")
	w.Write(a.body)
	return w.Bytes()
}

// date is a Date header's value and the second that it is of.
type date struct {
	second int64
	text   []byte
}

func (s *Server) dateAt(now time.Time) []byte {
	d := s.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().AppendFormat(nil, http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}
