package config

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// hostile is one declaration that must be refused: at which places, with what.
type hostile struct {
	name, src string
	want      []string // "main.hcl:line:column Summary" of each; only the first of them for a want that ends in "…"
	says      string   // in the first detail
}

// inDevice wraps the attributes of a device in what it takes to be declared.
func inDevice(attributes string) string {
	return "customer \"a\" {\n  project \"p\" {\n    site \"s\" {\n      device \"d\" {\n" + attributes + "\n      }\n    }\n  }\n}\n"
}

// value puts an expression where any is allowed.
func value(expr string) string {
	return "customer \"a\" {\n  metadata = { x = " + expr + " }\n}\n"
}

// refused are attributes and blocks that other platforms have and a declaration has not: each must be refused by its name.
func refused(names ...string) (list []hostile) {
	for _, name := range names {
		list = append(list,
			hostile{name + " of a device", inDevice("        type = \"meter\"\n        " + name + " = \"x\""), []string{"main.hcl:6:9 Unsupported argument"}, name},
			hostile{name + " block", name + " {\n}\nretention {\n  raw = \"1d\"\n}\n", []string{"main.hcl:1:1 Unsupported block type"}, name},
		)
	}
	return list
}

func join(lists ...[]hostile) []hostile { return slices.Concat(lists...) }

// nested is n times an opener, on lines of 64 so that it is its depth that is refused.
func nested(opener string, n int) string {
	return strings.Repeat(strings.Repeat(opener, 64)+"\n", n/64) + strings.Repeat(opener, n%64)
}

func depths(name, before, opener, at, summary string) (list []hostile) {
	for _, n := range []int{65, 100_000, 1_000_000} {
		list = append(list, hostile{fmt.Sprint(n, " ", name), before + nested(opener, n) + "\n", []string{"main.hcl:" + at + " " + summary}, ""})
	}
	return list
}

// hostileClasses are the ways in which a declaration can be bad. Those that a declaration cannot be bad in are there as
// well, with what is refused instead.
var hostileClasses = []struct {
	id, what string
	rows     []hostile
	test     func(*testing.T) // what takes more than a source
}{
	{"HC01", "empty declarations: a file that was cut short must not retire an estate", []hostile{
		{"no byte", "", []string{"main.hcl:1:1 Nothing declared"}, "customer"},
		{"white space", "\n \t\n", []string{"main.hcl:1:1 Nothing declared"}, ""},
		{"comments", "# nothing\n/* here */\n", []string{"main.hcl:1:1 Nothing declared"}, ""},
		{"names alone", "locals {\n  a = 1\n}\ntemplate \"t\" {\n  parameter \"p\" {\n  }\n}\n", []string{"main.hcl:1:1 Nothing declared"}, ""},
	}, nil},
	{"HC02", "a syntax error at every token", nil, syntaxErrorAtEveryToken},
	{"HC03", "unknown blocks and attributes", []hostile{
		{"block", "custmer \"a\" {\n}\nretention {\n  raw = \"1d\"\n}\n", []string{"main.hcl:1:1 Unsupported block type"}, `Did you mean "customer"?`},
		{"block inside", "customer \"a\" {\n  projet \"p\" {\n  }\n}\n", []string{"main.hcl:2:3 Unsupported block type"}, `Did you mean "project"?`},
		{"attribute", inDevice("        type = \"meter\"\n        extrenal_id = \"x\""), []string{"main.hcl:6:9 Unsupported argument"}, `Did you mean "external_id"?`},
		{"attribute at the top", "raw = 1\ncustomer \"a\" {\n}\n", []string{"main.hcl:1:1 Unsupported argument"}, "raw"},
		{"attribute that is a block", "customer \"a\" {\n  project = 1\n}\n", []string{"main.hcl:2:3 Unsupported argument"}, "block"},
	}, nil},
	{"HC04", "the same twice", []hostile{
		{"attribute", "customer \"a\" {\n  parent = \"b\"\n  parent = \"b\"\n}\n", []string{"main.hcl:3:3 Attribute redefined"}, "main.hcl:2"},
		{"label", "customer \"a\" {\n}\ncustomer \"a\" {\n}\n", []string{"main.hcl:3:1 Duplicate customer"}, "main.hcl:1"},
		{"label in another form of Unicode", "customer \"\\u00e9\" {\n}\ncustomer \"e\\u0301\" {\n}\n", []string{"main.hcl:3:1 Duplicate customer"}, ""},
		{"single block", "retention {\n  raw = \"1d\"\n}\nretention {\n  raw = \"1d\"\n}\n", []string{"main.hcl:4:1 Duplicate retention"}, ""},
		{"key", value("{ a = 1, a = 2 }"), []string{"main.hcl:2:29 Duplicate key"}, ""},
		{"variable", "variable \"v\" {\n  default = 1\n}\nvariable \"v\" {\n  default = 1\n}\ncustomer \"a\" {\n}\n", []string{"main.hcl:4:1 Duplicate variable"}, "main.hcl:1"},
		{"extra label", "customer \"a\" \"b\" {\n}\n", []string{"main.hcl:1:14 Extraneous label for customer"}, ""},
	}, nil},
	{"HC05", "what is missing", []hostile{
		{"attribute", inDevice("        external_id = \"x\""), []string{"main.hcl:4:18 Missing required argument"}, "type"},
		{"label", "customer {\n}\n", []string{"main.hcl:1:10 Missing name for customer"}, ""},
		{"null for a required one", inDevice("        type = null"), []string{"main.hcl:5:16 Missing value"}, ""},
		{"limit", "platform \"disk_usage\" {\n}\n", []string{"main.hcl:1:1 Missing limit"}, ""},
		{"name with for_each", "customer \"a\" {\n  for_each = [1]\n}\n", []string{"main.hcl:2:3 Missing name"}, ""},
		{"value of a variable", "variable \"v\" {\n}\ncustomer \"a\" {\n}\n", []string{"main.hcl:1:1 Missing input"}, "NSREADY_VAR_v"},
	}, nil},
	{"HC06", "another type", []hostile{
		{"list for text", inDevice("        type = [\"meter\"]"), []string{"main.hcl:5:16 Wrong type"}, ""},
		{"bool for text", inDevice("        type = true"), []string{"main.hcl:5:16 Wrong type"}, ""},
		{"text for a number", "platform \"queue_depth\" {\n  warning = \"many\"\n}\n", []string{"main.hcl:2:13 Wrong type"}, "many"},
		{"number for an object", "customer \"a\" {\n  metadata = 5\n}\n", []string{"main.hcl:2:14 Wrong type"}, ""},
		{"number for for_each", "customer \"a\" {\n  for_each = 5\n  name     = \"a\"\n}\n", []string{"main.hcl:2:14 Wrong type"}, ""},
		{"object for a condition", value("{} ? 1 : 2"), []string{"main.hcl:2:20 Wrong type"}, ""},
	}, nil},
	{"HC07", "units: durations need one, sizes there are none of", join([]hostile{
		{"no unit", inDevice("        type = \"m\"\n        interval = \"5\""), []string{"main.hcl:6:20 Invalid duration"}, "has no unit"},
		{"a number", inDevice("        type = \"m\"\n        interval = 5"), []string{"main.hcl:6:20 Invalid duration"}, ""},
		{"space", inDevice("        type = \"m\"\n        interval = \"5 min\""), []string{"main.hcl:6:20 Invalid duration"}, "contains a space"},
		{"negative", inDevice("        type = \"m\"\n        interval = \"-1s\""), []string{"main.hcl:6:20 Invalid duration"}, "is negative"},
		{"exponent", inDevice("        type = \"m\"\n        interval = \"1e99h\""), []string{"main.hcl:6:20 Invalid duration"}, ""},
		{"overflow", inDevice("        type = \"m\"\n        interval = \"999999999h\""), []string{"main.hcl:6:20 Invalid duration"}, "100 years"},
		{"size for a count", "limits {\n  connections = \"10MB\"\n}\n", []string{"main.hcl:2:17 Wrong type"}, ""},
		{"binary size for a count", "limits {\n  connections = \"10MiB\"\n}\n", []string{"main.hcl:2:17 Wrong type"}, ""},
	}, refused("max_size")), nil},
	{"HC08", "ports are flags of the commands, no part of a declaration", join(refused("port", "listen", "address"), []hostile{
		{"number below its range", "limits {\n  connections = 0\n}\n", []string{"main.hcl:2:17 Invalid connections"}, ""},
		{"number above its range", "limits {\n  connections = 1000001\n}\n", []string{"main.hcl:2:17 Invalid connections"}, ""},
		{"an id that is none", inDevice("        type = \"meter\"\n        id   = \"press-01\""), []string{"main.hcl:6:16 Invalid ID"}, "UUID"},
		{"an id of another form", inDevice("        type = \"meter\"\n        id   = \"urn:uuid:7d444840-9dc0-11d1-b245-5ffdce74fad2\""), []string{"main.hcl:6:16 Invalid ID"}, "UUID"},
		{"an id of zeros", inDevice("        type = \"meter\"\n        id   = \"00000000-0000-0000-0000-000000000000\""), []string{"main.hcl:6:16 Invalid ID"}, "UUID"},
		{"one id for two devices", "customer \"a\" {\n  project \"p\" {\n    site \"s\" {\n      device \"x\" {\n        for_each = [\"b\", \"c\"]\n        name     = each.value\n        type     = \"meter\"\n        id       = \"7D444840-9dc0-11d1-b245-5ffdce74fad2\"\n      }\n    }\n  }\n}\n", []string{"main.hcl:8:20 Duplicate ID"}, "device.a/p/s/b"},
		{"devices below their range", "discovery {\n  max_devices = 0\n}\n", []string{"main.hcl:2:17 Invalid max_devices"}, ""},
		{"devices above their range", "discovery {\n  max_devices = 100001\n}\n", []string{"main.hcl:2:17 Invalid max_devices"}, ""},
		{"events above their range", "discovery {\n  max_events = 1e7\n}\n", []string{"main.hcl:2:16 Invalid max_events"}, ""},
		{"events of a device, negative", "discovery {\n  max_events_per_device = -1\n}\n", []string{"main.hcl:2:27 Invalid max_events_per_device"}, ""},
		{"a hold too short", "discovery {\n  hold = \"59s\"\n}\n", []string{"main.hcl:2:10 Invalid duration"}, ""},
		{"a second discovery", "discovery {\n}\ndiscovery {\n}\n", []string{"main.hcl:3:1 Duplicate discovery"}, ""},
		{"negative number", "limits {\n  connections = -1\n}\n", []string{"main.hcl:2:17 Invalid connections"}, ""},
		{"fraction", "limits {\n  connections = 1.5\n}\n", []string{"main.hcl:2:17 Invalid connections"}, ""},
	}), nil},
	{"HC09", "nesting that would exhaust the stack", join(
		depths("[", "locals {\n  a =\n", "[", "3:32", "Nesting too deep"),
		depths("(", "locals {\n  a =\n", "(", "3:32", "Nesting too deep"),
		depths("{", "locals {\n  a =\n", "{", "3:32", "Nesting too deep"),
		depths("!", "locals {\n  a =\n", "!", "3:33", "Too many operators"),
		depths("templates", "locals {\n  a =\n", "\"${", "3:47", "Nesting too deep"),
		depths("conditions", "locals {\n  a = (\n", "true ? ", "3:230", "Too many operators"),
		depths("blocks", "", "a {", "1:99", "Nesting too deep"),
		depths("directives", "locals {\n  a =\n\"", "%{if a}", "3:207", "Nesting too deep"),
	), nil},
	{"HC10", "files that are too large: 64 MiB, because a hundred thousand devices of 160 bytes are a declaration", []hostile{
		{"file", strings.Repeat("#\n", maxFileSize/2) + "#", []string{"main.hcl:1:1 File too large"}, "67108865"},
		{"line", "# " + strings.Repeat("x", maxLine) + "\n", []string{"main.hcl:1:65537 Line too long"}, ""},
		{"tokens", "locals {\n  a = [\n" + strings.Repeat(strings.Repeat("1,", 30_000)+"\n", 1+maxTokens/60_000), []string{"main.hcl:142:48604 File too large"}, ""},
	}, nil},
	{"HC11", "what is no part of the language; functions and conditions are", []hostile{
		{"for", value("[for x in [1] : x]"), []string{"main.hcl:2:20 Unsupported expression"}, "for_each"},
		{"nested for", value("[for x in [1] : [for y in [2] : y]]"), []string{"main.hcl:2:20 Unsupported expression"}, ""},
		{"for of an object", value("{for k, v in {} : k => v...}"), []string{"main.hcl:2:20 Unsupported expression"}, ""},
		{"splat", value("each[*].a"), []string{"main.hcl:2:24 Unsupported expression…"}, ""},
		{"directive", value("\"%{ for x in [1] }x%{ endfor }\""), []string{"main.hcl:2:21 Unsupported expression"}, ""},
		{"unknown function", value("uppr(\"x\")"), []string{"main.hcl:2:20 Unknown function"}, `Did you mean "upper"?`},
		{"function that runs a program", value("exec(\"id\")"), []string{"main.hcl:2:20 Unknown function"}, ""},
		{"function of a provider", value("provider::a::b()"), []string{"main.hcl:2:20 Unknown function"}, ""},
		{"expanded arguments", value("upper([\"x\"]...)"), []string{"main.hcl:2:20 Unsupported expression"}, ""},
	}, nil},
	{"HC12", "heredocs", []hostile{
		{"unterminated", "locals {\n  a = <<EOT\nx\n", []string{"main.hcl:4:1 Unterminated template string…"}, ""},
		{"without a marker", "locals {\n  a = <<\nx\n}\n", []string{"main.hcl:2:7 Invalid heredoc"}, ""},
		{"huge", "locals {\n  a = <<E\n" + strings.Repeat(strings.Repeat("x", 1000)+"\n", 60_000) + "E\n}\n", []string{"main.hcl:2:7 Text too long"}, ""},
		{"of many lines", "locals {\n  a = <<E\n" + strings.Repeat("x\n", 100_000) + "E\n}\n", []string{"main.hcl:2:7 Text too long"}, ""},
	}, nil},
	{"HC13", "numbers", []hostile{
		{"huge", value("1e2000000000"), []string{"main.hcl:2:20 Number out of range"}, ""},
		{"tiny", value("1e-2000000000 / 0"), []string{"main.hcl:2:20 Number out of range"}, ""},
		{"huge exponent", value("1e99999999999999999999"), []string{"main.hcl:2:20 Invalid number literal"}, ""},
		{"long", value(strings.Repeat("1", 65)), []string{"main.hcl:2:20 Number too long"}, ""},
		{"that can't be kept", value("9007199254740993"), []string{"main.hcl:2:20 Number too precise"}, "quotes"},
		{"as text", "limits {\n  connections = \"1e400\"\n}\n", []string{"main.hcl:2:17 Wrong type"}, ""},
		{"division", value("1 / 0"), []string{"main.hcl:2:20 Number out of range"}, ""},
		{"range", value("range(1e300)"), []string{"main.hcl:2:20 Value too large"}, ""},
	}, nil},
	{"HC14", "what is no text", []hostile{
		{"invalid UTF-8", value("\"\xff\""), []string{"main.hcl:2:21 Invalid UTF-8"}, ""},
		{"surrogates", value("\"\xed\xa0\x80\""), []string{"main.hcl:2:21 Invalid UTF-8", "main.hcl:2:22 Invalid UTF-8", "main.hcl:2:23 Invalid UTF-8"}, ""},
		{"byte order mark", "\ufeffretention {\n}\n", []string{"main.hcl:1:1 Byte order mark"}, ""},
		{"NUL", "# a\x00\n", []string{"main.hcl:1:4 NUL byte"}, ""},
		{"escaped NUL", value("\"a\\u0000\""), []string{"main.hcl:2:14 Invalid value"}, ""},
		{"carriage return alone", "retention {\r}\n", []string{"main.hcl:1:12 Control character"}, ""},
		{"bidi", "customer \"a\u202eb\" {\n}\n", []string{"main.hcl:1:12 Bidirectional control character"}, ""},
		{"escaped bidi", "customer \"a\\u202eb\" {\n}\n", []string{"main.hcl:1:10 Invalid name"}, ""},
		{"invisible", "customer \"a\u200bb\" {\n}\n", []string{"main.hcl:1:10 Invalid name"}, ""},
		{"escape sequence of a terminal", "# \x1b]0;x\x07\n", []string{"main.hcl:1:3 Control character", "main.hcl:1:8 Control character"}, ""},
	}, linesThatEndInCRLF},
	{"HC15", "JSON instead of HCL's own syntax", []hostile{
		{"object", "{\"customer\": {\"a\": {}}}\n", []string{"main.hcl:1:1 Argument or block definition required…"}, ""},
		{"keys in quotes", "\"customer\" = {}\n", []string{"main.hcl:1:1 Invalid argument name…"}, ""},
	}, jsonFile},
	{"HC16", "files and modules that are none, are outside, or would block", nil, hostileInclusion},
	{"HC17", "environment variables that are not set", []hostile{
		{"not set", value("env(\"NSREADY_NO_SUCH\")"), []string{"main.hcl:2:24 Environment variable not set"}, "NSREADY_NO_SUCH"},
		{"empty name", value("env(\"\")"), []string{"main.hcl:2:24 Environment variable not set"}, ""},
		{"inside a text", value("\"x-${env(\"NSREADY_NO_SUCH\")}\""), []string{"main.hcl:2:29 Environment variable not set"}, "NSREADY_NO_SUCH"},
		{"used as a default", value("env(\"NSREADY_NO_SUCH\") == \"\" ? \"x\" : \"y\""), []string{"main.hcl:2:24 Environment variable not set"}, ""},
	}, nil},
	{"HC18", "a declaration holds no secrets: there is no attribute for one, and its mode is nobody's business",
		refused("password", "token", "secret", "database_url", "credentials"), nil},
	{"HC19", "values of environment variables do not get into messages", nil, secretsInMessages},
	{"HC20", "names of what there is not; time zones and log levels are no part of a declaration", join(refused("timezone", "log_level"), []hostile{
		{"tenant", "customer \"a\" {\n  parent = \"nobody\"\n}\n", []string{"main.hcl:2:12 Unknown customer"}, ""},
		{"template", inDevice("        type = \"m\"\n        template = \"none\""), []string{"main.hcl:6:20 Unknown template"}, ""},
		{"parameter", inDevice("        type = \"m\"\n        parameters = [\"none\"]"), []string{"main.hcl:6:23 Unknown parameter"}, ""},
		{"metric", "platform \"cpu\" {\n  warning = 1\n}\n", []string{"main.hcl:1:10 Unknown platform metric"}, ""},
		{"variable", value("var.none"), []string{"main.hcl:2:20 Unknown variable"}, ""},
	}), nil},
	{"HC21", "limits that contradict one another", []hostile{
		{"of a connection above all", "limits {\n  connections             = 5\n  connections_per_address = 6\n}\n", []string{"main.hcl:3:29 Contradictory limits"}, ""},
		{"compression after the end", "retention {\n  raw            = \"1d\"\n  compress_after = \"2d\"\n}\n", []string{"main.hcl:3:20 Contradictory retention"}, ""},
		{"bounds", "customer \"a\" {\n  project \"p\" {\n    parameter \"v\" {\n      min = 2\n      max = 1\n    }\n  }\n}\n", []string{"main.hcl:5:13 Contradictory bounds"}, ""},
		{"threshold", "customer \"a\" {\n  project \"p\" {\n    parameter \"v\" {\n      threshold \"t\" {\n        above = 1\n        below = 1\n      }\n    }\n  }\n}\n", []string{"main.hcl:6:17 Contradictory limits"}, ""},
		{"severities", "platform \"disk_usage\" {\n  warning  = \"90%\"\n  critical = \"80%\"\n}\n", []string{"main.hcl:3:14 Contradictory limits"}, ""},
		{"a burst that never comes back", "limits {\n  device {\n    events_per_second = 0.001\n    burst             = 1e9\n  }\n}\n", []string{"main.hcl:4:25 Contradictory limits"}, ""},
	}, nil},
	{"HC22", "what a running engine could not take is no part of a declaration, but flags of its command", refused("collector", "queue", "worker"), nil},
	{"HC23", "files that change while they are read", nil, concurrentEdits},
	{"HC24", "ten thousand tenants and devices", nil, tenThousand},
}

// TestHostileClasses holds every class to: no panic, bounded time and memory, every problem with its file, line and column,
// and nothing that could be applied.
func TestHostileClasses(t *testing.T) {
	for i, class := range hostileClasses {
		if want := fmt.Sprintf("HC%02d", i+1); class.id != want {
			t.Errorf("class %d is %s, want %s", i, class.id, want)
		}
		t.Run(class.id, func(t *testing.T) {
			if n := len(class.rows); n < 3 && class.test == nil {
				t.Errorf("%d rows", n)
			}
			for _, row := range class.rows {
				t.Run(row.name, func(t *testing.T) { row.check(t) })
			}
			if class.test != nil {
				class.test(t)
			}
		})
	}
}

func (h hostile) check(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	snapshot, _, diags := load(map[string]string{"main.hcl": h.src})
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if took > 5*time.Second {
		t.Errorf("%d bytes took %v", len(h.src), took)
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > 64<<20+4*uint64(len(h.src)) {
		t.Errorf("%d bytes took %d MiB", len(h.src), made>>20)
	}
	if snapshot != nil {
		t.Error("there is something to apply")
	}
	got := places("", diags)
	want := slices.Clone(h.want)
	if first, cut := strings.CutSuffix(want[0], "…"); cut && len(got) > 0 {
		got, want = got[:1], []string{first}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s\n%v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), diags)
	}
	if len(diags) > 0 && !strings.Contains(diags[0].Detail, h.says) {
		t.Errorf("%q does not say %q", diags[0].Detail, h.says)
	}
}

// checkDiags holds diagnostics to being complete.
func checkDiags(t *testing.T, what string, snapshot any, sources *Sources, diags hcl.Diagnostics) {
	t.Helper()
	if !diags.HasErrors() {
		t.Errorf("%s: accepted: %v", what, snapshot)
	}
	for _, d := range diags {
		if d.Detail == "" || d.Subject == nil || d.Subject.Start.Line < 1 || d.Subject.Start.Column < 1 || sources.Files[d.Subject.Filename] == nil {
			t.Errorf("%s: incomplete: %v", what, d)
		}
	}
}

func syntaxErrorAtEveryToken(t *testing.T) {
	src, err := os.ReadFile("testdata/valid/everything.hcl")
	if err != nil {
		t.Fatal(err)
	}
	tokens, _ := hclsyntax.LexConfig(src, "main.hcl", hcl.InitialPos)
	inText := 0
	tried := 0
	for _, token := range tokens {
		switch token.Type {
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			inText++
		case hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			inText--
			continue
		}
		if inText > 0 && token.Type != hclsyntax.TokenOQuote && token.Type != hclsyntax.TokenOHeredoc {
			continue
		}
		at := token.Range.Start.Byte
		for _, insert := range []string{"]", "@ "} {
			broken := slices.Concat(src[:at], []byte(insert), src[at:])
			snapshot, sources, diags := load(map[string]string{"main.hcl": string(broken), "meters.csv": "name\n"})
			checkDiags(t, fmt.Sprintf("%q at %v", insert, token.Range), snapshot, sources, diags)
			tried++
		}
	}
	if tried < 500 {
		t.Errorf("only %d errors were tried", tried)
	}
}

// Lines that end in CRLF are no fault, and do not move a place.
func linesThatEndInCRLF(t *testing.T) {
	src := inDevice("        type = \"m\"\n        interval = \"5\"")
	_, _, diags := load(map[string]string{"main.hcl": strings.ReplaceAll(src, "\n", "\r\n")})
	checkPlaces(t, "", diags, "main.hcl:6:20 Invalid duration")
}

func jsonFile(t *testing.T) {
	dir := tree(t, "-- main.json --\n{\"customer\": {}}\n-- estate/main.hcl.json --\n{\"customer\": {}}\n")
	_, _, diags := Load(filepath.Join(dir, "main.json"))
	checkPlaces(t, dir, diags, "main.json:1:1 JSON syntax")
	_, _, diags = Load(filepath.Join(dir, "estate"))
	checkSummaries(t, diags, "Declaration not readable")
}

// hostileInclusion names each kind of thing in file() and as a module. More of both is in TestHostileFiles, TestModulesRefused
// and TestHostileModules.
func hostileInclusion(t *testing.T) {
	outside := tree(t, "-- secret.hcl --\ncustomer \"a\" {\n}\n")
	dir := tree(t, "-- loop/m.hcl --\nmodule \"m\" {\n  source = \"../loop\"\n}\n-- directory/x.txt --\n")
	for name, err := range map[string]error{
		"link":     os.Symlink(outside, filepath.Join(dir, "link")),
		"link.csv": os.Symlink(filepath.Join(outside, "secret.hcl"), filepath.Join(dir, "link.csv")),
		"fifo":     syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
		"null":     os.Symlink("/dev/null", filepath.Join(dir, "null")),
	} {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for path, module := range map[string]string{
		"missing": "Module not readable", "fifo": "Module not readable", "null": "Module not readable", "directory": "Module not readable", "*": "Module not readable",
		"link": "Module not readable", "link.csv": "Module not readable", "../x": "Module not readable", "loop": "Cycle of modules",
	} {
		t.Run("module "+path, func(t *testing.T) {
			write(t, dir, "main.hcl", fmt.Sprintf("customer \"a\" {\n}\nmodule \"m\" {\n  source = %q\n}\n", "./"+path))
			_, _, diags := Load(filepath.Join(dir, "main.hcl"))
			want := "main.hcl:4:12 " + module
			if path == "loop" {
				want = "loop/m.hcl:2:12 " + module
			}
			checkPlaces(t, dir, diags, want)
		})
		t.Run("file "+path, func(t *testing.T) {
			write(t, dir, "main.hcl", fmt.Sprintf("customer \"a\" {\n  metadata = { x = file(%q) }\n}\n", path))
			_, _, diags := Load(filepath.Join(dir, "main.hcl"))
			checkPlaces(t, dir, diags, "main.hcl:2:25 File not readable")
		})
	}
}

func secretsInMessages(t *testing.T) {
	secrets := map[string]string{
		"plain": "hunter2-hunter2", "long": strings.Repeat("s3cret", 40), "quotes": "top\"secret\\\"word", "lines": "line-one\nline-two",
	}
	for name, secret := range secrets {
		t.Setenv("NSREADY_TEST_HIDDEN", secret)
		dir := t.TempDir()
		for _, body := range []string{
			"interval = env(\"NSREADY_TEST_HIDDEN\")", "interval = \"x-${upper(env(\"NSREADY_TEST_HIDDEN\"))}-y\"", "template = local.s",
			"parameters = [local.s]", "limits {\n events_per_second = local.s\n burst = 1\n}", "status = local.o[local.s]", "interval = lower(local.s)",
		} {
			write(t, dir, "main.hcl", "locals {\n  s = env(\"NSREADY_TEST_HIDDEN\")\n  o = {}\n}\n"+inDevice("type = \"m\"\n"+body))
			_, _, diags := Load(filepath.Join(dir, "main.hcl"))
			if !diags.HasErrors() {
				t.Errorf("%s: %s: accepted", name, body)
			}
			for _, d := range diags {
				low := strings.ToLower(d.Summary + d.Detail)
				for i := 0; i+5 <= len(secret); i += 5 {
					if strings.Contains(low, strings.ToLower(secret[i:i+5])) {
						t.Errorf("%s: %s: %q tells %q", name, body, d.Detail, secret[i:i+5])
						break
					}
				}
				if !strings.Contains(d.Detail, "$NSREADY_TEST_HIDDEN") {
					t.Errorf("%s: %s: %q does not name the variable", name, body, d.Detail)
				}
			}
		}
	}
}

// concurrentEdits rewrites a file while it is read. One that is replaced yields either content; one that is written over
// yields either, or a refusal, never half of it.
func concurrentEdits(t *testing.T) {
	contents := [2][]byte{}
	for i := range contents {
		contents[i] = []byte("customer \"all\" {\n") // one block around all: a file that was cut can't be parsed
		for n := range 300 * (i + 1) {
			contents[i] = fmt.Appendf(contents[i], "  project \"p%d\" {\n    description = \"edition %d\"\n  }\n", n, i)
		}
		contents[i] = append(contents[i], "}\n"...)
	}
	for _, replace := range []bool{true, false} {
		dir := t.TempDir()
		path := filepath.Join(dir, "main.hcl")
		write(t, dir, "main.hcl", string(contents[0]))
		stop, done := make(chan struct{}), sync.WaitGroup{}
		done.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := path
				if replace {
					name = filepath.Join(dir, "next")
				}
				if err := os.WriteFile(name, contents[i%2], 0o644); err != nil {
					t.Error(err)
				}
				if replace {
					if err := os.Rename(name, path); err != nil {
						t.Error(err)
					}
				}
			}
		})
		read := 0
		for range 100 {
			snapshot, _, diags := Load(path)
			switch {
			case snapshot == nil && replace:
				t.Errorf("refused a file that was replaced: %v", diags)
			case snapshot == nil:
			case len(snapshot.Projects) != 300 && len(snapshot.Projects) != 600:
				t.Fatalf("half a file was accepted: %v", snapshot)
			default:
				read++
			}
		}
		close(stop)
		done.Wait()
		if replace && read != 100 {
			t.Errorf("%d of 100 reads succeeded", read)
		}
	}
}

func tenThousand(t *testing.T) {
	const limit = 20 * time.Second // a fraction of a second where nothing else runs, which make bench-plan measures
	for _, name := range []string{"tenants", "devices"} {
		var b strings.Builder
		if name == "devices" {
			b.WriteString("customer \"a\" {\n  project \"p\" {\n    site \"s\" {\n")
		}
		for i := range 10_000 {
			if name == "devices" {
				fmt.Fprintf(&b, "      device \"d%d\" {\n        type = \"meter\"\n      }\n", i)
			} else {
				fmt.Fprintf(&b, "customer \"c%d\" {\n}\n", i)
			}
		}
		if name == "devices" {
			b.WriteString("    }\n  }\n}\n")
		}
		start := time.Now()
		snapshot, _, diags := load(map[string]string{"main.hcl": b.String()})
		if took := time.Since(start); diags.HasErrors() || took > limit || len(snapshot.Customers)+len(snapshot.Devices) < 10_000 {
			t.Errorf("10,000 %s: %v after %v: %v", name, snapshot, took, diags)
		}
	}
}
