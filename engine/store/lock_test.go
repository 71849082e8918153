package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

func locking(who string) Locking {
	return Locking{Holder: Holder{Operation: "apply", Who: who, PID: os.Getpid()}}
}

func take(t *testing.T, s *Store, l Locking) *Lock {
	t.Helper()
	lock, err := s.Lock(testContext(t), l)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

// expire makes the lock that is held as old as its lease.
func expire(t *testing.T, s *Store) {
	t.Helper()
	exec(t, s, `UPDATE registry_lock SET expires_at = clock_timestamp()`)
}

func TestLock(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	if l, err := s.LockStatus(ctx); l != nil || err != nil {
		t.Fatalf("at first: %v, %v", l, err)
	}
	pat := take(t, s, locking("pat@press-pc"))
	held, err := s.LockStatus(ctx)
	if err != nil || held == nil || held.Who != "pat@press-pc" || held.ID != pat.id || held.Age < 0 || held.Age > time.Minute ||
		held.Left > LockLease || held.Expires.Sub(held.Created).Round(time.Second) != LockLease {
		t.Fatalf("held: %+v, %v", held, err)
	}
	var locked *LockedError
	if _, err := s.Lock(ctx, locking("sam@office")); !errors.As(err, &locked) || locked.Lock.ID != pat.id {
		t.Fatalf("while it is held: %v, want a LockedError of pat's", err)
	}
	if err := pat.Release(ctx); err != nil {
		t.Fatal(err)
	}
	sam := take(t, s, locking("sam@office"))
	if err := pat.Release(ctx); err != nil { // again: it must not be sam's that goes
		t.Fatal(err)
	}
	if held, err := s.LockStatus(ctx); err != nil || held == nil || held.ID != sam.id {
		t.Fatalf("after pat's second release: %+v, %v", held, err)
	}
}

func TestLockOfADeadHolderEndsByItself(t *testing.T) {
	s := migrated(t)
	dead := locking("ci@runner")
	dead.Lease = 300 * time.Millisecond
	take(t, s, dead)
	next := locking("sam@office")
	next.Wait = 30 * time.Second
	start := time.Now()
	take(t, s, next)
	if waited := time.Since(start); waited > 5*time.Second {
		t.Errorf("waited %s for a lease of %s", waited, dead.Lease)
	}
}

// A holder of this machine whose process is gone is not waited for. One of another machine, or with another boot, is.
func TestLockOfADeadProcess(t *testing.T) {
	s := migrated(t)
	gone := ended(t)
	l := locking("pat@press-pc")
	l.PID = gone
	take(t, s, l)
	exec(t, s, `UPDATE registry_lock SET machine = machine || '0'`)
	var locked *LockedError
	if _, err := s.Lock(testContext(t), locking("sam@office")); !errors.As(err, &locked) {
		t.Fatalf("of another machine: %v, want a LockedError", err)
	}
	exec(t, s, `UPDATE registry_lock SET machine = ''`)
	if _, err := s.Lock(testContext(t), locking("sam@office")); !errors.As(err, &locked) {
		t.Fatalf("of an unknown machine: %v, want a LockedError", err)
	}
	exec(t, s, `DELETE FROM registry_lock`)
	take(t, s, l)
	take(t, s, locking("sam@office"))
}

// ended returns the id of a process that has ended.
func ended(t *testing.T) int {
	t.Helper()
	cmd := osexec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// Who is interrupted while the database gives it the lock leaves none behind.
func TestLockThatNobodyWantsAnyMore(t *testing.T) {
	s := migrated(t)
	other, err := s.pool.Begin(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(testContext(t))
	if _, err := other.Exec(testContext(t), `INSERT INTO registry_lock (operation, who, job, pid, version, expires_at) VALUES ('', '', '', 0, '', now())`); err != nil {
		t.Fatal(err)
	}
	asking := func(state string) bool {
		return query1[bool](t, s, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
			AND query LIKE 'INSERT INTO registry_lock AS%' AND `+state+`)`)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { _, err := s.Lock(ctx, locking("pat@press-pc")); done <- err }()
	waitFor(t, func() bool { return asking("wait_event_type = 'Lock'") })
	cancel()
	if err := other.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	waitFor(t, func() bool { return !asking("true") })
	if l, err := s.LockStatus(testContext(t)); l != nil || err != nil {
		t.Errorf("left behind: %+v, %v", l, err)
	}
}

func TestLockSaysWhomItWaitsFor(t *testing.T) {
	s := migrated(t)
	pat := take(t, s, locking("pat@press-pc"))
	next, told := locking("sam@office"), []string{}
	next.Wait = 30 * time.Second
	next.Waiting = func(l LockInfo) {
		told = append(told, l.Who)
		if err := pat.Release(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	take(t, s, next)
	if len(told) != 1 || told[0] != "pat@press-pc" {
		t.Errorf("told of %q", told)
	}
	next.Wait, next.Waiting = time.Second, nil
	_, err := s.Lock(testContext(t), next)
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("the registry is locked, waited 1s for it: sam@office, process %d, has held it for ", os.Getpid())) {
		t.Errorf("when the wait is over: %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	next.Wait, next.Waiting = time.Hour, func(LockInfo) { cancel() }
	if _, err := s.Lock(ctx, next); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestKeepRenewsUntilTheLockIsLost(t *testing.T) {
	s := migrated(t)
	for name, lose := range map[string]func(l *Lock){
		"expired": func(*Lock) { expire(t, s) },
		"released by force": func(l *Lock) {
			if _, err := s.ForceUnlock(testContext(t), l.id); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			short := locking("pat@press-pc")
			short.Lease = 2 * time.Second
			l := take(t, s, short)
			ctx, stop := context.WithCancel(testContext(t))
			defer stop()
			kept := make(chan error, 1)
			go func() { kept <- l.Keep(ctx) }()
			const outlived = `SELECT EXISTS (SELECT FROM registry_lock WHERE clock_timestamp() - created_at > interval '3 s' AND expires_at > clock_timestamp())`
			waitFor(t, func() bool { return query1[bool](t, s, outlived) })
			lose(l)
			select {
			case err := <-kept:
				if !errors.Is(err, ErrLockLost) {
					t.Errorf("got %v, want ErrLockLost", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("a lock that is lost is being kept")
			}
			exec(t, s, `DELETE FROM registry_lock`)
		})
	}
	l := take(t, s, locking("pat@press-pc"))
	ctx, stop := context.WithCancel(testContext(t))
	stop()
	if err := l.Keep(ctx); err != nil {
		t.Errorf("ended: %v", err)
	}
}

func TestApplyNeedsItsLock(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, s *Store, l *Lock){
		"expired": func(t *testing.T, s *Store, _ *Lock) { expire(t, s) },
		"expired, and taken by another": func(t *testing.T, s *Store, _ *Lock) {
			expire(t, s)
			take(t, s, locking("sam@office"))
		},
		"released by force": func(t *testing.T, s *Store, l *Lock) {
			if _, err := s.ForceUnlock(testContext(t), l.id); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := migrated(t)
			l := take(t, s, locking("pat@press-pc"))
			plan := registry.Diff(load(t, s), estate(t, mill))
			lose(t, s, l)
			if _, err := l.Apply(testContext(t), plan, author); !errors.Is(err, ErrLockLost) {
				t.Errorf("got %v, want ErrLockLost", err)
			}
			if after := load(t, s); after.Version != 0 || len(after.Customers) != 0 {
				t.Errorf("version %d with %d customers", after.Version, len(after.Customers))
			}
		})
	}
}

// A lock that is lost in the middle of an apply undoes it; one that has run out, and that nobody took, does not.
func TestApplyIsSealedByItsLock(t *testing.T) {
	for name, test := range map[string]struct {
		sql  string
		want error
	}{
		"run out": {`UPDATE registry_lock SET expires_at = clock_timestamp() - interval '1 h'`, nil},
		"taken":   {`UPDATE registry_lock SET id = gen_random_uuid()`, ErrLockLost},
	} {
		t.Run(name, func(t *testing.T) {
			s := migrated(t)
			ctx := testContext(t)
			l := take(t, s, locking("pat@press-pc"))
			plan := registry.Diff(load(t, s), estate(t, mill))
			// A table that another program has locked holds the apply up after its first look at the lock.
			other, err := s.pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Rollback(ctx)
			if _, err := other.Exec(ctx, `LOCK TABLE registry_versions IN ACCESS EXCLUSIVE MODE`); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { _, err := l.Apply(ctx, plan, author); done <- err }()
			waitFor(t, func() bool {
				return query1[bool](t, s, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND
					application_name = 'nsready apply pat@press-pc' AND wait_event_type = 'Lock')`)
			})
			exec(t, s, test.sql)
			if err := other.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if after := load(t, s); (len(after.Customers) == 1) != (test.want == nil) {
				t.Errorf("%d customers after %v", len(after.Customers), test.want)
			}
		})
	}
}

// An apply that is stopped in the middle, as by SIGSTOP or a network that is cut, ends with its lease, and leaves the way free.
func TestStoppedApplyKeepsNobodyWaiting(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	wants := locking("pat@press-pc")
	wants.Lease = time.Second
	lock := take(t, s, wants)
	plan := registry.Diff(load(t, s), estate(t, mill))
	other := registry.Diff(load(t, s), registry.Declare([]registry.Object{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "first")}}))
	stopped := sync.OnceValue(func() error {
		_, err := s.Apply(ctx, other, Author{User: "sam"}) // waits for the lock, and then for the rows
		return err
	})
	_, err := lock.Apply(WithProgress(ctx, func(registry.Kind, int) {
		if err := stopped(); err != nil {
			t.Errorf("another apply: %v", err)
		}
	}), plan, Author{User: "pat"})
	if err == nil {
		t.Error("the stopped apply was committed")
	}
	if live := load(t, s); live.Version != 1 || len(live.Customers) != 1 || live.Customers[0].Addr.Name() != "first" {
		t.Errorf("the registry is at version %d and has %v", live.Version, live)
	}
}

func TestForceUnlock(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	if _, err := s.ForceUnlock(ctx, uuid.New()); !errors.Is(err, ErrNotLocked) {
		t.Errorf("of a free registry: %v", err)
	}
	l := take(t, s, locking("pat@press-pc"))
	var other *LockedError
	if _, err := s.ForceUnlock(ctx, uuid.New()); !errors.As(err, &other) || other.Lock.ID != l.id {
		t.Errorf("of another id: %v", err)
	}
	if released, err := s.ForceUnlock(ctx, l.id); err != nil || released.Who != "pat@press-pc" {
		t.Errorf("released %+v, %v", released, err)
	}
	if held, err := s.LockStatus(ctx); held != nil || err != nil {
		t.Errorf("afterwards: %+v, %v", held, err)
	}
}

// Many who want the lock at once hold it one after the other.
func TestLockHasOneHolder(t *testing.T) {
	s := migrated(t)
	exec(t, s, `CREATE TABLE holders (n integer); INSERT INTO holders VALUES (0)`)
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			l := locking(fmt.Sprint("rival-", i))
			l.Wait = time.Minute
			lock, err := s.Lock(testContext(t), l)
			if err != nil {
				t.Error(err)
				return
			}
			if n := query1[int](t, s, `UPDATE holders SET n = n + 1 RETURNING n`); n != 1 {
				t.Errorf("%d hold the lock", n)
			}
			exec(t, s, `UPDATE holders SET n = n - 1`)
			if err := lock.Release(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
