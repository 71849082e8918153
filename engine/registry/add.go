package registry

import "github.com/google/uuid"

// Add plans the creation of what more has and current, the registry, has not, or has retired. The new objects are left
// unmanaged, as those are that the API makes; what is there stays as it is.
func Add(current, more *Snapshot) *Plan {
	plan := planFrom(current, "")
	plan.Checksum = more.Checksum()
	there, ids, taken := map[Address]Object{}, map[Address]uuid.UUID{}, map[uuid.UUID]bool{}
	for o := range current.Objects {
		there[o.Address()] = o
		if id := o.id(); id != uuid.Nil {
			ids[o.Address()], taken[id] = id, true
		}
	}
	id := func(a Address) uuid.UUID {
		id, known := ids[a]
		if known {
			return id
		}
		id = a.freeID(func(id uuid.UUID) bool { return taken[id] }) // by what was renamed since it got it
		ids[a], taken[id] = id, true
		return id
	}
	for o := range more.Objects {
		c := Change{Action: Create, Address: o.Address(), Before: there[o.Address()], After: o.clone()}
		if c.Before != nil {
			if !c.Before.status().Retired {
				continue
			}
			c.Reason = "returns with its id and history"
		}
		*c.After.status() = Status{}
		assignIDs(c.After, id)
		if c.Before != nil {
			keepID(c.Before, c.After)
		}
		c.Fields = fieldChanges(&c)
		plan.Changes = append(plan.Changes, c)
	}
	return plan
}
