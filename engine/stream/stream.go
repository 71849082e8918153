// Package stream is the durable queue between ingest and the workers: JetStream streams, one for each partition, whose
// messages are frames. It commits in groups: all requests that wait for the same fsync share one frame.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/telemetry"
)

const (
	// Names of the original platform's stream and subject, numbered by partition.
	streamName    = "INGRESS"
	streamSubject = "ingress.events"

	maxPayload = 1 << 20    // NATS's default, so that frames fit external servers too
	maxFrame   = 1000 << 10 // of records and dictionary

	publishTimeout = 10 * time.Second
	retryPublish   = 5 * time.Second // after a publish that failed
	maxDamaged     = 1000            // frames to look behind for one that says how many events there were
)

// Options of the queue.
type Options struct {
	Partitions int    // of a new queue; an existing queue keeps its own
	MaxBytes   int64  // of all partitions together
	Dir        string // directory of an embedded server's store, whose file system is watched; "" for an external server
	MinFree    int64  // bytes that must stay free on that file system
	Log        *slog.Logger
}

// Queue is the set of partitions.
type Queue struct {
	js         jetstream.JetStream
	partitions []*Partition
	options    Options
	producer   uint64
	refusal    atomic.Pointer[telemetry.UnavailableError]
	slot       sync.Mutex // held while a frame is published: one at a time, so that groups are large
}

// Partition is one stream and the group that is open for it.
type Partition struct {
	Epoch  string // identity of the stream: a recreated stream has another
	Fresh  bool   // the stream was made by this Open
	number int
	stream jetstream.Stream

	mu     sync.Mutex
	change *sync.Cond // the open group got its first events, or room, or the queue closed
	open   *group
	closed bool

	events  atomic.Uint64                              // stored in the stream since its epoch began
	synced  bool                                       // events is known; only the publisher looks at it
	first   atomic.Uint64                              // sequence of the oldest frame
	last    atomic.Uint64                              // sequence of the newest frame
	bytes   atomic.Uint64                              // stored now
	refusal atomic.Pointer[telemetry.UnavailableError] // there is no room
	failing atomic.Pointer[failure]                    // the last publish failed
}

// failure is a failed publish. Until its time comes nothing is tried again.
type failure struct {
	*telemetry.UnavailableError
	until time.Time
}

// group is a frame in the making.
type group struct {
	buffer []byte // HeaderSize bytes and records
	sets   []*telemetry.ParameterSet
	size   int                 // of the frame that it becomes, at most
	has    map[uint32]struct{} // ids of sets, once they are many
	events int
	done   chan struct{}
	err    error // set before done is closed
}

// Open ensures the streams of the queue.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Queue, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("opening queue: %w", err)
	}
	q := &Queue{js: js, options: o, producer: rand.Uint64()}
	count := o.Partitions
	if s, err := js.Stream(ctx, streamName+"_0"); err == nil {
		if count, err = strconv.Atoi(s.CachedInfo().Config.Metadata["nsready_partitions"]); err != nil || count < 1 {
			return nil, fmt.Errorf("opening queue: stream %s_0 was not made by nsready", streamName)
		}
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("opening queue: %w", err)
	}
	for i := range count {
		p, err := q.openPartition(ctx, i, count)
		if err != nil {
			return nil, fmt.Errorf("opening queue partition %d: %w", i, err)
		}
		q.partitions = append(q.partitions, p)
	}
	return q, nil
}

func (q *Queue) openPartition(ctx context.Context, i, count int) (*Partition, error) {
	name := fmt.Sprintf("%s_%d", streamName, i)
	config := jetstream.StreamConfig{
		Name: name, Subjects: []string{fmt.Sprintf("%s.%d", streamSubject, i)}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: q.options.MaxBytes / int64(count),
		DenyDelete: true, AllowDirect: true, Duplicates: time.Second,
		Metadata: map[string]string{"nsready_epoch": uuid.NewString(), "nsready_partitions": strconv.Itoa(count)},
	}
	fresh := false
	s, err := q.js.Stream(ctx, name)
	switch {
	case err == nil:
		config.Metadata = s.CachedInfo().Config.Metadata
		s, err = q.js.UpdateStream(ctx, config)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		s, err = q.js.CreateStream(ctx, config)
		fresh = true
	}
	if err != nil {
		return nil, err
	}
	p := &Partition{number: i, stream: s, Fresh: fresh, Epoch: s.CachedInfo().Config.Metadata["nsready_epoch"]}
	p.change = sync.NewCond(&p.mu)
	p.open = newGroup()
	if err := p.sync(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// sync reads from the stream how many events it ever held.
func (p *Partition) sync(ctx context.Context) error {
	info, err := p.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("reading the stream's state: %w", err)
	}
	p.last.Store(info.State.LastSeq)
	p.first.Store(info.State.FirstSeq)
	p.bytes.Store(info.State.Bytes)
	// Frames that are damaged or gone are passed over: the workers will say so, and the count is no promise.
	for seq := info.State.LastSeq; seq >= max(info.State.FirstSeq, 1) && info.State.LastSeq-seq < maxDamaged; seq-- {
		m, err := p.stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading frame %d: %w", seq, err)
		}
		if h, err := telemetry.DecodeHeader(m.Data); err == nil {
			p.events.Store(h.Before + uint64(h.Events))
			break
		}
	}
	p.synced = true
	return nil
}

// NewEpoch gives a partition a new epoch, so that its frames are read from the first again.
func (q *Queue) NewEpoch(ctx context.Context, partition int) error {
	p := q.partitions[partition]
	config := p.stream.CachedInfo().Config
	config.Metadata = maps.Clone(config.Metadata)
	config.Metadata["nsready_epoch"] = uuid.NewString()
	s, err := q.js.UpdateStream(ctx, config)
	if err != nil {
		return fmt.Errorf("beginning a new epoch of queue partition %d: %w", partition, err)
	}
	p.stream, p.Epoch = s, config.Metadata["nsready_epoch"]
	return nil
}

// Partitions returns the partitions in order.
func (q *Queue) Partitions() []*Partition { return q.partitions }

// Refusal returns why the queue, or one of its partitions, takes nothing just now, or nil.
func (q *Queue) Refusal() *telemetry.UnavailableError {
	if r := q.refusal.Load(); r != nil {
		return r
	}
	for _, p := range q.partitions {
		if r := p.refusal.Load(); r != nil {
			return r
		}
		if f := p.failing.Load(); f != nil {
			return f.UnavailableError
		}
	}
	return nil
}

// MaxBytes returns how much one partition may hold.
func (q *Queue) MaxBytes() uint64 { return uint64(q.options.MaxBytes) / uint64(len(q.partitions)) }

// Events returns how many events were stored in the partition since its epoch began.
func (p *Partition) Events() uint64 { return p.events.Load() }

// Last returns the sequence of the newest frame, 0 when there never was one.
func (p *Partition) Last() uint64 { return p.last.Load() }

// First returns the sequence of the oldest frame.
func (p *Partition) First() uint64 { return p.first.Load() }

// Bytes returns the size of the frames stored now.
func (p *Partition) Bytes() uint64 { return p.bytes.Load() }

var groups = sync.Pool{New: func() any { return &group{buffer: make([]byte, telemetry.HeaderSize, 64<<10)} }}

func newGroup() *group {
	g := groups.Get().(*group)
	*g = group{buffer: g.buffer[:telemetry.HeaderSize], sets: g.sets[:0], size: telemetry.HeaderSize, done: make(chan struct{})}
	return g
}

// Append adds a block to the open group of a partition and returns a function that waits until the group is on disk.
// A full group makes it wait for the one before.
func (q *Queue) Append(partition int, b telemetry.Block) (wait func(context.Context) error, err error) {
	p := q.partitions[partition]
	for _, r := range []*telemetry.UnavailableError{q.refusal.Load(), p.refusal.Load()} {
		if r != nil {
			return nil, r
		}
	}
	if f := p.failing.Load(); f != nil && time.Now().Before(f.until) {
		return nil, f.UnavailableError
	}
	p.mu.Lock()
	for p.open.events > 0 && p.open.size+b.Size() > maxFrame && !p.closed {
		p.change.Wait()
	}
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	g := p.open
	if g.events == 0 {
		p.change.Broadcast()
	}
	g.add(b)
	p.mu.Unlock()
	return g.wait, nil
}

var errClosed = &telemetry.UnavailableError{Code: "queue_down", RetryAfter: time.Second, Err: errors.New("the service is stopping")}

func (g *group) add(b telemetry.Block) {
	g.buffer = append(g.buffer, b.Records...)
	g.events += b.Events
	g.size += len(b.Records)
	for _, s := range b.Sets {
		g.addSet(s)
	}
}

func (g *group) addSet(s *telemetry.ParameterSet) {
	const few = 16
	if len(g.sets) < few {
		for _, known := range g.sets {
			if known == s {
				return
			}
		}
	} else {
		if g.has == nil {
			g.has = make(map[uint32]struct{}, 2*few)
			for _, known := range g.sets {
				g.has[known.ID] = struct{}{}
			}
		}
		if _, ok := g.has[s.ID]; ok {
			return
		}
		g.has[s.ID] = struct{}{}
	}
	g.sets = append(g.sets, s)
	g.size += s.Size()
}

func (g *group) wait(ctx context.Context) error {
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the queue: %w", context.Cause(ctx))
	}
}

// Run publishes groups and watches the queue's room until ctx ends. Then it refuses new blocks, publishes what it has
// taken, and returns.
func (q *Queue) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, p := range q.partitions {
		g.Go(func() error { q.publish(p); return nil })
	}
	g.Go(func() error { q.watch(ctx); return nil })
	<-ctx.Done()
	for _, p := range q.partitions {
		p.mu.Lock()
		p.closed = true
		p.change.Broadcast()
		p.mu.Unlock()
	}
	return g.Wait()
}

// publish sends one frame after another: while one is being synced, of whatever partition, the groups fill.
func (q *Queue) publish(p *Partition) {
	for p.waitForEvents() {
		q.slot.Lock()
		g := p.take()
		g.err = q.publishGroup(p, g)
		q.slot.Unlock()
		// Whoever waits holds the group, so it is not pooled itself: its buffers are, once JetStream has copied them.
		if g.err == nil {
			spare := &group{buffer: g.buffer, sets: g.sets}
			clear(spare.sets)
			groups.Put(spare)
		}
		close(g.done)
	}
}

// waitForEvents waits until the open group has events. It returns false when the queue closed and there are none.
func (p *Partition) waitForEvents() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.open.events == 0 && !p.closed {
		p.change.Wait()
	}
	return p.open.events > 0
}

// take closes the open group and opens another.
func (p *Partition) take() *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.open
	p.open = newGroup()
	p.change.Broadcast()
	return g
}

func (q *Queue) publishGroup(p *Partition, g *group) error {
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
	defer cancel()
	if !p.synced {
		if err := p.sync(ctx); err != nil {
			return q.failed(p, err)
		}
	}
	g.buffer = telemetry.SealFrame(g.buffer, telemetry.Header{
		Events: g.events, ReceivedAt: telemetry.MicrosOf(time.Now()), Producer: q.producer, Before: p.events.Load(),
	}, g.sets)
	ack, err := q.js.PublishMsg(ctx, &nats.Msg{Subject: streamSubject + "." + strconv.Itoa(p.number), Data: g.buffer}, jetstream.WithRetryAttempts(0))
	if err != nil {
		p.synced = false // the frame may be stored or not
		return q.failed(p, err)
	}
	if p.failing.Swap(nil) != nil {
		q.options.Log.Info("queue stores again", "partition", p.number)
	}
	p.events.Add(uint64(g.events))
	p.last.Store(ack.Sequence)
	p.bytes.Add(uint64(len(g.buffer)))
	return nil
}

// failed turns a failed publish into what a sender is told. Only a full queue is sure not to have stored the frame.
func (q *Queue) failed(p *Partition, err error) error {
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == errStoreFull {
		return q.refuse(&p.refusal, "queue_full", fmt.Errorf("publishing to partition %d: %w", p.number, err))
	}
	u := &telemetry.UnavailableError{Code: "queue_down", RetryAfter: retryPublish, Err: fmt.Errorf("publishing to partition %d: %w", p.number, err)}
	if p.failing.Swap(&failure{u, time.Now().Add(retryPublish)}) == nil {
		q.options.Log.Error("queue cannot store, will try again with new events", "partition", p.number, "err", err)
	}
	return u
}

// errStoreFull is JetStream's "maximum bytes exceeded" (JSStreamStoreFailedF).
const errStoreFull = 10077

// Reader reads the frames of a partition in order, waiting for new ones.
type Reader struct {
	partition int
	messages  jetstream.MessagesContext
}

// Read begins to read a partition after a sequence.
func (q *Queue) Read(ctx context.Context, partition int, after uint64) (*Reader, error) {
	doing := func(err error) error {
		return fmt.Errorf("reading queue partition %d after frame %d: %w", partition, after, err)
	}
	consumer, err := q.partitions[partition].stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	})
	if err != nil {
		return nil, doing(err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxBytes(readAhead))
	if err != nil {
		return nil, doing(err)
	}
	return &Reader{partition, messages}, nil
}

// readAhead is how many bytes of frames a Reader holds.
const readAhead = 4 << 20

// Next returns the next frame, and whether more are known to follow. It waits until ctx ends.
func (r *Reader) Next(ctx context.Context) (seq uint64, data []byte, more bool, err error) {
	m, err := r.messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, false, context.Cause(ctx)
		}
		return 0, nil, false, fmt.Errorf("reading queue partition %d: %w", r.partition, err)
	}
	meta, err := m.Metadata()
	if err != nil {
		return 0, nil, false, fmt.Errorf("reading queue partition %d: %w", r.partition, err)
	}
	return meta.Sequence.Stream, m.Data(), meta.NumPending > 0, nil
}

// Close ends the reading.
func (r *Reader) Close() { r.messages.Stop() }

// Purge removes the frames of a partition up to and including a sequence, but not the newest, which holds the count of
// events over a restart.
func (q *Queue) Purge(ctx context.Context, partition int, upTo uint64) error {
	p := q.partitions[partition]
	if upTo = min(upTo, max(p.Last(), 1)-1); upTo == 0 {
		return nil
	}
	if err := p.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purging queue partition %d up to frame %d: %w", partition, upTo, err)
	}
	return nil
}

// FirstAfter returns the sequence of the first frame stored at or after t, or one past the last frame.
func (q *Queue) FirstAfter(ctx context.Context, partition int, t time.Time) (uint64, error) {
	info, err := q.partitions[partition].stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading queue partition %d: %w", partition, err)
	}
	if info.State.Msgs == 0 {
		return info.State.LastSeq + 1, nil
	}
	lo, hi := info.State.FirstSeq, info.State.LastSeq+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		m, err := q.partitions[partition].stream.GetMsg(ctx, mid)
		if err != nil {
			return 0, fmt.Errorf("reading queue partition %d, frame %d: %w", partition, mid, err)
		}
		if m.Time.Before(t) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}
