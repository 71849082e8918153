package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
)

// migrated returns the URL of a database that has its tables and nothing else.
func migrated(t *testing.T) string {
	t.Helper()
	url := storetest.Database(t)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return url
}

// ask runs a query of one value.
func ask[T any](t *testing.T, url, sql string) (v T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func awaitSQL(t *testing.T, url, condition string) {
	t.Helper()
	until(t, condition, time.Minute, func() bool { return ask[bool](t, url, `SELECT `+condition) })
}

// nsready runs this program, and returns what it prints and its exit code.
func nsready(t *testing.T, url string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Args[0] = "nsready"
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "nsready.hcl"), []byte(smallEstate), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run() // its exit code is looked at
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const free = `NOT EXISTS (SELECT FROM registry_lock WHERE expires_at > clock_timestamp())`

func TestTheLockOfAKilledApplyEndsByItself(t *testing.T) {
	url := migrated(t)
	killed := startApply(t, url, []string{"-lock-lease", "2s"})
	killed.until(t, "Enter a value: ")
	if pid := ask[int](t, url, `SELECT pid FROM registry_lock WHERE operation = 'apply'`); pid != killed.Process.Pid {
		t.Fatalf("process %d holds the lock, not %d", pid, killed.Process.Pid)
	}
	stdout, stderr, code := nsready(t, url, "lock", "status", "-json")
	var status struct {
		Held bool
		Lock struct {
			Who    string
			Expiry float64 `json:"expires_in_seconds"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || code != 2 || !status.Held || status.Lock.Who != author().String() ||
		status.Lock.Expiry <= 0 || status.Lock.Expiry > 2 {
		t.Errorf("lock status exits with %d: %s%s", code, stdout, stderr)
	}
	awaitSQL(t, url, `clock_timestamp() - created_at > interval '3 s' FROM registry_lock`) // who waits for an answer renews it
	if ask[bool](t, url, `SELECT `+free) {
		t.Fatal("the lock ended while its holder asks")
	}
	machine := ask[string](t, url, `UPDATE registry_lock SET machine = '' RETURNING (SELECT machine FROM registry_lock)`) // another one
	if machine == "" {
		t.Error("the lock does not tell of which machine it is")
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Wait() // its exit code says that it was killed
	stdout, stderr, code = nsready(t, url, "apply", "-auto-approve", "-lock-timeout", "1m")
	if code != 0 || !strings.Contains(stdout, "Apply complete!") || !strings.Contains(stderr, "Waiting") {
		t.Errorf("the next apply exits with %d: %s%s", code, stdout, stderr)
	}
	if !ask[bool](t, url, `SELECT `+free) {
		t.Error("an apply that is done keeps the lock")
	}
}

func TestNobodyWaitsForAProcessThatIsGone(t *testing.T) {
	url := migrated(t)
	killed := startApply(t, url, nil)
	killed.until(t, "Enter a value: ")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Wait() // its exit code says that it was killed
	stdout, stderr, code := nsready(t, url, "apply", "-auto-approve", "-lock-timeout", "0s")
	if code != 0 || !strings.Contains(stdout, "Apply complete!") {
		t.Errorf("the next apply exits with %d: %s%s", code, stdout, stderr)
	}
}

func TestAnApplyThatSleptThroughItsLockIsRefused(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, url string){
		"alone": func(*testing.T, string) {},
		"while another is applied": func(t *testing.T, url string) {
			if stdout, stderr, code := nsready(t, url, "apply", "-auto-approve"); code != 0 {
				t.Errorf("the other apply exits with %d: %s%s", code, stdout, stderr)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := migrated(t)
			s := startApply(t, url, []string{"-lock-lease", "1s"})
			s.until(t, "Enter a value: ")
			if err := s.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			awaitSQL(t, url, free)
			meanwhile(t, url)
			applied := ask[int](t, url, `SELECT count(*) FROM registry_versions`)
			if _, err := s.master.WriteString("yes\n"); err != nil {
				t.Fatal(err)
			}
			if err := s.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			s.until(t, "the registry's lock was lost, nothing was changed")
			if code := s.exitCode(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if n := ask[int](t, url, `SELECT count(*) FROM registry_versions`); n != applied {
				t.Errorf("%d versions, want %d", n, applied)
			}
		})
	}
}

func TestOneAppliesWhileAnotherWaits(t *testing.T) {
	url := migrated(t)
	first := startApply(t, url, nil)
	first.until(t, "Enter a value: ")
	second := startApply(t, url, []string{"-lock-timeout", "1m"})
	second.until(t, "Waiting up to 1m0s for the registry's lock, which "+author().String()+" has held for ")
	if _, err := first.master.WriteString("yes\n"); err != nil {
		t.Fatal(err)
	}
	first.until(t, "Apply complete!")
	second.until(t, "No changes. The registry matches the declaration.") // its plan came after the lock
	if a, b := first.exitCode(t), second.exitCode(t); a != 0 || b != 0 {
		t.Errorf("exit codes %d and %d", a, b)
	}
}

func TestForceUnlockEndsWhoAsks(t *testing.T) {
	url := migrated(t)
	s := startApply(t, url, []string{"-lock-lease", "4s"})
	s.until(t, "Enter a value: ")
	id := ask[string](t, url, `SELECT id::text FROM registry_lock`)
	if stdout, stderr, code := nsready(t, url, "force-unlock", id, "-force"); code != 0 || !strings.Contains(stdout, "Released the lock of "+author().String()) {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	s.until(t, "the registry's lock was lost, nothing was changed") // without an answer: it looks every second
	if code := s.exitCode(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestInterruptedApplyReleasesItsLock(t *testing.T) {
	url := migrated(t)
	s := startApply(t, url, nil)
	s.until(t, "Enter a value: ")
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if !ask[bool](t, url, `SELECT `+free) {
		t.Error("the lock is still held")
	}
}

// Work that has said how it ended is not spoken over when its lock is lost; other errors are those of the lock.
func TestWorkThatLosesItsLock(t *testing.T) {
	url := migrated(t)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, test := range []struct{ of, want error }{
		{exit(exitNo), exit(exitNo)},
		{context.Canceled, store.ErrLockLost},
		{nil, nil},
	} {
		l := locking{lease: time.Second}
		err := l.hold(t.Context(), &streams{stderr: os.Stderr}, &target{}, db, "test", func(ctx context.Context, _ *store.Lock) error {
			if err := execute(url, `DELETE FROM registry_lock`); err != nil {
				return err
			}
			<-ctx.Done()
			return test.of
		})
		if !errors.Is(err, test.want) {
			t.Errorf("%v becomes %v, want %v", test.of, err, test.want)
		}
	}
}
