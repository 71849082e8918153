package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

func bigEstate(n int, kind string) *registry.Snapshot {
	var objects []registry.Object
	c := registry.NewAddress(registry.KindCustomer, "acme")
	objects = append(objects, &registry.Customer{Addr: c})
	for i := range n {
		if i%10000 == 0 {
			objects = append(objects, &registry.Project{Addr: c.Child(registry.KindProject, fmt.Sprintf("project-%d", i/10000))})
		}
		p := c.Child(registry.KindProject, fmt.Sprintf("project-%d", i/10000))
		s := p.Child(registry.KindSite, fmt.Sprintf("site-%03d", i/100))
		if i%100 == 0 {
			objects = append(objects, &registry.Site{Addr: s})
		}
		state := "active"
		if kind != "" && i%10 == 3 {
			state = kind
		}
		objects = append(objects, &registry.Device{
			Addr: s.Child(registry.KindDevice, fmt.Sprintf("dev-%06d", i)), Type: "energy_meter",
			ExternalID: fmt.Sprintf("EXT-%08d", i), State: state,
		})
	}
	return registry.Declare(objects)
}

func TestTiming(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	a := bigEstate(100000, "")
	for round := range 3 {
		lap := time.Now()
		took := func(what string) {
			t.Logf("%d %-20s %v", round, what, time.Since(lap))
			lap = time.Now()
		}
		cur, err := s.LoadRegistry(ctx)
		if err != nil {
			t.Fatal(err)
		}
		took("load empty")
		plan := registry.Diff(cur, a)
		took("diff create")
		if _, err := s.Apply(ctx, plan, Author{"u", "h"}); err != nil {
			t.Fatal(err)
		}
		took("apply create")
		if cur, err = s.LoadRegistry(ctx); err != nil {
			t.Fatal(err)
		}
		took("load")
		if plan := registry.Diff(cur, a); !plan.Empty() {
			t.Fatal("not empty")
		}
		took("diff none")
		b := bigEstate(100000, "paused")
		lap = time.Now()
		plan = registry.Diff(cur, b)
		took("diff 10k")
		if _, err := s.Apply(ctx, plan, Author{"u", "h"}); err != nil {
			t.Fatal(err)
		}
		took("apply 10k")
		exec(t, s, "TRUNCATE customers, parameter_templates CASCADE")
	}
}
