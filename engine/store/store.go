// Package store keeps the registry and the telemetry in PostgreSQL, with TimescaleDB where it is installed.
package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout = 10 * time.Second // for one attempt to reach the server, where the URL doesn't say connect_timeout
	closeTimeout   = 5 * time.Second  // for taking leave of a server
)

// Store is one database. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	days days
}

// Open connects to the database at url, a PostgreSQL URL or keyword string, and uses it once. The error says at which
// host, port and database what failed; it never holds the password.
func Open(ctx context.Context, url string) (*Store, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, parseError(url, err)
	}
	c := config.ConnConfig
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "nsready"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database at %s: %w", place(c), err)
	}
	s := &Store{pool: pool}
	if err := s.look(ctx, pool); err != nil {
		pool.Close()
		return nil, connectError(c, err)
	}
	return s, nil
}

// timescaleLoaded is an SQL condition: the server loaded TimescaleDB at its start, without which it does not work. Its
// settings show that without privileges; those that a configuration only names are not listed.
const timescaleLoaded = `EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%')`

// errTimescaleMissing says that telemetry is out of reach; native tables would still show some of it.
var errTimescaleMissing = errors.New("it holds a TimescaleDB extension, and its server did not load TimescaleDB: " +
	"install the extension for this server's version of PostgreSQL, with timescaledb in shared_preload_libraries, and start the server again")

// look finds out whether telemetry is a hypertable, which is an ordinary table, or partitioned natively.
func (s *Store) look(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) error {
	var missing bool
	err := db.QueryRow(ctx, `SELECT coalesce((SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('telemetry')), false),
		EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') AND NOT `+timescaleLoaded).
		Scan(&s.days.hypertable, &missing)
	if err == nil && missing {
		err = errTimescaleMissing
	}
	return err
}

// Close waits for what is running and closes all connections.
func (s *Store) Close() { s.pool.Close() }

// place is host:port/database, of a Unix socket its directory and port.
func place(c *pgx.ConnConfig) string {
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
}

// connectError replaces pgx's own text, which repeats the place and each attempt.
func connectError(c *pgx.ConnConfig, err error) error {
	cause := err
	var refused *pgconn.PgError
	var op *net.OpError
	switch {
	case errors.As(err, &refused):
		cause = refused
	case errors.As(err, &op):
		cause = op.Err
	default:
		var ce *pgconn.ConnectError
		if errors.As(err, &ce) {
			cause = ce.Unwrap()
		}
	}
	return fmt.Errorf("connecting to the database at %s as user %q: %w", place(c), c.User, cause)
}

// parseError says why a database URL is malformed. The parser's own reason may quote any part of the text, so it is
// repeated only when the password is known, and without it.
func parseError(text string, err error) error {
	const want = "want postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for special characters in the password"
	u, urlErr := url.Parse(text)
	reason := errors.Unwrap(err)
	if urlErr != nil || u.User == nil || reason == nil {
		return errors.New("the database URL is malformed: " + want)
	}
	safe := reason.Error()
	if password, ok := u.User.Password(); ok && password != "" {
		safe = strings.ReplaceAll(safe, password, "xxxxx")
	}
	if u.Query().Has("password") {
		return errors.New("the database URL is malformed: " + want)
	}
	return fmt.Errorf("the database URL is malformed: %s: %s", safe, want)
}
