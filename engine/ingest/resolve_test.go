package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// What a device overrides holds for it, in whatever order and form it sends, and for no other.
func TestOverridesHoldForTheirDevice(t *testing.T) {
	project := registry.NewAddress(registry.KindProject, "c", "p")
	site := project.Child(registry.KindSite, "s")
	declared := registry.Declare([]registry.Object{
		&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "c"), DeviceRate: unlimited}, &registry.Project{Addr: project}, &registry.Site{Addr: site},
		&registry.Parameter{Addr: project.Child(registry.KindParameter, "v"), Type: registry.TypeFloat, Max: registry.BoundOf(10), OnViolation: registry.Flag, Quality: 192},
		&registry.Parameter{Addr: project.Child(registry.KindParameter, "w"), Type: registry.TypeFloat, OnViolation: registry.Flag, Quality: 192},
		&registry.Device{Addr: site.Child(registry.KindDevice, "plain"), ExternalID: "plain"},
		&registry.Device{Addr: site.Child(registry.KindDevice, "strict"), ExternalID: "strict", Overrides: []registry.Override{
			{Parameter: "v", Max: registry.BoundOf(5), OnViolation: registry.Reject, Quality: registry.BoundOf(80)}, {Parameter: "w", Min: registry.BoundOf(1)},
		}},
		&registry.Device{Addr: site.Child(registry.KindDevice, "wide"), ExternalID: "wide", Overrides: []registry.Override{{Parameter: "v", Max: registry.BoundOf(20)}}},
	})
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	r := NewRehearsal(declared)
	r.Begin()
	const refused = -1
	for _, test := range []struct {
		device  string
		v, w    float64
		quality [2]int // of v and w
	}{
		{"plain", 4, 0, [2]int{192, 192}}, {"plain", 7, 0, [2]int{192, 192}}, {"plain", 15, 0, [2]int{telemetry.QualityUncertainLimits, 192}},
		{"strict", 4, 1, [2]int{80, 192}}, {"strict", 4, 0, [2]int{80, telemetry.QualityUncertainLimits}}, {"strict", 7, 1, [2]int{refused, refused}},
		{"wide", 15, 0, [2]int{192, 192}}, {"wide", 21, 0, [2]int{telemetry.QualityUncertainLimits, 192}},
		{"plain", 15, 0, [2]int{telemetry.QualityUncertainLimits, 192}},
	} {
		d := declared.DeviceByExternalID(test.device)
		metric := func(short string, value float64) string {
			return fmt.Sprintf(`{"parameter_key":"%s","value":%g}`, registry.ParameterKey(d.ProjectID, short), value)
		}
		event := func(metrics string) []byte {
			return fmt.Appendf(nil, `{"project_id":"%s","site_id":"%s","device_id":"%s","protocol":"X","source_timestamp":"%s","metrics":[%s]}`,
				d.ProjectID, d.SiteID, d.ID, now.Format(time.RFC3339), metrics)
		}
		for _, body := range [][]byte{event(metric("v", test.v) + "," + metric("w", test.w)), event(metric("w", test.w) + "," + metric("v", test.v))} {
			result, events, err := r.Judge(now, JSON, body)
			if test.quality[0] == refused {
				if err != nil || len(result.Rejections) != 1 || result.Rejections[0].Code != CodeOutsideLimits {
					t.Errorf("%s %v: %+v, %v, want it refused", test.device, test.v, result, err)
				}
				continue
			}
			if err != nil || len(events) != 1 {
				t.Fatalf("%s %v: %v", test.device, test.v, err)
			}
			for i, want := range test.quality {
				got := 192
				if q := events[0].Quality; q != nil {
					got = int(q[i])
				}
				if got != want {
					t.Errorf("%s: the quality of value %d of %s is %d, want %d", test.device, i, body, got, want)
				}
			}
		}
		if test.quality[0] != refused && test.quality[0] != 80 { // a point has the quality 192 itself
			_, events, err := r.Judge(now, InfluxSeconds, fmt.Appendf(nil, "m,device=%s v=%g,w=%g %d", test.device, test.v, test.w, now.Unix()))
			got := 192
			if err != nil || len(events) != 1 {
				t.Fatalf("%s %v as a point: %v", test.device, test.v, err)
			} else if q := events[0].Quality; q != nil {
				got = int(q[0])
			}
			if got != test.quality[0] {
				t.Errorf("%s: the quality of %v as a point is %d, want %d", test.device, test.v, got, test.quality[0])
			}
		}
	}
}
