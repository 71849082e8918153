package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/telemetry"
)

// Day is the telemetry of one day: a partition, or a chunk of a hypertable.
type Day struct {
	Table      string    // as SQL names it
	Start, End time.Time // UTC; End is excluded
	Rows       int64     // as the server estimates them; -1 when it has no statistics
	Bytes      int64     // on disk, with indexes
	Compressed bool
	PlainBytes int64 // of a compressed day, before it was compressed; 0 when not known
}

// Expired reports whether Retain drops the day when it keeps what is newer than cutoff.
func (d *Day) Expired(cutoff time.Time) bool { return !d.End.After(cutoff) }

// TimedOut reports whether a query ended because its context's deadline was near.
func TimedOut(err error) bool {
	const queryCanceled = "57014"
	return code(err) == queryCanceled || code(err) == lockNotAvailable || errors.Is(err, context.DeadlineExceeded)
}

// read runs queries in a transaction that can write nothing, and that the server itself ends shortly before ctx's deadline,
// so that the connection can be used again.
func (s *Store) read(ctx context.Context, queries func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if deadline, ok := ctx.Deadline(); ok {
			const early = 20 * time.Millisecond
			limit := max(time.Until(deadline)-early, time.Millisecond).Milliseconds()
			_, err := tx.Exec(ctx, "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true)", fmt.Sprint(max(limit, 1)))
			if err != nil {
				return err
			}
		}
		return queries(tx)
	})
}

// Days lists the days of telemetry, oldest first, those too that an interrupted Retain had detached but not dropped.
func (s *Store) Days(ctx context.Context) (days []Day, err error) {
	query := `SELECT relname, NULL::timestamptz, NULL::timestamptz,
			CASE WHEN reltuples >= 0 AND relpages > 0 THEN (reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::int))::bigint ELSE -1 END,
			pg_total_relation_size(oid), false, 0::bigint
		FROM pg_class WHERE relkind = 'r' AND relname ~ '^telemetry_p[0-9]{8}$'
			AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'telemetry'::regclass) ORDER BY 1`
	if s.days.hypertable {
		query = `SELECT format('%I.%I', c.chunk_schema, c.chunk_name), c.range_start, c.range_end,
				approximate_row_count(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass), b.total_bytes, c.is_compressed,
				coalesce(p.before_compression_total_bytes, 0)
			FROM timescaledb_information.chunks c
			JOIN chunks_detailed_size('telemetry') b USING (chunk_schema, chunk_name)
			LEFT JOIN chunk_compression_stats('telemetry') p USING (chunk_schema, chunk_name)
			WHERE c.hypertable_name = 'telemetry' ORDER BY c.range_start`
	}
	err = s.read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query)
		if err != nil {
			return err
		}
		var d Day
		var start, end *time.Time // null for partitions, whose name says it
		var bytes *int64          // null for what is dropped meanwhile
		_, err = pgx.ForEachRow(rows, []any{&d.Table, &start, &end, &d.Rows, &bytes, &d.Compressed, &d.PlainBytes}, func() error {
			if d.Bytes = 0; bytes != nil {
				d.Bytes = *bytes
			}
			if start != nil && end != nil {
				d.Start, d.End = start.UTC(), end.UTC()
			} else if d.Start, err = time.Parse("20060102", strings.TrimPrefix(d.Table, "telemetry_p")); err == nil {
				d.End = d.Start.AddDate(0, 0, 1)
			} else {
				return nil // somebody else's table
			}
			days = append(days, d)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the days of telemetry: %w", err)
	}
	return days, nil
}

// Compresses reports whether the database can compress telemetry.
func (s *Store) Compresses() bool { return s.days.hypertable }

// CountDay counts a day's rows. oldest is the time of the first one, zero when there is none.
func (s *Store) CountDay(ctx context.Context, d *Day) (rows int64, oldest time.Time, err error) {
	err = s.read(ctx, func(tx pgx.Tx) error {
		var first *time.Time
		if err := tx.QueryRow(ctx, "SELECT count(*), min(time) FROM "+d.Table).Scan(&rows, &first); err != nil {
			return err
		}
		if first != nil {
			oldest = first.UTC()
		}
		return nil
	})
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("counting the rows of %s: %w", d.Table, err)
	}
	return rows, oldest, nil
}

// Size returns how many bytes the whole database has on disk, and how many values a row of telemetry holds on average, 0 when
// there is none.
func (s *Store) Size(ctx context.Context) (bytes int64, valuesPerRow float64, err error) {
	err = s.read(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT pg_database_size(current_database()),
			(SELECT coalesce(avg(cardinality(vals)), 0)::float8 FROM (SELECT vals FROM telemetry_latest LIMIT 10000) l)`).Scan(&bytes, &valuesPerRow)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the size of the database: %w", err)
	}
	return bytes, valuesPerRow, nil
}

// Holding is what a day, or several, hold of a device.
type Holding struct {
	Rows           int64
	Oldest, Newest time.Time
}

// Holdings returns what a day holds of devices, by their refs. Those of which it holds nothing are left out.
func (s *Store) Holdings(ctx context.Context, d *Day, refs []int32) (map[int32]Holding, error) {
	found := map[int32]Holding{}
	err := s.read(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT device_ref, count(*), min(time), max(time) FROM "+d.Table+" WHERE device_ref = ANY ($1) GROUP BY 1", refs)
		if err != nil {
			return err
		}
		var ref int32
		var h Holding
		_, err = pgx.ForEachRow(rows, []any{&ref, &h.Rows, &h.Oldest, &h.Newest}, func() error {
			found[ref] = h
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting devices' rows in %s: %w", d.Table, err)
	}
	return found, nil
}

// OpenAlerts returns the alerts that are not resolved, of all devices.
func (s *Store) OpenAlerts(ctx context.Context) (open []alert.Open, err error) {
	err = s.read(ctx, func(tx pgx.Tx) error {
		open, err = openAlerts(ctx, tx)
		return err
	})
	return open, err
}

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
