package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Action is what a change does; its value is the symbol that a plan shows.
type Action rune

const (
	Create  Action = '+'
	Update  Action = '~'
	Delete  Action = '-' // retires, where the object has a history
	Move    Action = '>' // to another address, with its id, history and credentials; its fields may change too
	Import  Action = '=' // an unmanaged object becomes the declared one; its address and fields may change too
	Release Action = '.' // is not managed any more, and stays
	Purge   Action = 'x' // a retired object goes for good
)

var actions = map[Action]string{Create: "create", Update: "update", Delete: "delete", Move: "move", Import: "import", Release: "release", Purge: "purge"}

func (a Action) String() string { return actions[a] }

func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Action) UnmarshalText(text []byte) error {
	for known, name := range actions {
		if string(text) == name {
			*a = known
			return nil
		}
	}
	return fmt.Errorf("%q is no action of a plan", text)
}

// Change is one step of a plan.
type Change struct {
	Action  Action        `json:"action"`
	Address Address       `json:"address"`
	From    *Address      `json:"from,omitempty"` // where a moved or imported object is, when that is elsewhere
	Fields  []FieldChange `json:"fields,omitempty"`
	Reason  string        `json:"reason,omitempty"` // for people; Apply never reads it
	Cause   Cause         `json:"cause,omitempty"`  // "" when it is not known what the last apply left behind

	// Before is nil for a plain create. It is at Address, but at From when there is one, and where a Delete, Release or Purge
	// finds it. An update below a moved object has it as the move leaves it.
	Before Object `json:"-"`
	After  Object `json:"-"` // with its ids and status; nil for a delete, a release and a purge
}

// FieldChange is one attribute before and after, in canonical text, "" where there is none.
type FieldChange struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Plan turns the registry from one state into the declared one. It is inert: it can be shown, saved, or handed to an
// apply, which refuses it when the registry is another one or no longer at BaseRevision, and when it has a Refusal.
type Plan struct {
	Registry     uuid.UUID `json:"registry_id,omitzero"` // whose plan it is; zero for a database without tables
	BaseVersion  int64     `json:"base_version"`
	BaseRevision int64     `json:"base_revision"`
	Checksum     string    `json:"checksum"`            // of the declaration; "" for a purge
	Owner        string    `json:"owner"`               // name of the declaration; "" for a purge and for a plan of Add
	Managed      int       `json:"managed_objects"`     // how many objects the declaration manages now, or all do
	Targets      []Address `json:"targets,omitempty"`   // what the plan was reduced to; nil for a whole one
	Excluded     []Address `json:"excluded,omitempty"`  // what was left out of it, with everything below; nil for nothing
	Kept         []Address `json:"kept,omitempty"`      // what is not declared any more, and stays all the same; nil where such objects go
	LeftOut      []Address `json:"left_out,omitempty"`  // what cannot be made without what is excluded, or while what is kept is there
	Changes      []Change  `json:"changes"`             // in the order to apply: deletes and releases children first, then the rest parents first
	Unmanaged    []Address `json:"unmanaged,omitempty"` // made outside nsready and not declared; left alone

	Foreign map[string]int `json:"foreign,omitempty"` // how many objects each other declaration manages that this one does not declare

	Drift         int       `json:"drift,omitempty"`           // objects that changed outside nsready since the last apply
	DataLoss      bool      `json:"data_loss,omitempty"`       // applying it loses stored telemetry
	AllowDataLoss []Address `json:"allow_data_loss,omitempty"` // objects that may be purged with their telemetry

	// What keeps the plan from being applied.
	Protected []Protected `json:"protected,omitempty"`
	Conflicts []Conflict  `json:"conflicts,omitempty"`
	Problems  []Problem   `json:"problems,omitempty"`
}

// Protected is an object that is not declared but must not be deleted.
type Protected struct {
	Address Address `json:"address"`
	Reason  string  `json:"reason"`
}

// Conflict is a declared object that another declaration manages.
type Conflict struct {
	Address Address `json:"address"`
	Owner   string  `json:"owner"`
}

// Problem is something that a declaration says of the registry and that is not so.
type Problem struct {
	Place string `json:"place,omitempty"` // in the declaration, as file:line:column
	Text  string `json:"text"`
}

func (p Problem) String() string {
	if p.Place == "" {
		return p.Text
	}
	return p.Place + ": " + p.Text
}

// Refusal returns why the plan must not be applied: an error with a line for each protected object, conflict and problem,
// or for the first of many. It is nil when nothing is in the way.
func (p *Plan) Refusal() error {
	var lines []string
	for _, problem := range p.Problems {
		lines = append(lines, problem.String())
	}
	for _, c := range p.Conflicts {
		lines = append(lines, fmt.Sprintf("%s is managed by the declaration %q: only one can own an object; refer to it with reference = true, or release it there first", c.Address, c.Owner))
	}
	for _, o := range p.Protected {
		lines = append(lines, fmt.Sprintf("%s is not declared but cannot be destroyed: %s", o.Address, o.Reason))
	}
	const most = 20
	switch n := len(lines); {
	case n == 0:
		return nil
	case n == 1:
		return errors.New(lines[0])
	case n > most:
		lines = append(lines[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return errors.New("this plan cannot be applied:\n  " + strings.Join(lines, "\n  "))
}

// Counts says how many objects a plan changes, by what it does to them.
type Counts struct{ Imports, Moves, Creates, Updates, Deletes, Releases int }

// Count counts the plan's changes. A purge is a delete.
func (p *Plan) Count() (n Counts) {
	for _, c := range p.Changes {
		switch c.Action {
		case Import:
			n.Imports++
		case Move:
			n.Moves++
		case Create:
			n.Creates++
		case Update:
			n.Updates++
		case Delete, Purge:
			n.Deletes++
		case Release:
			n.Releases++
		}
	}
	return n
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Diff plans the way from current, the registry, to desired, a declaration. When it finds problems the plan has nothing else.
//
// An object has two addresses on this way, which differ when it moves: where current has it, its origin, and where it goes, its
// destination. The steps:
//
//  1. release reads which origins are given up.
//  2. relocate follows the moved and import blocks, finds by their ids objects that were renamed by hand, and makes d.at: current,
//     with each object at its destination. From here on d.at is compared, and d.origin leads back.
//  3. refer and keep find what must be there for the declaration, and what may not go for the sake of others.
//  4. merge walks d.at and desired side by side, kind by kind. What only desired has is added; what both have is changed, moved or
//     imported; what only d.at has meets its fate, which owner.go decides.
//  5. Deletes and releases are done first, children before their parents; the rest after, parents first.
func Diff(current, desired *Snapshot) *Plan {
	d := newDiffer(current, desired)
	at := d.at
	merge(d, at.Platform, desired.Platform)
	merge(d, singleton(at.Retention), singleton(desired.Retention))
	merge(d, singleton(at.Limits), singleton(desired.Limits))
	merge(d, singleton(at.Policy), singleton(desired.Policy))
	merge(d, singleton(at.Discovery), singleton(desired.Discovery))
	deletes, rest := len(d.deletes), len(d.plan.Changes)
	merge(d, at.Customers, desired.Customers)
	parentsFirst(d.deletes[deletes:], current.Customers)
	parentsFirst(d.plan.Changes[rest:], desired.Customers)
	merge(d, at.Projects, desired.Projects)
	merge(d, at.Sites, desired.Sites)
	merge(d, at.Parameters, desired.Parameters)
	merge(d, at.Thresholds, desired.Thresholds)
	merge(d, at.Devices, desired.Devices)
	if len(d.deletes) > 0 {
		d.missedReleases()
	}
	if len(d.plan.Problems) > 0 {
		plan := planFrom(current, d.plan.Owner)
		plan.Checksum, plan.Problems = d.plan.Checksum, d.plan.Problems
		return plan
	}
	d.tellRenamed()
	slices.Reverse(d.deletes)
	d.plan.Changes = append(d.deletes, d.plan.Changes...)
	return d.plan
}

// tellRenamed says of new devices with the external id of one that goes what was probably meant.
func (d *differ) tellRenamed() {
	gone := map[string]bool{}
	for _, c := range d.deletes {
		if was, ok := c.Before.(*Device); ok && c.Action == Delete && was.ExternalID != "" {
			gone[was.ExternalID] = true
		}
	}
	for i := range d.plan.Changes {
		c := &d.plan.Changes[i]
		if is, ok := c.After.(*Device); ok && c.Action == Create && c.Reason == "" && gone[is.ExternalID] {
			c.Reason = "has the external_id of a device that goes; a moved block would keep its id and history"
		}
	}
}

// planFrom begins a plan for a registry, of the declaration of a name or, with "", of none.
func planFrom(current *Snapshot, owner string) *Plan {
	p := &Plan{Registry: current.Registry, BaseVersion: current.Version, BaseRevision: current.Revision, Owner: owner}
	for o := range current.Objects {
		if s := o.status(); s.Managed && !s.Retired && (owner == "" || OwnerOf(o) == owner) {
			p.Managed++
		}
	}
	return p
}

// parentsFirst moves the changes of customers that are parents before those of their children.
func parentsFirst(changes []Change, customers []*Customer) {
	parent := make(map[string]string, len(customers))
	for _, c := range customers {
		parent[c.Addr.Name()] = c.Parent
	}
	depth := func(c Change) int {
		n := 0
		for name := parent[c.Address.Name()]; name != "" && n <= len(customers); name = parent[name] {
			n++
		}
		return n
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(depth(a), depth(b)) })
}

func singleton[T any](o *T) []*T {
	if o == nil {
		return nil
	}
	return []*T{o}
}

// differ compares the registry with a declaration.
type differ struct {
	plan             *Plan
	deletes          []Change
	current, desired *Snapshot
	at               *Snapshot // current, with every object at the address that moves and imports give it

	relocation
	ids      map[Address]uuid.UUID // of what the registry has, where an object keeps its id for ever, and of what is given one
	holders  map[uuid.UUID]Object  // whose ids these are, beside those of devices
	given    map[uuid.UUID]Address // whose ids these are to be
	refers   map[Address]string    // referenced by the declaration, and where
	releases map[Address]bool      // released by the declaration; true with what is below
	kept     map[Address]string    // what holds protected and foreign objects, and why it stays
}

func newDiffer(current, desired *Snapshot) *differ {
	d := &differ{
		plan:    planFrom(current, cmp.Or(desired.Owner, DefaultOwner)),
		current: current, desired: desired, ids: map[Address]uuid.UUID{}, holders: map[uuid.UUID]Object{}, given: map[uuid.UUID]Address{},
	}
	d.plan.Checksum = desired.Checksum()
	d.release()
	d.at = d.relocate()
	for _, c := range current.Customers {
		d.ids[d.destination(c.Addr)], d.holders[c.ID] = c.ID, c
	}
	for _, p := range current.Projects {
		d.ids[d.destination(p.Addr)], d.holders[p.ID] = p.ID, p
	}
	for _, s := range current.Sites {
		d.ids[d.destination(s.Addr)], d.holders[s.ID] = s.ID, s
	}
	for _, p := range current.Parameters {
		d.holders[p.ID] = p
	}
	for _, t := range current.Thresholds {
		d.holders[t.ID] = t
	}
	d.readGiven()
	d.refer()
	d.keep()
	return d
}

// readGiven lets new devices have the ids that the declaration gives them. An id is for ever, and only one device's.
func (d *differ) readGiven() {
	for _, g := range d.desired.Given {
		d.ids[g.To], d.given[g.ID] = g.ID, g.To
		there, _ := d.at.find(g.To).(*Device)
		switch holder := d.current.Device(g.ID); {
		case there != nil && there.ID != g.ID:
			d.problem(g.Place, "%s has the id %s, which it keeps for ever: it cannot have the id %s", g.To, there.ID, g.ID)
		case there == nil && holder != nil:
			d.problem(g.Place, "the id %s is that of %s: a moved block lets it become %s", g.ID, holder.Addr, g.To)
		}
	}
}

// merge walks two lists sorted by address. What leaves an address goes before what takes it.
func merge[O Object](d *differ, current, desired []O) {
	first := len(d.plan.Changes)
	for len(current) > 0 || len(desired) > 0 {
		order := 0
		switch {
		case len(current) == 0:
			order = 1
		case len(desired) == 0:
			order = -1
		default:
			order = cmp.Compare(current[0].Address().Path, desired[0].Address().Path)
		}
		switch {
		case order < 0:
			d.gone(current[0])
			current = current[1:]
		case order > 0:
			d.add(Change{Action: Create, After: desired[0]})
			desired = desired[1:]
		default:
			d.both(current[0], desired[0])
			current, desired = current[1:], desired[1:]
		}
	}
	if len(d.moving) > 0 {
		slices.SortStableFunc(d.plan.Changes[first:], func(a, b Change) int {
			return cmp.Compare(btoi(a.From == nil), btoi(b.From == nil))
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *differ) gone(o Object) {
	a := o.Address()
	was := d.origin(o) // deletes come before moves
	switch fate, why := d.fate(o); fate {
	case isUnmanaged:
		d.plan.Unmanaged = append(d.plan.Unmanaged, was.Address())
	case isForeign:
		if d.plan.Foreign == nil {
			d.plan.Foreign = map[string]int{}
		}
		d.plan.Foreign[OwnerOf(o)]++
	case isReleased:
		d.deletes = append(d.deletes, Change{Action: Release, Address: was.Address(), Before: was, Reason: "stays, but is not managed any more"})
	case isProtected:
		d.plan.Protected = append(d.plan.Protected, Protected{was.Address(), why})
	case isDeleted:
		d.deletes = append(d.deletes, Change{Action: Delete, Address: was.Address(), Before: was})
	case isReferenced:
		if OwnerOf(o) == d.plan.Owner {
			d.problem(d.refers[a], "%s is referred to, but this declaration itself manages it: declare it in full, or give it away with a released block", a)
		}
	}
}

func (d *differ) both(before, after Object) {
	s, was := before.status(), d.origin(before)
	block := d.moving[after.Address()]
	move, from := block.action, was.Address()
	c := Change{Action: Update, Before: before, After: after}
	if move != 0 {
		c.Action, c.Before = move, was
		if from != after.Address() {
			c.From = &from
		}
	}
	switch {
	case s.Managed && !s.Retired && OwnerOf(before) != d.plan.Owner:
		d.plan.Conflicts = append(d.plan.Conflicts, Conflict{from, OwnerOf(before)})
		return
	case s.Retired:
		if move == 0 {
			c.Action = Create
		}
		c.Reason = "returns with its id and history"
	case !s.Managed && move != Import:
		c.Reason = "was made outside nsready, will be managed from now on"
	case block.recalled:
		c.Reason = "has the id of this address, and goes back to it"
	case move == 0 && same(before, after):
		return
	}
	d.add(c)
}

// add completes what creates, changes or moves an object: the fields that change, and the ids that the object has or gets.
func (d *differ) add(c Change) {
	c.Address = c.After.Address()
	c.After = c.After.clone()
	*c.After.status() = Status{Managed: true, Owner: d.plan.Owner}
	assignIDs(c.After, d.id)
	if c.Before != nil {
		keepID(c.Before, c.After)
	}
	c.Fields = fieldChanges(&c)
	d.plan.Changes = append(d.plan.Changes, c)
}

// id returns the id that the object at an address has, or gets: that of the address, unless an object that was there
// before, and now is elsewhere, has it.
func (d *differ) id(a Address) uuid.UUID {
	if id, ok := d.ids[a]; ok {
		return id
	}
	if a.Kind == KindDevice {
		if o := d.at.find(a); o != nil {
			return o.id()
		}
	}
	return a.freeID(func(id uuid.UUID) bool { return d.taken(id, a) })
}

// taken reports whether an object that goes elsewhere than to an address has an id, or is given it.
func (d *differ) taken(id uuid.UUID, a Address) bool {
	if to, ok := d.given[id]; ok && to != a {
		return true
	}
	holder := d.holders[id]
	if device := d.current.Device(id); device != nil {
		holder = device
	}
	return holder != nil && d.destination(holder.Address()) != a
}

// fieldChanges are the attributes that a change gives another value: all that are set, for a new object.
func fieldChanges(c *Change) (list []FieldChange) {
	switch c.Action {
	case Create:
		for _, f := range c.After.Fields() {
			if f.Value != "" {
				list = append(list, FieldChange{Name: f.Name, After: f.Value})
			}
		}
	case Update, Move, Import:
		list = differences(c.Before, c.After)
	}
	return list
}

// keepID copies the registry's own identity of an object.
func keepID(before, after Object) {
	switch after := after.(type) {
	case *Device:
		after.ID, after.Ref = before.(*Device).ID, before.(*Device).Ref
	case *Parameter:
		after.ID = before.(*Parameter).ID
	case *Threshold:
		after.ID = before.(*Threshold).ID
	}
}
