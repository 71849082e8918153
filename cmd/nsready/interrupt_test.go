package main

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// holdOpen keeps a transaction open that has run a statement, and returns what ends it.
func holdOpen(t *testing.T, url, sql string) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; "+sql); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return func() {
		if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

const waits = `EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE `

// The first interrupt rolls back and releases the lock.
func TestInterruptRollsBackAndUnlocks(t *testing.T) {
	url := migrated(t)
	release := holdOpen(t, url, `SELECT FROM registry_state FOR UPDATE`)
	s := startApply(t, url, []string{"-auto-approve"})
	awaitSQL(t, url, waits+`'%registry_state FOR UPDATE%')`)
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.until(t, "Interrupted.")
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	release()
	if !ask[bool](t, url, `SELECT NOT EXISTS (SELECT FROM registry_lock) AND NOT EXISTS (SELECT FROM customers)`) {
		t.Error("the lock is held, or something was changed")
	}
}

// The second ends the process at once, though the lock cannot be released; that ends with its lease.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	url := migrated(t)
	s := startApply(t, url, nil)
	s.until(t, "Enter a value: ")
	release := holdOpen(t, url, `SELECT FROM registry_lock FOR UPDATE`)
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	awaitSQL(t, url, waits+`'DELETE FROM registry_lock%')`)
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	buffer := make([]byte, 4096)
	for err := error(nil); err == nil; {
		var n int
		n, err = s.master.Read(buffer)
		s.screen.Write(buffer[:n])
	}
	if strings.Contains(s.screen.String(), "Interrupted.") || strings.Contains(s.screen.String(), "Warning") {
		t.Errorf("it waited for the lock: %s", s.screen.String())
	}
	if !ask[bool](t, url, `SELECT expires_at < clock_timestamp() + interval '1 min' FROM registry_lock`) {
		t.Error("the lock does not end by its lease")
	}
	release()
	if stdout, stderr, code := nsready(t, url, "apply", "-auto-approve"); code != 0 {
		t.Errorf("the next apply exits with %d: %s%s", code, stdout, stderr)
	}
}

// An interrupt that comes when nothing can be taken back any more is one, too; what was done is said.
func TestInterruptDuringTheCommit(t *testing.T) {
	url := migrated(t)
	exec := `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON customers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`
	if err := execute(url, exec); err != nil {
		t.Fatal(err)
	}
	release := holdOpen(t, url, `SELECT pg_advisory_xact_lock(4711)`)
	s := startApply(t, url, []string{"-auto-approve"})
	awaitSQL(t, url, waits+`'commit%')`)
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.until(t, "Interrupted: ")
	release()
	s.until(t, "Apply complete!")
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if !ask[bool](t, url, `SELECT NOT EXISTS (SELECT FROM registry_lock) AND EXISTS (SELECT FROM customers)`) {
		t.Error("the lock is held, or nothing was changed")
	}
}
