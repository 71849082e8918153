package registry

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ErrUnplanned says that a plan is none that follows from the registry: it was written by somebody else, or the registry was
// changed without its revision.
var ErrUnplanned = errors.New("this plan does not follow from the registry; nothing was changed")

// Verify returns nil for a plan that Diff, and what reduces its plans, makes from current, and else why it is none, as an
// ErrUnplanned. It plans once more what the changes lead to: what Diff would refuse or do otherwise is not in the plan. Reasons
// and causes, which are for people, are not looked at, nor are the values that attributes get.
func (p *Plan) Verify(current *Snapshot) error {
	err := p.verify(current)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnplanned, err)
	}
	return nil
}

func (p *Plan) verify(current *Snapshot) error {
	if p.Owner == "" {
		return errors.New("it names no declaration")
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Action == Purge {
			return fmt.Errorf("%s would be purged, which no saved plan does", c.Address)
		}
		if want := depth(c.Address.Kind); strings.Count(c.Address.Path, "/")+1 != want {
			return fmt.Errorf("the address %s does not have the %d names of a %s", c.Address, want, c.Address.Kind)
		}
	}
	again := Diff(current, p.outcome(current))
	if err := again.Refusal(); err != nil {
		return err
	}
	if p.Managed != again.Managed {
		return fmt.Errorf("it says that %d objects are managed, and there are %d", p.Managed, again.Managed)
	}
	type step struct {
		action  Action
		address Address
	}
	left := make(map[step]*Change, len(again.Changes))
	for i := range again.Changes {
		c := &again.Changes[i]
		left[step{c.Action, c.Address}] = c
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		is := step{c.Action, c.Address}
		want := left[is]
		delete(left, is)
		switch {
		case want == nil:
			return fmt.Errorf("there is no cause to %s %s, or it has two", c.Action, c.Address)
		case !isBefore(c.Before, want.Before):
			return fmt.Errorf("%s is not as the plan has it", c.Address)
		case !reflect.DeepEqual(c.After, want.After):
			return fmt.Errorf("the change of %s gives it what no declaration can", c.Address)
		}
	}
	for is := range left {
		return fmt.Errorf("what it does would %s %s, too", is.action, is.address)
	}
	return nil
}

// isBefore reports whether what a plan has before a change is what there is. The parent that a customer names, and the gateway that
// a device does, may be called by what a move, which a partial plan left out, makes of it.
func isBefore(had, is Object) bool {
	switch is := is.(type) {
	case *Customer:
		if a, ok := had.(*Customer); ok && a != nil && a.Parent != "" && is.Parent != "" {
			a = a.clone().(*Customer)
			a.Parent = is.Parent
			had = a
		}
	case *Device:
		if a, ok := had.(*Device); ok && a != nil && a.Gateway != (Address{}) && is.Gateway != (Address{}) {
			a = a.clone().(*Device)
			a.Gateway = is.Gateway
			had = a
		}
	}
	return reflect.DeepEqual(had, is)
}

// depth is how many names the address of a kind has.
func depth(kind Kind) int {
	n := 1
	for parent, ok := parents[kind]; ok; parent, ok = parents[parent] {
		n++
	}
	return n
}

// outcome is the declaration that leads from current to where the plan does, and no further.
func (p *Plan) outcome(current *Snapshot) *Snapshot {
	gone, put := map[Address]bool{}, map[Address]Object{}
	moves := &relocation{explicit: map[Address]Address{}, placed: map[Address]Address{}}
	var moved []Moved
	var imported []Imported
	var released []Released
	for i := range p.Changes {
		c := &p.Changes[i]
		from := c.Address
		if c.From != nil {
			from = *c.From
			moves.explicit[from] = c.Address
		}
		switch c.Action {
		case Move:
			moved = append(moved, Moved{From: from, To: c.Address, exact: true})
		case Import:
			imported = append(imported, Imported{To: c.Address, ID: c.Before.id().String()})
		case Release:
			released = append(released, Released{From: c.Address, alone: true})
		}
		if c.After == nil {
			gone[c.Address] = true
		} else {
			put[c.Address] = c.After.clone()
		}
	}

	var objects []Object
	for o := range current.Objects { // parents first
		from := o.Address()
		to := moves.destination(from)
		if to != from {
			moves.placed[from] = to
		}
		if gone[from] || put[to] != nil || o.status().Retired || OwnerOf(o) != p.Owner {
			continue
		}
		o = o.clone()
		o.setAddress(to)
		objects = append(objects, o)
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *Customer:
			if o.Parent != "" {
				o.Parent = moves.destination(NewAddress(KindCustomer, o.Parent)).Name()
			}
		case *Device:
			if o.Gateway != (Address{}) {
				o.Gateway = moves.destination(o.Gateway)
			}
		}
	}
	for _, o := range put {
		objects = append(objects, o)
	}
	s := NewSnapshot(objects)
	s.Owner, s.Moves, s.Imports, s.Released = p.Owner, moved, imported, released
	referred := map[Address]bool{}
	refer := func(o Object, a Address) {
		if referred[a] || s.find(a) != nil {
			return
		}
		if other := current.find(a); put[o.Address()] == nil && (other == nil || other.status().Retired) {
			return // it was missing before
		}
		referred[a] = true
		s.References = append(s.References, Referenced{Address: a})
	}
	for o := range s.Objects {
		if a, ok := o.Address().Parent(); ok {
			refer(o, a)
		}
		if d, ok := o.(*Device); ok && d.Gateway != (Address{}) && !gone[d.Gateway] { // a partial plan may leave its device for later
			refer(o, d.Gateway)
		}
	}
	return s
}
