package registry

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestChangesAreReadAsTheyWereWritten(t *testing.T) {
	kinds, done := map[Kind]bool{}, map[Action]bool{}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		current, desired := Declare(randomObjects(r)), Declare(randomObjects(r))
		for o := range current.Objects {
			*o.status() = Status{Managed: r.IntN(5) > 0, Owner: "default"}
			if d, ok := o.(*Device); ok {
				d.Ref = 7
			}
			a := o.Address()
			switch declared := desired.find(a) != nil; {
			case declared && !o.status().Managed && o.id() != uuid.Nil:
				desired.Imports = append(desired.Imports, Imported{To: a, ID: o.id().String()})
			case !declared && r.IntN(5) == 0:
				desired.Released = append(desired.Released, Released{From: a})
			}
		}
		if seed%2 == 0 {
			desired.Moves = randomMoves(r, current, desired)
		}
		changes := Diff(current, desired).Changes
		for _, c := range current.Customers {
			changes = append(changes, Change{Action: Purge, Address: c.Addr, Before: c})
		}
		var text bytes.Buffer
		if err := WriteChanges(&text, changes); err != nil {
			t.Fatal(err)
		}
		again := text.String()
		got, err := ReadChanges(&text)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(changes) {
			t.Fatalf("%d changes, want %d", len(got), len(changes))
		}
		for i := range got {
			if !reflect.DeepEqual(got[i], changes[i]) {
				t.Fatalf("seed %d:\ngot  %+v\nwant %+v\nof %s", seed, got[i], changes[i], again)
			}
			kinds[got[i].Address.Kind], done[got[i].Action] = true, true
		}
	}
	for kind := range rank {
		if !kinds[kind] {
			t.Errorf("no %s among the changes", kind)
		}
	}
	for action, name := range actions {
		if !done[action] {
			t.Errorf("no change is to %s", name)
		}
	}
}

func TestReadChangesRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"action":"create","address":"site.a/b/c","after":{"address":"site.a/b/d"}}`, "change 1: after: the object says that it is site.a/b/d"},
		{
			`{"action":"update","address":"site.a/b/c","before":{"address":"site.a/b/d"},"after":{"address":"site.a/b/c"}}`,
			"change 1: before: the object says that it is site.a/b/d",
		},
		{
			`{"action":"move","address":"site.a/b/c","before":{"address":"device.a/b/c/d"},"after":{"address":"site.a/b/c"}}`,
			"change 1: before: the object says that it is device.a/b/c/d",
		},
		{`{"action":"release","address":"site.a/b/c","before":{"address":"site.a/b/d"}}`, "change 1: before: the object says that it is site.a/b/d"},
		{`{"action":"move","address":"site.a/b/c","after":{"address":"site.a/b/c"}}`, "a change that is to move site.a/b/c has not the objects that it needs"},
		{`{"action":"create","address":"site.a/b/c"}`, "change 1: a change that is to create site.a/b/c has not the objects that it needs"},
		{`{"action":"delete","address":"site.a/b/c"}`, "has not the objects that it needs"},
		{`{"action":"update","address":"site.a/b/c","after":{"address":"site.a/b/c"}}`, "has not the objects that it needs"},
		{`{"action":"create","address":"site.a/b/c","after":{"address":"site.a/b/c","colour":1}}`, `unknown field "colour"`},
		{`{"action":"create","address":"site.a/b/c","after":{"address":"site.a/b/c"},"x":1}`, `unknown field "x"`},
		{`{"action":"paint","address":"site.a/b/c"}`, `"paint" is no action`},
		{`{"action":"create","address":"planet.a"}`, "is not an address"},
		{`{"action":"create","address":"site.a/b/c","after":{"address":"site.a/b/c"}} {`, "change 2: unexpected EOF"},
	} {
		_, err := ReadChanges(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}

// What is read at all is written and read as the same again.
func FuzzReadChanges(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	var text bytes.Buffer
	if err := WriteChanges(&text, Diff(Declare(randomObjects(r)), Declare(randomObjects(r))).Changes); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
	f.Add([]byte(`{"action":"delete","address":"limits.ingest","before":{"address":"limits.ingest"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		changes, err := ReadChanges(bytes.NewReader(text))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteChanges(&out, changes); err != nil {
			t.Fatal(err)
		}
		again, err := ReadChanges(&out)
		if err != nil || !reflect.DeepEqual(again, changes) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, again, changes)
		}
	})
}
