package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
)

// An estate as a model, which can be written in HCL in many ways.
type (
	estateModel struct {
		customers []customerModel
		platform  map[string]int
		retention int // days; 0 for none
	}
	customerModel struct {
		name, parent string
		city         string
		projects     []projectModel
	}
	projectModel struct {
		name, description string
		parameters        []parameterModel
		sites             []siteModel
	}
	parameterModel struct {
		name, unit string
		max        int
		thresholds []int
	}
	siteModel struct {
		name    string
		city    string
		devices []deviceModel
	}
	deviceModel struct{ name, kind, external, status, interval string }
)

var awkwardNames = []string{
	"plain", "two words", "a/b", "100%", "%2F", "${each.key}", "%{ if }", `quo"te`, `back\slash`, "Zoë", "水処理", "'; DROP TABLE devices; --", "a.b", "[0]", "<&>",
	"tab\\t", "null", "true", "007", "-", "_", "𝒳", "name,with,commas",
}

func randomModel(r *rand.Rand) estateModel {
	some := func(n int) []string {
		list := slices.Clone(awkwardNames)
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list[:r.IntN(n+1)]
	}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	external := 0
	parameters := func() (list []parameterModel) {
		for _, name := range some(4) {
			p := parameterModel{name: strings.ToLower(name), unit: pick("", "V", "°C"), max: r.IntN(3)}
			for n := range r.IntN(3) {
				p.thresholds = append(p.thresholds, 10*n+r.IntN(3))
			}
			list = append(list, p)
		}
		return list
	}
	shared := parameters()
	m := estateModel{platform: map[string]int{}, retention: r.IntN(3)}
	for _, metric := range []string{"queue_depth", "disk_usage", "error_rate"} {
		if r.IntN(2) == 0 {
			m.platform[metric] = 1 + r.IntN(3)
		}
	}
	for i, name := range append(some(3), "always") {
		c := customerModel{name: name, city: pick("", "Pune", "K\"öln")}
		if i > 0 && r.IntN(2) == 0 {
			c.parent = m.customers[i-1].name
		}
		for _, name := range some(3) {
			p := projectModel{name: name, description: pick("", "about ${it}"), parameters: shared}
			if r.IntN(2) == 0 {
				p.parameters = parameters()
			}
			for _, name := range some(3) {
				s := siteModel{name: name, city: pick("", "Pune")}
				for _, name := range some(8) {
					d := deviceModel{name: name, kind: pick("meter", "sensor"), status: pick("active", "inactive"), interval: pick("10s", "1h", "250ms")}
					if r.IntN(2) == 0 {
						external++
						d.external = fmt.Sprintf("EXT/%d", (external*7+r.IntN(2)*1000)%2000)
					}
					s.devices = append(s.devices, d)
				}
				p.sites = append(p.sites, s)
			}
			c.projects = append(c.projects, p)
		}
		m.customers = append(m.customers, c)
	}
	seen := map[string]bool{}
	for _, c := range m.customers {
		for _, p := range c.projects {
			for _, s := range p.sites {
				for i := range s.devices {
					if d := &s.devices[i]; seen[d.external] {
						d.external = ""
					} else {
						seen[d.external] = true
					}
				}
			}
		}
	}
	return m
}

// addresses lists what a model declares, by another way than HCL.
func (m estateModel) addresses() (list []string) {
	add := func(a registry.Address) registry.Address {
		list = append(list, a.String())
		return a
	}
	for metric := range m.platform {
		add(registry.NewAddress(registry.KindPlatform, metric))
	}
	if m.retention > 0 {
		add(registry.RetentionAddress)
	}
	for _, c := range m.customers {
		customer := add(registry.NewAddress(registry.KindCustomer, c.name))
		for _, p := range c.projects {
			project := add(customer.Child(registry.KindProject, p.name))
			for _, q := range p.parameters {
				parameter := add(project.Child(registry.KindParameter, registry.ShortName(q.name)))
				for _, limit := range q.thresholds {
					add(parameter.Child(registry.KindThreshold, fmt.Sprint("limit ", limit)))
				}
			}
			for _, s := range p.sites {
				site := add(project.Child(registry.KindSite, s.name))
				for _, d := range s.devices {
					add(site.Child(registry.KindDevice, d.name))
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// writer writes a model. Where there are several ways it takes one at random, or, without r, the plain one.
type writer struct {
	r     *rand.Rand
	dir   string
	files map[string]*bytes.Buffer
	made  int // names of files and modules that were given out
}

func (w *writer) chance(n int) bool { return w.r != nil && w.r.IntN(n) == 0 }

func (w *writer) next(prefix string) string {
	w.made++
	return fmt.Sprint(prefix, w.made)
}

func (w *writer) file(name string) *bytes.Buffer {
	if w.files[name] == nil {
		w.files[name] = &bytes.Buffer{}
	}
	return w.files[name]
}

// text writes a string literal.
func text(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s) + `"`
}

func (w *writer) write(t *testing.T, m estateModel) {
	t.Helper()
	main := w.file("main.hcl")
	if m.retention > 0 {
		fmt.Fprintf(main, "retention {\n  raw = \"%dd\"\n}\n", m.retention)
	}
	if w.chance(2) && len(m.platform) > 0 {
		fmt.Fprint(main, "platform \"all\" {\n  for_each = {")
		for _, metric := range slices.Sorted(maps.Keys(m.platform)) {
			fmt.Fprintf(main, " %s = %d,", metric, m.platform[metric])
		}
		fmt.Fprint(main, " }\n  name     = each.key\n  warning  = each.value\n}\n")
	} else {
		for metric, limit := range m.platform {
			fmt.Fprintf(main, "platform %q {\n  warning = %d\n}\n", metric, limit)
		}
	}
	for _, c := range m.customers {
		out := main
		if w.chance(2) {
			out = w.file(w.next("customer") + ".hcl")
		}
		name := text(c.name)
		if w.chance(3) { // in a module that is given the name
			dir := w.next("modules/customer")
			fmt.Fprintf(out, "module %s {\n  source = \"./%s\"\n  name   = %s\n}\n", text(c.name), dir, name)
			out = w.file(dir + "/customer.hcl")
			fmt.Fprint(out, "variable \"name\" {\n  type = string\n}\n")
			fmt.Fprint(out, "customer \"this\" {\n  name = var.name\n")
		} else {
			fmt.Fprintf(out, "customer %s {\n", name)
		}
		if c.parent != "" {
			fmt.Fprintf(out, "  parent = %s\n", text(c.parent))
		}
		if c.city != "" {
			fmt.Fprintf(out, "  metadata = { city = %s }\n", text(c.city))
		}
		for _, p := range c.projects {
			w.project(out, p)
		}
		fmt.Fprint(out, "}\n")
	}
	for name, content := range w.files {
		path := filepath.Join(w.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *writer) project(out *bytes.Buffer, p projectModel) {
	fmt.Fprintf(out, "project %s {\n", text(p.name))
	if p.description != "" {
		fmt.Fprintf(out, "  description = %s\n", text(p.description))
	}
	if w.chance(2) && len(p.parameters) > 0 {
		name := w.next("template")
		shared := w.file("templates.hcl")
		fmt.Fprintf(shared, "template %q {\n", name)
		w.parameters(shared, p.parameters)
		fmt.Fprint(shared, "}\n")
		fmt.Fprintf(out, "  templates = [%q]\n", name)
	} else {
		w.parameters(out, p.parameters)
	}
	for _, s := range p.sites {
		fmt.Fprintf(out, "site %s {\n", text(s.name))
		if s.city != "" {
			fmt.Fprintf(out, "  location = { city = %s }\n", text(s.city))
		}
		w.devices(out, s.devices)
		fmt.Fprint(out, "}\n")
	}
	fmt.Fprint(out, "}\n")
}

func (w *writer) parameters(out *bytes.Buffer, list []parameterModel) {
	for _, q := range list {
		if w.chance(2) {
			fmt.Fprintf(out, "parameter \"these\" {\n  for_each = [%s]\n  name = each.value\n", text(q.name))
		} else {
			fmt.Fprintf(out, "parameter %s {\n", text(q.name))
		}
		if q.unit != "" {
			fmt.Fprintf(out, "  unit = %s\n", text(q.unit))
		}
		fmt.Fprintf(out, "  max = %d\n", q.max)
		if w.chance(2) {
			fmt.Fprintf(out, "  threshold \"all\" {\n    for_each = %s\n    name = \"limit ${each.value}\"\n    above = each.value\n  }\n", strings.ReplaceAll(fmt.Sprint(q.thresholds), " ", ", "))
		} else {
			for _, limit := range q.thresholds {
				fmt.Fprintf(out, "  threshold \"limit %d\" {\n    above = %d\n  }\n", limit, limit)
			}
		}
		fmt.Fprint(out, "}\n")
	}
}

func (w *writer) devices(out *bytes.Buffer, list []deviceModel) {
	const each = "  name = each.value.name\n  type = each.value.type\n  external_id = each.value.external\n  status = each.value.status\n  interval = each.value.interval\n}\n"
	way := 0
	if w.r != nil {
		way = w.r.IntN(4)
	}
	switch way {
	case 1: // a list of objects
		fmt.Fprint(out, "device \"these\" {\n  for_each = [\n")
		for _, d := range list {
			fmt.Fprintf(out, "    { name = %s, type = %q, external = %q, status = %q, interval = %q },\n", text(d.name), d.kind, d.external, d.status, d.interval)
		}
		fmt.Fprint(out, "  ]\n"+each)
	case 2: // a module with a table
		dir := w.next("modules/devices")
		fmt.Fprintf(out, "module \"devices\" {\n  source = \"%s\"\n}\n", w.up(out)+dir)
		rows := csv.NewWriter(w.file(dir + "/devices.csv"))
		rows.Write([]string{"name", "type", "external", "status", "interval"}) // into memory
		for _, d := range list {
			rows.Write([]string{d.name, d.kind, d.external, d.status, d.interval})
		}
		rows.Flush()
		fmt.Fprint(w.file(dir+"/devices.hcl"), "device \"these\" {\n  for_each = csvdecode(file(\"devices.csv\"))\n"+each)
	case 3: // an object by name
		fmt.Fprint(out, "device \"these\" {\n  for_each = {\n")
		for _, d := range list {
			fmt.Fprintf(out, "    %s = { name = %s, type = %q, external = %q, status = %q, interval = %q }\n", text(d.name), text(d.name), d.kind, d.external, d.status, d.interval)
		}
		fmt.Fprint(out, "  }\n"+each)
	default:
		for _, d := range list {
			fmt.Fprintf(out, "device %s {\n  type = %q\n  external_id = %q\n  status = %q\n  interval = %q\n}\n", text(d.name), d.kind, d.external, d.status, d.interval)
		}
	}
}

// up returns the way from the directory of a file to the declaration's.
func (w *writer) up(out *bytes.Buffer) string {
	for name, content := range w.files {
		if content == out && strings.Contains(name, "/") {
			return strings.Repeat("../", strings.Count(name, "/"))
		}
	}
	return "./"
}

// contents lists what a snapshot holds that is in force: addresses with their attributes.
func contents(s *registry.Snapshot) (list []string) {
	retired := map[registry.Address]bool{}
	for _, c := range s.Customers {
		retired[c.Addr] = c.Retired
	}
	for _, p := range s.Projects {
		retired[p.Addr] = p.Retired
	}
	for _, o := range s.Sites {
		retired[o.Addr] = o.Retired
	}
	for _, d := range s.Devices {
		retired[d.Addr] = d.Retired
	}
	for _, p := range s.Parameters {
		retired[p.Addr] = p.Retired
	}
	for o := range s.Objects {
		if !retired[o.Address()] {
			list = append(list, fmt.Sprint(o.Address(), o.Fields()))
		}
	}
	slices.Sort(list)
	return list
}

// TestEstatesConverge goes from one random estate to the next: apply, and the registry is what is declared, with nothing
// left to plan. Each estate is written in HCL twice, plainly and with for_each, templates, modules and several files,
// which must declare the same, as the export of what was applied does.
func TestEstatesConverge(t *testing.T) {
	live := openRegistry(t)
	steps := 40
	if testing.Short() {
		steps = 10
	}
	for seed := range steps {
		r := rand.New(rand.NewPCG(uint64(seed), 4))
		model := randomModel(r)
		plain, other := &writer{dir: t.TempDir(), files: map[string]*bytes.Buffer{}}, &writer{r: r, dir: t.TempDir(), files: map[string]*bytes.Buffer{}}
		var declared [2]*registry.Snapshot
		for i, w := range []*writer{plain, other} {
			w.write(t, model)
			snapshot, _, diags := config.Load(w.dir)
			if diags.HasErrors() {
				t.Fatalf("seed %d: %v", seed, diags)
			}
			var got []string
			for o := range snapshot.Objects {
				got = append(got, o.Address().String())
			}
			slices.Sort(got)
			if want := model.addresses(); !slices.Equal(got, want) {
				t.Fatalf("seed %d: declared are\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			declared[i] = snapshot
		}
		if a, b := contents(declared[0]), contents(declared[1]); !slices.Equal(a, b) || declared[0].Checksum() != declared[1].Checksum() {
			t.Fatalf("seed %d: written plainly it declares\n%s\notherwise\n%s", seed, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
		live.apply(registry.Diff(live.load(), declared[1]))
		after := live.load()
		if left := registry.Diff(after, declared[0]); !left.Empty() {
			t.Fatalf("seed %d: left to do: %+v", seed, left.Changes)
		}
		if got, want := contents(after), contents(declared[0]); !slices.Equal(got, want) {
			t.Fatalf("seed %d: the registry has\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		exported, warnings := live.export(registry.Part{})
		if len(warnings) > 0 || exported.Checksum() != declared[0].Checksum() {
			t.Fatalf("seed %d: the export declares something else: %v", seed, warnings)
		}
		if left := registry.Diff(after, exported); !left.Empty() {
			t.Fatalf("seed %d: left to do after the export: %+v", seed, left.Changes)
		}
	}
}
