package store

import (
	"context"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// openTest returns a store on an empty database.
func openTest(t testing.TB) *Store {
	t.Helper()
	return openURL(t, storetest.Database(t))
}

func openURL(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(testContext(t), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// migrated returns a store on a database with the schema and no rows.
func migrated(t testing.TB) *Store {
	t.Helper()
	s := openTest(t)
	if err := s.Migrate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// testContext ends with the test, or when it hangs.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func exec(t testing.TB, s *Store, sql string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(testContext(t), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// query1 returns the only column of the only row.
func query1[T any](t testing.TB, s *Store, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := s.pool.QueryRow(testContext(t), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}
