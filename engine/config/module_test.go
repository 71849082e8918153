package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// tree writes the files of a text in the form of an archive: -- name -- before each.
func tree(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	name, text := "", ""
	flush := func() {
		if name != "" {
			write(t, dir, name, text)
		}
	}
	for line := range strings.Lines(archive) {
		if s := strings.TrimSpace(line); strings.HasPrefix(s, "-- ") && strings.HasSuffix(s, " --") {
			flush()
			name, text = strings.Trim(s, "- "), ""
			continue
		}
		text += line
	}
	flush()
	return dir
}

// A module at each place, used twice, with inputs, defaults, names of its own, and files beside it.
func TestModules(t *testing.T) {
	dir := tree(t, `
-- main.hcl --
locals {
  city = "Pune"
}
template "meter" {
  parameter "voltage" {
  }
}
customer "Acme" {
  module "plant" {
    for_each = ["one", "two"]
    source   = "./modules/plant"
    name     = each.value
    city     = upper(local.city)
  }
}
module "group" {
  source = "./modules/group"
}
-- modules/group/group.hcl --
customer "Group" {
  project "p" {
    site "s" {
      module "devices" {
        source = "../devices"
      }
    }
    module "parts" {
      source = "../parts"
    }
  }
}
-- modules/plant/a.hcl --
variable "name" {
  type = string
}
variable "city" {
}
variable "count" {
  type    = number
  default = "2"
}
locals {
  city = "in ${var.city}"
}
-- modules/plant/b.hcl --
template "own" {
  parameter "own_${1}" {
  }
}
project "plant" {
  name        = var.name
  description = local.city
  templates   = ["meter"]

  site "hall" {
    for_each = range(var.count)
    name     = "hall ${each.key}"

    module "devices" {
      source = "../devices"
    }
  }
}
-- modules/parts/p.hcl --
parameter "flow" {
}
site "t" {
}
-- modules/devices/d.hcl --
device "main" {
  type     = "meter"
  template = "meter"
}
device "row" {
  for_each = csvdecode(file("rows.csv"))
  name     = each.value.name
  type     = "sensor"
}
-- modules/devices/rows.csv --
name
r1
r2
`)
	// A label holds no expression.
	write(t, dir, "modules/plant/b.hcl", strings.Replace(read(t, dir, "modules/plant/b.hcl"), "own_${1}", "own", 1))
	snapshot, sources, diags := Load(dir)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if got, want := snapshot.String(), "2 customers, 3 projects, 6 sites, 15 devices, 4 parameters, 0 thresholds"; got != want {
		t.Errorf("%s, want %s\n%s", got, want, listing(snapshot))
	}
	for _, want := range []string{
		"project.Acme/two\n  description = \"in PUNE\"\n", "device.Acme/one/hall 1/r2\n", "device.Group/p/s/main\n", "parameter.Group/p/flow\n", "parameter.Acme/one/voltage\n",
	} {
		if !strings.Contains(listing(snapshot), want) {
			t.Errorf("no %q in\n%s", want, listing(snapshot))
		}
	}
	if sources.Files[filepath.Join(dir, "modules/devices/d.hcl")] == nil {
		t.Error("the sources lack a module's file")
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// places lists diagnostics as "file:line:column summary".
func places(dir string, diags hcl.Diagnostics) (list []string) {
	for _, d := range diags {
		at := "?"
		if d.Subject != nil {
			name := d.Subject.Filename
			if below, err := filepath.Rel(dir, name); err == nil && filepath.IsAbs(name) {
				name = below
			}
			at = fmt.Sprintf("%s:%d:%d", name, d.Subject.Start.Line, d.Subject.Start.Column)
		}
		list = append(list, at+" "+d.Summary)
	}
	return list
}

func checkPlaces(t *testing.T, dir string, diags hcl.Diagnostics, want ...string) {
	t.Helper()
	if got := places(dir, diags); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s\n%v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), diags)
	}
}

const useM = "module \"m\" {\n  source = \"./m\"\n}\n"

func TestModulesRefused(t *testing.T) {
	tests := []struct {
		name, archive string
		want          []string
	}{
		{"no source", "-- main.hcl --\nmodule \"m\" {\n}\n", []string{"main.hcl:1:1 Missing source"}},
		{"source that is computed", "-- main.hcl --\nmodule \"m\" {\n  source = \"./${local.x}\"\n}\n", []string{"main.hcl:2:12 Invalid source"}},
		{"source without ./", "-- main.hcl --\nmodule \"m\" {\n  source = \"m\"\n}\n", []string{"main.hcl:2:12 Invalid source"}},
		{"source from the net", "-- main.hcl --\nmodule \"m\" {\n  source = \"https://example.com/m\"\n}\n", []string{"main.hcl:2:12 Invalid source"}},
		{"outside", "-- main.hcl --\nmodule \"m\" {\n  source = \"../m\"\n}\n", []string{"main.hcl:2:12 Module not readable"}},
		{"missing", "-- main.hcl --\n" + useM, []string{"main.hcl:2:12 Module not readable"}},
		{"a file", "-- main.hcl --\n" + useM + "-- m --\n", []string{"main.hcl:2:12 Module not readable"}},
		{"without files", "-- main.hcl --\n" + useM + "-- m/notes.txt --\n", []string{"main.hcl:2:12 Module not readable"}},
		{"itself", "-- main.hcl --\nmodule \"m\" {\n  source = \"./\"\n}\n", []string{"main.hcl:2:12 Cycle of modules"}},
		{"a cycle", "-- main.hcl --\n" + useM + "-- m/m.hcl --\nmodule \"n\" {\n  source = \"../n\"\n}\n-- n/n.hcl --\nmodule \"m\" {\n  source = \"../m\"\n}\n",
			[]string{"n/n.hcl:2:12 Cycle of modules"}},
		{"a syntax error", "-- main.hcl --\n" + useM + "-- m/m.hcl --\ncustomer \"a\" {\n  b = = 1\n}\n", []string{"m/m.hcl:2:7 Invalid expression"}},
		{"block of another place", "-- main.hcl --\ncustomer \"a\" {\n  module \"m\" {\n    source = \"./m\"\n  }\n}\n-- m/m.hcl --\ncustomer \"b\" {\n}\n",
			[]string{"m/m.hcl:1:1 Unsupported block type"}},
		{"error inside", "-- main.hcl --\n" + useM + "-- m/m.hcl --\ncustomer \"a\" {\n  parent = 5\n}\n", []string{"m/m.hcl:2:12 Wrong type"}},
		{"unknown input", "-- main.hcl --\nmodule \"m\" {\n  source = \"./m\"\n  nmae   = 1\n}\n-- m/m.hcl --\nvariable \"name\" {\n  default = 1\n}\ncustomer \"a\" {\n}\n",
			[]string{"main.hcl:3:3 Unknown variable"}},
		{"missing input", "-- main.hcl --\n" + useM + "-- m/m.hcl --\nvariable \"name\" {\n}\ncustomer \"a\" {\n}\n", []string{"main.hcl:1:1 Missing input"}},
		{"input of another type", "-- main.hcl --\nmodule \"m\" {\n  source = \"./m\"\n  n      = \"x\"\n}\n-- m/m.hcl --\nvariable \"n\" {\n  type = number\n}\ncustomer \"a\" {\n}\n",
			[]string{"main.hcl:3:12 Wrong type"}},
		{"input that is not valid", "-- main.hcl --\nmodule \"m\" {\n  source = \"./m\"\n  n      = 0\n}\n-- m/m.hcl --\nvariable \"n\" {\n  validation {\n    condition     = var.n > 0\n    error_message = \"n is above 0.\"\n  }\n}\ncustomer \"a\" {\n}\n",
			[]string{"m/m.hcl:1:1 Invalid input"}},
		{"names of the caller", "-- main.hcl --\nlocals {\n  x = 1\n}\n" + useM + "-- m/m.hcl --\ncustomer \"a\" {\n  metadata = { x = local.x }\n}\n", []string{"m/m.hcl:2:20 Unknown local value"}},
		{"template of a module", "-- main.hcl --\n" + useM + "customer \"a\" {\n  project \"p\" {\n    templates = [\"t\"]\n  }\n}\n-- m/m.hcl --\ntemplate \"t\" {\n  parameter \"v\" {\n  }\n}\n",
			[]string{"main.hcl:6:18 Unknown template"}},
		{"twice the same names", "-- main.hcl --\n" + useM + strings.Replace(useM, `"m"`, `"m2"`, 1) + "-- m/m.hcl --\ncustomer \"a\" {\n}\n", []string{"m/m.hcl:1:1 Duplicate customer"}},
		{"error in a module used for nothing", "-- main.hcl --\nmodule \"m\" {\n  source   = \"./m\"\n  for_each = []\n}\ncustomer \"a\" {\n}\n-- m/m.hcl --\ncustomer \"a\" {\n  parent = x\n}\n",
			[]string{"m/m.hcl:2:12 Invalid reference"}},
		{"error in a device of a module used for nothing", "-- main.hcl --\nmodule \"m\" {\n  source   = \"./m\"\n  for_each = []\n}\ncustomer \"a\" {\n}\n-- m/m.hcl --\nlocals {\n  x = 1\n}\n" +
			"customer \"b\" {\n  project \"p\" {\n    site \"s\" {\n      device \"d\" {\n        type        = local.x\n        external_id = local.y\n      }\n    }\n  }\n}\n",
			[]string{"m/m.hcl:9:23 Unknown local value"}},
		{"file beside the declaration", "-- main.hcl --\n" + useM + "-- rows.csv --\na\n-- m/m.hcl --\ncustomer \"a\" {\n  metadata = { a = file(\"rows.csv\") }\n}\n", []string{"m/m.hcl:2:25 File not readable"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, tt.archive)
			snapshot, _, diags := Load(dir)
			if snapshot != nil {
				t.Error("a snapshot came back with the errors")
			}
			checkPlaces(t, dir, diags, tt.want...)
		})
	}
}

// What is no directory below the declaration's is refused at once.
func TestHostileModules(t *testing.T) {
	outside := tree(t, "-- m.hcl --\ncustomer \"a\" {\n}\n")
	dir := tree(t, "-- main.hcl --\n"+useM)
	source := filepath.Join(dir, "m")
	for name, make := range map[string]func() error{
		"symbolic link outside": func() error { return os.Symlink(outside, source) },
		"link to itself":        func() error { return os.Symlink("m", source) },
		"FIFO":                  func() error { return syscall.Mkfifo(source, 0o644) },
		"FIFO inside": func() error {
			if err := os.Mkdir(source, 0o755); err != nil {
				return err
			}
			return syscall.Mkfifo(filepath.Join(source, "f.hcl"), 0o644)
		},
		"directory that looks like a file": func() error { return os.MkdirAll(filepath.Join(source, "d.hcl"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := make(); err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(source)
			_, _, diags := Load(dir)
			checkPlaces(t, dir, diags, "main.hcl:2:12 Module not readable")
		})
	}
}

// Modules that double at each step are stopped by their number.
func TestManyModules(t *testing.T) {
	var archive strings.Builder
	archive.WriteString("-- main.hcl --\nmodule \"m\" {\n  source = \"./0\"\n}\n")
	for i := range maxModuleIn - 2 {
		fmt.Fprintf(&archive, "-- %d/m.hcl --\n", i)
		for j := range 8 {
			fmt.Fprintf(&archive, "module \"m%d\" {\n  source = \"../%d\"\n}\n", j, i+1)
		}
	}
	fmt.Fprintf(&archive, "-- %d/m.hcl --\ntemplate \"t\" {\n  parameter \"p\" {\n  }\n}\n", maxModuleIn-2)
	dir := tree(t, archive.String())
	start := time.Now()
	_, _, diags := Load(dir)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	checkSummaries(t, diags, "Too many modules")

	archive.Reset()
	archive.WriteString("-- main.hcl --\nmodule \"m\" {\n  source = \"./0\"\n}\n")
	for i := range maxModuleIn + 2 {
		fmt.Fprintf(&archive, "-- %d/m.hcl --\nmodule \"m\" {\n  source = \"../%d\"\n}\n", i, i+1)
	}
	dir = tree(t, archive.String())
	_, _, diags = Load(dir)
	checkPlaces(t, dir, diags, fmt.Sprintf("%d/m.hcl:2:12 Too many modules", maxModuleIn-1))
}

const someVariables = `
-- main.hcl --
variable "city" {
  type = string
}
variable "floors" {
  type    = list(number)
  default = [1]
}
variable "tags" {
  type    = map(string)
  default = null
}
variable "open" {
  type    = bool
  default = false
}
customer "a" {
  metadata = { city = var.city, floors = var.floors, tags = var.tags, open = var.open }
}
`

func TestVariables(t *testing.T) {
	dir := tree(t, someVariables)
	values := filepath.Join(dir, "values.hcl.txt")
	write(t, dir, "values.hcl.txt", "city = \"file\"\nfloors = [7]\n")
	metadata := func(want string, inputs ...Input) {
		t.Helper()
		snapshot, _, diags := Load(dir, inputs...)
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		if got := snapshot.Customers[0].Metadata; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	metadata(`{"city":"007","floors":[1],"open":false,"tags":null}`, Input{Name: "city", Value: "007"})
	metadata(`{"city":"","floors":[1,2],"open":true,"tags":{"a":"1"}}`, Input{Name: "city"}, Input{Name: "floors", Value: `["1", 2]`},
		Input{Name: "tags", Value: "{ a = 1 }"}, Input{Name: "open", Value: "true"})

	// The order: environment, files that are there, then what the command line says, in its order.
	t.Setenv("NSREADY_VAR_city", "environment")
	t.Setenv("NSREADY_VAR_nothing", "is not looked at")
	metadata(`{"city":"environment","floors":[1],"open":false,"tags":null}`)
	write(t, dir, "b.auto.nsvars.hcl", "city = \"b\"\n")
	write(t, dir, "a.auto.nsvars.hcl", "city = \"a\"\nopen = true\n")
	metadata(`{"city":"b","floors":[1],"open":true,"tags":null}`)
	metadata(`{"city":"file","floors":[7],"open":true,"tags":null}`, Input{File: values})
	metadata(`{"city":"line","floors":[7],"open":true,"tags":null}`, Input{File: values}, Input{Name: "city", Value: "line"})
	metadata(`{"city":"file","floors":[7],"open":true,"tags":null}`, Input{Name: "city", Value: "line"}, Input{File: values})
}

func TestVariablesRefused(t *testing.T) {
	city := Input{Name: "city", Value: "x"}
	tests := []struct {
		name, more string
		inputs     []Input
		want       []string
	}{
		{"no value", "", nil, []string{"main.hcl:1:1 Missing input"}},
		{"unknown", "", []Input{city, {Name: "ctiy", Value: "x"}}, []string{"-var ctiy:1:1 Unknown variable"}},
		{"no number", "", []Input{city, {Name: "floors", Value: `["a"]`}}, []string{"-var floors:1:1 Wrong type"}},
		{"no list", "", []Input{city, {Name: "floors", Value: "5"}}, []string{"-var floors:1:1 Wrong type"}},
		{"syntax", "", []Input{city, {Name: "floors", Value: "[1,"}}, []string{"-var floors:1:4 Missing expression"}},
		{"reference", "", []Input{city, {Name: "floors", Value: "[local.x]"}}, []string{"-var floors:1:2 Invalid input"}},
		{"deep", "", []Input{city, {Name: "floors", Value: strings.Repeat("[", 1000)}}, []string{"-var floors:1:33 Nesting too deep"}},
		{"escape sequence", "", []Input{{Name: "city", Value: "a\x1b[31m"}}, []string{"-var city:1:2 Control character"}},
		{"file that is missing", "", []Input{{File: "missing.hcl"}}, []string{"? Variables not readable", "main.hcl:1:1 Missing input"}},
		{"unknown in a file", "-- x.auto.nsvars.hcl --\ncity = \"x\"\nciti = 1\n", nil, []string{"x.auto.nsvars.hcl:2:1 Unknown variable"}},
		{"block in a file", "-- x.auto.nsvars.hcl --\ncity = \"x\"\na {\n}\n", nil, []string{"x.auto.nsvars.hcl:2:1 Unexpected \"a\" block"}},
		{"syntax of a file", "-- x.auto.nsvars.hcl --\ncity = \n", nil, []string{"main.hcl:1:1 Missing input", "x.auto.nsvars.hcl:1:8 Invalid expression"}},
		{"twice", "-- x.hcl --\nvariable \"city\" {\n}\n", []Input{city}, []string{"x.hcl:1:1 Duplicate variable"}},
		{"name", "-- x.hcl --\nvariable \"a b\" {\n}\nvariable \"source\" {\n}\n", []Input{city}, []string{"x.hcl:1:10 Invalid name", "x.hcl:3:10 Invalid name"}},
		{"type", "-- x.hcl --\nvariable \"x\" {\n  type    = list(list(string))\n  default = []\n}\n", []Input{city}, []string{"x.hcl:2:13 Invalid type"}},
		{"default of another type", "-- x.hcl --\nvariable \"x\" {\n  type    = bool\n  default = 5\n}\n", []Input{city}, []string{"x.hcl:3:13 Wrong type"}},
		{"default that refers", "-- x.hcl --\nvariable \"x\" {\n  default = var.city\n}\n", []Input{city}, []string{"x.hcl:2:13 Invalid default"}},
		{"reference", "-- x.hcl --\ncustomer \"b\" {\n  parent = var.ctiy\n}\n", []Input{city}, []string{"x.hcl:2:12 Unknown variable"}},
		{"condition", "-- x.hcl --\nvariable \"x\" {\n  default = 1\n  validation {\n    condition     = 5\n    error_message = \"x\"\n  }\n}\n", []Input{city}, []string{"x.hcl:4:21 Wrong type"}},
		{"validation", "-- x.hcl --\nvariable \"x\" {\n  default = 1\n  validation {\n    condition     = var.x > 1\n    error_message = \"It is above 1.\"\n  }\n}\n", []Input{city}, []string{"x.hcl:1:1 Invalid input"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, someVariables+strings.TrimPrefix("\n"+tt.more, "\n"))
			snapshot, sources, diags := Load(dir, tt.inputs...)
			if snapshot != nil {
				t.Error("a snapshot came back with the errors")
			}
			checkPlaces(t, dir, diags, tt.want...)
			for _, d := range diags {
				if d.Subject != nil && sources.Files[d.Subject.Filename] == nil {
					t.Errorf("the sources lack %s", d.Subject.Filename)
				}
			}
		})
	}
}

// Literal devices are parsed apart from the rest of their file; what is reported is the same, at the same places.
func TestPieces(t *testing.T) {
	const src = `customer "é" {
  project "p" {
    site "s" {
      device "first" {
        type = "meter"
      }
      # between
      device "wrong" {
        type     = 5 / 0
        template = "none"
      }

      device "unknown" { colour = "red" }
      /* é */ device "behind a comment" {
        type = [1]
      }
      device "syntax" {
        type =
      }
      device "tabs" {
	type = "meter" # é
	interval = "5"
      } # the end
      device "first" {
        type = "meter"
      }
    } # é
    site "t" {
      device "one" { type = "meter" }
      device "two" {
        type = upper()
      }
    }
  }
  parent = 5
}
`
	_, _, diags := load(map[string]string{"main.hcl": src})
	checkPlaces(t, "", diags, "main.hcl:9:20 Number out of range", "main.hcl:13:26 Missing required argument", "main.hcl:13:26 Unsupported argument",
		"main.hcl:15:16 Wrong type", "main.hcl:18:15 Invalid expression", "main.hcl:22:13 Invalid duration", "main.hcl:24:7 Duplicate device",
		"main.hcl:31:16 Wrong number of arguments", "main.hcl:35:12 Wrong type")

	// In a block that nobody declares, or that is declared twice, they are looked at too, and once.
	const each = `customer "c" {
  for_each = [%s]
  name     = each.value
  project "p" {
    site "s" {
      device "d" {
        type = "meter"
        colour = 1
      }
      device "e" {
        type = local.x
      }
    }
  }
}
customer "d" {
}
`
	for _, list := range []string{"", `"a", "b", "c", "d", "e"`} {
		_, _, diags := load(map[string]string{"main.hcl": fmt.Sprintf(each, list)})
		if got := places("", diags); !slices.Contains(got, "main.hcl:8:9 Unsupported argument") || len(got) > 3 {
			t.Errorf("[%s]: %q", list, got)
		}
	}
}
