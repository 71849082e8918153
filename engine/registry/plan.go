package registry

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Action is what a change does; its value is the symbol that a plan shows.
type Action rune

const (
	Create Action = '+'
	Update Action = '~'
	Delete Action = '-'
)

func (a Action) String() string {
	switch a {
	case Create:
		return "create"
	case Update:
		return "update"
	default:
		return "delete"
	}
}

func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Action) UnmarshalText(text []byte) error {
	for _, known := range []Action{Create, Update, Delete} {
		if string(text) == known.String() {
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
	Fields  []FieldChange `json:"fields,omitempty"`
	Reason  string        `json:"reason,omitempty"` // for people; Apply never reads it

	Before Object `json:"-"` // nil for a plain create
	After  Object `json:"-"` // with its ids; nil for a delete
}

// FieldChange is one attribute before and after, in canonical text, "" where there is none.
type FieldChange struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Plan turns the registry from one state into the declared one. It is inert: it can be shown, or handed to an apply,
// which refuses it when the registry is no longer at BaseRevision.
type Plan struct {
	BaseVersion  int64     `json:"base_version"`
	BaseRevision int64     `json:"base_revision"`
	Checksum     string    `json:"checksum"`            // of the declaration
	Changes      []Change  `json:"changes"`             // in the order to apply: deletes children first, then the rest parents first
	Unmanaged    []Address `json:"unmanaged,omitempty"` // made outside nsready and not declared; left alone
}

// Count returns how many objects the plan creates, updates and deletes.
func (p *Plan) Count() (creates, updates, deletes int) {
	for _, c := range p.Changes {
		switch c.Action {
		case Create:
			creates++
		case Update:
			updates++
		case Delete:
			deletes++
		}
	}
	return creates, updates, deletes
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Diff plans the way from current, the registry, to desired, a declaration.
func Diff(current, desired *Snapshot) *Plan {
	d := differ{
		plan: &Plan{BaseVersion: current.Version, BaseRevision: current.Revision, Checksum: desired.Checksum()},
		ids:  map[Address]uuid.UUID{},
	}
	for _, c := range current.Customers {
		d.ids[c.Addr] = c.ID
	}
	for _, p := range current.Projects {
		d.ids[p.Addr] = p.ID
	}
	for _, s := range current.Sites {
		d.ids[s.Addr] = s.ID
	}
	merge(&d, current.Platform, desired.Platform)
	merge(&d, singleton(current.Retention), singleton(desired.Retention))
	merge(&d, singleton(current.Limits), singleton(desired.Limits))
	deletes, rest := len(d.deletes), len(d.plan.Changes)
	merge(&d, current.Customers, desired.Customers)
	parentsFirst(d.deletes[deletes:], current.Customers)
	parentsFirst(d.plan.Changes[rest:], desired.Customers)
	merge(&d, current.Projects, desired.Projects)
	merge(&d, current.Sites, desired.Sites)
	merge(&d, current.Parameters, desired.Parameters)
	merge(&d, current.Thresholds, desired.Thresholds)
	merge(&d, current.Devices, desired.Devices)
	slices.Reverse(d.deletes)
	d.plan.Changes = append(d.deletes, d.plan.Changes...)
	return d.plan
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

type differ struct {
	plan    *Plan
	deletes []Change
	ids     map[Address]uuid.UUID // of what the registry has: an object keeps its id for ever
}

// merge walks two lists sorted by address.
func merge[O Object](d *differ, current, desired []O) {
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
}

func (d *differ) gone(o Object) {
	switch s := o.status(); {
	case s.Retired:
	case !s.Managed:
		d.plan.Unmanaged = append(d.plan.Unmanaged, o.Address())
	default:
		d.deletes = append(d.deletes, Change{Action: Delete, Address: o.Address(), Before: o})
	}
}

func (d *differ) both(before, after Object) {
	switch s := before.status(); {
	case s.Retired:
		d.add(Change{Action: Create, Before: before, After: after, Reason: "returns with its id and history"})
	case !s.Managed:
		d.add(Change{Action: Update, Before: before, After: after, Reason: "was made outside nsready, will be managed from now on"})
	case !same(before, after):
		d.add(Change{Action: Update, Before: before, After: after})
	}
}

// add completes a create or update: the fields that change, and the ids that the object has or gets.
func (d *differ) add(c Change) {
	c.Address = c.After.Address()
	c.After = clone(c.After)
	assignIDs(c.After, func(a Address) uuid.UUID {
		if id, ok := d.ids[a]; ok {
			return id
		}
		return a.ID()
	})
	if c.Before != nil {
		keepID(c.Before, c.After)
	}
	c.Fields = fieldChanges(&c)
	d.plan.Changes = append(d.plan.Changes, c)
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
	case Update:
		before := c.Before.Fields()
		for i, f := range c.After.Fields() {
			if before[i].Value != f.Value {
				list = append(list, FieldChange{f.Name, before[i].Value, f.Value})
			}
		}
	}
	return list
}

func clone(o Object) Object {
	switch o := o.(type) {
	case *Customer:
		c := *o
		return &c
	case *Project:
		c := *o
		return &c
	case *Site:
		c := *o
		return &c
	case *Device:
		c := *o
		return &c
	case *Parameter:
		c := *o
		return &c
	case *Threshold:
		c := *o
		return &c
	default:
		return o
	}
}

// keepID copies the registry's own identity of an object.
func keepID(before, after Object) {
	switch after := after.(type) {
	case *Device:
		after.ID, after.Ref = before.(*Device).ID, before.(*Device).Ref
	case *Parameter:
		after.ID, after.Key = before.(*Parameter).ID, before.(*Parameter).Key
	case *Threshold:
		after.ID = before.(*Threshold).ID
	}
}
