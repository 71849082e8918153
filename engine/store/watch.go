package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	registryChannel = "nsready_registry"
	watchProbe      = time.Second      // of silence, after which it is asked whether that is peace
	watchAnswer     = 10 * time.Second // how long a probe may take
)

// WatchRegistry calls changed once as soon as it listens, and again whenever a change to the registry has committed,
// whoever made it; changes that commit together may share a call. It also calls it after each second of silence: a pooler
// between here and the database may keep notices to itself. It blocks on a connection of its own until ctx ends or
// that connection or changed fails, and returns why. The caller starts it again, and then misses nothing because of the
// first call.
func (s *Store) WatchRegistry(ctx context.Context, changed func() error) error {
	conn, _, err := s.connect(ctx, map[string]string{"application_name": "nsready watch"})
	if err != nil {
		return fmt.Errorf("watching the registry: %w", err)
	}
	defer func() {
		// Nothing was being written: that the server did not hear us leave is no failure.
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(bye)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+registryChannel); err != nil {
		return fmt.Errorf("watching the registry: %w", err)
	}
	if err := changed(); err != nil {
		return err
	}
	for {
		quiet, cancel := context.WithTimeout(ctx, watchProbe)
		_, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			if err := changed(); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return fmt.Errorf("watching the registry: %w", context.Cause(ctx))
		case pgconn.Timeout(err):
			// A server that vanished without a word looks just like one with nothing to say.
			probe, cancel := context.WithTimeout(ctx, watchAnswer)
			err := conn.Ping(probe)
			cancel()
			if err != nil {
				return fmt.Errorf("watching the registry: the database stopped answering: %w", err)
			}
			if err := changed(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("watching the registry: %w", err)
		}
	}
}

const registryHead = `SELECT revision, (SELECT coalesce(max(version), 0)::bigint FROM registry_versions WHERE project_id IS NULL)
	FROM registry_state`

func errNoState() error {
	return &UnreadableError{Table: "registry_state", Reason: "its row is missing, as after a TRUNCATE; INSERT INTO registry_state (revision) VALUES (N) puts it back, " +
		"with an N larger than any before"}
}

// Revision returns the registry's revision, which counts every change to it, and the version of its last apply.
// A registry that does not tell is an *UnreadableError.
func (s *Store) Revision(ctx context.Context) (revision, version int64, err error) {
	err = s.pool.QueryRow(ctx, registryHead).Scan(&revision, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoState()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("reading the registry's revision: %w", s.schemaError(ctx, err))
	}
	return revision, version, nil
}
