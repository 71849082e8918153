package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/config"
)

// TestDeadLettersAreReplayed makes dead letters in a running service, and heals what they died of.
func TestDeadLettersAreReplayed(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	_, r := up(t, data)
	db, err := pgx.Connect(t.Context(), r.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	count := func(sql string) (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	until := func(what string, want int, sql string) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(20 * time.Second)
		for count(sql) != want {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: %d, want %d", what, count(sql), want)
			}
		}
	}
	run := func(code int, want string, args ...string) {
		t.Helper()
		p := launch(t, append(args, "-data", data)...)
		if got := p.exit(); got != code || !strings.Contains(p.out.String(), want) {
			t.Fatalf("%v exits with %d, want %d and %q in\n%s", args, got, code, want, p.out.String())
		}
	}

	declared, _, diags := config.Load("../../nsready.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := declared.Devices[0]
	key := "project:" + d.ProjectID.String() + ":" + d.Parameters[0]
	exec("ALTER TABLE telemetry ADD CONSTRAINT unlucky CHECK (vals[1] <> 13)")
	const dead = 250 // more than a request takes
	var body strings.Builder
	now := time.Now().UTC().Truncate(time.Second)
	for i := range dead + 50 {
		value := 13
		if i >= dead {
			value = 1
		}
		event, err := json.Marshal(map[string]any{"project_id": d.ProjectID, "site_id": d.SiteID, "device_id": d.ID, "protocol": "HTTP", "event_id": fmt.Sprint("e", i),
			"source_timestamp": now.Add(-time.Duration(i) * time.Second), "metrics": []map[string]any{{"parameter_key": key, "value": value, "attributes": map[string]any{"n": i}}}})
		if err != nil {
			t.Fatal(err)
		}
		body.Write(append(event, '\n'))
	}
	resp, err := http.Post(r.Collector+"/v1/ingest", "application/x-ndjson", strings.NewReader(body.String()))
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	until("dead letters", dead, "SELECT count(*) FROM dead_letters WHERE reason = '23514'")
	run(0, `"dead": 250`, "ledger", "-json")

	run(0, "3 dead letters would be sent, 0 kept, 247 not tried.", "dlq", "replay", "-dry-run", "-limit", "3")
	if n := count("SELECT count(*) FROM dead_letters"); n != dead {
		t.Fatalf("a dry run leaves %d letters", n)
	}
	// What is still wrong dies again, as a new letter.
	run(0, "1 dead letter replayed", "dlq", "replay", "-limit", "1")
	until("dead letters", dead, "SELECT count(*) FROM dead_letters")

	exec("ALTER TABLE telemetry DROP CONSTRAINT unlucky")
	exec(`INSERT INTO dead_letters (epoch, partition, seq, event_index, device_id, reason, message, event)
		SELECT 'e', 0, 1, 0, gen_random_uuid(), 'unknown_device', '', event - 'device_id' || jsonb_build_object('device_id', gen_random_uuid()) FROM dead_letters LIMIT 1`)
	exec(`INSERT INTO dead_letters (epoch, partition, seq, event_index, reason, message, event) VALUES ('e', 0, 2, 0, 'frame', '', '{"frame": "bm8="}')`)
	run(2, "unknown_device: No such device is registered.", "dlq", "replay")
	until("kept letters", 2, "SELECT count(*) FROM dead_letters")
	until("values", dead+50, "SELECT count(*) FROM ingest_events WHERE value IN (1, 13)")
	// As they were sent, with what the workers made of them.
	if n := count(fmt.Sprintf("SELECT count(*) FROM ingest_events WHERE event_id = 'e' || (attributes ->> 'n') || ':%s' AND source = 'HTTP'", key)); n != dead+50 {
		t.Errorf("%d values have their event id, source and attributes", n)
	}
	run(2, `"kept": 2`, "dlq", "replay", "-json")
	run(0, "0 events are in the queue", "ledger")
	if n := count("SELECT (sum(accepted) - sum(stored) - sum(dead))::int FROM ledger"); n != 0 {
		t.Errorf("of the ledger's events %d are neither stored nor dead", n)
	}
	if n := count("SELECT sum(dead)::int FROM ledger"); n != dead+1 {
		t.Errorf("%d events died, want %d", n, dead+1)
	}
}

func TestAnAnswerMustAccountForEachEvent(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"accepted":3,"rejected":0,"errors":[]}`:                      true,
		`{"accepted":2,"rejected":1,"errors":[{"line":2,"code":"x"}]}`: true,
		`{"accepted":2,"rejected":0,"errors":[]}`:                      false,
		`{"accepted":1,"rejected":2,"errors":[{"line":2},{"line":2}]}`: false,
		`{"accepted":2,"rejected":1,"errors":[{"line":4}]}`:            false,
		`{"accepted":2,"rejected":1,"errors":[]}`:                      false,
		`{"status":"queued"}`:                                          false,
		`<html>`:                                                       false,
	} {
		if refused, err := refusals([]byte(text), 3); (err == nil) != ok {
			t.Errorf("%s: %v, %v", text, refused, err)
		}
	}
}
