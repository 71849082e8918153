package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

const maxObjects = 2_000_000 // of one declaration

// A loader gathers the blocks of all files, then evaluates them, then resolves what refers to what.
type loader struct {
	schema  *hcl.BodySchema                    // of the declaration's own files
	read    func(name string) ([]byte, error)  // a file below the declaration's directory
	list    func(dir string) ([]string, error) // the names of the *.hcl files of a directory there
	display func(name string) string           // what messages call such a file
	env     func(name string) string
	lints   bool // what was read is kept for lint

	sources *Sources
	diags   hcl.Diagnostics
	told    map[place]int // how often a diagnostic was reported at a place
	partial bool          // something could not be read: what refers to it must not be called unknown
	stopped bool          // a limit was reached, and reported

	root    *module
	scope   *scope                     // in which names are looked up
	modules map[moduleKey]*module      // that were read; nil for one that could not be
	reading []moduleKey                // those that are being read, inside one another
	uses    int                        // of modules
	given   map[string]given           // values from outside, by variable
	size    int                        // bytes of the source files
	pieces  map[string]map[int][]piece // by file and the offset of the { around them
	broken  map[hcl.Expression]bool    // inspect refused them

	steps, bytes, chain int
	texts               map[string]string // of files that were read
	fromEnv             map[string]string // values of environment variables that were read

	objects   []registry.Object
	origins   []origin                           // of what is declared or referred to
	declared  map[registry.Kind]map[string]int32 // which of origins, by path
	external  map[string]int32                   // the same, by external id
	durations map[string]time.Duration           // texts that were read
	projects  []*project
	gateways  []gateway // that devices name
	customers map[string]*customer
	templates []*template // of all modules
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
	root := newModule(".", "")
	return &loader{
		schema:    fileSchema,
		root:      root,
		display:   func(name string) string { return name },
		modules:   map[moduleKey]*module{},
		sources:   &Sources{Files: map[string]*hcl.File{}},
		told:      map[place]int{},
		pieces:    map[string]map[int][]piece{},
		broken:    map[hcl.Expression]bool{},
		texts:     map[string]string{},
		fromEnv:   map[string]string{},
		declared:  map[registry.Kind]map[string]int32{},
		external:  map[string]int32{},
		durations: map[string]time.Duration{},
		customers: map[string]*customer{},
		own:       newOwnership(),
	}
}

// refuse ends a load that could not begin.
func (l *loader) refuse(summary, detail string, args ...any) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	return nil, l.sources, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...)}}
}

// add takes one file of the declaration itself in.
func (l *loader) add(filename string, src []byte) { l.addTo(l.root, filename, src) }

// addTo takes one file of a module in.
func (l *loader) addTo(m *module, filename string, src []byte) {
	if diags := l.checkSize(filename, len(src)); diags.HasErrors() {
		l.sources.Files[filename] = &hcl.File{Bytes: src}
		l.contentDiags(diags)
		return
	}
	file, pieces, diags := parse(filename, src)
	l.sources.Files[filename] = file
	bySite := map[int][]piece{}
	for i, from := 0, 0; i < len(pieces); i++ {
		if i+1 == len(pieces) || pieces[i+1].site != pieces[i].site {
			bySite[pieces[i].site] = append(bySite[pieces[i].site], pieces[from:i+1]...)
			from = i + 1
		}
	}
	l.pieces[filename] = bySite
	l.diags = append(l.diags, diags...)
	if diags.HasErrors() {
		l.partial = true
		return
	}
	l.addBody(m, file.Body)
}

var fileSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "locals"}, {Type: "retention"}, {Type: "limits"}, {Type: "policy"}, {Type: "discovery"}, {Type: "platform", LabelNames: []string{"name"}},
	{Type: "template", LabelNames: []string{"name"}}, {Type: "customer", LabelNames: []string{"name"}},
	{Type: "declaration"}, {Type: "moved"}, {Type: "import"}, {Type: "released"},
	{Type: "variable", LabelNames: []string{"name"}}, {Type: "module", LabelNames: []string{"name"}},
}}

func (l *loader) addBody(m *module, body hcl.Body) {
	schema := l.schema
	if m != l.root {
		schema = placeSchemas[m.place]
	}
	content, diags := body.Content(schema)
	l.contentDiags(diags)
	for _, b := range content.Blocks {
		switch b.Type {
		case "locals":
		case "variable":
			l.variable(m, l.block(b, m.place))
			continue
		default:
			m.blocks = append(m.blocks, l.block(b, m.place))
			continue
		}
		attrs, diags := b.Body.JustAttributes()
		l.contentDiags(diags)
		for name, attr := range attrs {
			if first := m.locals[name]; first != nil {
				l.report(attr.NameRange, nil, "Duplicate local value", "The local value %s is set at %s:%d already.", quote(name), first.Range.Filename, first.Range.Start.Line)
				continue
			}
			m.locals[name] = attr
		}
	}
}

// contentDiags takes over what HCL found wrong in the structure of a block.
func (l *loader) contentDiags(diags hcl.Diagnostics) {
	if diags.HasErrors() {
		l.partial = true
	}
	for _, d := range diags {
		if d.Subject != nil {
			at := place{d.Summary, *d.Subject}
			if l.told[at]++; l.told[at] > 1 { // a block that was parsed again
				l.told[at] = 1
				continue
			}
		}
		l.diags = append(l.diags, d)
	}
}

// prepare looks for what can't be evaluated, and evaluates the values of variables and the local ones.
func (l *loader) prepare() {
	l.inspectModule(l.root)
	l.scope = newScope(l.root, nil)
	l.bindInputs(l.given)
	l.evaluateLocals()
}

// finish evaluates and resolves what was added.
func (l *loader) finish() (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	l.prepare()
	l.declareAll(l.root.blocks, nil, l.top)
	l.openRest(l.root.blocks)
	for _, m := range l.modules {
		if m != nil {
			leave := l.enter(newScope(m, nil))
			l.openRest(m.blocks)
			leave()
		}
	}
	l.resolveParents()
	for _, p := range l.projects {
		l.resolve(p)
	}
	l.resolveGateways()
	l.resolveOwnership()
	if len(l.objects) == 0 && len(l.own.released) == 0 && !l.diags.HasErrors() {
		l.diags = append(l.diags, l.nothingDeclared())
	}
	l.sortDiags()
	if l.diags.HasErrors() {
		return nil, l.sources, l.diags
	}
	objects, own, sources, diags := l.objects, l.own, l.sources, l.diags
	if !l.lints {
		*l = loader{} // what is left is half of the memory
	}
	snapshot := registry.Declare(objects)
	own.tell(snapshot)
	return snapshot, sources, diags
}

// top declares a block of the outermost place.
func (l *loader) top(b *block, in *each) {
	switch b.kind {
	case "retention":
		l.retention(b)
	case "limits":
		l.limits(b)
	case "policy":
		l.policy(b)
	case "discovery":
		l.discovery(b)
	case "platform":
		l.platform(b, in)
	case "template":
		l.template(b, in)
	case "customer":
		l.customer(b, in)
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

// nothingDeclared refuses a declaration without objects: a file that was truncated must not retire a whole estate.
func (l *loader) nothingDeclared() *hcl.Diagnostic {
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Nothing declared",
		Detail:   "The declaration has no customer, retention, limits, policy, discovery or platform block. Begin with: customer \"NAME\" { … }",
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
	if first := l.declaredAt(addr); first != nil {
		l.report(*from.rng, from.in, "Duplicate "+string(addr.Kind), "%s is declared at %s already.", addr, first)
		return false
	}
	l.objects = append(l.objects, o)
	l.note(addr, from)
	return true
}

// declaredAt returns where an address was declared, or referred to as another declaration's, or nil.
func (l *loader) declaredAt(a registry.Address) *origin {
	if i, ok := l.declared[a.Kind][a.Path]; ok {
		return &l.origins[i]
	}
	return nil
}

// note keeps where an address was declared or referred to.
func (l *loader) note(a registry.Address, from origin) {
	paths := l.declared[a.Kind]
	if paths == nil {
		paths = map[string]int32{}
		l.declared[a.Kind] = paths
	}
	paths[a.Path] = int32(len(l.origins))
	l.origins = append(l.origins, from)
}

// expect makes room for n devices at once: a map that grows by and by to a million entries takes as long to grow as to fill.
func (l *loader) expect(kind registry.Kind, n int) {
	if kind != registry.KindDevice || n <= len(l.declared[kind]) {
		return
	}
	room := func(m map[string]int32) map[string]int32 {
		larger := make(map[string]int32, len(m)+n)
		maps.Copy(larger, m)
		return larger
	}
	l.declared[kind], l.external = room(l.declared[kind]), room(l.external)
	l.objects, l.origins = slices.Grow(l.objects, n), slices.Grow(l.origins, n)
}

// report adds a diagnostic. Of many alike at one place, as a for_each yields, it keeps the first three.
func (l *loader) report(rng hcl.Range, in *each, summary, detail string, args ...any) *hcl.Diagnostic {
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &rng}
	if in != nil {
		d.Detail += " This is about the element" + element(in) + "."
	}
	d.Detail = l.redact(d.Detail)
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
