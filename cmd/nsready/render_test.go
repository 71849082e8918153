package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/sheet"
	"github.com/nsready/nsready/engine/store"
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
		if err := printPlan(&out, viewPlan(&test.plan), false); err != nil {
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
	const want = `{"format_version":"1.0","base_version":1,"base_revision":2,"checksum":"abc","owner":"","managed_objects":0,"changes":[],"summary":{"import":0,"move":0,"add":0,"change":0,"destroy":0,"release":0}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The schema of docs/plan-json.md: a document with every member, byte for byte, and every member is explained there.
func TestPlanJSONSchema(t *testing.T) {
	device := registry.Address{Kind: registry.KindDevice, Path: "acme/mill/north/press-01"}
	site := registry.Address{Kind: registry.KindSite, Path: "acme/mill/north"}
	v := purgeView{
		applyView{
			planView{
				formatVersion,
				&registry.Plan{
					Registry: uuid.MustParse("0b0e7e5c-1f5e-4c0e-9d6b-0a3f1c2d4e5f"), BaseVersion: 12, BaseRevision: 345, Checksum: "5ac6", Managed: 100, Owner: "default",
					Targets: []registry.Address{site}, Excluded: []registry.Address{device}, Kept: []registry.Address{device}, LeftOut: []registry.Address{site}, Drift: 2, DataLoss: true, AllowDataLoss: []registry.Address{device},
					Changes: []registry.Change{
						{Action: registry.Delete, Address: device},
						{Action: registry.Purge, Address: device, Reason: "has 3 rows of telemetry"},
						{Action: registry.Move, Address: device, From: &registry.Address{Kind: registry.KindDevice, Path: "acme/mill/south/press-01"}},
						{Action: registry.Update, Address: site, Cause: registry.ByBoth, Fields: []registry.FieldChange{{Name: "location", Before: `{"city":"Köln"}`, After: `{"city":"<Pune>"}`}}},
						{Action: registry.Create, Address: device, Fields: []registry.FieldChange{{Name: "type", After: "meter"}}},
					},
					Unmanaged: []registry.Address{device}, Foreign: map[string]int{"utilities": 7},
					Protected: []registry.Protected{{Address: device, Reason: "prevent_destroy"}}, Conflicts: []registry.Conflict{{Address: site, Owner: "utilities"}},
				},
				summary{Import: 0, Move: 1, Add: 1, Change: 1, Destroy: 2}, nil, []string{"destroy", "max-destroy"},
				&savedView{"estate.plan", "v1.2.3", "pat@press-pc", "", time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)},
				[]driftEntry{{
					Drifted: registry.Drifted{Kind: registry.EditedByHand, Address: device, Fields: []registry.FieldChange{{Name: "type", Before: "meter", After: "sensor"}}},
					By:      &store.Touch{At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Who: "raj", Via: "psql from 10.0.0.7", Op: "update"},
				}}, false, false,
			}, true, 13,
		}, []storedRows{{device, 3}},
	}
	var out bytes.Buffer
	if err := writeJSON(&out, v); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/plan.json"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	doc, err := os.ReadFile("../../docs/plan-json.md")
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := json.Unmarshal(want, &document); err != nil {
		t.Fatal(err)
	}
	explained(t, strings.Replace(string(doc), "`foreign`", "`foreign` `utilities`", 1), document)

	var report impact.Report
	fill(reflect.ValueOf(&report).Elem())
	text, err := json.Marshal(&report)
	if err == nil {
		err = json.Unmarshal(text, &document)
	}
	if err != nil {
		t.Fatal(err)
	}
	explained(t, string(doc), document)
}

// docs/json.md explains every member of what the other commands print.
func TestJSONIsExplained(t *testing.T) {
	doc, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		&validation{}, &linted{}, &testReport{}, &formatting{}, &explanations{}, &exportView{}, &importView{}, &sheet.Row{}, &driftView{}, &historyView{},
		&versionView{}, &objectView{}, &diffView{}, &lockView{}, &limitsView{}, &pendingView{}, &build{}, &failure{},
	} {
		fill(reflect.ValueOf(v).Elem())
		text, err := json.Marshal(v)
		var document map[string]any
		if err == nil {
			err = json.Unmarshal(text, &document)
		}
		if err != nil {
			t.Fatalf("%T: %v", v, err)
		}
		for _, plans := range []string{"changes", "summary"} {
			if _, ok := v.(*diffView); ok || plans == "changes" {
				delete(document, plans) // the page of plans has it
			}
		}
		explained(t, string(doc), document)
	}
}

// fill gives every field of a value something, so that none is left out of its JSON.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
		case registry.Address:
			v.Set(reflect.ValueOf(registry.LimitsAddress))
		default:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					fill(v.Field(i))
				}
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(registry.Create))
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// explained checks that a text names every member of a JSON document.
func explained(t *testing.T, doc string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, "."+name+"`") {
				t.Errorf("%q is not explained", name)
			}
			explained(t, doc, member)
		}
	case []any:
		for _, element := range v {
			explained(t, doc, element)
		}
	}
}

// What nobody manages may be a whole estate: it is not listed to the end on a terminal.
func TestUnmanagedObjectsAreCut(t *testing.T) {
	var list []registry.Address
	for i := range 1030 {
		list = append(list, registry.NewAddress(registry.KindCustomer, fmt.Sprint("c", i)))
	}
	var plan, drift bytes.Buffer
	if err := errors.Join(printPlan(&plan, viewPlan(&registry.Plan{BaseVersion: 1, Unmanaged: list}), false), printDrift(&drift, driftView{Unmanaged: list})); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{plan.String(), drift.String()} {
		if strings.Count(text, "customer.c") != maxListed || !strings.Contains(text, "    and 1,010 more; -json lists all\n") {
			t.Errorf("%.3000s", text)
		}
	}
}
