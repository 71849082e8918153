package registry

import "slices"

// Partial reports whether the plan leaves out something that differs from the declaration.
func (p *Plan) Partial() bool { return p.Targets != nil || p.Excluded != nil || p.Kept != nil }

// Exclude returns a plan without the changes of the objects at some addresses and of everything below them, and without those
// that need one of these changes or would take such an object along; the addresses of the latter are in LeftOut.
func (p *Plan) Exclude(addresses []Address) *Plan {
	excluded := setOf(addresses)
	named := func(a Address) bool { return a.Within(excluded) }
	for known := 0; known < len(excluded); { // what moves is meant where it is, and where it goes
		known = len(excluded)
		for _, c := range p.Changes {
			if c.From != nil && (named(c.Address) || named(*c.From)) {
				excluded[c.Address], excluded[*c.From] = true, true
			}
		}
	}
	above := map[Address]bool{}
	for a := range excluded {
		a.above(above)
	}
	part := p.without(func(c *Change) (out, told bool) {
		switch {
		case named(c.Address) || c.From != nil && named(*c.From):
			return true, true
		case c.From != nil:
			return above[c.Address] || above[*c.From], false
		case c.Action == Delete:
			return above[c.Address], false
		}
		return false, false
	})
	part.Excluded = addresses
	part.Unmanaged = slices.DeleteFunc(slices.Clone(p.Unmanaged), named)
	part.Protected = slices.DeleteFunc(slices.Clone(p.Protected), func(o Protected) bool { return named(o.Address) || above[o.Address] })
	part.Conflicts = slices.DeleteFunc(slices.Clone(p.Conflicts), func(c Conflict) bool { return named(c.Address) })
	return part
}

// KeepAll returns a plan that destroys nothing: what it would is in Kept, and not in the plan. What needs that to be gone is
// left out too, and in LeftOut.
func (p *Plan) KeepAll() *Plan {
	part := p.without(func(c *Change) (out, told bool) { return c.Action == Delete, true })
	part.Protected = nil
	for _, c := range p.Changes {
		if c.Action == Delete {
			part.Kept = append(part.Kept, c.Address)
		}
	}
	for _, o := range p.Protected {
		part.Kept = append(part.Kept, o.Address)
	}
	slices.SortFunc(part.Kept, Compare)
	return part
}

// without returns a plan without some changes and all that need them. What is left out is in LeftOut, unless it is told already.
func (p *Plan) without(leave func(c *Change) (out, told bool)) *Plan {
	part := *p
	part.Changes, part.LeftOut = nil, slices.Clone(p.LeftOut)
	links := p.links()
	out, silent := make([]bool, len(p.Changes)), make([]bool, len(p.Changes))
	// What stays keeps other things from going: what it is below, and what it names, which cannot get another name either. Where
	// something was to move away from, its plan does not say what it names there, which may be any parameter of the project.
	below, named, stuck := map[Address]bool{}, map[Address]bool{}, map[Address]bool{}
	drop := func(i int) {
		out[i] = true
		c := &p.Changes[i]
		if c.From != nil {
			c.From.above(stuck)
		}
		if c.Action == Delete {
			c.Address.above(below)
			for _, a := range needs(c.Before) {
				if parent, _ := c.Address.Parent(); a != parent {
					named[a] = true
				}
			}
		}
	}
	for i := range p.Changes {
		var gone bool
		if gone, silent[i] = leave(&p.Changes[i]); gone {
			drop(i)
		}
	}
	for more := true; more; {
		more = false
		for i := range p.Changes {
			c := &p.Changes[i]
			if out[i] {
				continue
			}
			was := c.Address
			if c.From != nil {
				was = *c.From
			}
			project, _ := was.Parent()
			needy := c.Action == Delete && (below[was] || named[was]) || c.From != nil && (stuck[was] || stuck[c.Address]) ||
				was.Kind == KindParameter && (c.Action == Delete || c.From != nil) && (named[was] || stuck[project])
			for j := range links.needed(c) {
				needy = needy || out[j]
			}
			if needy {
				drop(i)
				more = true
			}
		}
	}
	for i, c := range p.Changes {
		switch {
		case !out[i]:
			part.Changes = append(part.Changes, c)
		case !silent[i]:
			part.LeftOut = append(part.LeftOut, c.Address)
		}
	}
	return &part
}

// above adds what an address is below to a set.
func (a Address) above(set map[Address]bool) {
	for a, ok := a.Parent(); ok && !set[a]; a, ok = a.Parent() {
		set[a] = true
	}
}
