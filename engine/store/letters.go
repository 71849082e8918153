package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// LetterFilter says which dead letters are meant; a zero field asks for nothing.
type LetterFilter struct {
	Reason   string
	Device   string // UUID, or customer/project/site/device, or, of a held event, its external id
	Customer string // name
	Since    time.Time
	Until    time.Time // excluded
	FirstID  int64
	LastID   int64
}

// Letter is a dead letter. An event that the database would not even take as a dead letter is {"base64": …}, which
// encodes its JSON; a frame that could not be read is {"frame": …}, which encodes its bytes.
type Letter struct {
	ID        int64           `json:"id"`
	CreatedAt time.Time       `json:"created_at"`
	DeviceID  *uuid.UUID      `json:"device_id"`         // null for a whole frame
	Device    string          `json:"device"`            // customer/project/site/device; "" when the registry does not know it
	Pending   string          `json:"pending,omitempty"` // what an event that was held called its device: a UUID or an external id
	Reason    string          `json:"reason"`            // an SQLSTATE, unknown_device, pending_device, frame, or the code of a refusal
	Message   string          `json:"message"`
	Epoch     string          `json:"epoch"` // of the queue, and where in it the event was
	Partition int             `json:"partition"`
	Seq       int64           `json:"seq"`
	Index     int             `json:"index"` // in the frame, from 0
	Event     json.RawMessage `json:"event"`

	ProjectID, SiteID uuid.UUID `json:"-"` // of the device, now
}

// ErrNoLetter says that there is no dead letter with an id.
var ErrNoLetter = errors.New("there is no such dead letter")

const letterTables = ` FROM dead_letters l LEFT JOIN devices d ON d.id = l.device_id LEFT JOIN sites s ON s.id = d.site_id
	LEFT JOIN projects p ON p.id = s.project_id LEFT JOIN customers c ON c.id = p.customer_id`

// where returns the filter as a condition on letterTables, and its parameters.
func (f LetterFilter) where() (string, []any) {
	const condition = ` WHERE ($1 = '' OR l.reason = $1) AND ($2 = '' OR l.device_id::text = lower($2) OR concat_ws('/', c.name, p.name, s.name, d.name) = $2 OR l.pending = $2)
		AND ($3 = '' OR c.name = $3) AND ($4::timestamptz IS NULL OR l.created_at >= $4) AND ($5::timestamptz IS NULL OR l.created_at < $5)
		AND l.id >= $6 AND ($7 = 0 OR l.id <= $7)`
	moment := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t
	}
	return condition, []any{f.Reason, f.Device, f.Customer, moment(f.Since), moment(f.Until), f.FirstID, f.LastID}
}

// Letters returns up to limit dead letters, in the order of their ids, or the newest first.
func (s *Store) Letters(ctx context.Context, f LetterFilter, newest bool, limit int) ([]Letter, error) {
	where, args := f.where()
	order := " ORDER BY l.id"
	if newest {
		order += " DESC"
	}
	none := uuid.Nil.String()
	rows, err := s.pool.Query(ctx, `SELECT l.id, l.created_at, l.device_id, concat_ws('/', c.name, p.name, s.name, d.name), coalesce(l.pending, ''), l.reason, l.message, l.epoch, l.partition,
		l.seq, l.event_index, l.event, coalesce(p.id, '`+none+`'), coalesce(s.id, '`+none+`')`+letterTables+where+order+` LIMIT $8`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("reading the dead letters: %w", s.schemaError(ctx, err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Letter, err error) {
		err = row.Scan(&l.ID, &l.CreatedAt, &l.DeviceID, &l.Device, &l.Pending, &l.Reason, &l.Message, &l.Epoch, &l.Partition, &l.Seq, &l.Index, &l.Event, &l.ProjectID, &l.SiteID)
		l.CreatedAt = l.CreatedAt.UTC()
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the dead letters: %w", s.schemaError(ctx, err))
	}
	return list, nil
}

// Letter returns one dead letter, or ErrNoLetter.
func (s *Store) Letter(ctx context.Context, id int64) (Letter, error) {
	list, err := s.Letters(ctx, LetterFilter{FirstID: id, LastID: id}, false, 1)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("dead letter %d: %w", id, ErrNoLetter)
	}
	if err != nil {
		return Letter{}, err
	}
	return list[0], nil
}

// CountLetters returns how many dead letters there are, and the newest one's id.
func (s *Store) CountLetters(ctx context.Context, f LetterFilter) (n, newest int64, err error) {
	where, args := f.where()
	if err := s.pool.QueryRow(ctx, "SELECT count(*), coalesce(max(l.id), 0)"+letterTables+where, args...).Scan(&n, &newest); err != nil {
		return 0, 0, fmt.Errorf("counting the dead letters: %w", s.schemaError(ctx, err))
	}
	return n, newest, nil
}

// DeleteLetters deletes dead letters by their ids and returns how many there were.
func (s *Store) DeleteLetters(ctx context.Context, ids []int64) (int64, error) {
	tag, err := s.pool.Exec(ctx, "DELETE FROM dead_letters WHERE id = ANY ($1)", ids)
	if err != nil {
		return 0, fmt.Errorf("deleting dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}

// PurgeLetters deletes up to limit dead letters, the oldest first, and returns how many there were. What was their events'
// content is gone.
func (s *Store) PurgeLetters(ctx context.Context, f LetterFilter, limit int64) (int64, error) {
	where, args := f.where()
	tag, err := s.pool.Exec(ctx, "DELETE FROM dead_letters WHERE id IN (SELECT l.id"+letterTables+where+" ORDER BY l.id LIMIT $8)", append(args, limit)...)
	if err != nil {
		return 0, fmt.Errorf("deleting dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}
