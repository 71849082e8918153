package registry

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// relocation says where the objects of the registry go before they are compared with a declaration.
type relocation struct {
	explicit map[Address]Address // by where an object is: what a block moves or imports
	moving   map[Address]moving  // the same, by destination
	placed   map[Address]Address // by where an object is: all that go elsewhere, with a block of their own or with their parent
	origins  map[Address]Object  // the same, by destination: the object as it is
}

// moving is what a block does to the object that gets an address.
type moving struct {
	action   Action // Move or Import
	from     Address
	place    string
	recalled bool // by no block, but by its id
}

// relocate returns the registry with every object at the address where moves and imports put it.
func (d *differ) relocate() *Snapshot {
	d.explicit, d.moving = map[Address]Address{}, map[Address]moving{}
	d.placed, d.origins = map[Address]Address{}, map[Address]Object{}
	d.readMoves()
	d.readImports()
	at := *d.current
	at.Customers = moveAll(d, at.Customers, d.desired.Customers)
	at.Projects = moveAll(d, at.Projects, d.desired.Projects)
	at.Sites = moveAll(d, at.Sites, d.desired.Sites)
	at.Parameters = moveAll(d, at.Parameters, d.desired.Parameters)
	at.Thresholds = moveAll(d, at.Thresholds, d.desired.Thresholds)
	at.Devices = moveAll(d, at.Devices, d.desired.Devices)
	if len(d.placed) > 0 {
		at.Customers = d.renameParents(at.Customers)
		renamed := d.renameGateways(at.Devices)
		for i, o := range renamed {
			if was := at.Devices[i]; o != was && d.origins[o.Addr] == nil {
				d.origins[o.Addr] = was
			}
		}
		at.Devices = renamed
	}
	return &at
}

// readMoves follows the moved blocks, parents first, so that a block may name an object by where it is, or by where a
// move of its parent puts it.
func (d *differ) readMoves() {
	next := make(map[Address]Address, len(d.desired.Moves))
	for _, m := range d.desired.Moves {
		next[m.From] = m.To
	}
	moves := slices.Clone(d.desired.Moves)
	slices.SortStableFunc(moves, func(a, b Moved) int { return Compare(a.From, b.From) })
	for _, m := range moves {
		from := d.wasAt(m.From)
		o := d.current.find(from)
		if o == nil {
			continue // it has done its work
		}
		to := m.To
		if !m.exact {
			to = last(next, m.From)
		}
		d.move(o, to, Move, m.Place)
	}
}

// last follows a chain of moves to its end, and lets what it passes lead there at once. A cycle, which config refuses, ends
// somewhere.
func last(next map[Address]Address, from Address) Address {
	end := next[from]
	for range next {
		to, ok := next[end]
		if !ok || end == from {
			break
		}
		end = to
	}
	for at, n := from, 0; at != end && n < len(next); n++ {
		at, next[at] = next[at], end
	}
	return end
}

// wasAt returns where the registry has an object that may be named by where a move of its parent puts it.
func (d *differ) wasAt(a Address) Address {
	if d.current.find(a) != nil {
		return a
	}
	if m, ok := d.moving[a]; ok {
		return m.from
	}
	if parent, ok := a.Parent(); ok {
		if was := d.wasAt(parent); was != parent {
			return a.below(was)
		}
	}
	return a
}

// readImports finds the objects that import blocks name.
func (d *differ) readImports() {
	if len(d.desired.Imports) == 0 {
		return
	}
	byID := d.current.byIdentity()
	for _, i := range d.desired.Imports {
		var o Object
		if id, err := uuid.Parse(i.ID); err == nil {
			o = byID[identity{i.To.Kind, id}]
		}
		if device := d.current.DeviceByExternalID(i.ID); o == nil && device != nil && i.To.Kind == KindDevice {
			o = device
		}
		there := d.current.find(d.wasAt(i.To))
		switch {
		case o == nil && there != nil && !there.status().Retired && OwnerOf(there) == d.plan.Owner:
			// It was imported before, and has another external id since.
		case o == nil:
			d.problem(i.Place, "the registry has no %s with the id %q to import as %s", i.To.Kind, i.ID, i.To)
		case o.status().Retired && o.Address() != i.To:
			d.problem(i.Place, "%s, which has the id %q, is retired: move it to %s with a moved block", o.Address(), i.ID, i.To)
		case o.status().Retired, OwnerOf(o) == d.plan.Owner && d.destination(o.Address()) == i.To:
			// It returns, or was imported before.
		case OwnerOf(o) == d.plan.Owner:
			d.problem(i.Place, "%s, which has the id %q, is managed already: move it to %s with a moved block", o.Address(), i.ID, i.To)
		default:
			d.move(o, i.To, Import, i.Place)
		}
	}
}

// move sends an object to another address, unless that cannot be.
func (d *differ) move(o Object, to Address, action Action, place string) {
	from := o.Address()
	if owner := OwnerOf(o); owner != "" && owner != d.plan.Owner && !o.status().Retired {
		d.plan.Conflicts = append(d.plan.Conflicts, Conflict{from, owner})
		return
	}
	if from.Kind == KindParameter && from != to {
		here, _ := from.Parent()
		there, _ := to.Parent()
		if d.wasAt(there) != here {
			d.problem(place, "%s cannot become %s: the values that are stored under its key belong to devices of its project; declare a new parameter in the other project", from, to)
			return
		}
	}
	if _, twice := d.explicit[from]; twice {
		d.problem(place, "%s is moved or imported by another block, too", from)
		return
	}
	if other, twice := d.moving[to]; twice {
		d.problem(place, "%s and %s cannot both become %s", other.from, from, to)
		return
	}
	d.explicit[from], d.moving[to] = to, moving{action: action, from: from, place: place}
}

// destination returns the address that an object of the registry is to have.
func (r *relocation) destination(from Address) Address {
	if to, ok := r.explicit[from]; ok {
		return to
	}
	if len(r.placed) == 0 {
		return from
	}
	parent, ok := from.Parent()
	if !ok {
		return from
	}
	if to, ok := r.placed[parent]; ok {
		return from.below(to)
	}
	return from
}

// origin returns an object as the registry has it.
func (r *relocation) origin(o Object) Object {
	if was, ok := r.origins[o.Address()]; ok {
		return was
	}
	return o
}

// moveAll puts the objects of a list at their destinations. Two at one address are a problem.
func moveAll[O Object](d *differ, list, desired []O) []O {
	moved := relocated(d, list)
	if recall(d, moved, desired) {
		moved = relocated(d, list)
	}
	if len(d.placed) > 0 {
		for i := 1; i < len(moved); i++ {
			if to := moved[i].Address(); moved[i-1].Address() == to {
				d.collide(to)
			}
		}
	}
	return moved
}

// relocated returns a list with its objects at their destinations, sorted; the list itself when none of them moves.
func relocated[O Object](d *differ, list []O) []O {
	if len(d.explicit) == 0 {
		return list
	}
	var moved []O
	for i, o := range list {
		from := o.Address()
		to := d.destination(from)
		if to == from {
			continue
		}
		if moved == nil {
			moved = slices.Clone(list)
		}
		c := o.clone()
		c.setAddress(to)
		moved[i] = c.(O)
		d.placed[from], d.origins[to] = to, o
	}
	if moved == nil {
		return list
	}
	sortByAddress(moved)
	return moved
}

// recall finds objects that are not declared where they are, but whose ids are those of declared addresses at which there is
// nothing: they were renamed by SQL, or by a moved block that is not there any more, and go back.
func recall[O Object](d *differ, list, desired []O) (some bool) {
	var byID map[uuid.UUID]Object
	rest := desired
	for _, o := range list {
		a := o.Address()
		for len(rest) > 0 && rest[0].Address().Path < a.Path {
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0].Address() == a || o.status().Retired || OwnerOf(o) != d.plan.Owner || d.isReleased(o) {
			continue
		}
		if byID == nil {
			byID = make(map[uuid.UUID]Object, len(desired))
			for _, o := range desired {
				byID[o.id()] = o
			}
		}
		want := byID[o.id()]
		if want == nil {
			continue
		}
		to := want.Address()
		here, _ := a.Parent()
		there, _ := to.Parent()
		if search(list, to) != nil || a.Kind == KindParameter && here != there {
			continue
		}
		from := d.origin(o).Address()
		d.explicit[from], d.moving[to] = to, moving{action: Move, from: from, recalled: true}
		some = true
	}
	return some
}

// collide reports that an object is already at an address to which another one goes.
func (d *differ) collide(to Address) {
	there := "in the registry, too"
	if o := d.current.find(to); o != nil && o.status().Retired {
		there = "in the registry too, retired, with its history"
	}
	place := ""
	for a, ok := to, true; ok && place == ""; a, ok = a.Parent() {
		place = d.moving[a].place
	}
	d.problem(place, "%s cannot become %s, which is %s: one object cannot have the history of both", d.origins[to].Address(), to, there)
}

// renameParents lets customers name their parents as these are called from now on.
func (d *differ) renameParents(customers []*Customer) []*Customer {
	renamed := slices.Clone(customers)
	for i, c := range renamed {
		if c.Parent == "" {
			continue
		}
		if to, ok := d.placed[NewAddress(KindCustomer, c.Parent)]; ok {
			c := *c
			c.Parent = to.Name()
			renamed[i] = &c
		}
	}
	return renamed
}

// renameGateways lets devices name their gateways as these are called from now on.
func (r *relocation) renameGateways(devices []*Device) []*Device {
	renamed := devices
	for i, o := range devices {
		if o.Gateway == (Address{}) {
			continue
		}
		if to := r.destination(o.Gateway); to != o.Gateway {
			if &renamed[0] == &devices[0] {
				renamed = slices.Clone(devices)
			}
			o := *o
			o.Gateway = to
			renamed[i] = &o
		}
	}
	return renamed
}

func (d *differ) problem(place, format string, args ...any) {
	d.plan.Problems = append(d.plan.Problems, Problem{place, fmt.Sprintf(format, args...)})
}

// identity is what an object is known by, wherever it is.
type identity struct {
	kind Kind
	id   uuid.UUID
}

func identityOf(o Object) identity { return identity{o.Address().Kind, o.id()} }

// byIdentity returns the objects that have an id.
func (s *Snapshot) byIdentity() map[identity]Object {
	all := map[identity]Object{}
	for o := range s.Objects {
		if o.id() != uuid.Nil {
			all[identityOf(o)] = o
		}
	}
	return all
}
