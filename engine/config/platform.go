package config

import (
	"math"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

var retentionSchema = &hcl.BodySchema{Attributes: attributes("raw", "compress_after")}

func (l *loader) retention(b *block) {
	f := fields{l: l, b: b}
	const least = time.Hour
	r := &registry.Retention{Addr: registry.RetentionAddress, CompressAfter: f.duration("compress_after", least)}
	if _, ok := f.required("raw"); ok {
		r.Raw = f.duration("raw", least)
	}
	if r.Raw > 0 && r.CompressAfter >= r.Raw {
		f.wrong("compress_after", "Contradictory retention", "Telemetry is dropped after raw; compress_after must be shorter than that.")
	}
	l.declare(r, f.origin())
}

var policySchema = &hcl.BodySchema{Attributes: attributes("require_saved_plan")}

func (l *loader) policy(b *block) {
	f := fields{l: l, b: b}
	p := &registry.Policy{Addr: registry.PolicyAddress}
	if _, ok := f.required("require_saved_plan"); ok {
		p.RequireSavedPlan = f.bool("require_saved_plan")
	}
	l.declare(p, f.origin())
}

var platformSchema = &hcl.BodySchema{Attributes: attributes("", "for_each", "name", "warning", "critical")}

// platformMetrics are what platform thresholds exist for, and how their limits are written.
var platformMetrics = map[string]func(f fields, name string) registry.Bound{
	"queue_depth":   fields.count,
	"error_rate":    fields.percent,
	"latency_p95":   fields.seconds,
	"disk_usage":    fields.percent,
	"memory_usage":  fields.percent,
	"database_size": fields.percent,
}

func (l *loader) platform(b *block, in *each) {
	f := fields{l, b, in}
	name, at := b.label, b.name
	if b.attrs["name"] != nil || b.attrs["for_each"] != nil {
		var ok bool
		if name, ok = f.name(); !ok {
			return
		}
		at = b.attrs["name"].Expr.Range()
	}
	limit, known := platformMetrics[name]
	if !known {
		l.report(at, in, "Unknown platform metric", "The platform has no metric %s.%s", quote(name), elseAmong(name, options(platformMetrics))).Context = &b.rng
		return
	}
	p := &registry.Platform{
		Addr:    registry.NewAddress(registry.KindPlatform, name),
		Warning: limit(f, "warning"), Critical: limit(f, "critical"),
	}
	switch {
	case b.attrs["warning"] == nil && b.attrs["critical"] == nil:
		l.report(b.rng, in, "Missing limit", "Set warning, critical, or both.")
	case p.Warning.Set && p.Critical.Set && p.Warning.Value > p.Critical.Value:
		f.wrong("critical", "Contradictory limits", "critical must not be below warning.")
	}
	l.declare(p, f.origin())
}

// count returns a limit that is a whole number.
func (f fields) count(name string) registry.Bound {
	b := f.bound(name)
	if b.Set && (b.Value < 0 || b.Value != math.Trunc(b.Value)) {
		f.wrong(name, "Invalid limit", "%s is a whole number that is not negative; this is %s.", name, b)
	}
	return b
}

// percent returns a limit that is written "80%" or 80.
func (f fields) percent(name string) registry.Bound {
	v, ok := f.value(name)
	if !ok {
		return registry.Bound{}
	}
	bare := v
	if s, isText := v.(string); isText {
		bare = strings.TrimSuffix(s, "%")
	}
	n, ok := number(bare)
	if !ok || n < 0 || n > 100 {
		f.wrong(name, "Invalid limit", "%s is a percentage, such as \"80%%\"; this is %s.", name, describe(v))
		return registry.Bound{}
	}
	return registry.BoundOf(n)
}

// seconds returns a limit that is written as a duration, in seconds.
func (f fields) seconds(name string) registry.Bound {
	d := f.duration(name, time.Millisecond)
	if d == 0 {
		return registry.Bound{}
	}
	return registry.BoundOf(d.Seconds())
}

var templateSchema = &hcl.BodySchema{Attributes: attributes("", "for_each", "name"), Blocks: labelled("parameter")}

// template is a set of parameters that projects share.
type template struct {
	name       string
	origin     origin
	parameters []*parameter
}

func (l *loader) template(b *block, in *each) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return
	}
	if first := l.scope.templates[name]; first != nil {
		l.report(b.rng, in, "Duplicate template", "The template %s is declared at %s already.", quote(name), &first.origin)
		return
	}
	t := &template{name: name, origin: f.origin()}
	byShort := map[string]*parameter{}
	l.children(b, in, func(b *block, in *each) {
		if p := l.parameter(b, in); p != nil && !l.duplicateParameter(byShort, p) {
			t.parameters = append(t.parameters, p)
		}
	})
	if len(t.parameters) == 0 && !l.partial {
		l.report(b.rng, in, "Empty template", "A template needs at least one parameter block.")
	}
	l.scope.templates[name] = t
	l.templates = append(l.templates, t)
}
