package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

var customerSchema = &hcl.BodySchema{
	Attributes: attributes("", "for_each", "name", "reference", "parent", "metadata"),
	Blocks:     append(labelled("project", "module"), hcl.BlockHeaderSchema{Type: "limits"}, hcl.BlockHeaderSchema{Type: "lifecycle"}),
}

type customer struct {
	*registry.Customer
	parent reference
	origin origin
}

func (l *loader) customer(b *block, in *each) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return
	}
	c := &customer{parent: f.reference("parent"), origin: f.origin(), Customer: &registry.Customer{
		Addr:     registry.NewAddress(registry.KindCustomer, name),
		Metadata: f.object("metadata"),
	}}
	c.Parent = c.parent.name
	reference, ok := l.announce(c.Customer, f)
	if !ok {
		return
	}
	l.customers[name] = c
	if reference {
		c.parent.name = "" // that of its owner
	} else {
		c.Rate, c.DeviceRate = f.customerLimits()
		c.Lifecycle = f.lifecycle()
	}
	l.children(b, in, func(b *block, in *each) {
		switch b.kind {
		case "project":
			l.project(b, in, c.Addr)
		case "template":
			l.template(b, in)
		}
	})
}

// resolveParents checks that every parent exists and that no customer is its own ancestor.
func (l *loader) resolveParents() {
	next := func(name string) string {
		if up := l.customers[name].parent.name; l.customers[up] != nil {
			return up
		}
		return ""
	}
	passed := make(map[string]bool, len(l.customers))
	for _, name := range sortedKeys(l.customers) {
		c := l.customers[name]
		if c.parent.name != "" && l.customers[c.parent.name] == nil {
			l.unknown(c.parent, c.origin.in, "customer", "No customer named %s is declared", options(l.customers))
		}
		if cycle := findCycle(name, next, passed); cycle != nil {
			at := cycle[0]
			c := l.customers[at]
			l.report(*c.parent.rng, c.origin.in, "Cycle of customers", "Following the parents from %s leads back to it: %s.", quote(at), strings.Join(append(cycle, at), " → "))
		}
	}
}

// unknown reports a reference to what is not declared, unless it may be in what could not be read.
func (l *loader) unknown(ref reference, in *each, kind, sentence string, options []string) {
	if at := (place{"Unknown " + kind, *ref.rng}); l.told[at] >= 3 {
		l.told[at]++
	} else if !l.partial {
		l.report(*ref.rng, in, at.summary, "%s.%s", fmt.Sprintf(sentence, quote(ref.name)), elseAmong(ref.name, options))
	}
}

var projectSchema = &hcl.BodySchema{
	Attributes: attributes("", "for_each", "name", "reference", "description", "templates"),
	Blocks:     append(labelled("parameter", "site", "module"), hcl.BlockHeaderSchema{Type: "lifecycle"}),
}

// project is a project whose devices' references are yet to be resolved.
type project struct {
	addr       registry.Address
	reference  bool // another declaration has it, and parameters that are not declared here
	in         *each
	templates  []reference
	parameters []*parameter // its own
	devices    []device
}

func (l *loader) project(b *block, in *each, customer registry.Address) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return
	}
	object := &registry.Project{Addr: customer.Child(registry.KindProject, name), Description: f.text("description", maxText), Lifecycle: f.lifecycle()}
	reference, ok := l.announce(object, f)
	if !ok {
		return
	}
	p := &project{addr: object.Addr, reference: reference, in: in, templates: f.references("templates")}
	l.projects = append(l.projects, p)
	l.children(b, in, func(b *block, in *each) {
		switch b.kind {
		case "parameter":
			if param := l.parameter(b, in); param != nil {
				p.parameters = append(p.parameters, param)
			}
		case "site":
			l.site(b, in, p)
		case "template":
			l.template(b, in)
		}
	})
}

var siteSchema = &hcl.BodySchema{
	Attributes: attributes("", "for_each", "name", "reference", "location"),
	Blocks:     append(labelled("device", "module"), hcl.BlockHeaderSchema{Type: "lifecycle"}),
}

func (l *loader) site(b *block, in *each, p *project) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return
	}
	object := &registry.Site{Addr: p.addr.Child(registry.KindSite, name), Location: f.object("location"), Lifecycle: f.lifecycle()}
	if _, ok := l.announce(object, f); !ok {
		return
	}
	l.children(b, in, func(b *block, in *each) {
		switch b.kind {
		case "device":
			l.device(b, in, object.Addr, p)
		case "template":
			l.template(b, in)
		}
	})
}

var deviceSchema = &hcl.BodySchema{
	Attributes: attributes("type", "for_each", "name", "id", "external_id", "status", "gateway", "interval", "template", "parameters"),
	Blocks:     append(labelled("override"), hcl.BlockHeaderSchema{Type: "limits"}, hcl.BlockHeaderSchema{Type: "lifecycle"}),
}

// device is a device whose template, parameters and overrides are yet to be resolved.
type device struct {
	*registry.Device
	template   reference
	parameters []reference
	overrides  []override
	in         *each
}

func (l *loader) device(b *block, in *each, site registry.Address, p *project) {
	f := fields{l, b, in}
	name, ok := f.name()
	if !ok {
		return
	}
	kind := ""
	if _, ok := f.required("type"); ok {
		kind = f.word("type", "")
	}
	d := device{in: in, template: f.reference("template"), Device: &registry.Device{
		Addr:       site.Child(registry.KindDevice, name),
		Type:       kind,
		ExternalID: f.text("external_id", maxName),
		State:      f.word("status", "active"),
		Interval:   f.duration("interval", time.Millisecond),
		Lifecycle:  f.lifecycle(),
	}}
	if limits, ok := f.inner("limits"); ok {
		d.Rate = limits.rate()
	}
	d.parameters = f.references("parameters")
	if !l.declare(d.Device, f.origin()) {
		return
	}
	declared := len(l.origins) - 1
	l.children(b, in, func(b *block, in *each) {
		if b.kind == "override" {
			if o, ok := l.override(b, in); ok {
				d.overrides = append(d.overrides, o)
			}
		}
	})
	p.devices = append(p.devices, d)
	if ref := f.reference("gateway"); ref.name != "" {
		l.gateways = append(l.gateways, gateway{d.Device, ref, in})
	}
	f.given(d.Addr)
	if id := d.ExternalID; id != "" {
		if strings.TrimSpace(id) != id {
			f.wrong("external_id", "Invalid external ID", "The external ID %s begins or ends with a space.", quote(id))
		}
		if first, ok := l.external[id]; ok {
			f.wrong("external_id", "Duplicate external ID", "The device declared at %s has the external ID %s already. It must be unique in the whole declaration.", &l.origins[first], quote(id))
			return
		}
		l.external[id] = int32(declared)
	}
}

// given reads the id that a device has already, which does not follow from its address.
func (f fields) given(a registry.Address) {
	v, ok := f.value("id")
	if !ok {
		return
	}
	text, _ := v.(string)
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 || id == uuid.Nil {
		f.wrong("id", "Invalid ID", "id is the UUID by which the device sends, such as \"7d444840-9dc0-11d1-b245-5ffdce74fad2\"; this is %s.", describe(v))
		return
	}
	if first, twice := f.l.own.given[id]; twice {
		f.wrong("id", "Duplicate ID", "%s, declared at %s, has the id %s already.", first.To, first.Place, id)
		return
	}
	f.l.own.given[id] = registry.Given{To: a, ID: id, Place: placeOf(f.b.attrs["id"].Expr.Range())}
}

// resolve gives a project its parameters, and its devices theirs.
func (l *loader) resolve(p *project) {
	byShort := map[string]*parameter{}
	taken := map[*template]bool{}
	add := func(list []*parameter, declare func(*project, *parameter)) {
		for _, param := range list {
			if !l.duplicateParameter(byShort, param) {
				declare(p, param)
			}
		}
	}
	add(p.parameters, l.declareParameter)
	shared := l.declareParameter
	if p.reference { // the template says what its owner declared
		shared = func(p *project, param *parameter) { l.expectParameter(p, param.short, param.origin) }
	}
	take := func(ref reference, in *each) *template {
		t := ref.scope.template(ref.name)
		if t == nil {
			l.unknown(ref, in, "template", "No template named %s is declared", ref.scope.templateNames())
		} else if !taken[t] {
			taken[t] = true
			add(t.parameters, shared)
		}
		return t
	}
	for _, ref := range p.templates {
		take(ref, p.in)
	}
	for i := range p.devices {
		if ref := p.devices[i].template; ref.name != "" {
			take(ref, p.devices[i].in)
		}
	}
	byName := make(map[string]string, len(byShort))
	for short, param := range byShort {
		if other, twice := byName[param.proto.Name]; !twice || short < other {
			byName[param.proto.Name] = short
		}
	}
	lists := map[*template][]string{} // for devices that send just the parameters of one
	for i := range p.devices {
		d := &p.devices[i]
		t := d.template.scope.template(d.template.name)
		if t != nil && len(d.parameters) == 0 {
			if _, ok := lists[t]; !ok {
				lists[t] = shortNames(t)
			}
			d.Parameters = lists[t]
		} else {
			for _, ref := range d.parameters {
				short := ref.name
				if byShort[short] == nil {
					short = byName[ref.name]
				}
				if short == "" && p.reference {
					short = registry.ShortName(ref.name)
					l.expectParameter(p, short, origin{ref.rng, d.in})
				}
				if short == "" {
					l.unknown(ref, d.in, "parameter", "The project "+quote(p.addr.Name())+" has no parameter %s", options(byShort))
					continue
				}
				d.Parameters = append(d.Parameters, short)
			}
			if t != nil {
				d.Parameters = append(d.Parameters, shortNames(t)...)
			}
			slices.Sort(d.Parameters)
			d.Parameters = slices.Compact(d.Parameters)
		}
		l.resolveOverrides(p, d, byShort, byName)
		if d.Interval == 0 {
			d.Interval = smallestInterval(d.Device, byShort)
		}
	}
}

func shortNames(t *template) []string {
	var names []string
	for _, p := range t.parameters {
		names = append(names, p.short)
	}
	slices.Sort(names)
	return names
}

// smallestInterval returns how often a device sends by its parameters and overrides, or 0 when none of them says.
func smallestInterval(d *registry.Device, byShort map[string]*parameter) time.Duration {
	var least time.Duration
	for _, name := range d.Parameters {
		interval := d.Override(name).Interval
		if p := byShort[name]; p != nil && interval == 0 {
			interval = p.proto.Interval
		}
		if interval > 0 && (least == 0 || interval < least) {
			least = interval
		}
	}
	return least
}

// expectParameter notes that the owner of a project declares a parameter.
func (l *loader) expectParameter(p *project, short string, from origin) {
	if a := p.addr.Child(registry.KindParameter, short); l.declaredAt(a) == nil {
		l.refer(a, from)
	}
}

// declareParameter declares a parameter, and its thresholds, in a project.
func (l *loader) declareParameter(p *project, param *parameter) {
	object := param.proto
	object.Addr = p.addr.Child(registry.KindParameter, param.short)
	if !l.declare(&object, param.origin) {
		return
	}
	for _, t := range param.thresholds {
		object := t.proto
		object.Addr = p.addr.Child(registry.KindParameter, param.short).Child(registry.KindThreshold, t.name)
		l.declare(&object, t.origin)
	}
}
