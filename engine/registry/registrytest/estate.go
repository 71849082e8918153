// Package registrytest makes random estates for the tests of what reads and writes registries.
package registrytest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// awkward are names that a declaration may have, and that careless quoting would break.
var awkward = []string{
	"a", "b c", `"quoted"`, "${x}", "%{if}", "$${", "$", "a/b", "100%", "%2F", `back\slash`, "Zoë", "日本", "null", "for", "a.b", "x-y", "x", "#1", "{",
	"'; --", "a,b", "e\u2028f", "🏭", "O'Hara", "*", "~", decomposed, "\U000f0000",
}

const decomposed = "e\u0301 in two" // not in Unicode's normal form C

// objects are metadata and locations in canonical form.
var objects = canonical(
	"", `{"city":"Pune"}`, `{"a":{"b":[1,-2.5,{"c":null}],"d":{}},"e":[],"true":true}`, `{"":"","for":1,"ключ":"значение","k e y":"${x} %{y}"}`,
	`{"big":1000000000000000000000000000000,"small":0.000000001,"int":9007199254740993000,"neg":-0.5}`,
	`{"text":"a\u0001\n\t\r\\ \"\u2028<&>\u202e"}`, `{"deep":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"n":12345678901234567000}}}}}}}}}}}}}}`,
	"{\"e\u0301\":1,\"\u00e9\":2}", `{"long":"Lorem ipsum dolor sit amet, consectetur adipiscing elit","list":[1,2,3,4,5,6,7,8,9,10,"Lorem ipsum dolor sit amet"],"nested":{"ключ ключ":1,"x":{"y":[[],[1],[["Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod"]]]}}}`,
)

func canonical(texts ...string) []string {
	for i, text := range texts {
		var err error
		if texts[i], err = registry.CanonicalJSON([]byte(text)); err != nil {
			panic(err)
		}
	}
	return texts
}

// Estate returns a random estate that a declaration can declare, with awkward names, in which every field of every kind takes
// several values. All that it makes has the status of a declaration.
func Estate(r *rand.Rand) []registry.Object {
	e := estate{r: r, external: slices.Clone(awkward)}
	r.Shuffle(len(e.external), func(i, j int) { e.external[i], e.external[j] = e.external[j], e.external[i] })
	e.platform()
	customers := e.names(4)
	for i, name := range customers {
		c := &registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, name), Metadata: e.pick(objects...), Rate: e.rate(), DeviceRate: e.rate(), Lifecycle: e.lifecycle()}
		if i > 0 {
			c.Parent = e.pick("", customers[r.IntN(i)])
		}
		e.add(c)
		e.gateways = nil
		for _, name := range e.names(3) {
			e.project(c.Addr.Child(registry.KindProject, name))
		}
	}
	if len(e.list) == 0 { // a declaration declares something
		e.add(&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "only")})
	}
	return e.list
}

type estate struct {
	r        *rand.Rand
	list     []registry.Object
	external []string           // external ids that no device has yet
	gateways []registry.Address // devices of the customer
}

func (e *estate) add(o registry.Object)        { e.list = append(e.list, o) }
func (e *estate) maybe() bool                  { return e.r.IntN(3) > 0 }
func (e *estate) pick(values ...string) string { return values[e.r.IntN(len(values))] }
func (e *estate) number(v ...float64) float64  { return v[e.r.IntN(len(v))] }
func (e *estate) count(most int64) int64       { return e.r.Int64N(most + 1) }
func (e *estate) span(least time.Duration) time.Duration {
	return least + []time.Duration{0, time.Millisecond, 1500 * time.Millisecond, 90 * time.Second, 36 * time.Hour, 400 * 24 * time.Hour}[e.r.IntN(6)]
}

// names returns fewer than n names.
func (e *estate) names(n int) []string {
	list := slices.Clone(awkward)
	e.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:e.r.IntN(n)]
}

func (e *estate) bound(v ...float64) registry.Bound {
	if !e.maybe() {
		return registry.Bound{}
	}
	return registry.BoundOf(e.number(v...))
}

func (e *estate) lifecycle() registry.Lifecycle {
	return registry.Lifecycle{PreventDestroy: !e.maybe()}
}

func (e *estate) rate() registry.Rate {
	return []registry.Rate{{}, {PerSecond: 0.1, Burst: 1}, {PerSecond: 1e9, Burst: 1e9}, {PerSecond: 1.0 / 3, Burst: 7}}[e.r.IntN(4)]
}

func (e *estate) platform() {
	if e.maybe() {
		e.add(&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "queue_depth"), Warning: registry.BoundOf(e.number(0, 1e7)), Critical: e.bound(1e7, 1e30)})
	}
	if e.maybe() {
		e.add(&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "disk_usage"), Warning: e.bound(0.5, 12.75), Critical: registry.BoundOf(e.number(90, 100))})
	}
	if e.maybe() {
		e.add(&registry.Platform{Addr: registry.NewAddress(registry.KindPlatform, "latency_p95"), Warning: e.bound(0.001, 1.25), Critical: registry.BoundOf(e.number(5, 86400))})
	}
	if e.maybe() {
		raw := e.span(time.Hour)
		var compress time.Duration
		if raw > 2*time.Hour && e.maybe() {
			compress = time.Hour + time.Millisecond
		}
		e.add(&registry.Retention{Addr: registry.RetentionAddress, Raw: raw, CompressAfter: compress})
	}
	if e.maybe() {
		e.add(&registry.Limits{Addr: registry.LimitsAddress, Connections: 10 + e.count(1), ConnectionsPerAddress: e.count(2), Device: e.rate(), Customer: e.rate()})
	}
	if e.maybe() {
		e.add(&registry.Policy{Addr: registry.PolicyAddress, RequireSavedPlan: e.maybe()})
	}
	if e.maybe() {
		d := &registry.Discovery{Addr: registry.DiscoveryAddress, MaxDevices: e.count(2), MaxEvents: e.count(2), MaxEventsPerDevice: e.count(1)}
		if e.maybe() {
			d.Hold = e.span(registry.MinHold)
		}
		e.add(d)
	}
}

func (e *estate) project(a registry.Address) {
	e.add(&registry.Project{Addr: a, Description: e.pick("", "the old mill", "two\nlines\tand \"quotes\" ${x}", "e\u0301"), Lifecycle: e.lifecycle()})
	var parameters []string
	for _, name := range []string{"voltage", "tank_level_(%)", "p/q", `"${x}"`, "äöü", "0"} {
		if !e.maybe() {
			continue
		}
		parameters = append(parameters, name)
		low := e.bound(-40, 0, 1e-9)
		p := &registry.Parameter{
			Addr: a.Child(registry.KindParameter, name), Name: e.pick(name, "Voltage", "e\u0301"), Unit: e.pick("", "V", "°C", " %{"),
			Type: registry.DataType(e.pick("float", "int", "bool")), Min: low, Max: e.bound(1, 1e30, 12345678901234567890), Precision: e.bound(0, 2, registry.MaxPrecision), Required: e.maybe(),
			Description: e.pick("", "line\nline", `a "b"`), OnViolation: registry.Violation(e.pick("flag", "reject", "accept")), Quality: uint8(e.r.IntN(256)), Lifecycle: e.lifecycle(),
		}
		if e.maybe() {
			p.Interval = e.span(time.Millisecond)
		}
		if e.maybe() {
			p.StaleAfter = e.span(time.Millisecond)
		}
		e.add(p)
		for _, name := range e.names(3) {
			if name == decomposed {
				continue // a threshold has no attribute for its name
			}
			t := &registry.Threshold{
				Addr: p.Addr.Child(registry.KindThreshold, name), Above: registry.BoundOf(e.number(0.1, 5)), Below: e.bound(-1, 0),
				Deadband: e.number(0, 0.25), Severity: e.pick("warning", "critical"),
			}
			if e.maybe() {
				t.For = e.span(0)
			}
			e.add(t)
		}
	}
	slices.Sort(parameters)
	for _, name := range e.names(4) {
		s := a.Child(registry.KindSite, name)
		e.add(&registry.Site{Addr: s, Location: e.pick(objects...), Lifecycle: e.lifecycle()})
		for n, name := range e.names(6) {
			e.device(s.Child(registry.KindDevice, fmt.Sprint(name, n)), parameters)
		}
	}
}

func (e *estate) device(a registry.Address, parameters []string) {
	d := &registry.Device{Addr: a, Type: e.pick("meter", "sensor", "a \"b\" ${c}"), State: e.pick("active", "inactive", "${x}"), Interval: e.span(time.Millisecond), Rate: e.rate(), Lifecycle: e.lifecycle()}
	if n := len(parameters); n > 0 && e.maybe() {
		d.Parameters = parameters[:1+e.r.IntN(n)]
	} else if e.maybe() {
		d.Interval = 0 // its parameters have none to give it
	}
	if len(e.external) > 0 && e.maybe() {
		d.ExternalID, e.external = e.external[0], e.external[1:]
	}
	for _, name := range parameters {
		if e.r.IntN(4) == 0 && (d.Parameters == nil || slices.Contains(d.Parameters, name)) {
			o := registry.Override{Parameter: name, OnViolation: registry.Violation(e.pick("", "flag", "reject", "accept")), Quality: e.bound(0, 192, 255)}
			o.Min, o.Max = e.bound(-1e6, 0), e.bound(1, 1e6)
			if e.maybe() {
				o.Interval = e.span(time.Millisecond)
			}
			if e.maybe() {
				o.StaleAfter = e.span(time.Millisecond)
			}
			if !o.Empty() {
				d.Overrides = append(d.Overrides, o)
			}
		}
	}
	registry.SortOverrides(d.Overrides)
	if n := len(e.gateways); n > 0 && e.maybe() {
		d.Gateway = e.gateways[e.r.IntN(n)]
	}
	e.gateways = append(e.gateways, a)
	e.add(d)
}
