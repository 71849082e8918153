package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// objectsAt returns objects at addresses: "?device.a/p/s/d" is unmanaged, "!…" retired, "#…" protected, "…@south" of another
// declaration.
func objectsAt(t *testing.T, text string) []Object {
	t.Helper()
	var list []Object
	for _, word := range strings.Fields(text) {
		path := strings.TrimLeft(word, "?!#")
		marks := word[:len(word)-len(path)]
		path, owner, _ := strings.Cut(path, "@")
		a, err := ParseAddress(path)
		if err != nil {
			t.Fatal(err)
		}
		lifecycle := Lifecycle{PreventDestroy: strings.Contains(marks, "#")}
		var o Object
		switch a.Kind {
		case KindCustomer:
			o = &Customer{Addr: a, Lifecycle: lifecycle}
		case KindProject:
			o = &Project{Addr: a, Lifecycle: lifecycle}
		case KindSite:
			o = &Site{Addr: a, Lifecycle: lifecycle}
		case KindDevice:
			o = &Device{Addr: a, Type: "meter", ExternalID: "ext-" + a.Name(), Lifecycle: lifecycle}
		case KindParameter:
			o = &Parameter{Addr: a, Type: TypeFloat, Lifecycle: lifecycle}
		case KindThreshold:
			o = &Threshold{Addr: a, Above: BoundOf(1)}
		case KindRetention:
			o = &Retention{Addr: a, Raw: 1e15}
		default:
			t.Fatalf("unexpected %s", a)
		}
		*o.status() = Status{Managed: !strings.Contains(marks, "?"), Retired: strings.Contains(marks, "!"), Owner: owner}
		list = append(list, o)
	}
	return list
}

// declaredAt returns a declaration: "device.a/p/s/d", "device.a/p/s/d>device.a/p/s/e" moved, "site.a/p/s=ID" imported,
// "-site.a/p/s" released, "&site.a/p/s" referenced, "owner:south".
func declaredAt(t *testing.T, text string) *Snapshot {
	t.Helper()
	at := func(s string) Address {
		a, err := ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var objects []string
	var s Snapshot
	for _, word := range strings.Fields(text) {
		if from, to, ok := strings.Cut(word, ">"); ok {
			s.Moves = append(s.Moves, Moved{From: at(from), To: at(to), Place: "m"})
		} else if to, id, ok := strings.Cut(word, "="); ok {
			s.Imports = append(s.Imports, Imported{at(to), id, "i"})
		} else if to, id, ok := strings.Cut(word, "^"); ok {
			s.Given = append(s.Given, Given{at(to), uuid.MustParse(id), "g"})
		} else if rest, ok := strings.CutPrefix(word, "-"); ok {
			s.Released = append(s.Released, Released{From: at(rest), Place: "r"})
		} else if rest, ok := strings.CutPrefix(word, "&"); ok {
			s.References = append(s.References, Referenced{at(rest), "f"})
		} else if rest, ok := strings.CutPrefix(word, "owner:"); ok {
			s.Owner = rest
		} else {
			objects = append(objects, word)
		}
	}
	list := objectsAt(t, strings.Join(objects, " "))
	for _, o := range list {
		*o.status() = Status{}
	}
	desired := Declare(list)
	desired.Owner, desired.Moves, desired.Imports, desired.Released, desired.References = s.Owner, s.Moves, s.Imports, s.Released, s.References
	desired.Give(s.Given)
	return desired
}

// shown is a plan in words.
func shown(p *Plan) string {
	var out []string
	for _, c := range p.Changes {
		from := ""
		if c.From != nil {
			from = c.From.String() + " -> "
		}
		fields := ""
		if len(c.Fields) > 0 && c.Action != Create {
			fields = " " + fmt.Sprint(c.Fields)
		}
		out = append(out, fmt.Sprintf("%c %s%s%s", rune(c.Action), from, c.Address, fields))
	}
	for _, a := range p.Unmanaged {
		out = append(out, "unmanaged "+a.String())
	}
	for _, owner := range slices.Sorted(maps.Keys(p.Foreign)) {
		out = append(out, fmt.Sprint("foreign ", owner, " ", p.Foreign[owner]))
	}
	for _, c := range p.Conflicts {
		out = append(out, "conflict "+c.Address.String()+" "+c.Owner)
	}
	for _, o := range p.Protected {
		out = append(out, "protected "+o.Address.String()+": "+o.Reason)
	}
	for _, problem := range p.Problems {
		out = append(out, problem.String())
	}
	return strings.Join(out, "\n")
}

func TestDiffFollowsBlocks(t *testing.T) {
	const mill = "customer.a project.a/p site.a/p/n "
	deviceID := NewAddress(KindDevice, "a", "p", "n", "d").ID().String()
	for _, test := range []struct{ name, current, desired, want string }{
		// given an id
		{"a new device", mill, mill + "device.a/p/n/e device.a/p/n/e^" + deviceID, "+ device.a/p/n/e"},
		{"which is there", mill + "device.a/p/n/d", mill + "device.a/p/n/d device.a/p/n/d^" + deviceID, ""},
		{"renamed", mill + "device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/e^" + deviceID, "> device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{
			"another than it has", mill + "device.a/p/n/e", mill + "device.a/p/n/e device.a/p/n/e^" + deviceID,
			"g: device.a/p/n/e has the id " + NewAddress(KindDevice, "a", "p", "n", "e").ID().String() + ", which it keeps for ever: it cannot have the id " + deviceID,
		},
		{
			"that of another", mill + "device.a/p/n/d", mill + "device.a/p/n/d device.a/p/n/e device.a/p/n/e^" + deviceID,
			"g: the id " + deviceID + " is that of device.a/p/n/d: a moved block lets it become device.a/p/n/e",
		},
		{
			"that of a retired one", mill + "!device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/e^" + deviceID,
			"g: the id " + deviceID + " is that of device.a/p/n/d: a moved block lets it become device.a/p/n/e",
		},

		// moved
		{"a device", mill + "device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", "> device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{"done", mill + "device.a/p/n/e", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", ""},
		{"never was", mill, mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", "+ device.a/p/n/e"},
		{
			"both are there", mill + "device.a/p/n/d device.a/p/n/e", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e",
			"m: device.a/p/n/d cannot become device.a/p/n/e, which is in the registry, too: one object cannot have the history of both",
		},
		{
			"one is retired", mill + "device.a/p/n/d !device.a/p/n/e", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e",
			"m: device.a/p/n/d cannot become device.a/p/n/e, which is in the registry too, retired, with its history: one object cannot have the history of both",
		},
		{"a retired one", mill + "!device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", "> device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{"an unmanaged one", mill + "?device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", "> device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{"another's", mill + "device.a/p/n/d@s", mill + "device.a/p/n/e device.a/p/n/d>device.a/p/n/e", "+ device.a/p/n/e\nforeign s 1\nconflict device.a/p/n/d s"},
		{"a protected one", mill + "#device.a/p/n/d", mill + "#device.a/p/m/d site.a/p/m device.a/p/n/d>device.a/p/m/d", "+ site.a/p/m\n> device.a/p/n/d -> device.a/p/m/d"},
		{
			"a chain from its beginning", mill + "device.a/p/n/d", mill + "device.a/p/n/f device.a/p/n/d>device.a/p/n/e device.a/p/n/e>device.a/p/n/f",
			"> device.a/p/n/d -> device.a/p/n/f [{external_id ext-d ext-f}]",
		},
		{
			"a chain from within", mill + "device.a/p/n/e", mill + "device.a/p/n/f device.a/p/n/d>device.a/p/n/e device.a/p/n/e>device.a/p/n/f",
			"> device.a/p/n/e -> device.a/p/n/f [{external_id ext-e ext-f}]",
		},
		{
			"a chain with both", mill + "device.a/p/n/d device.a/p/n/e", mill + "device.a/p/n/f device.a/p/n/d>device.a/p/n/e device.a/p/n/e>device.a/p/n/f",
			"m: device.a/p/n/d and device.a/p/n/e cannot both become device.a/p/n/f",
		},
		{
			"with what is below", mill + "device.a/p/n/d device.a/p/n/e", "customer.b project.b/q site.b/q/m device.b/q/m/d " +
				"customer.a>customer.b project.a/p>project.b/q site.a/p/n>site.b/q/m",
			"- device.a/p/n/e\n> customer.a -> customer.b\n> project.a/p -> project.b/q\n> site.a/p/n -> site.b/q/m",
		},
		{
			"named by where its parent goes", mill + "device.a/p/n/d", "customer.a project.a/p site.a/p/m device.a/p/m/d2 " +
				"site.a/p/n>site.a/p/m device.a/p/m/d>device.a/p/m/d2",
			"> site.a/p/n -> site.a/p/m\n> device.a/p/n/d -> device.a/p/m/d2 [{external_id ext-d ext-d2}]",
		},
		{
			"onto what comes along", mill + "device.a/p/n/d device.a/p/n/e", "customer.a project.a/p site.a/p/m device.a/p/m/d " +
				"site.a/p/n>site.a/p/m device.a/p/n/e>device.a/p/m/d",
			"m: device.a/p/n/e cannot become device.a/p/m/d, which is in the registry, too: one object cannot have the history of both",
		},
		{
			"a parameter", "customer.a project.a/p parameter.a/p/v threshold.a/p/v/high",
			"customer.a project.a/p parameter.a/p/w threshold.a/p/w/high parameter.a/p/v>parameter.a/p/w", "> parameter.a/p/v -> parameter.a/p/w",
		},
		{
			"a parameter with its project", "customer.a project.a/p parameter.a/p/v",
			"customer.a project.a/q parameter.a/q/w project.a/p>project.a/q parameter.a/p/v>parameter.a/q/w",
			"> project.a/p -> project.a/q\n> parameter.a/p/v -> parameter.a/q/w",
		},
		{
			"a parameter to another project", "customer.a project.a/p project.a/q parameter.a/p/v",
			"customer.a project.a/p project.a/q parameter.a/q/v parameter.a/p/v>parameter.a/q/v",
			"m: parameter.a/p/v cannot become parameter.a/q/v: the values that are stored under its key belong to devices of its project; declare a new parameter in the other project",
		},
		// import
		{"by external id", mill + "?device.a/p/n/d", mill + "device.a/p/n/d device.a/p/n/d=ext-d", "= device.a/p/n/d"},
		{"by id, from elsewhere", mill + "?device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/e=" + deviceID, "= device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{"imported", mill + "device.a/p/n/d", mill + "device.a/p/n/d device.a/p/n/d=ext-d", ""},
		{"imported, and moved on", mill + "device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/e=ext-d device.a/p/n/d>device.a/p/n/e", "> device.a/p/n/d -> device.a/p/n/e [{external_id ext-d ext-e}]"},
		{"retired", mill + "!device.a/p/n/d", mill + "device.a/p/n/d device.a/p/n/d=ext-d", "+ device.a/p/n/d"},
		{
			"retired elsewhere", mill + "!device.a/p/n/d", mill + "device.a/p/n/e device.a/p/n/e=ext-d",
			"i: device.a/p/n/d, which has the id \"ext-d\", is retired: move it to device.a/p/n/e with a moved block",
		},
		{"unknown", mill, mill + "device.a/p/n/d device.a/p/n/d=x", "i: the registry has no device with the id \"x\" to import as device.a/p/n/d"},
		{"of another kind", mill + "?device.a/p/n/d", mill + "site.a/p/m site.a/p/m=" + deviceID, "i: the registry has no site with the id \"" + deviceID + "\" to import as site.a/p/m"},
		{"of another's", mill + "device.a/p/n/d@s", mill + "device.a/p/n/e device.a/p/n/e=ext-d", "+ device.a/p/n/e\nforeign s 1\nconflict device.a/p/n/d s"},
		{
			"onto what is there", mill + "device.a/p/n/d ?device.a/p/n/e", mill + "device.a/p/n/d device.a/p/n/d=ext-e",
			"i: device.a/p/n/e cannot become device.a/p/n/d, which is in the registry, too: one object cannot have the history of both",
		},
		// owners and references
		{"declared by two", mill + "device.a/p/n/d@s", mill + "device.a/p/n/d", "conflict device.a/p/n/d s"},
		{"given up by the other", mill + "!device.a/p/n/d@s", mill + "device.a/p/n/d", "+ device.a/p/n/d"},
		{"not pruned", mill + "device.a/p/n/d@s device.a/p/n/e@s retention.telemetry@t", mill, "foreign s 2\nforeign t 1"},
		{"the ground of another", mill + "device.a/p/n/d@s device.a/p/n/e", "customer.a project.a/p", "- device.a/p/n/e\nforeign s 1\nprotected site.a/p/n: device.a/p/n/d, which hangs off it, is managed by the declaration \"s\""},
		{"by its name", mill, "owner:s &customer.a &project.a/p site.a/p/n", "conflict site.a/p/n default"},
		{"hanging off another's", mill, "owner:s &customer.a &project.a/p site.a/p/m", "+ site.a/p/m\nforeign default 1"},
		{"hanging off nothing", "customer.a", "owner:s &customer.a &project.a/p site.a/p/m", "f: project.a/p is referred to, but the registry does not have it: whoever owns it must apply first"},
		{"hanging off what is retired", "customer.a !project.a/p", "owner:s &customer.a &project.a/p site.a/p/m", "f: project.a/p is referred to, but it is retired"},
		{"referring to itself", "customer.a", "&customer.a project.a/p", "f: customer.a is referred to, but this declaration itself manages it: declare it in full, or give it away with a released block"},
		// released
		{"released", mill + "device.a/p/n/d ?device.a/p/n/e", "customer.a project.a/p -site.a/p/n", ". device.a/p/n/d\n. site.a/p/n\nunmanaged device.a/p/n/e"},
		{"released before", "customer.a project.a/p ?site.a/p/n ?device.a/p/n/d", "customer.a project.a/p -site.a/p/n", "unmanaged site.a/p/n\nunmanaged device.a/p/n/d"},
		{"released and another's now", "customer.a project.a/p site.a/p/n@s", "customer.a project.a/p -site.a/p/n", "foreign s 1"},
		{"released and referred to", mill + "device.a/p/n/d", "customer.a project.a/p &site.a/p/n device.a/p/n/d -site.a/p/n", ". site.a/p/n"},
		{"released by a wrong name", mill + "device.a/p/n/d", mill + "-device.a/p/n/D", "r: device.a/p/n/D is released, but the registry does not have it, and this plan destroys objects: name what shall stay, or remove the released block"},
		{"released, and not there, where nothing goes", mill, mill + "-device.a/p/n/D", ""},
		{"released in spite of its protection", mill + "#device.a/p/n/d", mill + "-device.a/p/n/d", ". device.a/p/n/d"},
		// prevent_destroy
		{"protected", mill + "#device.a/p/n/d", mill, "protected device.a/p/n/d: prevent_destroy is set in the registry; apply lifecycle { prevent_destroy = false } first, then remove it"},
		{
			"protected below", "customer.a project.a/p #parameter.a/p/v parameter.a/p/w threshold.a/p/v/high", "customer.b",
			"- threshold.a/p/v/high\n- parameter.a/p/w\n+ customer.b\nprotected customer.a: parameter.a/p/v, which hangs off it, is protected\nprotected project.a/p: parameter.a/p/v, which hangs off it, is protected\n" +
				"protected parameter.a/p/v: prevent_destroy is set in the registry; apply lifecycle { prevent_destroy = false } first, then remove it",
		},
		{"protected and declared", mill + "#device.a/p/n/d", mill + "device.a/p/n/d", "~ device.a/p/n/d [{lifecycle.prevent_destroy true }]"},
		{"protected and retired", mill + "#!device.a/p/n/d", mill, ""},
		{"protected and unmanaged", mill + "#?device.a/p/n/d", mill, "unmanaged device.a/p/n/d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			objects := objectsAt(t, test.current)
			for _, o := range objects {
				assignIDs(o, Address.ID)
			}
			current, desired := NewSnapshot(objects), declaredAt(t, test.desired)
			plan := Diff(current, desired)
			if got := shown(plan); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			refused := len(plan.Problems)+len(plan.Conflicts)+len(plan.Protected) > 0
			if (plan.Refusal() != nil) != refused {
				t.Errorf("the refusal is %v", plan.Refusal())
			}
			if refused {
				return
			}
			if left := Diff(applied(t, current, plan), desired); !left.Empty() || left.Refusal() != nil {
				t.Errorf("after it there is left\n%s", shown(left))
			}
		})
	}
}

// What was renamed by SQL, or by a moved block that is gone, goes back where its id is from; what took its place since has
// an id of its own.
func TestDiffKnowsObjectsByTheirIDs(t *testing.T) {
	const mill = "customer.a project.a/p site.a/p/n device.a/p/n/d parameter.a/p/v"
	current := func(text string) *Snapshot {
		objects := objectsAt(t, text)
		for _, o := range objects {
			assignIDs(o, func(a Address) uuid.UUID { return Address{a.Kind, strings.Replace(a.Path, "z", "a", 1)}.ID() })
		}
		return NewSnapshot(objects)
	}
	for _, test := range []struct{ current, desired, want string }{
		{"customer.z project.z/p site.z/p/n device.z/p/n/d parameter.z/p/v", mill, "> customer.z -> customer.a"},
		{"customer.z project.z/p site.z/p/n device.z/p/n/d parameter.z/p/v", mill + " customer.z>customer.a", "> customer.z -> customer.a"},
		{"!customer.z", "customer.a", "+ customer.a"},
		{"?customer.z", "customer.a", "+ customer.a\nunmanaged customer.z"},
		{"customer.z@s", "customer.a", "+ customer.a\nforeign s 1"},
		{"customer.z", "customer.a -customer.z", ". customer.z\n+ customer.a"},
		{"customer.z", "customer.a customer.z", "+ customer.a"},
		{"#customer.z", "#customer.a", "> customer.z -> customer.a"},
		{"customer.a project.a/p project.a/q site.a/p/z site.a/q/n", "customer.a project.a/p project.a/q site.a/p/a site.a/q/n", "> site.a/p/z -> site.a/p/a"},
	} {
		before, desired := current(test.current), declaredAt(t, test.desired)
		plan := Diff(before, desired)
		if got := shown(plan); got != test.want {
			t.Errorf("%s to %s: got\n%s\nwant\n%s", test.current, test.desired, got, test.want)
		}
		if left := Diff(applied(t, before, plan), desired); !left.Empty() {
			t.Errorf("%s to %s: after it there is left\n%s", test.current, test.desired, shown(left))
		}
	}
}

// node is an object of a registry that knows its parent, as the rows of a database do.
type node struct {
	object Object
	name   string
	parent *node
}

func (n *node) address() Address {
	kind := n.object.Address().Kind
	if n.parent == nil {
		return NewAddress(kind, n.name)
	}
	return n.parent.address().Child(kind, n.name)
}

// applied is what the registry holds after a plan, by another way than Diff goes: objects hang off one another.
func applied(t *testing.T, current *Snapshot, plan *Plan) *Snapshot {
	t.Helper()
	var nodes []*node
	at := func(a Address) *node {
		for _, n := range nodes {
			if n.address() == a {
				return n
			}
		}
		return nil
	}
	hang := func(o Object) *node {
		n := &node{object: o, name: o.Address().Name()}
		if a, ok := o.Address().Parent(); ok {
			if n.parent = at(a); n.parent == nil {
				t.Fatalf("%s is to hang off %s, which is not there\n%s", o.Address(), a, shown(plan))
			}
		}
		return n
	}
	for o := range current.Objects {
		nodes = append(nodes, hang(o.clone()))
	}
	found := make([]*node, len(plan.Changes)) // what a move is about is known by where it was
	for i, c := range plan.Changes {
		if c.From != nil {
			found[i] = at(*c.From)
		}
	}
	for i, c := range plan.Changes {
		n := found[i]
		if n == nil {
			n = at(c.Address)
		}
		if n == nil && c.Before != nil {
			n = at(c.Before.Address())
		}
		if n != nil && c.After != nil && n.object.id() != c.After.id() {
			t.Fatalf("%s changes its id\n%s", c.Address, shown(plan))
		}
		switch {
		case c.Action == Create && c.Before == nil:
			for _, other := range nodes {
				if id := c.After.id(); id != uuid.Nil && other.object.id() == id {
					t.Fatalf("%s gets the id of %s", c.Address, other.address())
				}
			}
			nodes = append(nodes, hang(c.After.clone()))
		case n == nil:
			t.Fatalf("%s is not there\n%s", c.Address, shown(plan))
		case c.Action == Release:
			*n.object.status() = Status{}
		case c.Action == Delete:
			switch n.object.(type) {
			case *Threshold, *Platform, *Retention, *Limits, *Policy, *Discovery:
				nodes = slices.DeleteFunc(nodes, func(other *node) bool { return other == n })
			default:
				n.object.status().Retired = true
			}
		default:
			moved := hang(c.After.clone())
			n.object, n.name, n.parent = moved.object, moved.name, moved.parent
		}
	}
	var objects []Object
	for _, n := range nodes {
		o := n.object.clone()
		o.setAddress(n.address())
		if p, ok := o.(*Parameter); ok {
			if id := n.parent.object.id(); p.Key != ParameterKey(id, n.name) {
				t.Fatalf("%s has the key %s, its project the id %s", n.address(), p.Key, id)
			}
		}
		objects = append(objects, o)
	}
	after := NewSnapshot(objects)
	for _, c := range after.Customers { // parents are known by id
		if c.Parent != "" {
			for _, was := range plan.Changes {
				if was.Action == Move && *was.From == NewAddress(KindCustomer, c.Parent) && at(*was.From) == nil {
					c.Parent = was.Address.Name()
				}
			}
		}
	}
	for _, d := range after.Devices { // gateways, too
		if d.Gateway == (Address{}) {
			continue
		}
		gateway := after.Device(d.GatewayID)
		if gateway == nil {
			t.Fatalf("%s is reached through %s, which is not there\n%s", d.Addr, d.GatewayID, shown(plan))
		}
		d.Gateway = gateway.Addr
	}
	return after
}

// randomMoves pairs what only the registry has with what only the declaration has.
func randomMoves(r *rand.Rand, current, desired *Snapshot) (list []Moved) {
	free := map[Kind][]Address{}
	for o := range desired.Objects {
		if a := o.Address(); current.find(a) == nil {
			free[a.Kind] = append(free[a.Kind], a)
		}
	}
	for o := range current.Objects {
		a := o.Address()
		if desired.find(a) != nil || r.IntN(4) == 0 {
			continue
		}
		if n := len(free[a.Kind]); n > 0 {
			i := r.IntN(n)
			list = append(list, Moved{From: a, To: free[a.Kind][i]})
			free[a.Kind] = slices.Delete(free[a.Kind], i, i+1)
		}
	}
	return list
}

// What moves keeps its id; once a plan was applied there is nothing left to do, and the blocks may stay or go.
func TestDiffMoves(t *testing.T) {
	moves, refused := 0, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(3, seed))
		current := asApplied(randomObjects(r))
		for o := range current.Objects { // some are retired already, or unmanaged
			switch r.IntN(12) {
			case 0:
				if _, ok := o.(interface{ lifecycle() Lifecycle }); ok {
					o.status().Retired = true
				}
			case 1:
				*o.status() = Status{}
			}
		}
		ids := map[uuid.UUID]bool{}
		for step := range 3 {
			desired := Declare(randomObjects(r))
			for _, c := range desired.Customers {
				if desired.find(NewAddress(KindCustomer, c.Parent)) == nil {
					c.Parent = ""
				}
			}
			desired.Moves = randomMoves(r, current, desired)
			plan := Diff(current, desired)
			if plan.Refusal() != nil {
				refused++
				break
			}
			follows(t, seed, plan, current)
			moves += plan.Count().Moves
			after := applied(t, current, plan)
			if left := Diff(after, desired); !left.Empty() || left.Refusal() != nil {
				t.Fatalf("seed %d step %d: left\n%s\nof\n%s", seed, step, shown(left), shown(plan))
			}
			desired.Moves = nil
			if left := Diff(after, desired); !left.Empty() || left.Refusal() != nil {
				t.Fatalf("seed %d step %d: without the blocks there is left\n%s\nof\n%s", seed, step, shown(left), shown(plan))
			}
			seen := map[uuid.UUID]bool{}
			for o := range after.Objects {
				if id := o.id(); id != uuid.Nil {
					if seen[id] {
						t.Fatalf("seed %d step %d: two have the id of %s", seed, step, o.Address())
					}
					seen[id] = true
				}
			}
			for id := range ids {
				if !seen[id] {
					t.Fatalf("seed %d step %d: an object is gone", seed, step)
				}
			}
			for o := range after.Objects {
				if _, ok := o.(interface{ lifecycle() Lifecycle }); ok { // the others are really deleted
					ids[o.id()] = true
				}
			}
			current = after
		}
	}
	t.Logf("%d moves, %d plans refused", moves, refused)
	if moves < 2000 {
		t.Errorf("%d moves, %d plans refused: too little was tried", moves, refused)
	}
}

// No plan touches what another declaration manages, nor deletes what is protected or what such objects hang off.
func TestDiffKeepsToItsOwn(t *testing.T) {
	foreign, protected := 0, 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(4, seed))
		current, desired := asApplied(randomObjects(r)), Declare(randomObjects(r))
		desired.Owner = "mine"
		for o := range current.Objects {
			*o.status() = Status{Managed: r.IntN(8) > 0, Owner: []string{"", "mine", "mine", "mine", "mine"}[r.IntN(5)]}
			if p, ok := o.(interface{ setProtected() }); ok && r.IntN(6) == 0 {
				p.setProtected()
			}
		}
		desired.Moves = randomMoves(r, current, desired)
		plan := Diff(current, desired)
		gone := map[Address]bool{}
		for _, c := range plan.Changes {
			if c.Before != nil && c.Before.status().Managed && OwnerOf(c.Before) != "mine" {
				t.Fatalf("seed %d: %s of %q is touched:\n%s", seed, c.Before.Address(), OwnerOf(c.Before), shown(plan))
			}
			if c.After != nil && OwnerOf(c.After) != "mine" {
				t.Fatalf("seed %d: %s becomes that of %q", seed, c.Address, OwnerOf(c.After))
			}
			if c.Action == Delete {
				gone[c.Address] = true
				if lifecycleOf(c.Before).PreventDestroy {
					t.Fatalf("seed %d: %s is protected", seed, c.Address)
				}
			}
		}
		counted := 0
		for o := range current.Objects {
			other := o.status().Managed && OwnerOf(o) != "mine"
			if other && desired.find(o.Address()) == nil && len(desired.Moves) == 0 {
				counted++
			}
			if !o.status().Managed || !other && !lifecycleOf(o).PreventDestroy || len(desired.Moves) > 0 {
				continue
			}
			for a, ok := o.Address(), true; ok; a, ok = a.Parent() {
				if gone[a] && desired.find(o.Address()) == nil {
					t.Fatalf("seed %d: %s is deleted, which %s hangs off", seed, a, o.Address())
				}
			}
			for _, a := range needs(o) {
				if other && gone[a] {
					t.Fatalf("seed %d: %s is deleted, which %s of %q needs", seed, a, o.Address(), OwnerOf(o))
				}
			}
		}
		if n := 0; len(desired.Moves) == 0 {
			for _, count := range plan.Foreign {
				n += count
			}
			if n != counted {
				t.Fatalf("seed %d: %d foreign objects, want %d", seed, n, counted)
			}
		}
		foreign += len(plan.Foreign)
		protected += len(plan.Protected)
	}
	if foreign == 0 || protected == 0 {
		t.Error("too little was tried")
	}
}

func (l *Lifecycle) setProtected() { l.PreventDestroy = true }

func TestRefusal(t *testing.T) {
	plan := &Plan{Conflicts: []Conflict{{NewAddress(KindCustomer, "a"), "s"}}}
	const one = `customer.a is managed by the declaration "s": only one can own an object; refer to it with reference = true, or release it there first`
	if err := plan.Refusal(); err == nil || err.Error() != one {
		t.Errorf("got %v", err)
	}
	for range 30 {
		plan.Conflicts = append(plan.Conflicts, plan.Conflicts[0])
	}
	text := plan.Refusal().Error()
	if !strings.HasPrefix(text, "this plan cannot be applied:\n  customer.a") || strings.Count(text, "\n") != 21 || !strings.HasSuffix(text, "\n  and 11 more") {
		t.Errorf("got %s", text)
	}
}

func TestChecksumCoversBlocks(t *testing.T) {
	const plain = "customer.a project.a/p"
	sums := map[string]string{}
	for _, text := range []string{
		plain, plain + " owner:s", plain + " &customer.b", plain + " -customer.b", plain + " customer.b>customer.a", plain + " customer.c>customer.a",
		plain + " customer.a=x", plain + " customer.a=y", "#customer.a project.a/p",
	} {
		sum := declaredAt(t, text).Checksum()
		if other, twice := sums[sum]; twice {
			t.Errorf("%q and %q have one checksum", text, other)
		}
		sums[sum] = text
	}
	if declaredAt(t, plain+" owner:default").Checksum() != declaredAt(t, plain).Checksum() {
		t.Error("the default name changes the checksum")
	}
}

// A device that is given the id of another's address leaves that one to look for another.
func TestGivenIDs(t *testing.T) {
	const mill = "customer.a project.a/p site.a/p/n "
	d, e := NewAddress(KindDevice, "a", "p", "n", "d"), NewAddress(KindDevice, "a", "p", "n", "e")
	plan := Diff(NewSnapshot(objectsAt(t, mill)), declaredAt(t, mill+"device.a/p/n/d device.a/p/n/e device.a/p/n/e^"+d.ID().String()))
	ids := map[Address]uuid.UUID{}
	for _, c := range plan.Changes {
		ids[c.Address] = IDOf(c.After)
	}
	if len(ids) != 2 || ids[e] != d.ID() || ids[d] == d.ID() || ids[d] == uuid.Nil {
		t.Errorf("the ids are %v", ids)
	}
}
