package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/telemetry"
)

var (
	// ErrFenced says that another worker has moved the partition's offset: this claim is void.
	ErrFenced = errors.New("another worker has moved the offset of this queue partition")
	// ErrOwned says that a worker that is alive owns the partition.
	ErrOwned = errors.New("another worker owns this queue partition")
)

// Stream is one stream of the queue: its epoch, and its number among the queue's.
type Stream struct {
	Epoch  string
	Number int
}

// Claim is the ownership of one queue partition, of its streams in all lanes. It is a database connection that holds the
// partition's advisory lock: when the connection is gone, so is the ownership, and nothing more can be written through it.
// A Claim is not safe for concurrent use. After an error from one of its methods or of its Tx, other than a
// telemetry.RejectedError, it must be closed and a new one be made.
type Claim struct {
	store   *Store
	conn    *pgx.Conn
	line    *line
	streams [telemetry.Lanes]Stream
	stored  [telemetry.Lanes]telemetry.Offset

	revision string // of the registry, which was read before the devices were
	devices  map[uuid.UUID]*device
	sets     map[*telemetry.ParameterSet]int32 // ids in parameter_sets
	keys     map[int32][]string                // of parameter_sets that merges have met
	batch    uint64                            // counts writes, to tell this one's marks from older ones

	fresh  []tableRow            // of the write at hand: rows that are surely new
	copies map[int64]*copyBuffer // by days.key
	stage  copyBuffer
	ledger ledger
	raised []raised // by the write at hand
}

// device is what a claim knows of a device.
type device struct {
	ref      int32
	customer uuid.UUID
	high     telemetry.Micros // nothing later is stored for it, unless by other hands
	marks    []mark
	raised   uint64 // the last write that raised high

	account     *account // that it was last counted in
	transaction uint64   // that account belongs to
}

// raised is a device whose high-water mark the write at hand has raised, and what it was.
type raised struct {
	device *device
	high   telemetry.Micros
}

// mark points at the newest event of a parameter set in the write at hand.
type mark struct {
	set   int32
	batch uint64
	event *telemetry.Event
}

// Claim takes a partition over, when no other worker has it or the one that has it is silent: its connection is ended
// then, so that it can write no more. A worker that is alive is left alone, with ErrOwned.
func (s *Store) Claim(ctx context.Context, m Member, streams [telemetry.Lanes]Stream) (*Claim, error) {
	c := &Claim{store: s, streams: streams}
	doing := func(err error) error {
		return fmt.Errorf("claiming queue partition %d: %w", streams[telemetry.Live].Number, err)
	}
	parameters := map[string]string{"application_name": m.application(), "idle_in_transaction_session_timeout": "60s",
		"enable_hashjoin": "off", "enable_mergejoin": "off", // a claim looks single rows up: reading whole partitions is never faster
		"lock_timeout":        "0",
		"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"} // a vanished owner's lock must go
	if s.days.hypertable { // merging late values with compressed ones may take any number of them
		parameters["timescaledb.max_tuples_decompressed_per_dml_transaction"] = "0"
	}
	var err error
	if c.conn, c.line, err = s.connect(ctx, parameters); err != nil {
		return nil, doing(err)
	}
	c.Forget()
	err = c.lock(ctx, m)
	failpoint.Hit("store.claimed")
	for lane := 0; lane < telemetry.Lanes && err == nil; lane++ {
		err = c.readOffset(ctx, lane)
	}
	if err == nil {
		_, err = c.conn.Exec(ctx, `CREATE TEMP TABLE stage (LIKE telemetry) ON COMMIT DELETE ROWS;
			CREATE TEMP TABLE stage_latest (LIKE telemetry_latest) ON COMMIT DELETE ROWS`)
	}
	if err != nil {
		c.Close()
		return nil, doing(err)
	}
	return c, nil
}

// lock takes the partition's lock. A holder that is not on the list of those alive, or was not seen for long, loses it; and so
// does an earlier claim of the same process, which has one for a partition: its connection may be gone for this side alone.
func (c *Claim) lock(ctx context.Context, m Member) error {
	key := fmt.Sprintf("%s/%d", c.streams[telemetry.Live].Epoch, c.streams[telemetry.Live].Number)
	tries := time.NewTicker(50 * time.Millisecond)
	defer tries.Stop()
	for range 20 {
		var locked bool
		if err := c.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, hashtext($2))", lockPartition, key).Scan(&locked); err != nil || locked {
			return err
		}
		var silent bool
		err := c.conn.QueryRow(ctx, `SELECT coalesce(bool_and(pg_terminate_backend(l.pid)), false)
			FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = $1 AND l.objid::bigint = hashtext($2)::bigint & 4294967295
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND NOT EXISTS (SELECT FROM workers w WHERE a.application_name = 'nsready worker ' || w.session
				AND w.session <> $4 AND abs(extract(epoch FROM now() - w.seen_at)) < $3)`,
			lockPartition, key, Lease.Seconds(), m.session).Scan(&silent)
		if err != nil {
			return fmt.Errorf("ending the connection of a worker that is silent: %w", err)
		}
		if !silent {
			return ErrOwned
		}
		select { // the backend needs a moment
		case <-tries.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return ErrOwned
}

func (c *Claim) readOffset(ctx context.Context, lane int) error {
	s := c.streams[lane]
	if _, err := c.conn.Exec(ctx, "INSERT INTO partitions (epoch, id) VALUES ($1, $2) ON CONFLICT DO NOTHING", s.Epoch, s.Number); err != nil {
		return err
	}
	return c.conn.QueryRow(ctx, "SELECT seq, events FROM partitions WHERE epoch = $1 AND id = $2", s.Epoch, s.Number).
		Scan(&c.stored[lane].Seq, &c.stored[lane].Events)
}

// Check finds out whether the claim is still good: the connection lives, and the database has the offsets that it should
// have. One that was restored from a copy, or promoted without its tail, has others.
func (c *Claim) Check(ctx context.Context) error {
	for lane, was := range c.stored {
		s, now := c.streams[lane], telemetry.Offset{}
		err := c.conn.QueryRow(ctx, "SELECT seq, events FROM partitions WHERE epoch = $1 AND id = $2", s.Epoch, s.Number).Scan(&now.Seq, &now.Events)
		if err != nil {
			return fmt.Errorf("checking the offset of queue partition %d: %w", s.Number, err)
		}
		if now != was {
			return fmt.Errorf("the offset of queue partition %d is %d, it was %d: %w", s.Number, now.Seq, was.Seq, ErrFenced)
		}
	}
	return nil
}

// Begin sets the offset of a stream that nobody has read yet.
func (s *Store) Begin(ctx context.Context, at Stream, o telemetry.Offset) error {
	_, err := s.pool.Exec(ctx, "INSERT INTO partitions (epoch, id, seq, events) VALUES ($1, $2, $3, $4)", at.Epoch, at.Number, int64(o.Seq), int64(o.Events))
	if err != nil {
		return fmt.Errorf("setting the offset of queue partition %d: %w", at.Number, err)
	}
	return nil
}

// Position is how far a stream of the queue is stored, and how far it was ever seen to go.
type Position struct {
	Stream
	Stored, Newest telemetry.Offset
	Moved          time.Time // when Stored last moved
}

// Positions lists what is known of the queue's streams, past ones too.
func (s *Store) Positions(ctx context.Context) ([]Position, error) {
	rows, err := s.pool.Query(ctx, `SELECT epoch, id, coalesce(p.seq, 0), coalesce(p.events, 0), coalesce(q.newest, 0), coalesce(q.events, 0), coalesce(p.updated_at, 'epoch')
		FROM partitions p FULL JOIN queue_streams q USING (epoch, id)`)
	if err != nil {
		return nil, fmt.Errorf("reading how far the queue is stored: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Position, err error) {
		err = row.Scan(&p.Epoch, &p.Number, &p.Stored.Seq, &p.Stored.Events, &p.Newest.Seq, &p.Newest.Events, &p.Moved)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading how far the queue is stored: %w", err)
	}
	return list, nil
}

// See notes how far streams go.
func (s *Store) See(ctx context.Context, streams []Stream, newest []telemetry.Offset) error {
	epochs, numbers := make([]string, len(streams)), make([]int32, len(streams))
	frames, events := make([]int64, len(streams)), make([]int64, len(streams))
	for i, stream := range streams {
		epochs[i], numbers[i], frames[i], events[i] = stream.Epoch, int32(stream.Number), int64(newest[i].Seq), int64(newest[i].Events)
	}
	_, err := s.pool.Exec(ctx, `INSERT INTO queue_streams AS q
		SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) n (epoch, id, newest, events) ORDER BY 1, 2
		ON CONFLICT (epoch, id) DO UPDATE SET newest = excluded.newest, events = excluded.events WHERE excluded.newest > q.newest`,
		epochs, numbers, frames, events)
	if err != nil {
		return fmt.Errorf("noting how far the queue has got: %w", err)
	}
	return nil
}

// GiveUp notes that of a stream nothing is left after an offset, so that what was seen there is missed once, and puts the
// events that are lost with it into the ledger.
func (s *Store) GiveUp(ctx context.Context, at Stream, left telemetry.Offset, lost uint64) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE queue_streams SET newest = $3, events = $4 WHERE epoch = $1 AND id = $2", at.Epoch, at.Number, int64(left.Seq), int64(left.Events))
		if err == nil && lost > 0 {
			_, err = tx.Exec(ctx, `INSERT INTO ledger AS l (partition, customer_id, hour, accepted, lost) VALUES ($1, $2, date_trunc('hour', now()), $3, $3)
				ON CONFLICT (customer_id, hour, partition) DO UPDATE SET accepted = l.accepted + excluded.accepted, lost = l.lost + excluded.lost`,
				at.Number, uuid.Nil, int64(lost))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that frames of the queue are gone: %w", err)
	}
	return nil
}

// Alone does something while no other process does so on this database.
func (s *Store) Alone(ctx context.Context, do func(context.Context) error) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockAlone); err != nil {
			return fmt.Errorf("waiting for other processes: %w", err)
		}
		return do(ctx)
	})
	return err
}

// lockAlone is held while a queue is opened: "nsrq".
const lockAlone = 0x6e737271

// lockPartition is the class of the advisory locks on partitions: "nsrp".
const lockPartition = 0x6e737270

// Offsets returns how far the partition's streams are stored.
func (c *Claim) Offsets() [telemetry.Lanes]telemetry.Offset { return c.stored }

// Forget drops what the claim remembers of the registry, which may have changed.
func (c *Claim) Forget() {
	c.revision = ""
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

// Waiting returns for how long the claim has been waiting for the database to say something. It may be called at any time,
// as Working and Abort may.
func (c *Claim) Waiting() time.Duration { return c.line.waiting() }

// Working asks the database, over another connection, whether it is at work for the claim, if only by waiting for a lock. When
// it is not, and the claim is waiting, what was said between them has gone astray. A database that answers but tells nothing is
// taken to be at work.
func (c *Claim) Working(ctx context.Context) (working bool, err error) {
	err = c.store.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2 AND state = 'active')",
		c.conn.PgConn().PID(), c.conn.Config().RuntimeParams["application_name"]).Scan(&working)
	if code(err) != "" {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking what the database does: %w", err)
	}
	return working, nil
}

// Abort breaks the connection, so that what waits for the database fails.
func (c *Claim) Abort() { c.line.Close() }

// Tx is one transaction of a claim: rows, dead letters, alert transitions, the ledger and the new offset, all or nothing.
type Tx struct {
	claim   *Claim
	letters []letter
	used    bool // the savepoint that Write goes back to is not where the last write ended
}

// Begin looks up what the rows of events need, and opens a transaction that must account for each of them.
func (c *Claim) Begin(ctx context.Context, events []telemetry.Event) (*Tx, error) {
	for {
		if err := c.prepare(ctx, events); err != nil {
			return nil, fmt.Errorf("preparing to write: %w", err)
		}
		c.ledger.begin(c, events)
		revision, err := c.begin(ctx)
		if err != nil {
			return nil, fmt.Errorf("beginning a transaction: %w", err)
		}
		if revision == c.revision {
			return &Tx{claim: c}, nil
		}
		c.Forget() // some of the devices may be gone
		if err := c.exec(ctx, "ROLLBACK"); err != nil {
			return nil, fmt.Errorf("beginning a transaction: %w", err)
		}
	}
}

// lockDelete keeps workers' transactions apart from the deletion of devices, see migration 0006, and from the renaming of
// parameters.
const lockDelete = 0x6e737278

// begin opens a transaction during which no deletion of a device commits, and returns the registry's revision in it.
func (c *Claim) begin(ctx context.Context) (revision string, err error) {
	results, err := c.conn.PgConn().Exec(ctx, fmt.Sprintf("BEGIN; SELECT pg_advisory_xact_lock_shared(%d); SELECT revision FROM registry_state; SAVEPOINT write", lockDelete)).ReadAll()
	if err != nil {
		return "", err
	}
	return string(results[2].Rows[0][0]), nil
}

// Write stores events, in their order. On a *telemetry.RejectedError none of them is stored and the transaction goes on.
func (t *Tx) Write(ctx context.Context, events []telemetry.Event) error {
	c := t.claim
	if t.used {
		if err := c.exec(ctx, "RELEASE SAVEPOINT write; SAVEPOINT write"); err != nil {
			return fmt.Errorf("writing telemetry: %w", err)
		}
		t.used = false
	}
	err := c.write(ctx, events, false)
	if code(err) == uniqueViolation { // a row that was surely new is there, by other hands: look before writing
		if err := t.undo(ctx); err != nil {
			return err
		}
		err = c.write(ctx, events, true)
	}
	if err == nil {
		t.used = true
		c.ledger.keep()
		return nil
	}
	if rejected := asRejected(err); rejected != nil {
		if err := t.undo(ctx); err != nil {
			return err
		}
		return rejected
	}
	if code(err) == undefinedTable { // retention dropped the day's partition
		c.store.days.forget()
	}
	return fmt.Errorf("writing telemetry: %w", err)
}

// undo takes back what the write at hand did, in the database and here.
func (t *Tx) undo(ctx context.Context) error {
	for _, r := range t.claim.raised {
		r.device.high = r.high
	}
	if err := t.claim.exec(ctx, "ROLLBACK TO SAVEPOINT write"); err != nil {
		return fmt.Errorf("writing telemetry: %w", err)
	}
	return nil
}

// Commit moves the offsets, adds what became of the transaction's events to the ledger, and commits. lost is how many
// events the queue should have held since the last offsets and did not. The tally is of this transaction. Events that the
// database's own counts leave out are an ErrUnbalanced.
func (t *Tx) Commit(ctx context.Context, to [telemetry.Lanes]telemetry.Offset, lost uint64) (telemetry.Tally, error) {
	c := t.claim
	if err := t.writeLetters(ctx); err != nil {
		return telemetry.Tally{}, err
	}
	if lost > 0 {
		a := c.ledger.account(nil, telemetry.MicrosOf(time.Now()))
		a.Accepted += int64(lost)
		a.Lost += int64(lost)
	}
	failpoint.Hit("store.rows-written")
	tally, err := t.move(ctx, to)
	if err != nil {
		return tally, err
	}
	failpoint.Hit("store.offset-moved")
	if err := c.exec(ctx, "COMMIT"); err != nil {
		return tally, fmt.Errorf("committing: %w", err)
	}
	failpoint.Hit("store.committed")
	c.stored = to
	return tally, nil
}

func (c *Claim) exec(ctx context.Context, sql string) error {
	_, err := c.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// SQLSTATEs that the write path tells apart (PostgreSQL documentation, appendix A).
const (
	uniqueViolation = "23505"
	undefinedTable  = "42P01"
	undefinedColumn = "42703"
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
