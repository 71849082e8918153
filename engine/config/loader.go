package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

const maxObjects = 2_000_000 // of one declaration

// A loader gathers the blocks of all files, then evaluates them, then resolves what refers to what.
type loader struct {
	schema *hcl.BodySchema                   // of a file
	read   func(name string) ([]byte, error) // a file below the declaration's directory
	env    func(name string) string

	sources *Sources
	diags   hcl.Diagnostics
	told    map[place]int // how often a diagnostic was reported at a place
	partial bool          // something could not be read: what refers to it must not be called unknown
	stopped bool          // a limit was reached, and reported

	blocks []*block
	locals map[string]*local
	broken map[hcl.Expression]bool // inspect refused them

	steps, bytes, chain int
	texts               map[string]string // of files that were read

	objects   []registry.Object
	declared  map[registry.Address]*origin
	external  map[string]*origin
	templates map[string]*template
	projects  []*project
	customers map[string]*customer
	own       ownership
}

type place struct {
	summary string
	rng     hcl.Range
}

// origin is where an object was declared.
type origin struct {
	rng *hcl.Range
	in  *each
}

func (o *origin) String() string {
	return fmt.Sprintf("%s:%d%s", o.rng.Filename, o.rng.Start.Line, element(o.in))
}

// element says in words which element of a for_each something is about.
func element(in *each) string {
	if in == nil {
		return ""
	}
	key, _ := text(in.key)
	return fmt.Sprintf(" (each.key %s)", quote(key))
}

func newLoader() *loader {
	return &loader{
		schema:    fileSchema,
		sources:   &Sources{Files: map[string]*hcl.File{}},
		told:      map[place]int{},
		locals:    map[string]*local{},
		broken:    map[hcl.Expression]bool{},
		texts:     map[string]string{},
		declared:  map[registry.Address]*origin{},
		external:  map[string]*origin{},
		templates: map[string]*template{},
		customers: map[string]*customer{},
		own:       newOwnership(),
	}
}

// refuse ends a load that could not begin.
func (l *loader) refuse(summary, detail string, args ...any) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	return nil, l.sources, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...)}}
}

// add takes one file in.
func (l *loader) add(filename string, src []byte) {
	file, diags := parse(filename, src)
	l.sources.Files[filename] = file
	l.diags = append(l.diags, diags...)
	if diags.HasErrors() {
		l.partial = true
		return
	}
	l.addBody(file.Body)
}

var fileSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "locals"}, {Type: "retention"}, {Type: "limits"}, {Type: "platform", LabelNames: []string{"name"}},
	{Type: "template", LabelNames: []string{"name"}}, {Type: "customer", LabelNames: []string{"name"}},
	{Type: "declaration"}, {Type: "moved"}, {Type: "import"}, {Type: "released"},
}}

func (l *loader) addBody(body hcl.Body) {
	content, diags := body.Content(l.schema)
	l.contentDiags(diags)
	for _, b := range content.Blocks {
		if b.Type != "locals" {
			l.blocks = append(l.blocks, l.block(b, ""))
			continue
		}
		attrs, diags := b.Body.JustAttributes()
		l.contentDiags(diags)
		for name, attr := range attrs {
			if first := l.locals[name]; first != nil {
				l.report(attr.NameRange, nil, "Duplicate local value", "The local value %s is set at %s:%d already.", quote(name), first.attr.Range.Filename, first.attr.Range.Start.Line)
				continue
			}
			l.locals[name] = &local{attr: attr}
		}
	}
}

// contentDiags takes over what HCL found wrong in the structure of a block.
func (l *loader) contentDiags(diags hcl.Diagnostics) {
	if diags.HasErrors() {
		l.partial = true
	}
	l.diags = append(l.diags, diags...)
}

// prepare looks for what can't be evaluated, and evaluates the local values.
func (l *loader) prepare() {
	locals := make([]*local, 0, len(l.locals))
	for _, v := range l.locals {
		locals = append(locals, v)
	}
	slices.SortFunc(locals, func(a, b *local) int { return compareRanges(&a.attr.Range, &b.attr.Range) })
	for _, v := range locals {
		if !l.inspect(v.attr.Expr, false) {
			l.broken[v.attr.Expr] = true
		}
	}
	for _, b := range l.blocks {
		l.inspectBlock(b, false)
	}
	for _, v := range locals {
		if _, p := l.local(v, v.attr.NameRange); p != nil {
			l.partial = true
		}
	}
}

// finish evaluates and resolves what was added.
func (l *loader) finish() (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	l.prepare()
	for _, b := range l.blocks {
		switch b.kind {
		case "retention":
			l.retention(b)
		case "limits":
			l.limits(b)
		case "platform":
			l.platform(b)
		case "template":
			l.template(b)
		case "customer":
			for in := range l.instances(b, nil) {
				l.customer(b, in)
			}
		case "declaration":
			l.declaration(b)
		case "moved":
			l.moved(b)
		case "import":
			l.imported(b)
		case "released":
			l.release(b)
		}
	}
	l.resolveParents()
	for _, p := range l.projects {
		l.resolve(p)
	}
	l.resolveOwnership()
	if len(l.objects) == 0 && len(l.own.released) == 0 && !l.diags.HasErrors() {
		l.diags = append(l.diags, l.nothingDeclared())
	}
	l.sortDiags()
	if l.diags.HasErrors() {
		return nil, l.sources, l.diags
	}
	snapshot := registry.Declare(l.objects)
	l.own.tell(snapshot)
	return snapshot, l.sources, l.diags
}

// nothingDeclared refuses a declaration without objects: a file that was truncated must not retire a whole estate.
func (l *loader) nothingDeclared() *hcl.Diagnostic {
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Nothing declared",
		Detail:   "The declaration has no customer, retention, limits or platform block. Begin with: customer \"NAME\" { … }",
	}
	if names := sortedKeys(l.sources.Files); len(names) > 0 {
		d.Subject = &hcl.Range{Filename: names[0], Start: hcl.InitialPos, End: hcl.InitialPos}
	}
	return d
}

// declare adds an object that a block declares. It reports a second one at the same address.
func (l *loader) declare(o registry.Object, from origin) bool {
	if len(l.objects) >= maxObjects {
		if !l.stopped {
			l.report(*from.rng, nil, "Too many objects", "A declaration may have up to %d objects.", maxObjects)
		}
		l.stopped = true
		return false
	}
	addr := o.Address()
	if first, ok := l.declared[addr]; ok {
		l.report(*from.rng, from.in, "Duplicate "+string(addr.Kind), "%s is declared at %s already.", addr, first)
		return false
	}
	l.declared[addr] = &from
	l.objects = append(l.objects, o)
	return true
}

// report adds a diagnostic. Of many alike at one place, as a for_each yields, it keeps the first three.
func (l *loader) report(rng hcl.Range, in *each, summary, detail string, args ...any) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &rng}
	if in != nil {
		d.Detail += " This is about the element" + element(in) + "."
	}
	at := place{summary, rng}
	if l.told[at]++; l.told[at] <= 3 {
		l.diags = append(l.diags, d)
	}
	return d
}

func (l *loader) reportProblem(p *problem, context hcl.Range, in *each) {
	if p.silent {
		return
	}
	l.report(p.rng, in, p.summary, "%s", p.detail).Context = &context
}

func (l *loader) sortDiags() {
	last := map[place]*hcl.Diagnostic{}
	for _, d := range l.diags {
		if d.Subject != nil {
			last[place{d.Summary, *d.Subject}] = d
		}
	}
	for at, n := range l.told {
		if n > 3 {
			last[at].Detail += fmt.Sprintf(" There are %d more like this.", n-3)
		}
	}
	slices.SortStableFunc(l.diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return cmp.Compare(btoi(a.Subject != nil), btoi(b.Subject != nil))
		}
		return compareRanges(a.Subject, b.Subject)
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareRanges(a, b *hcl.Range) int {
	return cmp.Or(strings.Compare(a.Filename, b.Filename), cmp.Compare(a.Start.Byte, b.Start.Byte))
}

// options returns the names that could have been meant, or none when they are too many to compare with.
func options[V any](m map[string]V) []string {
	if len(m) > 1000 {
		return nil
	}
	return sortedKeys(m)
}

// didYouMean is a sentence with the option that given is a misspelling of, or "".
func didYouMean(given string, options []string) string {
	if len(given) > 128 {
		return ""
	}
	best, nearest := max(1, min(3, len(given)/2)), ""
	for _, option := range options {
		if d := levenshtein.Distance(strings.ToLower(given), strings.ToLower(option), nil); d <= best && (d < best || nearest == "") {
			best, nearest = d, option
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %s?", quote(nearest))
}

// elseAmong is a sentence that helps with an unknown name: the nearest option, or all when they are few.
func elseAmong(given string, options []string) string {
	if s := didYouMean(given, options); s != "" {
		return s
	}
	if len(options) == 0 || len(options) > 12 {
		return ""
	}
	quoted := make([]string, len(options))
	for i, o := range options {
		quoted[i] = quote(o)
	}
	return " There are " + strings.Join(quoted, ", ") + "."
}

// quote shows input in a message: escaped, and cut when long.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}
