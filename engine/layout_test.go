package engine_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nsready/nsready/"

// mayImport says which of our packages a package may import.
// Imports point inwards: the domain knows nobody, adapters don't know one another, engine knows all.
var mayImport = map[string][]string{
	// domain
	"engine/registry":  {},
	"engine/telemetry": {},
	"engine/failpoint": {},
	"engine/alert":     {"engine/registry", "engine/telemetry"},
	// logic
	"engine/config": {"engine/registry"},
	"engine/ingest": {"engine/registry", "engine/telemetry"},
	"engine/sheet":  {"engine/registry"},
	"engine/worker": {"engine/alert", "engine/failpoint", "engine/registry", "engine/telemetry"},
	// adapters
	"engine/postgres": {},
	"engine/stream":   {"engine/failpoint", "engine/telemetry"},
	"engine/store":    {"engine/alert", "engine/failpoint", "engine/registry", "engine/telemetry", "migrations"},
	"engine/api":      {"engine/ingest", "engine/registry", "engine/telemetry"},
	"engine/mqtt":     {"engine/ingest", "engine/telemetry"},
	// assembly
	"engine/impact": {"engine/alert", "engine/registry", "engine/store", "engine/telemetry"},
	"engine": {
		"engine/alert", "engine/api", "engine/failpoint", "engine/ingest", "engine/mqtt", "engine/registry", "engine/store", "engine/stream",
		"engine/telemetry", "engine/worker",
	},
	"engine/trial": {"engine/alert", "engine/config", "engine/ingest", "engine/registry", "engine/telemetry"},
	// around it
	"cmd/nsready": {
		"chaos", "engine", "engine/alert", "engine/api", "engine/config", "engine/impact", "engine/ingest", "engine/mqtt", "engine/postgres",
		"engine/registry", "engine/sheet", "engine/store", "engine/stream", "engine/telemetry", "engine/trial", "engine/worker", "loadgen",
		"migrations",
	},
	"loadgen":           {"engine/registry", "engine/telemetry"},
	"loadgen/bench":     {"engine/config", "engine/registry", "engine/store", "engine/store/storebench", "engine/telemetry", "loadgen"},
	"loadgen/planbench": {"engine/postgres"},
	"chaos":             {"engine/failpoint", "engine/registry", "engine/store", "engine/telemetry", "loadgen"},
	"migrations":        {},
	// for tests
	"engine/registry/registrytest": {"engine/registry"},
	"engine/store/storetest":       {"engine/postgres"},
	"engine/store/storebench":      {"engine/telemetry"},
}

// home says which packages may import a module of others; each is hidden in one place.
var home = map[string][]string{
	"github.com/hashicorp/hcl":            {"engine/config", "cmd/nsready"}, // cmd prints its diagnostics
	"github.com/zclconf/go-cty":           {"engine/config"},
	"github.com/nats-io":                  {"engine/stream"},
	"github.com/jackc":                    {"engine/store", "engine/store/storetest", "engine/store/storebench"},
	"github.com/julienschmidt/httprouter": {"engine/api"},
	"github.com/tsenart/vegeta":           {"loadgen"},
	"google.golang.org/protobuf":          {"engine/ingest"},
	"github.com/rogpeppe/go-internal":     {}, // tests alone
	"github.com/ory/dockertest":           {},
	"github.com/eclipse/paho.mqtt.golang": {},
	"github.com/google/go-cmp":            {},
	"testing":                             {"engine/store/storetest"},
}

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, problem := range check(name, p.Imports) {
			t.Error(problem)
		}
		// Tests may look anywhere but into a command.
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if strings.HasPrefix(imported, module+"cmd/") {
				t.Errorf("a test of %s imports %s: move what it needs out of the command", name, imported)
			}
		}
	}
}

// The rules themselves find what they forbid.
func TestImportRules(t *testing.T) {
	for name, test := range map[string]struct {
		pkg, imports string
		allowed      bool
	}{
		"inwards":            {"engine/store", module + "engine/registry", true},
		"outwards":           {"engine/registry", module + "engine/store", false},
		"adapter to adapter": {"engine/api", module + "engine/store", false},
		"of a command":       {"loadgen", module + "cmd/nsready", false},
		"home":               {"engine/store", "github.com/jackc/pgx/v5/pgxpool", true},
		"not home":           {"engine", "github.com/jackc/pgx/v5", false},
		"test support":       {"engine", module + "engine/store/storetest", false},
		"testing":            {"engine/worker", "testing/synctest", false},
		"standard library":   {"engine/registry", "net/http", true},
		"like testing":       {"engine/registry", "testingx", true},
		"unknown package":    {"engine/util", "fmt", false},
	} {
		t.Run(name, func(t *testing.T) {
			if problems := check(test.pkg, []string{test.imports}); (len(problems) == 0) != test.allowed {
				t.Errorf("%s imports %s: %q", test.pkg, test.imports, problems)
			}
		})
	}
}

// check returns what is wrong with the imports of the package name, in sentences.
func check(name string, imports []string) (problems []string) {
	allowed, known := mayImport[name]
	if !known {
		return []string{name + " is not in the table: say in engine/layout_test.go and AGENTS.md what it may import"}
	}
	for _, imported := range imports {
		if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, ours) {
			problems = append(problems, name+" must not import "+ours)
		}
		for path, homes := range home {
			if (imported == path || strings.HasPrefix(imported, path+"/")) && !slices.Contains(homes, name) {
				problems = append(problems, name+" must not import "+imported+": only "+strings.Join(append(homes, "tests"), " and ")+" may")
			}
		}
	}
	return problems
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	// -e: a package that does not compile is the compiler's business.
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list names only %d packages", len(all))
	}
	return all
}
