package storebench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/telemetry"
)

// Original says what to write into the original platform's table.
type Original struct {
	Devices []uuid.UUID
	Keys    []string // of the parameters; each device sends all of them
	Start   telemetry.Micros
	Rows    int           // at most
	Limit   time.Duration // writing stops after it; 0 is no limit
	Writers int
}

// originalTable is ingest_events as the original platform's migrations make it: primary key, two foreign keys, an index
// for the history of a device and parameter, a unique one for event ids.
const originalTable = `
	DROP SCHEMA IF EXISTS bench_original CASCADE;
	CREATE SCHEMA bench_original;
	SET search_path = bench_original;
	CREATE TABLE devices (id uuid PRIMARY KEY);
	CREATE TABLE parameter_templates (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), key text NOT NULL UNIQUE);
	CREATE TABLE ingest_events (
		time timestamptz NOT NULL,
		device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
		parameter_key text NOT NULL REFERENCES parameter_templates (key) ON DELETE RESTRICT,
		value double precision,
		quality smallint NOT NULL DEFAULT 0,
		source text,
		event_id text,
		attributes jsonb DEFAULT '{}',
		created_at timestamptz NOT NULL DEFAULT now(),
		PRIMARY KEY (time, device_id, parameter_key));
	CREATE INDEX ON ingest_events (device_id, parameter_key, time DESC);
	CREATE UNIQUE INDEX ON ingest_events (time, event_id) WHERE event_id IS NOT NULL`

// CopyOriginal makes the original's table in a schema of its own, writes rows into it with one COPY a writer, and drops
// it again. It returns how many rows were committed, and how long that took from the first row to the last commit.
func (d *DB) CopyOriginal(ctx context.Context, o Original) (rows int64, took time.Duration, err error) {
	admin, err := pgx.ConnectConfig(ctx, d.conn.Config())
	if err != nil {
		return 0, 0, fmt.Errorf("connecting to the database: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if _, err := admin.Exec(ctx, originalTable); err != nil {
		return 0, 0, fmt.Errorf("making the original's table: %w", err)
	}
	defer func() {
		if _, dropped := admin.Exec(context.WithoutCancel(ctx), "DROP SCHEMA bench_original CASCADE"); dropped != nil && err == nil {
			err = fmt.Errorf("dropping the original's table: %w", dropped)
		}
	}()
	if _, err := admin.Exec(ctx, "INSERT INTO devices SELECT unnest($1::uuid[])", o.Devices); err != nil {
		return 0, 0, fmt.Errorf("filling the original's devices: %w", err)
	}
	if _, err := admin.Exec(ctx, "INSERT INTO parameter_templates (key) SELECT unnest($1::text[])", o.Keys); err != nil {
		return 0, 0, fmt.Errorf("filling the original's parameters: %w", err)
	}
	writers, hangUp, err := d.writers(ctx, o.Writers)
	if err != nil {
		return 0, 0, err
	}
	defer hangUp()
	if err := d.Checkpoint(ctx); err != nil {
		return 0, 0, err
	}
	var copied atomic.Int64
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i, conn := range writers {
		g.Go(func() error {
			source := &originalRows{o: &o, device: i - o.Writers, key: len(o.Keys) - 1, left: o.Rows / o.Writers}
			if o.Limit > 0 {
				source.until = began.Add(o.Limit)
			}
			n, err := conn.CopyFrom(ctx, pgx.Identifier{"bench_original", "ingest_events"},
				[]string{"time", "device_id", "parameter_key", "value", "quality", "source", "event_id", "attributes"}, source)
			copied.Add(n)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, fmt.Errorf("copying into the original's table: %w", err)
	}
	took = time.Since(began)
	if err := admin.QueryRow(context.WithoutCancel(ctx), "SELECT count(*) FROM ingest_events").Scan(&rows); err != nil {
		return 0, 0, fmt.Errorf("counting the original's rows: %w", err)
	}
	if rows != copied.Load() {
		return 0, 0, fmt.Errorf("the original's table holds %d rows, %d were copied", rows, copied.Load())
	}
	return rows, took, nil
}

// originalRows are the rows of one writer: its devices in turn, a second later with each turn.
type originalRows struct {
	o                 *Original
	turn, device, key int
	left              int
	until             time.Time
	eventID           []byte
	row               []any
}

func (r *originalRows) Next() bool {
	if r.key++; r.key == len(r.o.Keys) {
		r.key = 0
		if r.device += r.o.Writers; r.device >= len(r.o.Devices) {
			r.device %= r.o.Writers
			r.turn++
		}
		if !r.until.IsZero() && time.Now().After(r.until) {
			return false
		}
	}
	r.left--
	return r.left >= 0
}

func (r *originalRows) Values() ([]any, error) {
	device, key := r.o.Devices[r.device], r.o.Keys[r.key]
	at := r.o.Start.Time().Add(time.Duration(r.turn) * time.Second)
	id := append(append(r.eventID[:0], device.String()...), ':')
	id = append(append(at.AppendFormat(id, "2006-01-02T15:04:05.000000-07:00"), ':'), key...)
	r.eventID = id
	value := 200 + float64((r.turn*31+r.device*17+r.key*7)%1000)/10
	r.row = append(r.row[:0], at, [16]byte(device), key, value, int16(telemetry.QualityGood), "GPRS", string(id), "{}")
	return r.row, nil
}

func (r *originalRows) Err() error { return nil }
