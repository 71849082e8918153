package store

import (
	"context"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/migrations"
)

func TestMigrate(t *testing.T) {
	s := openTest(t)
	known, err := readMigrations(migrations.Files)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup // programs that start together
	for range 4 {
		wg.Go(func() {
			if err := s.Migrate(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := query1[int](t, s, `SELECT count(*) FROM schema_migrations`); n != len(known) {
		t.Errorf("%d migrations recorded, want %d", n, len(known))
	}
	if !query1[bool](t, s, `SELECT uuid_generate_v4() IS NOT NULL`) {
		t.Error("uuid-ossp is missing")
	}
	if got := query1[bool](t, s, `SELECT relkind = 'r' FROM pg_class WHERE relname = 'telemetry'`); got != s.days.hypertable {
		t.Errorf("hypertable is %v, want %v", s.days.hypertable, got)
	}
}

// What an apply made before declarations had names is that of the default one, so that its next plan is empty.
func TestMigrateGivesObjectsTheirOwner(t *testing.T) {
	s := openTest(t)
	known, err := readMigrations(migrations.Files)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.migrate(testContext(t), known[:6]); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `INSERT INTO customers (name, managed) VALUES ('acme', true), ('by hand', false)`)
	exec(t, s, `INSERT INTO retention (raw_seconds) VALUES (86400)`)
	if err := s.Migrate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `INSERT INTO limits (connections) VALUES (7)`)
	got := map[string]string{}
	for o := range load(t, s).Objects {
		got[o.Address().String()] = registry.OwnerOf(o)
	}
	want := map[string]string{"customer.acme": "default", "customer.by hand": "", "retention.telemetry": "default", "limits.ingest": ""}
	if !maps.Equal(got, want) {
		t.Errorf("owners are %v, want %v", got, want)
	}
}

func TestMigrateRefuses(t *testing.T) {
	files := fstest.MapFS{
		"0001_one.sql": {Data: []byte("CREATE TABLE one (x int);")},
		"0002_two.sql": {Data: []byte("CREATE TABLE two (x int);\nINSERT INTO one\nVALUES ('é', nonsense);\n")},
	}
	for _, test := range []struct{ name, sql, want string }{
		{"edited", `UPDATE schema_migrations SET checksum = 'abc'`, `migration 0001_one.sql is not the one that ran on this database (checksum `},
		{
			"newer", `UPDATE schema_migrations SET version = 3, name = '0003_three.sql'`,
			"the database is newer than this program: it has migration 0003_three.sql, this program knows up to 0002:",
		},
		{
			"gap", `UPDATE schema_migrations SET version = 2, name = '0002_two.sql'`,
			"the database has migration 0002_two.sql but not 0001_one.sql:",
		},
		{
			"broken", `SELECT 1`,
			`migrating the database: 0002_two.sql: line 3: ERROR: column "nonsense" does not exist (SQLSTATE 42703)`,
		},
		{
			"taken", `DELETE FROM schema_migrations`,
			`migrating the database: 0001_one.sql: ERROR: relation "one" already exists (SQLSTATE 42P07): this database holds tables that nsready did not make; give it an empty one`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openTest(t)
			known, err := readMigrations(files)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.migrate(testContext(t), known[:1]); err != nil {
				t.Fatal(err)
			}
			exec(t, s, test.sql)
			err = s.migrate(testContext(t), known)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s …", err, test.want)
			}
			if query1[bool](t, s, `SELECT to_regclass('two') IS NOT NULL`) {
				t.Error("a refused migration left a table behind")
			}
			if n := query1[int](t, s, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != 0 {
				t.Errorf("%d advisory locks are still held", n)
			}
		})
	}
}

func TestReadMigrationsRefusesNames(t *testing.T) {
	for _, name := range []string{"1_x.sql", "0002_x.sql", "x.sql"} {
		if _, err := readMigrations(fstest.MapFS{name: {}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	const password = "s3cr3t-pa#ss"
	good, err := url.Parse(storetest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*url.URL)) string {
		u := *good
		u.User = url.UserPassword(good.User.Username(), password)
		change(&u)
		return u.String()
	}
	for _, test := range []struct {
		name, url string
		want      []string
	}{
		{"nothing listens", with(func(u *url.URL) { u.Host = "127.0.0.1:1" }), []string{"connecting to the database at 127.0.0.1:1/test_", "connection refused"}},
		{"no such database", strings.Replace(good.String(), "/test_", "/nothing_", 1), []string{good.Host + "/nothing_", "does not exist"}},
		{"no such host", with(func(u *url.URL) { u.Host = "nowhere.invalid:5432" }), []string{"nowhere.invalid:5432/test_"}},
		{"bad port", "postgres://pat:" + password + "@127.0.0.1:bad/x", []string{"the database URL is malformed: want postgres://"}},
		{"unknown setting", with(func(u *url.URL) { u.RawQuery = "sslmode=" + url.QueryEscape(password) }), []string{"the database URL is malformed", "sslmode"}},
		{"password as a setting", "postgres://pat@127.0.0.1/x?sslmode=bad&password=" + url.QueryEscape(password), []string{"the database URL is malformed"}},
		{"keywords", "host=127.0.0.1 password=" + password + " port=" + password, []string{"the database URL is malformed"}},
	} {
		ctx, cancel := context.WithTimeout(testContext(t), 20*time.Second)
		s, err := Open(ctx, test.url)
		cancel()
		if err == nil {
			s.Close()
			t.Errorf("%s: no error", test.name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want … %s …", test.name, err, want)
			}
		}
		for _, secret := range []string{password, "s3cr3t"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error tells the password: %v", test.name, err)
			}
		}
	}
}
