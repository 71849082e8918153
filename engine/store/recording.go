package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// Recording is the stored telemetry of some parameters.
type Recording struct {
	Devices []Sender // that have sent any of them since a time, by id, which is no order at all: some are like the rest

	store *Store
	since time.Time
	sets  map[int32]*telemetry.ParameterSet
	ids   []int32 // of sets
}

// Sender is a device that has sent something.
type Sender struct {
	Ref    int32
	Device uuid.UUID
}

// Record finds the devices that have sent any of the parameters keys since a time.
func (s *Store) Record(ctx context.Context, keys []string, since time.Time) (*Recording, error) {
	r := &Recording{store: s, since: since, sets: map[int32]*telemetry.ParameterSet{}}
	err := s.read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id, keys FROM parameter_sets WHERE keys && $1", keys)
		if err != nil {
			return err
		}
		var id int32
		var set []string
		if _, err := pgx.ForEachRow(rows, []any{&id, &set}, func() error {
			r.sets[id] = &telemetry.ParameterSet{Keys: slices.Clone(set)}
			r.ids = append(r.ids, id)
			return nil
		}); err != nil || len(r.ids) == 0 {
			return err
		}
		rows, err = tx.Query(ctx, `SELECT DISTINCT d.ref, d.id FROM telemetry_latest l JOIN devices d ON d.ref = l.device_ref
			WHERE l.set_id = ANY ($1) AND l.time >= $2 ORDER BY 2`, r.ids, since)
		if err != nil {
			return err
		}
		r.Devices, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Sender])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("finding the devices that have sent a parameter: %w", err)
	}
	return r, nil
}

// Play calls event for each event of devices from one time to another, which is excluded, in the order of time, as they come
// from the server: memory does not grow with their number. The event is valid during the call. What event returns ends it.
func (r *Recording) Play(ctx context.Context, devices []Sender, from, to time.Time, event func(*telemetry.Event) error) error {
	query := `SELECT device_ref, set_id, time, received_at, vals, quality FROM telemetry WHERE set_id = ANY ($1) AND time >= $2 AND time < $3`
	args := []any{r.ids, from, to}
	if len(devices) < len(r.Devices) {
		query += " AND device_ref = ANY ($4)"
		args = append(args, refsOf(devices))
	}
	return r.play(ctx, devices, event, query+" ORDER BY time", args...)
}

func refsOf(devices []Sender) []int32 {
	refs := make([]int32, len(devices))
	for i, d := range devices {
		refs[i] = d.Ref
	}
	return refs
}

// Newest calls event for the newest event of each device and parameter set, device by device and in the order of time.
func (r *Recording) Newest(ctx context.Context, event func(*telemetry.Event) error) error {
	return r.play(ctx, r.Devices, event, `SELECT device_ref, set_id, time, time, vals, quality FROM telemetry_latest
		WHERE set_id = ANY ($1) AND time >= $2 ORDER BY device_ref, time`, r.ids, r.since)
}

// play reads rows of (device_ref, set_id, time, received_at, vals, quality).
func (r *Recording) play(ctx context.Context, devices []Sender, event func(*telemetry.Event) error, sql string, args ...any) error {
	ids := make(map[int32]uuid.UUID, len(devices))
	for _, d := range devices {
		ids[d.Ref] = d.Device
	}
	err := r.store.read(ctx, func(tx pgx.Tx) error {
		// A day is read as it lies, and sorted: much faster than by an index, as the rows of a device lie scattered.
		if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off"); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, sql, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		var e telemetry.Event
		var quality []byte
		var failed error
		for rows.Next() {
			c := row{values: rows.RawValues(), fields: rows.FieldDescriptions(), failed: &failed}
			device, known := ids[c.int32(0)]
			if !known { // it has come since
				continue
			}
			e.Device, e.Set = device, r.sets[c.int32(1)]
			e.Time, e.ReceivedAt = c.micros(2), c.micros(3)
			if failed != nil {
				return failed
			}
			if e.Values, err = readFloats(e.Values[:0], c.values[4]); err != nil {
				return err
			}
			e.Quality = nil
			if c.values[5] != nil {
				if quality, err = readQualities(quality[:0], c.values[5]); err != nil {
					return err
				}
				e.Quality = quality
			}
			if n := len(e.Set.Keys); len(e.Values) != n || e.Quality != nil && len(e.Quality) != n {
				return fmt.Errorf("the row of device %s at %s has %d values and %d qualities for %d parameters", device, e.Time.Time(), len(e.Values), len(e.Quality), n)
			}
			if err := event(&e); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("reading stored telemetry: %w", err)
	}
	return nil
}

var errArray = errors.New("an array of telemetry is not of the form that the server sends")

// readFloats appends the elements of a binary array to list; null is NaN. copyBuffer writes the form.
func readFloats(list []float64, b []byte) ([]float64, error) {
	err := readArray(b, 8, func(v []byte) {
		if v == nil {
			list = append(list, math.NaN())
		} else {
			list = append(list, math.Float64frombits(binary.BigEndian.Uint64(v)))
		}
	})
	return list, err
}

func readQualities(list []byte, b []byte) ([]byte, error) {
	err := readArray(b, 2, func(v []byte) {
		if v == nil {
			list = append(list, telemetry.QualityGood) // as the views show it
		} else {
			list = append(list, byte(binary.BigEndian.Uint16(v)))
		}
	})
	return list, err
}

// readArray calls element for each element of a binary array of one dimension, whose elements have size bytes; nil is null.
func readArray(b []byte, size int, element func(v []byte)) error {
	be := binary.BigEndian
	if len(b) >= 12 && be.Uint32(b) == 0 {
		return nil
	}
	if len(b) < 20 || be.Uint32(b) != 1 {
		return errArray
	}
	n := int(be.Uint32(b[12:]))
	b = b[20:]
	for range n {
		switch {
		case len(b) >= 4 && be.Uint32(b) == math.MaxUint32:
			element(nil)
			b = b[4:]
		case len(b) >= 4+size && int(be.Uint32(b)) == size:
			element(b[4 : 4+size])
			b = b[4+size:]
		default:
			return errArray
		}
	}
	return nil
}
