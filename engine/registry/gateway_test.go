package registry

import (
	"slices"
	"strings"
	"testing"
)

// reached lets the device d of a list be reached through another one, at an address.
func reached(list []Object, d, through string) []Object {
	for _, o := range list {
		if o, ok := o.(*Device); ok && o.Addr.Path == d {
			o.Gateway = Address{KindDevice, through}
		}
	}
	return list
}

const hall = "customer.a project.a/p site.a/p/s site.a/p/t "

func TestGatewaysKeepTheirDevices(t *testing.T) {
	declare := func(text, d, through string, more ...Moved) *Snapshot {
		s := declaredAt(t, text)
		return withMoves(s, reached(slices.Collect(s.Objects), d, through), more)
	}
	current := Declare(reached(objectsAt(t, hall+"device.a/p/s/gw device.a/p/t/d device.a/p/t/other"), "a/p/t/d", "a/p/s/gw"))
	id := current.find(Address{KindDevice, "a/p/s/gw"}).(*Device).ID
	at := func(path string) Address { return Address{KindDevice, path} }

	// A gateway that is renamed, itself or with its site, is the same one: nothing is to be done about what is behind it.
	for _, test := range []struct {
		text, through string
		moved         Moved
	}{
		{hall + "device.a/p/s/router device.a/p/t/d device.a/p/t/other", "a/p/s/router", Moved{From: at("a/p/s/gw"), To: at("a/p/s/router")}},
		{"customer.a project.a/p site.a/p/u site.a/p/t device.a/p/u/gw device.a/p/t/d device.a/p/t/other", "a/p/u/gw",
			Moved{From: Address{KindSite, "a/p/s"}, To: Address{KindSite, "a/p/u"}}},
	} {
		plan := Diff(current, declare(test.text, "a/p/t/d", test.through, test.moved))
		if len(plan.Problems) > 0 || len(plan.Changes) != 1 || plan.Changes[0].Action != Move {
			t.Errorf("%s: %+v, %v", test.through, plan.Changes, plan.Problems)
		}
		fold := NewFold(current)
		fold.Add(plan.Changes)
		if got := fold[at("a/p/t/d")].(*Device).Gateway; got != at(test.through) {
			t.Errorf("read back, the gateway is %s, want %s", got, test.through)
		}
	}
	// By another id than that of its address it is found, too.
	renamed := Declare(reached(objectsAt(t, hall+"device.a/p/s/gw device.a/p/t/d"), "a/p/t/d", ""))
	renamed.find(at("a/p/s/gw")).(*Device).ID[0]++
	plan := Diff(renamed, declare(hall+"device.a/p/s/gw device.a/p/t/d", "a/p/t/d", "a/p/s/gw"))
	if n := len(plan.Changes); n != 1 || plan.Changes[0].After.(*Device).GatewayID != renamed.find(at("a/p/s/gw")).(*Device).ID {
		t.Errorf("%+v", plan.Changes)
	}
	// What is made in the same apply has its id, and comes along with -target.
	plan = Diff(NewSnapshot(nil), declare(hall+"device.a/p/s/gw device.a/p/t/d", "a/p/t/d", "a/p/s/gw"))
	part := plan.Target([]Address{at("a/p/t/d")})
	if n := len(part.Changes); n != 6 || part.Changes[n-1].After.(*Device).GatewayID != id {
		t.Errorf("%d changes: %+v", n, part.Changes)
	}
	// A gateway that goes takes along what lets go of it.
	plan = Diff(current, declaredAt(t, hall+"device.a/p/t/d device.a/p/t/other"))
	if part := plan.Target([]Address{at("a/p/s/gw")}); len(part.Changes) != 2 || part.Changes[1].Address != at("a/p/t/d") {
		t.Errorf("%+v", part.Changes)
	}
}

func withMoves(s *Snapshot, objects []Object, moves []Moved) *Snapshot {
	desired := Declare(objects)
	desired.Moves, desired.References, desired.Owner, desired.Released = append(s.Moves, moves...), s.References, s.Owner, s.Released
	return desired
}

func TestGatewaysThatOthersNeedStay(t *testing.T) {
	const bare = "customer.a project.a/p site.a/p/t device.a/p/t/d"
	for _, test := range []struct {
		name, current string
		declared      string
		want          string // of the refusal, "" for none
	}{
		{"of another declaration", hall + "device.a/p/s/gw device.a/p/t/d@south", "customer.a project.a/p site.a/p/t",
			`device.a/p/s/gw is not declared but cannot be destroyed: device.a/p/t/d, which names it, is managed by the declaration "south"`},
		{"and its site", hall + "device.a/p/s/gw device.a/p/t/d@south", "customer.a project.a/p site.a/p/t",
			`site.a/p/s is not declared but cannot be destroyed: device.a/p/t/d, which names it, is managed by the declaration "south"`},
		{"retired", hall + "device.a/p/s/gw !device.a/p/t/d@south", "customer.a project.a/p site.a/p/t", ""},
		{"both go", hall + "device.a/p/s/gw device.a/p/t/d", "customer.a project.a/p site.a/p/t", ""},
		{"let go", hall + "device.a/p/s/gw device.a/p/t/d", bare, ""},
		{"gone", hall + "!device.a/p/s/gw device.a/p/t/d", bare + " &device.a/p/s/gw", "f: device.a/p/s/gw is referred to, but it is retired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := Diff(Declare(reached(objectsAt(t, test.current), "a/p/t/d", "a/p/s/gw")), declaredAt(t, test.declared))
			err := plan.Refusal()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
	// SQL can make a circle; a plan ends all the same.
	circle := reached(reached(objectsAt(t, hall+"device.a/p/s/gw@south device.a/p/t/d@south"), "a/p/t/d", "a/p/s/gw"), "a/p/s/gw", "a/p/t/d")
	if err := Diff(Declare(circle), declaredAt(t, "customer.b")).Refusal(); err == nil {
		t.Error("what others manage would go")
	}
	// A gateway is purged after what is reached through it was given another one.
	current := Declare(reached(objectsAt(t, hall+"!device.a/p/s/gw ?device.a/p/t/d"), "a/p/t/d", "a/p/s/gw"))
	if _, err := PlanPurge(current, []Address{{KindDevice, "a/p/s/gw"}}, nil); err == nil || !strings.Contains(err.Error(), "is the gateway of device.a/p/t/d") {
		t.Errorf("%v", err)
	}
}

// Drift knows a gateway that was renamed by hand.
func TestGatewaysDrift(t *testing.T) {
	text := hall + "device.a/p/s/gw device.a/p/t/d device.a/p/t/other"
	applied := Declare(reached(objectsAt(t, text), "a/p/t/d", "a/p/s/gw"))
	live := Declare(reached(objectsAt(t, text), "a/p/t/d", "a/p/s/gw"))
	live.find(Address{KindDevice, "a/p/s/gw"}).(*Device).Addr.Path = "a/p/s/hub"
	live.find(Address{KindDevice, "a/p/t/d"}).(*Device).Gateway.Path = "a/p/s/hub"
	live = NewSnapshot(slices.Collect(live.Objects))
	if list := Drift(applied, live); len(list) != 1 || list[0].Address.Path != "a/p/s/gw" || len(list[0].Fields) != 1 {
		t.Errorf("%+v", list)
	}
	live.find(Address{KindDevice, "a/p/t/d"}).(*Device).Gateway = Address{KindDevice, "a/p/t/other"}
	if list := Drift(applied, live); len(list) != 2 || list[1].Fields[0] != (FieldChange{"gateway", "device.a/p/s/gw", "device.a/p/t/other"}) {
		t.Errorf("%+v", list)
	}
}

// An export refers to the gateways that others manage, and declares those in its own sites.
func TestGatewaysAreExported(t *testing.T) {
	s := Declare(reached(reached(objectsAt(t, hall+"device.a/p/s/gw@south ?device.a/p/t/near device.a/p/t/d device.a/p/t/e"), "a/p/t/d", "a/p/s/gw"), "a/p/t/e", "a/p/t/near"))
	s.find(Address{KindSite, "a/p/s"}).status().Owner = "south"
	live, beside := s.Live(Part{Owner: DefaultOwner})
	var references []string
	for _, r := range live.References {
		references = append(references, r.Address.String())
	}
	if want := []string{"device.a/p/s/gw", "site.a/p/s"}; !slices.Equal(references, want) {
		t.Errorf("refers to %q, want %q", references, want)
	}
	if want := (Address{KindDevice, "a/p/t/near"}); len(beside) != 1 || beside[0] != want || live.find(want) == nil || live.find(Address{KindDevice, "a/p/s/gw"}) != nil {
		t.Errorf("beside are %v; %q", beside, addresses(live))
	}
	if own := s.Of(DefaultOwner); len(own.References) != 2 || own.References[0].Address.Path != "a/p/s/gw" {
		t.Errorf("read back, it refers to %v", own.References)
	}
}
