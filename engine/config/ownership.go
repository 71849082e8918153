package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// These blocks say how what is declared came about, and whose it is.
var (
	declarationSchema = &hcl.BodySchema{Attributes: attributes("name")}
	movedSchema       = &hcl.BodySchema{Attributes: append(attributes("from"), attributes("to")...)}
	importSchema      = &hcl.BodySchema{Attributes: append(attributes("to"), attributes("id")...)}
	releasedSchema    = &hcl.BodySchema{Attributes: attributes("from")}
	lifecycleSchema   = &hcl.BodySchema{Attributes: attributes("prevent_destroy")}
)

// ownership gathers what a declaration says beside what exists.
type ownership struct {
	declaration *hcl.Range // of its block
	owner       string
	moves       []move
	imports     []adoption
	imported    map[string]target // by what must be there once: the address, and the kind with the id
	released    []target
	releases    map[registry.Address]target
	references  []registry.Referenced
	referenced  map[registry.Address]bool
	given       map[uuid.UUID]registry.Given // ids of devices
}

func newOwnership() ownership {
	return ownership{imported: map[string]target{}, releases: map[registry.Address]target{}, referenced: map[registry.Address]bool{}, given: map[uuid.UUID]registry.Given{}}
}

// target is the address in a block, and where it stands.
type target struct {
	registry.Address
	rng hcl.Range
}

type move struct {
	block    *block
	from, to target
}

type adoption struct {
	to target
	id string
}

func (l *loader) declaration(b *block) {
	f := fields{l: l, b: b}
	if l.own.declaration != nil {
		l.report(b.rng, nil, "Duplicate declaration", "The declaration says its name at %s already.", placeOf(*l.own.declaration))
		return
	}
	l.own.declaration = &b.rng
	if name, ok := f.name(); ok {
		l.own.owner = name
	}
}

func (l *loader) moved(b *block) {
	f := fields{l: l, b: b}
	from, ok := f.target("from")
	to, also := f.target("to")
	if ok && also {
		l.own.moves = append(l.own.moves, move{b, from, to})
	}
}

func (l *loader) imported(b *block) {
	f := fields{l: l, b: b}
	to, ok := f.target("to")
	f.required("id")
	id := f.word("id", "")
	if !ok || id == "" {
		return
	}
	if _, err := uuid.Parse(id); err != nil && to.Kind != registry.KindDevice {
		f.wrong("id", "Invalid id", "The id of a %s is a UUID; this is %s.", to.Kind, quote(id))
		return
	}
	if first, twice := l.own.imported[to.String()]; twice {
		l.report(to.rng, nil, "Duplicate import", "%s is imported at %s already.", to, placeOf(first.rng))
		return
	}
	if first, twice := l.own.imported[string(to.Kind)+" "+id]; twice {
		f.wrong("id", "Duplicate import", "The %s with this id is imported at %s already.", to.Kind, placeOf(first.rng))
		return
	}
	l.own.imported[to.String()], l.own.imported[string(to.Kind)+" "+id] = to, to
	l.own.imports = append(l.own.imports, adoption{to, id})
}

func (l *loader) release(b *block) {
	f := fields{l: l, b: b}
	from, ok := f.target("from")
	if !ok {
		return
	}
	if first, twice := l.own.releases[from.Address]; twice {
		l.report(from.rng, nil, "Duplicate released", "%s is released at %s already.", from, placeOf(first.rng))
		return
	}
	l.own.releases[from.Address] = from
	l.own.released = append(l.own.released, from)
}

// levels is how many names the address of a kind has, of those that can be moved and imported.
var levels = map[registry.Kind]int{
	registry.KindCustomer: 1, registry.KindProject: 2, registry.KindSite: 3, registry.KindParameter: 3,
	registry.KindDevice: 4, registry.KindThreshold: 4,
}

// target returns an attribute that is the address of an object.
func (f fields) target(name string) (t target, ok bool) {
	v, ok := f.required(name)
	if !ok {
		return t, false
	}
	const example = " An address is written as plan shows it, such as \"device.acme/mill/north/press-01\"."
	s, isText := v.(string)
	if !isText {
		f.wrong(name, "Wrong type", "%s is an address; this is %s."+example, name, describe(v))
		return t, false
	}
	a, err := registry.ParseAddress(s)
	names := levels[a.Kind]
	if f.b.kind == "released" && names == 0 {
		names = 1
	}
	switch {
	case err != nil:
		f.wrong(name, "Invalid address", "%s is no address."+example, quote(s))
		return t, false
	case names == 0:
		f.wrong(name, "Invalid address", "%s is there once and always at the same address: a %s block cannot be about it.", quote(s), f.b.kind)
		return t, false
	case len(a.Names()) != names || slices.Contains(a.Names(), ""):
		f.wrong(name, "Invalid address", "The address of a %s has %d names with a / between them; this is %s."+example, a.Kind, names, quote(s))
		return t, false
	}
	return target{a, f.b.attrs[name].Expr.Range()}, true
}

// lifecycle reads the block of that name.
func (f fields) lifecycle() (lc registry.Lifecycle) {
	if inner, ok := f.inner("lifecycle"); ok {
		inner.required("prevent_destroy")
		lc.PreventDestroy = inner.bool("prevent_destroy")
	}
	return lc
}

// isReference reports whether a block only refers to an object that another declaration manages, for the sake of the blocks
// inside. It says nothing else of it then.
func (f fields) isReference() bool {
	if !f.bool("reference") {
		return false
	}
	for _, name := range sortedKeys(f.b.attrs) {
		if name != "reference" && name != "name" && name != "for_each" {
			f.l.report(f.b.attrs[name].NameRange, f.in, "Attribute of a reference", "With reference = true another declaration says what this %s is: remove %s.", f.b.kind, name)
		}
	}
	for _, b := range f.b.blocks {
		if b.kind == "limits" || b.kind == "lifecycle" {
			f.l.report(b.rng, f.in, "Block in a reference", "With reference = true another declaration says what this %s is: remove its %s block.", f.b.kind, b.kind)
		}
	}
	return true
}

// refer notes that an object of another declaration must exist. It reports an address that is declared, or referred to by
// another block of its kind.
func (l *loader) refer(a registry.Address, from origin) bool {
	if first := l.declaredAt(a); first != nil {
		l.report(*from.rng, from.in, "Duplicate "+string(a.Kind), "%s is declared at %s already.", a, first)
		return false
	}
	l.note(a, from)
	l.own.referenced[a] = true
	l.own.references = append(l.own.references, registry.Referenced{Address: a, Place: placeOf(*from.rng)})
	return true
}

// announce declares an object, or, where its block is a reference, refers to it.
func (l *loader) announce(o registry.Object, f fields) (reference, ok bool) {
	if f.isReference() {
		return true, l.refer(o.Address(), f.origin())
	}
	return false, l.declare(o, f.origin())
}

// isDeclared reports whether the declaration has an object at an address itself.
func (l *loader) isDeclared(a registry.Address) bool {
	return l.declaredAt(a) != nil && !l.own.referenced[a]
}

// resolveOwnership checks what moved, import and released blocks say against what is declared.
func (l *loader) resolveOwnership() {
	next, came := map[registry.Address]target{}, map[registry.Address]target{}
	var moves []move
	for _, m := range l.own.moves {
		first, twice := next[m.from.Address]
		other, also := came[m.to.Address]
		switch {
		case m.from.Kind != m.to.Kind:
			l.report(m.to.rng, nil, "Different kinds", "A %s cannot become a %s.", m.from.Kind, m.to.Kind)
			continue
		case m.from.Address == m.to.Address:
			l.report(m.to.rng, nil, "Moved to itself", "%s is there already: from and to are the same.", m.to)
			continue
		case twice:
			l.report(m.from.rng, nil, "Duplicate moved", "Another block moves it to %s, at %s.", first.Address, placeOf(first.rng))
			continue
		case also:
			l.report(m.to.rng, nil, "Duplicate moved", "Another block moves %s there, at %s.", other.Address, placeOf(other.rng))
			continue
		}
		next[m.from.Address], came[m.to.Address] = m.to, m.from
		moves = append(moves, m)
	}
	l.own.moves = moves
	l.checkCycles(next)
	ends := make(map[registry.Address]registry.Address, len(next))
	for _, m := range moves {
		chase(next, ends, m.from.Address)
	}
	for _, m := range moves {
		l.checkMove(m, ends)
	}
	for _, i := range l.own.imports {
		if !l.isDeclared(i.to.Address) && !l.partial {
			l.report(i.to.rng, nil, "Import of what is not declared", "%s is not declared. Add its block, or remove this one.", i.to)
		}
	}
	for _, r := range l.own.released {
		if l.isDeclared(r.Address) {
			l.report(r.rng, nil, "Released but declared", "%s is declared at %s. Remove that block, or make it a reference, to give it away.", r, l.declaredAt(r.Address))
		}
	}
}

// checkCycles reports moves that lead back to where they begin.
func (l *loader) checkCycles(next map[registry.Address]target) {
	passed := make(map[registry.Address]bool, len(next))
	for _, m := range l.own.moves {
		cycle := findCycle(m.from.Address, func(a registry.Address) registry.Address { return next[a].Address }, passed)
		if cycle == nil {
			continue
		}
		var names []string
		for _, a := range append(cycle, cycle[0]) {
			names = append(names, a.String())
		}
		l.report(m.from.rng, nil, "Cycle of moves", "Following the moved blocks leads back: %s. To swap two objects, move one out of the way in an apply of its own.", strings.Join(names, " → "))
	}
}

// chase finds where chains of moves end, for what it passes too. Cycles, which were reported, end somewhere.
func chase(next map[registry.Address]target, ends map[registry.Address]registry.Address, from registry.Address) {
	var passed []registry.Address
	end := from
	for {
		if known, ok := ends[end]; ok {
			end = known
			break
		}
		to, ok := next[end]
		if !ok || len(passed) > len(next) {
			break
		}
		passed = append(passed, end)
		end = to.Address
	}
	for _, a := range passed {
		ends[a] = end
	}
}

func (l *loader) checkMove(m move, ends map[registry.Address]registry.Address) {
	if l.isDeclared(m.from.Address) {
		l.report(m.from.rng, nil, "Moved but declared", "%s is still declared, at %s. Remove one of the two blocks.", m.from, l.declaredAt(m.from.Address))
		return
	}
	if _, leadsOn := ends[m.to.Address]; !leadsOn && !l.isDeclared(m.to.Address) && !l.partial {
		l.report(m.to.rng, nil, "Moved to what is not declared", "%s is not declared. Declare it there, or remove this block.", m.to)
		return
	}
	if m.from.Kind == registry.KindParameter {
		from, _ := m.from.Parent()
		to, _ := m.to.Parent()
		if settle(from, ends) != settle(to, ends) {
			l.report(m.to.rng, nil, "Parameter moved to another project", "A parameter's key names its project, and the values that are stored under it belong to devices of that project. Declare a new parameter in %s.", to)
		}
	}
}

// settle returns where moved blocks lead from an address, by themselves or with its parent.
func settle(a registry.Address, ends map[registry.Address]registry.Address) registry.Address {
	if to, ok := ends[a]; ok {
		a = to
	}
	if parent, ok := a.Parent(); ok {
		if to := settle(parent, ends); to != parent {
			return to.Child(a.Kind, a.Name())
		}
	}
	return a
}

// tell puts what was gathered into a snapshot.
func (o *ownership) tell(s *registry.Snapshot) {
	s.Owner, s.References = o.owner, o.references
	for _, m := range o.moves {
		s.Moves = append(s.Moves, registry.Moved{From: m.from.Address, To: m.to.Address, Place: placeOf(m.block.rng)})
	}
	for _, i := range o.imports {
		s.Imports = append(s.Imports, registry.Imported{To: i.to.Address, ID: i.id, Place: placeOf(i.to.rng)})
	}
	for _, r := range o.released {
		s.Released = append(s.Released, registry.Released{From: r.Address, Place: placeOf(r.rng)})
	}
	given := slices.SortedFunc(maps.Values(o.given), func(a, b registry.Given) int { return registry.Compare(a.To, b.To) })
	s.Give(given)
}

func placeOf(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}
