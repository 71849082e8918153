package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/registry"
)

const (
	applyWait     = 10 * time.Second // for whoever else writes the registry
	applyAttempts = 3                // when a change by another program and ours lock each other out

	mostRecorded = 10_000 // changes of a plan, and unmanaged objects, in registry_versions.diff_json
)

// SQLSTATEs that Apply tells apart (PostgreSQL documentation, appendix A).
const (
	deadlockDetected = "40P01"
	lockNotAvailable = "55P03"
)

// Author is who applies a plan, and what else the registry's history says of the apply; all of it may be "".
type Author struct {
	User, Host string
	Commit     string // of the declaration's repository, in hex
	Message    string // what for
	Tool       string // version of the program
}

// String returns USER@HOST, or USER when there is no host.
func (a Author) String() string {
	if a.Host == "" {
		return a.User
	}
	return a.User + "@" + a.Host
}

// check finds what PostgreSQL cannot store.
func (a Author) check() error {
	for _, text := range []string{a.User, a.Host, a.Commit, a.Message, a.Tool} {
		if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
			return fmt.Errorf("the author, the message or the commit, %q, holds a NUL character or is not UTF-8, which the database cannot store", text)
		}
	}
	return nil
}

// ErrStale refuses a plan because the registry is no longer what the plan was made from.
type ErrStale struct {
	BaseVersion, BaseRevision int64 // of the plan
	Version, Revision         int64 // of the registry now
}

func (e *ErrStale) Error() string {
	return fmt.Sprintf("the registry moved since this plan was made: revision %d (version %d), now %d (version %d); run plan again",
		e.BaseRevision, e.BaseVersion, e.Revision, e.Version)
}

// ErrOtherRegistry refuses a plan that was made from another database's registry.
var ErrOtherRegistry = errors.New("this plan was made for another registry than that of this database; nothing was changed")

type progressKey struct{}

// WithProgress returns a context under which Apply calls report before it writes or removes objects of a kind, with their number.
func WithProgress(ctx context.Context, report func(kind registry.Kind, objects int)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// Apply executes a plan in one transaction and returns the registry's version after it. It takes the registry's lock, for
// which it waits up to ten seconds; a plan that is stale by then is refused with an *ErrStale, one for another registry with
// ErrOtherRegistry, and one with a Refusal before anything is done. An empty plan makes no version, unless what is
// declared was made by hand since the last one: then the new version says so. When ctx ends, nothing
// was changed, or Apply goes on to the end and returns no error.
// The version's diff_json is the plan, without its changes after the first 10,000, whose number is in changes_omitted, and
// likewise unmanaged_omitted; all changes are in registry_changes.
//
// Customers, projects, sites, devices and parameters are retired rather than deleted; a created one that is there,
// retired, returns with its id and history. A purge deletes, and with a device or parameter its telemetry, which
// plan.AllowDataLoss must permit.
func (s *Store) Apply(ctx context.Context, plan *registry.Plan, by Author) (version int64, err error) {
	if err := by.check(); err != nil { // before it names the lock's holder
		return 0, fmt.Errorf("applying the plan: %w", err)
	}
	lock, err := s.Lock(ctx, Locking{Holder: holder("apply", by.String()), Wait: applyWait})
	if err != nil {
		return 0, fmt.Errorf("applying the plan: %w", err)
	}
	version, err = lock.Apply(ctx, plan, by)
	if e := lock.Release(ctx); err == nil && e != nil {
		return version, fmt.Errorf("the plan was applied: %w", e)
	} else if e != nil {
		return 0, errors.Join(err, e)
	}
	return version, err
}

func (s *Store) applyUnder(ctx context.Context, lock *Lock, plan *registry.Plan, by Author) (version int64, err error) {
	if err := cmp.Or(plan.Refusal(), by.check(), checkText(plan)); err != nil {
		return 0, fmt.Errorf("applying the plan: %w", err)
	}
	for attempt := 1; ; attempt++ {
		version, err = s.apply(ctx, lock, plan, by)
		if code(err) != deadlockDetected || attempt == applyAttempts {
			break
		}
	}
	var stale *ErrStale
	switch {
	case err == nil:
		return version, nil
	case errors.As(err, &stale):
		return 0, stale
	case errors.Is(err, ErrOtherRegistry):
		return 0, ErrOtherRegistry
	}
	return 0, fmt.Errorf("applying the plan: %w", s.explain(ctx, plan, err))
}

func (s *Store) apply(ctx context.Context, lock *Lock, plan *registry.Plan, by Author) (version int64, err error) {
	committing := false
	// The commit is never cut short: it would be unknown whether it took place.
	err = pgx.BeginFunc(context.WithoutCancel(ctx), s.pool, func(tx pgx.Tx) error {
		// One that says nothing more for as long as its lease, stopped or cut off, does not keep its rows from others either.
		_, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true), set_config('application_name', $2, true), set_config('nsready.apply', 'on', true),
			set_config('idle_in_transaction_session_timeout', $3, true)`,
			fmt.Sprintf("%dms", applyWait.Milliseconds()), "nsready apply "+by.String(), fmt.Sprintf("%dms", lock.lease.Milliseconds()))
		if err != nil {
			return err
		}
		failpoint.Hit("store.plan-begun")
		if err := lock.check(ctx, tx); err != nil {
			return err
		}
		// FOR UPDATE waits for changes by other programs that are about to commit, and keeps further ones out.
		var revision int64
		var id uuid.UUID
		if err := tx.QueryRow(ctx, `SELECT revision, registry_id FROM registry_state FOR UPDATE`).Scan(&revision, &id); err != nil {
			return fmt.Errorf("reading the registry's revision: %w", err)
		}
		last, err := readLastVersion(ctx, tx)
		if err != nil {
			return fmt.Errorf("reading the registry's version: %w", err)
		}
		version = last.version
		if err := checkBase(plan, id, version, revision); err != nil {
			return err
		}
		if plan.Empty() && (version == 0 || revision == last.settled && plan.Drift == 0) {
			return nil
		}
		failpoint.Hit("store.plan-locked")
		untouched := version == 0
		if last.fingerprint != "" {
			now, err := fingerprint(ctx, tx)
			if err != nil {
				return err
			}
			untouched = now == last.fingerprint
		}
		recording := record(plan, last, revision, untouched)
		defer recording.encoding.Wait()
		if err := execute(ctx, tx, plan); err != nil {
			return err
		}
		failpoint.Hit("store.plan-executed")
		if version, err = recording.finish(ctx, tx, by); err != nil {
			return fmt.Errorf("recording registry version %d: %w", last.version+1, err)
		}
		failpoint.Hit("store.plan-recorded")
		if err := lock.seal(ctx, tx); err != nil {
			return err
		}
		committing = true
		return nil
	})
	if err != nil && committing && code(err) == "" {
		err = fmt.Errorf("the connection broke during the commit, run plan to see whether the changes were made: %w", err)
	}
	if committing && err == nil {
		failpoint.Hit("store.plan-committed")
	}
	return version, err
}

// CheckBase returns nil when a plan was made from the registry as it is now, and else the *ErrStale or ErrOtherRegistry with
// which Apply refuses it. A database without tables yields ErrNoSchema.
func (s *Store) CheckBase(ctx context.Context, plan *registry.Plan) error {
	var id uuid.UUID
	var version, revision int64
	err := s.pool.QueryRow(ctx, `SELECT registry_id, revision, (SELECT coalesce(max(version), 0)::bigint FROM registry_versions WHERE project_id IS NULL)
		FROM registry_state`).Scan(&id, &revision, &version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoState()
	case err != nil:
		return fmt.Errorf("reading the registry's version: %w", s.schemaError(ctx, err))
	}
	return checkBase(plan, id, version, revision)
}

// checkBase compares what a plan was made from with the registry.
func checkBase(plan *registry.Plan, id uuid.UUID, version, revision int64) error {
	switch {
	case id != plan.Registry:
		return ErrOtherRegistry
	case revision != plan.BaseRevision || version != plan.BaseVersion:
		return &ErrStale{BaseVersion: plan.BaseVersion, BaseRevision: plan.BaseRevision, Version: version, Revision: revision}
	}
	return nil
}

// execute makes the plan's changes: deletes, releases and purges, children first, then the rest, parents first; all of a kind at once.
func execute(ctx context.Context, tx pgx.Tx, plan *registry.Plan) error {
	deletes, releases, purges, puts := changesByKind{}, changesByKind{}, changesByKind{}, changesByKind{}
	for i := range plan.Changes {
		switch c := &plan.Changes[i]; c.Action {
		case registry.Delete:
			deletes.add(c)
		case registry.Release:
			releases.add(c)
		case registry.Purge:
			purges.add(c)
		default:
			puts.add(c)
		}
	}
	report, _ := ctx.Value(progressKey{}).(func(registry.Kind, int))
	say := func(t *table, changes []*registry.Change) {
		if len(changes) > 0 && report != nil {
			report(t.kind, len(changes))
		}
	}
	if len(purges) > 0 {
		if err := purge(ctx, tx, purges, plan.AllowDataLoss, say); err != nil {
			return err
		}
	}
	for _, t := range slices.Backward(tables) {
		say(t, deletes[t.kind])
		if err := t.remove(ctx, tx, deletes[t.kind]); err != nil {
			return fmt.Errorf("deleting in table %s: %w", t.name, err)
		}
		if err := t.release(ctx, tx, releases[t.kind]); err != nil {
			return fmt.Errorf("releasing in table %s: %w", t.name, err)
		}
		failpoint.Hit("store.plan-table-removed")
	}
	for _, t := range tables {
		say(t, puts[t.kind])
		if err := t.put(ctx, tx, puts[t.kind]); err != nil {
			return fmt.Errorf("writing table %s: %w", t.name, err)
		}
		if t.kind == registry.KindCustomer && len(puts[t.kind]) > 0 {
			if err := putParents(ctx, tx); err != nil {
				return fmt.Errorf("writing the parents of customers: %w", err)
			}
		}
		failpoint.Hit("store.plan-table-written")
	}
	return renameKeys(ctx, tx, puts[registry.KindParameter])
}

// renameKeys lets what is stored under the keys of moved parameters be found under their new keys. Nothing is written
// meanwhile: the workers learn with their next transaction that the registry has changed, and what their sets are called now.
func renameKeys(ctx context.Context, tx pgx.Tx, parameters []*registry.Change) error {
	var from, to []string
	for _, c := range parameters {
		if moves(c) {
			from, to = append(from, c.Before.(*registry.Parameter).Key), append(to, c.After.(*registry.Parameter).Key)
		}
	}
	if len(from) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockDelete); err != nil {
		return fmt.Errorf("waiting for the workers: %w", err)
	}
	if _, err := tx.Exec(ctx, `SELECT rename_parameter_keys($1, $2)`, from, to); err != nil {
		return fmt.Errorf("renaming the keys of stored values: %w", err)
	}
	return nil
}

type changesByKind map[registry.Kind][]*registry.Change

func (m changesByKind) add(c *registry.Change) { m[c.Address.Kind] = append(m[c.Address.Kind], c) }

// putParents sets the parents of the customers that put has staged.
func putParents(ctx context.Context, tx pgx.Tx) error {
	var name, parent string
	err := tx.QueryRow(ctx, `SELECT name, parent FROM stage_customers s WHERE parent IS NOT NULL
		AND NOT EXISTS (SELECT FROM customers p WHERE p.name = s.parent AND p.retired_at IS NULL) ORDER BY name LIMIT 1`).Scan(&name, &parent)
	switch {
	case err == nil:
		return fmt.Errorf("%s: its parent, customer %q, does not exist", registry.NewAddress(registry.KindCustomer, name), parent)
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE customers c SET parent_customer_id = p.id
		FROM stage_customers s LEFT JOIN customers p ON p.name = s.parent
		WHERE c.id = s.id AND c.parent_customer_id IS DISTINCT FROM p.id`)
	return err
}

// nulEscape matches a NUL in JSON text, behind an even number of backslashes.
var nulEscape = regexp.MustCompile(`(^|[^\\])(\\\\)*\\u0000`)

// checkText finds what PostgreSQL cannot store, because it does not say in which row it was.
func checkText(plan *registry.Plan) error {
	for i := range plan.Changes {
		c := &plan.Changes[i]
		if strings.IndexByte(c.Address.Path, 0) >= 0 || !utf8.ValidString(c.Address.Path) {
			return fmt.Errorf("the name in %q holds a NUL character or is not UTF-8, which the database cannot store", c.Address)
		}
		for _, f := range c.Fields {
			if strings.IndexByte(f.After, 0) >= 0 || !utf8.ValidString(f.After) || strings.IndexByte(f.Name, 0) >= 0 || !utf8.ValidString(f.Name) ||
				(f.Name == "metadata" || f.Name == "location") && nulEscape.MatchString(f.After) {
				return fmt.Errorf("%s: %s holds a NUL character or is not UTF-8, which the database cannot store", c.Address, f.Name)
			}
		}
	}
	return nil
}

// explain turns what the database says of an apply that it rolled back into what its user can act on.
func (s *Store) explain(ctx context.Context, plan *registry.Plan, err error) error {
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		if refused.ConstraintName == "devices_external_id_key" {
			if text, e := s.findExternalIDs(ctx, plan); e != nil {
				return errors.Join(err, e)
			} else if text != "" {
				return errors.New(text)
			}
		}
		if refused.Code == lockNotAvailable {
			return fmt.Errorf("%w: another program, which changes the registry or reads and writes what this removes or renames, has not ended its transaction for %s; pg_stat_activity tells which", err, applyWait)
		}
		if refused.Detail != "" {
			return fmt.Errorf("%w: %s", err, refused.Detail)
		}
	}
	return err
}

// findExternalIDs lists the external ids of a plan that two devices would have.
func (s *Store) findExternalIDs(ctx context.Context, plan *registry.Plan) (string, error) {
	wanted := map[string]registry.Address{}
	ids, touched := []string{}, []string{} // an empty list, because nil would be NULL
	var found []string
	for _, c := range plan.Changes {
		if c.Address.Kind != registry.KindDevice {
			continue
		}
		if c.After == nil {
			if c.Action == registry.Delete { // and gives its external id up
				touched = append(touched, objectID(c.Before))
			}
			continue
		}
		d := c.After.(*registry.Device)
		touched = append(touched, objectID(d))
		if d.ExternalID == "" {
			continue
		}
		if other, ok := wanted[d.ExternalID]; ok {
			found = append(found, fmt.Sprintf("external_id %q is declared by %s and by %s", d.ExternalID, other, c.Address))
			continue
		}
		wanted[d.ExternalID] = c.Address
		ids = append(ids, d.ExternalID)
	}
	const holders = `SELECT d.external_id, c.name, p.name, s.name, d.name
		FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id JOIN customers c ON c.id = p.customer_id
		WHERE d.external_id = ANY($1) AND d.id <> ALL($2::text[]::uuid[]) ORDER BY d.external_id`
	rows, err := s.pool.Query(ctx, holders, ids, touched)
	if err != nil {
		return "", err
	}
	var external, customer, project, site, device string
	_, err = pgx.ForEachRow(rows, []any{&external, &customer, &project, &site, &device}, func() error {
		found = append(found, fmt.Sprintf("external_id %q of %s is already used by %s", external, wanted[external],
			registry.NewAddress(registry.KindDevice, customer, project, site, device)))
		return nil
	})
	return abridge(found), err
}

func abridge(list []string) string {
	const most = 5
	if n := len(list) - most; n > 0 {
		list = append(list[:most:most], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(list, "; ")
}
