// Package storebench asks a database what the benchmark needs to know of it, and measures how fast it takes rows at best,
// in the original platform's table and in telemetry itself.
package storebench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// DB is one connection. It is not safe for concurrent use.
type DB struct{ conn *pgx.Conn }

// Open connects to the database at a PostgreSQL URL.
func Open(ctx context.Context, url string) (*DB, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	return &DB{conn}, nil
}

// Close closes the connection.
func (d *DB) Close(ctx context.Context) error { return d.conn.Close(ctx) }

// Settings returns the server's version and the settings that a measurement depends on, by name.
func (d *DB) Settings(ctx context.Context) (map[string]string, error) {
	rows, err := d.conn.Query(ctx, `SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1)`,
		[]string{"server_version", "shared_buffers", "max_wal_size", "fsync", "full_page_writes", "synchronous_commit", "wal_compression"})
	if err != nil {
		return nil, fmt.Errorf("reading settings: %w", err)
	}
	settings := map[string]string{}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { settings[name] = value; return nil }); err != nil {
		return nil, fmt.Errorf("reading settings: %w", err)
	}
	return settings, nil
}

// Checkpoint makes the server write out what it holds, so that one measurement doesn't pay for another.
func (d *DB) Checkpoint(ctx context.Context) error {
	if _, err := d.conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// Committed returns how many events all queue partitions together have stored.
func (d *DB) Committed(ctx context.Context) (events int64, err error) {
	if err := d.conn.QueryRow(ctx, "SELECT coalesce(sum(events), 0)::bigint FROM partitions").Scan(&events); err != nil {
		return 0, fmt.Errorf("reading the offsets: %w", err)
	}
	return events, nil
}

// Stored returns how many values are stored with a time in from..to, to excluded.
func (d *DB) Stored(ctx context.Context, from, to telemetry.Micros) (values int64, err error) {
	err = d.conn.QueryRow(ctx, "SELECT coalesce(sum(cardinality(vals)), 0)::bigint FROM telemetry WHERE time >= $1 AND time < $2",
		from.Time(), to.Time()).Scan(&values)
	if err != nil {
		return 0, fmt.Errorf("counting stored values: %w", err)
	}
	return values, nil
}

// Empty takes everything out of telemetry. The newest values stay.
func (d *DB) Empty(ctx context.Context) error {
	if _, err := d.conn.Exec(ctx, "TRUNCATE telemetry"); err != nil {
		return fmt.Errorf("emptying telemetry: %w", err)
	}
	return nil
}

// Hold keeps all workers from storing anything, until release is called: they can read their offsets, but not move them.
func (d *DB) Hold(ctx context.Context) (release func() error, err error) {
	conn, err := pgx.ConnectConfig(ctx, d.conn.Config())
	if err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	if _, err := conn.Exec(ctx, "BEGIN; LOCK TABLE partitions IN EXCLUSIVE MODE"); err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("locking the offsets: %w", err)
	}
	return func() error { return conn.Close(context.WithoutCancel(ctx)) }, nil
}
