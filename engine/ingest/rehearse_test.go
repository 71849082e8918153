package ingest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// A rehearsal answers as the service does, by its own clock, and hands over what a worker would read.
func TestRehearsal(t *testing.T) {
	project := registry.NewAddress(registry.KindProject, "c", "p")
	site := project.Child(registry.KindSite, "s")
	declared := registry.Declare([]registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "c"), DeviceRate: registry.Rate{PerSecond: 1, Burst: 2}},
		&registry.Project{Addr: project}, &registry.Site{Addr: site}, &registry.Discovery{Addr: registry.DiscoveryAddress},
		&registry.Parameter{Addr: project.Child(registry.KindParameter, "v"), Type: registry.TypeFloat, Max: registry.BoundOf(10), OnViolation: registry.Flag, Quality: telemetry.QualityGood},
		&registry.Device{Addr: site.Child(registry.KindDevice, "a")}, &registry.Device{Addr: site.Child(registry.KindDevice, "b")},
	})
	body := func(d *registry.Device, at time.Time, value float64) []byte {
		return fmt.Appendf(nil, `{"project_id":"%s","site_id":"%s","device_id":"%s","protocol":"X","source_timestamp":"%s","metrics":[{"parameter_key":"%s","value":%g}]}`,
			d.ProjectID, d.SiteID, d.ID, at.Format(time.RFC3339), declared.Parameters[0].Key, value)
	}
	a, b := declared.Devices[0], declared.Devices[1]
	r := NewRehearsal(declared)
	// Each time it has forgotten the one before; the machine's clock does not count.
	for _, start := range []time.Time{time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Now().UTC().Truncate(time.Second).AddDate(-1, 0, 0), time.Now().UTC().Truncate(time.Second).AddDate(1, 0, 0)} {
		r.Begin()
		judge := func(at time.Time, body []byte, want string) []telemetry.Event {
			t.Helper()
			result, events, err := r.Judge(at, JSON, body)
			got := ""
			if rejection := (*Rejection)(nil); errors.As(err, &rejection) {
				got = rejection.Code
			} else if err != nil {
				t.Fatal(err)
			} else if result.Rejected > 0 {
				got = result.Rejections[0].Code
			}
			if got != want || (want == "") != (len(events) == 1) {
				t.Fatalf("%d events and %q, want %q", len(events), got, want)
			}
			return events
		}
		e := judge(start, body(a, start, 11), "")[0]
		if e.Device != a.ID || e.Time != telemetry.MicrosOf(start) || e.Values[0] != 11 || e.Quality[0] != telemetry.QualityUncertainLimits || e.Set.Keys[0] != declared.Parameters[0].Key {
			t.Errorf("got %+v", e)
		}
		judge(start, body(a, start, 1), "")
		judge(start, body(a, start, 1), CodeRateLimitedDevice)
		judge(start, body(b, start, 1), "")
		judge(start.Add(time.Second), body(a, start, 1), "")
		judge(start.Add(time.Second), body(a, start.Add(time.Hour), 1), CodeInFuture)
		judge(start.Add(time.Minute), body(a, start.AddDate(-2, 0, 0), 1), CodeTooOld)
		judge(start.Add(time.Minute), []byte("{"), CodeJSONInvalid)
		unknown := *a
		unknown.ID[0]++
		began := time.Now()
		for range 20 {
			judge(start.Add(time.Minute), body(&unknown, start, 1), CodeUnknownDevice)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("20 unknown devices took %v", d)
		}
	}
	if a.Ref != 0 {
		t.Error("the declaration was changed")
	}
}
