package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsready/nsready/loadgen"
)

func TestLoadResult(t *testing.T) {
	ok := loadgen.Values{Acknowledged: 5, Stored: 5}
	for name, test := range map[string]struct {
		report loadgen.Report
		err    error
		want   error
	}{
		"all stored":           {loadgen.Report{Values: ok}, nil, nil},
		"lost":                 {loadgen.Report{Values: loadgen.Values{Acknowledged: 5, Lost: 1}}, nil, exit(2)},
		"duplicated":           {loadgen.Report{Values: loadgen.Values{Acknowledged: 5, Duplicated: 1}}, nil, exit(2)},
		"altered":              {loadgen.Report{Values: loadgen.Values{Acknowledged: 5, Altered: 1}}, nil, exit(2)},
		"unexpected":           {loadgen.Report{Values: loadgen.Values{Acknowledged: 5, Unexpected: 1}}, nil, exit(2)},
		"nothing acknowledged": {loadgen.Report{}, nil, exit(2)},
		"saturated":            {loadgen.Report{Values: ok}, loadgen.ErrSaturated, loadgen.ErrSaturated},
		"saturated and lost":   {loadgen.Report{Values: loadgen.Values{Acknowledged: 5, Lost: 1}}, loadgen.ErrSaturated, exit(2)},
		"interrupted":          {loadgen.Report{Values: ok, Interrupted: true}, nil, exit(130)},
		"interrupted at once":  {loadgen.Report{Interrupted: true}, nil, exit(130)},
		"could not run":        {loadgen.Report{}, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	} {
		if got := loadResult(&test.report, test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestLoadLocates(t *testing.T) {
	dir := t.TempDir()
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ready.json"), []byte(`{"collector":"127.0.0.1:8001","database_url":"postgres:///ready","pid":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options     loadOptions
		environment string
		target, db  string // "" for an error
	}{
		"from ready.json":              {loadOptions{data: dir}, "postgres:///env", "http://127.0.0.1:8001", "postgres:///ready"},
		"flags go first":               {loadOptions{data: dir, target: "https://x", database: "postgres:///flag"}, "", "https://x", "postgres:///flag"},
		"flags suffice":                {loadOptions{data: empty, target: "x:1", database: "postgres:///flag"}, "", "http://x:1", "postgres:///flag"},
		"database by environment":      {loadOptions{data: empty, target: "x:1"}, "postgres:///env", "http://x:1", "postgres:///env"},
		"nothing runs":                 {loadOptions{data: empty}, "postgres:///env", "", ""},
		"nothing runs and no database": {loadOptions{data: empty, target: "x:1"}, "", "", ""},
	} {
		o := test.options
		err := o.locate(test.environment)
		if (err != nil) != (test.target == "") || err == nil && (o.target != test.target || o.database != test.db) {
			t.Errorf("%s: target %q, database %q, error %v", name, o.target, o.database, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ready.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&loadOptions{data: dir}).locate(""); err == nil {
		t.Error("no error for a ready.json that is no JSON")
	}
}

func TestLoadReport(t *testing.T) {
	r := loadgen.Report{Run: "r", Target: "http://x", Batch: 1, Requests: 10, Rate: 5, Answers: map[string]uint64{"200": 9, "timeout": 1},
		Values: loadgen.Values{Acknowledged: 9, Stored: 8, Lost: 1}, Violations: []loadgen.Violation{{Kind: "lost", EventID: "load-r-3:k"}}}
	var text, document strings.Builder
	if err := errors.Join(printLoad(&text, &r, nil), printLoadJSON(&document, &r, nil)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"200: 9, timeout: 1", "load-r-3:k", "BROKEN: 1 lost"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
	var back struct {
		Ok     *bool
		Values struct{ Lost int }
	}
	if err := json.Unmarshal([]byte(document.String()), &back); err != nil || back.Ok == nil || *back.Ok || back.Values.Lost != 1 {
		t.Errorf("%v in %s", err, document.String())
	}
	r.Values = loadgen.Values{Acknowledged: 9, Stored: 9}
	text.Reset()
	if err := printLoad(&text, &r, loadgen.ErrSaturated); err != nil || !strings.Contains(text.String(), "No verdict.") {
		t.Errorf("error %v in\n%s", err, text.String())
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, args := range [][]string{{"-rate", "fast"}, {"more"}, {"-data", t.TempDir()}, {"-target", "x", "-database-url", "postgres://127.0.0.1:1/x"}} {
		var out strings.Builder
		err := runLoad(t.Context(), &streams{stdout: &out, stderr: &out}, args)
		if code := exit(0); err == nil || errors.As(err, &code) {
			t.Errorf("%v: error %v, output %q", args, err, out.String())
		}
	}
}
