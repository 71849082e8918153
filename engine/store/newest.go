package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Reading is a value with the names that people know it by.
type Reading struct {
	Device    string // customer/project/site/device
	Parameter string
	Value     *float64
	Unit      string
	Precision *int // decimals to show the value with; nil when none are declared
	Time      time.Time
}

// Newest returns the values of the devices that were stored last, up to devices of them, newest first.
func (s *Store) Newest(ctx context.Context, devices int) ([]Reading, error) {
	rows, err := s.pool.Query(ctx, `SELECT concat_ws('/', c.name, p.name, s.name, d.name), coalesce(t.name, v.key), v.value, coalesce(t.unit, ''),
			CASE WHEN t.metadata ->> 'precision' ~ '^(\d|1[0-5])$' THEN (t.metadata ->> 'precision')::integer END, l.time
		FROM (SELECT * FROM telemetry_latest ORDER BY time DESC LIMIT $1) l
		JOIN devices d ON d.ref = l.device_ref JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id
		JOIN customers c ON c.id = p.customer_id JOIN parameter_sets ps ON ps.id = l.set_id
		CROSS JOIN LATERAL unnest(ps.keys, l.vals) v (key, value) LEFT JOIN parameter_templates t ON t.key = v.key
		ORDER BY l.time DESC, 1, 2`, devices)
	if err != nil {
		return nil, fmt.Errorf("reading the newest values: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Reading])
	if err != nil {
		return nil, fmt.Errorf("reading the newest values: %w", err)
	}
	return list, nil
}

// CountEvents returns how many events the workers have stored.
func (s *Store) CountEvents(ctx context.Context) (n int64, err error) {
	if err := s.pool.QueryRow(ctx, "SELECT coalesce(sum(events), 0)::bigint FROM partitions").Scan(&n); err != nil {
		return 0, fmt.Errorf("counting events: %w", err)
	}
	return n, nil
}

// NewestBySite returns the time of the newest event of each site's devices.
func (s *Store) NewestBySite(ctx context.Context) (map[uuid.UUID]time.Time, error) {
	rows, err := s.pool.Query(ctx, "SELECT d.site_id, max(l.time) FROM telemetry_latest l JOIN devices d ON d.ref = l.device_ref GROUP BY 1")
	if err != nil {
		return nil, fmt.Errorf("reading the sites' newest times: %w", err)
	}
	newest := map[uuid.UUID]time.Time{}
	var site uuid.UUID
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&site, &at}, func() error { newest[site] = at; return nil }); err != nil {
		return nil, fmt.Errorf("reading the sites' newest times: %w", err)
	}
	return newest, nil
}
