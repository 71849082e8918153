package config

import (
	"bytes"
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
			if d.Summary == "" || d.Detail == "" || d.Subject == nil || sources.Files[d.Subject.Filename] == nil {
				t.Errorf("incomplete diagnostic: %v", d)
			} else if s := d.Subject; s.Start.Line < 1 || s.Start.Column < 1 || s.End.Byte < s.Start.Byte || s.End.Byte > len(src) {
				t.Errorf("the range %v is not in the file: %v", s, d)
			}
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
