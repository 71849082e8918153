// Package storetest gives tests a real PostgreSQL: one private server for a package's run, one database for each test.
//
//	func TestMain(m *testing.M) { storetest.Main(m) }
//
//	func TestX(t *testing.T) { url := storetest.Database(t) … }
//
// TEST_DATABASE_URL names a server to use instead; its user must be allowed to create databases.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/postgres"
)

const timeout = time.Minute

var server struct {
	mu      sync.Mutex
	url     string // of a database to connect to for making others; "" before the first use
	cluster *postgres.Cluster
	dir     string
	managed bool // Main runs, and will stop what is started
}

// Main is the body of a package's TestMain: it runs the tests, stops the server that they used, and exits.
func Main(m *testing.M) {
	server.mu.Lock()
	server.managed = true
	server.mu.Unlock()
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Database makes an empty database for t, drops it when t ends, and returns its URL.
// The server is started by the first call.
func Database(t testing.TB) string {
	t.Helper()
	admin, err := start()
	if err != nil {
		t.Fatal("storetest: ", err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	// template0 has no sessions, which would keep it from being copied.
	if err := exec(admin, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatal("storetest: ", err)
	}
	t.Cleanup(func() {
		if err := exec(admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error("storetest: ", err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal("storetest: ", err)
	}
	u.Path = "/" + name
	return u.String()
}

// start returns the URL of the server's own database.
func start() (string, error) {
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.url != "" {
		return server.url, nil
	}
	if external := os.Getenv("TEST_DATABASE_URL"); external != "" {
		if u, err := url.Parse(external); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return "", errors.New("TEST_DATABASE_URL is not of the form postgres://user:password@host:port/database")
		}
		storage, err := storage(external)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(os.Stderr, "storetest: using the server that TEST_DATABASE_URL names,", storage)
		server.url = external
		return external, nil
	}
	if !server.managed {
		return "", errors.New("nobody would stop the server: write func TestMain(m *testing.M) { storetest.Main(m) }")
	}
	if err := removeLeftovers(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(dir, "postgres"), NoSync: true})
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	server.cluster, server.dir = c, dir // Main stops it from here on
	storage, err := storage(c.URL("postgres"))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "storetest: started PostgreSQL %s %s, without fsync, in %s\n", c.Binaries().Version, storage, dir)
	server.url = c.URL("postgres")
	return server.url, nil
}

// storage says what telemetry will be stored in.
func storage(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var version *string
	err = conn.QueryRow(ctx, `SELECT (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'
		AND EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%'))`).Scan(&version)
	if err != nil {
		return "", fmt.Errorf("asking for TimescaleDB: %w", err)
	}
	if version == nil {
		return "without TimescaleDB: native partitions", nil
	}
	return "with TimescaleDB " + *version, nil
}

func stop() error {
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return errors.Join(server.cluster.Stop(ctx), os.RemoveAll(server.dir))
}

func exec(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

const prefix = "nsready-test-"

// removeLeftovers removes what test runs left that were killed.
func removeLeftovers() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < timeout {
			continue // gone meanwhile, or just being made
		}
		lock, err := os.Open(filepath.Join(dir, "postgres.lock"))
		if err != nil {
			continue // somebody else's
		}
		free := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
		if free {
			err = os.RemoveAll(dir)
		}
		if err := errors.Join(err, lock.Close()); err != nil {
			return err
		}
	}
	return nil
}
