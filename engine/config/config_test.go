package config

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// load reads a declaration from memory: the files that end in .hcl are its source, those below a directory that of modules.
func load(files map[string]string, inputs ...Input) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	return added(files, inputs...).finish()
}

// added is a loader to which the files of a declaration in memory were added.
func added(files map[string]string, inputs ...Input) *loader {
	l := newLoader()
	l.env = func(name string) string { return map[string]string{"SITE": "north"}[name] }
	l.read = func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
	l.list = func(dir string) (names []string, err error) {
		for name := range files {
			if path.Dir(name) == dir && path.Ext(name) == ".hcl" {
				names = append(names, path.Base(name))
			}
		}
		slices.Sort(names)
		return names, nil
	}
	roots, _ := l.list(".")
	for _, name := range roots {
		l.add(name, []byte(files[name]))
	}
	l.given = map[string]given{}
	for _, in := range inputs {
		if v := l.root.variables[in.Name]; v != nil {
			l.given[in.Name] = l.textInput("-var "+in.Name, v, in.Value)
		}
	}
	return l
}

var marker = regexp.MustCompile(`# ERROR: (.*)`)

// wanted returns the errors that a fixture's comments announce, as "line: summary".
func wanted(t *testing.T, path string) []string {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	lines := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; lines.Scan(); n++ {
		if m := marker.FindStringSubmatch(lines.Text()); m != nil {
			want = append(want, fmt.Sprintf("%d: %s", n, m[1]))
		}
	}
	return want
}

func TestInvalid(t *testing.T) {
	paths, err := filepath.Glob("testdata/invalid/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want := wanted(t, path)
			if len(want) == 0 {
				t.Fatal("the fixture announces no error")
			}
			snapshot, sources, diags := Load(path)
			if snapshot != nil {
				t.Error("a snapshot came back with the errors")
			}
			var got []string
			for _, d := range diags {
				got = append(got, fmt.Sprintf("%d: %s", d.Subject.Start.Line, d.Summary))
				if d.Detail == "" || d.Subject.Filename != path || d.Subject.Start.Column < 1 {
					t.Errorf("incomplete diagnostic: %v", d)
				}
				if sources.Files[d.Subject.Filename] == nil {
					t.Errorf("the sources lack %s", d.Subject.Filename)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s\n%v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), diags)
			}
		})
	}
}

// listing lists a snapshot: the addresses, and below them the attributes that are set.
func listing(s *registry.Snapshot) string {
	var out strings.Builder
	for o := range s.Objects {
		fmt.Fprintln(&out, o.Address())
		for _, f := range o.Fields() {
			if f.Value != "" {
				fmt.Fprintf(&out, "  %s = %q\n", f.Name, f.Value)
			}
		}
	}
	if s.Owner != "" {
		fmt.Fprintln(&out, "owner", s.Owner)
	}
	for _, m := range s.Moves {
		fmt.Fprintln(&out, "moved", m.From, m.To, m.Place)
	}
	for _, i := range s.Imports {
		fmt.Fprintln(&out, "import", i.To, i.ID, i.Place)
	}
	for _, r := range s.Released {
		fmt.Fprintln(&out, "released", r.From, r.Place)
	}
	for _, r := range s.References {
		fmt.Fprintln(&out, "reference", r.Address, r.Place)
	}
	return out.String()
}

// The listings beside the fixtures are what they declare. To write them anew: UPDATE=1 go test ./engine/config
func TestValid(t *testing.T) {
	paths, err := filepath.Glob("testdata/valid/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			snapshot, _, diags := Load(path)
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			golden := strings.TrimSuffix(path, ".hcl") + ".txt"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(listing(snapshot)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(snapshot); got != string(want) {
				t.Errorf("%s declares\n%s\nwant\n%s", path, got, want)
			}
			checkFormatted(t, path)
		})
	}
}

func checkFormatted(t *testing.T, path string) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out, diags := Format(path, src); diags.HasErrors() || !bytes.Equal(out, src) {
		t.Errorf("%s is not formatted: %v\n%s", path, diags, out)
	}
}

func TestDemoEstate(t *testing.T) {
	const path = "../../nsready.hcl"
	snapshot, _, diags := Load(path)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	checkFormatted(t, path)
	want := "3 customers, 3 projects, 6 sites, 26 devices, 13 parameters, 9 thresholds"
	if got := snapshot.String(); got != want {
		t.Errorf("the demo estate has %s, want %s", got, want)
	}
	for _, d := range snapshot.Devices {
		if d.Interval < time.Second || d.Interval > 10*time.Second || len(d.Parameters) == 0 {
			t.Errorf("%s sends %q every %v; the demo shall show something at once", d.Addr, d.Parameters, d.Interval)
		}
	}
}

// A directory counts as one declaration, whatever the order of its files.
func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.hcl", "customer \"Mills\" {\n  parent = local.group\n  metadata = { rows = length(csvdecode(file(\"data/rows.csv\"))) }\n}\n")
	write(t, dir, "a.hcl", "locals {\n  group = \"Group\"\n}\ncustomer \"Group\" {\n}\n")
	write(t, dir, "notes.txt", "not HCL {{{")
	write(t, dir, ".hidden.hcl", "not HCL {{{")
	write(t, dir, "data/rows.csv", "\ufeffa,b\r\n1,2\r\n3,4\r\n")
	snapshot, sources, diags := Load(dir)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if got, want := listing(snapshot), "customer.Group\ncustomer.Mills\n  parent = \"Group\"\n  metadata = \"{\\\"rows\\\":2}\"\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(sources.Files)), []string{filepath.Join(dir, "a.hcl"), filepath.Join(dir, "b.hcl")}; !slices.Equal(got, want) {
		t.Errorf("sources are %q, want %q", got, want)
	}

	// A file that can't be parsed does not hide what is wrong in another, nor make its references unknown.
	write(t, dir, "a.hcl", "customer \"Group\" {\n")
	write(t, dir, "b.hcl", "retention {\n  raw = \"1\"\n}\ncustomer \"Mills\" {\n  parent = \"Group\"\n}\n")
	_, _, diags = Load(dir)
	checkSummaries(t, diags, "Unclosed configuration block", "Invalid duration")
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func checkSummaries(t *testing.T, diags hcl.Diagnostics, want ...string) {
	t.Helper()
	var got []string
	for _, d := range diags {
		got = append(got, d.Summary)
	}
	if !slices.Equal(got, want) {
		t.Errorf("diagnostics are %q, want %q\n%v", got, want, diags)
	}
}

// What is no regular file below the directory is refused at once, and never opened where that could block.
func TestHostileFiles(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	write(t, outside, "secret.csv", "a\n1\n")
	write(t, dir, "inside.csv", "a\n1\n")
	if err := os.Symlink(filepath.Join(outside, "secret.csv"), filepath.Join(dir, "link.csv")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inside.csv", filepath.Join(dir, "link-inside.csv")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	large, err := os.Create(filepath.Join(dir, "large.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if err := large.Truncate(maxDataSize + 1); err != nil {
		t.Fatal(err)
	}
	large.Close()
	write(t, dir, "latin1.csv", "a\n\xe9\n")

	tests := []struct {
		name, detail string // detail is "" for a file that is read
	}{
		{"inside.csv", ""},
		{"link-inside.csv", ""},
		{"link.csv", "escapes"},
		{"linked/secret.csv", "escapes"},
		{"../" + filepath.Base(outside) + "/secret.csv", "stay below"},
		{filepath.Join(outside, "secret.csv"), "stay below"},
		{"fifo", "not a regular file"},
		{".", "is a directory"},
		{"", "stay below"},
		{"missing.csv", "no such file"},
		{"large.csv", "may have up to"},
		{"latin1.csv", "no UTF-8"},
		{"in\x00side.csv", "invalid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, dir, "main.hcl", fmt.Sprintf("customer \"a\" {\n  metadata = { text = file(%s) }\n}\n", strings.ReplaceAll(fmt.Sprintf("%q", tt.name), `\x00`, `\u0000`)))
			_, _, diags := Load(filepath.Join(dir, "main.hcl"))
			if tt.detail == "" {
				checkSummaries(t, diags)
				return
			}
			checkSummaries(t, diags, "File not readable")
			if len(diags) == 1 && !strings.Contains(diags[0].Detail, tt.detail) {
				t.Errorf("%q does not say %q", diags[0].Detail, tt.detail)
			}
		})
	}
}

func TestDeclarationNotReadable(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.hcl"), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "missing.hcl"), filepath.Join(dir, "fifo.hcl"), dir, empty, "/dev/null"} {
		snapshot, _, diags := Load(path)
		checkSummaries(t, diags, "Declaration not readable")
		if snapshot != nil || len(diags) == 1 && !strings.Contains(diags[0].Detail, path) {
			t.Errorf("%s: %v, %v", path, snapshot, diags)
		}
	}
}

type hostileSource struct {
	name, src, summary string
	line, column       int
}

// hostileSources are sources that no fixture can hold: too large, or no text.
var hostileSources = func() []hostileSource {
	attribute := func(expr string) string { return "locals {\n  a = " + expr + "\n}\nretention {\n  raw = \"1d\"\n}\n" }
	many := func(s string) string { return strings.Repeat(s, 100_000) }
	return []hostileSource{
		{"brackets", attribute(strings.Repeat("[\n", 65)), "Nesting too deep", 33, 1},
		{"brackets on one line", attribute(strings.Repeat("[", 65)), "Nesting too deep", 2, 38},
		{"100,000 brackets", attribute(strings.ReplaceAll(many("["), "[[[[", "[[[[\n")), "Nesting too deep", 9, 4},
		{"100,000 parentheses", attribute(strings.ReplaceAll(many("("), "((((", "((((\n")), "Nesting too deep", 9, 4},
		{"100,000 braces", attribute(strings.ReplaceAll(many("{a="), "{a={a=", "{a={a=\n")), "Nesting too deep", 17, 4},
		{"100,000 blocks", many("a {\n"), "Nesting too deep", 33, 3},
		{"100,000 negations", attribute("(" + strings.ReplaceAll(many("!"), "!!!!", "!!!!\n") + "true)"), "Too many operators", 10, 1},
		{"100,000 minus signs", attribute("(" + strings.ReplaceAll(many("- "), "- - ", "- - \n") + "1)"), "Too many operators", 18, 1},
		{"100,000 additions", attribute("(1" + many("+\n1") + ")"), "Too many operators", 1002, 2},
		{"100,000 conditions", attribute("(true" + many("?\n1:true") + ")"), "Too many operators", 34, 7},
		{"conditions in a for", attribute("{for a in b : c => d" + many("?\n1:d") + "}"), "Too many operators", 34, 4},
		{"100,000 indexes", attribute("(b" + many("[c]\n") + ")"), "Too many operators", 1002, 1},
		{"nested templates", attribute(many("\"${\n")), "Nesting too deep", 17, 2},
		{"nested heredocs", attribute(many("<<E\n${")), "Nesting too deep", 18, 1},
		{"directives", attribute("<<E\n" + many("%{ if a }\n")), "Nesting too deep", 32, 4},
		{"unclosed comments", many("/* \n"), "Unclosed comment", 1, 1},
		{"garbage", strings.ReplaceAll(many("@"), "@@@@", "@@@@\n"), "Invalid character", 26, 1},
		{"long line", attribute("\"" + many(" ") + "\""), "Line too long", 2, 65537},
		{"long number", attribute(strings.Repeat("1", 65)), "Number too long", 2, 7},
		{"large file", strings.Repeat("#\n", maxFileSize/2) + "#", "File too large", 1, 1},
		{"huge heredoc", attribute("<<E\n" + strings.Repeat(strings.Repeat("x", 1000)+"\n", 60_000) + "E"), "Text too long", 2, 7},
		{"heredoc of many lines", attribute("<<E\n" + many("x\n") + "E"), "Text too long", 2, 7},
		{"many dollar signs", strings.Repeat(attribute("\""+strings.Repeat("$", 60_000)+"\""), 20), "Text too long", 2, 7},
		{"byte order mark", "\ufeffretention {\n}\n", "Byte order mark", 1, 1},
		{"invalid UTF-8", attribute("\"\xff\""), "Invalid UTF-8", 2, 8},
		{"cut UTF-8", attribute("\"é\xc3\""), "Invalid UTF-8", 2, 9},
		{"overlong UTF-8", attribute("\"\xc0\x80\""), "Invalid UTF-8", 2, 8},
		{"UTF-16", "r\x00e\x00", "NUL byte", 1, 2},
		{"NUL in a comment", "# a\x00b\n", "NUL byte", 1, 4},
		{"bidi", attribute("\"a\u202eb\""), "Bidirectional control character", 2, 9},
		{"bidi isolate in a comment", "# \u2066\n", "Bidirectional control character", 1, 3},
		{"escape sequence", "# \x1b[31m\n", "Control character", 1, 3},
		{"carriage return", "retention {\r}", "Control character", 1, 12},
	}
}()

func TestHostileSources(t *testing.T) {
	for _, tt := range hostileSources {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			snapshot, _, diags := load(map[string]string{"main.hcl": tt.src})
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("%d bytes took %v", len(tt.src), d)
			}
			if snapshot != nil || len(diags) == 0 {
				t.Fatal("was accepted")
			}
			if d := diags[0]; d.Summary != tt.summary || d.Subject.Start.Line != tt.line || d.Subject.Start.Column != tt.column {
				t.Errorf("%s at %d:%d, want %s at %d:%d", d.Summary, d.Subject.Start.Line, d.Subject.Start.Column, tt.summary, tt.line, tt.column)
			}
			if _, diags := Format("main.hcl", []byte(tt.src)); !diags.HasErrors() {
				t.Error("was formatted")
			}
		})
	}
}

// Few bytes that would make endless work or values.
func TestHostileExpressions(t *testing.T) {
	doubling := func(one, pair, last string, n int) string {
		var s strings.Builder
		fmt.Fprintf(&s, "locals {\n  x0 = %s\n", one)
		for i := range n {
			x := fmt.Sprintf("local.x%d", i)
			fmt.Fprintf(&s, "  x%d = %s\n", i+1, strings.ReplaceAll(pair, "X", x))
		}
		return s.String() + "}\ncustomer \"a\" {\n  " + strings.ReplaceAll(last, "X", fmt.Sprintf("local.x%d", n)) + "\n}\n"
	}
	var chain strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&chain, "  x%d = local.x%d\n", i, i+1)
	}
	tests := []struct{ name, src, summary string }{
		{"doubling text", doubling(`"0123456789"`, `"${X}${X}"`, "parent = X", 60), "Value too large"},
		{"doubling lists", doubling("[1]", "concat(X, X)", "for_each = X\n  name = each.value", 60), "Value too large"},
		{"doubling objects", doubling("{ a = 1 }", "{ a = X, b = X }", "metadata = X", 60), "Value too large"},
		{"deep objects", doubling("{ a = 1 }", "{ a = X }", "metadata = X", 60), "Value too large"},
		{"replacing", doubling(`"aaaaaaaaaaaaaaaa"`, `replace(X, "a", "aaaaaaaaaaaaaaaa")`, "parent = X", 20), "Value too large"},
		{"a chain of locals", "locals {\n" + chain.String() + "  x5000 = 1\n}\n", "Too much to evaluate"},
		{"many ranges", "locals {\n  a = concat(" + strings.Repeat("range(900000), ", 5) + "[])\n}\n", "Value too large"},
		{"repeated ranges", "customer \"a\" {\n  for_each = range(1000)\n  name = \"c${each.key}\"\n  metadata = { a = length(range(999999)) }\n}\n", "Too much to evaluate"},
		{"a million devices", "customer \"a\" {\n  project \"p\" {\n    site \"s\" {\n      for_each = range(1000)\n      name = \"s\"\n      device \"d\" {\n        for_each = range(1000)\n        name = \"d\"\n        type = \"t\"\n      }\n    }\n  }\n}\n", "Duplicate site"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			snapshot, _, diags := load(map[string]string{"main.hcl": tt.src})
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("took %v", d)
			}
			if snapshot != nil {
				t.Fatal("was accepted")
			}
			if !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == tt.summary }) || len(diags) > 10 {
				t.Errorf("%d diagnostics without %s: %v", len(diags), tt.summary, diags[0])
			}
		})
	}
}

// One value may be the beginning of another: nothing of the longer one is left in a message.
func TestValuesOfTheEnvironmentInMessagesAreReplacedWhole(t *testing.T) {
	l := newLoader()
	l.fromEnv = map[string]string{"SHORT": "pass", "LONG": "passphrase", "INNER": "phrase"}
	for range 50 { // a map has no order
		if got := l.redact(`"passphrase" and "PASS"`); got != `"$LONG" and "$SHORT"` {
			t.Fatalf("the message is %s", got)
		}
	}
}

func TestEnv(t *testing.T) {
	snapshot, _, diags := load(map[string]string{"main.hcl": "customer \"a\" {\n  metadata = { site = env(\"SITE\") }\n}\n"})
	if len(diags) > 0 || snapshot.Customers[0].Metadata != `{"site":"north"}` {
		t.Errorf("got %v, %v", snapshot, diags)
	}
	_, _, diags = load(map[string]string{"main.hcl": "customer \"a\" {\n  metadata = { site = env(\"STIE\") }\n}\n"})
	checkSummaries(t, diags, "Environment variable not set")
	if !strings.Contains(diags[0].Detail, "STIE") {
		t.Errorf("%q does not name the variable", diags[0].Detail)
	}
}

// The details help: they name what was meant, and where the other place is.
func TestDetails(t *testing.T) {
	for name, want := range map[string]string{
		"unknown-block.hcl":            `Did you mean "customer"?`,
		"unknown-attribute.hcl":        `Did you mean "max"?`,
		"unknown-attribute-device.hcl": `Did you mean "external_id"?`,
		"limits-unknown-attribute.hcl": `Did you mean "connections"?`,
		"limits-unknown-block.hcl":     `Did you mean "device"?`,
		"template-unknown.hcl":         `Did you mean "energy_meter"?`,
		"parameter-unknown.hcl":        `Did you mean "voltage"?`,
		"parent-unknown.hcl":           `Did you mean "Acme Group"?`,
		"platform-metric.hcl":          `Did you mean "queue_depth"?`,
		"threshold-severity.hcl":       `Did you mean "critical"?`,
		"parameter-violation.hcl":      `Did you mean "reject"?`,
		"expr-function.hcl":            `Did you mean "upper"?`,
		"expr-local.hcl":               `Did you mean "voltage"?`,
		"expr-attribute.hcl":           `Did you mean "name"?`,
		"duplicate-device.hcl":         "duplicate-device.hcl:4",
		"duplicate-external-id.hcl":    "duplicate-external-id.hcl:4",
		"duplicate-parameter.hcl":      "duplicate-parameter.hcl:3",
		"duplicate-threshold.hcl":      "duplicate-threshold.hcl:3",
		"duplicate-in-for-each.hcl":    `(each.key "0")`,
		"parent-cycle.hcl":             "a → b → c → a",
		"syntax-brackets.hcl":          `does not close the '[' of line 2`,
		"duration-without-unit.hcl":    "has no unit",
	} {
		_, _, diags := Load(filepath.Join("testdata/invalid", name))
		if len(diags) == 0 || !strings.Contains(diags[0].Detail, want) {
			t.Errorf("%s: %v does not say %q", name, diags, want)
		}
	}
}

func TestPositions(t *testing.T) {
	const src = `customer "Acme" {
  project "é" { description = [1] }
  metadata = { a = upper(1, 2), b = "${local.x}" }
}
`
	_, _, diags := load(map[string]string{"main.hcl": src})
	var got []string
	for _, d := range diags {
		got = append(got, fmt.Sprintf("%v %v %s", d.Subject, d.Context, d.Summary))
	}
	want := []string{
		"main.hcl:2,31-34 main.hcl:2,17-34 Wrong type",
		"main.hcl:3,20-31 main.hcl:3,14-51 Wrong number of arguments",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestManyAlike(t *testing.T) {
	_, _, diags := load(map[string]string{"main.hcl": "customer \"a\" {\n  for_each = range(1000)\n  name     = \"c${each.key}\"\n  parent   = \"nobody\"\n}\n"})
	checkSummaries(t, diags, "Unknown customer", "Unknown customer", "Unknown customer")
	if d := diags[2].Detail; !strings.Contains(d, "997 more") {
		t.Errorf("%q does not say how many more", d)
	}
}

func TestParseDuration(t *testing.T) {
	good := map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "1h30m": 90 * time.Minute, "5m": 5 * time.Minute, "10s": 10 * time.Second,
		"250ms": 250 * time.Millisecond, "1d12h": 36 * time.Hour, "1.5s": 1500 * time.Millisecond, "1m5.25s": 65250 * time.Millisecond,
		"0s": 0, "36500d": 36500 * 24 * time.Hour, "1s500ms": 1500 * time.Millisecond,
	}
	for in, want := range good {
		if got, why := parseDuration(in); why != "" || got != want {
			t.Errorf("%q is %v, %q; want %v", in, got, why, want)
		}
	}
	for _, in := range []string{"", "5", "5 min", "5min", "-1s", "+1s", "1e99h", "1e3s", "36501d", "999999999h", "1y", "1w", "1us", "1.5h", "1s1m", "1m1m", "٣s", " 1s", "1s ", "1.2345s", "inf", "1S"} {
		if got, why := parseDuration(in); why == "" {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func TestFormat(t *testing.T) {
	in := "retention   {\r\n      raw=\"90d\"   # keep\r\n  compress_after  =   \"7d\"\r\n}\r\n\r\n\r\n"
	want := "retention {\n  raw            = \"90d\" # keep\n  compress_after = \"7d\"\n}\n"
	got, diags := Format("main.hcl", []byte(in))
	if diags.HasErrors() || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, diags, want)
	}
	for _, broken := range []string{"retention {", "retention }", "a = = b", "a = [", "\"\n"} {
		if got, diags := Format("main.hcl", []byte(broken)); !diags.HasErrors() || got != nil {
			t.Errorf("%q is formatted as %q", broken, got)
		}
	}
}

// A declaration cut short, as by a write that is under way, must be refused or declare what its whole lines say.
func TestTruncated(t *testing.T) {
	src, err := os.ReadFile("testdata/valid/everything.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for n := range src {
		snapshot, _, diags := load(map[string]string{"main.hcl": string(src[:n])})
		if (snapshot == nil) != diags.HasErrors() {
			t.Fatalf("cut at %d: %v, %v", n, snapshot, diags)
		}
		if open := strings.Count(string(src[:n]), "{") > strings.Count(string(src[:n]), "}"); open && snapshot != nil {
			t.Fatalf("cut at %d, inside a block, it was accepted", n)
		}
	}
}
