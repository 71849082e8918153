package store

import (
	"context"
	"fmt"
)

// Ping asks the database for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	return nil
}

// Storage says how telemetry is stored: native-partitions or timescaledb.
func (s *Store) Storage() string {
	if s.days.hypertable {
		return "timescaledb"
	}
	return "native-partitions"
}
