package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"github.com/nsready/nsready/engine/registry"
)

// Version is one apply, as the registry remembers it.
type Version struct {
	Version  int64     `json:"version"`
	At       time.Time `json:"at"`
	Author   string    `json:"author"`            // USER@HOST
	Commit   string    `json:"commit,omitempty"`  // of the declaration's repository, in hex
	Message  string    `json:"message,omitempty"` // what its author said of it
	Tool     string    `json:"tool,omitempty"`    // version of the program
	Checksum string    `json:"checksum"`          // of what was declared
	Revision int64     `json:"revision,omitempty"`

	Recorded  bool `json:"recorded"` // whether its changes are known; those from before nsready recorded them are not
	Imported  int  `json:"imported"`
	Moved     int  `json:"moved"`
	Created   int  `json:"created"`
	Updated   int  `json:"updated"`
	Destroyed int  `json:"destroyed"` // retired or purged
	Released  int  `json:"released"`
}

// ErrNoVersion says that the registry never had a version.
type ErrNoVersion struct{ Version, Newest int64 }

func (e *ErrNoVersion) Error() string {
	if e.Newest == 0 {
		return fmt.Sprintf("there is no version %d: nothing was applied yet", e.Version)
	}
	return fmt.Sprintf("there is no version %d: they go from 1 to %d", e.Version, e.Newest)
}

// ErrNotRecorded says that a version is from before nsready recorded what an apply changes. First is the first version
// that can be read back, 0 when there is none yet.
type ErrNotRecorded struct{ Version, First int64 }

func (e *ErrNotRecorded) Error() string {
	text := fmt.Sprintf("what version %d changed was not recorded: it is from before nsready did so", e.Version)
	if e.First == 0 {
		return text + "; the next apply begins with it"
	}
	return text + fmt.Sprintf("; versions can be read back from %d on", e.First)
}

const selectVersions = `SELECT v.version, v.created_at, coalesce(v.author, ''), coalesce(v.commit, ''), coalesce(v.message, ''), coalesce(v.tool, ''),
	v.checksum, coalesce(v.revision, 0), c.version_id IS NOT NULL, coalesce(c.imported, 0), coalesce(c.moved, 0),
	coalesce(c.created, 0), coalesce(c.updated, 0), coalesce(c.deleted, 0), coalesce(c.released, 0)
	FROM registry_versions v LEFT JOIN registry_changes c ON c.version_id = v.id WHERE v.project_id IS NULL AND v.version IS NOT NULL`

func scanVersion(row pgx.CollectableRow) (v Version, err error) {
	err = row.Scan(&v.Version, &v.At, &v.Author, &v.Commit, &v.Message, &v.Tool, &v.Checksum, &v.Revision, &v.Recorded,
		&v.Imported, &v.Moved, &v.Created, &v.Updated, &v.Destroyed, &v.Released)
	v.At = v.At.UTC()
	return v, err
}

// Versions returns the newest applies, the newest first, up to limit of them. A database without tables yields ErrNoSchema.
func (s *Store) Versions(ctx context.Context, limit int) ([]Version, error) {
	rows, err := s.pool.Query(ctx, selectVersions+` ORDER BY v.version DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the registry's history: %w", s.schemaError(ctx, err))
	}
	list, err := pgx.CollectRows(rows, scanVersion)
	if err != nil {
		return nil, fmt.Errorf("reading the registry's history: %w", s.schemaError(ctx, err))
	}
	return list, nil
}

// Changes returns a version, and what it changed: what its apply did, and what it found done by hand and declared alike. The
// errors are those of StateAt.
func (s *Store) Changes(ctx context.Context, version int64) (v Version, changes []registry.Change, err error) {
	err = s.history(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectVersions+` AND v.version = $1`, version)
		if err != nil {
			return err
		}
		v, err = pgx.CollectExactlyOneRow(rows, scanVersion)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !v.Recorded {
			return unreadable(ctx, tx, version)
		}
		if err != nil {
			return err
		}
		var text []byte
		err = tx.QueryRow(ctx, `SELECT c.changes FROM registry_changes c JOIN registry_versions v ON v.id = c.version_id
			WHERE v.project_id IS NULL AND v.version = $1`, version).Scan(&text)
		if err == nil {
			changes, err = decodeChanges(text)
		}
		return err
	})
	if err != nil {
		return Version{}, nil, fmt.Errorf("reading version %d: %w", version, err)
	}
	return v, changes, nil
}

// StateAt returns what a version left behind: the objects that it, or one before it, declared, without those that were
// retired or are not managed. Their Status, and the Ref of a device, say nothing. Version 0 is empty. The errors are an
// *ErrNoVersion and an *ErrNotRecorded; a database without tables yields ErrNoSchema.
func (s *Store) StateAt(ctx context.Context, version int64) (state *registry.Snapshot, err error) {
	err = s.history(ctx, func(tx pgx.Tx) error {
		state, err = stateAt(ctx, tx, version)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading version %d: %w", version, err)
	}
	return state, nil
}

// AdoptedSince returns what a declaration took over after a version, as far as that is recorded.
func (s *Store) AdoptedSince(ctx context.Context, version int64, owner string) (registry.Adoptions, error) {
	adopted := registry.NewAdoptions(owner)
	err := s.history(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT c.changes FROM registry_versions v JOIN registry_changes c ON c.version_id = v.id
			WHERE v.project_id IS NULL AND v.version > $1 ORDER BY v.version`, version)
		if err != nil {
			return err
		}
		var text []byte
		_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
			changes, err := decodeChanges(text)
			adopted.Add(changes)
			return err
		})
		return err
	})
	if err != nil {
		return adopted, fmt.Errorf("reading what was adopted since version %d: %w", version, err)
	}
	return adopted, nil
}

// history calls read in a transaction in which nothing moves.
func (s *Store) history(ctx context.Context, read func(pgx.Tx) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, read)
	return s.schemaError(ctx, err)
}

func stateAt(ctx context.Context, tx pgx.Tx, version int64) (*registry.Snapshot, error) {
	const steps = `SELECT v.version, CASE WHEN c.state IS NULL THEN c.changes END, c.state
		FROM registry_versions v LEFT JOIN registry_changes c ON c.version_id = v.id
		WHERE v.project_id IS NULL AND v.version <= $1 AND v.version >= coalesce((SELECT max(v.version)
			FROM registry_versions v JOIN registry_changes c ON c.version_id = v.id
			WHERE v.project_id IS NULL AND v.version <= $1 AND c.state IS NOT NULL), 1)
		ORDER BY v.version`
	rows, err := tx.Query(ctx, steps, version)
	if err != nil {
		return nil, err
	}
	state := registry.Fold{}
	var at int64
	var changes, whole []byte
	_, err = pgx.ForEachRow(rows, []any{&at, &changes, &whole}, func() error {
		text := changes
		if whole != nil {
			text = whole
		}
		if text == nil {
			return &ErrNotRecorded{Version: at}
		}
		list, err := decodeChanges(text)
		if err != nil {
			return fmt.Errorf("what is recorded of version %d: %w", at, err)
		}
		state.Add(list)
		return nil
	})
	var missing *ErrNotRecorded
	switch {
	case errors.As(err, &missing), err == nil && at != version:
		return nil, unreadable(ctx, tx, version)
	case err != nil:
		return nil, err
	}
	snapshot := state.Snapshot()
	snapshot.Version = version
	return snapshot, nil
}

// unreadable says why a version cannot be read back.
func unreadable(ctx context.Context, tx pgx.Tx, version int64) error {
	var there bool
	var newest, first int64
	err := tx.QueryRow(ctx, `SELECT coalesce(bool_or(v.version = $1), false), coalesce(max(v.version), 0)::bigint,
		coalesce(min(v.version) FILTER (WHERE c.version_id IS NOT NULL), 0)::bigint
		FROM registry_versions v LEFT JOIN registry_changes c ON c.version_id = v.id WHERE v.project_id IS NULL`, version).
		Scan(&there, &newest, &first)
	switch {
	case err != nil:
		return err
	case !there:
		return &ErrNoVersion{version, newest}
	}
	return &ErrNotRecorded{version, first}
}

// encodeChanges returns changes as registry_changes holds them. Their text is never in memory as a whole.
func encodeChanges(changes []registry.Change) ([]byte, error) {
	out := bytes.NewBuffer([]byte{}) // an empty list is no null
	z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	if err := registry.WriteChanges(z, changes); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decodeChanges(text []byte) ([]registry.Change, error) {
	z, err := zstd.NewReader(bytes.NewReader(text), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return registry.ReadChanges(z)
}

// lastVersion is what an apply must know of the one before it.
type lastVersion struct {
	id, version int64 // 0 when there is none
	settled     int64 // revision of the registry up to which nothing was changed by hand that it does not know of
	recorded    bool
	objects     int    // managed after it
	sinceState  int    // changes to read after the last state
	fingerprint string // of the registry after it; "" when that is not known
}

// readLastVersion reads it. When there is none it is version 0, which left nothing behind.
func readLastVersion(ctx context.Context, tx pgx.Tx) (last lastVersion, err error) {
	err = tx.QueryRow(ctx, `SELECT v.id, v.version, coalesce(c.settled, 0), c.version_id IS NOT NULL, coalesce(c.objects, 0), coalesce(c.since_state, 0), coalesce(c.fingerprint, '')
		FROM registry_versions v LEFT JOIN registry_changes c ON c.version_id = v.id
		WHERE v.project_id IS NULL AND v.version IS NOT NULL ORDER BY v.version DESC LIMIT 1`).
		Scan(&last.id, &last.version, &last.settled, &last.recorded, &last.objects, &last.sinceState, &last.fingerprint)
	if !errors.Is(err, pgx.ErrNoRows) {
		return last, err
	}
	last.recorded = true
	there := make([]string, len(tables))
	for i, t := range tables {
		there[i] = "EXISTS (SELECT FROM " + t.name + " WHERE managed)"
	}
	err = tx.QueryRow(ctx, `SELECT CASE WHEN `+strings.Join(there, " OR ")+` THEN 0 ELSE revision END FROM registry_state`).Scan(&last.settled)
	return last, err
}

// recording is what an apply writes down beside its plan.
type recording struct {
	last  lastVersion
	plan  *registry.Plan
	exact bool // nothing but the plan changes what the last version left behind

	encoding sync.WaitGroup
	encoded  []byte // what the plan changes
	err      error  // of encoding it
}

// record begins to write down what a plan changes, while the database makes the changes; whoever calls it waits for r.encoding.
// revision is that of the registry now; untouched, that nobody has changed what the last version left behind.
func record(plan *registry.Plan, last lastVersion, revision int64, untouched bool) *recording {
	r := &recording{last: last, plan: plan, exact: last.recorded && last.settled == revision && plan.Drift == 0 && untouched}
	if r.exact {
		r.encoding.Go(func() { r.encoded, r.err = encodeChanges(plan.Changes) })
	}
	return r
}

// takenOver is the reason of changes that no plan made.
const takenOver = "was done by hand, and is declared"

// finish completes what was begun, when the plan is executed, and returns the number of the version that has it. It is the
// last one when nothing is left to record.
func (r *recording) finish(ctx context.Context, tx pgx.Tx, by Author) (version int64, err error) {
	var revision int64
	if err := tx.QueryRow(ctx, `SELECT revision FROM registry_state`).Scan(&revision); err != nil {
		return 0, err
	}
	changes, settled, complete := r.plan.Changes, revision, true // complete: nothing is there that this version does not say
	var after *registry.Snapshot                                 // what this version leaves behind, when it is needed
	if !r.exact {
		if after, err = loadManaged(ctx, tx); err != nil {
			return 0, err
		}
		if r.last.recorded {
			var done []registry.Change
			var left bool
			if after, done, left, err = r.doneByHand(ctx, tx, after); err != nil {
				return 0, err
			}
			if left {
				settled, complete = r.last.settled, false
			}
			if len(changes)+len(done) == 0 {
				_, err := tx.Exec(ctx, `UPDATE registry_changes SET settled = $2 WHERE version_id = $1`, r.last.id, settled)
				return r.last.version, err
			}
			changes = append(changes[:len(changes):len(changes)], done...)
		}
	}
	objects, sinceState := r.last.objects+registry.Growth(changes), r.last.sinceState+len(changes)
	if r.last.version == 0 {
		sinceState = 0
	}
	var state []byte
	if !r.last.recorded || sinceState > 2*objects {
		if after == nil {
			if after, err = loadManaged(ctx, tx); err != nil {
				return 0, err
			}
		}
		all := registry.Creates(after)
		if state, err = encodeChanges(all); err != nil {
			return 0, err
		}
		objects, sinceState = len(all), 0
	}
	if r.encoding.Wait(); !r.exact {
		r.encoded, r.err = encodeChanges(changes)
	}
	if r.err != nil {
		return 0, r.err
	}
	var now *string
	if complete {
		text, err := fingerprint(ctx, tx)
		if err != nil {
			return 0, err
		}
		now = &text
	}
	id, err := r.insertVersion(ctx, tx, by, revision)
	if err != nil {
		return 0, err
	}
	n := (&registry.Plan{Changes: changes}).Count()
	_, err = tx.Exec(ctx, `INSERT INTO registry_changes (version_id, imported, moved, created, updated, deleted, released, objects, since_state, settled, changes, state, fingerprint)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		id, n.Imports, n.Moves, n.Creates, n.Updates, n.Deletes, n.Releases, objects, sinceState, settled, r.encoded, state, now)
	return r.last.version + 1, err
}

func loadManaged(ctx context.Context, tx pgx.Tx) (*registry.Snapshot, error) {
	live, err := loadRegistry(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("reading what the plan made: %w", err)
	}
	return live.Managed(), nil
}

// doneByHand finds what was done by hand since the last version, and what the declaration of this plan says too, so that the
// plan had nothing to do about it. It returns those changes, and the state after them; left tells that other changes by
// hand are still there, to objects of other declarations.
func (r *recording) doneByHand(ctx context.Context, tx pgx.Tx, live *registry.Snapshot) (after *registry.Snapshot, done []registry.Change, left bool, err error) {
	before, err := stateAt(ctx, tx, r.last.version)
	if err != nil {
		return nil, nil, false, fmt.Errorf("reading version %d: %w", r.last.version, err)
	}
	expected := registry.NewFold(before)
	expected.Add(r.plan.Changes)
	for _, c := range registry.Between(expected.Snapshot(), live) {
		if !r.plan.Decides(&c) {
			left = true
			continue
		}
		c.Reason, c.Cause = takenOver, registry.ByHand
		done = append(done, c)
	}
	expected.Add(done)
	return expected.Snapshot(), done, left, nil
}

// insertVersion writes the plan down. A jsonb value has a limit, and nobody reads a hundred thousand changes, or as many
// objects that are not managed.
func (r *recording) insertVersion(ctx context.Context, tx pgx.Tx, by Author, revision int64) (id int64, err error) {
	head := *r.plan
	diff := struct {
		*registry.Plan
		Changes   int `json:"changes_omitted,omitempty"`
		Unmanaged int `json:"unmanaged_omitted,omitempty"`
	}{
		Plan:      &head,
		Changes:   max(0, len(head.Changes)-mostRecorded),
		Unmanaged: max(0, len(head.Unmanaged)-mostRecorded),
	}
	head.Changes, head.Unmanaged = head.Changes[:len(head.Changes)-diff.Changes], head.Unmanaged[:len(head.Unmanaged)-diff.Unmanaged]
	text, err := json.Marshal(diff)
	if err != nil {
		return 0, fmt.Errorf("encoding the plan: %w", err)
	}
	description := "nsready apply"
	switch {
	case slices.ContainsFunc(r.plan.Changes, func(c registry.Change) bool { return c.Action == registry.Purge }):
		description = "nsready purge"
	case r.plan.Owner == "":
		description = "nsready import"
	}
	err = tx.QueryRow(ctx, `INSERT INTO registry_versions (checksum, description, version, diff_json, author, commit, message, tool, revision)
		VALUES ($1, $2, $3, $4, $5, nullif($6, ''), nullif($7, ''), nullif($8, ''), $9) RETURNING id`,
		r.plan.Checksum, description, r.last.version+1, text, by.String(), by.Commit, by.Message, by.Tool, revision).Scan(&id)
	return id, err
}
