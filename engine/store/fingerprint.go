package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// fingerprint is what the managed rows of the registry hash to, whatever their order: a count and a sum of 64-bit hashes for
// each table. It has the order of columns and their text in it: after a migration or in another session it may differ without a cause.
func fingerprint(ctx context.Context, tx pgx.Tx) (text string, err error) {
	parts := make([]string, len(tables))
	for i, t := range tables {
		parts[i] = `(SELECT count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM ` + t.name + ` t WHERE managed)`
	}
	if err := tx.QueryRow(ctx, `SELECT concat_ws(' ', `+strings.Join(parts, ", ")+`)`).Scan(&text); err != nil {
		return "", fmt.Errorf("comparing the registry with its last version: %w", err)
	}
	return text, nil
}

// Untouched reports whether the managed part of the registry is certainly as the last version left it, by whatever means it could
// have been changed.
func (s *Store) Untouched(ctx context.Context) (untouched bool, err error) {
	err = s.history(ctx, func(tx pgx.Tx) error {
		last, err := readLastVersion(ctx, tx)
		if err != nil || last.fingerprint == "" {
			return err
		}
		now, err := fingerprint(ctx, tx)
		untouched = now == last.fingerprint
		return err
	})
	return untouched, err
}
