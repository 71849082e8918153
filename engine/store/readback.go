package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// StoredValues calls row for each row of the view ingest_events whose time is in from..to (to excluded) and whose
// event id starts with prefix, in any order, as they come from the server: memory does not grow with their number.
// A null value is NaN, and the event id is the view's, which ends in ":" and the parameter key. The slices are valid
// during the call only. An error of row ends the scan and is returned as it is.
func (s *Store) StoredValues(ctx context.Context, prefix string, from, to telemetry.Micros,
	row func(device uuid.UUID, t telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error) error {
	pattern := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(prefix) + "%"
	rows, err := s.pool.Query(ctx, `SELECT device_id, time, parameter_key, value, quality, event_id FROM ingest_events
		WHERE time >= $1 AND time < $2 AND event_id LIKE $3`, pgx.QueryResultFormats{pgx.BinaryFormatCode}, from.Time(), to.Time(), pattern)
	if err != nil {
		return fmt.Errorf("querying stored values: %w", err)
	}
	defer rows.Close()
	be := binary.BigEndian
	for rows.Next() {
		r := rows.RawValues()
		value := math.NaN()
		if r[3] != nil {
			value = math.Float64frombits(be.Uint64(r[3]))
		}
		at := telemetry.Micros(be.Uint64(r[1])) + pgEpoch
		if err := row(uuid.UUID(r[0]), at, r[2], value, int16(be.Uint16(r[4])), r[5]); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading stored values: %w", err)
	}
	return nil
}
