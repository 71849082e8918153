package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease is how long a process that runs workers may be silent before others take its partitions over.
const Lease = 5 * time.Second

// Member is a process that runs workers. Its name is unique among those that run; a process that starts under the name of
// one that is gone takes its partitions over at once.
type Member struct {
	name, session string
}

// NewMember returns a member of that name.
func NewMember(name string) Member { return Member{name, rand.Text()} }

// application is the application_name of the member's claims, by which others know who holds a partition. PostgreSQL
// allows 63 bytes.
func (m Member) application() string { return "nsready worker " + m.session }

// ErrNameTaken says that another process runs workers under this one's name.
var ErrNameTaken = errors.New("another process has taken the name")

// Join puts the member on the list of those alive, in place of one of the same name, which is taken to be gone.
func (s *Store) Join(ctx context.Context, m Member) error {
	_, err := s.pool.Exec(ctx, "INSERT INTO workers (name, session) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET session = $2, started_at = now(), seen_at = now()", m.name, m.session)
	if err != nil {
		return fmt.Errorf("putting worker %s on the list: %w", m.name, err)
	}
	return nil
}

// Beat says that a member that has joined is alive, and returns the names of all that are, its own too, those first that
// started first. It is ErrNameTaken when another has joined under its name.
func (s *Store) Beat(ctx context.Context, m Member) ([]string, error) {
	rows, err := s.pool.Query(ctx, `WITH mine AS (
			INSERT INTO workers AS w (name, session) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET seen_at = now(), session = $2
			WHERE w.session = $2 OR abs(extract(epoch FROM now() - w.seen_at)) > $3
			RETURNING name, started_at),
		gone AS (DELETE FROM workers WHERE abs(extract(epoch FROM now() - seen_at)) > 10 * $3 AND name <> $1)
		SELECT name FROM (SELECT * FROM mine UNION ALL
			SELECT name, started_at FROM workers WHERE name <> $1 AND abs(extract(epoch FROM now() - seen_at)) < $3) x
		ORDER BY started_at, name`, m.name, m.session, Lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("saying that worker %s is alive: %w", m.name, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("saying that worker %s is alive: %w", m.name, err)
	}
	if !slices.Contains(names, m.name) {
		return nil, fmt.Errorf("worker %s: %w", m.name, ErrNameTaken)
	}
	return names, nil
}

// Leave says that the member runs no workers any more.
func (s *Store) Leave(ctx context.Context, m Member) error {
	if _, err := s.pool.Exec(ctx, "DELETE FROM workers WHERE name = $1 AND session = $2", m.name, m.session); err != nil {
		return fmt.Errorf("taking worker %s off the list: %w", m.name, err)
	}
	return nil
}
