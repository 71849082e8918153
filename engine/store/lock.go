package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
)

// LockLease is how long a lock outlives a holder that does not renew it, where nothing else is asked for.
const LockLease = time.Minute

const (
	lockRetry  = 200 * time.Millisecond // between two attempts to take a lock that another holds
	lockNotice = 400 * time.Millisecond // after which a wait is worth a word
)

// Holder is who holds the registry's lock, and for what.
type Holder struct {
	Operation string `json:"operation"`     // apply, rollback, purge, import
	Who       string `json:"who"`           // user@host
	Job       string `json:"job,omitempty"` // URL of the CI job
	PID       int    `json:"pid"`           // on that host
	Version   string `json:"version"`       // of the program
}

// LockInfo is the registry's lock as it is held. All its times are the database's.
type LockInfo struct {
	ID uuid.UUID `json:"id"`
	Holder
	Created time.Time `json:"created_at"`
	Renewed time.Time `json:"renewed_at"`
	Expires time.Time `json:"expires_at"`

	Age  time.Duration `json:"-"` // when it was looked at
	Left time.Duration `json:"-"` // until it expires, unless it is renewed

	machine string
}

// machine names the space of process ids that this process is in: no other machine, start of it or container has the same.
// It is "" where that cannot be told.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// dead reports whether the holder certainly is: it was a process of this machine, and there is none of its id.
func (l *LockInfo) dead() bool {
	return l.machine != "" && l.machine == machine() && l.PID > 0 && errors.Is(syscall.Kill(l.PID, 0), syscall.ESRCH)
}

// LockedError says that somebody else holds the lock.
type LockedError struct {
	Lock   LockInfo
	Waited time.Duration
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("the registry is locked, waited %s for it: %s, process %d, has held it for %s (%s, lock %s)",
		e.Waited, e.Lock.Who, e.Lock.PID, e.Lock.Age.Round(time.Second), e.Lock.Operation, e.Lock.ID)
}

var (
	// ErrLockLost says that a lock has expired or was released by force: its holder may not write any more.
	ErrLockLost = errors.New("the registry's lock was lost, nothing was changed: it expired without being renewed, or was released with force-unlock")
	// ErrNotLocked says that nobody holds the lock.
	ErrNotLocked = errors.New("the registry is not locked")
)

// Locking says who wants the lock, and how.
type Locking struct {
	Holder
	Wait    time.Duration  // for somebody else to release it; 0 to ask once
	Lease   time.Duration  // 0 for LockLease
	Waiting func(LockInfo) // called once when the wait gets long, with what is waited for; may be nil
}

// Lock is the right to write what is declared: nobody else has it at the same time. It lasts for a lease, by the database's
// clock, and Keep renews it, so that a holder that died keeps nobody waiting for longer, and on its own machine not at all. What is written checks it in the
// same transaction, so that a holder that slept through its lease writes nothing.
type Lock struct {
	store *Store
	id    uuid.UUID
	lease time.Duration
}

// Lock takes the registry's lock, and waits for whoever holds it. Every writer of declared state takes it before it reads
// what it goes by, runs Keep beside its work, and ends with Release. When the wait is over the error is a *LockedError.
// A database without tables yields ErrNoSchema, one whose tables are older than this program an *UnreadableError.
func (s *Store) Lock(ctx context.Context, want Locking) (*Lock, error) {
	if want.Lease == 0 {
		want.Lease = LockLease
	}
	if err := s.checkSchema(ctx); err != nil {
		return nil, fmt.Errorf("locking the registry: %w", err)
	}
	l := &Lock{store: s, lease: want.Lease}
	start, told := time.Now(), false
	for {
		// The row is taken over when it has expired; otherwise nothing is returned.
		const take = `INSERT INTO registry_lock AS l (id, operation, who, job, pid, version, machine, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8)
			ON CONFLICT (single) DO UPDATE SET (id, operation, who, job, pid, version, machine, created_at, renewed_at, expires_at)
				= (excluded.id, excluded.operation, excluded.who, excluded.job, excluded.pid, excluded.version, excluded.machine,
				   clock_timestamp(), clock_timestamp(), clock_timestamp() + $8)
			WHERE l.expires_at <= clock_timestamp()`
		l.id = uuid.New()
		tag, err := s.pool.Exec(ctx, take, l.id, want.Operation, want.Who, want.Job, want.PID, want.Version, machine(), want.Lease)
		if err != nil {
			return nil, fmt.Errorf("locking the registry: %w", s.schemaError(ctx, err))
		}
		if tag.RowsAffected() == 1 {
			return l, nil
		}
		held, err := s.LockStatus(ctx)
		if err != nil {
			return nil, err
		}
		if held == nil {
			continue // released just now
		}
		if held.dead() {
			if _, err := s.ForceUnlock(ctx, held.ID); err == nil {
				continue
			}
		}
		waited := time.Since(start)
		if waited >= want.Wait {
			return nil, &LockedError{*held, want.Wait}
		}
		if waited >= lockNotice && !told && want.Waiting != nil {
			told = true
			want.Waiting(*held)
		}
		pause := time.NewTimer(min(lockRetry, want.Wait-waited))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("waiting for the registry's lock: %w", context.Cause(ctx))
		}
	}
}

// Keep renews the lock until ctx ends, and then returns nil, or until the lock is lost, and then returns ErrLockLost.
// While the database cannot be asked it goes on trying.
func (l *Lock) Keep(ctx context.Context) error {
	tick := time.NewTicker(l.lease / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := l.renew(ctx); errors.Is(err, ErrLockLost) {
			return err
		}
	}
}

func (l *Lock) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.lease/2)
	defer cancel()
	tag, err := l.store.pool.Exec(ctx, `UPDATE registry_lock SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + $2
		WHERE id = $1 AND expires_at > clock_timestamp()`, l.id, l.lease)
	if err != nil {
		return fmt.Errorf("renewing the registry's lock: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrLockLost
	}
	return nil
}

// check is for the begin of a transaction that writes: a lock that was lost, or has run out, is an ErrLockLost.
func (l *Lock) check(ctx context.Context, tx pgx.Tx) error {
	return l.find(ctx, tx, `SELECT FROM registry_lock WHERE id = $1 AND expires_at > clock_timestamp()`)
}

// seal is for the end of such a transaction, before its commit, and keeps everybody else from the lock until then. One that
// has run out meanwhile will do, as long as nobody else has taken it.
func (l *Lock) seal(ctx context.Context, tx pgx.Tx) error {
	return l.find(ctx, tx, `SELECT FROM registry_lock WHERE id = $1 FOR UPDATE`)
}

func (l *Lock) find(ctx context.Context, tx pgx.Tx, sql string) error {
	tag, err := tx.Exec(ctx, sql, l.id)
	if err != nil {
		return fmt.Errorf("checking the registry's lock: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrLockLost
	}
	return nil
}

// Release gives the lock back. One that was lost is none of its business. It works after ctx has ended, for five seconds.
func (l *Lock) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if _, err := l.store.pool.Exec(ctx, `DELETE FROM registry_lock WHERE id = $1`, l.id); err != nil {
		return fmt.Errorf("releasing the registry's lock, which now ends by itself within %s: %w", l.lease, err)
	}
	return nil
}

// Apply is Store.Apply under this lock.
func (l *Lock) Apply(ctx context.Context, plan *registry.Plan, by Author) (version int64, err error) {
	return l.store.applyUnder(ctx, l, plan, by)
}

const lockColumns = `id, operation, who, job, pid, version, machine, created_at, renewed_at, expires_at,
	clock_timestamp() - created_at, expires_at - clock_timestamp()`

func scanLock(row pgx.Row) (l LockInfo, err error) {
	err = row.Scan(&l.ID, &l.Operation, &l.Who, &l.Job, &l.PID, &l.Version, &l.machine, &l.Created, &l.Renewed, &l.Expires, &l.Age, &l.Left)
	return l, err
}

// LockStatus returns the lock that is held, or nil. A database without tables is not locked.
func (s *Store) LockStatus(ctx context.Context) (*LockInfo, error) {
	l, err := scanLock(s.pool.QueryRow(ctx, `SELECT `+lockColumns+` FROM registry_lock WHERE expires_at > clock_timestamp()`))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		if err = s.schemaError(ctx, err); errors.Is(err, ErrNoSchema) {
			return nil, nil
		}
		return nil, fmt.Errorf("looking at the registry's lock: %w", err)
	}
	return &l, nil
}

// ForceUnlock releases the lock with an id, whoever holds it, and returns what it was. Another id is a *LockedError, and
// ErrNotLocked where nobody holds it.
func (s *Store) ForceUnlock(ctx context.Context, id uuid.UUID) (LockInfo, error) {
	l, err := scanLock(s.pool.QueryRow(ctx, `DELETE FROM registry_lock WHERE id = $1 AND expires_at > clock_timestamp() RETURNING `+lockColumns, id))
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return l, fmt.Errorf("releasing the registry's lock: %w", err)
	}
	held, err := s.LockStatus(ctx)
	switch {
	case err != nil:
		return l, err
	case held == nil:
		return l, ErrNotLocked
	}
	return l, &LockedError{Lock: *held}
}

// holder is this process, for what takes the lock on its own.
func holder(operation, who string) Holder {
	return Holder{Operation: operation, Who: who, PID: os.Getpid()}
}
