package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// findings are "line: code" of what lint says of a declaration in memory.
func findings(t *testing.T, src string) []string {
	t.Helper()
	l := newLoader()
	l.lints = true
	l.env = func(string) string { return "hunter2" }
	l.add("main.hcl", []byte(src))
	snapshot, _, diags := l.finish()
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, src)
	}
	var got []string
	for _, d := range l.lint(snapshot) {
		if d.Severity != hcl.DiagWarning || d.Detail == "" {
			t.Errorf("incomplete finding: %v", d)
		}
		got = append(got, fmt.Sprintf("%d: %s", d.Subject.Start.Line, Code(d)))
	}
	return got
}

func checkFindings(t *testing.T, src string, want ...string) {
	t.Helper()
	if got := findings(t, src); !slices.Equal(got, want) {
		t.Errorf("findings are %q, want %q\n%s", got, want, src)
	}
}

// Every rule is in the table of explanations and finds something in its example, which TestExplanations tries.
func TestRulesAreExplained(t *testing.T) {
	var ruled []string
	for _, r := range rules {
		ruled = append(ruled, r.code)
	}
	var explained []string
	for _, e := range Explanations() {
		if strings.HasPrefix(e.Code, "NSL") && e.Code != codeInvalidNolint && e.Code != codeUnusedNolint {
			explained = append(explained, e.Code)
		}
	}
	if !slices.Equal(ruled, explained) {
		t.Errorf("the rules are %q, explained are %q", ruled, explained)
	}
}

func TestLint(t *testing.T) {
	parameter := func(attrs string) string { return lintExample("unit = \"V\"\n" + attrs) }
	threshold := func(attrs string) string {
		return "threshold \"t\" {\n  deadband = 1\n  " + strings.ReplaceAll(attrs, "\n", "\n  ") + "\n}"
	}
	for name, tt := range map[string]struct {
		src  string
		want []string
	}{
		"nothing": {lintExample("unit = \"V\""), nil},

		"a deadband of zero":             {parameter("threshold \"t\" {\n  above    = 1\n  deadband = 0\n}"), []string{"7: NSL0001"}},
		"no deadband of a bool":          {parameter("type = \"bool\"\nthreshold \"t\" {\n  above = 0\n}"), nil},
		"a bool is never above 1":        {parameter("type = \"bool\"\nthreshold \"t\" {\n  above = 1\n}"), []string{"7: NSL0002"}},
		"below min":                      {parameter("min = 0\n" + threshold("below = 0")), []string{"8: NSL0002"}},
		"inside the range":               {parameter("min = 0\nmax = 9\n" + threshold("above = 8\nbelow = 1")), nil},
		"always below":                   {parameter("max = 9\n" + threshold("below = 10")), []string{"8: NSL0003"}},
		"a critical at the same limit":   {parameter(threshold("above = 8") + "\n" + strings.Replace(threshold("above = 8\nseverity = \"critical\""), "\"t\"", "\"c\"", 1)), []string{"7: NSL0004"}},
		"a warning below the critical":   {parameter(threshold("below = 1") + "\n" + strings.Replace(threshold("below = 2\nseverity = \"critical\""), "\"t\"", "\"c\"", 1)), []string{"7: NSL0004"}},
		"a range that is accepted":       {parameter("min = 0\non_violation = \"accept\""), []string{"6: NSL0014"}},
		"a type that is accepted":        {parameter("type = \"int\"\non_violation = \"accept\""), []string{"6: NSL0014"}},
		"accepted without a range":       {parameter("on_violation = \"accept\""), nil},
		"a unit that is empty":           {lintExample("unit = \"\""), nil},
		"an int without unit":            {lintExample("type = \"int\""), nil},
		"blanks around a description":    {parameter("description = \"a \""), []string{"5: NSL0011"}},
		"a heredoc's last newline":       {parameter("description = <<-EOT\na\nEOT"), nil},
		"a local that a local refers to": {"locals {\n  a = 1\n  b = local.a\n}\ncustomer \"x\" {\n  metadata = { b = local.b }\n}\n", nil},
		"a local in a name":              {"locals {\n  a = 1\n}\ncustomer \"x\" {\n  name = \"x${local.a}\"\n  for_each = [1]\n}\n", nil},
		"external ids by case": {strings.Replace(lintExample("unit = \"V\""), "type       =", "external_id = \"p\"\n        type       =", 1) +
			strings.ReplaceAll(strings.Replace(lintExample("unit = \"V\""), "type       =", "external_id = \"P\"\n        type       =", 1), "\"acme\"", "\"other\""), []string{"27: NSL0010"}},
		"names by case":           {"customer \"acme\" {\n  project \"a\" {\n  }\n  project \"A\" {\n  }\n}\ncustomer \"b\" {\n  project \"A\" {\n  }\n}\n", []string{"2: NSL0010"}},
		"a template of a device":  {"template \"m\" {\n  parameter \"v\" {\n    unit     = \"V\"\n    interval = \"1s\"\n  }\n}\ncustomer \"a\" {\n  project \"p\" {\n    site \"s\" {\n      device \"d\" {\n        type     = \"t\"\n        template = \"m\"\n      }\n    }\n  }\n}\n", nil},
		"two projects, one time":  {"template \"m\" {\n  parameter \"v\" {\n  }\n}\ncustomer \"a\" {\n  project \"p\" {\n    templates = [\"m\"]\n  }\n  project \"q\" {\n    templates = [\"m\"]\n  }\n}\n", []string{"2: NSL0009"}},
		"a customer's devices":    {strings.Replace(parameter(""), "project", "limits {\n    events_per_second = 0.05\n    burst             = 10\n  }\n  project", 1), []string{"1: NSL0015"}},
		"a device's own limit":    {strings.Replace(parameter(""), "interval   = \"10s\"", "limits {\n          events_per_second = 0.05\n          burst             = 10\n        }\n        interval   = \"10s\"", 1), []string{"16: NSL0015"}},
		"a secret in metadata":    {"customer \"a\" {\n  metadata = {\n    deep = [{ db_password = \"hunter2\" }]\n  }\n}\n", []string{"2: NSL0016"}},
		"a private key":           {"customer \"a\" {\n  metadata = { pem = \"-----BEGIN RSA PRIVATE KEY-----\" }\n}\n", []string{"2: NSL0016"}},
		"a secret from elsewhere": {"customer \"a\" {\n  metadata = { api_key = env(\"X\") }\n}\n", []string{"2: NSL0016"}}, // it is shown by plan all the same
		"a secret local":          {"locals {\n  apiToken = \"hunter2\"\n}\ncustomer \"a\" {\n  metadata = { a = length(local.apiToken) }\n}\n", []string{"2: NSL0016"}},
		"a local from elsewhere":  {"locals {\n  token = env(\"X\")\n}\ncustomer \"a\" {\n  metadata = { a = length(local.token) }\n}\n", nil},
		"no secrets":              {"customer \"a\" {\n  metadata = { token_count = 3, password_hint = \"none\", secret = \"\", tokens = true }\n}\n", nil},

		"what another declaration has": {"customer \"a\" {\n  reference = true\n  project \"p\" {\n    reference = true\n    parameter \"v\" {\n      unit = \"V\"\n    }\n    site \"s\" {\n      device \"d\" {\n        type       = \"t\"\n        parameters = [\"theirs\"]\n      }\n      device \"e\" {\n        type       = \"t\"\n        interval   = \"1ms\"\n        parameters = [\"theirs\"]\n      }\n    }\n  }\n}\n", nil},
		"one that may send anything":   {"customer \"a\" {\n  project \"p\" {\n    parameter \"v\" {\n      unit = \"V\"\n    }\n    site \"s\" {\n      device \"d\" {\n        type     = \"t\"\n        interval = \"1s\"\n      }\n    }\n  }\n}\n", []string{"7: NSL0006"}},
		"for_each is counted": {"customer \"a\" {\n  project \"p\" {\n    site \"s\" {\n      device \"d\" {\n        for_each = range(10)\n        name     = \"d${each.key}\"\n        type     = \"t\"\n        interval = \"1s\"\n      }\n    }\n  }\n}\n",
			[]string{"4: NSL0006", "4: NSL0006", "4: NSL0006"}},
	} {
		t.Run(name, func(t *testing.T) { checkFindings(t, tt.src, tt.want...) })
	}
}

func TestNolint(t *testing.T) {
	local := func(comment string) string {
		return "locals {\n  a = 1 " + comment + "\n}\ncustomer \"x\" {\n}\n"
	}
	for name, tt := range map[string]struct {
		src  string
		want []string
	}{
		"on the line":            {local("# nolint:NSL0013 soon used"), nil},
		"with two slashes":       {local("// nolint:NSL0013 soon used"), nil},
		"on the line above":      {"locals {\n  # nolint:NSL0013 soon used\n  a = 1\n}\ncustomer \"x\" {\n}\n", nil},
		"above another comment":  {"locals {\n  # nolint:NSL0013 soon used\n\n  # one\n  a = 1\n}\ncustomer \"x\" {\n}\n", nil},
		"too far above":          {"locals {\n  # nolint:NSL0013 soon used\n  b = 1 # nolint:NSL0013 soon used\n  a = 1\n}\ncustomer \"x\" {\n}\n", []string{"4: NSL0013"}},
		"without a reason":       {local("# nolint:NSL0013"), []string{"2: NSL0013", "2: NSL0018"}},
		"with blanks as reason":  {local("# nolint:NSL0013   "), []string{"2: NSL0013", "2: NSL0018"}},
		"without a code":         {local("# nolint because"), []string{"2: NSL0013", "2: NSL0018"}},
		"with an unknown code":   {local("# nolint:NSL9999 soon used"), []string{"2: NSL0013", "2: NSL0018"}},
		"with the code of error": {local("# nolint:NSC0001 soon used"), []string{"2: NSL0013", "2: NSL0018"}},
		"of another code":        {local("# nolint:NSL0001 soon used"), []string{"2: NSL0013", "2: NSL0019"}},
		"of two codes":           {local("# nolint:NSL0013,NSL0001 soon used"), []string{"2: NSL0019"}},
		"of nothing":             {"customer \"x\" {\n}\n# nolint:NSL0013 is gone\n", []string{"3: NSL0019"}},
		"of itself":              {local("# nolint:NSL0018 soon used"), []string{"2: NSL0013", "2: NSL0018"}},
		"in a text":              {"customer \"x\" {\n  metadata = { a = \"# nolint:NSL0013\" }\n}\n", nil},
		"a word like it":         {local("# nolinting is bad"), []string{"2: NSL0013"}},
	} {
		t.Run(name, func(t *testing.T) { checkFindings(t, tt.src, tt.want...) })
	}
}

// A secret's line is not shown, its file's permissions are looked at, and errors come without findings.
func TestLintSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "main.hcl", "customer \"a\" {\n  metadata = { token = \"hunter2\" }\n}\n")
	path := filepath.Join(dir, "main.hcl")
	for mode, want := range map[os.FileMode][]string{0o644: {"NSL0017", "NSL0016"}, 0o640: {"NSL0016"}} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		snapshot, _, diags := Lint(path)
		if got := codesOf(diags); snapshot == nil || !slices.Equal(got, want) {
			t.Errorf("with mode %o: %q, want %q", mode, got, want)
		}
		for _, d := range diags {
			if !Confidential(d) || strings.Contains(d.Detail, "hunter2") {
				t.Errorf("%v shows the secret", d)
			}
		}
	}
	write(t, dir, "more.hcl", "locals {\n  a = 1\n")
	if snapshot, _, diags := Lint(dir); snapshot != nil || !slices.Equal(codesOf(diags), []string{"NSC0002"}) {
		t.Errorf("%v, %q", snapshot, codesOf(diags))
	}
}

func TestLintDemoEstate(t *testing.T) {
	if _, _, diags := Lint("../../nsready.hcl"); len(diags) > 0 {
		t.Errorf("the demo estate has findings: %v", diags)
	}
}

// Devices that are parsed one by one, modules and variables are looked into like the rest.
func TestLintParts(t *testing.T) {
	places := func(files map[string]string) []string {
		t.Helper()
		l := added(files, Input{Name: "given", Value: "x # nolint:NSL0001"})
		l.lints = true
		snapshot, _, diags := l.finish()
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		var got []string
		for _, d := range l.lint(snapshot) {
			got = append(got, fmt.Sprintf("%s:%d:%d %s", d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column, Code(d)))
		}
		return got
	}
	got := places(map[string]string{
		"main.hcl": `locals {
  kind   = "meter" # a device refers to it
  unused = 1
}
variable "given" {
}
variable "password" {
  default = "hunter2"
}
template "of_a_device" {
  parameter "v" {
    unit = "V"
  }
}
template "of_a_module" {
  parameter "w" {
    unit = "W"
  }
}
template "of_none" {
  parameter "x" {
    unit = "X"
  }
}
customer "a" {
  project "p" {
    site "s" {
      device "one" {
        type        = local.kind
        template    = "of_a_device"
        external_id = "E"
        interval    = null
      }
      device "two" { # nolint:NSL0007 sends when asked
        type        = "meter"
        template    = "of_a_device"
        external_id = "e"
      }
      module "m" {
        for_each = ["x", "y"]
        source   = "./m"
        name     = each.value
      }
    }
  }
}
`,
		"m/m.hcl": `variable "name" {
}
locals {
  apiToken = "hunter2"
  unused   = 1
  type     = "meter"
}
template "own" {
  parameter "y" {
    unit = "Y"
  }
}
device "d" {
  name     = "${var.name}${length(local.apiToken)}"
  type     = local.type
  template = "of_a_module"
}
`,
	})
	want := []string{
		"m/m.hcl:4:3 NSL0016", "m/m.hcl:5:3 NSL0013", "m/m.hcl:8:1 NSL0012", "m/m.hcl:13:1 NSL0007",
		"main.hcl:3:3 NSL0013", "main.hcl:8:3 NSL0016", "main.hcl:20:1 NSL0012", "main.hcl:32:23 NSL0007", "main.hcl:37:23 NSL0010",
	}
	// The devices of a module that is used twice differ by name alone.
	if i := slices.Index(got, "m/m.hcl:13:1 NSL0007"); i >= 0 && i+1 < len(got) && got[i+1] == got[i] {
		got = slices.Delete(got, i, i+1)
	} else {
		t.Errorf("the device of each use is not found")
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
