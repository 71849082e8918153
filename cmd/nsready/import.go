package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/sheet"
	"github.com/nsready/nsready/engine/store"
)

// importView is what import -json prints beside the rows, which come before.
type importView struct {
	Summary     importSummary `json:"summary"`
	DryRun      bool          `json:"dry_run"`
	Applied     bool          `json:"applied"` // the registry was changed
	Version     int64         `json:"version"` // of the registry, now
	Diagnostics []diagnostic  `json:"diagnostics"`
}

// importSummary counts rows by what becomes of them, and objects that are created.
type importSummary struct {
	Rows    int            `json:"rows"`
	Created int            `json:"created"`
	Exist   int            `json:"exist"`
	Differ  int            `json:"differ"`
	Skipped int            `json:"skipped"`
	Bad     int            `json:"bad"`
	Objects map[string]int `json:"objects"` // by kind
}

func (s *importSummary) add(r sheet.Row) {
	s.Rows++
	switch r.Outcome {
	case sheet.Created:
		s.Created++
	case sheet.Exists:
		s.Exist++
	case sheet.Differs:
		s.Differ++
	case sheet.Skipped:
		s.Skipped++
	case sheet.Bad:
		s.Bad++
	}
	for _, a := range r.Created {
		s.Objects[string(a.Kind)]++
	}
}

type importOptions struct {
	target
	what, file            string
	customers             []string
	dryRun, partial, json bool
	locks                 locking
	why                   occasion
}

func runImport(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "import registry|parameters FILE [flags]", `
Create what a CSV file of the original platform has and the registry has not. FILE may be - for standard input.
What is there is used and never changed: a row that says it otherwise is reported. When a row is bad nothing is created, unless
-partial is given. What is created is unmanaged, as if SQL had made it: 'nsready export -include-unmanaged' declares it.
The exit code is 0 when no row is bad, 1 when it could not be done, and 2 when rows are bad.

registry    customer_name,project_name,project_description,site_name,site_location,
            device_name,device_type,device_code,device_status
            Customers, projects and sites are found by name, devices by code, then by name. A row without device is of a site.
parameters  customer_name,project_name,parameter_name,unit,dtype,min_value,max_value,required,description
            Customers and projects must exist.

The columns may stand in any order; but the first three, or for a registry the three names, they may be left out.

Example:
  nsready import registry -dry-run meters.csv`)
	o := importOptions{}
	o.registerDatabase(f)
	f.BoolVar(&o.dryRun, "dry-run", false, "report what would be done, and change nothing")
	f.BoolVar(&o.partial, "partial", false, "create what the good rows say, even if others are bad")
	f.jsonVar(&o.json, "print the report of each row as JSON")
	f.Var((*names)(&o.customers), "customer", "`NAME` of a customer, who must exist: skip the rows of others; may be repeated")
	o.locks.register(f)
	o.why.register(f)
	rest, err := f.parse(args, 2)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("say what to import, and from which file: nsready import registry FILE, or nsready import parameters FILE")
	}
	if o.what, o.file = rest[0], rest[1]; o.what != "registry" && o.what != "parameters" {
		return fmt.Errorf("there is no import of %q: it is 'nsready import registry FILE' or 'nsready import parameters FILE'", o.what)
	}
	return importFile(ctx, s, o)
}

func importFile(ctx context.Context, s *streams, o importOptions) error {
	in, name := s.input(ctx), "standard input"
	if o.file != "-" {
		info, err := os.Stat(o.file)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("%s is a directory", o.file)
		}
		file, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer file.Close()
		in, name = file, o.file
	}
	db, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if o.dryRun {
		return o.read(ctx, s, db, nil, in, name)
	}
	err = o.hold(ctx, s, db, func(ctx context.Context, lock *store.Lock) error { return o.read(ctx, s, db, lock, in, name) })
	if errors.Is(err, store.ErrNoSchema) { // there is nothing to lock yet
		return o.read(ctx, s, db, nil, in, name)
	}
	return err
}

func (o *importOptions) hold(ctx context.Context, s *streams, db *store.Store, work func(ctx context.Context, lock *store.Lock) error) error {
	return o.locks.hold(ctx, s, &o.target, db, "import", work)
}

// read reads a file, creates what it has, and reports what became of each row. lock is nil for a dry run, and for a database
// without tables.
func (o *importOptions) read(ctx context.Context, s *streams, db *store.Store, lock *store.Lock, in io.Reader, name string) error {
	progress := s.progress("Reading the registry")
	current, ready, err := loadRegistry(ctx, db)
	progress.stop()
	if err != nil {
		return err
	}
	v := importView{DryRun: o.dryRun, Version: current.Version, Diagnostics: []diagnostic{}}
	v.Summary.Objects = map[string]int{}
	report := rowReport(&rowPrinter{w: s.stderr, name: name})
	if o.json {
		report = &rowEncoder{out: bufio.NewWriterSize(s.stdout, 64<<10), name: o.file}
	}
	err = func() error {
		read := sheet.ReadRegistry
		if o.what == "parameters" {
			read = sheet.ReadParameters
		}
		objects, err := read(in, current, o.customers, func(r sheet.Row) error {
			v.Summary.add(r)
			return errors.Join(report.row(r), ctx.Err())
		})
		if err != nil {
			return fmt.Errorf("%s: %w; nothing was created", name, err)
		}
		more := registry.NewSnapshot(objects)
		plan := registry.Add(current, more)
		if o.dryRun || plan.Empty() || v.Summary.Bad > 0 && !o.partial {
			return nil
		}
		create := func(ctx context.Context, lock *store.Lock) error {
			v.Version, err = applyPlan(ctx, s, lock, "Creating", plan, o.why.of(""), nil)
			v.Applied = err == nil
			return err
		}
		if ready {
			return create(ctx, lock)
		}
		if err := db.Migrate(ctx); err != nil {
			return err
		}
		return o.hold(ctx, s, db, func(ctx context.Context, lock *store.Lock) error {
			if current, err = db.LoadRegistry(ctx); err != nil {
				return err
			}
			plan = registry.Add(current, more)
			return create(ctx, lock)
		})
	}()
	if err != nil {
		v.Diagnostics = append(v.Diagnostics, diagnostic{Severity: "error", Summary: err.Error()})
	}
	told := report.end(v)
	if !o.json && err == nil {
		told = errors.Join(told, printImport(s.stdout, v))
	}
	switch {
	case told != nil:
		return told
	case errors.Is(err, context.Canceled) && o.json:
		return exit(exitInterrupted)
	case err != nil && o.json: // is in the report
		return exit(exitFailed)
	case err != nil:
		return err
	case v.Summary.Bad > 0:
		return exit(exitNo)
	}
	return nil
}

// rowReport tells what becomes of rows.
type rowReport interface {
	row(sheet.Row) error
	end(importView) error
}

// rowEncoder writes rows as they come into one JSON document.
type rowEncoder struct {
	out  *bufio.Writer
	name string
	n    int
}

func (e *rowEncoder) row(r sheet.Row) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if e.begin(); e.n > 0 {
		e.out.WriteByte(',')
	}
	e.n++
	e.out.WriteString("\n    ")
	_, err = e.out.Write(text)
	return err
}

// begin writes what stands before the first row, once.
func (e *rowEncoder) begin() {
	if e.n == 0 {
		name, _ := json.Marshal(e.name) // a text can be encoded
		fmt.Fprintf(e.out, "{\n  \"format_version\": %q,\n  \"file\": %s,\n  \"rows\": [", formatVersion, name)
	}
}

func (e *rowEncoder) end(v importView) error {
	e.begin()
	var rest bytes.Buffer
	if err := writeJSON(&rest, v); err != nil {
		return err
	}
	_, members, _ := strings.Cut(rest.String(), "{") // of the document, which goes on
	fmt.Fprintf(e.out, "\n  ],%s", members)
	return e.out.Flush()
}

// rowPrinter tells of rows that are bad or differ: of the first hundred of each.
type rowPrinter struct {
	w          io.Writer
	name       string
	bad, other int
}

const maxRowsTold = 100

func (p *rowPrinter) row(r sheet.Row) error {
	tint, title, n := red, "Error", &p.bad
	switch r.Outcome {
	case sheet.Bad:
	case sheet.Differs:
		tint, title, n = yellow, "Differs", &p.other
	default:
		return nil
	}
	if *n++; *n > maxRowsTold {
		return nil
	}
	paint := painter(p.w)
	for _, problem := range r.Problems {
		field := ""
		if problem.Field != "" {
			field = problem.Field + ": "
		}
		_, err := fmt.Fprintf(p.w, "%s:%d:%d: %s: %s%s\n", clean(p.name), problem.Line, problem.Column, paint(tint, title), field, clean(problem.Reason))
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *rowPrinter) end(importView) error {
	for _, more := range []struct {
		n    int
		what string
	}{{p.bad - maxRowsTold, "are bad"}, {p.other - maxRowsTold, "differ"}} {
		if more.n > 0 {
			if _, err := fmt.Fprintf(p.w, "%d more rows %s; -json lists them.\n", more.n, more.what); err != nil {
				return err
			}
		}
	}
	return nil
}

func printImport(w io.Writer, v importView) error {
	var out bytes.Buffer
	sum := v.Summary
	switch {
	case v.Applied:
		out.WriteString("Import complete!")
	case v.DryRun:
		out.WriteString("Dry run, nothing was created.")
	case sum.Bad > 0:
		out.WriteString("Nothing was created.")
	default:
		out.WriteString("Nothing to create.")
	}
	rows := "rows"
	if sum.Rows == 1 {
		rows = "row"
	}
	fmt.Fprintf(&out, " %d %s: %d new, %d exist, %d differ, %d skipped, %d bad.\n", sum.Rows, rows, sum.Created, sum.Exist, sum.Differ, sum.Skipped, sum.Bad)
	if v.Applied || v.DryRun && len(sum.Objects) > 0 {
		verb := "Created"
		if v.DryRun {
			verb = "Would create"
		}
		var parts []string
		for _, kind := range []registry.Kind{registry.KindCustomer, registry.KindProject, registry.KindSite, registry.KindDevice, registry.KindParameter} {
			if n := sum.Objects[string(kind)]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, plural(n, string(kind))))
			}
		}
		fmt.Fprintf(&out, "%s: %s.\n", verb, strings.Join(parts, ", "))
	}
	if v.Applied {
		fmt.Fprintf(&out, "Registry version %d. It is unmanaged: 'nsready export -include-unmanaged' declares it.\n", v.Version)
	}
	if sum.Bad > 0 && !v.Applied && !v.DryRun {
		out.WriteString("Correct the file, or use -partial to leave the bad rows out.\n")
	}
	_, err := w.Write(out.Bytes())
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
