package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSeries(t *testing.T) {
	expand := func(runs []Run) string {
		var out []string
		for _, r := range runs {
			for i := range r.Count {
				if r.Missing {
					out = append(out, "_")
				} else {
					out = append(out, fmt.Sprint(r.Value(i)))
				}
			}
		}
		return strings.Join(out, " ")
	}
	for in, want := range map[string]string{
		"230":              "230",
		"230x3":            "230 230 230 230",
		"230x0":            "230",
		"230+2x3":          "230 232 234 236",
		"230-2x3":          "230 228 226 224",
		"-2+4x3":           "-2 2 6 10",
		"1 _x3 2":          "1 _ _ _ 2",
		"_ NaN NaNx1":      "_ NaN NaN NaN",
		"1e3 1.5e-1 .5 5.": "1000 0.15 0.5 5",
		" 1\n\t2 ":         "1 2",
	} {
		runs, _, _, why := parseSeries(in, maxSamples)
		if got := expand(runs); why != "" || got != want {
			t.Errorf("%q is %q, %q; want %q", in, got, why, want)
		}
	}
	for in, at := range map[string]int{
		"": 0, " ": 0, "a": 0, "1 b": 2, "1 2+1": 2, "x3": 0, "_x0": 0, "1x": 0, "1+x3": 0, "1--1x3": 0, "NaN+1x2": 0, "inf": 0, "1,2": 0,
		"1 9x999999999": 2, "1e999": 0, "1e308+1e308x3": 0, "0x10x3": 0, "1\u00a02": 0, "1 5000000x4999999": 2,
	} {
		if runs, got, _, why := parseSeries(in, maxSamples); why == "" || got != at {
			t.Errorf("%q is %v, %d, %q; want a mistake at %d", in, runs, got, why, at)
		}
	}
}

func loadTests(t *testing.T, src string) ([]*Test, []string) {
	t.Helper()
	declared, _, diags := load(map[string]string{"main.hcl": declarationOfTests})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	tests, _, diags := newLoader().tests("a.nsreadytest.hcl", []byte(src), declared)
	var got []string
	for _, d := range diags {
		got = append(got, fmt.Sprintf("%d:%d %s %s", d.Subject.Start.Line, d.Subject.Start.Column, Code(d), d.Detail))
	}
	return tests, got
}

func TestLoadTests(t *testing.T) {
	tests, diags := loadTests(t, `locals {
  press = "acme/mill/north/press-01"
}
test "all" {
  start         = "2026-03-01T12:00:00+01:00"
  expect_alerts = 2
  series {
    device    = "P-1"
    parameter = "Voltage"
    start     = "1m"
    interval  = "10s"
    values    = "1 NaN _"
    quality   = 192
  }
  event {
    at      = "5s"
    device  = "device.${local.press}"
    values  = { current = 2, voltage = null }
    quality = 64
    time    = "4s"
    expect_error {
      code  = "type_violation"
      field = "metrics[0].value"
    }
  }
  event {
    json = { a = [1] }
  }
  event {
    json   = "{"
    expect = "error"
  }
  expect_alert {
    device    = local.press
    threshold = "high"
    at        = "2026-03-01T11:02:00Z"
    state     = "firing"
    value     = 254
  }
  expect_quality {
    device    = local.press
    parameter = "voltage"
    at        = "1m10s"
    quality   = 64
  }
  expect {
    devices = 1
    sites   = 2
  }
}
`)
	if len(diags) > 0 || len(tests) != 1 {
		t.Fatal(tests, diags)
	}
	test := tests[0]
	start := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	if test.Name != "all" || !test.Start.Equal(start) || test.Fired == nil || test.Fired.Want != 2 || test.Place.Start.Line != 4 {
		t.Errorf("got %+v", test)
	}
	s := test.Series[0]
	if s.Device.Addr.Name() != "press-01" || s.Parameter.Addr.Name() != "voltage" || !s.Start.Equal(start.Add(time.Minute)) || s.Interval != 10*time.Second || s.Quality != 192 || len(s.Runs) != 3 {
		t.Errorf("got %+v", s)
	}
	want := `{"project_id":"` + s.Device.ProjectID.String() + `","site_id":"` + s.Device.SiteID.String() + `","device_id":"` + s.Device.ID.String() +
		`","protocol":"TEST","source_timestamp":"2026-03-01T11:01:00Z","metrics":[{"parameter_key":"` + s.Parameter.Key + `","value":1.5,"quality":192}]}`
	if got := string(s.AppendSample(nil, s.Start, 1.5)); got != want || !json.Valid([]byte(got)) {
		t.Errorf("a sample is\n%s, want\n%s", got, want)
	}
	if got := string(s.AppendSample(nil, s.Start, math.NaN())); !strings.Contains(got, `"value":null`) || !json.Valid([]byte(got)) {
		t.Errorf("a null is %s", got)
	}
	m := test.Messages
	var event struct {
		Stamp   string `json:"source_timestamp"`
		Metrics []struct {
			Key            string `json:"parameter_key"`
			Value, Quality *float64
		}
	}
	if err := json.Unmarshal(m[0].Body, &event); err != nil || event.Stamp != "2026-03-01T11:00:04Z" || len(event.Metrics) != 2 ||
		!strings.HasSuffix(event.Metrics[0].Key, ":current") || *event.Metrics[0].Value != 2 || event.Metrics[1].Value != nil || *event.Metrics[1].Quality != 64 {
		t.Errorf("the event is %s, %v", m[0].Body, err)
	}
	if m[0].Code != "type_violation" || m[0].Field != "metrics[0].value" || m[0].Place.Start.Line != 21 || !m[0].At.Equal(start.Add(5*time.Second)) {
		t.Errorf("got %+v", m[0])
	}
	if string(m[1].Body) != `{"a":[1]}` || m[1].Code != "" || string(m[2].Body) != "{" || m[2].Code != AnyCode {
		t.Errorf("got %+v, %+v", m[1], m[2])
	}
	if a := test.Alerts[0]; a.Threshold.Addr.Name() != "high" || a.State != "firing" || a.Value.Value != 254 || !a.At.Equal(start.Add(2*time.Minute)) || a.ValuePlace.Start.Line != 38 {
		t.Errorf("got %+v", a)
	}
	if q := test.Qualities[0]; q.Quality != 64 || !q.At.Equal(start.Add(70*time.Second)) {
		t.Errorf("got %+v", q)
	}
	if c := test.Counts; len(c) != 2 || c[0].Of != "sites" || c[1].Of != "devices" || c[0].Want != 2 {
		t.Errorf("got %+v", c)
	}
}

// Mistakes are pointed at, inside the text of a series too.
func TestLoadTestsMistakes(t *testing.T) {
	in := func(block string) string { return "test \"a\" {\n" + block + "\n}\n" }
	device := "device = \"P-1\"\n"
	series := func(attrs string) string {
		return in("series {\n" + device + "parameter = \"voltage\"\n" + attrs + "\n}\nexpect_alerts = 0")
	}
	for _, tt := range []struct{ src, want string }{
		{"", `1:1 NST0008 Begin with`},
		{in(""), `1:1 NST0004 Add expect_alert`},
		{in("expect_alerts = 0") + in("expect_alerts = 0"), `4:1 NSC0029 A test named "a" is at a.nsreadytest.hcl:1 already.`},
		{series("interval = \"1s\"\nvalues = \"1 2 x3\""), `6:15 NST0002 In values, "x3" is not understood`},
		{series("interval = \"1s\"\nvalues = \"0x5000000\""), `6:11 NST0002 In values, "0x5000000" makes too many samples`},
		{series("interval = \"1s\"\nvalues = \"0x3000000\"\n}\nseries {\n" + device + "parameter = \"voltage\"\ninterval = \"1s\"\nvalues = \"0x3000000\""), `12:11 NST0002 In values, "0x3000000" makes too many`},
		{series("interval = \"3650d\"\nvalues = \"0x2\""), `6:10 NST0006 The series ends more than ten years`},
		{series("interval = \"0s\"\nvalues = \"0x2\""), `5:12 NSC0040 interval must be at least`},
		{series("values = \"0\""), `2:8 NSC0005 The argument "interval" is required`},
		{series("interval = null\nvalues = \"0\""), `5:12 NSC0036 interval must be set`},
		{series("interval = \"1s\"\nvalues = [1, 2]"), `6:10 NSC0045 values is text`},
		{series("interval = \"1s\"\nvalues = \"1\"\nquality = 300"), `7:11 NSC0044 quality is a whole number`},
		{in("series {\ndevice = \"P-2\"\nparameter = \"voltage\"\ninterval = \"1s\"\nvalues = \"1\"\n}\nexpect_alerts = 0"), `3:10 NST0001 The declaration has no device "P-2".`},
		{in("series {\ndevice = \"acme/mill/north/pres-01\"\nparameter = \"voltage\"\ninterval = \"1s\"\nvalues = \"1\"\n}\nexpect_alerts = 0"), `Did you mean "acme/mill/north/press-01"?`},
		{in("event {\n" + device + "values = { voltag = 1 }\n}"), `4:10 NSC0054 The project of device.acme/mill/north/press-01 has no parameter "voltag". Did you mean "voltage"?`},
		{in("event {\n" + device + "values = 1\n}"), `4:10 NSC0045 values is an object`},
		{in("event {\n}"), `2:1 NST0005 Set device and values, or json.`},
		{in("event {\njson = \"{}\"\n" + device + "}"), `3:8 NST0005 json is the whole event`},
		{in("event {\njson = \"{}\"\nexpect = \"accepted\"\nexpect_error {\ncode = \"a\"\n}\n}"), `5:1 NST0005 The event can't be accepted and refused.`},
		{in("event {\njson = \"{}\"\nexpect = \"maybe\"\n}"), `4:10 NSC0044 "maybe" is none of`},
		{in("event {\njson = \"{}\"\nat = \"3651d\"\n}"), `4:6 NST0006 at is the text "3651d"; want a duration`},
		{in("start = 5\nexpect_alerts = 0"), `2:9 NST0006 start is the number 5`},
		{in("expect_alert {\n" + device + "threshold = \"hihg\"\nat = \"1s\"\nstate = \"firing\"\n}"), `4:13 NST0003 The project of device.acme/mill/north/press-01 has no threshold "hihg". Did you mean "high"?`},
		{in("expect_alert {\n" + device + "threshold = \"twice\"\nat = \"1s\"\nstate = \"firing\"\n}"), `4:13 NST0003 Several parameters have a threshold "twice": "current", "voltage". Say which with parameter.`},
		{in("expect_alert {\n" + device + "threshold = \"high\"\nat = \"1s\"\nstate = \"fireing\"\n}"), `Did you mean "firing"?`},
		{in("expect_alert {\n" + device + "threshold = \"high\"\nat = \"1s\"\nstate = \"none\"\nvalue = 1\n}"), `7:9 NST0005 An alert that there is not has no value.`},
		{in("expect {\ndevices = -1\n}"), `3:11 NSC0044 devices is a whole number`},
		{in("expect_alerts = 1\nexpect_no_alerts = true"), `3:20 NST0005 Set expect_alerts or expect_no_alerts.`},
		{in("run {\n}"), `2:1 NSC0004 Blocks of type "run" are not expected here.`},
		{"customer \"a\" {\n}\n", `1:1 NSC0004 Blocks of type "customer"`},
	} {
		tests, diags := loadTests(t, tt.src)
		if tests != nil || len(diags) != 1 || !strings.Contains(diags[0], tt.want) {
			t.Errorf("%s\nhas %v and %q, want %q", tt.src, tests, diags, tt.want)
		}
	}
}

// Files of tests lie beside the declaration and are no part of it.
func TestTestFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "main.hcl", declarationOfTests)
	write(t, dir, "b.nsreadytest.hcl", "test \"b\" {\n  expect {\n    devices = 1\n  }\n}\n")
	write(t, dir, "a.nsreadytest.hcl", "test {{{")
	write(t, dir, ".hidden.nsreadytest.hcl", "test {{{")
	declared, sources, diags := Load(dir)
	if len(diags) > 0 || len(sources.Files) != 1 {
		t.Fatalf("the declaration has %d files: %v", len(sources.Files), diags)
	}
	names, err := TestFiles(dir)
	if want := []string{filepath.Join(dir, "a.nsreadytest.hcl"), filepath.Join(dir, "b.nsreadytest.hcl")}; err != nil || !slices.Equal(names, want) {
		t.Errorf("the files are %q, %v", names, err)
	}
	if _, err := TestFiles(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("a missing directory: %v", err)
	}
	if tests, _, diags := LoadTests(names[1], declared); len(tests) != 1 || len(diags) > 0 {
		t.Errorf("got %v, %v", tests, diags)
	}
	if tests, _, diags := LoadTests(names[0], declared); tests != nil || !diags.HasErrors() {
		t.Errorf("got %v, %v", tests, diags)
	}
	if err := os.Remove(filepath.Join(dir, "main.hcl")); err != nil {
		t.Fatal(err)
	}
	_, _, diags = Load(dir)
	checkSummaries(t, diags, "Declaration not readable")
}
