// Package stream is the durable queue between ingest and the workers: JetStream streams, one for each partition, whose
// messages are frames. It commits in groups: all requests that wait for the same fsync share one frame.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/telemetry"
)

const (
	maxPayload = 1 << 20 // NATS's default, so that frames fit external servers too

	publishTimeout = 5 * time.Second
	retryPublish   = 5 * time.Second // after a publish that failed

	// An external cluster may be electing a leader: a frame is published again under the same id until patience ends, so
	// that it costs time, not events.
	patience       = 8 * time.Second
	attemptTimeout = 2 * time.Second
	attemptPause   = 100 * time.Millisecond
)

// Options of the queue.
type Options struct {
	Partitions  int      // in each lane of a new queue; an existing queue keeps its own
	MaxBytes    int64    // of all partitions together
	External    bool     // the server is not ours alone: others may publish, and its leaders change
	Replicas    int      // of each stream; 0 is 1 for a new one, and for an existing one what it has
	MonitorURLs []string // of an external server's HTTP monitors, one for each server: tell whether they sync always
	Dir         string   // directory of an embedded server's store, whose file system is watched; "" for an external server
	MinFree     int64    // bytes that must stay free on that file system
	Log         *slog.Logger
}

// Queue is the set of partitions: those of the live lane, then as many of the backfill lane.
type Queue struct {
	nc         *nats.Conn
	js         jetstream.JetStream
	partitions []*Partition
	options    Options
	refusal    atomic.Pointer[telemetry.UnavailableError]
	turns      [telemetry.Lanes]sync.Mutex // held while a lane's groups are published to an embedded server
	link       atomic.Pointer[link]        // of the present connection
	durability atomic.Pointer[durability]

	broken context.Context // ends when the queue cannot go on
	fail   context.CancelCauseFunc
}

// link is the time from one loss of the connection to the next.
type link struct {
	context.Context
	lost context.CancelCauseFunc
}

// ErrReplaced says that the queue is not what it was when it was opened.
var ErrReplaced = errors.New("the queue was replaced")

var errLost = errors.New("the connection to the queue was lost")

func newLink() *link {
	ctx, lost := context.WithCancelCause(context.Background())
	return &link{ctx, lost}
}

// Partition is one stream and the group that is open for it.
type Partition struct {
	Epoch  string // identity of the stream: a recreated stream has another
	Fresh  bool   // the stream was made by this Open
	number int
	of     int    // so many in each lane, as its stream says
	limit  int64  // bytes that it may hold
	frame  int    // bytes of records and dictionary in a frame, at most
	name   string // of the stream
	stream jetstream.Stream

	mu     sync.Mutex
	change *sync.Cond // the open group got its first events, or room, or the queue closed
	open   *group
	closed bool

	// The publisher's own.
	subject  string
	producer uint64 // in the frames' headers; another after each publish of unknown outcome
	produced uint64 // events of the producer so far
	synced   *link  // the count is right since then

	tail    *tail // nil when the server is external: other processes publish too
	count   count
	first   atomic.Uint64                              // sequence of the oldest frame
	bytes   atomic.Uint64                              // stored now
	refusal atomic.Pointer[telemetry.UnavailableError] // there is no room
	failing atomic.Pointer[failure]                    // the last publish failed

	// The watcher's own.
	silent time.Time // since when the stream does not answer
	behind time.Time // since when it ends before frames that it had
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
	held   bool // some of the events are
	done   chan struct{}
	err    error // set before done is closed
}

// Connected reports whether the server is reached just now, as far as is known: a server that is silent is given up after 10 s.
func (q *Queue) Connected() bool { return q.nc.IsConnected() }

// Partitions returns all partitions: number i of lane l is at l*len/telemetry.Lanes + i.
func (q *Queue) Partitions() []*Partition { return q.partitions }

// Refusal returns why the queue takes nothing in a lane just now, or one of its partitions does, or nil.
func (q *Queue) Refusal(lane int) *telemetry.UnavailableError {
	if r := q.refusal.Load(); r != nil {
		return r
	}
	n := len(q.partitions) / telemetry.Lanes
	for _, p := range q.partitions[lane*n : (lane+1)*n] {
		if r := p.refused(); r != nil {
			return r
		}
	}
	return nil
}

// refused returns why the partition takes nothing just now, or nil.
func (p *Partition) refused() *telemetry.UnavailableError {
	if r := p.refusal.Load(); r != nil {
		return r
	}
	if f := p.failing.Load(); f != nil && time.Now().Before(f.until) {
		return f.UnavailableError
	}
	return nil
}

// MaxBytes returns how much the partition may hold.
func (p *Partition) MaxBytes() uint64 { return uint64(p.limit) }

// Events returns how many events were stored in the partition since its epoch began: what Rebase was told, and the events
// of the frames after that.
func (p *Partition) Events() uint64 {
	_, events := p.count.get()
	return events
}

// Last returns the sequence of the newest frame that is counted, 0 when there never was one.
func (p *Partition) Last() uint64 {
	seq, _ := p.count.get()
	return seq
}

// Newest returns the newest frame that is counted, and how many events there were up to it.
func (p *Partition) Newest() (o telemetry.Offset) {
	o.Seq, o.Events = p.count.get()
	return o
}

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
	if r := q.refusal.Load(); r != nil {
		return nil, r
	}
	p.mu.Lock()
	for p.open.events > 0 && p.open.size+b.Size() > p.frame && !p.closed && p.refused() == nil {
		p.change.Wait()
	}
	if r := p.refused(); r != nil {
		p.mu.Unlock()
		return nil, r
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
	g.held = g.held || b.Held
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

// Run publishes groups and watches the queue until ctx ends. Then it refuses new blocks, publishes what it has taken, and
// returns. It returns an error, before ctx ends, when the queue lost frames while it ran: what is opened anew finds out.
func (q *Queue) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var publishers, watchers errgroup.Group
	for _, p := range q.partitions {
		publishers.Go(func() error { q.publish(p); return nil })
	}
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	watchers.Go(func() error { q.followConnection(watching); return nil })
	watchers.Go(func() error { q.watch(ctx); return nil })
	if q.options.External {
		watchers.Go(func() error { q.watchDurability(ctx); return nil })
		for _, p := range q.partitions {
			watchers.Go(func() error { q.follow(ctx, p); return nil })
		}
	}
	select {
	case <-ctx.Done():
	case <-q.broken.Done():
		stop()
	}
	for _, p := range q.partitions {
		p.mu.Lock()
		p.closed = true
		p.change.Broadcast()
		p.mu.Unlock()
	}
	publishers.Wait()
	stopWatching()
	watchers.Wait()
	return context.Cause(q.broken)
}

// followConnection tells those who wait for an answer when the connection is lost, and the publishers when it is back.
func (q *Queue) followConnection(ctx context.Context) {
	changes := q.nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED)
	defer q.nc.RemoveStatusListener(changes)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-changes:
			if s == nats.RECONNECTING {
				q.link.Swap(newLink()).lost(errLost)
				continue
			}
			for _, p := range q.partitions {
				if f := p.failing.Load(); f != nil {
					p.failing.CompareAndSwap(f, &failure{f.UnavailableError, time.Time{}})
				}
			}
		}
	}
}

// publish publishes the groups of a partition until the queue closes. To an embedded server the groups of all partitions of a
// lane go in turns: while their frames are being synced, side by side, the next groups fill.
func (q *Queue) publish(p *Partition) {
	for p.waitForEvents() {
		if q.options.External {
			q.publishOpen(p)
			continue
		}
		lane := p.number / p.of
		q.turns[lane].Lock()
		var others sync.WaitGroup
		for _, other := range q.partitions[lane*p.of : (lane+1)*p.of] {
			if other != p && other.hasEvents() {
				others.Go(func() { q.publishOpen(other) })
			}
		}
		q.publishOpen(p)
		others.Wait()
		q.turns[lane].Unlock()
	}
}

// publishOpen publishes the open group of a partition, if it has events, and tells those who wait for it.
func (q *Queue) publishOpen(p *Partition) {
	g := p.take()
	if g == nil {
		return
	}
	g.err = q.publishGroup(p, g)
	// Whoever waits holds the group, so it is not pooled itself: its buffers are, once JetStream has copied them.
	if g.err == nil {
		spare := &group{buffer: g.buffer, sets: g.sets}
		clear(spare.sets)
		groups.Put(spare)
	}
	close(g.done)
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

func (p *Partition) hasEvents() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open.events > 0
}

// take closes the open group and opens another. It returns nil when the group is empty.
func (p *Partition) take() *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.open
	if g.events == 0 {
		return nil
	}
	p.open = newGroup()
	p.change.Broadcast()
	return g
}

// headerEvents is the message header that holds the number of events in a frame, for those who only count.
const headerEvents = "Nsready-Events"

func (q *Queue) publishGroup(p *Partition, g *group) error {
	if q.broken.Err() != nil {
		return q.failed(p, context.Cause(q.broken))
	}
	if r := q.checkSpace(len(g.buffer)); r != nil {
		return r
	}
	if f := p.failing.Load(); f != nil && time.Now().Before(f.until) { // events that came before it failed
		return f.UnavailableError
	}
	link := q.link.Load()
	if !q.options.External && p.synced != link {
		if err := q.sync(link, p); err != nil {
			return q.failed(p, err)
		}
		p.synced = link
	}
	g.buffer = telemetry.SealFrame(g.buffer, telemetry.Header{
		Events: g.events, ReceivedAt: telemetry.MicrosOf(time.Now()), Producer: p.producer, Before: p.produced, Held: g.held,
	}, g.sets)
	m := &nats.Msg{Subject: p.subject, Data: g.buffer, Header: nats.Header{headerEvents: {strconv.Itoa(g.events)}}}
	send := q.send
	if q.options.External {
		m.Header.Set(jetstream.MsgIDHeader, strconv.FormatUint(p.producer, 16)+"-"+strconv.FormatUint(p.produced, 16))
		send = q.insist
	}
	ack, err := send(link, m)
	if err == nil && p.tail != nil {
		p.tail.add(ack.Sequence, g.buffer) // before it is counted, so that readers find it
	}
	if err == nil && !q.options.External {
		err = q.acknowledged(link, p, ack.Sequence, uint64(g.events))
	}
	if err != nil {
		// The frame may be stored or not, now or later: as another producer's last one it leaves no gap either way.
		p.producer, p.produced, p.synced = rand.Uint64(), 0, nil
		return q.failed(p, err)
	}
	failpoint.Hit("stream.published")
	if p.failing.Swap(nil) != nil {
		q.options.Log.Info("queue stores again", "partition", p.number)
	}
	p.produced += uint64(g.events)
	p.bytes.Add(uint64(len(g.buffer)))
	return nil
}

// send publishes once. It waits no longer than the connection lives.
func (q *Queue) send(link *link, m *nats.Msg) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeoutCause(link, publishTimeout, fmt.Errorf("no answer within %v", publishTimeout))
	defer cancel()
	ack, err := q.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return ack, err
}

// insist publishes again and again until patience ends. The message has an id, so that it is stored once.
func (q *Queue) insist(_ *link, m *nats.Msg) (*jetstream.PubAck, error) {
	for end := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(q.link.Load(), attemptTimeout)
		ack, err := q.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil || isFull(err) || time.Now().Add(attemptPause).After(end) || q.nc.IsClosed() {
			return ack, err
		}
		time.Sleep(attemptPause)
	}
}

// failed turns a failed publish into what a sender is told. Only a full queue is sure not to have stored the frame.
func (q *Queue) failed(p *Partition, err error) error {
	if isFull(err) {
		return q.refuse(&p.refusal, "queue_full", fmt.Errorf("publishing to partition %d: %w", p.number, err))
	}
	u := &telemetry.UnavailableError{Code: "queue_down", RetryAfter: retryPublish, Err: fmt.Errorf("publishing to partition %d: %w", p.number, err)}
	if p.failing.Swap(&failure{u, time.Now().Add(retryPublish)}) == nil {
		q.options.Log.Error("queue cannot store, will try again with new events", "partition", p.number, "err", err)
	}
	return u
}

// isFull reports whether JetStream has no room for a message: "maximum bytes exceeded" (JSStreamStoreFailedF).
func isFull(err error) bool {
	const errStoreFull = 10077
	api := (*jetstream.APIError)(nil)
	return errors.As(err, &api) && api.ErrorCode == errStoreFull
}
