package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/store"
)

// locking is how a command that writes the registry takes its lock.
type locking struct {
	wait, lease time.Duration
}

func (l *locking) register(f *flags) {
	f.group("The registry's lock", func() {
		f.DurationVar(&l.wait, "lock-timeout", 10*time.Second, "how long to wait for somebody else who writes the registry")
		f.DurationVar(&l.lease, "lock-lease", store.LockLease, "how long the registry stays locked when this process dies and renews the lock no more")
	})
}

// hold does work while the registry is locked for an operation. Its context ends when the lock is lost, and an error is
// then that of the lock. A database without tables yields store.ErrNoSchema, and the work is not done.
func (l *locking) hold(ctx context.Context, s *streams, t *target, db *store.Store, operation string, work func(ctx context.Context, lock *store.Lock) error) error {
	lock, err := l.take(ctx, s, t, db, operation)
	if err != nil {
		return err
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keeping, stop := context.WithCancel(working)
	defer stop()
	lost := make(chan error, 1)
	go func() {
		err := lock.Keep(keeping)
		if err != nil {
			cancel(err)
		}
		lost <- err
	}()
	err = work(working, lock)
	stop()
	if lost := <-lost; lost != nil {
		if said := exit(0); err == nil || errors.As(err, &said) { // the work was done before, or has told its end
			return err
		}
		return lost
	}
	if e := lock.Release(ctx); e != nil {
		fmt.Fprintln(s.stderr, "Warning:", e)
	}
	return err
}

// take takes the lock. While somebody else has it for longer than a moment, that is said on stderr.
func (l *locking) take(ctx context.Context, s *streams, t *target, db *store.Store, operation string) (*store.Lock, error) {
	if l.lease < time.Second {
		return nil, fmt.Errorf("-lock-lease: want one second or more, not %s", l.lease)
	}
	if l.wait < 0 {
		return nil, fmt.Errorf("-lock-timeout: want no negative time, not %s", l.wait)
	}
	lock, err := db.Lock(ctx, store.Locking{Holder: thisHolder(operation), Wait: l.wait, Lease: l.lease, Waiting: func(i store.LockInfo) {
		fmt.Fprintf(s.stderr, "Waiting up to %s for the registry's lock, which %s has held for %s (%s).\n", l.wait, clean(i.Who), seconds(i.Age), clean(i.Operation))
	}})
	if locked := (*store.LockedError)(nil); errors.As(err, &locked) {
		waited := ""
		if locked.Waited > 0 {
			waited = fmt.Sprintf(", waited %s for it", locked.Waited)
		}
		return nil, fmt.Errorf("the registry is locked%s:\n\n%s\nA lock ends by itself when its holder has died. To release it at once:\n\n  nsready force-unlock %s%s",
			waited, describeLock(&locked.Lock), t.arguments(), locked.Lock.ID)
	}
	return lock, err
}

// arguments are those that name the same database again, for a shell, without its password. They end with a space.
func (t *target) arguments() string {
	switch {
	case t.databaseURL != "":
		return `-database-url "$DATABASE_URL" `
	case t.data != ".nsready":
		return "-data " + shellQuote(t.data) + " "
	}
	return ""
}

// thisHolder is this process. Inside a job of GitHub's or GitLab's it tells which.
func thisHolder(operation string) store.Holder {
	job := os.Getenv("CI_JOB_URL")
	if id := os.Getenv("CI_JOB_ID"); job == "" && id != "" {
		job = "job " + id
	}
	if run := os.Getenv("GITHUB_RUN_ID"); run != "" {
		job = "run " + run
		if server, repository := os.Getenv("GITHUB_SERVER_URL"), os.Getenv("GITHUB_REPOSITORY"); server != "" && repository != "" {
			job = server + "/" + repository + "/actions/runs/" + run
		}
	}
	return store.Holder{Operation: operation, Who: clean(author().String()), Job: clean(job), PID: os.Getpid(), Version: thisBuild().Version}
}

// describeLock tells of a lock in lines.
func describeLock(l *store.LockInfo) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "  %-10s %s\n", name+":", clean(value)) }
	line("ID", l.ID.String())
	line("Operation", l.Operation)
	line("Who", fmt.Sprintf("%s, process %d", l.Who, l.PID))
	if l.Job != "" {
		line("Job", l.Job)
	}
	if l.Version != "" {
		line("Version", l.Version)
	}
	line("Created", fmt.Sprintf("%s, %s ago", l.Created.UTC().Format(time.RFC3339), seconds(l.Age)))
	line("Expires", fmt.Sprintf("%s, in %s unless it is renewed", l.Expires.UTC().Format(time.RFC3339), seconds(l.Left)))
	return b.String()
}

func seconds(d time.Duration) time.Duration { return d.Round(time.Second) }

// lockView is the lock as lock status -json and force-unlock -json print it.
type lockView struct {
	store.LockInfo
	Age  float64 `json:"age_seconds"`
	Left float64 `json:"expires_in_seconds"`
}

func viewLock(l *store.LockInfo) *lockView {
	if l == nil {
		return nil
	}
	return &lockView{*l, l.Age.Seconds(), l.Left.Seconds()}
}

var lockCommands = []command{
	{"status", "show who holds the registry's lock", runLockStatus},
}

func runLock(ctx context.Context, s *streams, args []string) error {
	return runSub(ctx, s, args, "lock", "Who writes the registry holds its lock, one at a time.", "nsready lock status", lockCommands)
}

func runLockStatus(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "lock status [flags]", `
Show who holds the registry's lock, for how long, and when it ends by itself if its holder has died. Whoever writes the
registry takes it; plan does not. The exit code is 0 when the lock is free, 2 when it is held, and 1 when that could not
be found out.

Example:
  nsready lock status -json`)
	var t target
	t.registerDatabase(f)
	asJSON := f.json("print the lock as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	l, err := db.LockStatus(ctx)
	if err != nil {
		return err
	}
	switch {
	case *asJSON:
		err = writeJSON(s.stdout, struct {
			FormatVersion string    `json:"format_version"`
			Held          bool      `json:"held"`
			Lock          *lockView `json:"lock"` // null when nobody holds it
		}{formatVersion, l != nil, viewLock(l)})
	case l == nil:
		_, err = fmt.Fprintln(s.stdout, "The registry is not locked.")
	default:
		_, err = fmt.Fprintf(s.stdout, "The registry is locked:\n\n%s", describeLock(l))
	}
	if err == nil && l != nil {
		return exit(exitNo)
	}
	return err
}

func runForceUnlock(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "force-unlock [flags] ID", `
Release the registry's lock, whoever holds it. The holder's work is refused then, as a whole. A lock whose holder has died
ends by itself within a minute, so that this is for one that is still there, and hangs. Without -force you are asked.

Example:
  nsready force-unlock -force 5f0c7f5e-6f0e-4f0c-9d53-1d0a8f1f5c1b`)
	var t target
	t.registerDatabase(f)
	asJSON := f.json("print what was released as JSON")
	force := f.Bool("force", false, "do not ask")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("which lock? 'nsready lock status' shows its ID")
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	held, err := db.LockStatus(ctx)
	if err != nil {
		return err
	}
	if held == nil {
		return store.ErrNotLocked
	}
	id, err := uuid.Parse(rest[0])
	if err != nil || id != held.ID {
		return fmt.Errorf("the registry's lock is not %s but another one:\n\n%s", clean(rest[0]), describeLock(held))
	}
	if !*force {
		if *asJSON || !isTerminal(s.stdin) {
			return fmt.Errorf("nobody can be asked here; to release the lock without a question, run:\n\n  nsready force-unlock -force %s%s", t.arguments(), id)
		}
		if err := confirm(ctx, s, fmt.Sprintf("The registry is locked:\n\n%s\nDo you want to release it? What its holder does will be refused.", describeLock(held))); err != nil {
			return err
		}
	}
	released, err := db.ForceUnlock(ctx, id)
	if locked := (*store.LockedError)(nil); errors.As(err, &locked) {
		return fmt.Errorf("the lock has ended meanwhile, and there is another one:\n\n%s", describeLock(&locked.Lock))
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(s.stdout, struct {
			FormatVersion string    `json:"format_version"`
			Released      *lockView `json:"released"`
		}{formatVersion, viewLock(&released)})
	}
	_, err = fmt.Fprintf(s.stdout, "\nReleased the lock of %s (%s), which was held for %s.\n", clean(released.Who), clean(released.Operation), seconds(released.Age))
	return err
}
