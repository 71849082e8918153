package loadgen

import (
	"fmt"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// estate declares devices in one project with the parameters that tests care about: every type, odd ranges, thresholds.
func estate(devices int) *registry.Snapshot {
	project := registry.NewAddress(registry.KindProject, "acme", "mill")
	objects := []registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "acme")},
		&registry.Project{Addr: project},
		&registry.Site{Addr: project.Child(registry.KindSite, "north")},
	}
	for _, p := range []registry.Parameter{
		{Name: "voltage", Min: registry.BoundOf(0), Max: registry.BoundOf(240)},
		{Name: "temperature", Type: registry.TypeFloat, Min: registry.BoundOf(-40.5), Max: registry.BoundOf(-0.25)},
		{Name: "ratio", Type: registry.TypeFloat, Min: registry.BoundOf(0.1), Max: registry.BoundOf(0.3)},
		{Name: "count", Type: registry.TypeInt, Min: registry.BoundOf(2.5), Max: registry.BoundOf(9.5)},
		{Name: "running", Type: registry.TypeBool},
		{Name: "free", Type: registry.TypeFloat},
		{Name: "huge", Type: registry.TypeFloat, Min: registry.BoundOf(-1e300), Max: registry.BoundOf(1e300)},
		{Name: "impossible", Type: registry.TypeInt, Min: registry.BoundOf(0.2), Max: registry.BoundOf(0.8)},
	} {
		kind := registry.KindParameter
		p.Addr = registry.Address{Kind: kind, Path: project.Path}.Child(kind, p.Name)
		objects = append(objects, &p)
	}
	voltage := registry.Address{Kind: registry.KindThreshold, Path: project.Path + "/voltage"}
	objects = append(objects,
		&registry.Threshold{Addr: voltage.Child(registry.KindThreshold, "high"), Above: registry.BoundOf(200), Deadband: 5, For: time.Minute},
		&registry.Threshold{Addr: voltage.Child(registry.KindThreshold, "low"), Below: registry.BoundOf(20)})
	site := registry.Address{Kind: registry.KindDevice, Path: project.Path + "/north"}
	for i := range devices {
		d := &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprintf("press-%04d", i))}
		if i%3 == 1 {
			d.Parameters = []string{"ratio", "voltage"}
		}
		objects = append(objects, d)
	}
	return registry.Declare(objects)
}
