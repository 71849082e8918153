package config

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/registry/registrytest"
)

// said is everything that a snapshot declares: by address and field, in canonical text.
func said(s *registry.Snapshot) map[string]string {
	all := map[string]string{}
	for o := range s.Objects {
		all[o.Address().String()] = "declared"
		for _, f := range o.Fields() {
			all[o.Address().String()+" "+f.Name] = f.Value
		}
	}
	return all
}

func written(t testing.TB, s *registry.Snapshot) (string, []Unsaid) {
	t.Helper()
	var out bytes.Buffer
	unsaid, err := Write(&out, s)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), unsaid
}

// readBack reads what was written, and checks that it is in canonical style.
func readBack(t testing.TB, text string) *registry.Snapshot {
	t.Helper()
	again, _, diags := load(map[string]string{"main.hcl": text})
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	formatted, diags := Format("main.hcl", []byte(text))
	if diags.HasErrors() || string(formatted) != text {
		t.Fatalf("not in canonical style: %v\ngot:\n%s\nwant:\n%s", diags, text, formatted)
	}
	return again
}

// Every field of every kind is read as it was written. A field that Write does not know, or registrytest never sets, fails.
func TestWriteIsReadAsItWas(t *testing.T) {
	values := map[string]map[string]bool{} // that were seen, by kind and field
	for seed := range uint64(300) {
		s := registry.Declare(registrytest.Estate(rand.New(rand.NewPCG(seed, 3))))
		text, unsaid := written(t, s)
		if len(unsaid) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, unsaid, text)
		}
		got, want := said(readBack(t, text)), said(s)
		for key, value := range want {
			if g, ok := got[key]; !ok || g != value {
				t.Fatalf("seed %d: %s is %q, want %q\n%s", seed, key, g, value, text)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d things are declared, want %d\n%s", seed, len(got), len(want), text)
		}
		for o := range s.Objects {
			for _, f := range o.Fields() {
				key := string(o.Address().Kind) + " " + f.Name
				if values[key] == nil {
					values[key] = map[string]bool{}
				}
				values[key][f.Value] = true
			}
		}
	}
	for _, o := range []registry.Object{
		&registry.Customer{Addr: registry.Address{Kind: registry.KindCustomer}}, &registry.Project{Addr: registry.Address{Kind: registry.KindProject}},
		&registry.Site{Addr: registry.Address{Kind: registry.KindSite}}, &registry.Device{Addr: registry.Address{Kind: registry.KindDevice}},
		&registry.Parameter{Addr: registry.Address{Kind: registry.KindParameter}}, &registry.Threshold{Addr: registry.Address{Kind: registry.KindThreshold}},
		&registry.Platform{Addr: registry.Address{Kind: registry.KindPlatform}}, &registry.Retention{Addr: registry.RetentionAddress},
		&registry.Limits{Addr: registry.LimitsAddress},
		&registry.Device{Addr: registry.Address{Kind: registry.KindDevice}, Overrides: []registry.Override{{Parameter: "voltage", Min: registry.BoundOf(1), Max: registry.BoundOf(1),
			Interval: 1, StaleAfter: 1, OnViolation: registry.Flag, Quality: registry.BoundOf(1)}}},
	} {
		for _, f := range o.Fields() {
			if key := string(o.Address().Kind) + " " + f.Name; len(values[key]) < 2 {
				t.Errorf("of %s only %d values were tried: registrytest must set it, and Write write it", key, len(values[key]))
			}
		}
	}
}

func TestWriteReadably(t *testing.T) {
	customer := registry.NewAddress(registry.KindCustomer, "Acme Mills")
	project := customer.Child(registry.KindProject, "energy")
	site := project.Child(registry.KindSite, "north")
	text, _ := written(t, registry.Declare([]registry.Object{
		&registry.Retention{Addr: registry.RetentionAddress, Raw: 90 * 24 * time.Hour, CompressAfter: 36 * time.Hour},
		&registry.Customer{Addr: customer, Metadata: `{"industry":"textiles"}`, DeviceRate: registry.Rate{PerSecond: 50, Burst: 100000}},
		&registry.Project{Addr: project},
		&registry.Parameter{Addr: project.Child(registry.KindParameter, "voltage"), Name: "Voltage", Unit: "V", Type: registry.TypeFloat, OnViolation: registry.Flag,
			Min: registry.BoundOf(-40), Max: registry.BoundOf(1e6), Interval: 90 * time.Second},
		&registry.Threshold{Addr: project.Child(registry.KindParameter, "voltage").Child(registry.KindThreshold, "high"), Above: registry.BoundOf(253), For: 5 * time.Minute, Severity: "warning"},
		&registry.Site{Addr: site, Location: `{"city":"Pune","latitude":18.5,"people":["Anand","Meera"],"remarks":"a long remark that does not fit on a line"}`},
		&registry.Device{Addr: site.Child(registry.KindDevice, "main"), Type: "meter", State: "active", Interval: 90 * time.Second, ExternalID: "EM-1", Parameters: []string{"voltage"}},
		&registry.Device{Addr: site.Child(registry.KindDevice, "spare"), Type: "meter", State: "inactive"},
	}))
	const want = `retention {
  raw            = "90d"
  compress_after = "36h"
}

customer "Acme Mills" {
  metadata = { industry = "textiles" }

  limits {
    device {
      events_per_second = 50
      burst             = 100000
    }
  }

  project "energy" {
    parameter "voltage" {
      name     = "Voltage"
      unit     = "V"
      min      = -40
      max      = 1000000
      interval = "1m30s"

      threshold "high" {
        above = 253
        for   = "5m"
      }
    }

    site "north" {
      location = {
        city     = "Pune"
        latitude = 18.5
        people   = ["Anand", "Meera"]
        remarks  = "a long remark that does not fit on a line"
      }

      device "main" {
        type        = "meter"
        external_id = "EM-1"
        parameters  = ["voltage"]
      }

      device "spare" {
        type   = "meter"
        status = "inactive"
      }
    }
  }
}
`
	if text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
	readBack(t, text)
}

func TestWriteNothing(t *testing.T) {
	text, unsaid := written(t, registry.NewSnapshot(nil))
	if formatted, diags := Format("main.hcl", []byte(text)); diags.HasErrors() || string(formatted) != text || len(unsaid) > 0 {
		t.Errorf("%q, formatted %q, %v, %v", text, formatted, diags, unsaid)
	}
}

// What another program may have written and a declaration cannot say is named, has its comment, and leaves the rest valid.
func TestWriteNamesWhatCannotBeSaid(t *testing.T) {
	c := registry.NewAddress(registry.KindCustomer, "acme")
	p := c.Child(registry.KindProject, "mill")
	s := p.Child(registry.KindSite, "north")
	q := p.Child(registry.KindParameter, "voltage")
	device := func(d registry.Device) registry.Object {
		d.Addr, d.Type, d.State = s.Child(registry.KindDevice, "d"), cmp.Or(d.Type, "meter"), cmp.Or(d.State, "active")
		return &d
	}
	parameter := func(o registry.Parameter) registry.Object {
		o.Addr, o.Name = p.Child(registry.KindParameter, "x"), cmp.Or(o.Name, "x")
		o.Type, o.OnViolation = cmp.Or(o.Type, registry.TypeFloat), cmp.Or(o.OnViolation, registry.Flag)
		return &o
	}
	threshold := func(t registry.Threshold) registry.Object {
		t.Addr, t.Severity = q.Child(registry.KindThreshold, "t"), cmp.Or(t.Severity, "critical")
		return &t
	}
	inf := math.Inf(1)
	for _, test := range []struct {
		object registry.Object
		want   string // address, field and reason
	}{
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "")}, `customer.: the name "" is empty`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "a\nb")}, `customer.a\nb: the name "a\nb" contains the invisible character U+000A`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, " a")}, `begins or ends with a space`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, strings.Repeat("a", 129))}, `has 129 bytes`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "\xff")}, `is not valid UTF-8`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Parent: "b"}, `customer.b parent: "b": following the parents leads back to this customer`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Metadata: `[1]`}, `customer.b metadata: it is no JSON object`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Metadata: `{"n":12345678901234567890}`}, `metadata: it has a number that can't be kept exactly`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Metadata: `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`}, `nested more than 32 deep`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Metadata: `{"a":"` + strings.Repeat(`\u0001`, 12_000) + `"}`}, `takes more than the 65536 bytes that a line may have`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), Rate: registry.Rate{PerSecond: 5}}, `customer.b limits.events_per_second: 5 events a second with a burst of 0`},
		{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "b"), DeviceRate: registry.Rate{PerSecond: inf, Burst: 1}}, `limits.device.events_per_second: +Inf events`},
		{&registry.Project{Addr: c.Child(registry.KindProject, "x"), Description: "a\x01"}, `project.acme/x description: the text contains the control character U+0001`},
		{&registry.Site{Addr: p.Child(registry.KindSite, "x"), Location: `"Pune"`}, `site.acme/mill/x location: it is no JSON object`},
		{device(registry.Device{Type: " "}), `device.acme/mill/north/d type: " " begins or ends with a space`},
		{device(registry.Device{State: "a\n"}), `status: "a\n" contains the control character U+000A`},
		{device(registry.Device{ExternalID: "x "}), `external_id: "x " begins or ends with a space`},
		{device(registry.Device{ExternalID: strings.Repeat("x", 129)}), `external_id: the text has 129 bytes`},
		{device(registry.Device{Interval: time.Microsecond}), `interval: 1µs is not at least 1ms`},
		{device(registry.Device{Interval: -time.Hour}), `interval: -1h0m0s is not`},
		{device(registry.Device{Interval: 0, Parameters: []string{"voltage"}}), `interval: it has none, and without one it is the 10s of its parameters`},
		{device(registry.Device{Interval: time.Hour, Parameters: []string{"", "amps", "voltage", "voltage"}}), `parameters: its project has no parameter "", "amps", "voltage" a second time`},
		{device(registry.Device{Gateway: s.Child(registry.KindDevice, "d")}), `gateway: device.acme/mill/north/d: following the gateways leads back`},
		{device(registry.Device{Gateway: s.Child(registry.KindDevice, "e")}), `gateway: device.acme/mill/north/e: it is not declared here`},
		{device(registry.Device{Gateway: registry.NewAddress(registry.KindDevice, "b", "mill", "north", "d")}), `gateway: device.b/mill/north/d: it belongs to another customer`},
		{device(registry.Device{Parameters: []string{"voltage"}, Overrides: []registry.Override{{Parameter: "amps", Max: registry.BoundOf(1)}}}),
			`override.amps: the device sends no such parameter`},
		{device(registry.Device{Overrides: []registry.Override{{Parameter: "voltage", Min: registry.BoundOf(2), Max: registry.BoundOf(1), Quality: registry.BoundOf(3)}}}),
			`override.voltage.max: with this override max is 1, below min, which is 2`},
		{device(registry.Device{Overrides: []registry.Override{{Parameter: "voltage", Interval: -1}}}), `override.voltage.interval: -1ns is not at least 1ms`},
		{device(registry.Device{Rate: registry.Rate{PerSecond: -1, Burst: 5}}), `limits.events_per_second: -1 events`},
		{&registry.Parameter{Addr: registry.NewAddress(registry.KindParameter, "voltage")}, `parameter.voltage: there is no project that it is in`},
		{&registry.Parameter{Addr: p.Child(registry.KindParameter, "Big One")}, `its key ends in "Big One", and a declared one is in lower case`},
		{parameter(registry.Parameter{Name: "a "}), `parameter.acme/mill/x name: "a " begins or ends with a space`},
		{parameter(registry.Parameter{Type: "text"}), `type: "text" is none of "float", "int", "bool"`},
		{parameter(registry.Parameter{Precision: registry.BoundOf(2.5)}), `precision: 2.5 is no whole number from 0 to 15`},
		{parameter(registry.Parameter{StaleAfter: -time.Second}), `stale_after: -1s is not at least 1ms`},
		{parameter(registry.Parameter{OnViolation: "shout"}), `on_violation: "shout" is none of`},
		{parameter(registry.Parameter{Min: registry.BoundOf(2), Max: registry.BoundOf(1)}), `max: 1 is below min`},
		{parameter(registry.Parameter{Min: registry.BoundOf(inf)}), `min: +Inf is no number`},
		{parameter(registry.Parameter{Min: registry.BoundOf(math.Copysign(0, -1))}), `min: -0 is written 0`},
		{threshold(registry.Threshold{}), `threshold.acme/mill/voltage/t: it has no limit that can be said`},
		{threshold(registry.Threshold{Above: registry.BoundOf(1), Below: registry.BoundOf(2)}), `below: 2 is not less than above`},
		{threshold(registry.Threshold{Above: registry.BoundOf(1), Deadband: -1}), `deadband: -1 is negative`},
		{threshold(registry.Threshold{Above: registry.BoundOf(1), Severity: "fatal"}), `severity: "fatal" is none of "warning", "critical"`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "moon"), Warning: registry.BoundOf(1)}, `platform.moon: the platform has no such metric`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "queue_depth"), Warning: registry.BoundOf(1.5)}, `warning: 1.5 is no whole number`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "disk_usage"), Warning: registry.BoundOf(101)}, `warning: 101 is no percentage`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "latency_p95"), Warning: registry.BoundOf(1e300)}, `warning: 1e+300 seconds are no duration`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "latency_p95"), Warning: registry.BoundOf(0.0015)}, `warning: 1.5ms is not at least 1ms, whole milliseconds`},
		{&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "disk_usage"), Warning: registry.BoundOf(2), Critical: registry.BoundOf(1)}, `critical: 1 is below warning`},
		{&registry.Retention{Addr: registry.RetentionAddress, Raw: time.Second}, `retention.telemetry raw: 1s is not at least 1h0m0s`},
		{&registry.Retention{Addr: registry.RetentionAddress, Raw: time.Hour, CompressAfter: time.Hour}, `compress_after: it is 1h0m0s, which is not shorter than raw`},
		{&registry.Discovery{Addr: registry.DiscoveryAddress, Hold: time.Second, MaxDevices: -1}, `discovery.devices hold: 1s is not at least 1m0s`},
		{&registry.Discovery{Addr: registry.DiscoveryAddress, MaxEvents: 1e7}, `discovery.devices max_events: 10000000 is not from 1 to 1000000`},
		{&registry.Limits{Addr: registry.LimitsAddress}, `limits.ingest: nothing that it sets can be said`},
		{&registry.Limits{Addr: registry.LimitsAddress, Connections: 1, ConnectionsPerAddress: 2}, `connections_per_address: 2 is above connections`},
		{&registry.Limits{Addr: registry.LimitsAddress, Connections: -1, ConnectionsPerAddress: 2}, `connections: -1 is not from 1 to 1000000`},
		{&registry.Limits{Addr: registry.LimitsAddress, Connections: 1, Device: registry.Rate{Burst: 2}}, `device.events_per_second: 0 events`},
	} {
		text, unsaid := written(t, registry.Declare([]registry.Object{
			&registry.Customer{Addr: c}, &registry.Project{Addr: p}, &registry.Site{Addr: s},
			&registry.Parameter{Addr: q, Name: "voltage", Type: registry.TypeFloat, OnViolation: registry.Flag, Interval: 10 * time.Second},
			test.object,
		}))
		var got []string
		for _, u := range unsaid {
			field := u.Field
			if field != "" {
				field = " " + field
			}
			got = append(got, strings.ReplaceAll(fmt.Sprintf("%s%s: %s", u.Address, field, u.Reason), "\n", `\n`))
		}
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, test.want) }) {
			t.Errorf("%s: got %q, want %q", test.object.Address(), got, test.want)
		}
		if !strings.Contains(text, "# NOT DECLARED: ") {
			t.Errorf("%s: no comment in\n%s", test.object.Address(), text)
		}
		readBack(t, text)
	}
}

// Whatever the texts of a registry are: what is written is read without a mistake, and is the same, but for what was named.
func FuzzWrite(f *testing.F) {
	f.Add("acme", `{"city":"Pune"}`, "a meter", "EM-1", 1.5)
	f.Add("${x}", `{"${":"%{","\u0000":1}`, "%{if}", `"\`, math.Inf(-1))
	f.Add("e\u0301/%", `{"e\u0301":[1e300,-0.0,12345678901234567890]}`, "\u202e", " x", -1e-300)
	f.Fuzz(func(t *testing.T, name, object, text, id string, number float64) {
		canonical, err := registry.CanonicalJSON([]byte(object))
		if err != nil {
			canonical = object
		}
		c := registry.NewAddress(registry.KindCustomer, name)
		p := c.Child(registry.KindProject, text)
		s := p.Child(registry.KindSite, id)
		short := registry.ShortName(id)
		q := p.Child(registry.KindParameter, short)
		want := registry.Declare([]registry.Object{
			&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "always there")},
			&registry.Customer{Addr: c, Metadata: canonical}, &registry.Project{Addr: p, Description: object},
			&registry.Parameter{Addr: q, Name: text, Unit: id, Type: registry.TypeInt, OnViolation: registry.Accept, Min: registry.BoundOf(number), Description: text},
			&registry.Threshold{Addr: q.Child(registry.KindThreshold, name), Below: registry.BoundOf(number), Severity: "critical", For: time.Duration(number)},
			&registry.Site{Addr: s, Location: canonical},
			&registry.Device{Addr: s.Child(registry.KindDevice, text), Type: name, State: text, ExternalID: id, Parameters: []string{short}},
		})
		if name == "always there" {
			return
		}
		out, unsaid := written(t, want)
		got := said(readBack(t, out))
		lost := func(key string) bool {
			return slices.ContainsFunc(unsaid, func(u Unsaid) bool {
				if u.Field != "" {
					return key == u.Address.String()+" "+u.Field
				}
				_, path, _ := strings.Cut(key, ".")
				return strings.HasPrefix(path, u.Address.Path) // of the object, its fields, and what is in it
			})
		}
		for key, value := range said(want) {
			if g, ok := got[key]; (!ok || g != value) && !lost(key) {
				t.Fatalf("%q is %q, want %q; unsaid %v\n%s", key, g, value, unsaid, out)
			}
		}
	})
}
