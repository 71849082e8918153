package loadgen

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func (c *collector) options() Options {
	return Options{Target: c.URL + "/", Snapshot: estate(20), Stored: c, Rate: 100, Batch: 1, Duration: 400 * time.Millisecond,
		Timeout: time.Minute, DrainTimeout: time.Minute, slack: time.Minute}
}

func TestRun(t *testing.T) {
	every := func(k int) func(sentEvent) bool {
		var n int
		return func(sentEvent) bool { n++; return n%k == 0 }
	}
	tests := map[string]struct {
		batch int
		set   func(*testing.T, *collector)
		want  func(Report) bool
		ok    bool
	}{
		"single events": {1, func(*testing.T, *collector) {}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Acknowledged: 40} && r.Values.Stored == r.Values.Attempted && r.Answers["200"] == 40 &&
				r.Latency.P50 > 0 && r.Latency.Max >= r.Latency.P999 && r.Trouble == ""
		}, true},
		"batches": {20, func(*testing.T, *collector) {}, func(r Report) bool {
			return r.Events == Events{Attempted: 800, Acknowledged: 800} && r.Values.Stored == r.Values.Attempted
		}, true},
		"rejected lines": {10, func(t *testing.T, c *collector) { c.reject = every(7) }, func(r Report) bool {
			return r.Events.Attempted == 400 && r.Events.Refused == 400/7 && r.Events.Unknown == 0 && r.Values.Refused > 0
		}, true},
		"all refused": {1, func(t *testing.T, c *collector) { c.reject = func(sentEvent) bool { return true } }, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Refused: 40} && r.Values.Stored == 0 && r.Answers["422"] == 40
		}, false},
		"overload": {1, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, request int, _ []sentEvent) bool {
				if request%2 == 0 {
					return false
				}
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(map[int]int{1: 503, 3: 429}[request%4])
				_, err := w.Write([]byte(`{"detail":[{"type":"queue_full","loc":["body"],"msg":"The queue is full."}]}`))
				return err == nil
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Acknowledged: 20, Refused: 20} && r.Answers["503"] == 10 && r.Answers["429"] == 10
		}, true},
		"a queue that cannot tell": {1, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, request int, events []sentEvent) bool {
				if request%2 == 0 {
					c.mu.Lock()
					c.keep(events[0])
					c.mu.Unlock()
				}
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(503)
				_, err := w.Write([]byte(`{"detail":[{"type":"queue_down","loc":["body"],"msg":"The queue cannot store the events."}]}`))
				return err == nil
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Unknown: 40} && r.Values.Recovered > 0 && r.Values.Recovered == r.Values.Stored && r.Values.Broken() == 0
		}, false},
		"a batch that is stored in part": {2, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, _ int, events []sentEvent) bool {
				c.mu.Lock()
				c.keep(events[0])
				c.mu.Unlock()
				w.WriteHeader(503)
				_, err := w.Write([]byte(`{"detail":[{"type":"queue_full","loc":["body"],"msg":"The queue is full."}]}`))
				return err == nil
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 80, Unknown: 80} && r.Values.Recovered > 0 && r.Values.Broken() == 0
		}, false},
		"errors after and before storing": {1, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, request int, events []sentEvent) bool {
				switch request % 4 {
				case 1:
					c.mu.Lock()
					c.keep(events[0])
					c.mu.Unlock()
					w.WriteHeader(500)
				case 2:
					w.WriteHeader(503)
				case 3:
					panic(http.ErrAbortHandler)
				default:
					return false
				}
				return true
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Acknowledged: 10, Unknown: 30} && r.Values.Recovered > 0 &&
				r.Values.Stored == r.Values.Acknowledged+r.Values.Recovered && r.Answers["connection closed"] == 10
		}, true},
		"a timeout is unknown": {1, func(t *testing.T, c *collector) {
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			c.fault = hold(c, release)
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Acknowledged: 39, Unknown: 1} && r.Answers["timeout"] == 1 && r.Values.Recovered > 0 && r.Latency.Max >= 2999
		}, true},
		"an acknowledged event is lost": {1, func(t *testing.T, c *collector) {
			drop := every(20)
			c.store = func(c *collector, e sentEvent) {
				if !drop(e) {
					c.keep(e)
				}
			}
		}, func(r Report) bool {
			return r.Values.Lost > 0 && r.Values.Broken() == r.Values.Lost && len(r.Violations) > 0
		}, false},
		"a refused event is stored": {10, func(t *testing.T, c *collector) {
			refuse := every(100)
			c.reject = func(e sentEvent) bool {
				if !refuse(e) {
					return false
				}
				c.keep(e)
				return true
			}
		}, func(r Report) bool { return r.Values.Unexpected > 0 && r.Values.Broken() == r.Values.Unexpected }, false},
		"200 without a promise": {1, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, _ int, _ []sentEvent) bool {
				_, err := w.Write([]byte("welcome"))
				return err == nil
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 40, Unknown: 40} && r.Answers["200, not understood"] == 40 && r.Trouble != ""
		}, false},
		"a list of errors that was cut short": {4, func(t *testing.T, c *collector) {
			c.fault = func(w http.ResponseWriter, _ int, events []sentEvent) bool {
				c.mu.Lock()
				c.keep(events[3])
				c.mu.Unlock()
				_, err := w.Write([]byte(`{"status":"queued","accepted":1,"rejected":3,"errors":[{"line":2},{"line":1}]}`))
				return err == nil
			}
		}, func(r Report) bool {
			return r.Events == Events{Attempted: 160, Refused: 80, Unknown: 80} && r.Values.Recovered > 0
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t)
			test.set(t, c)
			o := c.options()
			o.Batch = test.batch
			if name == "a timeout is unknown" {
				o.Timeout = 3 * time.Second
			}
			report, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if report.Ok() != test.ok || !test.want(report) {
				t.Errorf("ok is %v, report is %+v", report.Ok(), report)
			}
		})
	}
}

// hold stores the fifth request's event and doesn't answer it.
func hold(c *collector, release <-chan struct{}) func(http.ResponseWriter, int, []sentEvent) bool {
	return func(_ http.ResponseWriter, request int, events []sentEvent) bool {
		if request != 5 {
			return false
		}
		c.mu.Lock()
		c.keep(events[0])
		c.mu.Unlock()
		<-release
		return true
	}
}

// A run whose context ends stops sending, and verifies what it has sent.
func TestRunIsInterrupted(t *testing.T) {
	c := newCollector(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.fault = func(_ http.ResponseWriter, request int, _ []sentEvent) bool {
		if request == 5 {
			cancel()
		}
		return false
	}
	o := c.options()
	o.Duration = 0
	r, err := Run(ctx, o)
	if err != nil || !r.Interrupted || !r.Ok() || r.Events.Acknowledged < 5 || r.Events.Acknowledged != r.Events.Attempted || r.Values.Stored != r.Values.Attempted {
		t.Errorf("error %v, report %+v", err, r)
	}
}

// Verifying waits for the queue, and gives up with a reason.
func TestRunWaitsForTheQueue(t *testing.T) {
	c := newCollector(t)
	var asked atomic.Int64
	c.depth = func() int { return int(max(0, 4-asked.Add(1))) }
	phases := map[string]int{}
	o := c.options()
	o.Progress = func(p Progress) { phases[p.Phase]++ }
	if r, err := Run(t.Context(), o); err != nil || !r.Ok() || r.Drain < 0.2 {
		t.Errorf("error %v, report %+v", err, r)
	}
	if phases["draining"] == 0 {
		t.Errorf("progress came in %v", phases)
	}
	c.depth = func() int { return 7 }
	o.DrainTimeout = 300 * time.Millisecond
	if r, err := Run(t.Context(), o); !errors.Is(err, ErrNotDrained) || r.Events.Acknowledged != 40 {
		t.Errorf("error %v, report %+v", err, r)
	}
}

// A generator that can't send at its rate must not pass its figures off as the service's.
func TestRunIsSaturated(t *testing.T) {
	c := newCollector(t)
	release := make(chan struct{})
	defer time.AfterFunc(time.Second, func() { close(release) }).Stop()
	c.fault = func(http.ResponseWriter, int, []sentEvent) bool { <-release; return false }
	o := c.options()
	o.MaxInFlight, o.slack = 3, 0
	if r, err := Run(t.Context(), o); !errors.Is(err, ErrSaturated) || r.Saturated == "" {
		t.Errorf("error %v, report %+v", err, r)
	}
}

func TestRunCannotStart(t *testing.T) {
	c := newCollector(t)
	for name, change := range map[string]func(*Options){
		"no rate":      func(o *Options) { o.Rate = 0 },
		"rate is NaN":  func(o *Options) { o.Rate = math.NaN() },
		"no scheme":    func(o *Options) { o.Target = "127.0.0.1:8001" },
		"nobody there": func(o *Options) { o.Target = "http://127.0.0.1:1" },
		"no collector": func(o *Options) { o.Target += "/elsewhere" },
		"no devices":   func(o *Options) { o.Snapshot = estate(0) },
		"no database":  func(o *Options) { o.Stored = nil },
	} {
		o := c.options()
		change(&o)
		if r, err := Run(t.Context(), o); err == nil || r.Ok() {
			t.Errorf("%s: no error, report %+v", name, r)
		}
	}
	if c.requests != 0 {
		t.Errorf("%d requests were sent", c.requests)
	}
}
