package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// target says which declaration goes to which database.
type target struct {
	config, databaseURL, data string
	variables                 variables
}

func (t *target) register(f *flags) {
	f.StringVar(&t.config, "config", defaultConfig, configUsage)
	t.variables.register(f)
	t.registerDatabase(f)
}

func (t *target) registerDatabase(f *flags) {
	f.StringVar(&t.databaseURL, "database-url", "", "`URL` of the database, as postgres://USER:PASSWORD@HOST:PORT/DATABASE\n(default $DATABASE_URL, else the database of the 'nsready up' that runs on -data)")
	f.StringVar(&t.data, "data", ".nsready", "data `DIR` of the running 'nsready up'")
}

func runPlan(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "plan [flags]", `
Compare the declaration with the registry and show what apply would change. Nothing is changed, and nothing is locked.
The exit code is 0 with and without changes, and 1 when there is no plan. With -detailed-exitcode it is
0 when there are no changes, 1 when there is no plan, and 2 when there are changes.
A plan that apply would refuse, because of protected objects or those of other declarations, is shown and says so.
Below a change of retention, a device, a parameter or a threshold it says what that does to what is stored and to alerts.

Example:
  nsready plan -detailed-exitcode -config estates/north`)
	var t target
	t.register(f)
	asJSON := f.Bool("json", false, "print the plan as JSON")
	detailed := f.Bool("detailed-exitcode", false, "exit with 2 when there are changes")
	var look impactOptions
	look.register(f)
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	err := func() error {
		if err := look.check(); err != nil {
			return err
		}
		declared, err := loadConfig(s, t.config, *asJSON, t.variables...)
		if err != nil {
			return err
		}
		db, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer db.Close()
		current, _, err := loadRegistry(ctx, db)
		if err != nil {
			return err
		}
		v := viewPlan(registry.Diff(current, declared))
		if err := problems(v.Plan); err != nil {
			return err
		}
		if v.Impact, err = look.assess(ctx, &t, db, current, v.Plan); err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(s.stdout, v)
		} else {
			err = printPlan(s.stdout, v)
		}
		if err == nil && *detailed && !v.Empty() {
			return exit(exitChanges)
		}
		return err
	}()
	if *asJSON {
		return reportJSON(s.stdout, err)
	}
	return err
}

// problems returns what makes a plan none: the declaration says of the registry what is not so.
func problems(plan *registry.Plan) error {
	if len(plan.Problems) == 0 {
		return nil
	}
	return (&registry.Plan{Problems: plan.Problems}).Refusal()
}

// loadRegistry reads the registry, which is empty and not ready when the database has no tables.
func loadRegistry(ctx context.Context, db *store.Store) (current *registry.Snapshot, ready bool, err error) {
	current, err = db.LoadRegistry(ctx)
	if errors.Is(err, store.ErrNoSchema) {
		return registry.NewSnapshot(nil), false, nil
	}
	return current, true, err
}

// open connects to the database that the flags, the environment or a running 'nsready up' name.
func (t *target) open(ctx context.Context) (*store.Store, error) {
	url := t.databaseURL
	if url == "" {
		url = os.Getenv("DATABASE_URL")
	}
	if url == "" {
		running, err := readReady(t.data)
		if err != nil {
			return nil, fmt.Errorf("which database? %w.\nStart one with 'nsready up', or name one with -database-url URL or with the environment variable DATABASE_URL", err)
		}
		url = running.DatabaseURL
	}
	return store.Open(ctx, url)
}

// readReady reads what the 'nsready up' that runs on a data directory says of itself.
func readReady(data string) (r ready, err error) {
	name := filepath.Join(data, "ready.json")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("no 'nsready up' runs on %s: there is no %s", data, name)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil || r.DatabaseURL == "" || r.Pid <= 0 {
		return ready{}, fmt.Errorf("%s was not written by 'nsready up'", name)
	}
	if err := syscall.Kill(r.Pid, 0); errors.Is(err, syscall.ESRCH) {
		return ready{}, fmt.Errorf("no 'nsready up' runs on %s: its process %d has ended", data, r.Pid)
	}
	return r, nil
}
