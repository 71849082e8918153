package engine_test

import (
	"strings"
	"testing"
	"time"
)

// What a device has gathered for days must not keep what happens now waiting.
func TestOldEventsDoNotDelayLiveOnes(t *testing.T) {
	s := start(t)
	const bodies, each = 10, 4000
	lock, err := s.db.Begin(t.Context())
	if err == nil {
		_, err = lock.Exec(t.Context(), "LOCK TABLE partitions IN EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	for body := range bodies {
		var lines strings.Builder
		for i := range each {
			lines.WriteString(s.event(0, now.Add(-time.Duration(body*each+i)*time.Second-2*time.Hour), "voltage", "1") + "\n")
		}
		if a := s.post("application/x-ndjson", lines.String()); a.status != 200 {
			t.Fatal(a)
		}
	}
	expect(t, "status", s.post("application/json", s.event(0, now, "voltage", "2")).status, 200)
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		var live, old int
		if err := s.db.QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE vals[1] = 2), count(*) FILTER (WHERE vals[1] = 1) FROM telemetry").Scan(&live, &old); err != nil {
			t.Fatal(err)
		}
		if live == 1 {
			if old > 4*each { // one batch was under way, and one may have been filled
				t.Errorf("%d of %d old events were stored before the live one", old, bodies*each)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the live event is not stored, %d old ones are", old)
		}
	}
	s.drained()
	expect(t, "rows", s.rows("SELECT count(*) FROM telemetry"), "40001")
}
