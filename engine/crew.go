package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/worker"
)

// crew shares the partitions out among the processes that run workers: the one that started first takes the first, the
// next the second, and so on in turns. Every process works that out by itself from the list of those that are alive.
type crew struct {
	store  *store.Store
	log    *slog.Logger
	name   string
	member store.Member
	able   func() bool // this process reaches the queue

	mu     sync.Mutex
	index  int // of this process on the list
	size   int
	change chan struct{} // closed when index or size change
}

// beatInterval is well below store.Lease.
const beatInterval = time.Second

func newCrew(s *store.Store, name string, able func() bool, log *slog.Logger) *crew {
	return &crew{store: s, log: log, name: name, able: able, member: store.NewMember(name), change: make(chan struct{})}
}

// join puts this process on the list of those that run workers.
func (c *crew) join(ctx context.Context) error {
	if err := c.store.Join(ctx, c.member); err != nil {
		return err
	}
	return c.beat(ctx)
}

// beat says that this process is alive, and looks who else is.
func (c *crew) beat(ctx context.Context) error {
	names, err := c.store.Beat(ctx, c.member)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	index, size := slices.Index(names, c.name), len(names)
	if index != c.index || size != c.size {
		if c.size > 0 {
			c.log.Info("partitions are shared out anew", "workers", names)
		}
		c.index, c.size = index, size
		close(c.change)
		c.change = make(chan struct{})
	}
	return nil
}

// has reports whether this process is to own a partition. The channel is closed when that may have changed.
func (c *crew) has(partition int) (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size > 0 && partition%c.size == c.index, c.change
}

// hasAll reports whether this process is to own all of n partitions.
func (c *crew) hasAll(n int) bool {
	for i := range n {
		if mine, _ := c.has(i); !mine {
			return false
		}
	}
	return true
}

// run beats until ctx ends, and then leaves. While the database does not answer all stays as it is. It ends with an error
// when another process has taken this one's name.
func (c *crew) run(ctx context.Context) error {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := c.store.Leave(last, c.member); err != nil {
				c.log.Warn("others will take the partitions over with a delay", "err", err)
			}
			return nil
		case <-tick.C:
		}
		if !c.able() { // others take over
			continue
		}
		asking, cancel := context.WithTimeout(ctx, store.Lease/2)
		err := c.beat(asking)
		cancel()
		if errors.Is(err, store.ErrNameTaken) {
			return fmt.Errorf("%w: give each process a name of its own", err)
		}
		if err != nil && !failing && ctx.Err() == nil {
			c.log.Warn("the database was not told that this worker is alive, will go on trying", "err", err)
		}
		failing = err != nil
	}
}

// work runs a worker while its partition is this process's, until ctx ends.
func (c *crew) work(ctx context.Context, w *worker.Worker) error {
	var stop func() // while the worker runs
	for {
		mine, change := c.has(w.Partition)
		switch {
		case mine && stop == nil:
			stop = begin(ctx, w)
		case !mine && stop != nil:
			stop()
			stop = nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			if stop != nil {
				stop()
			}
			return nil
		}
	}
}

// begin runs a worker and returns what ends it and waits for it.
func begin(ctx context.Context, w *worker.Worker) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
