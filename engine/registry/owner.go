package registry

import "fmt"

// fate is what becomes of an object of the registry that is not declared.
type fate int

const (
	isRetired    fate = iota // already
	isUnmanaged              // left alone
	isForeign                // of another declaration, left alone
	isReferenced             // left alone
	isReleased
	isProtected // must be deleted but may not be
	isDeleted
)

// fate decides over an object that is not declared; why is the reason of isProtected.
func (d *differ) fate(o Object) (f fate, why string) {
	a, s := o.Address(), o.status()
	switch {
	case s.Retired:
		return isRetired, ""
	case OwnerOf(o) == d.plan.Owner && d.isReleased(o):
		return isReleased, ""
	case d.isReferenced(a):
		return isReferenced, ""
	case !s.Managed:
		return isUnmanaged, ""
	case OwnerOf(o) != d.plan.Owner:
		return isForeign, ""
	}
	if lifecycleOf(o).PreventDestroy {
		return isProtected, "prevent_destroy is set in the registry; apply lifecycle { prevent_destroy = false } first, then remove it"
	}
	if why := d.kept[a]; why != "" {
		return isProtected, why
	}
	return isDeleted, ""
}

// release reads the released blocks. What is not managed by this declaration has been released already.
func (d *differ) release() {
	if len(d.desired.Released) == 0 {
		return
	}
	d.releases = make(map[Address]bool, len(d.desired.Released))
	for _, r := range d.desired.Released {
		d.releases[r.From] = !r.alone
	}
}

// missedReleases finds released blocks of what the registry never had, in a plan that deletes: their author meant to keep
// something, and it is about to go. Elsewhere such a block does no harm; a new registry may never have had the object.
func (d *differ) missedReleases() {
	for _, r := range d.desired.Released {
		if !r.alone && d.current.find(r.From) == nil {
			d.problem(r.Place, "%s is released, but the registry does not have it, and this plan destroys objects: name what shall stay, or remove the released block", r.From)
		}
	}
}

// isReleased reports whether a released block names an object, by where it is, or something that it hangs off.
func (d *differ) isReleased(o Object) bool {
	if len(d.releases) == 0 {
		return false
	}
	a := d.origin(o).Address()
	if _, named := d.releases[a]; named {
		return true
	}
	for a, ok := a.Parent(); ok; a, ok = a.Parent() {
		if d.releases[a] {
			return true
		}
	}
	return false
}

// refer checks that what the declaration refers to is there.
func (d *differ) refer() {
	d.refers = make(map[Address]string, len(d.desired.References))
	for _, r := range d.desired.References {
		d.refers[r.Address] = r.Place
		switch o := d.at.find(r.Address); {
		case o == nil:
			d.problem(r.Place, "%s is referred to, but the registry does not have it: whoever owns it must apply first", r.Address)
		case o.status().Retired:
			d.problem(r.Place, "%s is referred to, but it is retired", r.Address)
		}
	}
}

func (d *differ) isReferenced(a Address) bool {
	_, ok := d.refers[a]
	return ok
}

// keep finds what cannot be deleted for the sake of others: what protected objects hang off, and what those of other
// declarations hang off or name.
func (d *differ) keep() {
	d.kept = map[Address]string{}
	for o := range d.at.Objects {
		s := o.status()
		if s.Retired || !s.Managed {
			continue
		}
		a := o.Address()
		parent, hangs := a.Parent()
		if OwnerOf(o) != d.plan.Owner {
			for _, needed := range needs(o) {
				how := "names it"
				if hangs && needed == parent {
					how = "hangs off it"
				}
				d.keepFor(needed, func() string {
					return fmt.Sprintf("%s, which %s, is managed by the declaration %q", a, how, OwnerOf(o))
				})
			}
		} else if hangs && lifecycleOf(o).PreventDestroy && d.desired.find(a) == nil && !d.isReleased(o) {
			d.keepFor(parent, func() string { return fmt.Sprintf("%s, which hangs off it, is protected", a) })
		}
	}
}

// keepFor keeps an object, and what it hangs off.
func (d *differ) keepFor(a Address, why func() string) {
	for ok := true; ok && d.kept[a] == ""; a, ok = a.Parent() {
		d.kept[a] = why()
	}
}
