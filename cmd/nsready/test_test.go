package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDemoEstateTests(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"test", "-config", "../../nsready.hcl", "../../testdata/demo.nsreadytest.hcl"}, nil, &out, &errs); code != 0 {
		t.Errorf("exit code %d: %s%s", code, &out, &errs)
	}
}

// What JUnit's readers parse: counts that fit, and texts that come back as they were, but for what XML cannot hold.
func TestJUnit(t *testing.T) {
	v := testReport{Passed: 1, Failed: 2, Tests: []testResult{
		{File: "a & b.hcl", Line: 3, Name: `a "<b>" ]]> 'c' & é`, Passed: true, Seconds: 0.25},
		{File: "a & b.hcl", Line: 9, Name: "control \x01 \x1b[31m \xff", Seconds: 1, Failures: []diagnostic{{Severity: "error", Summary: "<first>", Detail: "got ]]> & want\n  two"}, {Severity: "error", Summary: "second"}}},
		{File: "c.hcl", Line: 1, Name: "other", Failures: []diagnostic{{Summary: "x"}}},
	}}
	name := filepath.Join(t.TempDir(), "report.xml")
	if err := writeJUnit(name, v); err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		XMLName  xml.Name `xml:"testsuites"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Time     float64  `xml:"time,attr"`
		Suites   []struct {
			Name     string  `xml:"name,attr"`
			Tests    int     `xml:"tests,attr"`
			Failures int     `xml:"failures,attr"`
			Time     float64 `xml:"time,attr"`
			Cases    []struct {
				Name      string  `xml:"name,attr"`
				ClassName string  `xml:"classname,attr"`
				File      string  `xml:"file,attr"`
				Line      int     `xml:"line,attr"`
				Time      float64 `xml:"time,attr"`
				Failures  []struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(src, &got); err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	if got.Tests != 3 || got.Failures != 2 || got.Errors != 0 || got.Time != 1.25 || len(got.Suites) != 2 {
		t.Fatalf("got %+v\n%s", got, src)
	}
	first := got.Suites[0]
	if first.Name != "a & b.hcl" || first.Tests != 2 || first.Failures != 1 || first.Time != 1.25 || first.Cases[0].Name != v.Tests[0].Name ||
		first.Cases[0].Line != 3 || first.Cases[0].Time != 0.25 || first.Cases[0].File != first.Name || len(first.Cases[0].Failures) != 0 {
		t.Errorf("got %+v\n%s", first, src)
	}
	failed := first.Cases[1]
	if failed.Name != "control \ufffd \ufffd[31m \ufffd" || len(failed.Failures) != 1 || failed.Failures[0].Message != "<first>" ||
		!strings.Contains(failed.Failures[0].Text, "got ]]> & want\n  two") || !strings.Contains(failed.Failures[0].Text, "Error: second") {
		t.Errorf("got %+v\n%s", failed, src)
	}
}
