package loadgen

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// piped returns lines to a server that takes the given time for each request that it gets, counted from 0.
func piped(n int, takes func(request int) time.Duration) (lines []*line, stop func()) {
	requests := make(chan int, 1<<10)
	for i := range cap(requests) {
		requests <- i
	}
	var ends []net.Conn
	for range n {
		here, there := net.Pipe()
		lines, ends = append(lines, newLine(here)), append(ends, here, there)
		go func() {
			buffer := make([]byte, 1)
			for {
				if _, err := there.Read(buffer); err != nil {
					return
				}
				time.Sleep(takes(<-requests))
				if _, err := there.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")); err != nil {
					return
				}
			}
		}()
	}
	return lines, func() {
		for _, c := range ends {
			c.Close()
		}
	}
}

func requestsFor(connections, each int) [][][]byte {
	all := make([][][]byte, connections)
	for i := range all {
		for range each {
			all[i] = append(all[i], []byte("x"))
		}
	}
	return all
}

// within says that a histogram's figure, which is exact within 1/64, is what is wanted.
func within(got, want float64) bool { return got >= want*0.999 && got <= want*1.02 }

// A service that is slower than the schedule: each request waits for all before it, and that wait counts.
func TestPacedLatenessCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, stop := piped(1, func(int) time.Duration { return 10 * time.Millisecond })
		defer stop()
		tick := func() error { time.Sleep(tickEvery); return nil }
		r, err := RawOptions{Requests: requestsFor(1, 100), Rate: 1000}.drive(t.Context(), lines, tick)
		if err != nil || r.Requests != 100 || r.Answers[http.StatusOK] != 100 {
			t.Fatalf("report %+v, error %v", r, err)
		}
		// The last is due after 99 ms and answered after 1000, the 51st after 50 and 510.
		if !within(r.Latency.Max, 901) || !within(r.Latency.P50, 460) || !within(r.Seconds, 1) {
			t.Errorf("latency %+v after %v s", r.Latency, r.Seconds)
		}
		if r.Late.Max > 0.1 {
			t.Errorf("the schedule was late: %+v", r.Late)
		}
	})
}

// One answer that takes long makes only its own connection wait: another takes what is due.
func TestPacedByWhoeverIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, stop := piped(2, func(request int) time.Duration {
			if request == 3 {
				return 500 * time.Millisecond
			}
			return 100 * time.Microsecond
		})
		defer stop()
		tick := func() error { time.Sleep(tickEvery); return nil }
		r, err := RawOptions{Requests: requestsFor(2, 50), Rate: 1000}.drive(t.Context(), lines, tick)
		if err != nil || r.Requests != 100 {
			t.Fatalf("report %+v, error %v", r, err)
		}
		if !within(r.Latency.Max, 500) || r.Latency.P95 > 0.21 || !within(r.Seconds, 0.503) {
			t.Errorf("latency %+v after %v s", r.Latency, r.Seconds)
		}
	})
}

func TestScheduleEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ticks := 0
	out := make(chan due, 3)
	late, err := schedule(ctx, time.Now(), 1e-9, [][]byte{nil, nil, nil}, func() error {
		if ticks++; ticks == 2 {
			cancel()
		}
		return nil
	}, out)
	if err != nil || late.n != 1 || len(out) != 1 || ticks != 2 {
		t.Errorf("%d handed out, %d ticks, error %v", len(out), ticks, err)
	}
}

func TestInTurn(t *testing.T) {
	var got string
	for _, r := range inTurn([][][]byte{{[]byte("a"), []byte("d"), []byte("f")}, {}, {[]byte("b"), []byte("e")}, {[]byte("c")}}) {
		got += string(r)
	}
	if got != "abcdef" {
		t.Errorf("order %q", got)
	}
}

func TestTicker(t *testing.T) {
	began := time.Now()
	ticker, err := newTicker()
	if err != nil {
		t.Fatal(err)
	}
	defer ticker.Close()
	for range 5 {
		if err := ticker.tick(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 5*tickEvery {
		t.Errorf("5 ticks in %v", took)
	}
}

func TestBound(t *testing.T) {
	for name, test := range map[string]struct {
		r     RawReport
		bound bool
	}{
		"a fair share":             {RawReport{CPU: 0.4, Latency: Latency{P99: 3}, Late: Latency{P99: 1}}, false},
		"more CPU than all others": {RawReport{CPU: 0.6, Latency: Latency{P99: 3}}, true},
		"late by itself":           {RawReport{CPU: 0.2, Latency: Latency{P99: 3}, Late: Latency{P99: 2}}, true},
	} {
		if got := test.r.Bound(); (got != "") != test.bound {
			t.Errorf("%s: %q", name, got)
		}
	}
}
