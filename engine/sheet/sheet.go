// Package sheet reads and writes the registry as the CSV files of the original platform: one with customers, projects, sites and
// devices, one with parameter templates.
package sheet

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nsready/nsready/engine/registry"
)

// Columns of the two files, in the order in which they are written.
var (
	registryColumns = []string{
		"customer_name", "project_name", "project_description", "site_name", "site_location", "device_name", "device_type", "device_code", "device_status",
	}
	parameterColumns = []string{
		"customer_name", "project_name", "parameter_name", "unit", "dtype", "min_value", "max_value", "required", "description",
	}
)

// Omission is an object that a file cannot hold, or that would not be read as it was.
type Omission struct {
	Address registry.Address `json:"address"`
	Reason  string           `json:"reason"`
}

// WriteRegistry writes a row for each device, and one for each site without devices, sorted by address.
func WriteRegistry(w io.Writer, s *registry.Snapshot) ([]Omission, error) {
	projects := make(map[string]*registry.Project, len(s.Projects)) // by path
	empty := make(map[string]bool, len(s.Projects)+len(s.Customers))
	for _, c := range s.Customers {
		empty[c.Addr.Path] = true
	}
	for _, p := range s.Projects {
		projects[p.Addr.Path], empty[p.Addr.Path] = p, true
		delete(empty, p.Addr.ParentPath())
	}
	devices := make(map[string][]*registry.Device, len(s.Sites)) // by the path of their site
	for _, d := range s.Devices {
		path := d.Addr.ParentPath()
		devices[path] = append(devices[path], d)
	}
	out := newWriter(w, registryColumns)
	for _, site := range s.Sites {
		project := projects[site.Addr.ParentPath()]
		if project == nil {
			out.omit(site.Addr, "there is no project that it is in")
			continue
		}
		delete(empty, project.Addr.Path)
		names := site.Addr.Names()
		row := []string{names[0], names[1], project.Description, names[2], site.Location, "", "", "", ""}
		if len(devices[site.Addr.Path]) == 0 {
			out.row(site.Addr, row)
		}
		for _, d := range devices[site.Addr.Path] {
			row[5], row[6], row[7], row[8] = d.Addr.Name(), d.Type, d.ExternalID, d.State
			out.row(d.Addr, row)
		}
	}
	for _, c := range s.Customers {
		if empty[c.Addr.Path] {
			out.omit(c.Addr, "it has no project, and each row is of a site")
		}
	}
	for _, p := range s.Projects {
		if empty[p.Addr.Path] {
			out.omit(p.Addr, "it has no site, and each row is of a site")
		}
	}
	return out.finish()
}

// WriteParameters writes a row for each parameter template, sorted by address.
func WriteParameters(w io.Writer, s *registry.Snapshot) ([]Omission, error) {
	out := newWriter(w, parameterColumns)
	for _, p := range s.Parameters {
		names := p.Addr.Names()
		if len(names) != 3 {
			out.omit(p.Addr, "there is no project that it is in")
			continue
		}
		if registry.ShortName(p.Name) != names[2] {
			out.omit(p.Addr, fmt.Sprintf("its key ends in %q, and what is called %q is read with one that ends in %q", names[2], p.Name, registry.ShortName(p.Name)))
		}
		out.row(p.Addr, []string{
			names[0], names[1], p.Name, p.Unit, string(p.Type), number(p.Min), number(p.Max), strconv.FormatBool(p.Required), p.Description,
		})
	}
	return out.finish()
}

func number(b registry.Bound) string {
	if !b.Set {
		return ""
	}
	return strconv.FormatFloat(b.Value, 'f', -1, 64)
}

type writer struct {
	csv     *csv.Writer
	columns []string
	omitted []Omission
}

func newWriter(w io.Writer, columns []string) *writer {
	out := &writer{csv: csv.NewWriter(w), columns: columns}
	_ = out.csv.Write(columns) // finish returns its error
	return out
}

func (w *writer) omit(a registry.Address, reason string) {
	w.omitted = append(w.omitted, Omission{a, reason})
}

func (w *writer) row(a registry.Address, row []string) {
	for i, text := range row {
		if isFormula(text) && w.columns[i] != "min_value" && w.columns[i] != "max_value" {
			w.omit(a, fmt.Sprintf("its %s is %q, which a spreadsheet takes for a formula, and import refuses", w.columns[i], text))
		}
	}
	_ = w.csv.Write(row) // finish returns its error
}

func (w *writer) finish() ([]Omission, error) {
	w.csv.Flush()
	if err := w.csv.Error(); err != nil {
		return nil, fmt.Errorf("writing CSV: %w", err)
	}
	return w.omitted, nil
}

// isFormula reports whether a spreadsheet would calculate a text rather than show it. A sign before a digit is left to names
// such as "-48 V supply".
func isFormula(text string) bool {
	if text == "" {
		return false
	}
	switch text[0] {
	case '=', '@':
		return true
	case '+', '-':
		return len(text) > 1 && strings.IndexByte("0123456789. /", text[1]) < 0
	}
	return false
}
