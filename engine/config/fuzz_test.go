package config

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
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
	f.Fuzz(func(t *testing.T, src []byte) {
		start := time.Now()
		snapshot, sources, diags := load(loadSource(src))
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%d bytes took %v", len(src), d)
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
			} else if s := d.Subject; s.Start.Line < 1 || s.Start.Column < 1 || s.End.Byte < s.Start.Byte || s.End.Byte > len(src) {
				t.Errorf("the range %v is not in the file: %v", s, d)
			}
		}
	})
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
		diags := scan("main.hcl", src)
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
