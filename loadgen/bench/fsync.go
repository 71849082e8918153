package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// slowBy is what each fsync and fdatasync of the slow service and its database takes longer.
const slowBy = 4 * time.Millisecond

// slowConnections is how many times more connections send to the slow service: each waits several syncs for its answer, so
// that a few would measure their own waiting.
const slowConnections = 4

// slowFsync measures batches and single events on a service whose disk is slow to sync, which strace makes it.
func slowFsync(ctx context.Context, b *bench, r *round) error {
	if b.slow == nil && b.slowErr == nil {
		b.slow, b.slowErr = startSlow(ctx, b)
	}
	if b.slowErr != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.missing["fsync"] = b.slowErr.Error()
		r.progress("fsync: %v", b.slowErr)
		return nil
	}
	s := b.slow
	if err := s.db.Empty(ctx); err != nil {
		return err
	}
	batches, err := s.store(ctx, load{seq: s.seq, connections: slowConnections * batchConnections, batch: batchEvents, turns: 2 * b.size.chunkTurns})
	if err != nil {
		return err
	}
	singles, err := s.store(ctx, load{seq: s.seq, connections: slowConnections * singleConnections, batch: 1, turns: 2 * b.size.singleTurns})
	if err != nil {
		return err
	}
	if p50 := singles.Latency.P50; p50 < slowBy.Seconds()*1000 {
		return fmt.Errorf("half of the answers came within %.1f ms, though each waits for a sync of %v: strace does not slow the service", p50, slowBy)
	}
	r.set("fsync.x100.values", batches.perSecond(), batches.Bound())
	r.set("fsync.single.values", singles.perSecond(), singles.Bound())
	r.set("fsync.single.p50", singles.Latency.P50, "")
	return nil
}

// startSlow starts the slow service. It is the child, and strace its grandchild.
func startSlow(ctx context.Context, b *bench) (*service, error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, errors.New("strace is missing")
	}
	under := []string{strace, "-D", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d", slowBy.Microseconds())}
	s, err := startService(ctx, filepath.Join(b.dir, "slow"), b.binary, under...)
	if err != nil {
		return nil, fmt.Errorf("under strace: %w", err)
	}
	return s, nil
}
