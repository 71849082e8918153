package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nsready/nsready/engine/telemetry"
)

// lanes are the ways through the queue: the prefixes of their streams and subjects, those of the live lane the original
// platform's; the most bytes of records and dictionary that go into one frame, few where nobody waits for them, so that the
// worker's turn with one is short; and their shares of the queue's size.
var lanes = [telemetry.Lanes]struct {
	stream, subject string
	frame           int
	share           float64
}{
	telemetry.Live:     {"INGRESS_", "ingress.events.", 1000 << 10, 0.75},
	telemetry.Backfill: {"BACKFILL_", "backfill.events.", 128 << 10, 0.25},
}

// Metadata of the streams.
const (
	metaEpoch      = "nsready_epoch"
	metaPartitions = "nsready_partitions"
)

const (
	openTimeout = 30 * time.Second // for an external cluster that is just starting
	askTimeout  = 5 * time.Second
)

// Open ensures the streams of the queue. Several processes may do so at once.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Queue, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("opening queue: %w", err)
	}
	q := &Queue{nc: nc, js: js, options: o}
	q.link.Store(newLink())
	q.broken, q.fail = context.WithCancelCause(context.Background())
	count := o.Partitions
	for i := 0; i < telemetry.Lanes*count; i++ {
		var p *Partition
		err := q.patiently(ctx, func(ctx context.Context) (err error) {
			p, err = q.openPartition(ctx, i, count)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("opening queue partition %d: %w", i, err)
		}
		count = p.of
		q.partitions = append(q.partitions, p)
	}
	q.measureDurability(ctx)
	return q, nil
}

// patiently does something, again and again as long as an external cluster cannot do it yet.
func (q *Queue) patiently(ctx context.Context, do func(context.Context) error) error {
	for end := time.Now().Add(openTimeout); ; {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		err := do(asking)
		cancel()
		if err == nil || !q.options.External || ctx.Err() != nil || !mayPass(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// mayPass reports whether an error may be gone in a moment: the connection is lost, or the cluster has no leader.
func mayPass(err error) bool {
	const errNoPeers = 10005 // JSClusterNoPeersErrF: servers of the cluster are not there yet
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) {
		return api.Code == 503 || api.ErrorCode == errNoPeers
	}
	for _, e := range []error{context.DeadlineExceeded, nats.ErrNoResponders, nats.ErrTimeout, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrDisconnected} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// openPartition opens a partition's stream, and makes it when it is not there.
func (q *Queue) openPartition(ctx context.Context, i, count int) (*Partition, error) {
	lane, number := lanes[i/count], strconv.Itoa(i%count)
	name := lane.stream + number
	p := &Partition{number: i, name: name, subject: lane.subject + number, frame: lane.frame, producer: rand.Uint64(), open: newGroup()}
	p.change = sync.NewCond(&p.mu)
	if !q.options.External {
		p.tail = newTail()
	}
	s, err := q.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		mine := uuid.NewString()
		_, err = q.js.CreateStream(ctx, q.complete(jetstream.StreamConfig{
			Name: name, Replicas: max(q.options.Replicas, 1), MaxBytes: q.share(lane.share, count),
			Metadata: map[string]string{metaEpoch: mine, metaPartitions: strconv.Itoa(count)},
		}, p.subject))
		const errNoStorage = 10047 // JSStorageResourcesExceededErr
		if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == errNoStorage {
			return nil, fmt.Errorf("%w: the queue is to hold %d MiB: choose a smaller one (-queue-size), or give the server more (max_file_store)", err, q.options.MaxBytes>>20)
		}
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
		// Whoever comes second finds what the first has made.
		if s, err = q.js.Stream(ctx, name); err == nil {
			p.Fresh = s.CachedInfo().Config.Metadata[metaEpoch] == mine
		}
	}
	if err != nil {
		return nil, err
	}
	has := s.CachedInfo().Config
	if problem := unfit(has); problem != "" {
		return nil, fmt.Errorf("stream %s %s: remove it, or use another server", name, problem)
	}
	want := has
	if q.options.Replicas > 0 {
		want.Replicas = q.options.Replicas
	}
	partitions, err := strconv.Atoi(has.Metadata[metaPartitions])
	if err != nil || partitions < 1 || has.Metadata[metaEpoch] == "" {
		return nil, fmt.Errorf("stream %s was not made by nsready: remove it, or use another server", name)
	}
	p.of, p.limit = partitions, q.share(lane.share, partitions)
	want.MaxBytes = p.limit
	if want = q.complete(want, p.subject); !reflect.DeepEqual(has, want) {
		if s, err = q.js.UpdateStream(ctx, want); err != nil {
			return nil, fmt.Errorf("setting stream %s right: %w", name, err)
		}
	}
	p.stream, p.Epoch = s, has.Metadata[metaEpoch]
	info, err := s.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the stream's state: %w", err)
	}
	p.count.add(info.State.LastSeq, 0)
	p.first.Store(info.State.FirstSeq)
	p.bytes.Store(info.State.Bytes)
	p.synced = q.link.Load()
	return p, nil
}

// share returns the size of one of count partitions of a lane.
func (q *Queue) share(of float64, count int) int64 {
	return int64(of * float64(q.options.MaxBytes) / float64(count))
}

// complete sets what the queue's promises rest on: nothing but a purge removes a frame.
func (q *Queue) complete(c jetstream.StreamConfig, subject string) jetstream.StreamConfig {
	c.Subjects, c.Storage, c.Retention = []string{subject}, jetstream.FileStorage, jetstream.LimitsPolicy
	c.Discard, c.DiscardNewPerSubject = jetstream.DiscardNew, false
	c.MaxAge, c.MaxMsgs, c.MaxMsgsPerSubject, c.MaxMsgSize = 0, -1, -1, -1
	c.DenyDelete, c.AllowDirect, c.NoAck = true, true, false
	c.Duplicates = time.Second // the least: the publisher to an embedded server never repeats a frame
	if q.options.External {
		c.Duplicates = 2 * time.Minute
	}
	return c
}

// unfit returns what is wrong with a stream that cannot be set right, or "".
func unfit(c jetstream.StreamConfig) string {
	switch {
	case c.Storage != jetstream.FileStorage:
		return "keeps its messages in memory"
	case c.Retention != jetstream.LimitsPolicy:
		return "drops messages that were read"
	case c.PersistMode != jetstream.DefaultPersistMode:
		return "acknowledges messages before they are stored (persist_mode async)"
	case c.Sealed:
		return "is sealed"
	case c.DenyPurge:
		return "denies purges"
	case c.Mirror != nil || len(c.Sources) > 0:
		return "is a copy of other streams"
	}
	return ""
}

// NewEpoch gives a partition a new epoch, so that its frames are read from the first again.
func (q *Queue) NewEpoch(ctx context.Context, partition int) error {
	p := q.partitions[partition]
	config := p.stream.CachedInfo().Config
	config.Metadata = maps.Clone(config.Metadata)
	config.Metadata[metaEpoch] = uuid.NewString()
	s, err := q.js.UpdateStream(ctx, config)
	if err != nil {
		return fmt.Errorf("beginning a new epoch of queue partition %d: %w", partition, err)
	}
	p.stream, p.Epoch = s, config.Metadata[metaEpoch]
	return nil
}
