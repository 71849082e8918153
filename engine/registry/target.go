package registry

// Target returns the part of a plan that concerns the objects at some addresses and everything below them. With it come the
// changes that these need: what makes the objects that they hang off, a customer's parent, the parameters that a device
// sends and its gateway, what frees the address that an object gets, what lets go of an object that goes, and whatever else concerns what is
// below an object that moves or goes.
func (p *Plan) Target(addresses []Address) *Plan {
	part := *p
	part.Targets, part.Changes, part.Unmanaged, part.Foreign, part.Protected, part.Conflicts = addresses, nil, nil, nil, nil, nil

	makes := map[Address]int{}   // which change makes an object be at an address
	frees := map[Address][]int{} // which changes take objects away from it
	leave := map[Address][]int{} // which changes make objects need it no more
	for i, c := range p.Changes {
		switch {
		case c.Action == Create || c.From != nil:
			makes[c.Address] = i
		case c.Action == Delete:
			frees[c.Address] = append(frees[c.Address], i)
		}
		if c.From != nil {
			frees[*c.From] = append(frees[*c.From], i)
		}
		if c.Before != nil && c.After != nil {
			for _, a := range needs(c.Before) {
				leave[a] = append(leave[a], i)
			}
		}
	}
	in, wanted := make([]bool, len(p.Changes)), setOf(addresses)
	var include func(i int)
	include = func(i int) {
		if in[i] {
			return
		}
		in[i] = true
		c := &p.Changes[i]
		if c.After != nil {
			for _, a := range needs(c.After) {
				for ok := true; ok; a, ok = a.Parent() { // a is there, too, when what it hangs off moves there
					if j, made := makes[a]; made {
						include(j)
					}
				}
			}
		}
		if c.Action == Create || c.From != nil {
			for _, j := range frees[c.Address] {
				include(j)
			}
		}
		if c.Action == Delete {
			for _, j := range leave[c.Address] {
				include(j)
			}
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
		project := Address{KindSite, o.Addr.ParentPath()}.ParentPath()
		for _, name := range o.Parameters {
			list = append(list, Address{KindProject, project}.Child(KindParameter, name))
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
