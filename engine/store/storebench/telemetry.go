package storebench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nsready/nsready/engine/telemetry"
)

// Rows says what to write into telemetry: the events First to First+Count-1, each of the next device in turn.
type Rows struct {
	Devices      []uuid.UUID
	Keys         []string // of the parameter set, sorted; each event has a value of each
	Time         func(event uint64) telemetry.Micros
	First, Count uint64
	Writers      int
}

// CopyTelemetry writes rows straight into the table in which the service stores them, with one COPY a writer of bytes that
// were encoded before: as fast as the database can take them. All rows must be of one day, whose partition exists. It
// returns how long it took until the last commit.
func (d *DB) CopyTelemetry(ctx context.Context, r Rows) (took time.Duration, err error) {
	table, err := d.tableOf(ctx, r.Time(r.First), r.Time(r.First+r.Count-1))
	if err != nil {
		return 0, err
	}
	inputs, err := d.encode(ctx, r)
	if err != nil {
		return 0, err
	}
	writers, hangUp, err := d.writers(ctx, r.Writers)
	if err != nil {
		return 0, err
	}
	defer hangUp()
	if err := d.Checkpoint(ctx); err != nil {
		return 0, err
	}
	var copied atomic.Int64
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i, conn := range writers {
		g.Go(func() error {
			tag, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(inputs[i]),
				"COPY "+table+" (time, received_at, device_ref, set_id, vals, quality, source, event_id, attributes) FROM STDIN BINARY")
			copied.Add(tag.RowsAffected())
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("copying into %s: %w", table, err)
	}
	took = time.Since(began)
	if copied.Load() != int64(r.Count) {
		return 0, fmt.Errorf("%d of %d rows were copied into %s", copied.Load(), r.Count, table)
	}
	return took, nil
}

// tableOf returns where the service writes rows of a day: its partition, or the hypertable.
func (d *DB) tableOf(ctx context.Context, first, last telemetry.Micros) (table string, err error) {
	if first.Day() != last.Day() {
		return "", fmt.Errorf("rows from %v to %v are of several days", first.Time(), last.Time())
	}
	err = d.conn.QueryRow(ctx, `SELECT coalesce(CASE relkind WHEN 'p' THEN to_regclass($1)::text ELSE 'telemetry' END, '')
		FROM pg_class WHERE oid = 'telemetry'::regclass`, "telemetry_p"+first.Time().Format("20060102")).Scan(&table)
	if err != nil {
		return "", fmt.Errorf("looking for the partition of %v: %w", first.Time(), err)
	}
	if table == "" {
		return "", fmt.Errorf("telemetry has no partition for %v: let the service store an event of that day first", first.Time())
	}
	return table, nil
}

// encode returns each writer's input of COPY … FROM STDIN BINARY (PostgreSQL documentation, COPY, "Binary Format").
func (d *DB) encode(ctx context.Context, r Rows) (inputs [][]byte, err error) {
	var set int32
	if err := d.conn.QueryRow(ctx, "SELECT parameter_set_id($1)", r.Keys).Scan(&set); err != nil {
		return nil, fmt.Errorf("looking up the parameter set: %w", err)
	}
	rows, err := d.conn.Query(ctx, "SELECT coalesce(d.ref, -1) FROM unnest($1::uuid[]) WITH ORDINALITY u (id, i) LEFT JOIN devices d USING (id) ORDER BY i", r.Devices)
	if err != nil {
		return nil, fmt.Errorf("looking up devices: %w", err)
	}
	refs, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, fmt.Errorf("looking up devices: %w", err)
	}
	received := telemetry.MicrosOf(time.Now())
	inputs = make([][]byte, r.Writers)
	size := 64 + int(r.Count)/r.Writers*(90+12*len(r.Keys))
	for i := range inputs {
		inputs[i] = append(make([]byte, 0, size), "PGCOPY\n\xff\r\n\x00"+"\x00\x00\x00\x00"+"\x00\x00\x00\x00"...)
	}
	for n := r.First; n < r.First+r.Count; n++ {
		j := int(n % uint64(len(refs)))
		if refs[j] < 0 {
			return nil, fmt.Errorf("the registry has no device %s", r.Devices[j])
		}
		w := j % r.Writers
		inputs[w] = appendRow(inputs[w], n, r.Time(n), received, refs[j], set, len(r.Keys))
	}
	for i := range inputs {
		inputs[i] = append(inputs[i], 0xff, 0xff)
	}
	return inputs, nil
}

// appendRow appends what the service would write of an event over HTTP whose qualities are all good.
func appendRow(b []byte, n uint64, at, received telemetry.Micros, ref, set int32, values int) []byte {
	const epoch = 946684800_000000 // PostgreSQL's timestamps begin in 2000
	const float8 = 701             // pg_type.dat
	null := func() { b = binary.BigEndian.AppendUint32(b, math.MaxUint32) }
	int4 := func(v int32) { b = binary.BigEndian.AppendUint32(b, uint32(v)) }
	int8 := func(v int64) { int4(8); b = binary.BigEndian.AppendUint64(b, uint64(v)) }
	b = append(b, 0, 9)
	int8(int64(at) - epoch)
	int8(int64(received) - epoch)
	int4(4)
	int4(ref)
	int4(4)
	int4(set)
	int4(int32(20 + 12*values))
	for _, v := range []int32{1, 0, float8, int32(values), 1} { // dimensions, null flag, type, length, lower bound (array_send)
		int4(v)
	}
	for i := range values {
		int8(int64(math.Float64bits(200 + float64((n*31+uint64(i)*7)%1000)/10)))
	}
	null()
	int4(4)
	b = append(b, "HTTP"...)
	null()
	null()
	return b
}

// writers opens connections.
func (d *DB) writers(ctx context.Context, n int) (conns []*pgx.Conn, hangUp func(), err error) {
	hangUp = func() {
		for _, c := range conns {
			c.Close(context.WithoutCancel(ctx))
		}
	}
	for range n {
		conn, err := pgx.ConnectConfig(ctx, d.conn.Config())
		if err != nil {
			hangUp()
			return nil, nil, fmt.Errorf("connecting to the database: %w", err)
		}
		conns = append(conns, conn)
	}
	return conns, hangUp, nil
}
