package storebench_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storebench"
	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// open returns a benchmark's connection to a database with the schema.
func open(t *testing.T) *storebench.DB {
	t.Helper()
	url := storetest.Database(t)
	s, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := storebench.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db
}

func TestCopyOriginal(t *testing.T) {
	db := open(t)
	o := storebench.Original{Devices: []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}, Keys: []string{"a", "b"},
		Start: telemetry.MicrosOf(time.Now()), Rows: 2000, Writers: 2}
	for range 2 { // the second finds nothing of the first
		rows, took, err := db.CopyOriginal(t.Context(), o)
		if err != nil || rows != 2000 || took <= 0 {
			t.Errorf("%d rows in %v, error %v", rows, took, err)
		}
	}
	o.Rows, o.Limit = 1<<30, 50*time.Millisecond
	if rows, took, err := db.CopyOriginal(t.Context(), o); err != nil || rows == 0 || took < o.Limit || took > time.Minute {
		t.Errorf("%d rows in %v, error %v", rows, took, err)
	}
	o.Keys = []string{"a", "a"}
	if _, _, err := db.CopyOriginal(t.Context(), o); err == nil {
		t.Error("the table takes a parameter key twice: its constraints are not those of the original")
	}
}

func TestFigures(t *testing.T) {
	db := open(t)
	settings, err := db.Settings(t.Context())
	if err != nil || settings["server_version"] == "" || settings["synchronous_commit"] != "on" || len(settings) != 7 {
		t.Errorf("settings %v, error %v", settings, err)
	}
	if err := db.Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := db.Committed(t.Context()); n != 0 || err != nil {
		t.Errorf("%d events committed in an empty database, error %v", n, err)
	}
	if n, err := db.Stored(t.Context(), 0, telemetry.MicrosOf(time.Now())); n != 0 || err != nil {
		t.Errorf("%d values stored in an empty database, error %v", n, err)
	}
}
