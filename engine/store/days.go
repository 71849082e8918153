package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/telemetry"
)

// days knows the daily partitions of telemetry. A hypertable has none: TimescaleDB makes its chunks itself.
type days struct {
	hypertable bool

	mu    sync.Mutex
	known map[int64]bool
}

// lockDays serialises the making of partitions: "nsrd".
const lockDays = 0x6e737264

// key tells rows apart that are copied apart: the day, or 0 where one COPY takes them all.
func (d *days) key(t telemetry.Micros) int64 {
	if d.hypertable {
		return 0
	}
	return t.Day()
}

// table returns where to copy the rows of a key.
func (d *days) table(key int64) string {
	if d.hypertable {
		return "telemetry"
	}
	return dayTable(key)
}

func dayTable(day int64) string { return "telemetry_p" + dayStart(day).Format("20060102") }

func dayStart(day int64) time.Time { return time.Unix(day*24*60*60, 0).UTC() }

func (d *days) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = nil
}

// ensure makes the partitions of the given days. It attaches them rather than create them in place, which would lock
// readers and writers of telemetry out.
func (d *days) ensure(ctx context.Context, conn *pgx.Conn, list []int64) error {
	if d.hypertable {
		return nil
	}
	for _, day := range list {
		if d.has(day) {
			continue
		}
		// Other writers do not wait: the database itself makes one of those that want the same day.
		if err := makeDay(ctx, conn, day); err != nil {
			return fmt.Errorf("making the partition %s: %w", dayTable(day), err)
		}
		d.add(day)
	}
	return nil
}

func (d *days) has(day int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[day]
}

func (d *days) add(day int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[int64]bool{}
	}
	d.known[day] = true
}

func makeDay(ctx context.Context, conn *pgx.Conn, day int64) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return attachDay(ctx, tx, day) })
}

func attachDay(ctx context.Context, tx pgx.Tx, day int64) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockDays); err != nil {
		return err
	}
	table := dayTable(day)
	var attached bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1))", table).Scan(&attached)
	if err != nil || attached {
		return err
	}
	const form = "2006-01-02 15:04:05Z07:00"
	_, err = tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (LIKE telemetry INCLUDING ALL);
		ALTER TABLE telemetry ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
		table, table, dayStart(day).Format(form), dayStart(day+1).Format(form)))
	failpoint.Hit("store.day-made")
	return err
}

// Retain drops telemetry older than keep, by whole days, and error logs and the ledger with it. It returns the names of what it dropped.
func (s *Store) Retain(ctx context.Context, keep time.Duration) (dropped []string, err error) {
	cutoff := time.Now().UTC().Add(-keep)
	if _, err := s.pool.Exec(ctx, "DELETE FROM error_logs WHERE time < $1", cutoff); err != nil {
		return nil, fmt.Errorf("dropping old error logs: %w", err)
	}
	if _, err := s.pool.Exec(ctx, "DELETE FROM ledger WHERE hour < $1", cutoff); err != nil {
		return nil, fmt.Errorf("dropping the old ledger: %w", err)
	}
	if s.days.hypertable {
		rows, err := s.pool.Query(ctx, "SELECT drop_chunks('telemetry', older_than => $1::timestamptz)::text", cutoff)
		if err != nil {
			return nil, fmt.Errorf("dropping old chunks: %w", err)
		}
		if dropped, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return nil, fmt.Errorf("dropping old chunks: %w", err)
		}
		return dropped, nil
	}
	list, err := s.Days(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		if !d.Expired(cutoff) {
			continue
		}
		if err := s.dropDay(ctx, d.Table); err != nil {
			return dropped, fmt.Errorf("dropping the partition %s: %w", d.Table, err)
		}
		dropped = append(dropped, d.Table)
	}
	if len(dropped) > 0 {
		s.days.forget()
	}
	return dropped, nil
}

// dropDay detaches first, which does not lock readers and writers of other days out.
func (s *Store) dropDay(ctx context.Context, name string) error {
	var pending *bool // null when it is detached already, true when a detach was interrupted
	err := s.pool.QueryRow(ctx, "SELECT (SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $1::regclass)", name).Scan(&pending)
	if err != nil {
		return err
	}
	if pending != nil {
		how := "CONCURRENTLY"
		if *pending {
			how = "FINALIZE"
		}
		if _, err := s.pool.Exec(ctx, "ALTER TABLE telemetry DETACH PARTITION "+name+" "+how); err != nil {
			return err
		}
	}
	_, err = s.pool.Exec(ctx, "DROP TABLE "+name)
	return err
}
