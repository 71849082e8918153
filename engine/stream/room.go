package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/nsready/nsready/engine/telemetry"
)

// The queue refuses at these marks rather than fail: a JetStream store that met ENOSPC stays broken until it restarts.
const (
	fullAt      = 0.95 // of MaxBytes
	ballastSize = 64 << 20
)

// watch keeps the refusal and the partitions' sizes up to date.
func (q *Queue) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		q.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (q *Queue) refresh(ctx context.Context) {
	for _, p := range q.partitions {
		q.look(ctx, p)
		if ctx.Err() != nil {
			return
		}
	}
	if q.checkSpace(0) == nil {
		q.accept(&q.refusal)
	}
}

// look asks for a stream's state. A leader of an external cluster that is being elected gets its time.
func (q *Queue) look(ctx context.Context, p *Partition) {
	wait, excuse := publishTimeout, time.Duration(0)
	if q.options.External {
		wait, excuse = attemptTimeout, patience
	}
	known, now := p.Last(), time.Now()
	asking, cancel := context.WithTimeout(ctx, wait)
	info, err := p.stream.Info(asking)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if p.silent.IsZero() {
			p.silent = now
		}
		if now.Sub(p.silent) >= excuse {
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				q.fail(fmt.Errorf("%w: the stream of partition %d is gone: what it held and was not stored is lost", ErrReplaced, p.number))
				return
			}
			q.refuse(&p.refusal, "queue_down", fmt.Errorf("asking for the state of partition %d: %w", p.number, err))
		}
		return
	}
	p.silent = time.Time{}
	if epoch := info.Config.Metadata[metaEpoch]; epoch != p.Epoch {
		q.fail(fmt.Errorf("%w: partition %d was made anew while the service ran: what it held and was not stored is lost", ErrReplaced, p.number))
		return
	}
	if info.State.LastSeq >= known {
		p.behind = time.Time{}
	} else if p.behind.IsZero() {
		p.behind = now
	}
	if !p.behind.IsZero() && now.Sub(p.behind) >= excuse {
		q.cut(p, info.State.LastSeq, known)
		return
	}
	p.first.Store(info.State.FirstSeq)
	p.bytes.Store(info.State.Bytes)
	if info.State.Bytes > uint64(fullAt*float64(p.limit)) {
		q.refuse(&p.refusal, "queue_full", fmt.Errorf("partition %d holds %d MiB, its limit is %d MiB", p.number, info.State.Bytes>>20, p.limit>>20))
	} else {
		q.accept(&p.refusal)
	}
}

// checkSpace refuses when so many bytes more leave too little free on an embedded server's file system.
func (q *Queue) checkSpace(more int) *telemetry.UnavailableError {
	if q.options.Dir == "" {
		return nil
	}
	free, err := FreeSpace(q.options.Dir)
	switch {
	case err != nil:
		return q.refuse(&q.refusal, "queue_down", err)
	case q.options.MinFree > 0 && free-int64(more) < q.options.MinFree:
		return q.refuse(&q.refusal, "disk_full", fmt.Errorf("%d MiB are free in %s, %d MiB must stay free", free>>20, q.options.Dir, q.options.MinFree>>20))
	}
	return nil
}

// refuse sets a refusal, and logs it when it is a new one.
func (q *Queue) refuse(at *atomic.Pointer[telemetry.UnavailableError], code string, err error) *telemetry.UnavailableError {
	r := &telemetry.UnavailableError{Code: code, RetryAfter: 5 * time.Second, Err: err}
	if was := at.Swap(r); was == nil || was.Code != code {
		q.options.Log.Error("queue refuses new events", "code", code, "err", err)
	}
	return r
}

// accept takes a refusal back.
func (q *Queue) accept(at *atomic.Pointer[telemetry.UnavailableError]) {
	if was := at.Swap(nil); was != nil {
		q.options.Log.Info("queue accepts again", "was", was.Code)
	}
}

// FreeSpace returns the bytes that an unprivileged user may still write below dir.
func FreeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// Ballast reserves space in dir by a file that an operator may delete when the disk is full, so that what needs a little
// room to recover has it. It fails when the space is not there.
func Ballast(dir string) error {
	path := filepath.Join(dir, "ballast")
	if s, err := os.Stat(path); err == nil && s.Size() == ballastSize {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making the ballast file: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = f.Truncate(ballastSize)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("reserving %d MiB in %s: %w", ballastSize>>20, path, err)
	}
	return nil
}
