package registry

import (
	"errors"
	"fmt"
	"slices"
)

// PlanPurge plans to remove the retired objects at some addresses, and everything below them, for good. An object that has
// telemetry can only go when it is at or below one of the addresses in allowed. The error names every object that is not
// retired, and every address that nothing is purged at.
func PlanPurge(current *Snapshot, addresses, allowed []Address) (*Plan, error) {
	p := planFrom(current, "")
	wanted, permitted := setOf(addresses), setOf(allowed)
	purged := map[Address]bool{}
	var problems []error
	for o := range current.Objects {
		a := o.Address()
		if !a.Within(wanted) {
			continue
		}
		purged[a] = true
		p.Changes = append(p.Changes, Change{Action: Purge, Address: a, Before: o})
		if a.Within(permitted) {
			p.AllowDataLoss = append(p.AllowDataLoss, a)
		}
		parent, _ := a.Parent()
		if a.Kind == KindThreshold && parent.Within(wanted) {
			continue // has no history of its own
		}
		if problem := unretired(o); problem != "" {
			if wanted[a] {
				problems = append(problems, fmt.Errorf("%s is not retired: %s", a, problem))
			} else {
				problems = append(problems, fmt.Errorf("%s belongs to what would be purged, and is not retired: %s", a, problem))
			}
		}
	}
	for _, c := range current.Customers {
		if parent := NewAddress(KindCustomer, c.Parent); c.Parent != "" && purged[parent] && !purged[c.Addr] && !c.Retired {
			problems = append(problems, fmt.Errorf("%s is the parent of %s, which is not retired: give that another parent first", parent, c.Addr))
		}
	}
	for _, d := range current.Devices {
		if purged[d.Gateway] && !purged[d.Addr] && !d.Retired {
			problems = append(problems, fmt.Errorf("%s is the gateway of %s, which is not retired: give that another gateway first", d.Gateway, d.Addr))
		}
	}
	for _, a := range addresses {
		if !purged[a] {
			problems = append(problems, fmt.Errorf("there is no %s in the registry", a))
		}
	}
	for _, a := range allowed {
		if !purged[a] {
			problems = append(problems, fmt.Errorf("loss of data is allowed for %s, which would not be purged", a))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	slices.Reverse(p.Changes)
	return p, nil
}

// unretired says what to do with an object before it can be purged; "" when it is retired.
func unretired(o Object) string {
	switch s := o.status(); {
	case s.Retired:
		return ""
	case s.Managed:
		return "take it out of the declaration and apply that"
	default:
		return "it was made outside nsready, delete it there or declare it, then retire it"
	}
}
