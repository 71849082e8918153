package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// size is how much one measurement takes. Every device sends one event in a turn.
type size struct {
	copyRows       int
	copyLimit      time.Duration
	telemetryTurns int
	chunks         int // of x100: a chunk is encoded ahead of its measurement, and so bounds the memory
	chunkTurns     int
	x10Turns       int
	singleTurns    int
	halfBatches    int // turns
	halfSingles    int // turns
	queuedChunks   int
	queuedTurns    int // of a chunk
}

var (
	full = size{copyRows: 1_000_000, copyLimit: 8 * time.Second, telemetryTurns: 1000, chunks: 2, chunkTurns: 500, x10Turns: 300,
		singleTurns: 200, halfBatches: 600, halfSingles: 100, queuedChunks: 10, queuedTurns: 1000}
	tenth = size{copyRows: 100_000, copyLimit: 2 * time.Second, telemetryTurns: 100, chunks: 1, chunkTurns: 100, x10Turns: 30,
		singleTurns: 20, halfBatches: 60, halfSingles: 20, queuedChunks: 1, queuedTurns: 1000}
)

// bench is what all measurements share.
type bench struct {
	options
	service *service
	slow    *service // with slow fsyncs, started when it is first needed
	slowErr error    // why there is none
	bare    string   // address of the bare responder
}

// round holds the figures of a round by their keys.
type round struct {
	figures  map[string]float64
	remarks  map[string]string // what makes a figure invalid
	missing  map[string]string // phases that were not measured, and why
	progress func(format string, args ...any)
}

func newRound() *round {
	return &round{figures: map[string]float64{}, remarks: map[string]string{}, missing: map[string]string{}, progress: func(string, ...any) {}}
}

// set notes a figure. A remark says why it must not be believed, if it mustn't.
func (r *round) set(key string, value float64, remark string) {
	r.figures[key] = value
	if remark != "" {
		r.remarks[key] = remark
	}
	f := figureOf(key)
	r.progress("%s: %s %s %s %s", f.phase(), f.name, format(value), f.unit, remark)
}

func measure(ctx context.Context, o options, progress io.Writer) (_ *Result, err error) {
	result := &Result{Time: time.Now().UTC(), Commit: commit(ctx, o.binary)}
	if result.Machine, err = describeMachine(o.dir); err != nil {
		return nil, err
	}
	b := &bench{options: o}
	fmt.Fprintln(progress, "starting the service with", devices, "devices of", parameters, "parameters")
	if b.service, err = startService(ctx, filepath.Join(o.dir, "service"), o.binary); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.service.close(ctx)) }()
	defer func() {
		if b.slow != nil {
			err = errors.Join(err, b.slow.close(ctx))
		}
	}()
	stopBare, err := b.startBare(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopBare()) }()
	if result.Machine.PostgreSQL, err = b.service.db.Settings(ctx); err != nil {
		return nil, err
	}
	var rounds []*round
	for i := range o.rounds {
		r := newRound()
		began := time.Now()
		r.progress = func(text string, args ...any) {
			fmt.Fprintf(progress, "%3.0f s, round %d of %d: %s\n", time.Since(result.Time).Seconds(), i+1, o.rounds, fmt.Sprintf(text, args...))
		}
		// Each round begins with an empty table, or the last one would find a longer way down its index.
		if err := b.service.db.Empty(ctx); err != nil {
			return nil, err
		}
		for _, p := range o.phases {
			if err := p.run(ctx, b, r); err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
		}
		r.progress("took %.0f s", time.Since(began).Seconds())
		rounds = append(rounds, r)
	}
	result.Seconds = time.Since(result.Time).Seconds()
	result.complete(o.phases, rounds)
	return result, nil
}

// commit returns which commit a binary was built from. One that does not say is taken to be of the working directory's.
func commit(ctx context.Context, binary string) string {
	revision, changed := "", ""
	if info, err := buildinfo.ReadFile(binary); err == nil {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				changed = "-dirty"
			}
		}
	}
	if revision == "" {
		text, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(text))
	}
	return revision + changed
}
