package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

func TestWatchRegistry(t *testing.T) {
	s := migrated(t)
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	calls, done := make(chan struct{}, 100), make(chan error, 1)
	watch := func() { done <- s.WatchRegistry(ctx, func() error { calls <- struct{}{}; return nil }) }
	called := func(why string) {
		t.Helper()
		select {
		case <-calls:
		case err := <-done:
			t.Fatalf("%s: the watch ended: %v", why, err)
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: no call", why)
		}
	}
	go watch()
	called("at the start")
	revision, _, err := s.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s, `INSERT INTO customers (name) VALUES ('by hand')`)
	called("after SQL")
	if now, _, err := s.Revision(ctx); err != nil || now != revision+1 {
		t.Errorf("revision %d, %v; want %d", now, err, revision+1)
	}
	if _, err := s.Apply(ctx, registry.Diff(load(t, s), estate(t, mill)), author); err != nil {
		t.Fatal(err)
	}
	called("after an apply")
	called("in silence")

	exec(t, s, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nsready watch'`)
	if err := <-done; err == nil || ctx.Err() != nil || !strings.HasPrefix(err.Error(), "watching the registry: ") {
		t.Errorf("after its connection died: %v", err)
	}
	go watch()
	called("when started again")
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
}
