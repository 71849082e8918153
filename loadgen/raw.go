package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// RawOptions says what Raw sends. Each connection sends its requests in order, one at a time.
type RawOptions struct {
	Addr     string     // host:port
	Requests [][][]byte // whole HTTP requests, for each connection
	Rate     float64    // requests a second over all connections, whatever the answers; 0 is as fast as they come
	Timeout  time.Duration
}

// RawReport is what came of it.
type RawReport struct {
	Requests uint64         `json:"requests"` // answered
	Answers  map[int]uint64 `json:"answers"`  // by HTTP status
	Seconds  float64        `json:"seconds"`  // from the first request to the last answer
	Latency  Latency        `json:"latency_ms"`
	Refusal  string         `json:"refusal,omitempty"` // the first answer that is no 2xx
	Began    time.Time      `json:"began"`             // when the first request was sent
}

// PerSecond returns answered requests a second.
func (r RawReport) PerSecond() float64 { return float64(r.Requests) / r.Seconds }

// Raw sends prepared requests over keep-alive connections of its own, at a fraction of the cost of an HTTP client, to
// find the maximum of a service on the same machine. With a rate, latency counts from the moment a request was due.
// An error on any connection ends it: a maximum of a service that drops connections means nothing.
func Raw(ctx context.Context, o RawOptions) (RawReport, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := make([]*line, len(o.Requests))
	var dialer net.Dialer
	for i := range lines {
		conn, err := dialer.DialContext(ctx, "tcp", o.Addr)
		if err != nil {
			return RawReport{}, fmt.Errorf("opening connection %d: %w", i+1, err)
		}
		defer conn.Close()
		lines[i] = &line{conn: conn, requests: o.Requests[i], answers: map[int]uint64{}, reader: bufio.NewReaderSize(conn, 4096)}
	}
	// A blocked read or write notices the end of ctx by its deadline.
	defer context.AfterFunc(ctx, func() {
		for _, l := range lines {
			l.conn.SetDeadline(time.Unix(1, 0))
		}
	})()
	began := time.Now()
	var wg sync.WaitGroup
	for i, l := range lines {
		wg.Go(func() {
			due := func(int) time.Duration { return -1 }
			if o.Rate > 0 {
				due = func(k int) time.Duration {
					return time.Duration(float64(k*len(lines)+i) / o.Rate * float64(time.Second))
				}
			}
			if err := l.run(ctx, began, due, o.Timeout); err != nil {
				cancel(fmt.Errorf("connection %d: %w", i+1, err))
			}
		})
	}
	wg.Wait()
	report := RawReport{Seconds: time.Since(began).Seconds(), Answers: map[int]uint64{}, Began: began}
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
	requests  [][]byte
	answers   map[int]uint64
	latencies latencies
	refusal   string
}

// run sends the requests; due says when, from the beginning, negative for at once.
func (l *line) run(ctx context.Context, began time.Time, due func(int) time.Duration, timeout time.Duration) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var deadline time.Time
	for k, request := range l.requests {
		from := time.Now()
		if at := due(k); at >= 0 {
			from = began.Add(at)
			timer.Reset(time.Until(from))
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-timer.C:
			}
		}
		if time.Until(deadline) < timeout/2 { // seldom: setting a deadline costs
			deadline = time.Now().Add(timeout)
			if err := l.conn.SetDeadline(deadline); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := l.conn.Write(request); err != nil {
			return err
		}
		status, body, err := readAnswer(l.reader)
		if err != nil {
			return fmt.Errorf("reading answer %d: %w", k+1, err)
		}
		l.latencies.add(time.Since(from))
		l.answers[status]++
		if status/100 != 2 && l.refusal == "" {
			l.refusal = fmt.Sprintf("%d %.300q", status, body)
		}
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
	devices := len(s.Fleet.members)
	e := s.Encoder()
	var body []byte
	for c := range all {
		var count int
		emit := func() {
			if count == 0 {
				return
			}
			request := fmt.Appendf(make([]byte, 0, len(body)+200), "POST /v1/ingest HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
				host, contentType(batch), len(body))
			all[c] = append(all[c], append(request, body...))
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
	}
	return all
}
