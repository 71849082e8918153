package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

func open(t *testing.T, dir string, partitions int, maxBytes int64) (*Queue, func()) {
	t.Helper()
	q, _, stop := openWith(t, Options{Partitions: partitions, MaxBytes: maxBytes, Dir: dir, MinFree: 1 << 20})
	return q, stop
}

func openWith(t *testing.T, o Options) (*Queue, *Server, func()) {
	t.Helper()
	o.Log = quiet
	server, err := StartServer(ServerOptions{Dir: o.Dir, Monitor: "127.0.0.1:0", Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(t.Context(), nc, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{q.Run, server.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			running.Wait()
			nc.Close()
			server.Shutdown()
		})
	}
	t.Cleanup(stop)
	return q, server, stop
}

var quiet = slog.New(slog.DiscardHandler)

var testSet = &telemetry.ParameterSet{ID: 1, Keys: []string{"project:x:voltage"}}

func block(n int, values ...float64) telemetry.Block {
	b := telemetry.Block{Sets: []*telemetry.ParameterSet{testSet}, Events: len(values)}
	for _, v := range values {
		b.Dictionary = testSet.Size()
		b.Records = telemetry.AppendRecord(b.Records, &telemetry.Event{Device: uuid.UUID{byte(n)}, Set: testSet, Values: []float64{v}})
	}
	return b
}

// read returns the values of the first n events of a partition after a frame.
func read(t *testing.T, q *Queue, partition int, after uint64, n int) (values []float64, seqs []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := q.Read(partition, after)
	defer r.Close()
	var decoder telemetry.Decoder
	for len(values) < n {
		seq, data, _, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d values: %v", len(values), n, err)
		}
		var b telemetry.Batch
		h, err := decoder.Append(&b, data)
		if err != nil {
			t.Fatal(err)
		}
		if after == 0 && h.Before != uint64(len(values)) {
			t.Fatalf("frame %d says %d events came before it, %d did", seq, h.Before, len(values))
		}
		for _, e := range b.Events {
			values = append(values, e.Values...)
		}
		seqs = append(seqs, seq)
	}
	return values, seqs
}

func TestAppendIsDurableAndInOrder(t *testing.T) {
	dir := t.TempDir()
	q, stop := open(t, dir, 2, 64<<20)
	const senders, each = 20, 50
	var g sync.WaitGroup
	for s := range senders {
		g.Go(func() {
			for i := range each {
				wait, err := q.Append(s%2, block(s, float64(s*1000+i)))
				if err == nil {
					err = wait(t.Context())
				}
				if err != nil {
					t.Errorf("sender %d: %v", s, err)
					return
				}
			}
		})
	}
	g.Wait()
	epochs := []string{q.Partitions()[0].Epoch, q.Partitions()[1].Epoch}
	stop()
	q, _ = open(t, dir, 7, 64<<20) // an existing queue keeps its partitions
	if len(q.Partitions()) != 2*telemetry.Lanes {
		t.Fatalf("%d partitions after reopening", len(q.Partitions()))
	}
	for p := range 2 {
		if got := q.Partitions()[p].Epoch; got != epochs[p] {
			t.Errorf("partition %d has epoch %s after reopening, had %s", p, got, epochs[p])
		}
		if err := q.Rebase(t.Context(), p, 0, 0); err != nil {
			t.Fatal(err)
		}
		if got := q.Partitions()[p].Events(); got != senders/2*each {
			t.Errorf("partition %d counts %d events, want %d", p, got, senders/2*each)
		}
		values, seqs := read(t, q, p, 0, senders/2*each)
		next := map[int]int{}
		for _, v := range values {
			s, i := int(v)/1000, int(v)%1000
			if next[s] != i {
				t.Fatalf("sender %d: value %d came when %d was due", s, i, next[s])
			}
			next[s]++
		}
		if len(next) != senders/2 {
			t.Errorf("partition %d has the values of %d senders", p, len(next))
		}
		if len(seqs) >= len(values) {
			t.Errorf("partition %d took %d frames for %d requests: nothing was grouped", p, len(seqs), len(values))
		}
	}
}

func TestReadGoesOnAfterAFrame(t *testing.T) {
	q, _ := open(t, t.TempDir(), 1, 64<<20)
	for i := range 5 {
		wait, err := q.Append(0, block(1, float64(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	values, seqs := read(t, q, 0, 3, 2)
	if fmt.Sprint(values, seqs) != "[3 4] [4 5]" {
		t.Errorf("after frame 3 come %v %v", values, seqs)
	}
	if err := q.Purge(t.Context(), 0, 4); err != nil {
		t.Fatal(err)
	}
	if first, err := q.FirstAfter(t.Context(), 0, time.Now().Add(-time.Hour)); err != nil || first != 5 {
		t.Errorf("the first frame is %d, %v after purging 4", first, err)
	}
	if first, err := q.FirstAfter(t.Context(), 0, time.Now().Add(time.Hour)); err != nil || first != 6 {
		t.Errorf("the first frame of the future is %d, %v", first, err)
	}
}

func put(t *testing.T, q *Queue, partition int, values ...float64) {
	t.Helper()
	wait, err := q.Append(partition, block(0, values...))
	if err == nil {
		err = wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !reached(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

func TestTheCountOfEventsRestsOnItsBase(t *testing.T) {
	dir := t.TempDir()
	q, stop := open(t, dir, 1, 64<<20)
	expect := func(when string, seq, base, want uint64) {
		t.Helper()
		if err := q.Rebase(t.Context(), 0, seq, base); err != nil {
			t.Fatal(err)
		}
		if n := q.Partitions()[0].Events(); n != want {
			t.Errorf("%s, the partition counts %d events, want %d", when, n, want)
		}
	}
	for i := range 5 {
		put(t, q, 0, make([]float64, i+1)...)
	}
	expect("from the first frame", 0, 0, 15)
	expect("from the third frame", 3, 1006, 1015)
	put(t, q, 0, 1, 2)
	expect("from the third frame again", 3, 6, 17)
	// A message that is no frame counts as none.
	if _, err := q.js.Publish(t.Context(), "ingress.events.0", []byte("no frame")); err != nil {
		t.Fatal(err)
	}
	put(t, q, 0, 1)
	expect("behind something else", 6, 17, 18)
	stop()
	q, stop = open(t, dir, 1, 64<<20)
	expect("after a restart", 3, 6, 18)
	if err := q.Purge(t.Context(), 0, q.Partitions()[0].Last()); err != nil {
		t.Fatal(err)
	}
	expect("with everything purged", 8, 20, 20)
	stop()
	q, _ = open(t, dir, 1, 64<<20)
	if last := q.Partitions()[0].Last(); last != 8 {
		t.Errorf("a partition that was purged ends at frame %d, want 8", last)
	}
	expect("with everything purged, after a restart", 8, 20, 20)
	put(t, q, 0, 1, 2, 3)
	expect("then", 8, 20, 23)
}

func TestFullQueueRefusesAndKeepsWhatItHas(t *testing.T) {
	q, _ := open(t, t.TempDir(), 1, 4<<20)
	large := block(1, make([]float64, 5000)...)
	accepted := 0
	var refusal *telemetry.UnavailableError
	for deadline := time.Now().Add(30 * time.Second); refusal == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the queue never refuses")
		}
		wait, err := q.Append(0, large)
		if err == nil {
			err = wait(t.Context())
		}
		if err == nil {
			accepted += large.Events
		} else if !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
	if refusal.Code != "queue_full" || refusal.RetryAfter <= 0 {
		t.Errorf("refused with %+v", refusal)
	}
	if values, _ := read(t, q, 0, 0, accepted); len(values) != accepted {
		t.Errorf("%d events are in the queue, %d were accepted", len(values), accepted)
	}
	if err := q.Purge(t.Context(), 0, q.Partitions()[0].Last()); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for q.Refusal(telemetry.Live) != nil {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("an empty queue still refuses")
		}
	}
}

func TestStoppedQueueRefuses(t *testing.T) {
	q, stop := open(t, t.TempDir(), 1, 4<<20)
	stop()
	if _, err := q.Append(0, block(1, 1)); !errors.As(err, new(*telemetry.UnavailableError)) {
		t.Errorf("a stopped queue answers %v", err)
	}
}

func TestBallast(t *testing.T) {
	dir := t.TempDir()
	before, err := FreeSpace(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Ballast(dir); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := FreeSpace(dir); err != nil || before-after < ballastSize/2 {
		t.Errorf("the ballast takes %d bytes, %v", before-after, err)
	}
}
