package ingest

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// nowhere is a queue that takes everything at once.
type nowhere struct{}

func (nowhere) Append(int, telemetry.Block) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}

type fixed struct{ snapshot *registry.Snapshot }

func (f fixed) Snapshot() *registry.Snapshot  { return f.snapshot }
func (f fixed) Refresh(context.Context) error { return nil }

var unlimited = registry.Rate{PerSecond: registry.MaxPerSecond, Burst: registry.MaxBurst}

// BenchmarkAccept measures the way of a body up to the queue: 1000 devices, 10 parameters.
func BenchmarkAccept(b *testing.B) {
	project := registry.NewAddress(registry.KindProject, "c", "p")
	site := project.Child(registry.KindSite, "s")
	objects := []registry.Object{&registry.Customer{Addr: registry.NewAddress(registry.KindCustomer, "c"), Rate: unlimited, DeviceRate: unlimited}, &registry.Project{Addr: project}, &registry.Site{Addr: site}}
	names := []string{"voltage", "current", "power", "frequency", "power_factor", "energy", "temperature", "humidity", "pressure", "flow"}
	for _, n := range names {
		objects = append(objects, &registry.Parameter{Addr: project.Child(registry.KindParameter, n), Type: registry.TypeFloat,
			OnViolation: registry.Flag, Min: registry.BoundOf(0), Max: registry.BoundOf(1000)})
	}
	for i := range 1000 {
		objects = append(objects, &registry.Device{Addr: site.Child(registry.KindDevice, fmt.Sprint(i)), Ref: int32(i + 1)})
	}
	snapshot := registry.Declare(objects)
	event := func(i, metrics int) []byte {
		d := snapshot.Devices[i%1000]
		e := fmt.Appendf(nil, `{"project_id":"%s","site_id":"%s","device_id":"%s","protocol":"GPRS","source_timestamp":"%s","metrics":[`,
			d.ProjectID, d.SiteID, d.ID, time.Now().UTC().Format(time.RFC3339))
		for j := range metrics {
			if j > 0 {
				e = append(e, ',')
			}
			e = fmt.Appendf(e, `{"parameter_key":"%s","value":%g,"quality":192,"attributes":{}}`, registry.ParameterKey(d.ProjectID, names[j]), float64(2000+(i*31+j)%1000)/10)
		}
		return append(e, "]}"...)
	}
	s := &Service{Registry: fixed{snapshot}, Queue: nowhere{}, Partitions: 2, Reject: func(_ uuid.UUID, r *Rejection) { b.Fatal(r) }}
	for _, c := range []struct{ events, metrics int }{{1, 1}, {1, 10}, {100, 10}} {
		b.Run(fmt.Sprintf("%dx%d", c.events, c.metrics), func(b *testing.B) {
			var lines [][]byte
			for i := range c.events {
				lines = append(lines, event(i, c.metrics))
			}
			body := bytes.Join(lines, []byte("\n"))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if r, err := s.Accept(context.Background(), NDJSON, body); err != nil || r.Accepted != c.events {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.events), "ns/event")
		})
	}
}
