package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// RawOptions says what Raw sends.
type RawOptions struct {
	Addr     string     // host:port
	Requests [][][]byte // whole HTTP requests, for each connection, which sends them in order, one at a time
	Timeout  time.Duration

	// Rate, in requests a second, puts all requests on one schedule that no answer delays. They are taken from the
	// connections in turn, and each is sent by whichever connection is free. 0 is as fast as the answers come.
	Rate float64
}

// RawReport is what came of it.
type RawReport struct {
	Requests uint64         `json:"requests"` // answered
	Answers  map[int]uint64 `json:"answers"`  // by HTTP status
	Seconds  float64        `json:"seconds"`  // from the first request to the last answer
	Latency  Latency        `json:"latency_ms"`
	Refusal  string         `json:"refusal,omitempty"` // the first answer that is no 2xx
	Began    time.Time      `json:"began"`             // when the first request was sent
	CPU      float64        `json:"cpu"`               // what this process took of the machine's CPU time, 0 to 1
	Late     Latency        `json:"late_ms"`           // how late the schedule itself was kept, with a rate
}

// PerSecond returns answered requests a second.
func (r RawReport) PerSecond() float64 { return float64(r.Requests) / r.Seconds }

// Bound says why the figures are the generator's more than the service's, "" when they are not.
func (r RawReport) Bound() string {
	switch {
	case r.CPU > 0.5:
		return fmt.Sprintf("generator-bound: it took %.0f %% of the CPU time", 100*r.CPU)
	case r.Late.P99 > r.Latency.P99/2:
		return fmt.Sprintf("generator-bound: p99 of its own lateness is %.1f ms", r.Late.P99)
	}
	return ""
}

// Raw sends prepared requests over keep-alive connections of its own, at a fraction of the cost of an HTTP client, to
// find the maximum of a service on the same machine. With a rate, latency counts from the moment a request was due.
// An error on any connection ends it: a maximum of a service that drops connections means nothing.
func Raw(ctx context.Context, o RawOptions) (RawReport, error) {
	lines := make([]*line, len(o.Requests))
	var dialer net.Dialer
	for i := range lines {
		conn, err := dialer.DialContext(ctx, "tcp", o.Addr)
		if err != nil {
			return RawReport{}, fmt.Errorf("opening connection %d: %w", i+1, err)
		}
		defer conn.Close()
		lines[i] = newLine(conn)
	}
	tick := func() error { return nil }
	if o.Rate > 0 {
		ticker, err := newTicker()
		if err != nil {
			return RawReport{}, err
		}
		defer ticker.Close()
		tick = ticker.tick
	}
	return o.drive(ctx, lines, tick)
}

// drive sends the requests over the lines. With a rate, tick waits a short while.
func (o RawOptions) drive(ctx context.Context, lines []*line, tick func() error) (RawReport, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A blocked read or write notices the end of ctx by its deadline.
	defer context.AfterFunc(ctx, func() {
		for _, l := range lines {
			l.conn.SetDeadline(time.Unix(1, 0))
		}
	})()
	report := RawReport{Answers: map[int]uint64{}, Began: time.Now()}
	used := cpuTime()
	var wg sync.WaitGroup
	var dues chan due
	if o.Rate > 0 {
		requests := inTurn(o.Requests)
		dues = make(chan due, len(requests)) // so that the schedule waits for nobody
		wg.Go(func() {
			late, err := schedule(ctx, report.Began, o.Rate, requests, tick, dues)
			report.Late = late.summary()
			if err != nil {
				cancel(fmt.Errorf("keeping the schedule: %w", err))
			}
		})
	}
	for i, l := range lines {
		wg.Go(func() {
			err := error(nil)
			if dues == nil {
				for _, request := range o.Requests[i] {
					if err = l.exchange(ctx, request, time.Now(), o.Timeout); err != nil {
						break
					}
				}
			} else {
				for d := range dues {
					if err = l.exchange(ctx, d.request, d.at, o.Timeout); err != nil {
						break
					}
				}
			}
			if err != nil {
				cancel(fmt.Errorf("connection %d: %w", i+1, err))
			}
		})
	}
	wg.Wait()
	took := time.Since(report.Began)
	report.Seconds = took.Seconds()
	report.CPU = float64(cpuTime()-used) / float64(took) / float64(runtime.NumCPU())
	var all latencies
	for _, l := range lines {
		all.merge(&l.latencies)
		for status, n := range l.answers {
			report.Answers[status] += n
		}
		if report.Refusal == "" {
			report.Refusal = l.refusal
		}
	}
	report.Requests, report.Latency = all.n, all.summary()
	return report, context.Cause(ctx)
}

// line is one connection.
type line struct {
	conn      net.Conn
	reader    *bufio.Reader
	deadline  time.Time
	answers   map[int]uint64
	latencies latencies
	refusal   string
}

func newLine(conn net.Conn) *line {
	return &line{conn: conn, reader: bufio.NewReaderSize(conn, 4096), answers: map[int]uint64{}}
}

// exchange sends a request and reads its answer. The latency counts from the given time.
func (l *line) exchange(ctx context.Context, request []byte, from time.Time, timeout time.Duration) error {
	if time.Until(l.deadline) < timeout/2 { // seldom: setting a deadline costs
		l.deadline = time.Now().Add(timeout)
		if err := l.conn.SetDeadline(l.deadline); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // after the deadline was set, which would outdo that of the end of ctx
		return context.Cause(ctx)
	}
	if _, err := l.conn.Write(request); err != nil {
		return err
	}
	status, body, err := readAnswer(l.reader)
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	l.latencies.add(time.Since(from))
	l.answers[status]++
	if status/100 != 2 && l.refusal == "" {
		l.refusal = fmt.Sprintf("%d %.300q", status, body)
	}
	return nil
}

// readAnswer reads an HTTP/1.1 response that announces its length. The body is valid until the next read.
func readAnswer(r *bufio.Reader) (status int, body []byte, err error) {
	text, err := r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(text) < 12 || string(text[:7]) != "HTTP/1." {
		return 0, nil, fmt.Errorf("no HTTP response: %.100q", text)
	}
	if status, err = strconv.Atoi(string(text[9:12])); err != nil {
		return 0, nil, fmt.Errorf("no HTTP status: %.100q", text)
	}
	length := -1
	for {
		text, err := r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if text = bytes.TrimRight(text, "\r\n"); len(text) == 0 {
			break
		}
		const name = "content-length:"
		if len(text) > len(name) && bytes.EqualFold(text[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(text[len(name):]))); err != nil || length < 0 {
				return 0, nil, fmt.Errorf("length of the response: %.100q", text)
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("the response does not announce its length")
	}
	body, err = r.Peek(min(length, r.Size()))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the body: %w", io.ErrUnexpectedEOF)
	}
	_, err = r.Discard(length)
	return status, body, err
}

// Requests encodes events of a sequence as whole requests, batch events each, for a number of connections. It takes
// turns turns of the fleet from turn first on. Each connection gets devices of its own, so that each device's events
// stay in order; the last request of a connection may be smaller.
func (s *Sequence) Requests(host string, connections, batch int, first uint64, turns int) [][][]byte {
	all := make([][][]byte, connections)
	var wg sync.WaitGroup
	for c := range all {
		wg.Go(func() { all[c] = s.requests(host, c, connections, batch, first, turns) })
	}
	wg.Wait()
	return all
}

// requests returns those of connection c.
func (s *Sequence) requests(host string, c, connections, batch int, first uint64, turns int) (list [][]byte) {
	devices := len(s.Fleet.members)
	e := s.Encoder()
	var body []byte
	var count int
	emit := func() {
		if count == 0 {
			return
		}
		request := fmt.Appendf(make([]byte, 0, len(body)+200), "POST /v1/ingest HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
			host, contentType(batch), len(body))
		list = append(list, append(request, body...))
		body, count = body[:0], 0
	}
	for turn := first; turn < first+uint64(turns); turn++ {
		for j := c; j < devices; j += connections {
			body = e.AppendEvent(body, turn*uint64(devices)+uint64(j))
			if batch > 1 {
				body = append(body, '\n')
			}
			if count++; count == batch {
				emit()
			}
		}
	}
	emit()
	return list
}
