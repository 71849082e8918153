package loadgen

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRaw(t *testing.T) {
	for name, test := range map[string]struct {
		batch, events int
		rate          float64
	}{"single": {1, 20, 0}, "batches, the last one short": {7, 20, 0}, "at a rate": {1, 20, 1000}} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t)
			seq := newSequence(t, estate(20))
			requests := seq.Requests("collector", 3, test.batch, 5, 10)
			var want int
			for _, r := range requests {
				want += len(r)
			}
			r, err := Raw(t.Context(), RawOptions{Addr: c.Listener.Addr().String(), Requests: requests, Rate: test.rate})
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests != uint64(want) || r.Answers[200] != r.Requests || r.Refusal != "" || r.Latency.P50 <= 0 {
				t.Errorf("%d requests, report %+v", want, r)
			}
			if least := float64(want-1) / test.rate; test.rate > 0 && r.Seconds < least*0.99 {
				t.Errorf("%d requests at %v/s took %v s", want, test.rate, r.Seconds)
			}
			// All events of turns 5 to 14 arrived, each once, those of a device in order unless any connection may send them.
			seen, last := map[string]bool{}, map[uuid.UUID]string{}
			for _, e := range c.events {
				if seen[e.EventID] || test.rate == 0 && last[e.DeviceID] >= e.Timestamp {
					t.Errorf("event %s of device %s at %s came twice, or after %s", e.EventID, e.DeviceID, e.Timestamp, last[e.DeviceID])
				}
				seen[e.EventID], last[e.DeviceID] = true, e.Timestamp
			}
			if len(seen) != 200 || !seen["load-test-100"] || !seen["load-test-299"] {
				t.Errorf("%d different events arrived", len(seen))
			}
		})
	}
}

func TestRawReportsRefusals(t *testing.T) {
	c := newCollector(t)
	c.fault = func(w http.ResponseWriter, request int, _ []sentEvent) bool {
		if request%2 == 0 {
			http.Error(w, "the queue is full", http.StatusServiceUnavailable)
		}
		return request%2 == 0
	}
	r, err := Raw(t.Context(), RawOptions{Addr: c.Listener.Addr().String(), Requests: newSequence(t, estate(4)).Requests("collector", 2, 1, 0, 5)})
	if err != nil || r.Answers[200] != 10 || r.Answers[503] != 10 || !strings.Contains(r.Refusal, "the queue is full") {
		t.Errorf("error %v, report %+v", err, r)
	}
}

// A service that hangs up or keeps silent is an error, not a rate; so is the end of the context.
func TestRawFails(t *testing.T) {
	requests := newSequence(t, estate(4)).Requests("collector", 2, 1, 0, 5)
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { conn.Close() })
				go serve(conn)
			}
		}()
		return l.Addr().String()
	}
	silent := listen(func(net.Conn) {})
	if _, err := Raw(t.Context(), RawOptions{Addr: silent, Requests: requests, Timeout: 100 * time.Millisecond}); err == nil {
		t.Error("no error from a silent service")
	}
	if _, err := Raw(t.Context(), RawOptions{Addr: listen(func(c net.Conn) { c.Close() }), Requests: requests}); err == nil {
		t.Error("no error from a service that hangs up")
	}
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
	defer timer.Stop()
	if _, err := Raw(ctx, RawOptions{Addr: silent, Requests: requests}); !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
}

func TestReadAnswer(t *testing.T) {
	for _, test := range []struct {
		text, body string
		status     int // 0 for an error
	}{
		{"HTTP/1.1 200 OK\r\ncontent-LENGTH:  5\r\nX: y\r\n\r\nhello", "hello", 200},
		{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "", 503},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "", 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "", 0},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", 0},
		{"HTTP/1.1 xyz\r\n\r\n", "", 0},
		{"SSH-2.0-OpenSSH_9.2\r\n", "", 0},
		{"HTTP/1.1 200 OK\r\nContent", "", 0},
	} {
		status, body, err := readAnswer(bufio.NewReader(strings.NewReader(test.text)))
		if (err == nil) != (test.status != 0) || err == nil && (status != test.status || string(body) != test.body) {
			t.Errorf("%q: %d, %q, %v", test.text, status, body, err)
		}
	}
	r := bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000) + "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"))
	if status, _, err := readAnswer(r); status != 200 || err != nil {
		t.Errorf("a large answer: %d, %v", status, err)
	}
	if status, _, err := readAnswer(r); status != 204 || err != nil {
		t.Errorf("the answer after it: %d, %v", status, err)
	}
	if _, _, err := readAnswer(r); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
}
