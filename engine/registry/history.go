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

// TellMoves turns what Between says of objects that are at two addresses with one id, a delete and a create, into moves. What
// only went along with its parent is left out, and is an update where its fields changed, as in a plan.
func TellMoves(changes []Change) []Change {
	gone := map[identity]Object{}
	for i := range changes {
		if c := &changes[i]; c.Action == Delete && c.Before.id() != uuid.Nil {
			gone[identityOf(c.Before)] = c.Before
		}
	}
	to := map[Address]Address{} // where what was at an address is now
	var told []Change
	for _, c := range changes {
		if c.Action == Create && gone[identityOf(c.After)] != nil {
			c.Action, c.Before = Move, gone[identityOf(c.After)]
			from := c.Before.Address()
			to[from] = c.Address
			if c.Fields = fieldChanges(&c); alongside(from, c.Address, to) {
				if c.Action = Update; len(c.Fields) == 0 {
					continue
				}
			} else {
				c.From = &from
			}
		}
		told = append(told, c)
	}
	return slices.DeleteFunc(told, func(c Change) bool {
		if c.Action != Delete {
			return false
		}
		_, moved := to[c.Address]
		return moved
	})
}

// alongside reports whether an object is where the move of its parent took it.
func alongside(from, now Address, to map[Address]Address) bool {
	parent, ok := from.Parent()
	if !ok {
		return false
	}
	under, moved := to[parent]
	return moved && from.below(under) == now
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
			o = o.clone()
			o.setAddress(to)
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
// about an object of that declaration. A partial plan has not looked at all of them.
func (p *Plan) Decides(c *Change) bool {
	return !p.Partial() && (c.Before != nil && OwnerOf(c.Before) == p.Owner || c.After != nil && OwnerOf(c.After) == p.Owner)
}
