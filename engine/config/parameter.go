package config

import (
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

var parameterSchema = &hcl.BodySchema{
	Attributes: attributes("", "for_each", "name", "unit", "type", "min", "max", "precision", "required", "interval", "stale_after",
		"description", "on_violation", "default_quality"),
	Blocks: append(labelled("threshold"), hcl.BlockHeaderSchema{Type: "lifecycle"}),
}

var thresholdSchema = &hcl.BodySchema{Attributes: attributes("", "for_each", "name", "above", "below", "for", "deadband", "severity")}

// parameter is a parameter of a template or project, before it has an address.
type parameter struct {
	short      string
	proto      registry.Parameter
	thresholds []threshold
	origin     origin
}

type threshold struct {
	name   string
	proto  registry.Threshold
	origin origin
}

// parameter reads one block. Its short name comes from the label, or, with for_each, from the name.
func (l *loader) parameter(b *block, in *each) *parameter {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return nil
	}
	short := registry.ShortName(b.label)
	if b.attrs["for_each"] != nil {
		short = registry.ShortName(name)
	} else if !l.checkName(b.label, b.name, in) {
		return nil
	}
	p := &parameter{short: short, origin: f.origin(), proto: registry.Parameter{
		Name:        name,
		Unit:        f.text("unit", maxName),
		Type:        registry.DataType(f.choice("type", string(registry.TypeFloat), string(registry.TypeInt), string(registry.TypeBool))),
		Min:         f.bound("min"),
		Max:         f.bound("max"),
		Precision:   f.precision(),
		Required:    f.bool("required"),
		Interval:    f.duration("interval", time.Millisecond),
		StaleAfter:  f.duration("stale_after", time.Millisecond),
		Description: f.text("description", maxText),
		OnViolation: registry.Violation(f.choice("on_violation", string(registry.Flag), string(registry.Reject), string(registry.Accept))),
		Quality:     uint8(f.wholeNumber("default_quality", 0, 255)),
		Lifecycle:   f.lifecycle(),
	}}
	if p.proto.Min.Set && p.proto.Max.Set && p.proto.Min.Value > p.proto.Max.Value {
		f.wrong("max", "Contradictory bounds", "max is %s, below min, which is %s.", p.proto.Max, p.proto.Min)
	}
	seen := map[string]*origin{}
	l.children(b, in, func(b *block, in *each) {
		if b.kind != "threshold" {
			return
		}
		t, ok := l.threshold(b, in)
		if !ok {
			return
		}
		if first := seen[t.name]; first != nil {
			l.report(b.rng, in, "Duplicate threshold", "The threshold %s is declared at %s already.", quote(t.name), first)
			return
		}
		seen[t.name] = &t.origin
		p.thresholds = append(p.thresholds, t)
	})
	return p
}

func (f fields) precision() registry.Bound {
	if _, ok := f.value("precision"); !ok {
		return registry.Bound{}
	}
	return registry.BoundOf(float64(f.wholeNumber("precision", 0, registry.MaxPrecision)))
}

func (l *loader) threshold(b *block, in *each) (threshold, bool) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return threshold{}, false
	}
	t := registry.Threshold{
		Above: f.bound("above"), Below: f.bound("below"),
		For: f.duration("for", 0), Deadband: f.bound("deadband").Value,
		Severity: f.choice("severity", "warning", "critical"),
	}
	switch {
	case b.attrs["above"] == nil && b.attrs["below"] == nil:
		l.report(b.rng, in, "Missing limit", "Set above, below, or both.")
	case t.Above.Set && t.Below.Set && t.Below.Value >= t.Above.Value:
		f.wrong("below", "Contradictory limits", "Every value is below %s or above %s: below must be less than above.", t.Below, t.Above)
	}
	if t.Deadband < 0 {
		f.wrong("deadband", "Invalid deadband", "deadband must not be negative.")
	}
	return threshold{name, t, f.origin()}, true
}

// duplicateParameter adds p to those of a template or project. It reports a second one with the same short name.
func (l *loader) duplicateParameter(byShort map[string]*parameter, p *parameter) bool {
	if first := byShort[p.short]; first != nil {
		l.report(*p.origin.rng, p.origin.in, "Duplicate parameter", "A parameter with the short name %s is declared at %s already.", quote(p.short), &first.origin)
		return true
	}
	byShort[p.short] = p
	return false
}
