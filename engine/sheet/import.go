package sheet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nsready/nsready/engine/registry"
)

// Outcome is what becomes of a row.
type Outcome string

const (
	Created Outcome = "created" // something of it is new
	Exists  Outcome = "exists"  // all of it is there
	Differs Outcome = "differs" // what is there is otherwise than it says, and stays so
	Skipped Outcome = "skipped" // it is of another customer
	Bad     Outcome = "error"   // nothing of it can be used
)

// Row tells what becomes of one row of a file.
type Row struct {
	Line     int                `json:"line"` // that it begins on
	Outcome  Outcome            `json:"outcome"`
	Address  *registry.Address  `json:"address,omitempty"` // of the innermost object that it is about
	Created  []registry.Address `json:"created,omitempty"`
	Problems []Problem          `json:"problems,omitempty"` // why it is an error, or how it differs
}

// Problem is what is wrong, or otherwise, with one field.
type Problem struct {
	Line   int    `json:"line"`
	Column int    `json:"column"` // in characters, from 1
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// ReadRegistry reads a file of customers, projects, sites and devices, and returns what it has that current, the registry, has
// not. What is there is used and never changed. It calls report for each row but blank ones, in order; rows that are Bad
// add nothing. Only rows of the given customers count, who must exist; nil is for all. An error says why the file cannot be read
// to its end.
func ReadRegistry(in io.Reader, current *registry.Snapshot, customers []string, report func(Row) error) ([]registry.Object, error) {
	im := newImport(in, current, customers, report)
	im.parser.jsonColumn = slices.Index(registryColumns, "site_location")
	err := im.rows(registryColumns, []string{"customer_name", "project_name", "site_name"}, im.registryRow)
	return im.objects, err
}

// ReadParameters reads a file of parameter templates, whose customers and projects must exist, as ReadRegistry does.
func ReadParameters(in io.Reader, current *registry.Snapshot, customers []string, report func(Row) error) ([]registry.Object, error) {
	im := newImport(in, current, customers, report)
	err := im.rows(parameterColumns, []string{"customer_name", "project_name", "parameter_name"}, im.parameterRow)
	return im.objects, err
}

// importer goes through a file.
type importer struct {
	parser  *parser
	report  func(Row) error
	only    []string
	objects []registry.Object // to create

	current  *registry.Snapshot
	there    map[registry.Address]registry.Object     // in the registry
	named    map[registry.Address]*registry.Parameter // of it, at the addresses that their names would give them
	pending  map[registry.Address]pending             // in the file
	external map[string]registry.Address              // of pending devices
}

// pending is an object that is to be created, and the line that says so.
type pending struct {
	registry.Object
	line int
}

func newImport(in io.Reader, current *registry.Snapshot, customers []string, report func(Row) error) *importer {
	im := &importer{
		parser: newParser(in), report: report, only: customers, current: current,
		there: map[registry.Address]registry.Object{}, named: map[registry.Address]*registry.Parameter{}, pending: map[registry.Address]pending{}, external: map[string]registry.Address{},
	}
	for o := range current.Objects {
		im.there[o.Address()] = o
	}
	for _, p := range current.Parameters {
		if !registry.Retired(p) {
			project := registry.Address{Kind: registry.KindProject, Path: p.Addr.ParentPath()}
			im.named[project.Child(registry.KindParameter, registry.ShortName(p.Name))] = p
		}
	}
	return im
}

// rows reads the rows of a file with these columns and hands them to each.
func (im *importer) rows(columns, required []string, each func(*row)) error {
	for _, name := range im.only {
		if c := im.there[registry.NewAddress(registry.KindCustomer, name)]; c == nil || registry.Retired(c) {
			return fmt.Errorf("there is no customer %s in the registry: it is not found", quote(name))
		}
	}
	index, width, err := im.parser.header(columns, required)
	if err != nil {
		return err
	}
	if im.parser.jsonColumn >= 0 {
		im.parser.jsonColumn = index[im.parser.jsonColumn]
	}
	var cells []cell
	for count := 0; ; {
		line := im.parser.line
		var wrong *fault
		if cells, wrong, err = im.parser.record(cells[:0]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if wrong == nil && isBlank(cells) {
			continue
		}
		if count++; count > maxRows {
			return fmt.Errorf("line %d: the file has more than %d rows; split it", line, maxRows)
		}
		r := &row{Row: Row{Line: line, Outcome: Exists}, columns: columns, index: index, cells: cells}
		switch {
		case wrong != nil:
			r.fail(Problem{wrong.line, wrong.column, columnAt(columns, index, wrong.index), wrong.reason})
		case len(cells) != width:
			last := cells[len(cells)-1]
			reason := fmt.Sprintf("the row has %d fields, and the header has %d", len(cells), width)
			if len(cells) > width {
				reason += ": a text with a comma in it must be in quotes"
				last = cells[width]
			}
			r.fail(Problem{Line: last.line, Column: last.column, Reason: reason})
		default:
			if r.checkText(); r.Outcome != Bad {
				each(r)
			}
		}
		if r.Outcome == Bad {
			r.Created, r.commit = nil, nil
		}
		for _, f := range r.commit {
			f()
		}
		if err := im.report(r.Row); err != nil {
			return err
		}
	}
}

func columnAt(columns []string, index []int, at int) string {
	if i := slices.Index(index, at); i >= 0 {
		return columns[i]
	}
	return ""
}

// row is a row that is being read. What it adds is kept in commit until all of it was looked at.
type row struct {
	Row
	columns []string
	index   []int
	cells   []cell
	commit  []func()
}

// get returns the text of a column, "" when the file has none.
func (r *row) get(column string) string {
	if i := r.index[slices.Index(r.columns, column)]; i >= 0 {
		return r.cells[i].text
	}
	return ""
}

func (r *row) problem(column, reason string, args ...any) Problem {
	p := Problem{Line: r.Line, Column: 1, Field: column, Reason: fmt.Sprintf(reason, args...)}
	if i := r.index[slices.Index(r.columns, column)]; i >= 0 {
		p.Line, p.Column = r.cells[i].line, r.cells[i].column
	}
	return p
}

func (r *row) fail(p Problem) {
	if r.Outcome != Bad { // what differs does not matter any more
		r.Outcome, r.Problems = Bad, nil
	}
	r.Problems = append(r.Problems, p)
}

// wrong reports that a field cannot be used.
func (r *row) wrong(column, reason string, args ...any) {
	r.fail(r.problem(column, reason, args...))
}

// differs reports that what is there has another value, unless the row says none.
func (r *row) differs(column, there, here string) {
	if here == "" || here == there || r.Outcome == Bad {
		return
	}
	r.Outcome = Differs
	r.Problems = append(r.Problems, r.problem(column, "is %s, and the registry has %s, which stays", quote(here), quote(there)))
}

// checkText refuses what is no text, or would be taken for a formula by the next spreadsheet.
func (r *row) checkText() {
	for i, column := range r.columns {
		if r.index[i] < 0 {
			continue
		}
		text := r.cells[r.index[i]].text
		switch {
		case strings.IndexByte(text, 0) >= 0:
			r.wrong(column, "it holds a NUL; is this a text file?")
		case !utf8.ValidString(text):
			r.wrong(column, "it is no UTF-8; save the file as \"CSV UTF-8\"")
		case column != "min_value" && column != "max_value" && isFormula(text):
			r.wrong(column, "%s is a formula to a spreadsheet; remove what it begins with", quote(text))
		}
	}
}

// name returns a name, or reports what is wrong with it.
func (r *row) name(column string) string {
	name := r.get(column)
	if name == "" {
		r.wrong(column, "it is missing")
	} else if why := registry.NameFault(name); why != "" {
		r.wrong(column, "the name %s %s", quote(name), why)
	}
	return name
}

// text returns a text of at most limit bytes, of one line for a short one.
func (r *row) text(column string, limit int) string {
	text := r.get(column)
	if len(text) > limit {
		r.wrong(column, "it has %d bytes, and may have up to %d", len(text), limit)
	} else if c, found := registry.ControlIn(text, limit > registry.MaxName); found {
		r.wrong(column, "it contains the control character %U", c)
	}
	return text
}

// word returns a short text that neither begins nor ends with a space.
func (r *row) word(column string) string {
	text := r.text(column, registry.MaxName)
	if strings.TrimSpace(text) != text {
		r.wrong(column, "%s begins or ends with a space", quote(text))
	}
	return text
}

// object returns a JSON object in canonical form.
func (r *row) object(column string) string {
	text := r.get(column)
	if strings.TrimSpace(text) == "" {
		return ""
	}
	canonical, why := "", ""
	if json.Valid([]byte(text)) {
		var err error
		if canonical, err = registry.CanonicalJSON([]byte(text)); err != nil {
			why = "is no JSON object"
		} else {
			why = objectFault(canonical)
		}
	} else {
		why = "is no JSON"
	}
	if why != "" {
		r.wrong(column, `%s %s; write an object, such as "{""city"": ""Pune""}"`, quote(text), why)
	}
	return canonical
}

// objectFault says what keeps an object from being declared.
func objectFault(text string) string {
	if len(text) > registry.MaxJSON {
		return fmt.Sprintf("has more than %d bytes", registry.MaxJSON)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > 30 {
				return "is nested more than 30 deep"
			}
		case json.Number:
			if f, err := t.Float64(); err != nil || strconv.FormatFloat(f, 'f', -1, 64) != t.String() {
				return fmt.Sprintf("has the number %s, which can't be kept exactly: put it in quotes", quote(t.String()))
			}
		case string:
			if strings.IndexByte(t, 0) >= 0 {
				return "contains a NUL"
			}
		}
	}
}

func (r *row) number(column string) registry.Bound {
	text := strings.TrimSpace(r.get(column))
	if text == "" {
		return registry.Bound{}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.Trim(text, "0123456789+-.eE") != "" {
		r.wrong(column, "%s is no number; write it as -40 or 3.5", quote(text))
		return registry.Bound{}
	}
	return registry.BoundOf(f + 0) // not -0
}

func (r *row) truth(column string) bool {
	switch text := r.get(column); strings.ToLower(strings.TrimSpace(text)) {
	case "true", "t", "yes", "y", "1":
		return true
	case "", "false", "f", "no", "n", "0":
	default:
		r.wrong(column, "%s is neither true nor false", quote(text))
	}
	return false
}

// find returns the object at an address: of the registry when it is live, or of the file, with its line.
func (im *importer) find(a registry.Address) (o registry.Object, line int) {
	if o := im.there[a]; o != nil && !registry.Retired(o) {
		return o, 0
	}
	if p, ok := im.pending[a]; ok {
		return p.Object, p.line
	}
	return nil, 0
}

// create adds an object, when the row turns out to be good.
func (im *importer) create(r *row, o registry.Object) {
	a := o.Address()
	r.Created = append(r.Created, a)
	if r.Outcome == Exists {
		r.Outcome = Created
	}
	line := r.Line
	r.commit = append(r.commit, func() {
		im.objects = append(im.objects, o)
		im.pending[a] = pending{o, line}
	})
}

// customer reads the columns that say whose row it is. It returns false when nothing else of the row matters.
func (im *importer) customer(r *row) (registry.Address, bool) {
	name := r.name("customer_name")
	if im.only != nil && r.Outcome != Bad && !slices.Contains(im.only, name) {
		r.Outcome = Skipped
		return registry.Address{}, false
	}
	return registry.NewAddress(registry.KindCustomer, name), true
}

func (im *importer) registryRow(r *row) {
	customer, ok := im.customer(r)
	if !ok {
		return
	}
	project := customer.Child(registry.KindProject, r.name("project_name"))
	site := project.Child(registry.KindSite, r.name("site_name"))
	description, location := r.text("project_description", registry.MaxText), r.object("site_location")
	device, isDevice := im.device(r, site)
	if r.Outcome == Bad {
		return
	}
	r.Address = &site
	if o, _ := im.find(customer); o == nil {
		c := &registry.Customer{Addr: customer}
		if was, retired := im.there[customer].(*registry.Customer); retired {
			*c = *was
			c.Status = registry.Status{}
		}
		im.create(r, c)
	}
	switch o, line := im.find(project); {
	case o == nil:
		p := &registry.Project{Addr: project, Description: description}
		if was, retired := im.there[project].(*registry.Project); retired {
			p.Description = cmp.Or(description, was.Description)
		}
		im.create(r, p)
	case line == 0:
		r.differs("project_description", o.(*registry.Project).Description, description)
	default:
		r.complete("project_description", &o.(*registry.Project).Description, description, line)
	}
	switch o, line := im.find(site); {
	case o == nil:
		s := &registry.Site{Addr: site, Location: location}
		if was, retired := im.there[site].(*registry.Site); retired {
			s.Location = cmp.Or(location, was.Location)
		}
		im.create(r, s)
	case line == 0:
		r.differs("site_location", o.(*registry.Site).Location, location)
	default:
		r.complete("site_location", &o.(*registry.Site).Location, location, line)
	}
	if isDevice {
		r.Address = &device.Addr
		im.registryDevice(r, device)
	}
}

// complete gives an object that another line of the file creates what that line left out.
func (r *row) complete(column string, there *string, here string, line int) {
	switch {
	case here == "" || here == *there:
	case *there == "":
		r.commit = append(r.commit, func() { *there = here })
	default:
		r.contradicts(column, *there, here, line)
	}
}

func (r *row) contradicts(column, there, here string, line int) {
	r.wrong(column, "is %s, and on line %d of this file it is %s", quote(here), line, quote(there))
}

// device reads the columns of the row's device. It has none when all are empty.
func (im *importer) device(r *row, site registry.Address) (*registry.Device, bool) {
	d := &registry.Device{Type: r.word("device_type"), ExternalID: r.word("device_code"), State: r.word("device_status")}
	if r.get("device_name") == "" && d.Type == "" && d.ExternalID == "" && d.State == "" {
		return nil, false
	}
	if r.get("device_name") == "" && d.ExternalID != "" {
		if there := im.current.DeviceByExternalID(d.ExternalID); there != nil {
			d.Addr = site.Child(registry.KindDevice, there.Addr.Name())
			return d, true
		}
	}
	d.Addr = site.Child(registry.KindDevice, r.name("device_name"))
	return d, true
}

// registryDevice looks a device up, by its code first, or creates it.
func (im *importer) registryDevice(r *row, d *registry.Device) {
	if there := im.current.DeviceByExternalID(d.ExternalID); d.ExternalID != "" && there != nil {
		if there.Addr != d.Addr {
			r.Outcome = Differs
			r.Problems = append(r.Problems, r.problem("device_code", "%s is that of %s in the registry, which stays where it is", quote(d.ExternalID), there.Addr))
		}
		r.differs("device_type", there.Type, d.Type)
		r.differs("device_status", there.State, d.State)
		return
	}
	if a, ok := im.external[d.ExternalID]; ok && a != d.Addr {
		r.wrong("device_code", "%s is that of %s already, on line %d of this file", quote(d.ExternalID), a, im.pending[a].line)
		return
	}
	o, line := im.find(d.Addr)
	if o == nil {
		if was, retired := im.there[d.Addr].(*registry.Device); retired {
			again := *was
			again.Status, again.ExternalID = registry.Status{}, d.ExternalID
			again.Type, again.State = cmp.Or(d.Type, was.Type), cmp.Or(d.State, was.State)
			d = &again
			r.Address = &d.Addr
		}
		d.Type, d.State = cmp.Or(d.Type, "sensor"), cmp.Or(d.State, "active")
		im.create(r, d)
		if d.ExternalID != "" {
			r.commit = append(r.commit, func() { im.external[d.ExternalID] = d.Addr })
		}
		return
	}
	there := o.(*registry.Device)
	for _, f := range []struct{ column, there, here string }{
		{"device_code", there.ExternalID, d.ExternalID}, {"device_type", there.Type, d.Type}, {"device_status", there.State, d.State},
	} {
		switch {
		case line == 0:
			r.differs(f.column, f.there, f.here)
		case f.here != "" && f.here != f.there:
			r.contradicts(f.column, f.there, f.here, line)
		}
	}
}

func (im *importer) parameterRow(r *row) {
	customer, ok := im.customer(r)
	if !ok {
		return
	}
	project := customer.Child(registry.KindProject, r.name("project_name"))
	name := r.name("parameter_name")
	p := &registry.Parameter{
		Addr: project.Child(registry.KindParameter, registry.ShortName(name)), Name: name, Unit: r.text("unit", registry.MaxName),
		Type: registry.TypeFloat, Min: r.number("min_value"), Max: r.number("max_value"), Required: r.truth("required"),
		Description: r.text("description", registry.MaxText), OnViolation: registry.Flag,
	}
	switch dtype := strings.ToLower(strings.TrimSpace(r.get("dtype"))); dtype {
	case "", "float", "double", "number":
	case "int", "integer":
		p.Type = registry.TypeInt
	case "bool", "boolean":
		p.Type = registry.TypeBool
	default:
		r.wrong("dtype", "%s is none of float, int and bool: all values are numbers", quote(r.get("dtype")))
	}
	if p.Min.Set && p.Max.Set && p.Max.Value < p.Min.Value {
		r.wrong("max_value", "%s is below min_value, which is %s", p.Max, p.Min)
	}
	if r.Outcome == Bad {
		return
	}
	if o, _ := im.find(customer); o == nil {
		r.wrong("customer_name", "Customer not found: %s", r.get("customer_name"))
		return
	}
	if o, _ := im.find(project); o == nil {
		r.wrong("project_name", "Project not found: %s for customer %s", r.get("project_name"), r.get("customer_name"))
		return
	}
	o, line := im.find(p.Addr)
	if named := im.named[p.Addr]; o == nil && named != nil { // it has that name, and another key
		o, p.Addr = named, named.Addr
	}
	r.Address = &p.Addr
	if o == nil {
		im.create(r, p)
		return
	}
	there := o.(*registry.Parameter)
	for _, f := range []struct{ column, there, here string }{
		{"parameter_name", there.Name, p.Name}, {"unit", there.Unit, p.Unit}, {"dtype", string(there.Type), said(r, "dtype", string(p.Type))},
		{"min_value", there.Min.String(), p.Min.String()}, {"max_value", there.Max.String(), p.Max.String()},
		{"required", strconv.FormatBool(there.Required), said(r, "required", strconv.FormatBool(p.Required))}, {"description", there.Description, p.Description},
	} {
		switch {
		case line == 0:
			r.differs(f.column, f.there, f.here)
		case f.here != "" && f.here != f.there:
			r.contradicts(f.column, f.there, f.here, line)
		}
	}
}

// said returns a value when its field is not empty.
func said(r *row, column, value string) string {
	if r.get(column) == "" {
		return ""
	}
	return value
}
