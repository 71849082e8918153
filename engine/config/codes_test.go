package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// examine loads an example as its code wants it: as a declaration, with lint, or as a file of tests.
func examine(t *testing.T, code, src string) hcl.Diagnostics {
	t.Helper()
	if strings.HasPrefix(code, "NST") {
		declared, _, diags := load(map[string]string{"main.hcl": declarationOfTests})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		l := newLoader()
		_, _, diags = l.tests("main.nsreadytest.hcl", []byte(src), declared)
		return diags
	}
	l := added(loadSource([]byte(src)))
	l.lints = true
	snapshot, _, diags := l.finish()
	if !diags.HasErrors() && strings.HasPrefix(code, "NSL") {
		diags = l.lint(snapshot)
	}
	return diags
}

const declarationOfTests = `customer "acme" {
  project "mill" {
    parameter "voltage" {
      name = "Voltage"
      unit = "V"
      max  = 500
      threshold "high" {
        above    = 253
        for      = "30s"
        deadband = 2
      }
      threshold "twice" {
        above = 1
      }
    }
    parameter "current" {
      unit = "A"
      threshold "twice" {
        above = 1
      }
    }
    site "north" {
      device "press-01" {
        type        = "meter"
        external_id = "P-1"
        parameters  = ["voltage", "current"]
      }
    }
  }
}
`

func codesOf(diags hcl.Diagnostics) []string {
	var codes []string
	for _, d := range diags {
		codes = append(codes, Code(d))
	}
	return codes
}

var codeForm = regexp.MustCompile(`^NS[CLT][0-9]{4}$`)

// Every wrong example has the mistake, and every right one has none.
func TestExplanations(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range Explanations() {
		t.Run(e.Code, func(t *testing.T) {
			if !codeForm.MatchString(e.Code) || seen[e.Code] || e.Summary == "" || !strings.HasSuffix(e.Text, ".") {
				t.Errorf("%+v is incomplete, or its code is taken", e)
			}
			seen[e.Code] = true
			if (e.Wrong == "") != (e.Right == "") {
				t.Fatal("one example without the other")
			}
			if e.Wrong == "" {
				return
			}
			if diags := examine(t, e.Code, e.Wrong); !slices.Contains(codesOf(diags), e.Code) {
				t.Errorf("the wrong example has %q: %v\n%s", codesOf(diags), diags, e.Wrong)
			}
			if diags := examine(t, e.Code, e.Right); len(diags) > 0 {
				t.Errorf("the right example has %q: %v\n%s", codesOf(diags), diags, e.Right)
			}
			if out, diags := Format("main.hcl", []byte(e.Right)); diags.HasErrors() || string(out) != e.Right {
				t.Errorf("the right example is not formatted: %v\n%s", diags, out)
			}
			if out, diags := Format("main.hcl", []byte(e.Wrong)); !diags.HasErrors() && string(out) != e.Wrong {
				t.Errorf("the wrong example is not formatted:\n%s", out)
			}
		})
	}
}

// Every diagnostic of every fixture has a code, and what has no example is shown by a test.
func TestCodes(t *testing.T) {
	produced := map[string]bool{}
	take := func(what string, diags hcl.Diagnostics) {
		for _, d := range diags {
			if Code(d) == "" {
				t.Errorf("%s: %q has no code: add it to the explanations", what, d.Summary)
			}
			produced[Code(d)] = true
		}
	}
	paths, err := filepath.Glob("testdata/invalid/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		_, _, diags := Load(path)
		take(path, diags)
	}
	for _, tt := range hostileSources {
		_, _, diags := load(map[string]string{"main.hcl": tt.src})
		take(tt.name, diags)
	}
	_, _, diags := load(map[string]string{"main.hcl": "locals {\n" + strings.Join(chainOfLocals(5000), "\n") + "\n}\n"})
	take("a chain of locals", diags)
	_, _, diags = Load("testdata/none")
	take("no file", diags)
	_, diags = Format("main.json", nil)
	take("JSON", diags)
	_, _, diags = LoadTests("testdata/none", nil)
	take("no test file", diags)
	_, _, diags = Load("../../nsready.hcl", Input{File: "testdata/none"})
	take("no file of values", diags)
	nested := map[string]string{"main.hcl": "module \"m\" {\n  source = \"./0\"\n}\n"}
	for i := range maxModuleIn + 1 {
		nested[fmt.Sprintf("%d/m.hcl", i)] = fmt.Sprintf("module \"m\" {\n  source = \"../%d\"\n}\n", i+1)
	}
	_, _, diags = load(nested)
	take("modules", diags)
	l := newLoader()
	l.size = maxAllSource
	l.add("main.hcl", []byte("customer \"a\" {\n}\n"))
	_, _, diags = l.finish()
	take("more than all files may have", diags)

	for _, e := range Explanations() {
		if e.Wrong == "" && !produced[e.Code] && e.Code != "NSL0017" && e.Code != "NSC0028" { // TestLintSecrets; two million objects
			t.Errorf("nothing produces %s, %s", e.Code, e.Summary)
		}
	}
}

func chainOfLocals(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("  x%d = local.x%d", i, i+1))
	}
	return append(lines, fmt.Sprintf("  x%d = 1", n))
}

// The summaries in the source are all in the table, also those that no fixture produces.
func TestSummariesHaveCodes(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`(?:report|reportProblem|wrong|fail|refuse)\([^"\n]*?"([A-Z][A-Za-z -]+)"[,+ ]|Summary:\s+"([A-Z][^"]*)"`)
	found := map[string]bool{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") || path == "explanations.go" {
			continue
		}
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(src), -1) {
			found[m[1]+m[2]] = true
		}
	}
	if len(found) < 60 {
		t.Errorf("found only %d summaries in the source: has its form changed?", len(found))
	}
	for summary := range maps.Keys(found) {
		if strings.HasSuffix(summary, " ") {
			summary += "x"
		}
		if explanation(summary) == nil {
			t.Errorf("%q has no code: add it to the explanations", summary)
		}
	}
}
