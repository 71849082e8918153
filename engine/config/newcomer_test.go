package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

// Whatever devices call themselves: their blocks can be pasted into a site.
func FuzzNewcomers(f *testing.F) {
	f.Add("meter 7", "m1", "parameter \"x\" {}")
	f.Add(`${x}"%{`, " padded ", "a\nb\x00\u2028\"")
	f.Add("e\u0301", "", "}\n}")
	f.Add("a/b", strings.Repeat("x", 300), "\xff")
	f.Fuzz(func(t *testing.T, one, other, note string) {
		taken := map[string]bool{"device": true}
		id := uuid.NewSHA1(uuid.Nil, []byte(note))
		var list []Newcomer
		for _, known := range []string{one, other + "2"} {
			list = append(list, Newcomer{Device: &registry.Device{Addr: registry.NewAddress(registry.KindDevice, NewName(known, taken)), ExternalID: known}, Notes: []string{note}})
		}
		list = append(list, Newcomer{Device: &registry.Device{Addr: registry.NewAddress(registry.KindDevice, NewName(one, taken))}, Given: id})
		var out bytes.Buffer
		if err := WriteNewcomers(&out, list); err != nil {
			t.Fatal(err)
		}
		if one == other+"2" { // an external id is one device's
			return
		}
		text := "customer \"c\" {\n  project \"p\" {\n    site \"s\" {\n" + out.String() + "    }\n  }\n}\n"
		s, _, diags := load(map[string]string{"main.hcl": text})
		if diags.HasErrors() {
			t.Fatalf("%v in\n%s", diags, text)
		}
		if len(s.Devices) != len(list) || s.Device(id) == nil {
			t.Fatalf("%d devices are read from\n%s", len(s.Devices), text)
		}
		for _, n := range list[:2] {
			if registry.NameFault(n.ExternalID) == "" && s.DeviceByExternalID(n.ExternalID) == nil {
				t.Errorf("the external id %q is not in\n%s", n.ExternalID, text)
			}
		}
	})
}
