package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/registry/registrytest"
	"github.com/nsready/nsready/engine/sheet"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
)

// liveRegistry is a database that a test plans, applies, exports and edits.
type liveRegistry struct {
	*testing.T
	ctx context.Context
	db  *store.Store
	url string
}

func openRegistry(t *testing.T) *liveRegistry {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	r := &liveRegistry{T: t, ctx: ctx, url: storetest.Database(t)}
	var err error
	if r.db, err = store.Open(ctx, r.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.db.Close)
	if err := r.db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *liveRegistry) sql(statement string) {
	r.Helper()
	if err := execute(r.url, statement); err != nil {
		r.Fatal(err)
	}
}

func (r *liveRegistry) empty() {
	r.Helper()
	r.sql(`TRUNCATE customers, parameter_templates, platform_thresholds, retention, limits, discovery, registry_versions CASCADE`)
}

func (r *liveRegistry) load() *registry.Snapshot {
	r.Helper()
	s, err := r.db.LoadRegistry(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

func (r *liveRegistry) apply(plan *registry.Plan) {
	r.Helper()
	if _, err := r.db.Apply(r.ctx, plan, author()); err != nil {
		r.Fatal(err)
	}
}

// export writes the registry to a file as the command does, and reads it.
func (r *liveRegistry) export(part registry.Part) (declared *registry.Snapshot, warnings []exportWarning) {
	r.Helper()
	if part.Owner == "" {
		part.Owner = registry.DefaultOwner
	}
	live, beside := r.load().Live(part)
	var text bytes.Buffer
	warnings, err := writeExport(&text, "hcl", live, beside)
	if err != nil {
		r.Fatal(err)
	}
	name := filepath.Join(r.TempDir(), "estate.hcl")
	if err := os.WriteFile(name, text.Bytes(), 0o600); err != nil {
		r.Fatal(err)
	}
	declared, _, diags := config.Load(name)
	if diags.HasErrors() {
		r.Fatalf("%v\n%s", diags, text.String())
	}
	formatted, _ := config.Format(name, text.Bytes())
	if !bytes.Equal(formatted, text.Bytes()) {
		r.Fatalf("not in canonical style:\n%s", text.String())
	}
	return declared, warnings
}

func (r *liveRegistry) csv(write func(s *registry.Snapshot) (string, error)) string {
	r.Helper()
	live, _ := r.load().Live(registry.Part{Unmanaged: true})
	text, err := write(live)
	if err != nil {
		r.Fatal(err)
	}
	return text
}

// From any estate to any other: the export of what was applied finds nothing to change, and says what was declared.
func TestExportConverges(t *testing.T) {
	r := openRegistry(t)
	for seed := range uint64(8) {
		r.empty()
		random := rand.New(rand.NewPCG(seed, 8))
		for range 3 {
			estate := registry.Declare(registrytest.Estate(random))
			for _, table := range []string{"customers", "projects", "sites", "devices", "parameter_templates"} {
				r.sql(`UPDATE ` + table + ` SET prevent_destroy = false`) // or the next estate could not come
			}
			r.apply(registry.Diff(r.load(), estate))
			declared, warnings := r.export(registry.Part{})
			if len(warnings) > 0 {
				t.Fatalf("seed %d: %v", seed, warnings)
			}
			if plan := registry.Diff(r.load(), declared); !plan.Empty() {
				t.Fatalf("seed %d: %+v", seed, plan.Changes)
			}
			if declared.Checksum() != estate.Checksum() {
				t.Fatalf("seed %d: the export declares something else", seed)
			}
		}
	}
}

// edits by SQL, of which a declaration can say some and some not.
var edits = []string{
	`UPDATE devices SET device_type = '' WHERE ref % 5 = 0`,
	`UPDATE devices SET reporting_interval_seconds = NULL WHERE ref % 4 = 0`,
	`UPDATE devices SET parameters = ARRAY['voltage', 'nothing', 'voltage'], events_per_second = 'NaN', burst = 1 WHERE ref % 3 = 0`,
	`UPDATE devices SET external_id = external_id || ' ', status = E'a\nb' WHERE ref % 7 = 0`,
	`UPDATE devices SET name = ' ' || name WHERE ref % 6 = 0`,
	`UPDATE sites SET location = '[1]', managed = false WHERE name < 'b'`,
	`UPDATE sites SET retired_at = now() WHERE name > 'b'`,
	`UPDATE projects SET description = chr(7), managed = false`,
	`UPDATE projects SET name = name || chr(10) WHERE name < 'b'`,
	`UPDATE customers SET metadata = '{"n": 12345678901234567890}', burst = 0, events_per_second = 1`,
	`UPDATE customers SET managed = false WHERE name < 'b'`,
	`UPDATE customers SET parent_customer_id = id`,
	`UPDATE customers SET retired_at = now() WHERE name > 'b'`,
	`UPDATE parameter_templates SET metadata = '{"min": 5, "max": 1, "interval_seconds": 1e-9}'`,
	`UPDATE parameter_templates SET key = upper(key) WHERE key LIKE '%äöü' AND NOT EXISTS (SELECT FROM thresholds t WHERE t.parameter_key = parameter_templates.key)`,
	`UPDATE parameter_templates SET managed = false WHERE key LIKE '%voltage'`,
	`INSERT INTO parameter_templates (key, name, managed) VALUES ('orphan', '', true) ON CONFLICT DO NOTHING`,
	`UPDATE thresholds SET above = 'Infinity', below = NULL, for_seconds = -1`,
	`UPDATE thresholds SET severity = 'x', deadband = -1`,
	`INSERT INTO platform_thresholds VALUES ('moon', 1, 2) ON CONFLICT DO NOTHING`,
	`UPDATE platform_thresholds SET warning = -5`,
	`UPDATE limits SET connections = 5, connections_per_address = 10, device_burst = -1`,
	`UPDATE retention SET raw_seconds = 0.5`,
}

// Whatever SQL did to a registry: the export is valid, and what a plan of it would change was warned of.
func TestExportWarnsOfWhatItCannotSay(t *testing.T) {
	r := openRegistry(t)
	for seed := range uint64(25) {
		r.empty()
		random := rand.New(rand.NewPCG(seed, 9))
		r.apply(registry.Diff(r.load(), registry.Declare(append(registrytest.Estate(random), &registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "a stays")}))))
		var done []string
		for range 1 + random.IntN(3) {
			done = append(done, edits[random.IntN(len(edits))])
			if conn, err := pgx.Connect(r.ctx, r.url); err != nil {
				t.Fatal(err)
			} else if _, err = conn.Exec(r.ctx, done[len(done)-1]); err != nil {
				t.Fatalf("%s: %v", done[len(done)-1], err)
			} else {
				conn.Close(r.ctx)
			}
		}
		r.sql(`UPDATE customers SET retired_at = NULL, managed = true, parent_customer_id = NULL WHERE name = 'a stays'`)
		declared, warnings := r.export(registry.Part{})
		plan := registry.Diff(r.load(), declared)
		if len(plan.Problems)+len(plan.Conflicts) > 0 {
			t.Fatalf("seed %d: %q: %v %v", seed, done, plan.Problems, plan.Conflicts)
		}
		for _, o := range plan.Protected {
			plan.Changes = append(plan.Changes, registry.Change{Action: registry.Delete, Address: o.Address})
		}
		for _, c := range plan.Changes {
			warned := false
			for _, w := range warnings {
				warned = warned || w.Address == c.Address || strings.HasPrefix(c.Address.Path, w.Address.Path+"/")
			}
			if !warned {
				t.Errorf("seed %d: %q: nothing warned of %v %s %v\n%v", seed, done, c.Action, c.Address, c.Fields, warnings)
			}
		}
	}
}

// The CSV files of a registry make an empty one the same, whose export a declaration adopts.
func TestImportGivesTheFilesBack(t *testing.T) {
	r := openRegistry(t)
	registryFile := func(s *registry.Snapshot) (string, error) {
		var out bytes.Buffer
		_, err := sheet.WriteRegistry(&out, s)
		return out.String(), err
	}
	parameterFile := func(s *registry.Snapshot) (string, error) {
		var out bytes.Buffer
		_, err := sheet.WriteParameters(&out, s)
		return out.String(), err
	}
	for seed := range uint64(8) {
		r.empty()
		var objects []registry.Object
		sites := map[string]bool{} // paths of projects with a site, which a file can hold
		estate := registrytest.Estate(rand.New(rand.NewPCG(seed, 10)))
		for _, o := range estate {
			if s, ok := o.(*registry.Site); ok {
				sites[s.Addr.ParentPath()] = true
			}
		}
		for _, o := range estate {
			switch o := o.(type) {
			case *registry.Parameter:
				if registry.ShortName(o.Name) == o.Addr.Name() && sites[o.Addr.ParentPath()] {
					objects = append(objects, o)
				}
			case *registry.Device:
				o.Parameters = nil
				objects = append(objects, o)
			case *registry.Customer, *registry.Project, *registry.Site:
				objects = append(objects, o)
			}
		}
		r.apply(registry.Diff(r.load(), registry.Declare(objects)))
		registryCSV, parametersCSV := r.csv(registryFile), r.csv(parameterFile)
		r.empty()
		for _, step := range []struct {
			text string
			read func(*registry.Snapshot, func(sheet.Row) error) ([]registry.Object, error)
		}{
			{registryCSV, func(s *registry.Snapshot, f func(sheet.Row) error) ([]registry.Object, error) {
				return sheet.ReadRegistry(strings.NewReader(registryCSV), s, nil, f)
			}},
			{parametersCSV, func(s *registry.Snapshot, f func(sheet.Row) error) ([]registry.Object, error) {
				return sheet.ReadParameters(strings.NewReader(parametersCSV), s, nil, f)
			}},
		} {
			current := r.load()
			added, err := step.read(current, func(row sheet.Row) error {
				if row.Outcome != sheet.Created {
					t.Errorf("seed %d: %+v of\n%s", seed, row, step.text)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			r.apply(registry.Add(current, registry.NewSnapshot(added)))
		}
		if a, b := r.csv(registryFile), r.csv(parameterFile); a != registryCSV || b != parametersCSV {
			t.Fatalf("seed %d:\n%s\n%s\nbecame\n%s\n%s", seed, registryCSV, parametersCSV, a, b)
		}
		after := r.load()
		for o := range after.Objects {
			if registry.StatusOf(o).Managed {
				t.Fatalf("seed %d: %s is managed", seed, o.Address())
			}
		}
		if len(after.Customers) == 0 {
			continue
		}
		declared, warnings := r.export(registry.Part{Unmanaged: true})
		if len(warnings) > 0 {
			t.Fatalf("seed %d: %v", seed, warnings)
		}
		r.apply(registry.Diff(after, declared))
		if plan := registry.Diff(r.load(), declared); !plan.Empty() || len(plan.Unmanaged) > 0 {
			t.Fatalf("seed %d: %+v", seed, plan)
		}
	}
}
