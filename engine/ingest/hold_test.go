package ingest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// strangers is a registry without the devices of another, in which what they send is held.
func strangers(s *registry.Snapshot) *registry.Snapshot {
	list := []registry.Object{&registry.Discovery{Addr: registry.DiscoveryAddress}}
	for o := range s.Objects {
		if _, ok := o.(*registry.Device); !ok {
			list = append(list, o)
		}
	}
	return registry.NewSnapshot(list)
}

// What was held and is replayed is what it would have been, had its device been known.
func FuzzHeld(f *testing.F) {
	for _, seed := range []string{"m,host=meter-1 voltage=1,mem=2 1767323045", "mem,host=meter-2 free=1,old=2,x=\"y\"", "m,host=there voltage=1i,count=1.5\nm,host=there current=2", "m,host=meter-1 \xff=1", "cpu,device_id=x,host=meter-1 idle=1"} {
		f.Add(seed, true)
	}
	known := mill()
	d := known.Devices[0]
	f.Add(fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"x","event_id":"e","source_timestamp":"2026-01-02T00:00:00Z","metrics":[{"parameter_key":%q,"value":1.5,"quality":3,"attributes":{"a":1}},{"parameter_key":%q,"value":null}]}`,
		d.ProjectID, d.SiteID, d.ID, registry.ParameterKey(d.ProjectID, "voltage"), registry.ParameterKey(d.ProjectID, "current")), false)
	f.Fuzz(func(t *testing.T, body string, points bool) {
		format := NDJSON
		if points {
			format = InfluxSeconds
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		var got, held []telemetry.Event
		service := func(s *registry.Snapshot) (*Service, *growing) {
			g := &growing{now: s}
			return &Service{Registry: g, Partitions: 1, clock: func() time.Time { return at }, looks: looks{unpaused: true}, Reject: func(uuid.UUID, *Rejection) {},
				Queue: queueFunc(func(b telemetry.Block) {
					for _, e := range decoded(t, b) {
						if e.Held != nil {
							held = append(held, e)
						} else {
							got = append(got, e)
						}
					}
				})}, g
		}
		shown := func() (list []string) {
			for _, e := range got {
				list = append(list, fmt.Sprint(e.Device, e.Time, e.Set.Keys, e.Values, e.Quality, string(e.Source), string(e.EventID), string(e.Attributes)))
			}
			slices.Sort(list)
			got = nil
			return list
		}
		s, _ := service(known)
		if _, err := s.Accept(context.Background(), format, []byte(body)); err != nil {
			return
		}
		want := shown()
		s, g := service(strangers(known))
		result, err := s.Accept(context.Background(), format, []byte(body))
		if err != nil || result.Held != len(held) || result.Accepted != result.Held {
			t.Fatalf("%+v with %d held, %v", result, len(held), err)
		}
		if slices.ContainsFunc(result.Rejections, func(r Rejection) bool { return r.Code == CodeUnknownDevice }) {
			return // of these something else is wrong, too, or it cannot be held as it is
		}
		g.now = known
		if _, err := s.Replay(context.Background(), held); err != nil {
			t.Fatal(err)
		}
		if replayed := shown(); !slices.Equal(replayed, want) {
			t.Errorf("%q is stored as\n%q, and replayed as\n%q", body, want, replayed)
		}
	})
}

func TestPendingCountsWhatMayBeOnItsWay(t *testing.T) {
	d := &registry.Discovery{MaxDevices: 2, MaxEvents: 6, MaxEventsPerDevice: 4}
	var p Pending
	takes := func(what, devices string, want string) {
		t.Helper()
		got := ""
		for _, device := range devices {
			if p.take(string(device), d) {
				got += string(device)
			}
		}
		if got != want {
			t.Errorf("%s: of %s it takes %q, want %q", what, devices, got, want)
		}
	}
	stored := func(counts string) map[string]int64 {
		m := map[string]int64{}
		for _, device := range counts {
			m[string(device)]++
		}
		return m
	}
	takes("a device's share, two devices, and room for six", "aaaaabbbbc", "aaaabb")
	if p.Settle(stored(""), false) != true || !p.has("a") {
		t.Error("what the database has not got yet is forgotten")
	}
	takes("nothing is stored yet", "ab", "")
	if p.Settle(stored("aaaabb"), false) {
		t.Error("what may be on its way is forgotten")
	}
	takes("counted twice, to be sure", "ab", "")
	if !p.Settle(stored("aab"), true) {
		t.Error("what is stored is not forgotten")
	}
	takes("some of it was dropped", "aaabbc", "aab")
	p.Settle(stored(""), true)
	takes("what came since counts on", "aaaab", "aab")
	p.Settle(stored(""), true)
	p.Settle(stored(""), true)
	if p.has("a") || p.has("b") {
		t.Error("devices wait in vain")
	}
	many := map[string]int64{}
	for i := range 5 {
		many[fmt.Sprint("other ", i)] = 1
	}
	p.Settle(many, true) // taken by other processes
	takes("there are too many already", "a", "")
}
