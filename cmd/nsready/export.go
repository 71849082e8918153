package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/sheet"
)

// exportView is what export -json prints.
type exportView struct {
	FormatVersion string          `json:"format_version"`
	File          string          `json:"file"`
	Format        string          `json:"format"`
	Bytes         int64           `json:"bytes"`
	Version       int64           `json:"version"`  // of the registry
	Revision      int64           `json:"revision"` // of the registry
	Complete      bool            `json:"complete"` // false when there are warnings
	Warnings      []exportWarning `json:"warnings"`
}

// exportWarning is something that the export does not say as it is.
type exportWarning struct {
	Address registry.Address `json:"address"`
	Field   string           `json:"field,omitempty"`
	Reason  string           `json:"reason"`
}

// String is for a terminal.
func (w exportWarning) String() string {
	what := clean(w.Address.String())
	if w.Field != "" {
		what += ": " + w.Field
	}
	return what + ": " + clean(w.Reason)
}

// options of export.
type exportOptions struct {
	target
	out, format string
	part        registry.Part // its Owner is "" when the command line names none
	force, json bool
}

func (o *exportOptions) check() error {
	switch {
	case !slices.Contains([]string{"hcl", "csv", "parameters-csv"}, o.format):
		return fmt.Errorf("-format is %q, which is none of hcl, csv and parameters-csv", o.format)
	case o.format != "hcl" && o.part.Owner != "":
		return errors.New("-declaration is for -format hcl: the CSV files hold all that is there")
	case o.json && o.out == "-":
		return errors.New("-json prints a report to standard output: name a file for the export with -out FILE")
	}
	return nil
}

// names is a flag that may be given many times.
type names []string

func (n *names) String() string { return strings.Join(*n, ", ") }

func (n *names) Set(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	*n = append(*n, name)
	return nil
}

func runExport(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "export [flags]", `
Write the registry as a declaration, or as the CSV files of the original platform. After the export of a registry 'nsready plan'
finds no changes. What only SQL can have written and a declaration cannot say is told as a warning, and in a comment where it
would stand. The exit code is 0 when all was written, 1 when it could not be done, and 2 when it was, with warnings.

hcl             what is managed, and with -include-unmanaged the rest, which the next apply then manages
csv             a row for each device, and for each site without devices; managed or not
parameters-csv  a row for each parameter; managed or not

Example:
  nsready export -out estate.hcl -customer "Acme Mills"`)
	o := exportOptions{}
	o.registerDatabase(f)
	f.StringVar(&o.out, "out", "-", "`FILE` to write, or - for standard output")
	f.StringVar(&o.format, "format", "hcl", "`FORMAT` of the export: hcl, csv or parameters-csv")
	f.Var((*names)(&o.part.Customers), "customer", "`NAME` of a customer to export, with all it has and nothing else; may be repeated")
	f.StringVar(&o.part.Owner, "declaration", "", "`NAME` of the declaration whose objects are declared\n(needed when there are several)")
	f.BoolVar(&o.part.Unmanaged, "include-unmanaged", false, "also declare what was made outside nsready")
	f.BoolVar(&o.force, "force", false, "replace the file when it is there")
	f.jsonVar(&o.json, "print a report as JSON; needs -out FILE")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	return export(ctx, s, o)
}

func export(ctx context.Context, s *streams, o exportOptions) error {
	db, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	progress := s.progress("Reading the registry")
	whole, err := db.LoadRegistry(ctx)
	progress.stop()
	if err != nil {
		return err
	}
	if err := checkCustomers(whole, o.part.Customers); err != nil {
		return err
	}
	if o.format != "hcl" {
		o.part.Unmanaged = true
	} else if o.part.Owner, err = chooseOwner(o.part.Owner, whole); err != nil {
		return err
	}
	part, beside := whole.Live(o.part)
	v := exportView{FormatVersion: formatVersion, File: o.out, Format: o.format, Version: whole.Version, Revision: whole.Revision, Warnings: []exportWarning{}}
	write := func(w io.Writer) error {
		count := &counter{w: w}
		v.Warnings, err = writeExport(count, o.format, part, beside)
		v.Bytes = count.n
		return err
	}
	if o.out == "-" {
		err = write(s.stdout)
	} else {
		progress := s.progress("Writing " + o.out)
		err = createFile(o.out, o.force, write)
		progress.stop()
	}
	if err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	if o.format == "hcl" && v.Bytes > config.MaxFile {
		fmt.Fprintf(s.stderr, "Warning: the export has %d bytes, and a file of a declaration may have up to %d: export customer by customer, into one directory.\n", v.Bytes, config.MaxFile)
	}
	v.Complete = len(v.Warnings) == 0
	if o.json {
		err = writeJSON(s.stdout, v)
	} else {
		printWarnings(s.stderr, v.Warnings)
	}
	if err == nil && !v.Complete {
		return exit(exitNo)
	}
	return err
}

// chooseOwner returns one of the declarations that manage something in states: the named one, or, without a name, the only one.
func chooseOwner(name string, states ...*registry.Snapshot) (string, error) {
	var owners []string
	for _, s := range states {
		owners = append(owners, s.Owners()...)
	}
	slices.Sort(owners)
	owners = slices.Compact(owners)
	switch {
	case name != "" && !slices.Contains(owners, name):
		return "", fmt.Errorf("-declaration: no declaration %q manages anything; there are: %s", name, strings.Join(owners, ", "))
	case name != "":
		return name, nil
	case len(owners) == 0:
		return registry.DefaultOwner, nil
	case len(owners) > 1:
		return "", fmt.Errorf("several declarations manage the registry: say which one is meant with -declaration NAME; there are: %s", strings.Join(owners, ", "))
	}
	return owners[0], nil
}

// checkCustomers finds customers that are asked for and not there.
func checkCustomers(s *registry.Snapshot, customers []string) error {
	for _, name := range customers {
		i := slices.IndexFunc(s.Customers, func(c *registry.Customer) bool { return c.Addr.Name() == name && !c.Retired })
		if i < 0 {
			return fmt.Errorf("the registry has no customer %q", name)
		}
	}
	return nil
}

// writeExport writes a part of the registry. beside are the objects in it that it would not have but for others.
func writeExport(w io.Writer, format string, part *registry.Snapshot, beside []registry.Address) ([]exportWarning, error) {
	warnings := []exportWarning{}
	if format == "hcl" {
		unsaid, err := config.Write(w, part)
		for _, u := range unsaid {
			warnings = append(warnings, exportWarning(u))
		}
		for _, a := range beside {
			warnings = append(warnings, exportWarning{Address: a, Reason: "it is retired or not managed, and is declared because something declared is in it or names it: apply would manage it"})
		}
		return warnings, err
	}
	write := sheet.WriteRegistry
	if format == "parameters-csv" {
		write = sheet.WriteParameters
	}
	omitted, err := write(w, part)
	for _, o := range omitted {
		warnings = append(warnings, exportWarning{Address: o.Address, Reason: o.Reason})
	}
	return warnings, err
}

func printWarnings(w io.Writer, warnings []exportWarning) {
	paint := painter(w)
	for _, warning := range warnings[:min(len(warnings), maxListed)] {
		fmt.Fprintf(w, "%s: %s\n", paint(yellow, "Warning"), warning)
	}
	if n := len(warnings) - maxListed; n > 0 {
		fmt.Fprintf(w, "%s: and %d more; -json lists them\n", paint(yellow, "Warning"), n)
	}
}

// createFile makes a file of what write writes: all of it or nothing.
func createFile(name string, replace bool, write func(io.Writer) error) error {
	info, err := os.Stat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", name)
	case err == nil && !replace:
		return fmt.Errorf("%s is there already; -force replaces it", name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	mode := fs.FileMode(0o644)
	if info != nil {
		mode = info.Mode().Perm()
	}
	return replaceFile(name, func(f *os.File) error {
		out := bufio.NewWriterSize(f, 1<<20)
		if err := write(out); err != nil {
			return err
		}
		return errors.Join(out.Flush(), f.Chmod(mode))
	})
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
