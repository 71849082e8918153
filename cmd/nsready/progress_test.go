package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/store/storetest"
)

func TestProgressInALog(t *testing.T) {
	t.Setenv("CI", "true")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := (&streams{stderr: &out}).progress("Reading the registry")
		time.Sleep(15 * time.Second)
		p.now("Applying 3 devices")
		time.Sleep(10 * time.Second)
		p.stop()
		if want := "Reading the registry… 10 s\nApplying 3 devices… 20 s\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

func TestProgressElsewhereIsSilent(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("NSREADY_IN_AUTOMATION", "")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := (&streams{stderr: &out}).progress("Reading the registry")
		time.Sleep(time.Hour)
		p.stop()
		if out.Len() > 0 {
			t.Errorf("got %q", out.String())
		}
	})
}

// A line on a terminal comes after two seconds, each covers the one before, and none stays.
func TestProgressOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{out: &out, terminal: true, what: "Reading the registry", since: time.Now(), done: make(chan struct{}), ended: make(chan struct{})}
		go p.run()
		time.Sleep(2500 * time.Millisecond)
		p.now("Done")
		time.Sleep(time.Second)
		p.stop()
		const first, second = "Reading the registry… 2 s", "Done… 3 s"
		gap := len(first) - len(second)
		if want := "\r" + first + "\r" + second + strings.Repeat(" ", gap) + "\r" + strings.Repeat(" ", len([]rune(first))) + "\r"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

// hold executes a statement in a transaction that stays open until the test calls release.
func hold(t *testing.T, url, sql string) (release func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "BEGIN; "+sql); err != nil {
		t.Fatal(err)
	}
	release = func() {
		conn.Close(context.WithoutCancel(ctx)) // ends the transaction; the server's farewell does not matter
		cancel()
	}
	t.Cleanup(release)
	return release
}

// applied returns the address of a database that the small estate was applied to.
func applied(t *testing.T) string {
	t.Helper()
	url := storetest.Database(t)
	s := startSessionOf(t, url, []string{"apply", "-auto-approve"})
	s.until(t, "Apply complete!")
	if code := s.exitCode(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	return url
}

func TestWaitingIsShownOnATerminal(t *testing.T) {
	url := applied(t)
	release := hold(t, url, "LOCK TABLE customers")
	s := startSessionOf(t, url, []string{"plan"})
	s.until(t, "\rReading the registry… 2 s")
	release()
	s.until(t, "No changes.")
	if code := s.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// An interrupt while an apply is at work leaves the old state.
func TestInterruptDuringApply(t *testing.T) {
	url := applied(t)
	if err := execute(url, "UPDATE devices SET device_type = 'by hand'"); err != nil {
		t.Fatal(err)
	}
	hold(t, url, "LOCK TABLE devices IN SHARE MODE")
	s := startSessionOf(t, url, []string{"apply", "-auto-approve"})
	s.until(t, "\rApplying 1 device… 2 s")
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.until(t, "Interrupted.")
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if err := execute(url, "SELECT 1/count(*) FROM devices WHERE device_type = 'by hand'"); err != nil {
		t.Errorf("the device is not as it was: %v", err)
	}
	if err := execute(url, "SELECT 1/(2 - count(*)) FROM registry_versions"); err != nil {
		t.Errorf("there is another version: %v", err)
	}
}

func TestNoColorFlag(t *testing.T) {
	s := startSessionOf(t, storetest.Database(t), []string{"plan", "-no-color"})
	s.until(t, "+ customer.acme")
	s.until(t, "Plan: 4 to add")
	if strings.Contains(s.screen.String(), "\x1b") {
		t.Errorf("escape sequences under -no-color: %q", s.screen.String())
	}
}
