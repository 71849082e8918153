// Package store keeps the registry and the telemetry in PostgreSQL, with TimescaleDB where it is installed.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"
)

const (
	connectTimeout = 5 * time.Second  // for one attempt to reach the server, where the URL doesn't say connect_timeout
	closeTimeout   = 5 * time.Second  // for taking leave of a server
	silenceTimeout = 10 * time.Second // after which a server's machine that acknowledges nothing counts as gone
)

// Store is one database. It is safe for concurrent use.
type Store struct {
	url  string
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
	c.DialFunc = dial
	s := &Store{url: url}
	config.BeforeConnect = s.renewPassword
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database at %s: %w", place(c), err)
	}
	s.pool = pool
	if err := s.look(ctx, pool); err != nil {
		pool.Close()
		return nil, connectError(c, err)
	}
	return s, nil
}

// MayPass reports whether an error of the database may be gone later without a change here: the server is away, is being
// restarted, has no room, is read-only, or refuses a password that somebody is about to change.
func MayPass(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code[:2] {
		case "08", "28", "3D", "40", "53", "55", "57", "58":
			return true
		}
		return refused.Code == "25006" // read-only
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) || errors.Is(err, io.ErrUnexpectedEOF)
}

// dial connects so that the loss of the other machine, or of the way to it, ends the connection.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silenceTimeout / 2, Interval: silenceTimeout / 5, Count: 3}}
	if strings.HasPrefix(network, "tcp") {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceTimeout.Milliseconds()))
			}), err)
		}
	}
	return d.DialContext(ctx, network, address)
}

// renewPassword takes the password as it is now: a password file, or a service file, may have changed since the start.
func (s *Store) renewPassword(_ context.Context, c *pgx.ConnConfig) error {
	now, err := pgx.ParseConfig(s.url)
	if err != nil {
		return parseError(s.url, err)
	}
	c.Password = now.Password
	return nil
}

// connect makes a connection outside of the pool, with run-time parameters beside those of the pool's.
func (s *Store) connect(ctx context.Context, parameters map[string]string) (*pgx.Conn, *line, error) {
	config := s.pool.Config().ConnConfig
	maps.Copy(config.RuntimeParams, parameters)
	if err := s.renewPassword(ctx, config); err != nil {
		return nil, nil, err
	}
	var newest atomic.Pointer[line] // pgx also dials to cancel, which may outlive a failed attempt
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l := &line{Conn: c}
		newest.Store(l)
		return l, nil
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	return conn, newest.Load(), err
}

// line is a connection that knows whether the other side is due to say something.
type line struct {
	net.Conn
	asked atomic.Int64 // when something was last written that nothing was read after, in Unix nanoseconds; 0 for never
}

func (l *line) Write(p []byte) (int, error) {
	l.asked.Store(time.Now().UnixNano())
	return l.Conn.Write(p)
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.asked.Store(0)
	}
	return n, err
}

// waiting returns for how long the other side has said nothing since it was last asked.
func (l *line) waiting() time.Duration {
	asked := l.asked.Load()
	if asked == 0 {
		return 0
	}
	return time.Since(time.Unix(0, asked))
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

// ErrMalformedURL says that a database URL cannot be read.
var ErrMalformedURL = errors.New("the database URL is malformed")

// parseError says why a database URL is malformed. The parser's own reason may quote any part of the text, so it is
// repeated only when the password is known, and without it.
func parseError(text string, err error) error {
	const want = "want postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for special characters in the password"
	u, urlErr := url.Parse(text)
	reason := errors.Unwrap(err)
	if urlErr != nil || u.User == nil || reason == nil {
		return fmt.Errorf("%w: %s", ErrMalformedURL, want)
	}
	safe := reason.Error()
	if password, ok := u.User.Password(); ok && password != "" {
		safe = strings.ReplaceAll(safe, password, "xxxxx")
	}
	if u.Query().Has("password") {
		return fmt.Errorf("%w: %s", ErrMalformedURL, want)
	}
	return fmt.Errorf("%w: %s: %s", ErrMalformedURL, safe, want)
}
