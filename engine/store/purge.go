package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
)

// StoredRows returns how many rows of telemetry would go with the objects that a plan purges: all those of a device, and of
// those of devices that stay the ones that hold a value of a parameter. What has none is not in the map.
func (s *Store) StoredRows(ctx context.Context, plan *registry.Plan) (map[registry.Address]int64, error) {
	purges := changesByKind{}
	for i := range plan.Changes {
		if c := &plan.Changes[i]; c.Action == registry.Purge {
			purges.add(c)
		}
	}
	devices, refs := purgedDevices(purges)
	parameters, keys := purgedParameters(purges)
	all, rows := slices.Concat(devices, parameters), map[registry.Address]int64{}
	count := func(sql string, args ...any) error {
		result, err := s.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		var i, n int64
		_, err = pgx.ForEachRow(result, []any{&i, &n}, func() error {
			if n > 0 {
				rows[all[i]] = n
			}
			return nil
		})
		return err
	}
	err := count(`SELECT i - 1, (SELECT count(*) FROM telemetry t WHERE t.device_ref = w.ref) +
		(SELECT count(*) FROM measurements m JOIN devices d ON d.id = m.device_id WHERE d.ref = w.ref)
		FROM unnest($1::integer[]) WITH ORDINALITY w (ref, i)`, refs)
	if err == nil && len(keys) > 0 {
		err = count(`SELECT $3 + i - 1, count(t.device_ref) + (SELECT count(*) FROM measurements m WHERE m.parameter_key = w.key)
			FROM unnest($1::text[]) WITH ORDINALITY w (key, i)
			LEFT JOIN (telemetry t JOIN parameter_sets s ON s.id = t.set_id AND s.keys && $1) ON w.key = ANY (s.keys) AND t.device_ref <> ALL ($2::integer[])
			GROUP BY w.key, w.i`, keys, refs, len(devices))
	}
	if err != nil {
		return nil, fmt.Errorf("counting the telemetry that would be purged: %w", s.schemaError(ctx, err))
	}
	return rows, nil
}

// purgedDevices returns the devices of purges, and their numbers in telemetry.
func purgedDevices(purges changesByKind) (devices []registry.Address, refs []int32) {
	refs = []int32{} // nil would be NULL
	for _, c := range purges[registry.KindDevice] {
		devices = append(devices, c.Address)
		refs = append(refs, c.Before.(*registry.Device).Ref)
	}
	return devices, refs
}

// purgedParameters returns the parameters of purges, and their keys.
func purgedParameters(purges changesByKind) (parameters []registry.Address, keys []string) {
	for _, c := range purges[registry.KindParameter] {
		parameters = append(parameters, c.Address)
		keys = append(keys, c.Before.(*registry.Parameter).Key)
	}
	return parameters, keys
}

// purge deletes objects, their alerts and, where it is allowed, their telemetry. Dead letters and the ledger stay: they say
// what became of events, whoever sent them.
func purge(ctx context.Context, tx pgx.Tx, purges changesByKind, allowed []registry.Address, say func(*table, []*registry.Change)) error {
	// From here on no worker stores anything, so that what is checked and removed is all there is.
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1), set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)`, lockDelete)
	if err != nil {
		return fmt.Errorf("waiting for workers to finish: %w", err)
	}
	devices, refs := purgedDevices(purges)
	parameters, keys := purgedParameters(purges)
	if err := checkLoss(ctx, tx, devices, refs, parameters, keys, allowed); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM alerts WHERE device_id = ANY ($1::text[]::uuid[]) OR threshold_id = ANY ($2::text[]::uuid[])`,
		idsOf(purges[registry.KindDevice]), idsOf(purges[registry.KindThreshold]))
	if err != nil {
		return fmt.Errorf("deleting alerts: %w", err)
	}
	// A customer whose parent goes would go with it.
	customers := idsOf(purges[registry.KindCustomer])
	_, err = tx.Exec(ctx, `UPDATE customers SET parent_customer_id = NULL WHERE parent_customer_id = ANY ($1::text[]::uuid[])`, customers)
	if err != nil {
		return fmt.Errorf("taking customers from their parent: %w", err)
	}
	for _, t := range slices.Backward(tables) {
		changes := purges[t.kind]
		say(t, changes)
		if t.kind == registry.KindParameter && len(keys) > 0 {
			if err := purgeValues(ctx, tx, keys); err != nil {
				return fmt.Errorf("deleting values of parameters: %w", err)
			}
		}
		if err := t.purge(ctx, tx, changes); err != nil {
			return fmt.Errorf("deleting in table %s: %w", t.name, err)
		}
		if t.kind == registry.KindDevice && len(changes) > 0 { // their rows go now, not at the end
			if _, err := tx.Exec(ctx, `SET CONSTRAINTS device_deleted IMMEDIATE`); err != nil {
				return fmt.Errorf("deleting telemetry: %w", err)
			}
		}
	}
	return nil
}

// checkLoss refuses to purge a device or parameter that has telemetry, unless that is allowed.
func checkLoss(ctx context.Context, tx pgx.Tx, devices []registry.Address, refs []int32, parameters []registry.Address, keys []string, allowed []registry.Address) error {
	permitted := make(map[registry.Address]bool, len(allowed))
	for _, a := range allowed {
		permitted[a] = true
	}
	all := slices.Concat(devices, parameters)
	check := func(sql string, args ...any) ([]string, error) {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (name string, err error) {
			var i int
			err = row.Scan(&i)
			return all[i].String(), err
		})
	}
	guarded := make([]bool, len(all))
	for i, a := range all {
		guarded[i] = !permitted[a]
	}
	found, err := check(`SELECT i - 1 FROM unnest($1::integer[], $2::boolean[]) WITH ORDINALITY w (ref, guarded, i) WHERE guarded AND
		(EXISTS (SELECT FROM telemetry t WHERE t.device_ref = w.ref) OR
		 EXISTS (SELECT FROM measurements m JOIN devices d ON d.id = m.device_id WHERE d.ref = w.ref)) ORDER BY i`, refs, guarded[:len(devices)])
	if err == nil && slices.Contains(guarded[len(devices):], true) {
		var more []string
		more, err = check(`SELECT $4 + i - 1 FROM unnest($1::text[], $2::boolean[]) WITH ORDINALITY w (key, guarded, i) WHERE guarded AND
			(EXISTS (SELECT FROM telemetry t JOIN parameter_sets s ON s.id = t.set_id WHERE w.key = ANY (s.keys) AND t.device_ref <> ALL ($3::integer[])) OR
			 EXISTS (SELECT FROM measurements m WHERE m.parameter_key = w.key)) ORDER BY i`, keys, guarded[len(devices):], refs, len(devices))
		found = append(found, more...)
	}
	if err != nil {
		return fmt.Errorf("looking for telemetry that would be lost: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("these have stored telemetry, whose loss was not allowed: %s", abridge(found))
	}
	return nil
}

// purgeValues takes the values of parameters out of the rows of telemetry, and the rows that hold nothing else.
func purgeValues(ctx context.Context, tx pgx.Tx, keys []string) error {
	// places are those of the values that stay, from 1.
	const sets = `CREATE TEMP TABLE purged_sets ON COMMIT DROP AS
		SELECT id, CASE WHEN places IS NOT NULL THEN parameter_set_id(kept) END AS left_id, places
		FROM (SELECT s.id, array_agg(k.key ORDER BY k.i) FILTER (WHERE k.key <> ALL ($1)) AS kept,
				array_agg(k.i::integer ORDER BY k.i) FILTER (WHERE k.key <> ALL ($1)) AS places
			FROM parameter_sets s, unnest(s.keys) WITH ORDINALITY k (key, i) WHERE s.keys && $1 GROUP BY s.id) sets`
	const vals = `(SELECT array_agg(%[1]s.vals[i] ORDER BY n) FROM unnest(p.places) WITH ORDINALITY u (i, n))`
	const quality = `CASE WHEN %[1]s.quality IS NOT NULL THEN (SELECT array_agg(%[1]s.quality[i] ORDER BY n) FROM unnest(p.places) WITH ORDINALITY u (i, n)) END`
	// SQL with arguments is one statement, and a table that is not there yet cannot be named in one.
	if _, err := tx.Exec(ctx, sets, pgx.QueryExecModeSimpleProtocol, keys); err != nil {
		return err
	}
	for _, sql := range []string{
		`DELETE FROM telemetry t USING purged_sets p WHERE t.set_id = p.id AND p.left_id IS NULL`,
		fmt.Sprintf(`UPDATE telemetry t SET set_id = p.left_id, vals = `+vals+`, quality = `+quality+`,
			attributes = CASE WHEN t.attributes IS NOT NULL THEN
				(SELECT jsonb_agg(t.attributes -> (i - 1) ORDER BY n) FROM unnest(p.places) WITH ORDINALITY u (i, n)) END
			FROM purged_sets p WHERE t.set_id = p.id`, "t"),
		// The newest row of a set becomes one of the set that is left of it, unless that has a newer one.
		fmt.Sprintf(`WITH gone AS (DELETE FROM telemetry_latest l USING purged_sets p WHERE l.set_id = p.id
				RETURNING l.device_ref, p.left_id, l.time, `+vals+` AS vals, `+quality+` AS quality, l.source)
			INSERT INTO telemetry_latest AS l (device_ref, set_id, time, vals, quality, source)
			SELECT DISTINCT ON (device_ref, left_id) device_ref, left_id, time, vals, quality, source FROM gone
			WHERE left_id IS NOT NULL ORDER BY device_ref, left_id, time DESC
			ON CONFLICT (device_ref, set_id) DO UPDATE
			SET time = excluded.time, vals = excluded.vals, quality = excluded.quality, source = excluded.source WHERE excluded.time > l.time`, "l"),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	for _, table := range []string{"measurements", "missing_intervals"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE parameter_key = ANY ($1)`, keys); err != nil {
			return err
		}
	}
	return nil
}
