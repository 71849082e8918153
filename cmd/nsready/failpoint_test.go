package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/chaos"
)

// failpoints returns the names of those in the source.
func failpoints(t *testing.T) (names []string) {
	t.Helper()
	hit := regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`)
	err := filepath.WalkDir("../../engine", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range hit.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if len(names) == 0 || len(slices.Compact(slices.Clone(names))) < len(names) {
		t.Fatalf("the failpoints are %q: want some, each name once", names)
	}
	return names
}

// compile returns the path of an nsready built with tags.
func compile(t *testing.T, tags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nsready")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-tags", tags, "-o", path, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestFailpointsAreInNoRelease(t *testing.T) {
	holds := func(path string) (found []string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range failpoints(t) {
			if bytes.Contains(text, []byte(name)) {
				found = append(found, name)
			}
		}
		return found
	}
	if found := holds(compile(t, "")); len(found) > 0 {
		t.Errorf("the release has the failpoints %q", found)
	}
	if found := holds(compile(t, "chaos")); len(found) < len(failpoints(t)) {
		t.Errorf("of %q the binary for tests has only %q", failpoints(t), found)
	}
}

// TestKillsAtFailpoints kills the service at moments that a kill at any time mostly misses.
func TestKillsAtFailpoints(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("../../testdata")); err != nil {
		t.Fatal(err)
	}
	declaration, err := os.ReadFile("../../nsready.hcl")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "nsready.hcl"), declaration, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := chaos.Start(ctx, chaos.Options{Binary: compile(t, "chaos"), Config: filepath.Join(dir, "nsready.hcl"), Data: filepath.Join(dir, "data"),
		Flags: []string{"-queue-size", "64MiB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	db, err := pgx.Connect(ctx, s.Ready().DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	var hypertable bool
	err = db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')").Scan(&hypertable)
	db.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	often := []string{"stream.published", "store.rows-written", "store.offset-moved", "store.committed", "worker.committed"}
	for _, name := range failpoints(t) {
		t.Run(name, func(t *testing.T) {
			if name == "store.day-made" && hypertable {
				t.Skip("TimescaleDB makes its chunks itself, so that no day is made")
			}
			until(t, "the queue to have room again", time.Minute, func() bool { return health(t, s.Ready().Collector).Service == "ok" })
			most := 1
			if slices.Contains(often, name) {
				most = 5
			}
			r, err := chaos.Run(ctx, chaos.KillAt(name, most), s, chaos.Load{Rate: 100, Batch: 100, Faults: 1, Every: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Ok() {
				text, err := os.ReadFile(s.Log())
				t.Errorf("the promise is broken: %+v\nlogged: %s, %v", r, text, err)
			}
			t.Logf("%+v of %+v", r.Load.Values, r.Load.Answers)
			if name == "engine.replayed" {
				replayed(t, s.Ready().DatabaseURL)
			}
		})
	}
	if text, err := os.ReadFile(s.Log()); err != nil || strings.Contains(string(text), "panic: ") {
		t.Errorf("logged: %s, %v", text, err)
	}
}

// replayed waits until the values of discovered devices are stored, and expects each once.
func replayed(t *testing.T, url string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	var devices, complete, rows, again int
	until(t, "what was held to be stored", time.Minute, func() bool {
		err := db.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE n = $1), coalesce(sum(n), 0), (SELECT coalesce(sum(duplicate), 0) FROM ledger)
			FROM (SELECT d.id, (SELECT count(*) FROM ingest_events e WHERE e.device_id = d.id) AS n FROM devices d WHERE external_id LIKE $2 || '%') AS of_each`,
			chaos.Discovered, chaos.DiscoveredPrefix).Scan(&devices, &complete, &rows, &again)
		if err != nil {
			t.Fatal(err)
		}
		return devices > 0 && devices == complete
	})
	if again == 0 {
		t.Error("nothing was replayed twice: the kill did not come between the acknowledgement and what follows from it")
	}
	t.Logf("%d values of %d devices, %d were replayed again", rows, devices, again)
}
