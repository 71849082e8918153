package ingest

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/telemetry"
)

// Every day from 1970 to 9999 has the number that package time gives it.
func TestParseTimeDays(t *testing.T) {
	for day := time.Unix(0, 0).UTC(); day.Year() < 10000; day = day.AddDate(0, 0, 1) {
		s := day.Format(time.RFC3339)
		if got, code := parseTime([]byte(s)); code != "" || got != telemetry.MicrosOf(day) {
			t.Fatalf("%s: %d %s, want %d", s, got, code, telemetry.MicrosOf(day))
		}
	}
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:[0-5]\d)$`)

// stdTime reads s by package time, which alone would take a one-digit hour and a decimal comma.
func stdTime(s string) (t time.Time, ok bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil && rfc3339.MatchString(s)
}

// FuzzTimestamp holds parseTime against package time, which knows RFC 3339 but not our latitude about T and Z.
func FuzzTimestamp(f *testing.F) {
	for _, s := range []string{"2026-01-02T03:04:05.678901Z", "2026-01-02 03:04:05z", "2024-02-29t23:59:59.999999999+14:00",
		"1970-01-01T00:00:00-00:00", "9999-12-31T23:59:59-14:00", "2026-01-02T03:04:05", "2026-02-30T03:04:05Z", "2026-01-02T03:04:05,1Z",
		"2026-01-02T3:04:05Z", "2026-01-02T03:04:05.", "0000-01-01T00:00:00Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, code := parseTime([]byte(s))
		canonical := s
		if len(s) > 10 && (s[10] == ' ' || s[10] == 't') {
			canonical = s[:10] + "T" + s[11:]
		}
		if rest, ok := strings.CutSuffix(canonical, "z"); ok {
			canonical = rest + "Z"
		}
		want, ok := stdTime(canonical)
		_, offset := want.Zone()
		micros := telemetry.MicrosOf(want)
		ok = ok && micros >= 0 && micros <= lastMicros && offset >= -14*3600 && offset <= 14*3600
		if ok != (code == "") || ok && got != micros {
			t.Errorf("%q: %d %q, package time has %d, %v", s, got, code, micros, ok)
		}
		if _, ok := stdTime(canonical + "Z"); ok != (code == CodeTimestampZoneMissing) {
			t.Errorf("%q: %q, with a Z behind it package time says %v", s, code, ok)
		}
	})
}
