package config

import (
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"golang.org/x/text/unicode/norm"

	"github.com/nsready/nsready/engine/registry"
)

const (
	maxName   = registry.MaxName
	maxText   = registry.MaxText
	maxJSON   = registry.MaxJSON
	maxDepth  = 32 // of metadata or location
	maxPeriod = 36500 * 24 * time.Hour
)

// block is one block of a file, its structure checked and nothing evaluated.
type block struct {
	kind   string
	label  string // "" for a block without one
	rng    hcl.Range
	name   hcl.Range // of the label
	attrs  hcl.Attributes
	blocks []*block
	pieces []piece    // blocks inside it that are parsed when they are wanted
	opened bool       // they were, once
	inEach bool       // it or a block around it has for_each
	outer  string     // type of the block around it
	module *module    // of a module block
	at     *hcl.Range // rng, for those that outlive the block
	places map[string]*hcl.Range
}

// place returns where the value of an attribute is written. It does not keep the block in memory.
func (b *block) place(name string) *hcl.Range {
	rng := b.places[name]
	if rng == nil {
		if b.places == nil {
			b.places = map[string]*hcl.Range{}
		}
		written := b.attrs[name].Expr.Range()
		rng = &written
		b.places[name] = rng
	}
	return rng
}

// schemas say what each block may contain, by its type.
var schemas = map[string]*hcl.BodySchema{
	"retention":  retentionSchema,
	"variable":   variableSchema,
	"validation": validationSchema,
	"limits":     limitsSchema,
	"policy":     policySchema,
	"discovery":  discoverySchema,
	"platform":   platformSchema,
	"template":   templateSchema,
	"parameter":  parameterSchema,
	"threshold":  thresholdSchema,
	"customer":   customerSchema,
	"project":    projectSchema,
	"site":       siteSchema,
	"device":     deviceSchema,
	"override":   overrideSchema,

	"declaration": declarationSchema,
	"moved":       movedSchema,
	"import":      importSchema,
	"released":    releasedSchema,
	"lifecycle":   lifecycleSchema,

	// These mean something else inside than outside.
	"limits in customer": customerLimitsSchema,
	"limits in device":   rateSchema,
	"device in limits":   rateSchema,
	"customer in limits": rateSchema,

	// In files of tests.
	"test":           testSchema,
	"series":         seriesSchema,
	"event":          eventSchema,
	"expect_error":   expectErrorSchema,
	"expect_alert":   expectAlertSchema,
	"expect_quality": expectQualitySchema,
	"expect":         expectSchema,
}

func attributes(required string, optional ...string) []hcl.AttributeSchema {
	var list []hcl.AttributeSchema
	if required != "" {
		list = append(list, hcl.AttributeSchema{Name: required, Required: true})
	}
	for _, name := range optional {
		list = append(list, hcl.AttributeSchema{Name: name})
	}
	return list
}

func labelled(types ...string) []hcl.BlockHeaderSchema {
	var list []hcl.BlockHeaderSchema
	for _, t := range types {
		list = append(list, hcl.BlockHeaderSchema{Type: t, LabelNames: []string{"name"}})
	}
	return list
}

// block checks the structure of a block and of those inside it. outer is the type of the block around it, "" for none.
func (l *loader) block(b *hcl.Block, outer string) *block {
	out := &block{kind: b.Type, outer: outer, rng: b.DefRange, at: &hcl.Range{}}
	*out.at = b.DefRange
	if len(b.Labels) > 0 {
		out.label, out.name = norm.NFC.String(b.Labels[0]), b.LabelRanges[0]
	}
	if b.Type == "module" { // its attributes are the variables of the module
		attrs, diags := b.Body.JustAttributes()
		l.contentDiags(diags)
		out.attrs = attrs
		return out
	}
	schema := schemas[b.Type+" in "+outer]
	if schema == nil {
		schema = schemas[b.Type]
	}
	content, diags := b.Body.Content(schema)
	for _, d := range diags {
		if d.Context == nil {
			d.Context = &out.rng
		}
	}
	l.contentDiags(diags)
	out.attrs = content.Attributes
	for _, inner := range content.Blocks {
		out.blocks = append(out.blocks, l.block(inner, b.Type))
	}
	if body, ok := b.Body.(*hclsyntax.Body); ok && b.Type == "site" {
		out.pieces = l.pieces[b.DefRange.Filename][body.SrcRange.Start.Byte]
	}
	return out
}

// inspectBlock looks for what can't be evaluated. inEach says that an outer block has for_each.
func (l *loader) inspectBlock(b *block, inEach bool) {
	inside := inEach || b.attrs["for_each"] != nil
	b.inEach = inside
	for name, attr := range b.attrs {
		if b.kind == "module" && name == "source" {
			continue // no expression
		}
		if !l.inspect(attr.Expr, inside && name != "for_each" || inEach) {
			l.broken[attr.Expr] = true
		}
	}
	if b.kind == "module" {
		l.inspectModuleBlock(b)
		return
	}
	if b.attrs["for_each"] != nil && b.attrs["name"] == nil {
		l.report(b.attrs["for_each"].NameRange, nil, "Missing name", "A %s with for_each needs a name that differs from element to element, such as name = each.value.name or name = \"%s-${each.key}\".", b.kind, b.label)
	}
	for _, inner := range b.blocks {
		l.inspectBlock(inner, inside)
	}
}

// instances yields an element for each time that a block is to be declared: once, in outer, without for_each.
func (l *loader) instances(b *block, outer *each) iter.Seq[*each] {
	return func(yield func(*each) bool) {
		attr := b.attrs["for_each"]
		if attr == nil {
			yield(outer)
			return
		}
		v, ok := l.evaluate(attr.Expr, outer)
		if !ok {
			l.partial = true
			return
		}
		next := func(key, value any) bool { return !l.stopped && yield(&each{key, value}) }
		if attributes, ok := object(v); ok {
			v = attributes
		}
		switch v := v.(type) {
		case []any:
			l.expect(registry.Kind(b.kind), len(v))
			for i, item := range v {
				if !next(float64(i), item) {
					return
				}
			}
		case set:
			for _, item := range v {
				if !next(item, item) {
					return
				}
			}
		case map[string]any:
			for _, key := range sortedKeys(v) {
				if !next(key, v[key]) {
					return
				}
			}
		default:
			l.partial = true
			l.report(attr.Expr.Range(), outer, "Wrong type", "for_each needs a list, a set or an object; this is %s.", describe(v))
		}
	}
}

// fields reads the attributes of one block in one element.
type fields struct {
	l  *loader
	b  *block
	in *each
}

func (f fields) origin() origin { return origin{f.b.at, f.in} }

// wrong reports an attribute's value. Problems with the attribute's name or absence are the schema's.
func (f fields) wrong(name, summary, detail string, args ...any) {
	attr := f.b.attrs[name]
	f.l.report(attr.Expr.Range(), f.in, summary, detail, args...).Context = &attr.Range
}

// value returns an attribute that is set and not null.
func (f fields) value(name string) (any, bool) {
	attr := f.b.attrs[name]
	if attr == nil {
		return nil, false
	}
	v, ok := f.l.evaluate(attr.Expr, f.in)
	return v, ok && v != nil
}

// required is value for an attribute that must not be null.
func (f fields) required(name string) (any, bool) {
	attr := f.b.attrs[name]
	if attr == nil {
		return nil, false
	}
	v, ok := f.l.evaluate(attr.Expr, f.in)
	if ok && v == nil {
		f.wrong(name, "Missing value", "%s must be set; it is null.", name)
	}
	return v, ok && v != nil
}

// name returns the name that the block declares: the attribute name where there is one, or the label.
func (f fields) name() (string, bool) {
	if f.b.attrs["name"] == nil {
		if f.b.attrs["for_each"] != nil {
			f.l.partial = true // inspectBlock reported it
			return "", false
		}
		ok := f.l.checkName(f.b.label, f.b.name, f.in)
		return f.b.label, ok
	}
	v, ok := f.required("name")
	if !ok {
		f.l.partial = true
		return "", false
	}
	s, ok := text(v)
	if !ok {
		f.l.partial = true
		f.wrong("name", "Wrong type", "A name is text; this is %s.", describe(v))
		return "", false
	}
	return s, f.l.checkName(s, f.b.attrs["name"].Expr.Range(), f.in)
}

func (l *loader) checkName(name string, rng hcl.Range, in *each) bool {
	why := registry.NameFault(name)
	if why == "" {
		return true
	}
	l.partial = true
	l.report(rng, in, "Invalid name", "The name %s %s.", quote(name), why)
	return false
}

// text returns an attribute as text of at most limit bytes.
func (f fields) text(name string, limit int) string {
	v, ok := f.value(name)
	if !ok {
		return ""
	}
	return f.asText(name, v, limit)
}

func (f fields) asText(name string, v any, limit int) string {
	s, ok := text(v)
	if _, isBool := v.(bool); !ok || isBool {
		f.wrong(name, "Wrong type", "%s is text; this is %s.", name, describe(v))
		return ""
	}
	if len(s) > limit {
		f.wrong(name, "Value too large", "%s may have up to %d bytes; this has %d.", name, limit, len(s))
		return ""
	}
	if r, found := registry.ControlIn(s, limit != maxName); found {
		f.wrong(name, "Invalid text", "%s contains the control character %U.", name, r)
		return ""
	}
	return s
}

// word is text for an identifier or a short text, which may not be empty; fallback is for an attribute that is not set.
func (f fields) word(name, fallback string) string {
	v, ok := f.value(name)
	if !ok {
		return fallback
	}
	s := f.asText(name, v, maxName)
	if t, isText := v.(string); isText && s == t && (s == "" || strings.TrimSpace(s) != s) {
		f.wrong(name, "Invalid text", "%s is %s: it must not be empty, nor begin or end with a space.", name, quote(s))
	}
	return s
}

// choice returns an attribute that is one of a few words, or the first of them when it is not set.
func (f fields) choice(name string, options ...string) string {
	v, ok := f.value(name)
	if !ok {
		return options[0]
	}
	s, isText := v.(string)
	if !isText {
		f.wrong(name, "Wrong type", "%s is text; this is %s.", name, describe(v))
		return options[0]
	}
	if !slices.Contains(options, s) {
		f.wrong(name, "Invalid "+name, "%s is none of %s.%s", quote(s), quoteAll(options), didYouMean(s, options))
	}
	return s
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, ", ")
}

func (f fields) bool(name string) bool {
	v, ok := f.value(name)
	if !ok {
		return false
	}
	yes, ok := boolean(v)
	if !ok {
		f.wrong(name, "Wrong type", "%s is true or false; this is %s.", name, describe(v))
	}
	return yes
}

func (f fields) bound(name string) registry.Bound {
	v, ok := f.value(name)
	if !ok {
		return registry.Bound{}
	}
	n, ok := number(v)
	if !ok {
		f.wrong(name, "Wrong type", "%s is a number; this is %s.", name, describe(v))
		return registry.Bound{}
	}
	return registry.BoundOf(n + 0) // not -0
}

// wholeNumber returns an attribute between low and high, or low when it is not set.
func (f fields) wholeNumber(name string, low, high int) int {
	b := f.bound(name)
	if !b.Set {
		return low
	}
	if b.Value != math.Trunc(b.Value) || b.Value < float64(low) || b.Value > float64(high) {
		f.wrong(name, "Invalid "+name, "%s is a whole number from %d to %d; this is %s.", name, low, high, b)
		return low
	}
	return int(b.Value)
}

// duration returns an attribute such as "1h30m", which must be at least least; 0 when it is not set.
func (f fields) duration(name string, least time.Duration) time.Duration {
	v, ok := f.value(name)
	if !ok {
		return 0
	}
	d, why := time.Duration(0), "is no text"
	if s, isText := v.(string); isText {
		if known, ok := f.l.durations[s]; ok {
			d, why = known, ""
		} else if d, why = parseDuration(s); why == "" && len(f.l.durations) < 1000 {
			f.l.durations[s] = d
		}
	}
	if why != "" {
		f.wrong(name, "Invalid duration", "%s is %s, which %s. A duration is a number with a unit, such as \"90d\", \"1h30m\", \"5m\", \"10s\" or \"250ms\".", name, describe(v), why)
		return 0
	}
	if d < least {
		f.wrong(name, "Invalid duration", "%s must be at least %s; this is %s.", name, least, describe(v))
		return 0
	}
	return d
}

var durationForm = regexp.MustCompile(`^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})(?:\.(\d{1,3}))?s)?(?:(\d{1,9})ms)?$`)

// parseDuration reads days, hours, minutes, seconds and milliseconds, in this order. It says why it can't.
func parseDuration(s string) (d time.Duration, why string) {
	m := durationForm.FindStringSubmatch(s)
	switch {
	case s == "":
		return 0, "is empty"
	case m == nil && strings.Trim(s, "0123456789") == "":
		return 0, "has no unit"
	case m == nil && strings.ContainsAny(s, " \t"):
		return 0, "contains a space"
	case m == nil && s[0] == '-':
		return 0, "is negative"
	case m == nil:
		return 0, "is not understood"
	}
	m[5] = (m[5] + "000")[:3] // decimals of a second
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second, time.Millisecond, time.Millisecond}
	for i, digits := range m[1:] {
		n, _ := strconv.ParseInt("0"+digits, 10, 64) // at most nine digits
		if n > int64(maxPeriod/units[i]) {
			return 0, "is longer than 100 years"
		}
		d += time.Duration(n) * units[i]
	}
	if d > maxPeriod {
		return 0, "is longer than 100 years"
	}
	return d, ""
}

// object returns an attribute that is an object, as canonical JSON.
func (f fields) object(name string) string {
	v, ok := f.value(name)
	if !ok {
		return ""
	}
	attributes, ok := object(v)
	if !ok {
		f.wrong(name, "Wrong type", "%s is an object, such as { city = \"Pune\" }; this is %s.", name, describe(v))
		return ""
	}
	if _, ok := weigh(attributes, maxJSON, maxDepth); !ok {
		f.wrong(name, "Value too large", "%s may have up to %d bytes and be nested %d deep.", name, maxJSON, maxDepth)
		return ""
	}
	data, err := json.Marshal(attributes)
	if err == nil && strings.Contains(string(data), `\u0000`) {
		err = fmt.Errorf("it contains a NUL character")
	}
	var canonical string
	if err == nil {
		canonical, err = registry.CanonicalJSON(data)
	}
	if err != nil {
		f.wrong(name, "Invalid value", "%s can't be written as JSON: %s.", name, err)
	}
	return canonical
}

// reference is the name of something declared elsewhere, and where it was written.
type reference struct {
	name  string
	rng   *hcl.Range
	scope *scope // that it was written in
}

// reference returns an attribute that names something else; the name is "" when it is not set.
func (f fields) reference(name string) reference {
	v, ok := f.value(name)
	if !ok {
		return reference{}
	}
	s, isText := v.(string)
	if !isText || s == "" {
		f.wrong(name, "Wrong type", "%s is a name; this is %s.", name, describe(v))
		return reference{}
	}
	return reference{s, f.b.place(name), f.l.scope}
}

// references returns an attribute that lists names, at least one; nil when it is not set.
func (f fields) references(name string) []reference {
	v, ok := f.value(name)
	if !ok {
		return nil
	}
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case set:
		items = v
	default:
		f.wrong(name, "Wrong type", "%s is a list of names, such as [\"voltage\", \"current\"]; this is %s.", name, describe(v))
		return nil
	}
	const most = 10_000
	switch {
	case len(items) == 0:
		f.wrong(name, "Empty list", "%s lists nothing. Leave it out instead.", name)
	case len(items) > most:
		f.wrong(name, "Value too large", "%s may have up to %d names; this has %d.", name, most, len(items))
		return nil
	}
	var list []reference
	rng := f.b.place(name)
	tuple, isTuple := f.b.attrs[name].Expr.(*hclsyntax.TupleConsExpr)
	for i, item := range items {
		at := rng
		if isTuple {
			each := tuple.Exprs[i].Range()
			at = &each
		}
		s, isText := item.(string)
		if !isText || s == "" {
			f.l.report(*at, f.in, "Wrong type", "%s is a list of names; this is %s.", name, describe(item))
			continue
		}
		list = append(list, reference{s, at, f.l.scope})
	}
	return list
}
