package store

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nsready/nsready/engine/registry"
)

func TestPhases(t *testing.T) {
	s := migrated(t)
	ctx := testContext(t)
	cur := load(t, s)
	plan := registry.Diff(cur, bigEstate(100000, ""))
	for _, what := range []string{"create", "10k"} {
		if what == "10k" {
			if _, err := s.Apply(ctx, plan, author); err != nil { t.Fatal(err) }
			plan = registry.Diff(load(t, s), bigEstate(100000, "paused"))
		}
	pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		puts := map[registry.Kind][]*registry.Change{}
		for i := range plan.Changes {
			c := &plan.Changes[i]
			puts[c.Address.Kind] = append(puts[c.Address.Kind], c)
		}
		lap := time.Now()
		took := func(w string) { t.Logf("%s %-20s %v", what, w, time.Since(lap)); lap = time.Now() }
		tx.Exec(ctx, `SET CONSTRAINTS ALL DEFERRED`)
		for _, tb := range tables {
			if len(puts[tb.kind]) == 0 { continue }
			if err := tb.stage(ctx, tx, puts[tb.kind]); err != nil { t.Fatal(err) }
			took(tb.name + " stage")
			if _, err := tx.Exec(ctx, tb.update()); err != nil { t.Fatal(err) }
			took(tb.name + " update")
			if tb.name == "devices" && what == "10k" { rows, _ := tx.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS) "+tb.update()); l, _ := pgx.CollectRows(rows, pgx.RowTo[string]); for _, x := range l { t.Log(x) } }
			if tb.name == "devices" { rows, _ := tx.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS) "+tb.insert()); l, _ := pgx.CollectRows(rows, pgx.RowTo[string]); for _, x := range l { t.Log(x) } } else
			if _, err := tx.Exec(ctx, tb.insert()); err != nil { t.Fatal(err) }
			took(tb.name + " insert")
		}
		if _, err := tx.Exec(ctx, `SET CONSTRAINTS ALL IMMEDIATE`); err != nil { t.Fatal(err) }
		took("constraints")
		b, _ := json.Marshal(plan)
		took("marshal")
		t.Log(len(b))
		checkText(plan)
		took("checkText")
		if err := recordVersion(ctx, tx, plan, author, 99); err != nil { t.Fatal(err) }
		took("record")
		return pgx.ErrNoRows
	})
	}
}
