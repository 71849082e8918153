package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/alert"
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
