package registry

import (
	"maps"
	"slices"

	"github.com/google/uuid"
)

// Managed returns what applies brought about: the objects that are managed and not retired.
func (s *Snapshot) Managed() *Snapshot {
	var objects []Object
	for o := range s.Objects {
		if s := o.status(); s.Managed && !s.Retired {
			objects = append(objects, o)
		}
	}
	m := NewSnapshot(objects)
	m.Version, m.Revision, m.AppliedRevision = s.Version, s.Revision, s.AppliedRevision
	return m
}

// Retired reports whether an object was deleted from its declaration.
func Retired(o Object) bool { return o.status().Retired }

// Between returns the changes that lead from one state to another, both without retired objects: deletes, children first,
// then the rest, parents first. Unlike Diff it takes objects as they are: it is for looking at, not for applying.
func Between(from, to *Snapshot) []Change {
	var deletes, rest []Change
	before := map[Address]Object{}
	for o := range from.Objects {
		before[o.Address()] = o
	}
	for o := range to.Objects {
		a := o.Address()
		c := Change{Action: Create, Address: a, Before: before[a], After: o}
		delete(before, a)
		if c.Before != nil {
			if same(c.Before, o) {
				continue
			}
			c.Action = Update
		}
		c.Fields = fieldChanges(&c)
		rest = append(rest, c)
	}
	for o := range from.Objects {
		if a := o.Address(); before[a] != nil {
			deletes = append(deletes, Change{Action: Delete, Address: a, Before: o})
		}
	}
	slices.Reverse(deletes)
	return append(deletes, rest...)
}

// Creates returns the changes that lead from nothing to a state.
func Creates(s *Snapshot) []Change { return Between(NewSnapshot(nil), s) }

// Fold is a state that recorded changes lead to, step by step. What its objects take from their parents, beside the address,
// is not followed. Objects that changes leave unmanaged are no part of it.
type Fold map[Address]Object

// NewFold begins with a state.
func NewFold(s *Snapshot) Fold {
	f := Fold{}
	for o := range s.Objects {
		f[o.Address()] = o
	}
	return f
}

// Add makes the changes of one apply, in the order that they have in a Plan.
func (f Fold) Add(changes []Change) {
	r := relocation{explicit: map[Address]Address{}, placed: map[Address]Address{}}
	for i := range changes {
		switch c := &changes[i]; {
		case c.After == nil:
			delete(f, c.Before.Address())
		case c.From != nil:
			r.explicit[*c.From] = c.Address
		}
	}
	if len(r.explicit) > 0 {
		f.relocate(&r)
	}
	for i := range changes {
		if c := &changes[i]; c.After != nil && c.After.status().Managed {
			f[c.Address] = c.After
		}
	}
}

// relocate gives objects the addresses that moves give them, themselves or by their parents.
func (f Fold) relocate(r *relocation) {
	objects := slices.SortedFunc(maps.Values(f), func(a, b Object) int { return Compare(a.Address(), b.Address()) }) // parents first
	clear(f)
	for from, to := range r.explicit {
		r.placed[from] = to // it may be no part of the state
	}
	for _, o := range objects {
		from := o.Address()
		if to := r.destination(from); to != from {
			o = clone(o)
			setAddress(o, to)
			r.placed[from] = to
		}
		if c, ok := o.(*Customer); ok && c.Parent != "" {
			if to, ok := r.placed[NewAddress(KindCustomer, c.Parent)]; ok {
				renamed := *c
				renamed.Parent = to.Name()
				o = &renamed
			}
		}
		if d, ok := o.(*Device); ok {
			o = r.renameGateways([]*Device{d})[0]
		}
		f[o.Address()] = o
	}
}

// Snapshot returns the state.
func (f Fold) Snapshot() *Snapshot {
	objects := make([]Object, 0, len(f))
	for _, o := range f {
		objects = append(objects, o)
	}
	return NewSnapshot(objects)
}

// Growth is by how many objects changes make the managed part of a registry grow.
func Growth(changes []Change) (n int) {
	for i := range changes {
		c := &changes[i]
		if c.After != nil && c.After.status().Managed {
			n++
		}
		if c.Before != nil {
			if s := c.Before.status(); s.Managed && !s.Retired {
				n--
			}
		}
	}
	return n
}

// Decides reports whether a difference that is left after the plan was made by hand as the plan's declaration says: it is
// about an object of that declaration. A plan for -target has not looked at all of them.
func (p *Plan) Decides(c *Change) bool {
	return p.Targets == nil && (c.Before != nil && OwnerOf(c.Before) == p.Owner || c.After != nil && OwnerOf(c.After) == p.Owner)
}

// Of returns the objects that a declaration manages, as that declaration, which refers to the parents and gateways that others manage.
func (s *Snapshot) Of(owner string) *Snapshot {
	var objects []Object
	for o := range s.Objects {
		if OwnerOf(o) == owner {
			objects = append(objects, o)
		}
	}
	own := NewSnapshot(objects)
	own.Owner = owner
	referred := map[Address]bool{}
	for _, o := range objects {
		if parent, ok := o.Address().Parent(); ok && own.find(parent) == nil && !referred[parent] {
			referred[parent] = true
			own.References = append(own.References, Referenced{Address: parent})
		}
		if d, ok := o.(*Device); ok && d.Gateway != (Address{}) && own.find(d.Gateway) == nil && !referred[d.Gateway] {
			referred[d.Gateway] = true
			own.References = append(own.References, Referenced{Address: d.Gateway})
		}
	}
	return own
}

// Owners returns the names of the declarations that manage objects, sorted.
func (s *Snapshot) Owners() []string {
	owners := map[string]bool{}
	for o := range s.Objects {
		if st := o.status(); st.Managed && !st.Retired {
			owners[OwnerOf(o)] = true
		}
	}
	return slices.Sorted(maps.Keys(owners))
}

// MoveBack lets a declaration that was read back move objects to where they were, rather than make new ones: those that
// were renamed or moved since, where nothing is in the way that stays there. live is the registry.
func (s *Snapshot) MoveBack(live *Snapshot) {
	m := match(s, live, true)
	back := map[Address]Address{}
	for o := range live.Objects {
		a := o.Address()
		if was := m.of[a]; was != nil && m.place(a) != was.Address() {
			back[a] = was.Address()
		}
	}
	leaves := func(a Address) bool {
		for ok := true; ok; a, ok = a.Parent() {
			if _, moves := back[a]; moves {
				return true
			}
		}
		return false
	}
	for blocked := true; blocked; { // what cannot move is in the way of others
		blocked = false
		for from, to := range back {
			if live.find(to) != nil && !leaves(to) {
				delete(back, from)
				blocked = true
			}
		}
	}
	for _, from := range slices.SortedFunc(maps.Keys(back), Compare) {
		s.Moves = append(s.Moves, Moved{From: from, To: back[from], exact: true})
	}
}

// Adoptions says which objects a declaration took over from others or from nobody, rather than made, as changes tell.
type Adoptions struct {
	owner string
	took  map[adoption]bool // false for those that were its own from the first change on
}

type adoption struct {
	kind Kind
	id   uuid.UUID
}

// NewAdoptions begins with none, of the declaration of a name.
func NewAdoptions(owner string) Adoptions { return Adoptions{owner, map[adoption]bool{}} }

// Add follows the changes of the next apply.
func (a Adoptions) Add(changes []Change) {
	for i := range changes {
		c := &changes[i]
		if c.After == nil || OwnerOf(c.After) != a.owner || idOf(c.After) == uuid.Nil {
			continue
		}
		key := adoption{c.Address.Kind, idOf(c.After)}
		if _, known := a.took[key]; !known {
			a.took[key] = c.Before != nil && !c.Before.status().Retired && OwnerOf(c.Before) != a.owner
		}
	}
}

// ReleaseAdopted lets a declaration that was read back leave what it took over since then to itself, rather than retire it,
// and with it what that is in. live is the registry.
func (s *Snapshot) ReleaseAdopted(live *Snapshot, since Adoptions) {
	m := match(s, live, true)
	released := map[Address]bool{}
	for o := range live.Objects {
		own := func(o Object) bool {
			return o != nil && OwnerOf(o) == since.owner && !o.status().Retired && m.of[o.Address()] == nil
		}
		if !since.took[adoption{o.Address().Kind, idOf(o)}] || !own(o) {
			continue
		}
		for a, ok := o.Address(), true; ok && !released[a]; a, ok = a.Parent() {
			if released[a] = true; own(live.find(a)) {
				s.Released = append(s.Released, Released{From: a, alone: true})
			}
		}
	}
}

// Cause says what made a change necessary.
type Cause string

const (
	ByConfig Cause = "config" // the declaration was changed
	ByHand   Cause = "drift"  // the registry was changed by other means than an apply
	ByBoth   Cause = "both"
)

// Attribute sets the Cause of each change, given what the last apply left behind; nil when the registry is still like that.
func (p *Plan) Attribute(applied *Snapshot) {
	for i := range p.Changes {
		c := &p.Changes[i]
		c.Cause = ByConfig
		if applied != nil {
			from := c.Address
			if c.From != nil {
				from = *c.From
			}
			c.Cause = cause(c, applied.find(from))
		}
	}
}

// cause compares the object as it was applied, nil for none, with the registry's, and with the declared one.
func cause(c *Change, applied Object) Cause {
	var config, hand bool
	switch {
	case c.Action == Delete:
		config, hand = applied != nil, applied == nil
	case applied == nil, c.Action == Release, c.Action == Import:
		config = true
	case c.Action == Create || !c.Before.status().Managed: // it was deleted by hand, or taken out of management
		config, hand = !same(applied, c.After), true
	default:
		config = c.Action == Move
		was := map[string]string{}
		for _, f := range applied.Fields() {
			was[f.Name] = f.Value
		}
		for _, f := range c.Fields {
			config = config || was[f.Name] != f.After
			hand = hand || was[f.Name] != f.Before
		}
	}
	switch {
	case config && hand:
		return ByBoth
	case hand:
		return ByHand
	}
	return ByConfig
}
