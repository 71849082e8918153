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
	x := selection{s: s, part: part, keep: map[Address]bool{}}
	for o := range s.Objects {
		if x.wants(o) {
			x.keep[o.Address()] = true
		}
	}
	x.addNeeded()
	if part.Customers == nil {
		x.addParents()
	}
	references := x.refer()
	var objects []Object
	for o := range s.Objects {
		if x.keep[o.Address()] {
			objects = append(objects, o)
		}
	}
	live = NewSnapshot(objects)
	live.Version, live.Revision, live.Owner, live.References = s.Version, s.Revision, part.Owner, references
	slices.SortFunc(x.beside, Compare)
	return live, x.beside
}

// selection is a part of a registry in the making.
type selection struct {
	s      *Snapshot
	part   Part
	keep   map[Address]bool
	beside []Address // kept for the sake of others
}

// wants reports whether an object is asked for.
func (x *selection) wants(o Object) bool {
	status := o.status()
	switch {
	case status.Retired, !status.Managed && !x.part.Unmanaged, status.Managed && x.part.Owner != "" && x.part.Owner != OwnerOf(o):
		return false
	}
	return x.part.Customers == nil || !isGlobal(o) && slices.Contains(x.part.Customers, o.Address().Names()[0])
}

// need keeps what a wanted object is in or names, and all that this is in.
func (x *selection) need(a Address) {
	for ok := true; ok; a, ok = a.Parent() {
		if !x.keep[a] {
			x.keep[a] = true
			x.beside = append(x.beside, a)
		}
	}
}

// addNeeded adds what wanted objects are in, and the parameters and gateways that wanted devices name.
func (x *selection) addNeeded() {
	parameters := make(map[Address]bool, len(x.s.Parameters))
	for _, p := range x.s.Parameters {
		parameters[p.Addr] = true
	}
	var add func(d *Device)
	add = func(d *Device) {
		project := d.Project()
		for _, name := range d.Parameters {
			if p := project.Child(KindParameter, name); !x.keep[p] && parameters[p] {
				x.need(p)
			}
		}
		if d.Gateway == (Address{}) || x.keep[d.Gateway] {
			return
		}
		x.need(d.Gateway)
		site, _ := d.Gateway.Parent()
		if o := x.s.find(site); o != nil && x.wants(o) { // and declares its devices
			add(x.s.find(d.Gateway).(*Device))
		}
	}
	for o := range x.s.Objects {
		if !x.wants(o) {
			continue
		}
		if up, ok := o.Address().Parent(); ok && !x.keep[up] {
			x.need(up)
		}
		if d, ok := o.(*Device); ok {
			add(d)
		}
	}
}

// addParents adds the customers that others name as their parents.
func (x *selection) addParents() {
	parent := make(map[Address]string, len(x.s.Customers))
	for _, c := range x.s.Customers {
		parent[c.Addr] = c.Parent
	}
	for _, c := range x.s.Customers {
		if !x.wants(c) && !c.Retired {
			continue
		}
		for a := c.Addr; x.keep[a] && parent[a] != ""; {
			if a = NewAddress(KindCustomer, parent[a]); x.keep[a] {
				break // its own parents have their turn, or had it
			}
			if x.need(a); !x.s.find(a).status().Retired {
				break // it is referred to, and a reference names no parent
			}
		}
	}
}

// refer makes references of what is kept for the sake of others and can be referred to, and leaves the rest beside.
func (x *selection) refer() (references []Referenced) {
	others := setOf(x.beside)
	x.beside = slices.DeleteFunc(x.beside, func(a Address) bool {
		o := x.s.find(a)
		if o == nil || o.status().Retired || a.Kind == KindThreshold {
			return false
		}
		if a.Kind == KindParameter || a.Kind == KindDevice {
			up, ok := a.Parent()
			if !ok || !others[up] || x.s.find(up).status().Retired {
				return false // a project that is declared declares its parameters, a site its devices
			}
			delete(x.keep, a)
		}
		references = append(references, Referenced{Address: a})
		return true
	})
	return references
}

// isGlobal reports whether an object belongs to no customer.
func isGlobal(o Object) bool {
	switch o.(type) {
	case *Platform, *Retention, *Limits, *Policy, *Discovery:
		return true
	}
	return false
}
