package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

type options struct {
	rounds      int
	binary, dir string
	size        size
}

// size is how much one measurement takes. Every device sends one event in a turn.
type size struct {
	copyRows   int
	copyLimit  time.Duration
	chunks     int // a chunk is encoded ahead of its measurement, and so bounds the memory
	chunkTurns int
	singles    int // turns
}

var (
	full  = size{copyRows: 1_000_000, copyLimit: 8 * time.Second, chunks: 2, chunkTurns: 500, singles: 200}
	tenth = size{copyRows: 100_000, copyLimit: 4 * time.Second, chunks: 1, chunkTurns: 100, singles: 40}
)

const (
	batchConnections  = 32
	batchEvents       = 100
	singleConnections = 128
)

// bench is what all measurements share.
type bench struct {
	options
	service *process
	bare    string // address
	db      *storebench.DB
	seq     *loadgen.Sequence
	turn    uint64 // the next of the sequence
	devices []uuid.UUID
	keys    []string
}

func measure(ctx context.Context, o options, progress io.Writer) (_ *Result, err error) {
	result := &Result{Time: time.Now().UTC()}
	if result.Machine, err = describeMachine(o.dir); err != nil {
		return nil, err
	}
	b := &bench{options: o}
	fmt.Fprintln(progress, "starting the service with", devices, "devices of", parameters, "parameters")
	ready, err := b.startService(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.service.stop()) }()
	stopBare, err := b.startBare(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopBare()) }()
	if err := b.prepare(ctx, ready.DatabaseURL); err != nil {
		return nil, err
	}
	defer b.db.Close(context.WithoutCancel(ctx))
	if result.Machine.PostgreSQL, err = b.db.Settings(ctx); err != nil {
		return nil, err
	}
	collector := strings.TrimPrefix(ready.Collector, "http://")
	for i := range o.rounds {
		var r Round
		say := func(format string, args ...any) {
			fmt.Fprintf(progress, "round %d of %d: "+format+"\n", append([]any{i + 1, o.rounds}, args...)...)
		}
		if r.RawCopy, err = b.rawCopy(ctx); err != nil {
			return nil, fmt.Errorf("raw COPY: %w", err)
		}
		say("raw COPY %.0f values/s", r.RawCopy)
		if r.EndToEnd, r.Acknowledged, err = b.endToEnd(ctx, collector); err != nil {
			return nil, fmt.Errorf("end to end: %w", err)
		}
		say("end to end %.0f values/s", r.EndToEnd)
		requests := b.seq.Requests(collector, singleConnections, 1, b.turn, o.size.singles)
		bare, err := b.fire(ctx, b.bare, requests)
		if err != nil {
			return nil, fmt.Errorf("bare 202: %w", err)
		}
		r.Bare = bare.PerSecond()
		say("bare 202 %.0f requests/s", r.Bare)
		single, _, err := b.store(ctx, collector, requests, o.size.singles)
		if err != nil {
			return nil, fmt.Errorf("single events: %w", err)
		}
		r.Single, r.SingleP99 = single.PerSecond(), single.Latency.P99
		say("single events %.0f requests/s", r.Single)
		if r.ServiceRSS, err = peakMemory(b.service.cmd.Process.Pid); err != nil {
			return nil, err
		}
		result.Rounds = append(result.Rounds, r)
	}
	result.complete()
	return result, nil
}

// readyFile is what nsready up writes when it takes events.
type readyFile struct {
	Collector   string `json:"collector"` // URL
	DatabaseURL string `json:"database_url"`
}

func (b *bench) startService(ctx context.Context) (ready readyFile, err error) {
	config := filepath.Join(b.dir, "bench.hcl")
	if err := os.WriteFile(config, declaration(), 0o644); err != nil {
		return ready, fmt.Errorf("writing the declaration: %w", err)
	}
	announced := filepath.Join(b.dir, "ready.json")
	free := "127.0.0.1:0"
	b.service, err = start(b.dir, b.binary, "up", "-config", config, "-data", filepath.Join(b.dir, "data"), "-ready-file", announced,
		"-collector", free, "-admin", free, "-nats-monitor", free, "-postgres", free)
	if err != nil {
		return ready, err
	}
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
			continue
		case <-b.service.done:
			err = errors.New("it ended")
		case <-deadline:
			err = errors.New("it is not ready after 2 minutes")
		case <-ctx.Done():
			err = ctx.Err()
		}
		return ready, errors.Join(fmt.Errorf("starting the service: %w", err), b.service.stop())
	}
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

// startBare runs this program as a bare responder, in a process of its own as the service is.
func (b *bench) startBare(ctx context.Context) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-respond")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the bare responder: %w", err)
	}
	stop = func() error {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil && ctx.Err() == nil {
			return fmt.Errorf("stopping the bare responder: %w", err)
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the bare responder: %w", err), stop())
	}
	b.bare = strings.TrimSpace(line)
	return stop, nil
}

// prepare learns the devices from the registry and fixes the sequence of all events to come.
func (b *bench) prepare(ctx context.Context, url string) error {
	s, err := store.Open(ctx, url)
	if err != nil {
		return err
	}
	defer s.Close()
	snapshot, err := s.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	for _, d := range snapshot.Devices {
		b.devices = append(b.devices, d.ID)
	}
	for _, p := range snapshot.Parameters {
		b.keys = append(b.keys, p.Key)
	}
	if len(b.devices) != devices || len(b.keys) != parameters {
		return fmt.Errorf("the registry holds %v, want %d devices of %d parameters", snapshot, devices, parameters)
	}
	if b.seq, err = sequence(snapshot); err != nil {
		return err
	}
	b.db, err = storebench.Open(ctx, url)
	return err
}

// sequence gives each device an event a millisecond: fewer than go by, so that no time lies in the future.
func sequence(snapshot *registry.Snapshot) (*loadgen.Sequence, error) {
	fleet, err := loadgen.NewFleet(snapshot)
	if err != nil {
		return nil, err
	}
	return &loadgen.Sequence{Fleet: fleet, Run: "bench", Start: telemetry.MicrosOf(time.Now().Truncate(time.Second)), Step: 1000, Anonymous: true}, nil
}

// rawCopy returns rows a second, which are values a second.
func (b *bench) rawCopy(ctx context.Context) (float64, error) {
	rows, took, err := b.db.CopyOriginal(ctx, storebench.Original{Devices: b.devices, Keys: b.keys, Start: b.seq.Start,
		Rows: b.size.copyRows, Limit: b.size.copyLimit, Writers: 2})
	if err != nil {
		return 0, err
	}
	return float64(rows) / took.Seconds(), nil
}

// endToEnd returns values a second, until the last commit and until the last answer.
func (b *bench) endToEnd(ctx context.Context, collector string) (stored, acknowledged float64, err error) {
	var values, untilCommit, untilAnswer float64
	for range b.size.chunks {
		requests := b.seq.Requests(collector, batchConnections, batchEvents, b.turn, b.size.chunkTurns)
		report, took, err := b.store(ctx, collector, requests, b.size.chunkTurns)
		if err != nil {
			return 0, 0, err
		}
		values += float64(b.size.chunkTurns * devices * parameters)
		untilCommit += took.Seconds()
		untilAnswer += report.Seconds
	}
	return values / untilCommit, values / untilAnswer, nil
}

// fire sends requests as fast as the answers come, after a checkpoint and a garbage collection.
func (b *bench) fire(ctx context.Context, addr string, requests [][][]byte) (loadgen.RawReport, error) {
	if err := b.db.Checkpoint(ctx); err != nil {
		return loadgen.RawReport{}, err
	}
	runtime.GC()
	report, err := loadgen.Raw(ctx, loadgen.RawOptions{Addr: addr, Requests: requests})
	if err == nil && report.Refusal != "" {
		err = fmt.Errorf("not every request was accepted: %v, such as %s", report.Answers, report.Refusal)
	}
	return report, err
}

// store fires requests that hold the sequence's next turns, waits until all are committed, and counts what is stored. It
// returns the time from the first request to the last commit.
func (b *bench) store(ctx context.Context, addr string, requests [][][]byte, turns int) (report loadgen.RawReport, took time.Duration, err error) {
	before, err := b.db.Committed(ctx)
	if err != nil {
		return report, 0, err
	}
	if report, err = b.fire(ctx, addr, requests); err != nil {
		return report, 0, err
	}
	first := b.turn * devices
	b.turn += uint64(turns)
	events := int64(turns * devices)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for last, changed := int64(-1), time.Now(); ; {
		now, err := b.db.Committed(ctx)
		if err != nil {
			return report, 0, err
		}
		if now-before >= events {
			break
		}
		if now != last {
			last, changed = now, time.Now()
		}
		if time.Since(changed) > 30*time.Second {
			return report, 0, fmt.Errorf("%d of %d accepted events are committed, and none for 30 s", now-before, events)
		}
		select {
		case <-ctx.Done():
			return report, 0, ctx.Err()
		case <-poll.C:
		}
	}
	took = time.Since(report.Began)
	values, err := b.db.Stored(ctx, b.seq.Time(first), b.seq.Time(first+uint64(events)))
	if err == nil && values != events*parameters {
		err = fmt.Errorf("%d values are stored, %d were sent", values, events*parameters)
	}
	return report, took, err
}
