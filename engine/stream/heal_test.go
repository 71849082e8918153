package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsready/nsready/engine/telemetry"
)

// volume mounts a file system of so many MiB.
func volume(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("nsready-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Skipf("SKIPPED: nothing is known about full disks, because this test may not mount a file system (run it as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// hoard takes all free space of a file system but so many bytes, and returns a function that gives it back.
func hoard(t *testing.T, dir string, but int64) (free func()) {
	t.Helper()
	space, err := FreeSpace(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hoard")
	f, err := os.Create(path)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, space-but)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// try puts one event in, and reports whether it was accepted. Nothing but a refusal may be the reason when it was not.
func try(t *testing.T, q *Queue, value float64, size int) bool {
	t.Helper()
	b := block(1, value)
	e := &telemetry.Event{Set: testSet, Values: []float64{value}, Attributes: []byte(strings.Repeat("x", size))}
	b.Records = telemetry.AppendRecord(nil, e)
	start := time.Now()
	wait, err := q.Append(0, b)
	if err == nil {
		err = wait(t.Context())
	}
	if took := time.Since(start); took > publishTimeout+2*time.Second {
		t.Errorf("an answer took %v", took)
	}
	if err != nil && !errors.As(err, new(*telemetry.UnavailableError)) {
		t.Fatal(err)
	}
	return err == nil
}

// holds expects that all of the accepted values are in the queue.
func holds(t *testing.T, q *Queue, accepted []float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := q.Read(0, 0)
	defer r.Close()
	missing := map[float64]bool{}
	for _, v := range accepted {
		missing[v] = true
	}
	var decoder telemetry.Decoder
	for more := true; more; {
		var b telemetry.Batch
		var data []byte
		var err error
		if _, data, more, err = r.Next(ctx); err == nil {
			_, err = decoder.Append(&b, data)
		}
		if err != nil {
			t.Fatalf("with %d of %d values missing: %v", len(missing), len(accepted), err)
		}
		for _, e := range b.Events {
			delete(missing, e.Values[0])
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d accepted values are missing", len(missing), len(accepted))
	}
}

func TestABrokenStoreHealsItself(t *testing.T) {
	dir := volume(t, 64)
	q, server, _ := openWith(t, Options{Partitions: 1, MaxBytes: 1 << 30, Dir: dir})
	var accepted []float64
	next := 0.0
	send := func(size int) bool {
		next++
		ok := try(t, q, next, size)
		if ok {
			accepted = append(accepted, next)
		}
		return ok
	}
	for range 20 {
		if !send(100) {
			t.Fatal("an empty queue refuses")
		}
	}
	// A worker that keeps up: a reader, and another when it ends because its server is gone.
	var read atomic.Uint64
	read.Store(q.Partitions()[0].Last())
	following, stopFollowing := context.WithCancel(t.Context())
	var worker sync.WaitGroup
	worker.Go(func() {
		for following.Err() == nil {
			reader := q.Read(0, read.Load())
			var err error
			for err == nil {
				var seq uint64
				if seq, _, _, err = reader.Next(following); err == nil {
					read.Store(seq)
				}
			}
			reader.Close()
			if following.Err() == nil && !errors.Is(err, errLost) {
				t.Errorf("the reader ended with %v", err)
			}
		}
	})
	defer worker.Wait()
	defer stopFollowing()
	free := hoard(t, dir, 3<<20)
	for send(100 << 10) {
	}
	if server.broken() == "" && server.Restarts() == 0 {
		until(t, "the store to break", func() bool { return server.broken() != "" || server.Restarts() > 0 })
	}
	broke := time.Now()
	until(t, "a restart", func() bool { return server.Restarts() > 0 })
	if took := time.Since(broke); took > 4*time.Second {
		t.Errorf("the restart came after %v", took)
	}
	free()
	until(t, "the queue to accept again", func() bool { return send(100) })
	for range 20 {
		if !send(100) {
			t.Fatal("the queue refuses again")
		}
	}
	until(t, "the reader to have all", func() bool { return read.Load() == q.Partitions()[0].Last() })
	holds(t, q, accepted)
	if n := q.Partitions()[0].Events(); n < uint64(len(accepted)) || n > uint64(next) {
		t.Errorf("%d events are counted, %d were accepted, %d sent", n, len(accepted), int(next))
	}
}

func TestANearlyFullVolumeIsRefusedBeforeItIsFull(t *testing.T) {
	const minFree = 12 << 20
	dir := volume(t, 64)
	q, server, _ := openWith(t, Options{Partitions: 1, MaxBytes: 1 << 30, Dir: dir, MinFree: minFree})
	free := hoard(t, dir, minFree+8<<20)
	var accepted []float64
	for i := range 200 { // of 100 kB each: 20 MB, 8 are left
		if try(t, q, float64(i), 100<<10) {
			accepted = append(accepted, float64(i))
		}
	}
	if r := q.Refusal(telemetry.Live); r == nil || r.Code != "disk_full" || len(accepted) < 20 {
		t.Errorf("after %d accepted events the queue refuses with %v", len(accepted), r)
	}
	if left, err := FreeSpace(dir); err != nil || left < minFree-1<<20 {
		t.Errorf("%d bytes are left free, %v", left, err)
	}
	free()
	until(t, "the queue to accept again", func() bool { return try(t, q, 1000, 1) })
	holds(t, q, append(accepted, 1000))
	if server.Restarts() > 0 {
		t.Error("the store broke")
	}
}

func TestTheServerIsReplacedUnderLoad(t *testing.T) {
	q, server, _ := openWith(t, Options{Partitions: 1, MaxBytes: 1 << 30, Dir: t.TempDir()})
	var mu sync.Mutex
	var accepted []float64
	var senders sync.WaitGroup
	done := make(chan struct{})
	for s := range 4 {
		senders.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if v := float64(s*1e6 + i); try(t, q, v, 10) {
					mu.Lock()
					accepted = append(accepted, v)
					mu.Unlock()
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted)
	}
	monitor := server.MonitorAddr()
	for range 3 {
		n := count()
		until(t, "events", func() bool { return count() > n+50 })
		if err := server.restart(); err != nil {
			t.Fatal(err)
		}
	}
	n := count()
	until(t, "events", func() bool { return count() > n+50 })
	close(done)
	senders.Wait()
	holds(t, q, accepted)
	if server.MonitorAddr() != monitor {
		t.Errorf("the monitor moved from %s to %s", monitor, server.MonitorAddr())
	}
	// What was stored though its senders were told otherwise is counted as well.
	p := q.Partitions()[0]
	in, err := q.eventsIn(t.Context(), p, 0, p.Last())
	if err != nil || in != p.Events() {
		t.Errorf("%d events are counted, the stream has %d, %v", p.Events(), in, err)
	}
}

func TestAQueueThatWasCutStops(t *testing.T) {
	dir := t.TempDir()
	server, err := StartServer(ServerOptions{Dir: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Shutdown() }()
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	q, err := Open(t.Context(), nc, Options{Partitions: 1, MaxBytes: 1 << 30, Dir: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(t.Context()) }()
	put(t, q, 0, 1)
	server.Shutdown()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream/*/streams/INGRESS_0/msgs/*"))
	if err != nil || len(blocks) == 0 {
		t.Fatal("no blocks", err)
	}
	for _, b := range blocks {
		if err := os.Remove(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.start(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "acknowledged events may be lost") {
			t.Errorf("the queue ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the queue goes on")
	}
	if try(t, q, 2, 1) {
		t.Error("it accepts an event")
	}
}
