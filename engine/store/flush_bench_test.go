package store

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/store/storetest"
	"github.com/nsready/nsready/engine/telemetry"
)

// BenchmarkFlush commits 10 000 new events of 1000 devices of 20 customers in a transaction.
func BenchmarkFlush(b *testing.B) {
	s, err := Open(b.Context(), storetest.Database(b))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	rows, err := s.pool.Query(b.Context(), `WITH c AS (INSERT INTO customers (name) SELECT 'c' || n FROM generate_series(1, 20) n RETURNING id),
		p AS (INSERT INTO projects (customer_id, name) SELECT id, 'p' FROM c RETURNING id),
		s AS (INSERT INTO sites (project_id, name) SELECT id, 's' FROM p RETURNING id)
		INSERT INTO devices (site_id, name, device_type) SELECT s.id, n, 'meter' FROM s, generate_series(1, 50) n RETURNING id`)
	if err != nil {
		b.Fatal(err)
	}
	var devices []uuid.UUID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			b.Fatal(err)
		}
		devices = append(devices, id)
	}
	c, err := s.Claim(b.Context(), NewMember("bench"), streamsOf(0))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	set := &telemetry.ParameterSet{Keys: []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}}
	events := make([]telemetry.Event, 10_000)
	at := telemetry.MicrosOf(time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
	for b.Loop() {
		for i := range events {
			if i%len(devices) == 0 {
				at += 1000
			}
			events[i] = telemetry.Event{Device: devices[i%len(devices)], Time: at, ReceivedAt: at, Set: set, Values: []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}
		}
		tx, err := c.Begin(b.Context(), events)
		if err == nil {
			err = tx.Write(b.Context(), events)
		}
		if err == nil {
			_, err = tx.Commit(b.Context(), next(c, len(events)), 0)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(events)), "events/op")
}
