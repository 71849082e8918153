package registry

import (
	"cmp"
	"slices"
)

// Hand says what was done to an object by other means than an apply.
type Hand string

const (
	EditedByHand  Hand = "edited_by_hand"
	CreatedByHand Hand = "created_by_hand"
	DeletedByHand Hand = "deleted_by_hand"
)

// Drifted is an object that is not as the last apply left it.
type Drifted struct {
	Kind    Hand          `json:"kind"`
	Address Address       `json:"address"`          // as it was applied; of one that was created, as it is
	Fields  []FieldChange `json:"fields,omitempty"` // of one that was edited: as it was applied, and as it is
	Object  Object        `json:"-"`                // as it is; of one that was deleted, as it was applied
}

// Drift compares the registry with what the last apply left behind, sorted by address. An object that was renamed, or moved
// to another parent, is edited: its address is the first field; what hangs off it is where it was. So is one that another
// declaration, or none, manages now: managed_by. What was created includes the objects that are not managed, whenever that was.
func Drift(applied, live *Snapshot) []Drifted {
	m := match(applied, live, false)
	var list []Drifted
	for o := range live.Objects {
		if o.status().Retired {
			continue
		}
		was := m.of[o.Address()]
		if was == nil {
			list = append(list, Drifted{Kind: CreatedByHand, Address: o.Address(), Object: o})
		} else if fields := m.edits(was, o); len(fields) > 0 {
			list = append(list, Drifted{Kind: EditedByHand, Address: was.Address(), Fields: fields, Object: o})
		}
	}
	for o := range applied.Objects {
		if a := o.Address(); !m.taken[a] {
			list = append(list, Drifted{Kind: DeletedByHand, Address: a, Object: o})
		}
	}
	slices.SortStableFunc(list, func(a, b Drifted) int { return cmp.Or(Compare(a.Address, b.Address), cmp.Compare(b.Kind, a.Kind)) })
	return list
}

// matcher knows which object of the registry is which of a state.
type matcher struct {
	of    map[Address]Object // by address in the registry
	taken map[Address]bool   // addresses of objects of the state that the registry has
}

// match finds the objects of a state in the registry: by id, whatever they are called now, else by address. Retired objects
// may only be found by their ids.
func match(state, live *Snapshot, retired bool) matcher {
	m := matcher{of: map[Address]Object{}, taken: map[Address]bool{}}
	byID := state.byIdentity()
	take := func(o, was Object) {
		m.of[o.Address()] = was
		m.taken[was.Address()] = true
	}
	for o := range live.Objects {
		if was := byID[identityOf(o)]; was != nil && (retired || !o.status().Retired) {
			take(o, was)
		}
	}
	for o := range live.Objects { // parents first
		a := o.Address()
		if o.status().Retired || m.of[a] != nil {
			continue
		}
		if was := state.find(m.place(a)); was != nil && !m.taken[was.Address()] {
			take(o, was)
		}
	}
	return m
}

// place returns an address in the registry as it would be if no parent had been renamed or moved.
func (m *matcher) place(a Address) Address {
	parent, ok := a.Parent()
	if !ok || m.of[parent] == nil {
		return a
	}
	return a.below(m.of[parent].Address())
}

// edits returns what differs between an object as it was applied and as it is.
func (m *matcher) edits(was, is Object) (list []FieldChange) {
	if a := is.Address(); m.place(a) != was.Address() {
		list = append(list, FieldChange{"address", was.Address().String(), a.String()})
	}
	if before, after := OwnerOf(was), OwnerOf(is); before != after {
		list = append(list, FieldChange{"managed_by", before, after})
	}
	if c, ok := is.(*Customer); ok && c.Parent != "" {
		if parent := m.of[NewAddress(KindCustomer, c.Parent)]; parent != nil { // it may have been renamed, too
			c = c.clone().(*Customer)
			c.Parent = parent.Address().Name()
			is = c
		}
	}
	if d, ok := is.(*Device); ok {
		if gateway := m.of[d.Gateway]; gateway != nil && gateway.Address() != d.Gateway {
			d = d.clone().(*Device)
			d.Gateway = gateway.Address()
			is = d
		}
	}
	if same(was, is) {
		return list
	}
	return append(list, differences(was, is)...)
}
