package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nsready/nsready/migrations"
)

// lockMigrate serialises migrations: "nsrm".
const lockMigrate = 0x6e73726d

// migration is one file of package migrations.
type migration struct {
	version  int
	name     string // 0001_registry.sql
	checksum string // SHA-256, hex
	sql      string
}

// Migrate brings the schema to the newest version this program knows: each file once, in order, in a transaction of its own.
// Programs that start together wait for one another. A database that is newer, or whose migrations were edited after they
// ran, is refused and left as it is.
func (s *Store) Migrate(ctx context.Context) error {
	known, err := readMigrations(migrations.Files)
	if err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	return s.migrate(ctx, known)
}

func (s *Store) migrate(ctx context.Context, known []migration) (err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockMigrate); err != nil {
		return fmt.Errorf("migrating the database: waiting for another migration: %w", err)
	}
	defer func() {
		// A connection that keeps the lock must not go back to the pool.
		if _, e := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockMigrate); e != nil {
			err = errors.Join(err, conn.Conn().Close(context.WithoutCancel(ctx)))
		}
	}()
	applied, err := appliedMigrations(ctx, conn.Conn())
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	if err := checkApplied(known, applied); err != nil {
		return err
	}
	if len(applied) == 0 {
		if err := createExtensions(ctx, conn.Conn()); err != nil {
			return err
		}
	}
	for _, m := range known[len(applied):] {
		if err := m.run(ctx, conn.Conn()); err != nil {
			return fmt.Errorf("migrating the database: %s: %w", m.name, err)
		}
	}
	if err := s.look(ctx, conn); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// schemaError explains the lack of a table or column: with ErrNoSchema when the database was never migrated, else with an
// *UnreadableError.
func (s *Store) schemaError(ctx context.Context, err error) error {
	var lack *pgconn.PgError
	if !errors.As(err, &lack) || lack.Code != undefinedTable && lack.Code != undefinedColumn {
		return err
	}
	newest, known, e := s.schemaVersions(ctx)
	switch {
	case errors.Is(e, ErrNoSchema):
		return ErrNoSchema
	case e != nil:
		return errors.Join(err, e)
	case newest < known:
		return outdated(newest, known)
	case newest > known:
		return &UnreadableError{Reason: fmt.Sprintf("%s: the database's schema is newer than this program (migration %04d, this program knows up to %04d): "+
			"use the newer nsready", lack.Message, newest, known)}
	}
	return &UnreadableError{Reason: lack.Message + ": somebody changed the schema, which must be put back"}
}

// checkSchema refuses a schema that is older than this program: what writes would find that out only in the end.
func (s *Store) checkSchema(ctx context.Context) error {
	newest, known, err := s.schemaVersions(ctx)
	if err == nil && newest < known {
		return outdated(newest, known)
	}
	return err
}

// schemaVersions returns the newest migration of the database, and of this program. A database that was never migrated
// yields ErrNoSchema.
func (s *Store) schemaVersions(ctx context.Context) (newest, known int, err error) {
	list, err := readMigrations(migrations.Files)
	if err != nil {
		return 0, 0, fmt.Errorf("reading migrations: %w", err)
	}
	var exists bool
	err = s.pool.QueryRow(ctx, `SELECT to_regclass('schema_migrations') IS NOT NULL`).Scan(&exists)
	if err == nil && !exists {
		return 0, len(list), ErrNoSchema
	}
	if err == nil {
		err = s.pool.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM schema_migrations`).Scan(&newest)
	}
	if err != nil {
		return 0, len(list), fmt.Errorf("reading the version of the schema: %w", err)
	}
	return newest, len(list), nil
}

func outdated(newest, known int) error {
	return &UnreadableError{Outdated: true, Reason: fmt.Sprintf("the database's schema is older than this program (migration %04d, of %04d): "+
		"the service of this version brings it up to date when it starts", newest, known)}
}

func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var list []migration
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || len(number) != 4 || version != len(list)+1 {
			return nil, fmt.Errorf("%s: want a name that starts with %04d_", name, len(list)+1)
		}
		sql, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(sql)
		list = append(list, migration{version, path.Base(name), hex.EncodeToString(sum[:]), string(sql)})
	}
	return list, nil
}

// appliedMigrations lists what ran on this database, in order of version.
func appliedMigrations(ctx context.Context, conn *pgx.Conn) ([]migration, error) {
	const table = `CREATE TABLE IF NOT EXISTS schema_migrations (
		version    integer PRIMARY KEY,
		name       text NOT NULL,
		checksum   text NOT NULL,
		applied_at timestamptz NOT NULL DEFAULT now())`
	var exists bool // asked first: CREATE IF NOT EXISTS needs the right to create even when there is nothing to do
	err := conn.QueryRow(ctx, `SELECT to_regclass('schema_migrations') IS NOT NULL`).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, table)
	}
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT version, name, checksum FROM schema_migrations ORDER BY version`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m migration, err error) {
		err = row.Scan(&m.version, &m.name, &m.checksum)
		return m, err
	})
}

// checkApplied refuses a database whose history isn't a beginning of known.
func checkApplied(known, applied []migration) error {
	for i, m := range applied {
		switch {
		case m.version > len(known):
			return fmt.Errorf("the database is newer than this program: it has migration %s, this program knows up to %04d: "+
				"use the newer nsready, or restore a backup from before the upgrade", m.name, len(known))
		case m.version != i+1:
			return fmt.Errorf("the database has migration %s but not %s: its table schema_migrations was edited, restore it from a backup",
				m.name, known[i].name)
		case m.checksum != known[i].checksum:
			return fmt.Errorf("migration %s is not the one that ran on this database (checksum %.12s, was %.12s): "+
				"a migration never changes once it ran; use the nsready that migrated it, and put the change into a new file",
				known[i].name, known[i].checksum, m.checksum)
		}
	}
	return nil
}

// createExtensions creates what the first migration and the original platform's scripts use, where the server has it.
func createExtensions(ctx context.Context, conn *pgx.Conn) error {
	const wanted = `SELECT name FROM pg_available_extensions
		WHERE installed_version IS NULL AND (name = 'uuid-ossp' OR name = 'timescaledb' AND ` + timescaleLoaded + `)
		ORDER BY name`
	rows, err := conn.Query(ctx, wanted)
	if err != nil {
		return fmt.Errorf("migrating the database: listing extensions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("migrating the database: listing extensions: %w", err)
	}
	for _, name := range names {
		create := `CREATE EXTENSION IF NOT EXISTS ` + pgx.Identifier{name}.Sanitize()
		if _, err := conn.Exec(ctx, create); err != nil {
			return fmt.Errorf("migrating the database: %s: %w (a superuser of the database may run it beforehand)", create, err)
		}
	}
	return nil
}

const duplicateTable = "42P07" // SQLSTATE

// run executes the file and records it, or does neither.
func (m *migration) run(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			if code(err) == duplicateTable && m.version == 1 {
				return fmt.Errorf("%w: this database holds tables that nsready did not make; give it an empty one", err)
			}
			var refused *pgconn.PgError
			if errors.As(err, &refused) && refused.Position > 0 {
				before := []rune(m.sql)[:refused.Position-1]
				return fmt.Errorf("line %d: %w", 1+strings.Count(string(before), "\n"), err)
			}
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)`, m.version, m.name, m.checksum)
		return err
	})
}
