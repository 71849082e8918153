package chaos

import (
	"context"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// stored reads from the database that the system has now.
type stored struct{ system *System }

func (s stored) StoredValues(ctx context.Context, prefix string, from, to telemetry.Micros,
	row func(device uuid.UUID, t telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error) error {
	db, err := store.Open(ctx, s.system.Ready().DatabaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.StoredValues(ctx, prefix, from, to, row)
}
