package config

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"golang.org/x/text/unicode/norm"

	"github.com/nsready/nsready/engine/registry"
)

// MaxFile is how many bytes a file of a declaration may have.
const MaxFile = maxFileSize

// Unsaid is something of a registry that a declaration cannot say as it is, because another program wrote it.
type Unsaid struct {
	Address registry.Address `json:"address"`
	Field   string           `json:"field,omitempty"` // "" for the whole object, and all that is in it
	Reason  string           `json:"reason"`
}

// Write writes the declaration of all that a snapshot holds, retired or not, in the style of Format: reading it yields the same
// objects. Objects among the snapshot's References are referred to. What cannot be said is left out, with a comment in its place, and returned. It writes as it goes: beside the
// snapshot it needs memory for the largest block alone.
func Write(w io.Writer, s *registry.Snapshot) ([]Unsaid, error) {
	out := &writer{out: bufio.NewWriterSize(w, 64<<10), s: s, first: true, references: map[registry.Address]bool{}, others: map[registry.Address][]string{}}
	for _, r := range s.References {
		out.references[r.Address] = true
		if project, ok := r.Address.Parent(); ok && r.Address.Kind == registry.KindParameter {
			out.others[project] = append(out.others[project], r.Address.Name())
		}
	}
	out.findParents()
	out.findGateways()
	if s.Owner != "" && s.Owner != registry.DefaultOwner {
		b := &body{w: out}
		b.set("name", "name", quoteText(s.Owner))
		out.plain(b, "declaration")
	}
	if s.Retention != nil {
		out.retention(s.Retention)
	}
	if s.Limits != nil {
		out.limits(s.Limits)
	}
	if s.Policy != nil {
		out.policy(s.Policy)
	}
	if s.Discovery != nil {
		out.discovery(s.Discovery)
	}
	for _, p := range s.Platform {
		out.platform(p)
	}
	for _, c := range s.Customers {
		out.customer(c)
	}
	out.strays()
	if out.first {
		out.line("# There is nothing to declare.")
	}
	if err := out.out.Flush(); err != nil {
		return nil, fmt.Errorf("writing the declaration: %w", err)
	}
	return out.unsaid, nil
}

// writer writes blocks, outermost first. Errors are the buffer's, which keeps them.
type writer struct {
	out    *bufio.Writer
	s      *registry.Snapshot
	unsaid []Unsaid
	depth  int  // of the blocks that are open
	first  bool // nothing stands before in the block that is open

	references map[registry.Address]bool     // objects that others manage
	others     map[registry.Address][]string // short names of parameters among them, by project

	parents  map[string]string // why the parent of a customer cannot be said, by the customer's name
	gateways map[string]string // the same of a device's gateway, by the device's path
}

// body is the attributes of a block, and what must be said about them.
type body struct {
	w        *writer
	addr     registry.Address
	prefix   string // of the names of its fields
	attrs    []attribute
	comments []string
}

type attribute struct {
	name  string
	value string // an expression; of several lines when it is a list or an object
}

// omit leaves a field, or with "" the whole object, out.
func (b *body) omit(field, reason string, args ...any) {
	if field != "" {
		field = b.prefix + field
	}
	u := Unsaid{b.addr, field, fmt.Sprintf(reason, args...)}
	b.w.unsaid = append(b.w.unsaid, u)
	b.comments = append(b.comments, comment(u))
}

// comment is one line, whatever is in the names.
func comment(u Unsaid) string {
	what := u.Address.String()
	if u.Field != "" {
		what = u.Field
	}
	return oneLine("# NOT DECLARED: " + what + ": " + u.Reason)
}

// oneLine escapes what would not be seen, or not stay on the line, of a comment.
func oneLine(text string) string {
	if len(text) > 4<<10 {
		text = strings.ToValidUTF8(text[:4<<10], "") + "…"
	}
	if !utf8.ValidString(text) || strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 || !norm.NFC.IsNormalString(text) {
		text = strings.Trim(strconv.QuoteToASCII(text), `"`)
	}
	return text
}

// set adds an attribute, unless its line would be longer than a file may have.
func (b *body) set(field, name, value string) {
	for line := range strings.SplitSeq(value, "\n") {
		if len(line)+len(name)+2*b.w.depth+8 > maxLine {
			b.omit(field, "it takes more than the %d bytes that a line may have", maxLine)
			return
		}
	}
	b.attrs = append(b.attrs, attribute{name, value})
}

// text adds a text of at most limit bytes; "" is no text.
func (b *body) text(name, value string, limit int) {
	if value == "" {
		return
	}
	if why := textFault(value, limit); why != "" {
		b.omit(name, "the text %s", why)
		return
	}
	b.set(name, name, quoteText(value))
}

// word adds an identifier, unless it is what holds without.
func (b *body) word(name, value, fallback string) {
	if value == fallback && fallback != "" {
		return
	}
	why := textFault(value, maxName)
	switch {
	case value == "":
		why = "is empty"
	case why == "" && strings.TrimSpace(value) != value:
		why = "begins or ends with a space"
	}
	if why != "" {
		b.omit(name, "%s %s", quote(value), why)
		return
	}
	b.set(name, name, quoteText(value))
}

func textFault(s string, limit int) string {
	if len(s) > limit {
		return fmt.Sprintf("has %d bytes, and may have up to %d", len(s), limit)
	}
	if !utf8.ValidString(s) {
		return "is no UTF-8"
	}
	if r, found := registry.ControlIn(s, limit != maxName); found {
		return fmt.Sprintf("contains the control character %U", r)
	}
	return ""
}

// object adds a JSON object in canonical form; "" is none.
func (b *body) object(name, text string) {
	if text == "" {
		return
	}
	expr, why := objectText(text)
	if why != "" {
		b.omit(name, "%s", why)
		return
	}
	b.set(name, name, expr)
}

// choice adds one of a few words; the first is what holds without.
func (b *body) choice(name, value string, options ...string) {
	switch {
	case !slices.Contains(options, value):
		b.omit(name, "%s is none of %s", quote(value), quoteAll(options))
	case value != options[0]:
		b.set(name, name, quoteText(value))
	}
}

// number adds a number, and reports whether it could.
func (b *body) number(field, name string, v float64) bool {
	if why := numberFault(v); why != "" {
		b.omit(field, "%s", why)
		return false
	}
	b.set(field, name, numberText(v))
	return true
}

func (b *body) precision(v registry.Bound) {
	if v.Set && (v.Value < 0 || v.Value > registry.MaxPrecision || v.Value != math.Trunc(v.Value)) {
		b.omit("precision", "%s is no whole number from 0 to %d", v, registry.MaxPrecision)
		return
	}
	b.bound("precision", v)
}

func (b *body) bound(name string, v registry.Bound) bool {
	return v.Set && b.number(name, name, v.Value)
}

func numberFault(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return fmt.Sprintf("%g is no number", v)
	case v == 0 && math.Signbit(v):
		return "-0 is written 0"
	}
	return ""
}

// duration adds a duration that must be at least least, unless it is zero.
func (b *body) duration(name string, d, least time.Duration) bool {
	if d == 0 {
		return false
	}
	text := registry.FormatDuration(d)
	if again, why := parseDuration(text); why != "" || again != d || d < least {
		b.omit(name, "%s is not at least %s, whole milliseconds and less than 100 years", d, max(least, time.Millisecond))
		return false
	}
	b.set(name, name, `"`+text+`"`)
	return true
}

// open begins a block that is called name, and returns false when it cannot be called so. b's attributes come first.
func (w *writer) open(b *body, kind, name string) bool {
	if why := registry.NameFault(name); why != "" {
		w.skip(b, "the name %s %s", quote(name), why)
		return false
	}
	if !norm.NFC.IsNormalString(name) { // a label is normalised; a text that a function yields is not
		if !slices.ContainsFunc(schemas[kind].Attributes, func(a hcl.AttributeSchema) bool { return a.Name == "name" }) {
			w.skip(b, "the name %s is not in Unicode's normal form C", quote(name))
			return false
		}
		b.attrs = slices.Insert(b.attrs, 0, attribute{"name", quoteText(name)})
		name = norm.NFC.String(name)
	}
	w.begin(kind + " " + quoteText(name))
	w.attributes(b)
	return true
}

// skip leaves an object out.
func (w *writer) skip(b *body, reason string, args ...any) {
	b.comments = nil
	b.omit("", reason, args...)
	w.blank()
	w.line(b.comments[0])
}

// begin opens a block; end closes it.
func (w *writer) begin(header string) {
	w.blank()
	w.line(header + " {")
	w.depth++
	w.first = true
}

func (w *writer) end() {
	w.depth--
	w.line("}")
	w.first = false
}

// blank separates what comes from what stands before.
func (w *writer) blank() {
	if !w.first {
		w.out.WriteByte('\n')
	}
	w.first = false
}

func (w *writer) line(text string) {
	for range w.depth {
		w.out.WriteString("  ")
	}
	w.out.WriteString(text)
	w.out.WriteByte('\n')
}

// attributes writes them as Format aligns them: one-line ones that follow each other share a column.
func (w *writer) attributes(b *body) {
	for _, c := range b.comments {
		w.line(c)
		w.first = false
	}
	for i := 0; i < len(b.attrs); {
		n, width := i, 0
		for ; n < len(b.attrs) && !strings.Contains(b.attrs[n].value, "\n"); n++ {
			width = max(width, len(b.attrs[n].name))
		}
		for ; i < n; i++ {
			w.line(b.attrs[i].name + strings.Repeat(" ", width-len(b.attrs[i].name)) + " = " + b.attrs[i].value)
		}
		if i < len(b.attrs) {
			text := hclwrite.Format([]byte(b.attrs[i].name + " = " + b.attrs[i].value))
			for line := range strings.SplitSeq(string(text), "\n") {
				w.line(line)
			}
			i++
		}
		w.first = false
	}
}

// block writes a block without children.
func (w *writer) block(b *body, kind, name string) {
	if w.open(b, kind, name) {
		w.end()
	}
}

// plain writes a block without name or children, if it has attributes.
func (w *writer) plain(b *body, kind string) {
	if len(b.attrs) > 0 || len(b.comments) > 0 {
		w.begin(kind)
		w.attributes(b)
		w.end()
	}
}

func (w *writer) retention(r *registry.Retention) {
	b := &body{w: w, addr: r.Addr}
	least := time.Hour
	if !b.duration("raw", r.Raw, least) {
		w.skip(b, "raw is %s, and must be at least %s", r.Raw, least)
		return
	}
	if r.CompressAfter < r.Raw {
		b.duration("compress_after", r.CompressAfter, least)
	} else {
		b.omit("compress_after", "it is %s, which is not shorter than raw", r.CompressAfter)
	}
	w.plain(b, "retention")
}

func (w *writer) limits(l *registry.Limits) {
	b := &body{w: w, addr: l.Addr}
	connections := b.most("connections", l.Connections, maxConnections)
	if per := l.ConnectionsPerAddress; connections && per > l.Connections {
		b.omit("connections_per_address", "%d is above connections", per)
	} else {
		b.most("connections_per_address", per, maxConnections)
	}
	device := b.rate("device.", l.Device)
	customer := b.rate("customer.", l.Customer)
	if len(b.attrs) == 0 && device == nil && customer == nil {
		w.skip(b, "nothing that it sets can be said")
		return
	}
	w.begin("limits")
	w.attributes(b)
	w.rate("device", device)
	w.rate("customer", customer)
	w.end()
}

func (w *writer) policy(p *registry.Policy) {
	b := &body{w: w, addr: p.Addr}
	b.set("require_saved_plan", "require_saved_plan", strconv.FormatBool(p.RequireSavedPlan))
	w.plain(b, "policy")
}

// rate returns the attributes of a rate whose fields begin with prefix, or nil when there is none.
func (b *body) rate(prefix string, r registry.Rate) *body {
	if r == (registry.Rate{}) {
		return nil
	}
	if !r.Valid() {
		b.omit(prefix+"events_per_second", "%g events a second with a burst of %d are no valid limit", r.PerSecond, r.Burst)
		return nil
	}
	in := &body{w: b.w, addr: b.addr}
	in.set("", "events_per_second", numberText(r.PerSecond))
	in.set("", "burst", strconv.FormatInt(r.Burst, 10))
	return in
}

func (w *writer) rate(kind string, rate *body) {
	if rate != nil {
		w.plain(rate, kind)
	}
}

func (w *writer) platform(p *registry.Platform) {
	b := &body{w: w, addr: p.Addr}
	metric := p.Addr.Name()
	if _, known := platformMetrics[metric]; !known {
		w.skip(b, "the platform has no such metric")
		return
	}
	said := b.platformLimit(metric, "warning", p.Warning)
	if p.Warning.Set && p.Critical.Set && p.Critical.Value < p.Warning.Value {
		b.omit("critical", "%s is below warning", p.Critical)
	} else {
		said = b.platformLimit(metric, "critical", p.Critical) || said
	}
	if !said {
		w.skip(b, "none of its limits can be said")
		return
	}
	w.block(b, "platform", metric)
}

// platformLimit writes a limit as platformMetrics reads it.
func (b *body) platformLimit(metric, name string, v registry.Bound) bool {
	if !v.Set {
		return false
	}
	if why := numberFault(v.Value); why != "" {
		b.omit(name, "%s", why)
		return false
	}
	switch metric {
	case "queue_depth":
		if v.Value < 0 || v.Value != math.Trunc(v.Value) {
			b.omit(name, "%s is no whole number", v)
			return false
		}
		return b.number(name, name, v.Value)
	case "latency_p95":
		if v.Value <= 0 || v.Value > maxPeriod.Seconds() {
			b.omit(name, "%s seconds are no duration", v)
			return false
		}
		d := time.Duration(math.Round(v.Value * float64(time.Second)))
		if d.Seconds() != v.Value {
			b.omit(name, "%s seconds are no whole milliseconds", v)
			return false
		}
		return b.duration(name, d, time.Millisecond)
	}
	if v.Value < 0 || v.Value > 100 {
		b.omit(name, "%s is no percentage", v)
		return false
	}
	b.set(name, name, `"`+numberText(v.Value)+`%"`)
	return true
}

// findParents finds the customers whose parent cannot be said.
func (w *writer) findParents() {
	parent := make(map[string]string, len(w.s.Customers))
	w.parents = map[string]string{}
	for _, c := range w.s.Customers {
		parent[c.Addr.Name()] = c.Parent
	}
	next := func(name string) string {
		if _, exists := parent[parent[name]]; !exists {
			return ""
		}
		return parent[name]
	}
	passed := make(map[string]bool, len(w.s.Customers))
	for _, c := range w.s.Customers {
		for _, name := range findCycle(c.Addr.Name(), next, passed) {
			w.parents[name] = "following the parents leads back to this customer"
		}
		if _, exists := parent[c.Parent]; c.Parent == "" {
			continue
		} else if !exists && registry.NameFault(c.Parent) == "" {
			w.parents[c.Addr.Name()] = "" // said, and for another file to declare
		} else if why := registry.NameFault(c.Parent); why != "" {
			w.parents[c.Addr.Name()] = "its name " + why
		}
	}
}

func (w *writer) customer(c *registry.Customer) {
	b := &body{w: w, addr: c.Addr}
	if w.references[c.Addr] {
		c = &registry.Customer{Addr: c.Addr}
		b.set("reference", "reference", "true")
	}
	if why, odd := w.parents[c.Addr.Name()]; c.Parent == "" || !odd || why == "" {
		if odd && c.Parent != "" {
			b.omit("parent", "the customer %s is not declared here: another file of the same directory must do it", quote(c.Parent))
		}
		b.text("parent", c.Parent, maxName)
	} else {
		b.omit("parent", "%s: %s", quote(c.Parent), why)
	}
	b.object("metadata", c.Metadata)
	all, device := b.rate("limits.", c.Rate), b.rate("limits.device.", c.DeviceRate)
	if !w.open(b, "customer", c.Addr.Name()) {
		return
	}
	if all != nil || device != nil {
		w.begin("limits")
		if all != nil {
			w.attributes(all)
		}
		w.rate("device", device)
		w.end()
	}
	w.lifecycle(c.Lifecycle)
	for _, p := range inside(w.s.Projects, c.Addr.Path) {
		w.project(p)
	}
	w.end()
}

// inside returns the objects whose path begins with that of what they are in.
func inside[O registry.Object](list []O, path string) []O {
	at := func(prefix string) int {
		i, _ := slices.BinarySearchFunc(list, prefix, func(o O, prefix string) int { return cmp.Compare(o.Address().Path, prefix) })
		return i
	}
	return list[at(path+"/"):at(path+string('/'+1))]
}

func (w *writer) project(p *registry.Project) {
	b := &body{w: w, addr: p.Addr}
	if w.references[p.Addr] {
		b.set("reference", "reference", "true")
		p = &registry.Project{Addr: p.Addr}
	}
	b.text("description", p.Description, maxText)
	if !w.open(b, "project", p.Addr.Name()) {
		return
	}
	w.lifecycle(p.Lifecycle)
	parameters := map[string]*parameter{} // by short name, as reading will find them
	for _, p := range inside(w.s.Parameters, p.Addr.Path) {
		if said := w.parameter(p); said != nil {
			parameters[said.short] = said
		}
	}
	for _, short := range w.others[p.Addr] {
		parameters[short] = &parameter{short: short} // of whose interval reading knows nothing
	}
	for _, s := range inside(w.s.Sites, p.Addr.Path) {
		w.site(s, parameters)
	}
	w.end()
}

// parameter returns what a device's list of parameters refers to, or nil when it cannot be said.
func (w *writer) parameter(p *registry.Parameter) *parameter {
	b := &body{w: w, addr: p.Addr}
	short := p.Addr.Name()
	if registry.ShortName(short) != short || !norm.NFC.IsNormalString(short) {
		w.skip(b, "its key ends in %s, and a declared one is in lower case, without spaces, in Unicode's normal form C", quote(short))
		return nil
	}
	switch why := registry.NameFault(p.Name); {
	case why != "":
		b.omit("name", "%s %s", quote(p.Name), why)
	case p.Name != short:
		b.set("name", "name", quoteText(p.Name))
	}
	b.text("unit", p.Unit, maxName)
	b.choice("type", string(p.Type), string(registry.TypeFloat), string(registry.TypeInt), string(registry.TypeBool))
	said := &parameter{short: short}
	if b.bound("min", p.Min) {
		said.proto.Min = p.Min
	}
	if p.Min.Set && p.Max.Set && p.Max.Value < p.Min.Value {
		b.omit("max", "%s is below min", p.Max)
	} else if b.bound("max", p.Max) {
		said.proto.Max = p.Max
	}
	b.precision(p.Precision)
	if p.Required {
		b.set("required", "required", "true")
	}
	if b.duration("interval", p.Interval, time.Millisecond) {
		said.proto.Interval = p.Interval
	}
	b.duration("stale_after", p.StaleAfter, time.Millisecond)
	b.text("description", p.Description, maxText)
	b.choice("on_violation", string(p.OnViolation), string(registry.Flag), string(registry.Reject), string(registry.Accept))
	if p.Quality > 0 {
		b.set("default_quality", "default_quality", strconv.Itoa(int(p.Quality)))
	}
	if !w.open(b, "parameter", short) {
		return nil
	}
	w.lifecycle(p.Lifecycle)
	for _, t := range inside(w.s.Thresholds, p.Addr.Path) {
		w.threshold(t)
	}
	w.end()
	return said
}

func (w *writer) threshold(t *registry.Threshold) {
	b := &body{w: w, addr: t.Addr}
	said := b.bound("above", t.Above)
	if t.Above.Set && t.Below.Set && t.Below.Value >= t.Above.Value {
		b.omit("below", "%s is not less than above", t.Below)
	} else {
		said = b.bound("below", t.Below) || said
	}
	if !said {
		w.skip(b, "it has no limit that can be said")
		return
	}
	b.duration("for", t.For, 0)
	if t.Deadband < 0 {
		b.omit("deadband", "%g is negative", t.Deadband)
	} else if t.Deadband != 0 {
		b.number("deadband", "deadband", t.Deadband)
	}
	b.choice("severity", t.Severity, "warning", "critical")
	w.block(b, "threshold", t.Addr.Name())
}

func (w *writer) site(s *registry.Site, parameters map[string]*parameter) {
	b := &body{w: w, addr: s.Addr}
	if w.references[s.Addr] {
		b.set("reference", "reference", "true")
		s = &registry.Site{Addr: s.Addr}
	}
	b.object("location", s.Location)
	if !w.open(b, "site", s.Addr.Name()) {
		return
	}
	w.lifecycle(s.Lifecycle)
	for _, d := range inside(w.s.Devices, s.Addr.Path) {
		w.device(d, parameters)
	}
	w.end()
}

func (w *writer) device(d *registry.Device, parameters map[string]*parameter) {
	b := &body{w: w, addr: d.Addr}
	b.word("type", d.Type, "")
	if len(b.attrs) == 0 {
		b.set("type", "type", `"unknown"`) // one is required
	}
	b.externalID(d.ExternalID)
	b.word("status", d.State, "active")
	if why, odd := w.gateways[d.Addr.Path]; odd {
		b.omit("gateway", "%s: %s", d.Gateway, why)
	} else if d.Gateway != (registry.Address{}) {
		b.set("gateway", "gateway", quoteText(gatewayText(d.Addr, d.Gateway)))
	}
	names := b.parameters(d.Parameters, parameters)
	overrides, bodies := b.overrides(d, names, parameters)
	switch least := smallestInterval(&registry.Device{Parameters: names, Overrides: overrides}, parameters); {
	case d.Interval == least:
	case d.Interval == 0:
		b.omit("interval", "it has none, and without one it is the %s of its parameters", least)
	default:
		b.duration("interval", d.Interval, time.Millisecond)
	}
	if len(names) > 0 {
		b.set("parameters", "parameters", list(names))
	}
	limits := b.rate("limits.", d.Rate)
	if !w.open(b, "device", d.Addr.Name()) {
		return
	}
	w.rate("limits", limits)
	w.lifecycle(d.Lifecycle)
	for i, o := range overrides {
		w.begin("override " + quoteText(o.Parameter))
		w.attributes(bodies[i])
		w.end()
	}
	w.end()
}

// overrides returns what can be said of a device's overrides, and the attributes of the blocks that say it.
func (b *body) overrides(d *registry.Device, names []string, parameters map[string]*parameter) (said []registry.Override, bodies []*body) {
	for _, o := range d.Overrides {
		in := &body{w: b.w, addr: b.addr, prefix: "override." + o.Parameter + "."}
		p := parameters[o.Parameter]
		if p == nil || len(d.Parameters) > 0 && !slices.Contains(names, o.Parameter) {
			b.omit("override."+o.Parameter, "the device sends no such parameter that its project declares")
			continue
		}
		if own := o.Apply(&p.proto); own.Min.Set && own.Max.Set && own.Max.Value < own.Min.Value {
			in.omit("max", "with this override max is %s, below min, which is %s", own.Max, own.Min)
			o.Min, o.Max = registry.Bound{}, registry.Bound{}
		}
		in.bound("min", o.Min)
		in.bound("max", o.Max)
		if !in.duration("interval", o.Interval, time.Millisecond) {
			o.Interval = 0
		}
		in.duration("stale_after", o.StaleAfter, time.Millisecond)
		if o.OnViolation != "" {
			in.set("on_violation", "on_violation", quoteText(string(o.OnViolation)))
		}
		in.bound("default_quality", o.Quality)
		if len(in.attrs) == 0 {
			b.comments = append(b.comments, in.comments...)
			continue
		}
		said, bodies = append(said, o), append(bodies, in)
	}
	return said, bodies
}

func (w *writer) lifecycle(l registry.Lifecycle) {
	if l.PreventDestroy {
		b := &body{w: w}
		b.set("", "prevent_destroy", "true")
		w.plain(b, "lifecycle")
	}
}

// parameters returns the names of a device's parameters that its project declares.
func (b *body) parameters(names []string, declared map[string]*parameter) []string {
	const most = 10_000
	if len(names) > most {
		b.omit("parameters", "it lists %d, and may list up to %d", len(names), most)
		return nil
	}
	var unknown []string
	known := make([]string, 0, len(names))
	for i, name := range names {
		switch {
		case declared[name] == nil:
			unknown = append(unknown, quote(name))
		case slices.Contains(names[:i], name):
			unknown = append(unknown, quote(name)+" a second time")
		default:
			known = append(known, name)
		}
	}
	if n := len(unknown); n > 0 {
		const shown = 5
		if n > shown {
			unknown = append(unknown[:shown], fmt.Sprintf("and %d more", n-shown))
		}
		b.omit("parameters", "its project has no parameter %s", strings.Join(unknown, ", "))
	}
	return known
}

// strays are objects that are in nothing that is there.
func (w *writer) strays() {
	stray := func(a registry.Address, reason string) { w.skip(&body{w: w, addr: a}, "%s", reason) }
	in := func(found bool, a registry.Address, what string) {
		if !found {
			stray(a, "there is no "+what+" that it is in")
		}
	}
	for _, p := range w.s.Projects {
		in(has(w.s.Customers, p.Addr), p.Addr, "customer")
	}
	for _, s := range w.s.Sites {
		in(has(w.s.Projects, s.Addr), s.Addr, "project")
	}
	for _, p := range w.s.Parameters {
		in(has(w.s.Projects, p.Addr), p.Addr, "project")
	}
	for _, t := range w.s.Thresholds {
		in(has(w.s.Parameters, t.Addr), t.Addr, "parameter")
	}
	for _, d := range w.s.Devices {
		in(has(w.s.Sites, d.Addr), d.Addr, "site")
	}
}

// has reports whether a list sorted by address holds what the object at a is in.
func has[O registry.Object](list []O, a registry.Address) bool {
	if !strings.Contains(a.Path, "/") {
		return false
	}
	_, found := slices.BinarySearchFunc(list, a.ParentPath(), func(o O, path string) int { return cmp.Compare(o.Address().Path, path) })
	return found
}
