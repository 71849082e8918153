package registry

import (
	"iter"
	"slices"

	"github.com/google/uuid"
)

// Target returns the part of a plan that concerns the objects at some addresses and everything below them. With it come the
// changes that these need: what makes the objects that they hang off, a customer's parent, the parameters that a device
// sends and its gateway, what frees the address that an object gets, what lets go of an object that goes, and whatever else concerns what is
// below an object that moves or goes.
func (p *Plan) Target(addresses []Address) *Plan {
	part := *p
	part.Targets, part.Changes, part.Unmanaged, part.Foreign, part.Protected, part.Conflicts = addresses, nil, nil, nil, nil, nil

	links := p.links()
	in, wanted := make([]bool, len(p.Changes)), setOf(addresses)
	var include func(i int)
	include = func(i int) {
		if in[i] {
			return
		}
		in[i] = true
		c := &p.Changes[i]
		for j := range links.needed(c) {
			include(j)
		}
		if c.From != nil {
			wanted[*c.From] = true
		}
		if c.From != nil || c.Action == Delete {
			wanted[c.Address] = true
		}
	}
	for known := 0; known < len(wanted); {
		known = len(wanted)
		for i, c := range p.Changes {
			if c.Address.Within(wanted) || c.From != nil && c.From.Within(wanted) {
				include(i)
			}
		}
	}
	for i, c := range p.Changes {
		if in[i] {
			part.Changes = append(part.Changes, c)
		}
	}
	for _, a := range p.Unmanaged {
		if a.Within(wanted) {
			part.Unmanaged = append(part.Unmanaged, a)
		}
	}
	for _, o := range p.Protected {
		if o.Address.Within(wanted) {
			part.Protected = append(part.Protected, o)
		}
	}
	for _, c := range p.Conflicts {
		if c.Address.Within(wanted) {
			part.Conflicts = append(part.Conflicts, c)
		}
	}
	return &part
}

// links say how the changes of a plan, by their numbers in it, depend on each other.
type links struct {
	makes map[Address]int   // which makes an object be at an address
	frees map[Address][]int // which take objects away from it
	leave map[Address][]int // which make objects need it no more

	unlink map[uuid.UUID][]int // which give devices another gateway than that with an id: its address may be another before a move
}

func (p *Plan) links() *links {
	l := &links{makes: map[Address]int{}, frees: map[Address][]int{}, leave: map[Address][]int{}, unlink: map[uuid.UUID][]int{}}
	for i, c := range p.Changes {
		switch {
		case c.Action == Create || c.From != nil:
			l.makes[c.Address] = i
		case c.Action == Delete:
			l.frees[c.Address] = append(l.frees[c.Address], i)
		}
		if c.From != nil {
			l.frees[*c.From] = append(l.frees[*c.From], i)
		}
		if c.Before != nil && c.After != nil {
			for _, a := range needs(c.Before) {
				l.leave[a] = append(l.leave[a], i)
			}
			if d, ok := c.Before.(*Device); ok && d.GatewayID != uuid.Nil {
				l.unlink[d.GatewayID] = append(l.unlink[d.GatewayID], i)
			}
		}
	}
	return l
}

// needed yields the changes without which one cannot be made: what makes the objects that it hangs off or names, what frees the
// address that its object gets, and what lets go of an object that goes, or of a parameter's name.
func (l *links) needed(c *Change) iter.Seq[int] {
	return func(yield func(int) bool) {
		if c.After != nil {
			for _, a := range needs(c.After) {
				for ok := true; ok; a, ok = a.Parent() { // a is there, too, when what it hangs off moves there
					if j, made := l.makes[a]; made && !yield(j) {
						return
					}
				}
			}
		}
		if c.Action == Create || c.From != nil {
			for _, j := range l.frees[c.Address] {
				if !yield(j) {
					return
				}
			}
		}
		loses := c.Address // what names it must not do so any more
		if c.From != nil && c.Address.Kind == KindParameter {
			loses = *c.From
		} else if c.Action != Delete {
			return
		}
		for _, j := range slices.Concat(l.leave[loses], l.unlink[c.Before.id()]) {
			if !yield(j) {
				return
			}
		}
	}
}

// needs returns the addresses of what must be there before an object is.
func needs(o Object) (list []Address) {
	if parent, ok := o.Address().Parent(); ok {
		list = append(list, parent)
	}
	switch o := o.(type) {
	case *Customer:
		if o.Parent != "" {
			list = append(list, NewAddress(KindCustomer, o.Parent))
		}
	case *Device:
		project := o.Project()
		for _, name := range o.Parameters {
			list = append(list, project.Child(KindParameter, name))
		}
		if o.Gateway != (Address{}) {
			list = append(list, o.Gateway)
		}
	}
	return list
}

func setOf(addresses []Address) map[Address]bool {
	set := make(map[Address]bool, len(addresses))
	for _, a := range addresses {
		set[a] = true
	}
	return set
}
