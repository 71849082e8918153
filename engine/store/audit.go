package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
)

// Touch is the newest change to an object that was no part of an apply.
type Touch struct {
	At  time.Time `json:"at"`
	Who string    `json:"who"`           // the database's role
	Via string    `json:"via,omitempty"` // the name and address that its connection gave, such as "psql from 10.0.0.7"
	Op  string    `json:"op"`            // insert, update, delete or truncate

	number   int64 // counts changes
	inserted bool  // by this change or one before it
}

// Audit says who changed objects by other means than an apply. The zero Audit knows of nobody.
type Audit struct{ touches map[touchKey]Touch }

type touchKey struct {
	kind registry.Kind
	id   string // as objectID returns it; "" for the whole table
}

// Audit reads what was changed by hand after a revision of the registry.
func (s *Store) Audit(ctx context.Context, revision int64) (Audit, error) {
	a := Audit{map[touchKey]Touch{}}
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT ON (kind, object_id) kind, coalesce(object_id, ''), at, who, via, op, id,
		bool_or(op = 'insert') OVER (PARTITION BY kind, object_id) FROM registry_audit WHERE revision > $1 ORDER BY kind, object_id, id DESC`, revision)
	if err != nil {
		return a, fmt.Errorf("reading who changed the registry: %w", err)
	}
	var key touchKey
	var t Touch
	_, err = pgx.ForEachRow(rows, []any{&key.kind, &key.id, &t.At, &t.Who, &t.Via, &t.Op, &t.number, &t.inserted}, func() error {
		t.At = t.At.UTC()
		a.touches[key] = t
		return nil
	})
	if err != nil {
		return a, fmt.Errorf("reading who changed the registry: %w", err)
	}
	return a, nil
}

// Of returns the newest change to an object, or nil when there is none.
func (a Audit) Of(o registry.Object) *Touch {
	kind := o.Address().Kind
	t, ok := a.touches[touchKey{kind, objectID(o)}]
	if table, truncated := a.touches[touchKey{kind, ""}]; truncated && (!ok || table.number > t.number) {
		t, ok = table, true
	}
	if !ok {
		return nil
	}
	return &t
}

// Made reports whether an object was made by hand.
func (a Audit) Made(o registry.Object) bool {
	return a.touches[touchKey{o.Address().Kind, objectID(o)}].inserted
}

// TrimAudit forgets who changed what longer ago than age, and returns how many changes that were.
func (s *Store) TrimAudit(ctx context.Context, age time.Duration) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM registry_audit WHERE at < now() - make_interval(secs => $1)`, age.Seconds())
	if err != nil {
		return 0, fmt.Errorf("trimming the audit of the registry: %w", err)
	}
	return tag.RowsAffected(), nil
}
