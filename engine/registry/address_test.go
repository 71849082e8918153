package registry

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/uuid"
)

func TestAddressText(t *testing.T) {
	tests := []struct {
		address Address
		text    string
		names   []string
	}{
		{NewAddress(KindCustomer, "Acme"), "customer.Acme", []string{"Acme"}},
		{NewAddress(KindDevice, "Acme", "energy", "north", "main-1"), "device.Acme/energy/north/main-1", []string{"Acme", "energy", "north", "main-1"}},
		{NewAddress(KindSite, "a/b", "100%", "%2F"), "site.a%2Fb/100%25/%252F", []string{"a/b", "100%", "%2F"}},
		{NewAddress(KindParameter, "a.b", "c", "tank_level_(%)"), "parameter.a.b/c/tank_level_(%25)", []string{"a.b", "c", "tank_level_(%)"}},
		{RetentionAddress, "retention.telemetry", []string{"telemetry"}},
	}
	for _, tt := range tests {
		if got := tt.address.String(); got != tt.text {
			t.Errorf("text is %q, want %q", got, tt.text)
		}
		if got := tt.address.Names(); !slices.Equal(got, tt.names) {
			t.Errorf("%s: names are %q, want %q", tt.text, got, tt.names)
		}
		if got, want := tt.address.Name(), tt.names[len(tt.names)-1]; got != want {
			t.Errorf("%s: name is %q, want %q", tt.text, got, want)
		}
		data, err := json.Marshal(tt.address)
		if err != nil {
			t.Fatal(err)
		}
		var back Address
		if err := json.Unmarshal(data, &back); err != nil || back != tt.address {
			t.Errorf("%s: comes back as %v, %v", data, back, err)
		}
	}
}

func TestAddressParentAndChild(t *testing.T) {
	site := NewAddress(KindSite, "a", "b", "c/d")
	device := site.Child(KindDevice, "e/f")
	if want := NewAddress(KindDevice, "a", "b", "c/d", "e/f"); device != want {
		t.Errorf("child is %v, want %v", device, want)
	}
	if got := device.ParentPath(); got != site.Path {
		t.Errorf("parent path is %q, want %q", got, site.Path)
	}
	if got := NewAddress(KindCustomer, "a").ParentPath(); got != "" {
		t.Errorf("parent path of a customer is %q", got)
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, s := range []string{"", "device", "device.", ".a/b", "gadget.a/b", "Device.a/b"} {
		if got, err := ParseAddress(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

// Ids are in databases: they must never change.
func TestAddressIDIsStable(t *testing.T) {
	if got, want := NewAddress(KindCustomer, "Acme").ID(), uuid.NewSHA1(namespace, []byte("customer.Acme")); got != want {
		t.Errorf("id is %v, want %v", got, want)
	}
	if got, want := NewAddress(KindDevice, "Acme", "energy", "north", "main").ID().String(), "47ad0065-9233-5e0d-a5fe-81d4edc87f0c"; got != want {
		t.Errorf("id is %v, want %v", got, want)
	}
	if a, b := NewAddress(KindSite, "a", "b"), NewAddress(KindProject, "a", "b"); a.ID() == b.ID() {
		t.Error("two kinds share an id")
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("a", "b")
	f.Add("a/b", "%2F%25")
	f.Fuzz(func(t *testing.T, first, second string) {
		a := NewAddress(KindProject, first, second)
		if got := a.Names(); !slices.Equal(got, []string{first, second}) {
			t.Errorf("names %q come back as %q", []string{first, second}, got)
		}
		if back, err := ParseAddress(a.String()); err != nil || back != a {
			t.Errorf("%v comes back as %v, %v", a, back, err)
		}
	})
}
