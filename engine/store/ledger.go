package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// ErrUnbalanced says that what the database did with the events of a transaction does not add up to those given to it.
// The transaction is rolled back.
var ErrUnbalanced = errors.New("the ledger does not balance")

// ledger counts the events of a claim's transaction, for the rows that its commit adds to the table of this name.
type ledger struct {
	transaction uint64
	accounts    map[accountKey]*account
	trying      []*account // those of the write at hand
	strangers   bool       // some of the transaction's devices are unknown
}

type accountKey struct {
	customer uuid.UUID // zero when it is not known
	hour     int64     // of receipt, since the Unix epoch
}

// account is one row of the ledger in the making.
type account struct {
	accountKey
	telemetry.Tally
	write uint64          // the write that try belongs to
	try   telemetry.Tally // of a write that may yet be rolled back
}

const microsPerHour = 60 * 60 * 1_000_000

// begin counts the events that a transaction is given.
func (l *ledger) begin(c *Claim, events []telemetry.Event) {
	if l.accounts == nil {
		l.accounts = map[accountKey]*account{}
	}
	clear(l.accounts)
	l.transaction++
	l.strangers = false
	for i := range events {
		d := c.devices[events[i].Device]
		l.strangers = l.strangers || d == nil
		l.account(d, events[i].ReceivedAt).Accepted++
	}
}

// account returns the account of a device, nil when it is unknown, for what was received at a time.
func (l *ledger) account(d *device, received telemetry.Micros) *account {
	hour := int64(received) / microsPerHour
	if d == nil {
		return l.find(accountKey{hour: hour})
	}
	if d.account == nil || d.transaction != l.transaction || d.account.hour != hour {
		d.account, d.transaction = l.find(accountKey{d.customer, hour}), l.transaction
	}
	return d.account
}

func (l *ledger) find(k accountKey) *account {
	a := l.accounts[k]
	if a == nil {
		a = &account{accountKey: k}
		l.accounts[k] = a
	}
	return a
}

// try returns what to count an event of a write in, which keep makes final.
func (l *ledger) try(write uint64, d *device, received telemetry.Micros) *telemetry.Tally {
	a := l.account(d, received)
	if a.write != write {
		a.write, a.try = write, telemetry.Tally{}
		l.trying = append(l.trying, a)
	}
	return &a.try
}

// tried returns what the write at hand has counted.
func (l *ledger) tried() (sum telemetry.Tally) {
	for _, a := range l.trying {
		sum.Add(a.try)
	}
	return sum
}

// keep makes the counts of the write at hand final.
func (l *ledger) keep() {
	for _, a := range l.trying {
		a.Add(a.try)
	}
	l.trying = l.trying[:0]
}

// move writes the ledger and moves the offsets, in one statement, and returns what was counted.
func (t *Tx) move(ctx context.Context, to [telemetry.Lanes]telemetry.Offset) (sum telemetry.Tally, err error) {
	c := t.claim
	var epochs []string
	var numbers []int
	var seqs, events, was []int64
	for lane, o := range to {
		if o != c.stored[lane] {
			epochs, numbers = append(epochs, c.streams[lane].Epoch), append(numbers, c.streams[lane].Number)
			seqs, events, was = append(seqs, int64(o.Seq)), append(events, int64(o.Events)), append(was, int64(c.stored[lane].Seq))
		}
	}
	var customers []uuid.UUID
	var hours []time.Time
	var columns [6][]int64
	for _, a := range c.ledger.accounts {
		if a.Imbalance() != 0 {
			return sum, fmt.Errorf("%w: of %d events of customer %s the database has stored %d, merged %d, found %d the same and taken %d as dead letters; %d were lost",
				ErrUnbalanced, a.Accepted, a.customer, a.Stored, a.Merged, a.Duplicate, a.Dead, a.Lost)
		}
		sum.Add(a.Tally)
		customers, hours = append(customers, a.customer), append(hours, telemetry.Micros(a.hour*microsPerHour).Time())
		for i, n := range []int64{a.Accepted, a.Stored, a.Merged, a.Duplicate, a.Dead, a.Lost} {
			columns[i] = append(columns[i], n)
		}
	}
	const move = `WITH moved AS (
			UPDATE partitions p SET seq = n.seq, events = n.events, updated_at = now()
			FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[]) n (epoch, id, seq, events, was)
			WHERE p.epoch = n.epoch AND p.id = n.id AND p.seq = n.was RETURNING 1),
		counted AS (
			INSERT INTO ledger AS l (partition, customer_id, hour, accepted, stored, merged, duplicate, dead, lost)
			SELECT $6, n.* FROM unnest($7::uuid[], $8::timestamptz[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) n
			WHERE (SELECT count(*) FROM moved) = cardinality($1::text[])
			ON CONFLICT (customer_id, hour, partition) DO UPDATE SET accepted = l.accepted + excluded.accepted, stored = l.stored + excluded.stored,
				merged = l.merged + excluded.merged, duplicate = l.duplicate + excluded.duplicate, dead = l.dead + excluded.dead, lost = l.lost + excluded.lost
			RETURNING 1)
		SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM counted)`
	var moved, counted int
	err = c.conn.QueryRow(ctx, move, epochs, numbers, seqs, events, was, c.streams[telemetry.Live].Number, customers, hours,
		columns[0], columns[1], columns[2], columns[3], columns[4], columns[5]).Scan(&moved, &counted)
	switch {
	case err != nil:
		return sum, fmt.Errorf("moving the offsets: %w", err)
	case moved != len(epochs):
		return sum, fmt.Errorf("moving the offsets from frames %d: %w", was, ErrFenced)
	case counted != len(customers):
		return sum, fmt.Errorf("%w: the database took %d of its %d rows", ErrUnbalanced, counted, len(customers))
	}
	return sum, nil
}

// ErrNoCustomer says that there is no customer of a name.
var ErrNoCustomer = errors.New("there is no such customer")

// LedgerEntry is what became of the events of a customer in an hour, or in all hours asked for.
type LedgerEntry struct {
	CustomerID uuid.UUID  `json:"customer_id"` // zero for events of devices that are not known
	Customer   string     `json:"customer"`    // "" when it is not known
	Hour       *time.Time `json:"hour,omitempty"`
	telemetry.Tally
}

// Ledger returns the ledger by customer and hour of receipt since a time, which counts from the begin of its hour, or by
// customer alone. customer is a name, else ErrNoCustomer; "" asks for all.
func (s *Store) Ledger(ctx context.Context, customer string, since time.Time, hourly bool) ([]LedgerEntry, error) {
	hour := "NULL::timestamptz"
	if hourly {
		hour = "l.hour"
	}
	rows, err := s.pool.Query(ctx, `SELECT l.customer_id, coalesce(c.name, ''), `+hour+`, sum(accepted)::bigint, sum(stored)::bigint,
			sum(merged)::bigint, sum(duplicate)::bigint, sum(dead)::bigint, sum(lost)::bigint
		FROM ledger l LEFT JOIN customers c ON c.id = l.customer_id
		WHERE l.hour >= date_trunc('hour', $1::timestamptz, 'UTC') AND ($2 = '' OR c.name = $2)
		GROUP BY 1, 2, 3 ORDER BY 3, 2, 1`, since, customer)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", s.schemaError(ctx, err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e LedgerEntry, err error) {
		err = row.Scan(&e.CustomerID, &e.Customer, &e.Hour, &e.Accepted, &e.Stored, &e.Merged, &e.Duplicate, &e.Dead, &e.Lost)
		if e.Hour != nil {
			*e.Hour = e.Hour.UTC()
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", s.schemaError(ctx, err))
	}
	if len(list) == 0 && customer != "" {
		var known bool
		if err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM customers WHERE name = $1)", customer).Scan(&known); err != nil {
			return nil, fmt.Errorf("reading the ledger: %w", s.schemaError(ctx, err))
		}
		if !known {
			return nil, fmt.Errorf("customer %q: %w", customer, ErrNoCustomer)
		}
	}
	return list, nil
}

// LedgerImbalance returns how many events the ledger does not account for, too few or too many, row by row.
func (s *Store) LedgerImbalance(ctx context.Context) (events int64, err error) {
	const sum = `SELECT coalesce(sum(abs(accepted - stored - merged - duplicate - dead - lost)), 0)::bigint FROM ledger
		WHERE accepted <> stored + merged + duplicate + dead + lost`
	if err := s.pool.QueryRow(ctx, sum).Scan(&events); err != nil {
		return 0, fmt.Errorf("adding the ledger up: %w", err)
	}
	return events, nil
}
