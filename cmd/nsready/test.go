package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/trial"
)

// testReport is what test -json prints.
type testReport struct {
	FormatVersion string       `json:"format_version"`
	Passed        int          `json:"passed"`
	Failed        int          `json:"failed"`
	Tests         []testResult `json:"tests"` // in the order of files and places
}

type testResult struct {
	File     string       `json:"file"`
	Line     int          `json:"line"`
	Name     string       `json:"name"`
	Passed   bool         `json:"passed"`
	Seconds  float64      `json:"seconds"`  // that it took
	Failures []diagnostic `json:"failures"` // expectations that were not met
}

// testFile is a file of tests, read.
type testFile struct {
	name    string
	tests   []*config.Test
	sources *config.Sources
}

func runTest(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "test [flags] [DIR|FILE…]", `
Run the tests of a declaration: files *`+config.TestSuffix+` beside it, or those that are named. They say what devices send, and
what should come of it. It goes through the same checks and alert rules as in service, with a clock of its own: nothing is
connected to, and the outcome is the same at any time.

  test "a high voltage fires after 30 seconds" {
    series {
      device    = "acme/mill/north/press-01"
      parameter = "voltage"
      interval  = "1s"
      values    = "230x9 260x40 240"
    }
    expect_alert {
      device    = "acme/mill/north/press-01"
      threshold = "high"
      at        = "40s"
      state     = "firing"
    }
    expect_alerts = 1
  }

Values of a series, separated by spaces:
  230       a value             230+2x3   230 232 234 236
  230x3     230, and 3 more     230-2x3   230 228 226 224
  _         none    _x3  3 times none     NaN  a null

Blocks and attributes of a test:
  start                    when its clock begins; 2026-01-01T00:00:00Z if not set
  series                   device, parameter, interval, values; start, quality, expect_rejected = N samples that are refused
  event                    at, and device, values = { voltage = 230 }, quality, time; or json. It is expected to be accepted, or
                           refused: expect_error { code = "outside_limits" field = "metrics[0].value" }, or expect = "error"
  expect_alert             device, threshold, at, state = pending, firing, resolved or none; parameter, value
  expect_alerts = N        alerts that fire in the whole test; expect_no_alerts = true
  expect_quality           device, parameter, at, quality: with which a value is stored
  expect                   counts of customers, projects, sites, devices, parameters, thresholds that are declared

The exit code is 0 when all pass, 1 when they could not be run, and 2 when some fail.

Example:
  nsready test -junit report.xml -config estates/north`)
	configPath := f.String("config", defaultConfig, configUsage)
	var given variables
	given.register(f)
	asJSON := f.json("print the outcome as JSON")
	junit := f.String("junit", "", "write the outcome to `FILE` too, in JUnit's XML")
	pattern := f.String("run", "", "run only tests whose names match `REGEXP`")
	verbose := f.Bool("verbose", false, "list tests that pass, too")
	paths, err := f.parse(args, -1)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	declared, err := loadConfig(ctx, s, *configPath, *asJSON, given)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{*configPath}
		if info, err := os.Stat(*configPath); err == nil && !info.IsDir() {
			paths[0] = filepath.Dir(*configPath)
		}
	}
	files, err := readTests(s, paths, declared, only, *asJSON)
	if err != nil {
		return err
	}
	v, err := runTests(ctx, trial.NewRunner(declared), files)
	if err != nil {
		return err
	}
	if *junit != "" {
		if err := writeJUnit(*junit, v); err != nil {
			return fmt.Errorf("writing the outcome for -junit: %w", err)
		}
	}
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printTests(s, v, *verbose)
	}
	if err == nil && v.Failed > 0 {
		return exit(exitNo)
	}
	return err
}

// readTests reads the files of tests at paths, and keeps the tests whose names match. When one is wrong, none is run.
func readTests(s *streams, paths []string, declared *registry.Snapshot, only *regexp.Regexp, asJSON bool) ([]testFile, error) {
	var files []testFile
	var wrong hcl.Diagnostics
	sources := &config.Sources{Files: map[string]*hcl.File{}}
	seen := map[string]bool{}
	found := 0
	for _, path := range paths {
		names, err := config.TestFiles(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if seen[filepath.Clean(name)] {
				continue
			}
			seen[filepath.Clean(name)] = true
			tests, read, diags := config.LoadTests(name, declared)
			wrong = append(wrong, diags...)
			for name, file := range read.Files {
				sources.Files[name] = file
			}
			file := testFile{name: name, sources: read}
			for _, t := range tests {
				if found++; only.MatchString(t.Name) {
					file.tests = append(file.tests, t)
				}
			}
			if len(file.tests) > 0 {
				files = append(files, file)
			}
		}
	}
	if err := reportDiagnostics(s, wrong, sources, asJSON); err != nil {
		return nil, err
	}
	switch {
	case found == 0:
		return nil, fmt.Errorf("no test found: %s has no file whose name ends in %s", paths[0], config.TestSuffix)
	case len(files) == 0:
		return nil, fmt.Errorf("no test to run: none of the names of %d tests matches %q", found, only)
	}
	return files, nil
}

func runTests(ctx context.Context, runner *trial.Runner, files []testFile) (testReport, error) {
	v := testReport{FormatVersion: formatVersion}
	for _, file := range files {
		for _, t := range file.tests {
			start := time.Now()
			failures, err := runner.Run(ctx, t)
			if err != nil {
				return v, err
			}
			var diags hcl.Diagnostics
			for _, f := range failures {
				diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: f.Summary, Detail: f.Detail, Subject: &f.Place})
			}
			r := testResult{file.name, t.Place.Start.Line, t.Name, len(failures) == 0, time.Since(start).Seconds(), describe(diags, file.sources)}
			if r.Passed {
				v.Passed++
			} else {
				v.Failed++
			}
			v.Tests = append(v.Tests, r)
		}
	}
	return v, nil
}

// printTests writes the outcome for people.
func printTests(s *streams, v testReport, verbose bool) error {
	paint := painter(s.stdout)
	var out bytes.Buffer
	for _, t := range v.Tests {
		switch {
		case t.Passed && verbose:
			fmt.Fprintf(&out, "%s  %s: %s\n", paint(green, "pass"), clean(t.File), clean(t.Name))
		case !t.Passed:
			fmt.Fprintf(&out, "%s  %s: %s\n\n", paint(red, "FAIL"), clean(t.File), clean(t.Name))
			out.Write(renderDiagnostics(paint, t.Failures))
			out.WriteByte('\n')
		}
	}
	outcome := paint(green, "Success!")
	if v.Failed > 0 {
		outcome = paint(red, "Failure!")
	}
	fmt.Fprintf(&out, "%s %d passed, %d failed.\n", outcome, v.Passed, v.Failed)
	_, err := s.stdout.Write(legible(out.Bytes()))
	return err
}

// The parts of JUnit's XML that GitHub, GitLab and Jenkins read.
type (
	junitSuites struct {
		XMLName  xml.Name      `xml:"testsuites"`
		Name     string        `xml:"name,attr"`
		Tests    int           `xml:"tests,attr"`
		Failures int           `xml:"failures,attr"`
		Errors   int           `xml:"errors,attr"`
		Time     string        `xml:"time,attr"` // seconds
		Suites   []*junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"` // the file
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`

		seconds float64
	}
	junitCase struct {
		Name      string         `xml:"name,attr"`
		ClassName string         `xml:"classname,attr"`
		File      string         `xml:"file,attr"`
		Line      int            `xml:"line,attr"`
		Time      string         `xml:"time,attr"`
		Failures  []junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func writeJUnit(name string, v testReport) error {
	seconds := func(f float64) string { return strconv.FormatFloat(f, 'f', 6, 64) }
	suites := junitSuites{Name: "nsready test", Tests: len(v.Tests), Failures: v.Failed}
	total := 0.0
	for _, t := range v.Tests {
		if n := len(suites.Suites); n == 0 || suites.Suites[n-1].Name != t.File {
			suites.Suites = append(suites.Suites, &junitSuite{Name: t.File})
		}
		suite := suites.Suites[len(suites.Suites)-1]
		c := junitCase{Name: t.Name, ClassName: t.File, File: t.File, Line: t.Line, Time: seconds(t.Seconds)}
		if !t.Passed { // one element, as readers that show only the first want it
			plain := func(_ color, text string) string { return text }
			c.Failures = []junitFailure{{Message: t.Failures[0].Summary, Type: "expectation", Text: string(renderDiagnostics(plain, t.Failures))}}
			suite.Failures++
		}
		suite.Tests++
		suite.Cases = append(suite.Cases, c)
		suite.seconds += t.Seconds
		suite.Time = seconds(suite.seconds)
		total += t.Seconds
	}
	suites.Time = seconds(total)
	out, err := xml.MarshalIndent(suites, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append([]byte(xml.Header), append(out, '\n')...), 0o644)
}
