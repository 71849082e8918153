// Package loadgen sends telemetry as a fleet of devices would, writes down what the service promised about each event,
// and checks afterwards that the database holds just that. It also simulates devices, and measures maxima.
package loadgen

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/nsready/nsready/engine/registry"
)

// Options says what a run sends, where to, and how it is verified.
type Options struct {
	Target   string             // base URL of the collector, such as http://127.0.0.1:8001
	Snapshot *registry.Snapshot // whose devices send
	Stored   Stored             // what the collector's values end up in

	Rate     float64       // requests a second
	Batch    int           // events a request; 0 is 1
	Duration time.Duration // how long to send; 0 is until the context is done

	Timeout      time.Duration // of one request; 0 is 10 s
	DrainTimeout time.Duration // for the queue to run empty after the last request; 0 is 60 s
	MaxInFlight  int           // requests waiting for an answer, at which the generator counts as saturated; 0 is 10 000

	// Progress, when not nil, is called about once a second, never twice at a time.
	Progress func(Progress)

	slack time.Duration // how far behind its rate the generator may fall; 0 is 250 ms and a hundredth of the time
}

// Progress is where a run stands.
type Progress struct {
	Phase        string // sending, draining or verifying
	Elapsed      time.Duration
	Requests     uint64 // answered or given up
	Acknowledged uint64 // events
	Refused      uint64 // events
	Unknown      uint64 // events; those on their way count as such
	QueueDepth   int64  // while draining
	Stored       uint64 // values read back, while verifying
}

// Report is what came of a run.
type Report struct {
	Run         string  `json:"run"`
	Target      string  `json:"target"`
	Devices     int     `json:"devices"`
	Rate        float64 `json:"rate"` // requests a second that were asked for
	Batch       int     `json:"batch"`
	Requests    uint64  `json:"requests"`
	Achieved    float64 `json:"achieved_rate"` // requests a second that were sent
	Seconds     float64 `json:"seconds"`       // spent sending
	Drain       float64 `json:"drain_seconds"` // from the last answer to the empty queue
	Saturated   string  `json:"saturated,omitempty"`
	Interrupted bool    `json:"interrupted,omitempty"`

	// Latency is that of the requests that were answered or timed out, from the moment each was due.
	Latency Latency           `json:"latency_ms"`
	Answers map[string]uint64 `json:"answers"` // requests by HTTP status, or by what went wrong
	Trouble string            `json:"trouble,omitempty"`

	Events     Events      `json:"events"`
	Values     Values      `json:"values"`
	Violations []Violation `json:"violations,omitempty"` // some of each kind
}

// Events counts events by what the service said of them.
type Events struct {
	Attempted    uint64 `json:"attempted"`
	Acknowledged uint64 `json:"acknowledged"`
	Refused      uint64 `json:"refused"`
	Unknown      uint64 `json:"unknown"` // no answer, or one that leaves open whether the event is stored
}

// Values counts single values: those of the events, and what the database holds of them.
type Values struct {
	Attempted    uint64 `json:"attempted"`
	Acknowledged uint64 `json:"acknowledged"`
	Refused      uint64 `json:"refused"`
	Unknown      uint64 `json:"unknown"`
	Stored       uint64 `json:"stored"`
	Recovered    uint64 `json:"recovered"`  // unknown, but stored
	Lost         uint64 `json:"lost"`       // acknowledged, but not stored
	Duplicated   uint64 `json:"duplicated"` // stored more than once
	Altered      uint64 `json:"altered"`    // stored with another device, time, value or quality than sent
	Unexpected   uint64 `json:"unexpected"` // stored, but never sent, or refused
}

// Broken returns the number of values that break the promise.
func (v Values) Broken() uint64 { return v.Lost + v.Duplicated + v.Altered + v.Unexpected }

// Ok reports whether values were acknowledged and each is stored exactly once as it was sent.
func (r *Report) Ok() bool { return r.Values.Broken() == 0 && r.Values.Acknowledged > 0 }

var (
	// ErrSaturated says that the generator could not keep its rate, so that a run's figures mean nothing.
	ErrSaturated = errors.New("the load generator is saturated")
	// ErrNotDrained says that the queue didn't run empty in time, so that what is stored can't be judged.
	ErrNotDrained = errors.New("the queue did not drain")
)

func (o *Options) validate() error {
	o.Target = strings.TrimSuffix(o.Target, "/")
	u, err := url.Parse(o.Target)
	switch {
	case err != nil:
		return fmt.Errorf("target: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("target %q: want a URL such as http://127.0.0.1:8001", o.Target)
	case o.Snapshot == nil || o.Stored == nil:
		return errors.New("a run needs a registry snapshot and a database")
	case !(o.Rate > 0 && o.Rate <= 1e6):
		return fmt.Errorf("rate %v: want requests a second, up to a million", o.Rate)
	case o.Batch < 0:
		return fmt.Errorf("batch %d: want at least 1 event a request", o.Batch)
	case o.Duration < 0 || o.Timeout < 0 || o.DrainTimeout < 0 || o.MaxInFlight < 0:
		return errors.New("durations and limits must not be negative")
	}
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	set(&o.Timeout, 10*time.Second)
	set(&o.DrainTimeout, time.Minute)
	set(&o.slack, 250*time.Millisecond+o.Duration/100)
	o.Batch = max(o.Batch, 1)
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 10_000
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return nil
}

// Run sends at a constant rate whatever the answers, waits until the queue is empty, and verifies what is stored. When
// ctx is done it stops sending, and still drains and verifies. The report is complete with a nil error and with
// ErrSaturated; with other errors it holds what was learned until then.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.validate(); err != nil {
		return Report{}, err
	}
	run := strings.ToLower(rand.Text()[:12])
	seq, err := NewSequence(o.Snapshot, run, o.Rate*float64(o.Batch))
	if err != nil {
		return Report{}, err
	}
	client := newClient(o.Timeout, o.MaxInFlight)
	defer client.CloseIdleConnections()
	if _, err := queueDepth(ctx, client, o.Target); err != nil {
		return Report{}, fmt.Errorf("asking the collector for its health: %w", err)
	}
	s := &sender{
		options: &o,
		client:  client,
		seq:     seq,
		bodies:  map[uint64][]byte{},
		report: Report{Run: run, Target: o.Target, Devices: seq.Fleet.Devices(), Rate: o.Rate, Batch: o.Batch,
			Answers: map[string]uint64{}},
	}
	s.began = time.Now()
	s.send(ctx)
	s.report.Interrupted = ctx.Err() != nil
	r := &s.report
	r.Latency = s.latencies.summary()
	r.Events.Acknowledged, r.Events.Refused, r.Events.Unknown = s.history.tally()
	r.Events.Attempted = r.Events.Acknowledged + r.Events.Refused + r.Events.Unknown

	ctx = context.WithoutCancel(ctx)
	if err := s.drain(ctx); err != nil {
		return *r, err
	}
	c := newChecker(seq, &s.history)
	if err := c.verify(ctx, &watched{o.Stored, s}); err != nil {
		return *r, err
	}
	r.Values, r.Violations = c.values, c.violations()
	if r.Saturated != "" {
		return *r, fmt.Errorf("%w: %s", ErrSaturated, r.Saturated)
	}
	return *r, nil
}

// newClient returns a client that keeps a connection for each request in flight and follows no redirect.
func newClient(timeout time.Duration, connections int) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// sender is the sending half of a run.
type sender struct {
	options   *Options
	client    *http.Client
	seq       *Sequence
	began     time.Time
	history   history
	latencies latencies
	starved   atomic.Uint64 // requests that had to wait for their body
	report    Report

	mu     sync.Mutex
	bodies map[uint64][]byte // of the requests on their way, by their first event
}

// request is a body encoded ahead of its time.
type request struct {
	first uint64 // event
	body  []byte
}

// send runs the attack and returns when the last request is answered or given up.
func (s *sender) send(ctx context.Context) {
	o := s.options
	ahead := make(chan request, max(2, 4096/o.Batch))
	spent := make(chan []byte, cap(ahead))
	stop := make(chan struct{})
	var encoding sync.WaitGroup
	full := make(chan struct{})
	encoding.Go(func() { s.encode(ahead, spent, full, stop) })
	defer func() { close(stop); encoding.Wait() }()
	<-full

	header := http.Header{"Content-Type": {contentType(o.Batch)}}
	target := o.Target + "/v1/ingest#"
	targeter := func(t *vegeta.Target) error {
		var r request
		select {
		case r = <-ahead:
		default:
			s.starved.Add(1)
			r = <-ahead
		}
		s.history.set(r.first, o.Batch, unknown)
		s.mu.Lock()
		s.bodies[r.first] = r.body
		s.mu.Unlock()
		// A vegeta result knows its URL but not its body. The fragment tells which it was and is never sent.
		*t = vegeta.Target{Method: http.MethodPost, URL: target + strconv.FormatUint(r.first, 10), Body: r.body, Header: header}
		return nil
	}
	attacker := vegeta.NewAttacker(vegeta.Client(s.client), vegeta.MaxWorkers(uint64(o.MaxInFlight)))
	pace := pace{rate: o.Rate, total: uint64(o.Rate * o.Duration.Seconds()), giveUp: o.Duration + 4*o.slack}
	if o.Duration > 0 {
		pace.total = max(pace.total, 1)
	}
	began := time.Now()
	results := attacker.Attack(targeter, pace, 0, "")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	interrupt := ctx.Done()
	var sent time.Duration // when the last request was
	for open := true; open; {
		select {
		case res, ok := <-results:
			if open = ok; !ok {
				break
			}
			s.report.Requests++
			sent = max(sent, res.Timestamp.Sub(began))
			s.answer(res, max(res.Latency, res.End().Sub(began)-pace.due(res.Seq)), spent)
		case <-tick.C:
			s.progress("sending", func(*Progress) {})
		case <-interrupt:
			interrupt = nil
			attacker.Stop()
		}
	}
	r := &s.report
	r.Seconds = max(sent, pace.due(r.Requests)).Seconds()
	r.Achieved = float64(r.Requests) / r.Seconds
	switch behind := sent - pace.due(r.Requests); {
	case r.Requests == 0:
	case ctx.Err() == nil && r.Requests < pace.total, behind > o.slack:
		r.Saturated = fmt.Sprintf("%.0f of %g requests/s could be sent; lower -rate, or send more events a request", r.Achieved, o.Rate)
	case s.starved.Load() > r.Requests/100+10:
		r.Saturated = fmt.Sprintf("%d of %d requests waited for their body to be encoded; lower -rate or -batch", s.starved.Load(), r.Requests)
	}
}

// pace is a constant rate of total requests, 0 for no end. It gives up when it is far behind.
type pace struct {
	rate   float64
	total  uint64
	giveUp time.Duration
}

var _ vegeta.Pacer = pace{}

// due returns when a request is due, from 0, counted from the beginning.
func (p pace) due(request uint64) time.Duration {
	return time.Duration(float64(request) / p.rate * float64(time.Second))
}

func (p pace) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if p.total > 0 && (hits >= p.total || elapsed > p.giveUp) {
		return 0, true
	}
	return p.due(hits) - elapsed, false
}

func (p pace) Rate(time.Duration) float64 { return p.rate }

// encode keeps ahead filled with bodies in the order of their events. It closes full when there are as many as go in.
func (s *sender) encode(ahead chan<- request, spent <-chan []byte, full chan<- struct{}, stop <-chan struct{}) {
	e := s.seq.Encoder()
	for first := uint64(0); ; first += uint64(s.options.Batch) {
		if first == uint64(cap(ahead)*s.options.Batch) {
			close(full)
		}
		var body []byte
		select {
		case body = <-spent:
		default:
		}
		body = e.AppendBatch(body[:0], first, s.options.Batch)
		select {
		case ahead <- request{first, body}:
		case <-stop:
			return
		}
	}
}

// reply is what the collector answers with 200; the numbers are there for a batch only.
type reply struct {
	Status   string
	Accepted *int
	Rejected *int
	Errors   []struct{ Line int } // from 1
}

// answer records what a result says about its events.
func (s *sender) answer(res *vegeta.Result, latency time.Duration, spent chan<- []byte) {
	_, fragment, _ := strings.Cut(res.URL, "#")
	first, err := strconv.ParseUint(fragment, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("loadgen: result without a number: %q", res.URL)) // the targeter gives each one
	}
	s.mu.Lock()
	body := s.bodies[first]
	delete(s.bodies, first)
	s.mu.Unlock()

	label := strconv.Itoa(int(res.Code))
	if res.Code == 0 {
		label = failure(res.Error)
	}
	if res.Code != 0 || label == "timeout" {
		s.latencies.add(latency)
	}
	switch trouble := ""; {
	case label == "200":
		if trouble = s.accepted(first, res.Body); trouble != "" {
			label, s.report.Trouble = "200, not understood", trouble
			break
		}
		select {
		case spent <- body: // read to its end by the collector, so nobody holds it any more
		default:
		}
	case res.Code >= 400 && res.Code < 500, s.options.Batch == 1 && untouched(res):
		s.history.set(first, s.options.Batch, refused)
	}
	s.report.Answers[label]++
	if label != "200" && s.report.Trouble == "" {
		s.report.Trouble = res.Error
		if len(res.Body) > 0 {
			s.report.Trouble += ": " + string(res.Body[:min(len(res.Body), 500)])
		}
	}
}

// accepted records the outcomes that a 200 reports. It returns what is wrong with the reply, "" when nothing is; the
// events then stay unknown.
func (s *sender) accepted(first uint64, body []byte) (trouble string) {
	batch := s.options.Batch
	var r reply
	if err := json.Unmarshal(body, &r); err != nil || r.Status != "queued" {
		return fmt.Sprintf("the collector answered 200 without the status \"queued\": %.200q", body)
	}
	if r.Accepted == nil && r.Rejected == nil && batch == 1 {
		s.history.set(first, 1, acknowledged)
		return ""
	}
	if r.Accepted == nil || r.Rejected == nil || *r.Accepted+*r.Rejected != batch {
		return fmt.Sprintf("the collector answered 200 without saying what became of each of %d events: %.200q", batch, body)
	}
	lines := map[int]bool{}
	for _, e := range r.Errors {
		if e.Line < 1 || e.Line > batch {
			return fmt.Sprintf("the collector rejected line %d of %d", e.Line, batch)
		}
		lines[e.Line] = true
	}
	if len(lines) > *r.Rejected {
		return fmt.Sprintf("the collector rejected %d lines and named %d", *r.Rejected, len(lines))
	}
	if len(lines) == *r.Rejected {
		s.history.set(first, batch, acknowledged)
	} // otherwise the list was cut short, and any line that it doesn't name may be either
	for line := range lines {
		s.history.set(first+uint64(line)-1, 1, refused)
	}
	return ""
}

// untouched reports whether an answer says for sure that its only event is not stored. Most 503s leave that open: the
// queue may have written the event and failed to say so, and of a batch one partition may have been written without
// another.
func untouched(res *vegeta.Result) bool {
	var r struct{ Detail []struct{ Type string } }
	if res.Code != http.StatusServiceUnavailable || json.Unmarshal(res.Body, &r) != nil || len(r.Detail) == 0 {
		return false
	}
	switch r.Detail[0].Type {
	case "queue_full", "disk_full", "registry_down":
		return true
	}
	return false
}

// failure returns a short name for a transport error, without addresses.
func failure(text string) string {
	for _, f := range []struct{ part, name string }{
		{"Client.Timeout", "timeout"}, {"deadline exceeded", "timeout"}, {"i/o timeout", "timeout"},
		{"connection refused", "connection refused"}, {"connection reset", "connection reset"},
		{"broken pipe", "connection reset"}, {"EOF", "connection closed"}, {"too many open files", "too many open files"},
	} {
		if strings.Contains(text, f.part) {
			return f.name
		}
	}
	return "transport error"
}

func (s *sender) progress(phase string, more func(*Progress)) {
	p := Progress{Phase: phase, Elapsed: time.Since(s.began), Requests: s.report.Requests}
	p.Acknowledged, p.Refused, p.Unknown = s.history.tally()
	more(&p)
	s.options.Progress(p)
}

// drain waits until the collector has reported an empty queue twice in a row.
func (s *sender) drain(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.options.DrainTimeout)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	var last time.Time
	for empty := 0; empty < 2; {
		depth, err := queueDepth(ctx, s.client, s.options.Target)
		if err == nil && depth == 0 {
			empty++
		} else {
			empty = 0
		}
		if now := time.Now(); now.Sub(last) >= time.Second {
			last = now
			s.progress("draining", func(p *Progress) { p.QueueDepth = depth })
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("%w within %v: %w", ErrNotDrained, s.options.DrainTimeout, err)
			}
			return fmt.Errorf("%w within %v: %d events wait", ErrNotDrained, s.options.DrainTimeout, depth)
		case <-poll.C:
		}
	}
	s.report.Drain = time.Since(began).Seconds()
	return nil
}

// queueDepth returns the number of acknowledged events that the collector's health says are not stored yet.
func queueDepth(ctx context.Context, client *http.Client, target string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target+"/v1/health", nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("reading the answer of %s: %w", req.URL, err)
	}
	var health struct {
		QueueDepth *int64 `json:"queue_depth"`
	}
	if err := json.Unmarshal(body, &health); err != nil || health.QueueDepth == nil {
		return 0, fmt.Errorf("%s answered %s without a queue_depth: %.200q", req.URL, res.Status, body)
	}
	return *health.QueueDepth, nil
}
