package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// EventsByDevice counts the stored events of each device whose time is from since to until. An event that was merged into one of
// the same time counts once.
func (s *Store) EventsByDevice(ctx context.Context, since, until time.Time) (map[uuid.UUID]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT d.id, t.events FROM devices d JOIN (
			SELECT device_ref, count(*) AS events FROM telemetry
			WHERE time >= $1 AND time < $2 GROUP BY device_ref) t ON t.device_ref = d.ref`, since, until)
	if err != nil {
		return nil, fmt.Errorf("counting events: %w", s.schemaError(ctx, err))
	}
	events := map[uuid.UUID]int64{}
	var id uuid.UUID
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { events[id] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting events: %w", s.schemaError(ctx, err))
	}
	return events, nil
}
