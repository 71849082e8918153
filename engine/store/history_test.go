package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// contents lists what a state holds: each object with its fields.
func contents(s *registry.Snapshot) string {
	var lines []string
	for o := range s.Objects {
		lines = append(lines, fmt.Sprintf("%s of %s: %q", o.Address(), registry.OwnerOf(o), o.Fields()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func stateOf(t testing.TB, s *Store, version int64) *registry.Snapshot {
	t.Helper()
	state, err := s.StateAt(testContext(t), version)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// vandalize edits the registry in ways that an apply undoes or takes over.
func vandalize(t testing.TB, s *Store, r *rand.Rand) {
	for _, sql := range []string{
		`UPDATE devices SET status = 'active' WHERE ref % 3 = 0 AND retired_at IS NULL`,
		`UPDATE devices SET device_type = 'meter', parameters = NULL WHERE ref % 5 = 0`,
		`DELETE FROM thresholds WHERE severity = 'critical'`,
		`DELETE FROM devices WHERE ref % 7 = 0`,
		`UPDATE sites SET name = name || ' ' || gen_random_uuid() WHERE name = 'south' AND retired_at IS NULL`,
		`UPDATE devices SET retired_at = now(), external_id = NULL WHERE ref % 11 = 0`,
		`UPDATE customers SET parent_customer_id = NULL`,
		`UPDATE sites SET managed = false, managed_by = NULL WHERE name = 'north' AND retired_at IS NULL`,
		`INSERT INTO customers (name) VALUES ('made by hand ' || gen_random_uuid())`,
		`TRUNCATE limits`,
	} {
		if r.IntN(4) == 0 {
			exec(t, s, sql)
		}
	}
}

// Every version can be read back as it was applied, whatever was edited by hand between, and be rolled back to.
func TestStateAt(t *testing.T) {
	for seed := range uint64(4) {
		s := migrated(t)
		r := rand.New(rand.NewPCG(seed, 8))
		want := map[int64]string{}
		states := 0
		for range 14 {
			unprotect(t, s)
			desired := randomEstate(r)
			after := reconcile(t, s, desired)
			want[after.Version] = contents(after.Managed())
			if got := contents(desired); len(strings.Split(got, "\n")) != len(strings.Split(want[after.Version], "\n")) {
				t.Fatalf("seed %d: the registry manages\n%s\nwant\n%s", seed, want[after.Version], got)
			}
			vandalize(t, s, r)
		}
		states = query1[int](t, s, `SELECT count(*) FROM registry_changes WHERE state IS NOT NULL`)
		if states == 0 || states == len(want) {
			t.Errorf("seed %d: %d of %d versions hold a whole state", seed, states, len(want))
		}
		for version, contentsThen := range want {
			if got := contents(stateOf(t, s, version)); got != contentsThen {
				t.Fatalf("seed %d: version %d is\n%s\nwant\n%s", seed, version, got, contentsThen)
			}
		}
		for _, version := range slices.Sorted(maps.Keys(want)) {
			unprotect(t, s)
			live := load(t, s)
			desired := stateOf(t, s, version).Of(registry.DefaultOwner)
			desired.MoveBack(live)
			if _, err := s.Apply(testContext(t), registry.Diff(live, desired), author); err != nil {
				t.Fatalf("seed %d: rolling back to version %d: %v", seed, version, err)
			}
			if got := contents(load(t, s).Managed()); got != want[version] {
				t.Fatalf("seed %d: after the rollback to version %d there is\n%s\nwant\n%s", seed, version, got, want[version])
			}
		}
		s.Close()
	}
}

func TestVersions(t *testing.T) {
	s := migrated(t)
	plan := registry.Diff(load(t, s), estate(t, mill))
	by := Author{User: "Pat Example", Commit: strings.Repeat("ab", 20), Message: "the mill", Tool: "v1.2.3"}
	if _, err := s.Apply(testContext(t), plan, by); err != nil {
		t.Fatal(err)
	}
	reconcile(t, s, estate(t, mill+"device.acme/mill/north/a"))
	list, err := s.Versions(testContext(t), 5)
	if err != nil || len(list) != 2 || list[0].Version != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	v := list[1]
	if age := time.Since(v.At); age < 0 || age > time.Hour {
		t.Errorf("version 1 is from %s", v.At)
	}
	v.At = time.Time{}
	want := Version{
		Version: 1, Author: "Pat Example", Commit: by.Commit, Message: "the mill", Tool: "v1.2.3", Checksum: plan.Checksum, Revision: v.Revision,
		Recorded: true, Created: 4,
	}
	if v != want || v.Revision <= plan.BaseRevision {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
	if list, err := s.Versions(testContext(t), 1); err != nil || len(list) != 1 || list[0].Version != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, changes, err := s.Changes(testContext(t), 2); err != nil || len(changes) != 1 || changes[0].Address.String() != "device.acme/mill/north/a" {
		t.Errorf("%+v, %v", changes, err)
	}
	for _, by := range []Author{{User: "a\x00"}, {Message: "\xff"}} {
		plan := registry.Diff(load(t, s), estate(t, mill))
		if _, err := s.Apply(testContext(t), plan, by); err == nil || !strings.Contains(err.Error(), "which the database cannot store") {
			t.Errorf("%q: %v", by, err)
		}
	}
}

// What was applied before migration 0008 cannot be read back, and what is after it can.
func TestStateAtBeforeItWasRecorded(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, estate(t, mill))
	reconcile(t, s, estate(t, mill+"device.acme/mill/north/a"))
	exec(t, s, `DELETE FROM registry_changes`)
	_, err := s.StateAt(testContext(t), 2)
	var unknown *ErrNotRecorded
	if !errors.As(err, &unknown) || unknown.Version != 2 || unknown.First != 0 {
		t.Errorf("%v", err)
	}
	// An apply that has nothing else to do begins.
	live := load(t, s)
	desired := estate(t, mill+"device.acme/mill/north/a")
	if v, err := s.Apply(testContext(t), registry.Diff(live, desired), author); err != nil || v != 3 {
		t.Fatalf("version %d, %v", v, err)
	}
	if got, want := contents(stateOf(t, s, 3)), contents(load(t, s).Managed()); got != want {
		t.Errorf("version 3 is\n%s\nwant\n%s", got, want)
	}
	if _, _, err = s.Changes(testContext(t), 1); !errors.As(err, &unknown) || unknown.First != 3 {
		t.Errorf("%v", err)
	}
	var none *ErrNoVersion
	if _, err = s.StateAt(testContext(t), 9); !errors.As(err, &none) || none.Newest != 3 {
		t.Errorf("%v", err)
	}
	if live := load(t, s); live.AppliedRevision != live.Revision {
		t.Errorf("applied revision %d, want %d", live.AppliedRevision, live.Revision)
	}
}

// What was done by hand and then declared is no drift any more; what another declaration must decide about still is.
func TestApplyTakesOver(t *testing.T) {
	s := migrated(t)
	reconcile(t, s, estate(t, mill+"device.acme/mill/north/a device.acme/mill/north/b"))
	north := estate(t, "customer.north")
	north.Owner = "north"
	if _, err := s.Apply(testContext(t), registry.Diff(load(t, s), north), author); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `UPDATE devices SET external_id = 'X' WHERE name = 'a'`)
	exec(t, s, `UPDATE customers SET metadata = '{"by":"hand"}' WHERE name = 'north'`)
	live := load(t, s)
	plan := registry.Diff(live, estate(t, mill+"device.acme/mill/north/a=X device.acme/mill/north/b"))
	if !plan.Empty() {
		t.Fatal(show(plan))
	}
	version, err := s.Apply(testContext(t), plan, author)
	if err != nil || version != 3 {
		t.Fatalf("version %d, %v", version, err)
	}
	_, changes, err := s.Changes(testContext(t), 3)
	if err != nil || len(changes) != 1 || changes[0].Address.Name() != "a" || changes[0].Cause != registry.ByHand {
		t.Errorf("%+v, %v", changes, err)
	}
	live = load(t, s)
	drift := registry.Drift(stateOf(t, s, 3), live)
	if len(drift) != 1 || drift[0].Address.String() != "customer.north" || live.AppliedRevision == live.Revision {
		t.Errorf("drift is %+v, revision %d, applied %d", drift, live.Revision, live.AppliedRevision)
	}
	if version, err = s.Apply(testContext(t), registry.Diff(live, north), author); err != nil || version != 4 {
		t.Errorf("version %d, %v", version, err)
	}
	if live = load(t, s); live.AppliedRevision != live.Revision {
		t.Errorf("revision %d, applied %d", live.Revision, live.AppliedRevision)
	}
	// What nobody manages makes no version.
	exec(t, s, `INSERT INTO customers (name) VALUES ('by hand')`)
	if version, err = s.Apply(testContext(t), registry.Diff(load(t, s), north), author); err != nil || version != 4 {
		t.Errorf("version %d, %v", version, err)
	}
	if live = load(t, s); live.AppliedRevision != live.Revision {
		t.Errorf("revision %d, applied %d", live.Revision, live.AppliedRevision)
	}
}

// Every change by SQL is told: which object, how, by whom; changes by applies, and of what nothing is declared, are not.
func TestDriftByHand(t *testing.T) {
	s := migrated(t)
	const north = "device.acme/mill/north/"
	reconcile(t, s, estate(t, mill+"site.acme/mill/south "+north+"a "+north+"b "+north+"c device.acme/mill/south/d"))
	exec(t, s, `UPDATE devices SET created_at = now()`)
	exec(t, s, `UPDATE devices SET status = status`)
	if n := query1[int](t, s, `SELECT count(*) FROM registry_audit`); n != 0 {
		t.Fatalf("%d rows in the audit", n)
	}
	for _, sql := range []string{
		`UPDATE devices SET status = 'maintenance', parameters = '{voltage}' WHERE name = 'a'`,
		`UPDATE devices SET name = 'bee' WHERE name = 'b'`,
		`DELETE FROM devices WHERE name = 'c'`,
		`UPDATE sites SET name = 'deep south' WHERE name = 'south'`,
		`UPDATE devices SET site_id = (SELECT id FROM sites WHERE name = 'deep south') WHERE name = 'bee'`,
		`INSERT INTO devices (site_id, name, device_type) SELECT id, 'c2', 'meter' FROM sites WHERE name = 'north'`,
		`INSERT INTO limits (connections) VALUES (5)`,
		`INSERT INTO discovery (max_devices) VALUES (5)`,
		`UPDATE parameter_templates SET metadata = metadata || '{"max": 7}'`,
	} {
		exec(t, s, sql)
	}
	live := load(t, s)
	audit, err := s.Audit(testContext(t), live.AppliedRevision)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range registry.Drift(stateOf(t, s, live.Version), live) {
		touch := audit.Of(d.Object)
		if touch == nil || touch.Who != "postgres" || !strings.HasPrefix(touch.Via, "nsready from ") {
			t.Errorf("%s: touched by %+v", d.Address, touch)
			continue
		}
		got = append(got, fmt.Sprint(d.Kind, " ", d.Address, " ", d.Fields, " ", touch.Op, " ", audit.Made(d.Object)))
	}
	want := []string{
		"created_by_hand limits.ingest [] insert true",
		"created_by_hand discovery.devices [] insert true",
		"edited_by_hand site.acme/mill/south [{address site.acme/mill/south site.acme/mill/deep south}] update false",
		"edited_by_hand parameter.acme/mill/voltage [{max  7}] update false",
		"edited_by_hand device.acme/mill/north/a [{status active maintenance} {parameters  voltage}] update false",
		"edited_by_hand device.acme/mill/north/b [{address device.acme/mill/north/b device.acme/mill/deep south/bee}] update false",
		"deleted_by_hand device.acme/mill/north/c [] delete false",
		"created_by_hand device.acme/mill/north/c2 [] insert true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("drift is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	row := query1[string](t, s, `SELECT op || ' ' || name || ' ' || before::text || ' ' || after::text FROM registry_audit WHERE name = 'a'`)
	if row != `update a {"status": "active", "parameters": null} {"status": "maintenance", "parameters": ["voltage"]}` {
		t.Errorf("the audit has %s", row)
	}
	exec(t, s, `TRUNCATE customers CASCADE`)
	if audit, err = s.Audit(testContext(t), live.Revision); err != nil || audit.Of(live.Devices[0]) == nil || audit.Of(live.Devices[0]).Op != "truncate" {
		t.Errorf("after TRUNCATE: %v", err)
	}
	if audit, err = s.Audit(testContext(t), 0); err != nil || audit.Of(live.Devices[0]).Op != "truncate" { // which was edited before
		t.Errorf("after an edit and TRUNCATE: %+v, %v", audit.Of(live.Devices[0]), err)
	}
	exec(t, s, `UPDATE registry_audit SET at = at - interval '401 days' WHERE op = 'truncate'`)
	if n, err := s.TrimAudit(testContext(t), 400*24*time.Hour); err != nil || n == 0 {
		t.Errorf("%d rows trimmed, %v", n, err)
	}
	if n := query1[int](t, s, `SELECT count(*) FROM registry_audit WHERE op = 'truncate'`); n != 0 {
		t.Errorf("%d old rows in the audit", n)
	}
}

// Objects that an apply moved are where it put them, with what hangs off them, and a rollback moves them back.
func TestStateAtAfterMoves(t *testing.T) {
	s := migrated(t)
	first := estate(t, "customer.group customer.acme=group project.acme/mill site.acme/mill/north parameter.acme/mill/voltage device.acme/mill/north/a")
	reconcile(t, s, first)
	ids := identities(load(t, s))
	second := estate(t, "customer.holding customer.acme=holding project.acme/press site.acme/press/north parameter.acme/press/volt device.acme/press/north/b")
	for _, m := range []string{
		"customer.group customer.holding", "project.acme/mill project.acme/press", "parameter.acme/mill/voltage parameter.acme/press/volt",
		"device.acme/mill/north/a device.acme/press/north/b",
	} {
		from, to, _ := strings.Cut(m, " ")
		var move registry.Moved
		if err := errors.Join(move.From.UnmarshalText([]byte(from)), move.To.UnmarshalText([]byte(to))); err != nil {
			t.Fatal(err)
		}
		second.Moves = append(second.Moves, move)
	}
	reconcile(t, s, second)
	if got, want := contents(stateOf(t, s, 2)), contents(load(t, s).Managed()); got != want {
		t.Errorf("version 2 is\n%s\nwant\n%s", got, want)
	}
	live := load(t, s)
	if drift := registry.Drift(stateOf(t, s, 2), live); len(drift) > 0 {
		t.Errorf("drift after moves: %+v", drift)
	}
	back := stateOf(t, s, 1).Of(registry.DefaultOwner)
	back.MoveBack(live)
	plan := registry.Diff(live, back)
	if n := plan.Count(); n.Moves != 4 || n.Creates+n.Deletes > 0 {
		t.Errorf("%+v: %s", n, show(plan))
	}
	if _, err := s.Apply(testContext(t), plan, author); err != nil {
		t.Fatal(err)
	}
	if got := identities(load(t, s)); !maps.Equal(got, ids) {
		t.Errorf("after the rollback there is\n%v\nwant\n%v", got, ids)
	}
}

// What moved to where others were before goes back with them: one after the other, or in exchange.
func TestRollbackOfMovesIntoEachOther(t *testing.T) {
	const parents = "customer.acme project.acme/mill site.acme/mill/north "
	for name, steps := range map[string][][2]string{
		"one after the other": {
			{"device.acme/mill/north/a device.acme/mill/north/c", "device.acme/mill/north/b device.acme/mill/north/c"},
			{"device.acme/mill/north/b device.acme/mill/north/c", "device.acme/mill/north/a device.acme/mill/north/b"},
		},
		"in exchange": {
			{"device.acme/mill/north/a device.acme/mill/north/c", "device.acme/mill/north/b device.acme/mill/north/c"},
			{"device.acme/mill/north/b device.acme/mill/north/c", "device.acme/mill/north/a device.acme/mill/north/b"},
			{"device.acme/mill/north/a device.acme/mill/north/b", "device.acme/mill/north/c device.acme/mill/north/a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := migrated(t)
			reconcile(t, s, estate(t, parents+"device.acme/mill/north/a device.acme/mill/north/b"))
			ids := identities(load(t, s))
			for _, step := range steps {
				desired := estate(t, parents+step[0])
				from, to, _ := strings.Cut(step[1], " ")
				var move registry.Moved
				if err := errors.Join(move.From.UnmarshalText([]byte(from)), move.To.UnmarshalText([]byte(to))); err != nil {
					t.Fatal(err)
				}
				desired.Moves = append(desired.Moves, move)
				reconcile(t, s, desired)
			}
			live := load(t, s)
			back := stateOf(t, s, 1).Of(registry.DefaultOwner)
			back.MoveBack(live)
			plan := registry.Diff(live, back)
			if n := plan.Count(); n.Moves != 2 || n.Creates+n.Deletes > 0 {
				t.Errorf("%+v: %s", n, show(plan))
			}
			if _, err := s.Apply(testContext(t), plan, author); err != nil {
				t.Fatal(err)
			}
			if got := identities(load(t, s)); !maps.Equal(got, ids) {
				t.Errorf("after the rollback there is\n%v\nwant\n%v", got, ids)
			}
		})
	}
}
