package config

import (
	"bytes"
	"fmt"
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

// checkLoad holds a load to what holds for all: its time, and diagnostics that are complete.
func checkLoad(t *testing.T, files map[string]string, inputs ...Input) {
	t.Helper()
	start := time.Now()
	snapshot, sources, diags := load(files, inputs...)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if (snapshot == nil) != diags.HasErrors() {
		t.Errorf("snapshot %v with %v", snapshot, diags)
	}
	for _, d := range diags {
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
