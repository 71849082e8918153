package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storebench"
	"github.com/nsready/nsready/engine/telemetry"
	"github.com/nsready/nsready/loadgen"
)

const (
	devices    = 1000
	parameters = 10
)

// service is an nsready up of the benchmark's own, and how far its sequence of events has got.
type service struct {
	process   *process
	collector string // host:port
	db        *storebench.DB
	devices   []uuid.UUID
	keys      []string          // of the parameters, sorted
	seq       *loadgen.Sequence // all parameters in an event
	sparse    *loadgen.Sequence // one parameter in an event; it shares the turns of seq
	turn      uint64            // the next of the sequences
}

// readyFile is what nsready up writes when it takes events.
type readyFile struct {
	Collector   string `json:"collector"` // URL
	DatabaseURL string `json:"database_url"`
}

// startService starts one in a directory of its own, under a program such as strace if one is given, and has it store an
// event of each device, so that what is done once is done.
func startService(ctx context.Context, dir, binary string, under ...string) (s *service, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	config, announced := filepath.Join(dir, "bench.hcl"), filepath.Join(dir, "ready.json")
	if err := os.WriteFile(config, declaration(), 0o644); err != nil {
		return nil, fmt.Errorf("writing the declaration: %w", err)
	}
	s = &service{}
	const free = "127.0.0.1:0"
	if s.process, err = start(filepath.Join(dir, "service.log"), slices.Concat(under, []string{binary, "up", "-config", config,
		"-data", filepath.Join(dir, "data"), "-ready-file", announced, "-collector", free, "-admin", free, "-nats-monitor", free, "-postgres", free})); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting the service: %w", err), s.close(ctx))
		}
	}()
	ready, err := s.waitReady(ctx, announced)
	if err != nil {
		return nil, err
	}
	s.collector = strings.TrimPrefix(ready.Collector, "http://")
	if err := s.learn(ctx, ready.DatabaseURL); err != nil {
		return nil, err
	}
	_, err = s.store(ctx, load{seq: s.seq, connections: 1, batch: batchEvents, turns: 1})
	return s, err
}

func (s *service) waitReady(ctx context.Context, announced string) (ready readyFile, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		text, err := os.ReadFile(announced)
		if err == nil && json.Unmarshal(text, &ready) == nil && ready.DatabaseURL != "" {
			return ready, nil
		}
		select {
		case <-tick.C:
		case <-s.process.done:
			return ready, errors.New("it ended")
		case <-deadline:
			return ready, errors.New("it is not ready after 2 minutes")
		case <-ctx.Done():
			return ready, ctx.Err()
		}
	}
}

// close stops the service. What is still queued after an interrupt is not waited for.
func (s *service) close(ctx context.Context) error {
	var err error
	if s.db != nil {
		err = s.db.Close(context.WithoutCancel(ctx))
	}
	patience := time.Minute
	if ctx.Err() != nil {
		patience = 5 * time.Second
	}
	return errors.Join(err, s.process.stop(patience))
}

// declaration is the estate that is measured.
func declaration() []byte {
	names := []string{"voltage", "current", "power", "frequency", "power_factor", "energy", "temperature", "humidity", "pressure", "flow"}
	var b bytes.Buffer
	b.WriteString("template \"bench\" {\n")
	for _, name := range names[:parameters] {
		fmt.Fprintf(&b, "  parameter %q {\n    min = 0\n    max = 500\n  }\n", name)
	}
	fmt.Fprintf(&b, `}

limits {
  device {
    events_per_second = 1e9
    burst             = 1e9
  }
  customer {
    events_per_second = 1e9
    burst             = 1e9
  }
}

customer "bench" {
  project "bench" {
    site "bench" {
      device "device" {
        for_each = range(%d)
        name     = format("device-%%04d", each.value)
        type     = "meter"
        template = "bench"
      }
    }
  }
}
`, devices)
	return b.Bytes()
}

// learn reads the devices from the registry and fixes the sequences of all events to come.
func (s *service) learn(ctx context.Context, url string) (err error) {
	if s.db, err = storebench.Open(ctx, url); err != nil {
		return err
	}
	reader, err := store.Open(ctx, url)
	if err != nil {
		return err
	}
	defer reader.Close()
	snapshot, err := reader.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	for _, d := range snapshot.Devices {
		s.devices = append(s.devices, d.ID)
	}
	for _, p := range snapshot.Parameters {
		s.keys = append(s.keys, p.Key)
	}
	slices.Sort(s.keys)
	if len(s.devices) != devices || len(s.keys) != parameters {
		return fmt.Errorf("the registry holds %v, want %d devices of %d parameters", snapshot, devices, parameters)
	}
	start := beginning(time.Now())
	if s.seq, err = sequence(snapshot, start); err != nil {
		return err
	}
	s.sparse, err = sequence(sparse(snapshot), start)
	return err
}

// sequence gives each device an event a millisecond: fewer than go by, so that no time lies in the future.
func sequence(snapshot *registry.Snapshot, start telemetry.Micros) (*loadgen.Sequence, error) {
	fleet, err := loadgen.NewFleet(snapshot)
	if err != nil {
		return nil, err
	}
	return &loadgen.Sequence{Fleet: fleet, Run: "bench", Start: start, Step: 1000, Anonymous: true}, nil
}

// beginning returns a time a few minutes ago after which, on its day, there is room for all events of a run.
func beginning(now time.Time) telemetry.Micros {
	const room = 5 * time.Minute
	start := now.UTC().Add(-room).Truncate(time.Second)
	if start.YearDay() != now.UTC().YearDay() {
		start = start.Add(-room)
	}
	return telemetry.MicrosOf(start)
}

// sparse returns the snapshot with one parameter for each device.
func sparse(snapshot *registry.Snapshot) *registry.Snapshot {
	few := *snapshot
	few.Devices = make([]*registry.Device, len(snapshot.Devices))
	for i, d := range snapshot.Devices {
		one := *d
		one.Parameters = []string{snapshot.Parameters[0].Addr.Name()}
		few.Devices[i] = &one
	}
	return &few
}

const (
	batchConnections  = 32
	batchEvents       = 100
	singleConnections = 128
)

// load is what to send: the next turns of a sequence.
type load struct {
	seq                *loadgen.Sequence
	connections, batch int
	turns              int
	rate               float64 // requests a second; 0 is as fast as the answers come
	again              bool    // every tenth request is sent again a little later
}

// outcome is what came of it.
type outcome struct {
	loadgen.RawReport
	values      int           // distinct ones
	untilCommit time.Duration // from the first request
}

// perSecond returns distinct values a second until the last commit.
func (o outcome) perSecond() float64 { return float64(o.values) / o.untilCommit.Seconds() }

// store sends a load, waits until all of it is committed, and checks that just that is stored.
func (s *service) store(ctx context.Context, l load) (o outcome, err error) {
	before, err := s.db.Committed(ctx)
	if err != nil {
		return o, err
	}
	first, sent, err := s.send(ctx, l, &o)
	if err != nil {
		return o, err
	}
	if err := s.waitCommitted(ctx, before+sent); err != nil {
		return o, err
	}
	o.untilCommit = time.Since(o.Began)
	return o, s.check(ctx, first, o.values)
}

// send sends a load, after a checkpoint and a garbage collection. It returns the sequence's first turn in it, and how many
// events it has, counting those that are sent again.
func (s *service) send(ctx context.Context, l load, o *outcome) (first uint64, events int64, err error) {
	requests := l.seq.Requests(s.collector, l.connections, l.batch, s.turn, l.turns)
	events = int64(l.turns * devices)
	if l.again {
		var more int
		requests, more = sendAgain(requests)
		events += int64(more * l.batch)
	}
	first = s.turn
	s.turn += uint64(l.turns)
	o.values = int(l.seq.Fleet.Values(uint64(l.turns * devices)))
	o.RawReport, err = fire(ctx, s.db, s.collector, requests, l.rate)
	return first, events, err
}

// fire sends requests after a checkpoint and a garbage collection.
func fire(ctx context.Context, db *storebench.DB, addr string, requests [][][]byte, rate float64) (loadgen.RawReport, error) {
	if err := db.Checkpoint(ctx); err != nil {
		return loadgen.RawReport{}, err
	}
	runtime.GC()
	report, err := loadgen.Raw(ctx, loadgen.RawOptions{Addr: addr, Requests: requests, Rate: rate})
	if err == nil && report.Refusal != "" {
		err = fmt.Errorf("not every request was accepted: %v, such as %s", report.Answers, report.Refusal)
	}
	return report, err
}

// waitCommitted returns when the service has committed a number of events.
func (s *service) waitCommitted(ctx context.Context, events int64) error {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for last, changed := int64(-1), time.Now(); ; {
		now, err := s.db.Committed(ctx)
		if err != nil {
			return err
		}
		if now >= events {
			return nil
		}
		if now != last {
			last, changed = now, time.Now()
		}
		if time.Since(changed) > 30*time.Second {
			return fmt.Errorf("%d accepted events are not committed, and none was for 30 s", events-now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// check counts what is stored of the turns from first on.
func (s *service) check(ctx context.Context, first uint64, want int) error {
	values, err := s.db.Stored(ctx, s.seq.Time(first*devices), s.seq.Time(s.turn*devices))
	if err == nil && values != int64(want) {
		err = fmt.Errorf("%d values are stored, %d were sent", values, want)
	}
	return err
}
