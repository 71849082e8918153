package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/store/storetest"
)

// Two estates that differ in every table.
var everyTable = [2]string{`
retention {
  raw = "90d"
}
platform "queue_depth" {
  warning = 10
}
customer "a" {
  project "p" {
    parameter "v" {
      threshold "high" {
        above = 1
      }
    }
    site "s" {
      device "d" {
        type        = "meter"
        external_id = "X"
      }
      device "gone" {
        type = "meter"
      }
    }
  }
}
`, `
limits {
  connections = 5
}
discovery {
}
platform "disk_usage" {
  warning = "10%"
}
customer "a" {
  metadata = { changed = true }
  project "p" {
    description = "changed"
    parameter "v" {
      min = 1
      threshold "low" {
        below = 1
      }
    }
    site "s" {
      location = { changed = true }
      device "d" {
        type    = "meter"
        gateway = "new"
        override "v" {
          max = 5
        }
      }
      device "new" {
        type        = "meter"
        external_id = "X"
      }
    }
  }
}
customer "b" {
  parent = "a"
  project "p" {
    site "s" {
      device "d" {
        type = "meter"
      }
    }
  }
}
`}

// TestApplyKilledAtEachStep kills apply -9 at each of its steps, at each table. What is there afterwards is the old version
// or the new one, another plan tells which, and another apply goes on from it.
func TestApplyKilledAtEachStep(t *testing.T) {
	binary, dir, url := compile(t, "chaos"), t.TempDir(), storetest.Database(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var paths [2]string
	var declared [2]*registry.Snapshot
	for i, text := range everyTable {
		paths[i] = filepath.Join(dir, fmt.Sprint(i, ".hcl"))
		if err := os.WriteFile(paths[i], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		snapshot, _, diags := config.Load(paths[i])
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		declared[i] = snapshot
	}
	// run returns how nsready ended: its exit code, or -1 when it was killed.
	run := func(point string, args ...string) (code int, said string) {
		cmd := exec.CommandContext(ctx, binary, append(args, "-database-url", url)...)
		cmd.Env = append(os.Environ(), failpoint.Variable+"="+point)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	apply := func(point string, to int) (int, string) {
		return run(point, "apply", "-auto-approve", "-config", paths[to])
	}
	db, err := store.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	load := func() *registry.Snapshot {
		current, err := db.LoadRegistry(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return current
	}
	if code, said := apply("", 0); code != 0 {
		t.Fatal(said)
	}
	now := 0 // what is applied
	kill := func(point string) (killed bool) {
		to := 1 - now
		before := load()
		code, said := apply(point, to)
		after := load()
		old, done := registry.Diff(after, declared[now]).Empty(), registry.Diff(after, declared[to]).Empty()
		switch {
		case old == done:
			t.Fatalf("%s: neither the old version nor the new one: %s", point, said)
		case done != (after.Version == before.Version+1), old != (after.Version == before.Version):
			t.Errorf("%s: version %d after %d, but done is %v", point, after.Version, before.Version, done)
		case done != (code == 0 || strings.HasPrefix(point, "store.plan-committed")):
			t.Errorf("%s: ended with %d, done is %v: %s", point, code, done, said)
		case code != 0 && code != -1:
			t.Errorf("%s: ended with %d: %s", point, code, said)
		}
		want := map[bool]int{true: 0, false: exitNo}[done]
		if code, said := run("", "plan", "-detailed-exitcode", "-config", paths[to]); code != want {
			t.Errorf("%s: plan afterwards ends with %d, want %d: %s", point, code, want, said)
		}
		if done {
			now = to
		}
		return code == -1
	}
	for _, name := range failpoints(t) {
		if !strings.HasPrefix(name, "store.plan-") {
			continue
		}
		times := 0
		for kill(fmt.Sprintf("%s:%d", name, times+1)) {
			times++
		}
		t.Logf("killed %d times at %s", times, name)
		const tables = 11
		if want := map[bool]int{true: tables, false: 1}[strings.HasPrefix(name, "store.plan-table")]; times != want {
			t.Errorf("%s was hit %d times, want %d", name, times, want)
		}
	}
}
