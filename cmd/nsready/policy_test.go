package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/registry"
)

// up applies a declaration the first time, and leaves alone what its policy protects from then on.
func TestUpAppliesNothingThatNeedsASavedPlan(t *testing.T) {
	url := migrated(t)
	var said []string
	m := &machine{options: upOptions{config: "nsready.hcl"}, database: url, say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	declared := func(names ...string) *registry.Snapshot {
		objects := []registry.Object{&registry.Policy{Addr: registry.PolicyAddress, RequireSavedPlan: true}}
		for _, name := range names {
			objects = append(objects, &registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, name)})
		}
		return registry.Declare(objects)
	}
	for _, names := range [][]string{{"acme"}, {"acme"}, {"acme", "other"}} {
		if err := m.declare(t.Context(), declared(names...)); err != nil {
			t.Fatal(err)
		}
	}
	if n := ask[int](t, url, `SELECT count(*) FROM customers`); n != 1 {
		t.Errorf("there are %d customers", n)
	}
	if last := said[len(said)-1]; !strings.Contains(last, "not applied") || !strings.Contains(last, "nsready apply estate.plan") || len(said) != 3 {
		t.Errorf("said %q", said)
	}
}
