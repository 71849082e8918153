package registry

import (
	"maps"
	"slices"

	"github.com/google/uuid"
)

// Of returns the objects that a declaration manages, as that declaration, which refers to the parents and gateways that others
// manage.
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
	took  map[identity]bool // false for those that were its own from the first change on
}

// NewAdoptions begins with none, of the declaration of a name.
func NewAdoptions(owner string) Adoptions { return Adoptions{owner, map[identity]bool{}} }

// Add follows the changes of the next apply.
func (a Adoptions) Add(changes []Change) {
	for i := range changes {
		c := &changes[i]
		if c.After == nil || OwnerOf(c.After) != a.owner || c.After.id() == uuid.Nil {
			continue
		}
		key := identityOf(c.After)
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
		if !since.took[identityOf(o)] || !own(o) {
			continue
		}
		for a, ok := o.Address(), true; ok && !released[a]; a, ok = a.Parent() {
			if released[a] = true; own(live.find(a)) {
				s.Released = append(s.Released, Released{From: a, alone: true})
			}
		}
	}
}
