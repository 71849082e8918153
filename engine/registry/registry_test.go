package registry

import (
	"slices"
	"testing"
)

// Whoever adds a kind is told what else must know it.
func TestEveryKindIsKnownEverywhere(t *testing.T) {
	for kind := range rank {
		o, err := readObject(kind, []byte("{}"))
		if err != nil {
			t.Errorf("readObject: %v", err)
			continue
		}
		a := Address{kind, "x"}
		o.setAddress(a)
		s := NewSnapshot([]Object{o})
		if got := slices.Collect(s.Objects); !slices.Equal(got, []Object{o}) {
			t.Errorf("%s: Objects yields %v", kind, got)
		}
		if got := s.find(a); got != o {
			t.Errorf("%s: find returns %v", kind, got)
		}
		for name, plan := range map[string]*Plan{"Diff": Diff(NewSnapshot(nil), s), "Add": Add(NewSnapshot(nil), s)} {
			if len(plan.Changes) != 1 || plan.Changes[0].Address != a {
				t.Errorf("%s: %s plans %+v", kind, name, plan.Changes)
			}
		}
		if _, hangs := parents[kind]; !hangs && !isGlobal(o) && kind != KindCustomer {
			t.Errorf("%s: isGlobal does not know it", kind)
		}
	}
}
