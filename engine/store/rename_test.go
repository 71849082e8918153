package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// renaming is a plan that gives parameters other names, all at once: a swap too, which no declaration can say.
func renaming(current *registry.Snapshot, to map[registry.Address]registry.Address) *registry.Plan {
	plan := &registry.Plan{Registry: current.Registry, BaseVersion: current.Version, BaseRevision: current.Revision}
	for _, p := range current.Parameters {
		if a, ok := to[p.Addr]; ok {
			after, from := *p, p.Addr
			after.Addr, after.Key = a, p.Key[:len(p.Key)-len(p.Addr.Name())]+a.Name()
			plan.Changes = append(plan.Changes, registry.Change{Action: registry.Move, Address: a, From: &from, Before: p, After: &after})
		}
	}
	return plan
}

// Parameters are renamed, in turn, in rings, and to names that others had, while a worker stores: under the names that are,
// and, as the queue holds them, under those that were. Every value is found under the name that its parameter has at last.
func TestRenamedParametersKeepTheirValues(t *testing.T) {
	for seed := range uint64(4) {
		s := migrated(t)
		r := rand.New(rand.NewPCG(seed, 7))
		project := registry.NewAddress(registry.KindProject, "acme", "mill")
		named := func(name string) registry.Address { return project.Child(registry.KindParameter, name) }
		after := reconcile(t, s, estate(t, `customer.acme project.acme/mill site.acme/mill/north device.acme/mill/north/d
			parameter.acme/mill/a parameter.acme/mill/b parameter.acme/mill/c`))
		device, prefix := after.Devices[0].ID, registry.ParameterKey(after.Projects[0].ID, "")
		c := claimPartition(t, s)

		names := map[string]int{"a": 0, "b": 1, "c": 2} // of the parameters, by what they are called
		meant := map[string]int{"a": 0, "b": 1, "c": 2} // who a name in the queue means
		pool := []string{"a", "b", "c", "d", "e"}
		type point struct {
			at        telemetry.Micros
			parameter int
		}
		want := map[point]float64{}
		sets := map[string]*telemetry.ParameterSet{} // the queue's, shared by its events
		base := telemetry.MicrosOf(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
		for step := range 40 {
			if r.IntN(3) == 0 {
				to := map[registry.Address]registry.Address{}
				next := map[string]int{}
				r.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
				for i, name := range slices.Sorted(maps.Keys(names)) {
					next[pool[i]] = names[name]
					if name != pool[i] {
						to[named(name)] = named(pool[i])
					}
				}
				if _, err := s.Apply(testContext(t), renaming(load(t, s), to), author); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				names = next
				maps.Copy(meant, names)
				continue
			}
			var events []telemetry.Event
			for range 1 + r.IntN(4) {
				var keys []string
				of := map[int]bool{}
				known := slices.Sorted(maps.Keys(meant))
				for _, name := range known {
					if r.IntN(2) == 0 && !of[meant[name]] {
						of[meant[name]] = true
						keys = append(keys, prefix+name)
					}
				}
				if len(keys) == 0 {
					continue
				}
				id := fmt.Sprint(keys)
				if sets[id] == nil {
					sets[id] = &telemetry.ParameterSet{Keys: keys}
				}
				e := telemetry.Event{Device: device, Time: base + telemetry.Micros(r.IntN(12))*1e6, ReceivedAt: base, Set: sets[id]}
				for _, key := range keys {
					v := float64(r.IntN(1000))
					e.Values = append(e.Values, v)
					want[point{e.Time, meant[key[len(prefix):]]}] = v
				}
				events = append(events, e)
			}
			if len(events) > 0 {
				store(t, c, events)
			}
			got := map[point]float64{}
			rows, err := s.pool.Query(t.Context(), `SELECT time, parameter_key, value FROM v_scada_history`)
			if err != nil {
				t.Fatal(err)
			}
			var at time.Time
			var key string
			var value float64
			if _, err := pgx.ForEachRow(rows, []any{&at, &key, &value}, func() error {
				parameter, ok := names[key[len(prefix):]]
				p := point{telemetry.MicrosOf(at), parameter}
				if _, twice := got[p]; twice || !ok {
					t.Errorf("seed %d step %d: %s at %s is there twice, or no parameter", seed, step, key, at)
				}
				got[p] = value
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d step %d: got %v\nwant %v", seed, step, got, want)
			}
			newest := map[int]point{}
			for p := range want {
				if n, ok := newest[p.parameter]; !ok || p.at > n.at {
					newest[p.parameter] = p
				}
			}
			for name, parameter := range names {
				p, ok := newest[parameter]
				if !ok {
					continue
				}
				if v := query1[float64](t, s, `SELECT value FROM v_scada_latest WHERE parameter_key = $1`, prefix+name); v != want[p] {
					t.Errorf("seed %d step %d: the latest value of %s is %v, want %v", seed, step, name, v, want[p])
				}
			}
		}
	}
}

// A rename waits for a worker that is storing values under the old key, in a set of parameters that nobody else sees yet.
func TestRenameWaitsForWorkers(t *testing.T) {
	s := migrated(t)
	after := reconcile(t, s, estate(t, mill+"parameter.acme/mill/current device.acme/mill/north/d"))
	device, prefix := after.Devices[0].ID, registry.ParameterKey(after.Projects[0].ID, "")
	event := func(key string, value float64) []telemetry.Event {
		e := oneEvent(device, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), value)
		e.Set = &telemetry.ParameterSet{Keys: []string{prefix + key}}
		return []telemetry.Event{e}
	}
	c := claimPartition(t, s)
	store(t, c, event("voltage", 1))
	second := event("current", 2) // of the same time: both share a row now
	tx, err := c.Begin(t.Context(), second)
	if err == nil {
		err = tx.Write(t.Context(), second)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := load(t, s)
	project := before.Projects[0].Addr
	plan := renaming(before, map[registry.Address]registry.Address{
		project.Child(registry.KindParameter, "voltage"): project.Child(registry.KindParameter, "volt"),
	})
	done := make(chan error, 1)
	go func() {
		_, err := s.Apply(testContext(t), plan, author)
		done <- err
	}()
	waitFor(t, func() bool {
		return len(done) > 0 || query1[bool](t, s, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND
			application_name = 'nsready apply pat@press-pc' AND wait_event = 'advisory')`)
	})
	if _, err := tx.Commit(t.Context(), next(c, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := query1[string](t, s, `SELECT string_agg(split_part(parameter_key, ':', 3) || '=' || value, ' ' ORDER BY parameter_key) FROM v_scada_history`)
	if got != "current=2 volt=1" {
		t.Errorf("the history has %s", got)
	}
}
