package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nsready/nsready/engine/telemetry"
)

// ErrFenced says that another worker has moved the partition's offset: this claim is void.
var ErrFenced = errors.New("another worker owns this queue partition")

// Claim is the ownership of one queue partition. It is a database connection that holds the partition's advisory lock:
// when the connection is gone, so is the ownership, and nothing more can be written through it.
// A Claim is not safe for concurrent use. After an error from one of its methods or of its Tx, other than a
// telemetry.RejectedError, it must be closed and a new one be made.
type Claim struct {
	store     *Store
	conn      *pgx.Conn
	epoch     string
	partition int
	seq       uint64 // all frames up to this are stored
	events    uint64 // and held so many events

	devices map[uuid.UUID]*device
	sets    map[*telemetry.ParameterSet]int32 // ids in parameter_sets
	keys    map[int32][]string                // of parameter_sets that merges have met
	batch   uint64                            // counts writes, to tell this one's marks from older ones

	copies map[int64]*copyBuffer // by days.key
	stage  copyBuffer
}

// device is what a claim knows of a device.
type device struct {
	ref   int32
	high  telemetry.Micros // nothing later is stored for it, unless by other hands
	marks []mark
}

// mark points at the newest event of a parameter set in the write at hand.
type mark struct {
	set   int32
	batch uint64
	event *telemetry.Event
}

// Claim waits until no other worker owns the partition and takes it over.
func (s *Store) Claim(ctx context.Context, epoch string, partition int) (*Claim, error) {
	c := &Claim{store: s, epoch: epoch, partition: partition}
	doing := func(err error) error {
		return fmt.Errorf("claiming queue partition %d: %w", partition, err)
	}
	config := s.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = fmt.Sprintf("nsready worker %d", partition)
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "60s"
	config.RuntimeParams["lock_timeout"] = "0"
	if s.days.hypertable { // merging late values with compressed ones may take any number of them
		config.RuntimeParams["timescaledb.max_tuples_decompressed_per_dml_transaction"] = "0"
	}
	var err error
	if c.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, doing(err)
	}
	c.Forget()
	err = func() error {
		if _, err := c.conn.Exec(ctx, "SELECT pg_advisory_lock($1, hashtext($2))", lockPartition, fmt.Sprintf("%s/%d", epoch, partition)); err != nil {
			return err
		}
		if _, err := c.conn.Exec(ctx, "INSERT INTO partitions (epoch, id) VALUES ($1, $2) ON CONFLICT DO NOTHING", epoch, partition); err != nil {
			return err
		}
		if err := c.conn.QueryRow(ctx, "SELECT seq, events FROM partitions WHERE epoch = $1 AND id = $2", epoch, partition).Scan(&c.seq, &c.events); err != nil {
			return err
		}
		_, err := c.conn.Exec(ctx, `CREATE TEMP TABLE stage (LIKE telemetry) ON COMMIT DELETE ROWS;
			CREATE TEMP TABLE stage_latest (LIKE telemetry_latest) ON COMMIT DELETE ROWS`)
		return err
	}()
	if err != nil {
		c.Close()
		return nil, doing(err)
	}
	return c, nil
}

// Offset returns how far a partition of the queue is stored, 0 when nothing is, and whether frames of another epoch of it
// were stored before.
func (s *Store) Offset(ctx context.Context, epoch string, partition int) (seq uint64, other bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(max(seq) FILTER (WHERE epoch = $1), 0), coalesce(bool_or(epoch <> $1), false)
		FROM partitions WHERE id = $2`, epoch, partition).Scan(&seq, &other)
	if err != nil {
		return 0, false, fmt.Errorf("reading the offset of queue partition %d: %w", partition, err)
	}
	return seq, other, nil
}

// lockPartition is the class of the advisory locks on partitions: "nsrp".
const lockPartition = 0x6e737270

// Offset returns the sequence of the last stored frame, and how many events were stored up to it.
func (c *Claim) Offset() (seq, events uint64) { return c.seq, c.events }

// Forget drops what the claim remembers of the registry, which may have changed.
func (c *Claim) Forget() {
	c.devices = map[uuid.UUID]*device{}
	c.sets = map[*telemetry.ParameterSet]int32{}
	c.keys = map[int32][]string{}
	c.copies = map[int64]*copyBuffer{}
}

// Close gives the ownership up.
func (c *Claim) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	c.conn.Close(ctx)
}

// Tx is one transaction of a claim: rows, dead letters, alert transitions and the new offset, all or nothing.
type Tx struct{ claim *Claim }

// Begin looks up what the rows of events need, and opens a transaction.
func (c *Claim) Begin(ctx context.Context, events []telemetry.Event) (*Tx, error) {
	if err := c.prepare(ctx, events); err != nil {
		return nil, fmt.Errorf("preparing to write: %w", err)
	}
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	return &Tx{c}, nil
}

// Write stores events, in their order. On a *telemetry.RejectedError none of them is stored and the transaction goes on.
func (t *Tx) Write(ctx context.Context, events []telemetry.Event) error {
	c := t.claim
	if err := c.exec(ctx, "SAVEPOINT write"); err != nil {
		return fmt.Errorf("writing telemetry: %w", err)
	}
	err := c.write(ctx, events, false)
	if code(err) == uniqueViolation { // a row that was surely new is there, by other hands: look before writing
		if err := c.exec(ctx, "ROLLBACK TO SAVEPOINT write"); err != nil {
			return fmt.Errorf("writing telemetry: %w", err)
		}
		err = c.write(ctx, events, true)
	}
	if err == nil {
		return nil
	}
	if rejected := asRejected(err); rejected != nil {
		if err := c.exec(ctx, "ROLLBACK TO SAVEPOINT write"); err != nil {
			return fmt.Errorf("writing telemetry: %w", err)
		}
		return rejected
	}
	if code(err) == undefinedTable { // retention dropped the day's partition
		c.store.days.forget()
	}
	return fmt.Errorf("writing telemetry: %w", err)
}

// Commit moves the partition's offset to seq, up to which it held events events, and commits.
func (t *Tx) Commit(ctx context.Context, seq, events uint64) error {
	c := t.claim
	tag, err := c.conn.Exec(ctx, `UPDATE partitions SET seq = $1, events = $2, updated_at = now() WHERE epoch = $3 AND id = $4 AND seq = $5`,
		int64(seq), int64(events), c.epoch, c.partition, int64(c.seq))
	if err != nil {
		return fmt.Errorf("moving the offset: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("moving the offset from frame %d: %w", c.seq, ErrFenced)
	}
	if err := c.exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	c.seq, c.events = seq, events
	return nil
}

func (c *Claim) exec(ctx context.Context, sql string) error {
	_, err := c.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// SQLSTATEs that the write path tells apart (PostgreSQL documentation, appendix A).
const (
	uniqueViolation = "23505"
	undefinedTable  = "42P01"
)

func code(err error) string {
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// asRejected tells errors of the data, SQLSTATE classes 22 and 23, from those of the database. It returns nil for the latter.
func asRejected(err error) *telemetry.RejectedError {
	if r := (*telemetry.RejectedError)(nil); errors.As(err, &r) {
		return r
	}
	if c := code(err); len(c) == 5 && (c[:2] == "22" || c[:2] == "23") {
		return &telemetry.RejectedError{Reason: c, Err: err}
	}
	return nil
}
