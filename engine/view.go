package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/api"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// view keeps the registry's newest snapshot in memory. A newer one that cannot be taken leaves the old one in use.
type view struct {
	store    *store.Store
	log      *slog.Logger
	snapshot atomic.Pointer[registry.Snapshot]
	newest   atomic.Pointer[head]    // that the database was heard to have
	refused  atomic.Pointer[refusal] // nil when the newest is in use, or was not looked at yet
	away     atomic.Bool             // the registry cannot be followed just now
	mu       sync.Mutex              // held while a snapshot is loaded
}

// head is a state of the registry.
type head struct{ revision, version int64 }

// refusal says why a state is not taken, in words that anybody may read.
type refusal struct {
	revision int64
	reason   string
	at       time.Time
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the registry's revision %d cannot be taken: %s", r.revision, r.reason)
}

// refusedAgain is how long a state that was refused is not looked at again: it may be mended without becoming another one.
const refusedAgain = 3 * time.Second

// Snapshot returns the newest snapshot.
func (v *view) Snapshot() *registry.Snapshot { return v.snapshot.Load() }

// Refresh loads the registry when it has changed, and gives up after three seconds.
func (v *view) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return v.reload(ctx)
}

// reload loads the registry when it has changed. What cannot be taken is a *refusal.
func (v *view) reload(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.snapshot.Load()
	if was != nil {
		revision, version, err := v.store.Revision(ctx)
		if err != nil {
			return v.judge(was.Revision, fmt.Errorf("reloading the registry: %w", err))
		}
		v.newest.Store(&head{revision, version})
		if revision == was.Revision {
			v.refused.Store(nil)
			return nil
		}
		if r := v.refused.Load(); r != nil && r.revision == revision && time.Since(r.at) < refusedAgain {
			return r
		}
	}
	now, err := v.store.LoadRegistry(ctx)
	if err != nil {
		if was == nil {
			return fmt.Errorf("loading the registry: %w", err)
		}
		return v.judge(v.newest.Load().revision, fmt.Errorf("reloading the registry: %w", err))
	}
	if err := v.check(was, now); err != nil {
		return v.judge(now.Revision, err)
	}
	v.newest.Store(&head{now.Revision, now.Version})
	v.refused.Store(nil)
	now.Device(uuid.Nil) // makes the index, for which no request should wait
	v.snapshot.Store(now)
	v.log.Info("registry loaded", "version", now.Version, "revision", now.Revision, "holds", now.String())
	return nil
}

// check refuses what is an accident: an apply retires devices, and when all that were in use are gone or retired at once
// without one, somebody emptied the wrong table, or forgot a WHERE. Refusing all that they send would lose it.
func (v *view) check(was, now *registry.Snapshot) error {
	if was == nil || now.Version > was.Version {
		return nil
	}
	used := registry.InUse(was.Devices)
	if used == 0 || registry.InUse(now.Devices) > 0 {
		return nil
	}
	what := "gone"
	if len(now.Devices) > 0 {
		what = "gone or retired"
	}
	return &store.UnreadableError{Table: "devices", Reason: fmt.Sprintf("all %d devices are %s, and no apply did that; "+
		"put them back, by an apply or from a backup, or restart the service if it is meant", used, what)}
}

// judge turns an error that lies in the registry itself into a *refusal, which is logged once.
func (v *view) judge(revision int64, err error) error {
	unreadable := (*store.UnreadableError)(nil)
	if !errors.As(err, &unreadable) {
		return err
	}
	r := &refusal{revision, unreadable.Error(), time.Now()}
	if last := v.refused.Swap(r); last == nil || last.reason != r.reason {
		use := v.Snapshot()
		v.log.Error("the registry cannot be taken as it is now, the old one stays in use", "revision", revision, "reason", r.reason,
			"version_in_use", use.Version, "revision_in_use", use.Revision)
	}
	return r
}

// watch follows the registry until ctx ends.
func (v *view) watch(ctx context.Context) error {
	const pause = time.Second
	for {
		err := v.store.WatchRegistry(ctx, func() error {
			if err := v.reload(ctx); err != nil && !errors.As(err, new(*refusal)) {
				return err
			}
			if v.away.Swap(false) {
				v.log.Info("registry is followed again")
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if !v.away.Swap(true) {
			v.log.Warn("the old registry stays in use just now, will go on trying", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// health tells which registry is in use and which is the newest, and what is wrong when they differ, or "".
func (v *view) health() (h api.RegistryHealth, problem string) {
	use, newest, refused := v.Snapshot(), v.newest.Load(), v.refused.Load()
	h = api.RegistryHealth{Version: use.Version, Revision: use.Revision, NewestVersion: newest.version, NewestRevision: newest.revision}
	switch {
	case refused != nil:
		problem = fmt.Sprintf("registry: version %d, revision %d stays in use: %s", use.Version, use.Revision, refused)
	case v.away.Load():
		problem = fmt.Sprintf("registry: version %d, revision %d stays in use: the database cannot be asked for newer ones", use.Version, use.Revision)
	}
	return h, problem
}
