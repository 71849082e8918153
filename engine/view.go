package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// view keeps the registry's newest snapshot in memory.
type view struct {
	store    *store.Store
	log      *slog.Logger
	snapshot atomic.Pointer[registry.Snapshot]
	mu       sync.Mutex // held while a snapshot is loaded
}

// Snapshot returns the newest snapshot.
func (v *view) Snapshot() *registry.Snapshot { return v.snapshot.Load() }

// Refresh loads the registry when it has changed, and gives up after three seconds.
func (v *view) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return v.reload(ctx)
}

// reload loads the registry when it has changed.
func (v *view) reload(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.snapshot.Load()
	if was != nil {
		revision, err := v.store.Revision(ctx)
		if err != nil {
			return fmt.Errorf("reloading the registry: %w", err)
		}
		if revision == was.Revision {
			return nil
		}
	}
	now, err := v.store.LoadRegistry(ctx)
	if err != nil {
		return fmt.Errorf("reloading the registry: %w", err)
	}
	v.snapshot.Store(now)
	v.log.Info("registry loaded", "version", now.Version, "revision", now.Revision, "holds", now.String())
	return nil
}

// watch follows the registry until ctx ends.
func (v *view) watch(ctx context.Context) error {
	const pause = time.Second
	failing := false
	for {
		err := v.store.WatchRegistry(ctx, func() error {
			if err := v.reload(ctx); err != nil {
				return err
			}
			if failing {
				v.log.Info("registry is followed again")
			}
			failing = false
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if !failing {
			v.log.Warn("the old registry stays in use just now, will go on trying", "err", err)
		}
		failing = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
