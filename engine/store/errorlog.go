package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// LogEntry is a row of error_logs.
type LogEntry struct {
	Time    time.Time
	Source  string // component, such as ingest
	Level   string // ERROR or WARNING
	Message string
	Context map[string]any
}

// LogErrors appends entries to error_logs.
func (s *Store) LogErrors(ctx context.Context, entries []LogEntry) error {
	_, err := s.pool.CopyFrom(ctx, pgx.Identifier{"error_logs"}, []string{"time", "source", "level", "message", "context"},
		pgx.CopyFromSlice(len(entries), func(i int) ([]any, error) {
			e := entries[i]
			context, err := json.Marshal(e.Context)
			return []any{e.Time, e.Source, e.Level, e.Message, context}, err
		}))
	if err != nil {
		return fmt.Errorf("writing %d rows to error_logs: %w", len(entries), err)
	}
	return nil
}
