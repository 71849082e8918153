package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/nsready/nsready/engine/registry"
)

func TestPrintPlan(t *testing.T) {
	device := registry.Address{Kind: registry.KindDevice, Path: "acme/mill/north/press-01"}
	site := registry.Address{Kind: registry.KindSite, Path: "acme/mill/north"}
	for _, test := range []struct {
		name string
		plan registry.Plan
		want string
	}{
		{
			"every action", registry.Plan{BaseVersion: 12, Changes: []registry.Change{
				{Action: registry.Delete, Address: device},
				{Action: registry.Update, Address: site, Reason: "was made outside nsready, will be managed from now on", Fields: []registry.FieldChange{
					{Name: "location", Before: "", After: `{"city":"Köln"}`}, {Name: "note", Before: "a \"b\"\x1b", After: ""},
				}},
				{Action: registry.Create, Address: registry.NewAddress(registry.KindCustomer, "a\x1b[2Jb"), Fields: []registry.FieldChange{{Name: "parent", After: "°C"}}},
			}, Unmanaged: []registry.Address{device}},
			`Against registry version 12, nsready will:

  - device.acme/mill/north/press-01
  ~ site.acme/mill/north (was made outside nsready, will be managed from now on)
      location: (none) -> {"city":"Köln"}
      note: "a \"b\"\x1b" -> (none)
  + customer.a\x1b[2Jb
      parent: "°C"

Plan: 1 to add, 1 to change, 1 to destroy.

Note: 1 unmanaged object in the registry, made outside nsready, is left alone:
    device.acme/mill/north/press-01
`,
		},
		{
			"rows without an apply", registry.Plan{BaseRevision: 3, Changes: []registry.Change{{Action: registry.Delete, Address: device}}},
			"Against a registry that was never applied to, nsready will:\n\n  - device.acme/mill/north/press-01\n\nPlan: 0 to add, 0 to change, 1 to destroy.\n",
		},
		{"nothing", registry.Plan{BaseVersion: 1}, "No changes. The registry matches the declaration.\n"},
	} {
		var out bytes.Buffer
		if err := printPlan(&out, viewPlan(&test.plan)); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, out.String(), test.want)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	plan := registry.Plan{BaseVersion: 1, BaseRevision: 2, Checksum: "abc"}
	got, err := json.Marshal(viewPlan(&plan))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"format_version":"1.0","base_version":1,"base_revision":2,"checksum":"abc","changes":[],"summary":{"add":0,"change":0,"destroy":0}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
