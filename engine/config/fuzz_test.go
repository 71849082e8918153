package config

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func addSeeds(f *testing.F) {
	f.Helper()
	paths, err := filepath.Glob("testdata/*/*.hcl")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		"a=\"$$${b}%%{c}$%{d}\"", "a=<<-E\n${\"${<<F\n$\nF\n}\"}\n E\n", "a = b ? c : d ? e : !!--f", "a{\r\nb=1\r\n}\r\n",
		"a = {for x in y : z =>\nz...}", "a = b[c][d].e.0.*.f[*]", "a = 1e2000000000 % 1e-999", "a \"${b}\" {}", "a = \"%{ if b ~}x%{~ else }y%{ endif }\"",
		"a = \"" + strings.Repeat("%{if b}", maxNesting-1) + "%{if",
	} {
		f.Add([]byte(s))
	}
}

var companions = map[string]string{
	"meters.csv": "name,type,interval\nmain,meter,10s\n", "limits.json": `{"parameters":[{"name":"A","max":5}]}`,
	"modules/mill/mill.hcl": "variable \"city\" {\n}\nproject \"mill\" {\n  site \"hall\" {\n    location = { city = var.city }\n  }\n}\n",
	"modules/loop/loop.hcl": "module \"again\" {\n  source = \"../loop\"\n}\n",
}

func loadSource(src []byte) (files map[string]string) {
	files = map[string]string{"main.hcl": string(src)}
	for name, text := range companions {
		files[name] = text
	}
	return files
}

func FuzzLoad(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, src []byte) { checkLoad(t, loadSource(src)) })
}

// FuzzLoadFiles has several files, modules that use one another, and a variable that is given a value.
func FuzzLoadFiles(f *testing.F) {
	const main = "variable \"x\" {\n  type = list(string)\n}\nmodule \"m\" {\n  for_each = var.x\n  source   = \"./m\"\n  name     = each.value\n}\n"
	f.Add([]byte(main), []byte("template \"t\" {\n  parameter \"p\" {\n  }\n}\n"),
		[]byte("variable \"name\" {\n}\ncustomer \"c\" {\n  name = var.name\n  project \"p\" {\n    site \"s\" {\n      module \"n\" {\n        source = \"./n\"\n      }\n    }\n  }\n}\n"),
		[]byte("device \"d\" {\n  type     = \"meter\"\n  template = \"t\"\n}\n"), `["a", "b"]`)
	f.Add([]byte(main), []byte("locals {\n  a = var.x\n}\n"), []byte("module \"n\" {\n  source = \"../m\"\n}\n"), []byte("module \"m\" {\n  source = \"..\"\n}\n"), `null`)
	f.Add([]byte("variable \"x\" {\n  type    = map(any)\n  default = null\n  validation {\n    condition     = length(var.x) > 1\n    error_message = \"${var.x}\"\n  }\n}\n"), []byte("module \"m\" {\n  source = \"./m/n\"\n}\n"),
		[]byte(""), []byte("customer \"${each.key}\" {\n}\n"), "\"\x1b\xff")
	f.Fuzz(func(t *testing.T, main, other, module, inner []byte, value string) {
		files := loadSource(main)
		files["other.hcl"], files["m/m.hcl"], files["m/n/n.hcl"] = string(other), string(module), string(inner)
		checkLoad(t, files, Input{Name: "x", Value: value})
	})
}

// checkLoad holds a load, and lint where there is no error, to what holds for all: its time, and diagnostics that are complete.
func checkLoad(t *testing.T, files map[string]string, inputs ...Input) {
	t.Helper()
	start := time.Now()
	l := added(files, inputs...)
	l.lints = true
	snapshot, sources, diags := l.finish()
	if !diags.HasErrors() {
		diags = l.lint(snapshot)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if (snapshot == nil) != diags.HasErrors() {
		t.Errorf("snapshot %v with %v", snapshot, diags)
	}
	for _, d := range diags {
		if Code(d) == "" {
			t.Errorf("%q has no code", d.Summary)
		}
		if d.Summary == "" || d.Detail == "" || d.Subject == nil || sources.Files[d.Subject.Filename] == nil {
			t.Errorf("incomplete diagnostic: %v", d)
		} else if s := d.Subject; s.Start.Line < 1 || s.Start.Column < 1 || s.End.Byte < s.Start.Byte || s.End.Byte > len(sources.Files[s.Filename].Bytes) {
			t.Errorf("the range %v is not in the file: %v", s, d)
		}
	}
}

// FuzzPieces holds a file that is parsed in pieces to the same file parsed at once: the same blocks and attributes at the
// same places, or errors in both.
func FuzzPieces(f *testing.F) {
	addSeeds(f)
	f.Add([]byte("site \"s\" {\n  device \"a\" {\n    b = 1\n  } # é\n /* é */ device \"b\" {\n  }\n\tdevice \"c\" { d = \"}\" }\n\n  device \"e\" {\n f = <<E\n}\nE\n  }\n  g = 1\n}\nh = 1\n"))
	f.Add([]byte("site \"s\" {\n  device \"a\" {\n  }\n  device \"a\" {\n  } }\nsite {\n  device a {\n  }\n}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		text, pieces, diags := scan("main.hcl", src)
		if diags.HasErrors() {
			return
		}
		whole, diags := hclsyntax.ParseConfig(text, "main.hcl", hcl.InitialPos)
		rest, found := hclsyntax.ParseConfig(without(text, pieces), "main.hcl", hcl.InitialPos)
		found = append(found, checkPieces("main.hcl", text, pieces)...)
		if diags.HasErrors() != found.HasErrors() {
			t.Fatalf("%q: at once: %v; in pieces: %v", text, diags, found)
		}
		if diags.HasErrors() {
			return
		}
		got := outline(rest.Body)
		for _, p := range pieces {
			file, _ := hclsyntax.ParseConfig(text[p.start:p.end], "main.hcl", p.pos)
			got = append(got, outline(file.Body)...)
		}
		want := outline(whole.Body)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%q:\ngot  %q\nwant %q", text, got, want)
		}
	})
}

// outline lists the blocks and attributes of a body, with their places.
func outline(body hcl.Body) (list []string) {
	_ = hclsyntax.VisitAll(body.(*hclsyntax.Body), func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.Block:
			list = append(list, fmt.Sprint(n.Type, n.Labels, n.LabelRanges, n.TypeRange, n.OpenBraceRange, n.CloseBraceRange))
		case *hclsyntax.Attribute:
			list = append(list, fmt.Sprint(n.Name, n.SrcRange, n.Expr.Range()))
		}
		return nil
	})
	return list
}

// FuzzLoadTests: a file of tests is refused with places, or has bounded tests that are complete.
func FuzzLoadTests(f *testing.F) {
	addSeeds(f)
	for _, e := range Explanations() {
		if strings.HasPrefix(e.Code, "NST") {
			f.Add([]byte(e.Wrong))
			f.Add([]byte(e.Right))
		}
	}
	declared, _, diags := load(map[string]string{"main.hcl": declarationOfTests})
	if diags.HasErrors() {
		f.Fatal(diags)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		l := newLoader()
		l.env = func(string) string { return "" }
		l.read = func(string) ([]byte, error) { return nil, os.ErrNotExist }
		tests, sources, diags := l.tests("a.nsreadytest.hcl", src, declared)
		if (tests == nil) != diags.HasErrors() {
			t.Errorf("tests %v with %v", tests, diags)
		}
		for _, d := range diags {
			if Code(d) == "" || d.Detail == "" || d.Subject == nil || sources.Files[d.Subject.Filename] == nil {
				t.Errorf("incomplete diagnostic: %v", d)
			} else if s := d.Subject; s.Start.Line < 1 || s.Start.Column < 1 || s.End.Byte < s.Start.Byte || s.End.Byte > len(src) {
				t.Errorf("the range %v is not in the file: %v", s, d)
			}
		}
		for _, test := range tests {
			samples := 0
			for _, s := range test.Series {
				if s.Device == nil || s.Parameter == nil || s.Interval <= 0 || len(s.Runs) == 0 {
					t.Errorf("incomplete series: %+v", s)
				}
				for _, r := range s.Runs {
					samples += r.Count
				}
			}
			for _, m := range test.Messages {
				if len(m.Body) > 2*maxEvent {
					t.Errorf("a message of %d bytes", len(m.Body))
				}
			}
			for _, a := range test.Alerts {
				if a.Device == nil || a.Threshold == nil {
					t.Errorf("incomplete expectation: %+v", a)
				}
			}
			for _, q := range test.Qualities {
				if q.Device == nil || q.Parameter == nil {
					t.Errorf("incomplete expectation: %+v", q)
				}
			}
			if samples > maxSamples {
				t.Errorf("%d samples", samples)
			}
		}
	})
}

// FuzzSeries holds the notation to what it means: the samples of a series are those of its words, each by itself.
func FuzzSeries(f *testing.F) {
	for _, s := range []string{"230 230+1x10 _ 260x30 240-2x5 NaN", "1e3x2 -.5 +5.x1 _x3", "1+x", "NaNx2", "9999999x999999999", "1+1", "1e308+1e308x5", "\t1\n2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		runs, at, size, why := parseSeries(s, maxSamples)
		if (runs == nil) != (why != "") || at < 0 || size < 0 || at+size > len(s) {
			t.Fatalf("%q: %v, %d, %d, %q", s, runs, at, size, why)
		}
		if why != "" {
			return
		}
		words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
		if len(words) != len(runs) {
			t.Fatalf("%q has %d words and %d runs", s, len(words), len(runs))
		}
		total := 0
		for i, r := range runs {
			alone, _, _, why := parseSeries(words[i], maxSamples)
			if why != "" || len(alone) != 1 || alone[0].Count != r.Count || alone[0].Missing != r.Missing {
				t.Errorf("%q alone is %v, %q; in %q it is %v", words[i], alone, why, s, r)
			}
			if last := r.Value(r.Count - 1); r.Count < 1 || math.IsInf(last, 0) || !r.Missing && math.IsNaN(last) != strings.HasPrefix(words[i], "NaN") {
				t.Errorf("%q is %+v", words[i], r)
			}
			total += r.Count
		}
		if total > maxSamples {
			t.Errorf("%q has %d samples", s, total)
		}
	})
}

func FuzzFormat(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		once, diags := Format("main.hcl", src)
		if (once == nil) != diags.HasErrors() {
			t.Fatalf("%q with %v", once, diags)
		}
		if once == nil {
			return
		}
		twice, diags := Format("main.hcl", once)
		if diags.HasErrors() {
			t.Fatalf("the formatted file is broken: %v\n%s", diags, once)
		}
		if !bytes.Equal(once, twice) {
			t.Fatalf("formatting %q gives %q, and again %q", src, once, twice)
		}
		before, _, _ := load(loadSource(src))
		after, _, _ := load(loadSource(once))
		if (before == nil) != (after == nil) || before != nil && before.Checksum() != after.Checksum() {
			t.Fatalf("formatting changes what is declared:\n%s\n%s", src, once)
		}
	})
}

// FuzzScan holds the scan to HCL's own scanner: what it passes is nested no deeper than it says,
// and it finds no fault with the brackets of a file that HCL accepts.
func FuzzScan(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		_, _, diags := scan("main.hcl", src)
		if diags.HasErrors() {
			if len(diags) != 1 || depth(src) > maxNesting-1 {
				return
			}
			if s := diags[0].Summary; !strings.HasPrefix(s, "Unbalanced") && !strings.HasPrefix(s, "Nesting") && !strings.HasPrefix(s, "Unclosed") {
				return
			}
			if _, diags := hclsyntax.ParseConfig(src, "main.hcl", hcl.InitialPos); !diags.HasErrors() && !bytes.Contains(src, []byte("%{")) {
				t.Errorf("refused a valid file: %q", src)
			}
			return
		}
		if n := depth(src); n > maxNesting {
			t.Errorf("passed a file nested %d deep: %q", n, src)
		}
	})
}

// depth is how deep HCL's scanner finds brackets and templates nested.
func depth(src []byte) int {
	tokens, _ := hclsyntax.LexConfig(src, "main.hcl", hcl.InitialPos)
	now, most := 0, 0
	for _, token := range tokens {
		switch token.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			now++
			most = max(most, now)
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			now--
		}
	}
	return most
}
