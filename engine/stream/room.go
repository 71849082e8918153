package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

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
		asking, cancel := context.WithTimeout(ctx, publishTimeout)
		info, err := p.stream.Info(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			q.refuse(&p.refusal, "queue_down", fmt.Errorf("asking for the state of partition %d: %w", p.number, err))
			continue
		}
		p.first.Store(info.State.FirstSeq)
		p.bytes.Store(info.State.Bytes)
		if info.State.Bytes > uint64(fullAt*float64(q.MaxBytes())) {
			q.refuse(&p.refusal, "queue_full", fmt.Errorf("partition %d holds %d MiB, its limit is %d MiB", p.number, info.State.Bytes>>20, q.MaxBytes()>>20))
		} else {
			q.accept(&p.refusal)
		}
	}
	if q.options.Dir == "" {
		return
	}
	free, err := FreeSpace(q.options.Dir)
	switch {
	case err != nil:
		q.refuse(&q.refusal, "queue_down", err)
	case free < q.options.MinFree:
		q.refuse(&q.refusal, "disk_full", fmt.Errorf("%d MiB are free in %s, %d MiB must stay free", free>>20, q.options.Dir, q.options.MinFree>>20))
	default:
		q.accept(&q.refusal)
	}
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
