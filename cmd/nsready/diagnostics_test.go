package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/config"
)

func TestPrintDiagnostics(t *testing.T) {
	for _, test := range []struct {
		name, src, from, to string // the place is from the first from up to the next to
		want                []string
	}{
		{"plain", "a = 1\nb  = 22\n", "22", "\n", []string{"x.hcl:2:6: Error: Odd", "   2: b  = 22", "           ^^"}},
		{"tabs", "\ta\t= 1", "1", "", []string{"x.hcl:1:6: Error: Odd", "   1: \ta\t= 1", "      \t \t  ^"}},
		{"wide", "水 = 北x", "北", "", []string{"x.hcl:1:5: Error: Odd", "   1: 水 = 北x", "           ^^^"}},
		{"combining", "e\u0301 = 1", "1", "", []string{"x.hcl:1:5: Error: Odd", "   1: e\u0301 = 1", "          ^"}},
		{"nothing to mark", "a = ", "", "", []string{"x.hcl:1:1: Error: Odd", "   1: a = ", "      ^"}},
		{"over lines", "a = [\n  1,\n]\n", "[", "]", []string{"   1: a = [", "          ^"}},
		{"hostile", "a = \"\x1b[2J\u202e\" z", "z", "", []string{"   1: a = \"\ufffd[2J\ufffd\" z", "                  ^"}},
		{"carriage return", "a = z\r\nb = 1\r\n", "z", "\r", []string{"   1: a = z", "          ^"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := strings.Index(test.src, test.from)
			end := len(test.src)
			if test.from == "" {
				end = start
			} else if test.to != "" {
				end = start + strings.Index(test.src[start:], test.to)
			}
			subject := hcl.Range{Filename: "x.hcl", Start: positionOf(test.src, start), End: positionOf(test.src, end)}
			diags := hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Odd", Detail: "Quite odd.", Subject: &subject}}
			sources := &config.Sources{Files: map[string]*hcl.File{"x.hcl": {Bytes: []byte(test.src)}}}
			var out bytes.Buffer
			if err := printDiagnostics(&out, describe(diags, sources)); err != nil {
				t.Fatal(err)
			}
			for _, want := range append(test.want, "Quite odd.") {
				if !strings.Contains(out.String(), want+"\n") {
					t.Errorf("no line %q in\n%s", want, out.String())
				}
			}
		})
	}
}

// positionOf counts as HCL does, in tests without clusters of more than one combining mark.
func positionOf(src string, offset int) hcl.Pos {
	line := src[:offset]
	pos := hcl.Pos{Line: 1 + strings.Count(line, "\n"), Column: 1, Byte: offset}
	for _, r := range line[strings.LastIndexByte(line, '\n')+1:] {
		if r != '\u0301' {
			pos.Column++
		}
	}
	return pos
}

func TestPrintDiagnosticsWithoutPlace(t *testing.T) {
	var out bytes.Buffer
	diags := hcl.Diagnostics{
		{Severity: hcl.DiagWarning, Summary: "Unused"},
		{Severity: hcl.DiagError, Summary: "Declaration not readable", Detail: "x.hcl: it is a directory."},
	}
	if err := printDiagnostics(&out, describe(diags, nil)); err != nil {
		t.Fatal(err)
	}
	const want = "Warning: Unused\n\nError NSC0026: Declaration not readable\n\nx.hcl: it is a directory.\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestAlikeDiagnosticsAreCut(t *testing.T) {
	var devices strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&devices, "      device \"d%d\" {\n        type = \"meter\"\n      }\n", i)
	}
	dir := t.TempDir()
	for name, attribute := range map[string]string{"warnings.hcl": "", "errors.hcl": "oops = 1\n"} {
		text := "customer \"acme\" {\n  project \"mill\" {\n    site \"north\" {\n" + strings.ReplaceAll(devices.String(), "type", attribute+"type") + "    }\n  }\n}\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args  []string
		code  int
		shown string // what stands before each
	}{
		{[]string{"lint", "-config", "warnings.hcl"}, 0, "Warning NSL0007: "},
		{[]string{"validate", "-config", "warnings.hcl"}, 0, "Warning NSL0007: "},
		{[]string{"validate", "-config", "errors.hcl"}, 1, "Error NSC0003: "},
		{[]string{"plan", "-config", "errors.hcl"}, 1, "Error NSC0003: "},
	} {
		args := slices.Clone(test.args)
		args[2] = filepath.Join(dir, args[2])
		var out bytes.Buffer
		code := run(t.Context(), args, strings.NewReader(""), &out, &out)
		if n := strings.Count(out.String(), test.shown); code != test.code || n != maxAlike || !strings.Contains(out.String(), "\n… and 1,980 more like it (-json lists all)\n") {
			t.Errorf("%v exits with %d and shows %d:\n%.2000s", test.args, code, n, out.String())
		}
		out.Reset()
		run(t.Context(), append(args, "-json"), strings.NewReader(""), &out, &out)
		var v failure
		err := json.Unmarshal(out.Bytes(), &v)
		alike := slices.DeleteFunc(v.Diagnostics, func(d diagnostic) bool { return !strings.Contains(test.shown, " "+d.Code+":") })
		if err != nil || len(alike) != 2000 {
			t.Errorf("%v -json has %d diagnostics: %v", test.args, len(alike), err)
		}
	}
}
