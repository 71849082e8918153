package registry

import (
	"errors"
	"testing"
)

// follows checks that Verify takes a plan of Diff, as it is and as it is saved.
func follows(t *testing.T, seed uint64, p *Plan, current *Snapshot) {
	t.Helper()
	saved, err := read(write(t, &SavedPlan{Plan: p}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Plan{p, saved.Plan} {
		if err := p.Verify(current); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, shown(p))
		}
	}
}

// What no plan of the program does is no plan, whatever its file says.
func TestVerifyRefusesWhatIsNotPlanned(t *testing.T) {
	at := NewAddress
	site := at(KindSite, "a", "p", "s")
	declare := func() []Object {
		return []Object{
			&Customer{Addr: at(KindCustomer, "a")}, &Project{Addr: at(KindProject, "a", "p")}, &Site{Addr: site},
			&Parameter{Addr: at(KindParameter, "a", "p", "v"), Name: "v"},
			&Threshold{Addr: at(KindThreshold, "a", "p", "v", "high"), Severity: "warning"},
			&Device{Addr: site.Child(KindDevice, "gone"), Type: "meter"},
			&Device{Addr: site.Child(KindDevice, "kept"), Type: "meter"},
			&Device{Addr: site.Child(KindDevice, "moved"), Type: "meter"},
			&Device{Addr: site.Child(KindDevice, "protected"), Type: "meter", Lifecycle: Lifecycle{PreventDestroy: true}},
			&Device{Addr: site.Child(KindDevice, "released"), Type: "meter"},
			&Device{Addr: site.Child(KindDevice, "retired"), Type: "meter"},
			&Customer{Addr: at(KindCustomer, "theirs")}, &Project{Addr: at(KindProject, "theirs", "p")},
			&Site{Addr: at(KindSite, "nobody's", "p", "s")}, &Project{Addr: at(KindProject, "nobody's", "p")}, &Customer{Addr: at(KindCustomer, "nobody's")},
		}
	}
	current := asApplied(declare())
	for o := range current.Objects {
		switch top := o.Address().Names()[0]; {
		case top == "theirs":
			o.status().Owner = "they"
		case top == "nobody's":
			*o.status() = Status{}
		case o.Address().Name() == "retired":
			o.status().Retired = true
		}
	}
	desired := Declare([]Object{
		&Customer{Addr: at(KindCustomer, "a"), Metadata: `{"x":1}`}, &Project{Addr: at(KindProject, "a", "p")}, &Site{Addr: site},
		&Parameter{Addr: at(KindParameter, "a", "p", "v"), Name: "v"},
		&Threshold{Addr: at(KindThreshold, "a", "p", "v", "high"), Severity: "warning"},
		&Device{Addr: site.Child(KindDevice, "elsewhere"), Type: "meter"},
		&Device{Addr: site.Child(KindDevice, "kept"), Type: "meter"},
		&Device{Addr: site.Child(KindDevice, "new"), Type: "meter"},
		&Device{Addr: site.Child(KindDevice, "protected"), Type: "meter", Lifecycle: Lifecycle{PreventDestroy: true}},
		&Customer{Addr: at(KindCustomer, "nobody's")},
		&Policy{Addr: PolicyAddress, RequireSavedPlan: true},
	})
	desired.Moves = []Moved{{From: site.Child(KindDevice, "moved"), To: site.Child(KindDevice, "elsewhere")}}
	desired.Released = []Released{{From: site.Child(KindDevice, "released")}}
	desired.Imports = []Imported{{To: at(KindCustomer, "nobody's"), ID: at(KindCustomer, "nobody's").ID().String()}}
	if n := Diff(current, desired).Count(); n != (Counts{Imports: 1, Moves: 1, Creates: 2, Updates: 1, Deletes: 1, Releases: 1}) {
		t.Fatalf("the plan has %+v", n)
	}
	follows(t, 0, Diff(current, desired), current)

	object := func(a Address) Object { return current.find(a).clone() }
	change := func(p *Plan, action Action) *Change {
		for i := range p.Changes {
			if c := &p.Changes[i]; c.Action == action && c.Address.Kind == KindDevice {
				return c
			}
		}
		panic("no such change")
	}
	another := func(action Action, a Address) func(p *Plan) {
		return func(p *Plan) { p.Changes = append(p.Changes, Change{Action: action, Address: a, Before: object(a)}) }
	}
	rewritten := func(a Address, edit func(Object)) func(p *Plan) {
		return func(p *Plan) {
			c := Change{Action: Update, Address: a, Before: object(a), After: object(a)}
			edit(c.After)
			p.Changes = append(p.Changes, c)
		}
	}
	for name, forge := range map[string]func(*Plan){
		"deletes what is protected":         another(Delete, site.Child(KindDevice, "protected")),
		"deletes what others manage":        another(Delete, at(KindProject, "theirs", "p")),
		"deletes what nobody manages":       another(Delete, at(KindProject, "nobody's", "p")),
		"deletes what is retired":           another(Delete, site.Child(KindDevice, "retired")),
		"deletes what others hang off":      another(Delete, site),
		"deletes twice":                     another(Delete, site.Child(KindDevice, "gone")),
		"releases what others manage":       another(Release, at(KindProject, "theirs", "p")),
		"purges":                            another(Purge, site.Child(KindDevice, "retired")),
		"shows one and deletes another":     func(p *Plan) { change(p, Delete).Before.(*Device).ID = site.Child(KindDevice, "kept").ID() },
		"shows an edit that is none":        func(p *Plan) { change(p, Move).Before.(*Device).Type = "pump" },
		"creates with the id of another":    func(p *Plan) { change(p, Create).After.(*Device).ID = site.Child(KindDevice, "kept").ID() },
		"creates in the site of another":    func(p *Plan) { change(p, Create).After.(*Device).SiteID = at(KindSite, "nobody's", "p", "s").ID() },
		"creates for another declaration":   func(p *Plan) { change(p, Create).After.status().Owner = "they" },
		"creates what is retired":           func(p *Plan) { change(p, Create).After.status().Retired = true },
		"moves with the id of another":      func(p *Plan) { change(p, Move).After.(*Device).ID = site.Child(KindDevice, "kept").ID() },
		"is of another declaration":         func(p *Plan) { p.Owner = "they" },
		"is of no declaration":              func(p *Plan) { p.Owner = "" },
		"has more to destroy a part of":     func(p *Plan) { p.Managed = 1000 },
		"updates what others manage":        rewritten(at(KindProject, "theirs", "p"), func(o Object) { o.(*Project).Description = "x" }),
		"updates what is not changed":       rewritten(site.Child(KindDevice, "kept"), func(Object) {}),
		"takes what nobody manages for one": rewritten(at(KindProject, "nobody's", "p"), func(o Object) { *o.status() = Status{Managed: true, Owner: "they"} }),
		"gives a parameter another key":     rewritten(at(KindParameter, "a", "p", "v"), func(o Object) { o.(*Parameter).Name, o.(*Parameter).Key = "w", "project:x:v" }),
		"puts a threshold elsewhere":        rewritten(at(KindThreshold, "a", "p", "v", "high"), func(o Object) { o.(*Threshold).ParameterKey = "project:x:v" }),
		"has an address of too few names": func(p *Plan) {
			p.Changes = append(p.Changes, Change{Action: Create, Address: at(KindSite, "a"), After: &Site{Addr: at(KindSite, "a"), Status: Status{Managed: true, Owner: "default"}}})
		},
		"creates below what is not there": func(p *Plan) {
			d := &Device{Addr: at(KindDevice, "a", "none", "s", "d"), Status: Status{Managed: true, Owner: "default"}}
			assignIDs(d, Address.ID)
			p.Changes = append(p.Changes, Change{Action: Create, Address: d.Addr, After: d})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := Diff(current, desired)
			for i := range p.Changes { // its objects are the registry's
				if c := &p.Changes[i]; c.Before != nil {
					c.Before = c.Before.clone()
				}
			}
			forge(p)
			if err := p.Verify(current); !errors.Is(err, ErrUnplanned) {
				t.Errorf("Verify returns %v", err)
			}
		})
	}
}
