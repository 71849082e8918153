package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

func TestLooksAreFewAndFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l looks
		var count, running atomic.Int64
		committed := atomic.Int64{} // what is there to be seen
		seen := atomic.Int64{}      // by the looks so far
		refresh := func(context.Context) error {
			if running.Add(1) != 1 {
				t.Error("two look at once")
			}
			defer running.Add(-1)
			count.Add(1)
			now := committed.Load()
			time.Sleep(30 * time.Millisecond) // of the bubble's clock: a slow database
			seen.Store(now)
			return nil
		}
		start := time.Now()
		if err := l.look(t.Context(), refresh); err != nil || time.Since(start) > 30*time.Millisecond {
			t.Errorf("the first look took %v: %v", time.Since(start), err)
		}
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				mine := committed.Add(1)
				came := time.Now()
				if err := l.look(t.Context(), refresh); err != nil || seen.Load() < mine {
					t.Errorf("the look shows %d, want %d: %v", seen.Load(), mine, err)
				}
				if waited := time.Since(came); waited > lookPause+2*30*time.Millisecond {
					t.Errorf("it took %v", waited)
				}
			})
		}
		wg.Wait()
		if n := count.Load(); n > 7 {
			t.Errorf("%d looks in %v", n, time.Since(start))
		}
	})
}

func TestALookThatFailsFailsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l looks
		broken := errors.New("broken")
		fails := func(ctx context.Context) error {
			time.Sleep(time.Second)
			return errors.Join(broken, ctx.Err())
		}
		leader, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.look(leader, fails); !errors.Is(err, broken) || errors.Is(err, context.Canceled) {
				t.Errorf("the first got %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if err := l.look(t.Context(), fails); !errors.Is(err, broken) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		leave()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.look(gone, fails); !errors.Is(err, context.Canceled) {
			t.Errorf("who went away got %v", err)
		}
		wg.Wait()
		if err := l.look(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Errorf("the next look: %v", err)
		}
	})
}

// A device that was added since the snapshot is found, and the unknown one beside it refused.
func TestAMissedDeviceIsLookedFor(t *testing.T) {
	full := limitedEstate(registry.Limits{}, nil)
	var without []registry.Object
	for o := range full.Objects {
		if o != registry.Object(full.Devices[1]) {
			without = append(without, o)
		}
	}
	s, r, told := limitedService(registry.NewSnapshot(without))
	r.refresh = func(context.Context) error { r.snapshot.Store(full); return nil }
	unknown := strings.Replace(eventOf(full.Devices[2], "1"), full.Devices[2].ID.String(), uuid.NewString(), 1)
	body := strings.Join([]string{eventOf(full.Devices[0], "1"), unknown, eventOf(full.Devices[1], "1")}, "\n")
	result, err := s.Accept(t.Context(), NDJSON, []byte(body))
	if err != nil || result.Accepted != 2 || result.Rejected != 1 || result.Rejections[0].Line != 2 || told[CodeUnknownDevice+" "] != 1 {
		t.Errorf("got %+v, told %v: %v", result, told, err)
	}
}

// A million ids that nobody knows cost a bounded amount of memory and few looks, and hold no known device up.
func TestAMillionUnknownDevices(t *testing.T) {
	snapshot := limitedEstate(registry.Limits{Device: unlimited, Customer: unlimited}, nil)
	s, r, _ := limitedService(snapshot)
	s.Reject = func(uuid.UUID, *Rejection) {}
	event := eventOf(snapshot.Devices[0], "1")
	id := strings.Index(event, snapshot.Devices[0].ID.String())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	was, start := heap(), time.Now()
	var wg sync.WaitGroup
	var bodies atomic.Int64
	const all = 1_000_000 / MaxEvents
	for range 4 {
		wg.Go(func() {
			body := bytes.Repeat([]byte(event+"\n"), MaxEvents)
			for n := bodies.Add(1); n <= all; n = bodies.Add(1) {
				for i := range MaxEvents { // no two alike, and no device's
					hex.Encode(body[i*(len(event)+1)+id:], binary.BigEndian.AppendUint32(nil, uint32(n*MaxEvents+int64(i))))
				}
				if result, err := s.Accept(t.Context(), NDJSON, body); err != nil || result.Rejected != MaxEvents {
					t.Errorf("got %d refused: %v", result.Rejected, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	sent := int64(0) // by the known device
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var slowest time.Duration
	for known := true; known; {
		select {
		case <-done:
			known = false
		case <-tick.C:
			came := time.Now()
			result, err := s.Accept(t.Context(), JSON, []byte(event))
			if err != nil || result.Accepted != 1 {
				t.Fatal(result, err)
			}
			slowest = max(slowest, time.Since(came))
			sent++
		}
	}
	took := time.Since(start)
	if n, most := r.refreshes.Load(), int64(took/lookPause)+2; n > most || n == 0 {
		t.Errorf("%d looks in %v, want %d at most", n, took, most)
	}
	if looks := r.refreshes.Load(); sent < 4*looks {
		t.Errorf("a known device sent %d events in %d looks, as if it waited for them", sent, looks)
	}
	now := heap()
	if grown := int64(now) - int64(was); grown > 32<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	t.Logf("%v, %d looks, heap from %d to %d KiB; %d events of a known device, the slowest in %v", took, r.refreshes.Load(), was>>10, now>>10, sent, slowest)
}
