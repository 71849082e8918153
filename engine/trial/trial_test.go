package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/config"
)

const declaration = `customer "acme" {
  limits {
    device {
      events_per_second = 1
      burst             = 100
    }
    events_per_second = 1000
    burst             = 100000
  }
  project "mill" {
    parameter "voltage" {
      unit            = "V"
      min             = 0
      max             = 500
      default_quality = 192
      threshold "high" {
        above    = 253
        for      = "30s"
        deadband = 2
      }
    }
    parameter "starts" {
      type            = "int"
      min             = 0
      on_violation    = "reject"
      default_quality = 192
      threshold "many" {
        above = 10
      }
    }
    site "north" {
      device "press" {
        for_each    = range(1, 4)
        name        = "press-${each.value}"
        type        = "meter"
        external_id = "P-${each.value}"
        interval    = "1s"
        parameters  = ["voltage", "starts"]
      }
    }
  }
}
`

// runFile runs the tests of a file. It returns "line: summary" and the details of what failed.
func runFile(t *testing.T, src string) (failures, details []string) {
	t.Helper()
	dir := t.TempDir()
	main, file := filepath.Join(dir, "main.hcl"), filepath.Join(dir, "a.nsreadytest.hcl")
	for name, text := range map[string]string{main: declaration, file: src} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	declared, _, diags := config.Load(main)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	tests, _, diags := config.LoadTests(file, declared)
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, src)
	}
	r := NewRunner(declared)
	for _, test := range tests {
		list, err := r.Run(t.Context(), test)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			failures = append(failures, fmt.Sprintf("%d: %s", f.Place.Start.Line, f.Summary))
			details = append(details, f.Detail)
		}
	}
	return failures, details
}

// block writes a block of a test with an attribute on each line.
func block(kind string, attrs ...string) string {
	return "  " + kind + " {\n    " + strings.Join(attrs, "\n    ") + "\n  }\n"
}

func voltage(values string, more ...string) string {
	return block("series", append([]string{`device = "P-1"`, `parameter = "voltage"`, `interval = "1s"`, `values = "` + values + `"`}, more...)...)
}

func expectAlert(at, state string, more ...string) string {
	return block("expect_alert", append([]string{`device = "P-1"`, `threshold = "high"`, `at = "` + at + `"`, `state = "` + state + `"`}, more...)...)
}

func TestRun(t *testing.T) {
	test := func(blocks ...string) string { return "test \"a\" {\n" + strings.Join(blocks, "") + "}\n" }
	event := func(attrs ...string) string { return block("event", attrs...) }
	quality := func(at, q string) string {
		return block("expect_quality", `device = "P-1"`, `parameter = "voltage"`, `at = "`+at+`"`, "quality = "+q)
	}
	starts := func(values string, more ...string) string {
		return strings.Replace(voltage(values, more...), "voltage", "starts", 1)
	}
	long := voltage("230x9 260x40 240x9") // exceeds from 10s to 50s, back at 51s
	for name, tt := range map[string]struct {
		src    string
		want   []string
		detail string // of the first
	}{
		"an alert's life": {test(long, expectAlert("0s", "none"), expectAlert("9s", "none"), expectAlert("10s", "pending"), expectAlert("39s", "pending"), expectAlert("40s", "firing", "value = 260"),
			expectAlert("50s", "firing"), expectAlert("51s", "resolved", "value = 240"), expectAlert("1h", "resolved"), "  expect_alerts = 1\n"), nil, ""},
		"another device is not concerned":       {test(long, strings.ReplaceAll(expectAlert("45s", "none"), "P-1", "P-2")), nil, ""},
		"a gap changes nothing":                 {test(voltage("260 _x50 260"), expectAlert("50s", "pending"), expectAlert("51s", "firing")), nil, ""},
		"nulls do not count":                    {test(voltage("260 NaNx50"), expectAlert("50s", "pending")), nil, ""},
		"bad quality does not count":            {test(voltage("260x50", "quality = 0"), "  expect_no_alerts = true\n"+expectAlert("50s", "none")), nil, ""},
		"out of range counts":                   {test(voltage("501x50"), expectAlert("50s", "firing"), quality("50s", "84"), quality("0s", "84")), nil, ""},
		"the deadband holds":                    {test(voltage("260x30 252x9 251"), expectAlert("40s", "firing"), expectAlert("41s", "resolved")), nil, ""},
		"pending that passes":                   {test(voltage("260 230"), expectAlert("0s", "pending"), expectAlert("1s", "resolved"), "  expect_alerts = 0\n"), nil, ""},
		"at once":                               {test(starts("11"), strings.Replace(expectAlert("0s", "firing"), "high", "many", 1)), nil, ""},
		"the default quality":                   {test(voltage("230"), quality("0s", "192")), nil, ""},
		"two series in order of time":           {test(voltage("260", `start = "30s"`), voltage("260"), expectAlert("30s", "firing")), nil, ""},
		"a start before the test's":             {"test \"a\" {\n  start = \"2026-01-01T00:05:00Z\"\n" + voltage("260x300", `start = "2026-01-01T00:00:00Z"`) + expectAlert("0s", "firing") + "}\n", nil, ""},
		"at one time, in the order of the file": {test(voltage("260"), voltage("240"), voltage("260"), expectAlert("0s", "pending", "value = 260")), nil, ""},
		"counts":                                {test(block("expect", "devices = 3", "customers = 1", "projects = 1", "sites = 1", "parameters = 2", "thresholds = 2")), nil, ""},
		"refused samples":                       {test(starts("1 2 -1 0.5 3", "expect_rejected = 2"), "  expect_no_alerts = true\n"), nil, ""},
		"an event that is accepted":             {test(event(`device = "P-1"`, `values = { voltage = 230, starts = 4 }`, `expect = "accepted"`), quality("0s", "192")), nil, ""},
		"an event that is refused": {test(event(`device = "P-1"`, `values = { voltage = 230, starts = 0.5 }`,
			"expect_error {", `code = "type_violation"`, `field = "metrics[0].value"`, "}")), nil, ""},
		"any refusal":         {test(event(`json = "{"`, `expect = "error"`)), nil, ""},
		"from the future":     {test(event(`device = "P-1"`, `values = { voltage = 1 }`, `at = "1m"`, `time = "6m1s"`, "expect_error {", `code = "timestamp_in_future"`, "}")), nil, ""},
		"too old":             {test(event(`device = "P-1"`, `values = { voltage = 1 }`, `time = "2020-01-01T00:00:00Z"`, "expect_error {", `code = "timestamp_too_old"`, "}")), nil, ""},
		"no time":             {test(event(`device = "P-1"`, `values = { voltage = 1 }`, `time = "yesterday"`, "expect_error {", `code = "timestamp_invalid"`, `field = "source_timestamp"`, "}")), nil, ""},
		"text":                {test(event(`device = "P-1"`, `values = { voltage = "high" }`, "expect_error {", `code = "value_not_a_number"`, "}")), nil, ""},
		"the limit on events": {test(strings.Replace(voltage("1x149", "expect_rejected = 0"), "1s", "10ms", 1), "  expect_no_alerts = true\n"), []string{"2: Series is not as expected"}, "Of 150 samples 49 are refused, want 0.\nThe first, at 1.01s:\n  rate_limited_device: device_id: The device acme/mill/north/press-1 may send 1 events a second, and 100 at once: send this one again later."},

		"the wrong state": {test(long, expectAlert("39s", "firing")), []string{"12: Alert is not as expected"}, `At 39s: got pending since 10s with the value 260, want firing.
The alert threshold.acme/mill/voltage/high of acme/mill/north/press-1:
         10s  pending   value 260
         40s  firing    value 260
         51s  resolved  value 240`},
		"the wrong value":       {test(long, expectAlert("45s", "firing", "value = 261")), []string{"13: Alert is not as expected"}, "At 45s: got firing with the value 260, want firing with 261."},
		"no alert":              {test(voltage("230"), expectAlert("0s", "firing")), []string{"12: Alert is not as expected"}, "At 0s: got none, want firing.\nThe alert threshold.acme/mill/voltage/high of acme/mill/north/press-1:\n  no value of a quality of 64 or more exceeds it"},
		"the wrong total":       {test(long, "  expect_no_alerts = true\n"), []string{"8: Alerts are not as expected"}, "Alerts that fired: 1, want 0.\n         40s  threshold.acme/mill/voltage/high of acme/mill/north/press-1, value 260"},
		"the wrong quality":     {test(voltage("501"), quality("0s", "192")), []string{"8: Quality is not as expected"}, "The value of voltage at 0s has the quality 84, want 192."},
		"no value":              {test(voltage("_ 1"), quality("0s", "192")), []string{"8: Quality is not as expected"}, "device.acme/mill/north/press-1 has no value of voltage at 0s; want one with the quality 192."},
		"the wrong count":       {test(block("expect", "devices = 4")), []string{"3: Count is not as expected"}, "The declaration has 3 devices, want 4."},
		"refused":               {test(event(`json = "{}"`)), []string{"2: Answer is not as expected"}, "Got refused, want accepted.\n  missing: project_id:"},
		"accepted":              {test(event(`device = "P-1"`, `values = { voltage = 1 }`, "expect_error {", `code = "unknown_device"`, "}")), []string{"5: Answer is not as expected"}, "Got accepted, want refused with unknown_device."},
		"refused for another":   {test(event(`json = "{"`, "expect_error {", `code = "unknown_device"`, "}")), []string{"4: Answer is not as expected"}, "Got refused otherwise, want refused with unknown_device.\n  json_invalid: "},
		"refused for elsewhere": {test(event(`device = "P-1"`, `values = { starts = 0.5 }`, "expect_error {", `code = "type_violation"`, `field = "metrics[1].value"`, "}")), []string{"5: Answer is not as expected"}, "want refused with type_violation for metrics[1].value.\n  type_violation: metrics[0].value:"},
		"some of a batch":       {test(event(`json = [{}, {}]`, "expect_error {", `code = "missing"`, "}"), event(`json = [{}]`)), []string{"8: Answer is not as expected"}, "Got refused, want accepted."},
		"all that is wrong":     {test(expectAlert("0s", "firing"), block("expect", "devices = 4", "sites = 2"), "  expect_alerts = 1\n"), []string{"6: Alert is not as expected", "9: Count is not as expected", "10: Count is not as expected", "12: Alerts are not as expected"}, ""},
		"tests do not share":    {test(long, "  expect_alerts = 1\n") + strings.Replace(test(voltage("260"), expectAlert("0s", "pending")), `"a"`, `"b"`, 1), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			failures, details := runFile(t, tt.src)
			if !slices.Equal(failures, tt.want) {
				t.Fatalf("got %q, want %q\n%s\n%s", failures, tt.want, strings.Join(details, "\n"), tt.src)
			}
			if len(details) > 0 && !strings.Contains(details[0], tt.detail) {
				t.Errorf("got\n%s\nwant\n%s", details[0], tt.detail)
			}
		})
	}
}

// Of an alert that comes and goes for ever, the steps around the time in question are shown.
func TestLongTimeline(t *testing.T) {
	src := "test \"a\" {\n" + strings.Replace(voltage(strings.Repeat("11 1 ", 3000)), "voltage", "starts", 1) + strings.Replace(expectAlert("100s", "resolved"), "high", "many", 1) +
		strings.Replace(expectAlert("101s", "resolved", "value = 7"), "high", "many", 1) + "  expect_alerts = 1\n}\n"
	failures, details := runFile(t, src)
	if len(failures) != 3 {
		t.Fatal(failures)
	}
	lines := strings.Split(details[0], "\n")
	if len(lines) != 24 || lines[2] != "  after 90 transitions" || !strings.Contains(lines[13], "1m40s  firing") || lines[23] != "  and 5890 more" {
		t.Errorf("got\n%s", details[0])
	}
	if lines := strings.Split(details[2], "\n"); lines[0] != "Alerts that fired: 3000, want 1." || len(lines) != 22 || lines[21] != "  and 2980 more" {
		t.Errorf("got\n%s", details[2])
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	main, file := filepath.Join(dir, "main.hcl"), filepath.Join(dir, "a.nsreadytest.hcl")
	src := "test \"a\" {\n" + voltage("230x1000000") + "  expect_no_alerts = true\n}\n"
	for name, text := range map[string]string{main: declaration, file: src} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	declared, _, _ := config.Load(main)
	tests, _, diags := config.LoadTests(file, declared)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if failures, err := NewRunner(declared).Run(ctx, tests[0]); !errors.Is(err, context.Canceled) || failures != nil {
		t.Errorf("got %v, %v", failures, err)
	}
}

// BenchmarkSamples measures the way of a sample.
func BenchmarkSamples(b *testing.B) {
	dir := b.TempDir()
	main, file := filepath.Join(dir, "main.hcl"), filepath.Join(dir, "a.nsreadytest.hcl")
	src := "test \"a\" {\n" + voltage("230x99999") + "  expect_no_alerts = true\n}\n"
	for name, text := range map[string]string{main: declaration, file: src} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	declared, _, _ := config.Load(main)
	tests, _, diags := config.LoadTests(file, declared)
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	for b.Loop() {
		if failures, err := NewRunner(declared).Run(b.Context(), tests[0]); err != nil || len(failures) > 0 {
			b.Fatal(failures, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/sample")
}
