package config

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

var overrideAttributes = []string{"min", "max", "interval", "stale_after", "on_violation", "default_quality"}

var overrideSchema = &hcl.BodySchema{Attributes: attributes("", append([]string{"for_each", "name"}, overrideAttributes...)...)}

// override is a block of a device, before it is known which parameter it is about.
type override struct {
	parameter reference
	proto     registry.Override
	limit     *hcl.Range // of max, or else of min
	origin    origin
}

// override reads one block. One whose attributes are all null, as for some elements of a for_each, says nothing.
func (l *loader) override(b *block, in *each) (override, bool) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return override{}, false
	}
	if !slices.ContainsFunc(overrideAttributes, func(a string) bool { return b.attrs[a] != nil }) {
		l.report(b.rng, in, "Empty override", "The block overrides nothing of %s. Set one of %s, or remove it.", quote(name), quoteAll(overrideAttributes))
		return override{}, false
	}
	at := b.name
	if b.attrs["name"] != nil {
		at = *b.place("name")
	}
	o := override{parameter: reference{name, &at, l.scope}, origin: f.origin(), proto: registry.Override{
		Min:        f.bound("min"),
		Max:        f.bound("max"),
		Interval:   f.duration("interval", time.Millisecond),
		StaleAfter: f.duration("stale_after", time.Millisecond),
	}}
	if _, set := f.value("on_violation"); set {
		o.proto.OnViolation = registry.Violation(f.choice("on_violation", string(registry.Flag), string(registry.Reject), string(registry.Accept)))
	}
	if _, set := f.value("default_quality"); set {
		o.proto.Quality = registry.BoundOf(float64(f.wholeNumber("default_quality", 0, 255)))
	}
	for _, name := range []string{"min", "max"} {
		if b.attrs[name] != nil {
			o.limit = b.place(name)
		}
	}
	return o, true
}

// resolveOverrides gives a device, whose parameters are known, its overrides.
func (l *loader) resolveOverrides(p *project, d *device, byShort map[string]*parameter, byName map[string]string) {
	first := map[string]*origin{}
	for i := range d.overrides {
		o := &d.overrides[i]
		short := o.parameter.name
		if byShort[short] == nil {
			short = byName[short]
		}
		if short == "" && p.reference {
			short = registry.ShortName(o.parameter.name)
		}
		sends := slices.Contains(d.Parameters, short)
		switch {
		case d.Parameters == nil && byShort[short] == nil && p.reference: // its owner says what there is
			l.expectParameter(p, short, origin{o.parameter.rng, o.origin.in})
		case d.Parameters == nil && byShort[short] == nil:
			l.unknown(o.parameter, o.origin.in, "parameter", "The project "+quote(p.addr.Name())+" has no parameter %s to override", options(byShort))
			continue
		case d.Parameters != nil && !sends:
			l.unknown(o.parameter, o.origin.in, "parameter", "The device "+quote(d.Addr.Name())+" sends no parameter %s that could be overridden", d.Parameters)
			continue
		}
		if at := first[short]; at != nil {
			l.report(*o.parameter.rng, o.origin.in, "Duplicate override", "The device %s overrides the parameter %s at %s already.", quote(d.Addr.Name()), quote(short), at)
			continue
		}
		first[short] = &o.origin
		o.proto.Parameter = short
		if param := byShort[short]; param != nil && o.limit != nil {
			if own := o.proto.Apply(&param.proto); own.Min.Set && own.Max.Set && own.Min.Value > own.Max.Value {
				l.report(*o.limit, o.origin.in, "Contradictory bounds", "For this device max is %s, below min, which is %s.", own.Max, own.Min)
			}
		}
		if !o.proto.Empty() {
			d.Overrides = append(d.Overrides, o.proto)
		}
	}
	registry.SortOverrides(d.Overrides)
}
