package registry

import "slices"

// Part says which part of a registry is meant.
type Part struct {
	Owner     string   // name of the declaration that manages it; "" for all
	Unmanaged bool     // also what was made outside nsready
	Customers []string // by name, with all that they have and nothing else; nil for the whole registry
}

// Live returns the part of the registry that exists, without what is retired. What an object is in, and what it names (a
// parent, a parameter, a gateway), is there too, except other customers than those asked for: in References when others manage it or
// nobody does, and a declaration can refer to it. Those that it can only declare are listed in beside.
func (s *Snapshot) Live(part Part) (live *Snapshot, beside []Address) {
	keep := map[Address]bool{}
	wanted := func(o Object) bool {
		status := o.status()
		return !status.Retired && (status.Managed && (part.Owner == "" || part.Owner == OwnerOf(o)) || !status.Managed && part.Unmanaged) &&
			(part.Customers == nil || !isGlobal(o) && slices.Contains(part.Customers, o.Address().Names()[0]))
	}
	// need keeps an object that another one is in or names, and all that it is in.
	var need func(a Address)
	need = func(a Address) {
		if !keep[a] {
			keep[a] = true
			beside = append(beside, a)
		}
		if up, ok := a.Parent(); ok {
			need(up)
		}
	}
	parameters := make(map[Address]bool, len(s.Parameters))
	for _, p := range s.Parameters {
		parameters[p.Addr] = true
	}
	// needOf keeps what a device that is declared names.
	var needOf func(d *Device)
	needOf = func(d *Device) {
		project := Address{KindProject, Address{KindSite, d.Addr.ParentPath()}.ParentPath()}
		for _, name := range d.Parameters {
			if p := project.Child(KindParameter, name); !keep[p] && parameters[p] {
				need(p)
			}
		}
		if g := d.Gateway; g != (Address{}) && !keep[g] {
			need(g)
			if site, ok := s.find(Address{KindSite, g.ParentPath()}).(*Site); ok && wanted(site) { // which declares its devices
				needOf(s.find(g).(*Device))
			}
		}
	}
	for o := range s.Objects {
		if wanted(o) {
			keep[o.Address()] = true
		}
	}
	for o := range s.Objects {
		a := o.Address()
		if !wanted(o) {
			continue
		}
		if up, ok := a.Parent(); ok && !keep[up] {
			need(up)
		}
		if d, ok := o.(*Device); ok {
			needOf(d)
		}
	}
	if part.Customers == nil {
		parent := make(map[Address]string, len(s.Customers))
		for _, c := range s.Customers {
			parent[c.Addr] = c.Parent
		}
		for _, c := range s.Customers {
			if !wanted(c) && !c.Retired {
				continue
			}
			for a := c.Addr; keep[a] && parent[a] != ""; {
				if a = NewAddress(KindCustomer, parent[a]); keep[a] {
					break // its own parents have their turn, or had it
				}
				if need(a); !s.find(a).status().Retired {
					break // it is referred to, and a reference names no parent
				}
			}
		}
	}
	var references []Referenced
	others := make(map[Address]bool, len(beside))
	for _, a := range beside {
		others[a] = true
	}
	beside = slices.DeleteFunc(beside, func(a Address) bool {
		o := s.find(a)
		if o == nil || o.status().Retired || a.Kind == KindThreshold {
			return false
		}
		if up, ok := a.Parent(); a.Kind == KindParameter || a.Kind == KindDevice {
			if !ok || !others[up] || s.find(up).status().Retired {
				return false // a project that is declared declares its parameters, and a site its devices
			}
			delete(keep, a)
		}
		references = append(references, Referenced{Address: a})
		return true
	})
	var objects []Object
	for o := range s.Objects {
		if keep[o.Address()] {
			objects = append(objects, o)
		}
	}
	live = NewSnapshot(objects)
	live.Version, live.Revision, live.Owner, live.References = s.Version, s.Revision, part.Owner, references
	slices.SortFunc(beside, Compare)
	return live, beside
}

// isGlobal reports whether an object belongs to no customer.
func isGlobal(o Object) bool {
	switch o.(type) {
	case *Platform, *Retention, *Limits:
		return true
	}
	return false
}
