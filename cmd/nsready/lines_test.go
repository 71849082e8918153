package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// The schema of docs/ui-json.md: every kind of line with every member, byte for byte, and every member is explained there.
func TestLinesSchema(t *testing.T) {
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) { // whose clock begins with the year 2000
		device := registry.Address{Kind: registry.KindDevice, Path: "acme/mill/north/press-01"}
		from := registry.Address{Kind: registry.KindDevice, Path: "acme/mill/south/press-01"}
		fields := []registry.FieldChange{{Name: "type", Before: "meter", After: "<sensor>"}}
		v := viewPlan(&registry.Plan{BaseVersion: 12, Targets: []registry.Address{device}, Changes: []registry.Change{
			{Action: registry.Move, Address: device, From: &from, Reason: "has the id of this address, and goes back to it", Cause: registry.ByHand, Fields: fields},
		}})
		v.Impact, v.FailedOn = &impact.Report{}, []string{"drift"}
		v.ByHand = []driftEntry{{Drifted: registry.Drifted{Kind: registry.EditedByHand, Address: device, Fields: fields},
			By: &store.Touch{At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Who: "raj", Via: "psql from 10.0.0.7", Op: "update"}}}
		w := newLines(&out)
		w.diagnostic(diagnostic{Severity: "error", Code: "NSC0052", Summary: "Unknown parameter", Detail: "There is none.", Filename: "nsready.hcl", Start: &position{3, 5, 24},
			End: &position{3, 9, 28}, Snippet: "    volt = 1", context: `device "press-01"`, offset: 20})
		begun := time.Now()
		err := errors.Join(w.plan(v, []veto{{"drift", "1 object changed outside nsready"}}))
		w.saved(&savedView{"estate.plan", "v1.2.3", "pat@press-pc", "", time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)})
		w.applying("apply_start", "", 1, begun, "Applying 1 object in one transaction")
		time.Sleep(1500 * time.Millisecond)
		w.applying("apply_progress", registry.KindDevice, 1, begun, "Applying 1 device")
		w.applying("apply_complete", "", 1, begun, "Registry version 13 is made")
		w.applying("apply_errored", "", 0, begun, "the database is away")
		w.applied(&applyView{v, true, 13})
		if err := errors.Join(err, w.report(errors.New("the database is away"))); err != nil {
			t.Error(err)
		}
	})
	got := bytes.ReplaceAll(out.Bytes(), []byte(thisBuild().Version), []byte("v1.2.3"))
	const golden = "testdata/ui.ndjson"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	doc, err := os.ReadFile("../../docs/ui-json.md")
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(want) {
		var document map[string]any
		if err := json.Unmarshal(text, &document); err != nil {
			t.Fatal(err)
		}
		if kind := document["type"].(string); !bytes.Contains(doc, []byte("`"+kind+"`")) {
			t.Errorf("docs/ui-json.md does not explain the type %s", kind)
		}
		delete(document, "impact") // which docs/plan-json.md explains
		explained(t, string(doc), document)
	}
}

// A broken output stops a command before it changes anything.
func TestLinesTellOfABrokenOutput(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	if err := newLines(w).plan(viewPlan(&registry.Plan{}), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

// Lines are there when what they tell of happens, not in the end.
func TestLinesComeAsTheyHappen(t *testing.T) {
	url := migrated(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `BEGIN; SELECT FROM registry_state FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "apply", "-auto-approve", "-json=stream")
	cmd.Args[0], cmd.Dir, cmd.Env = "nsready", t.TempDir(), append(os.Environ(), "DATABASE_URL="+url)
	if err := os.WriteFile(filepath.Join(cmd.Dir, "nsready.hcl"), []byte(smallEstate), 0o644); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	var types []string
	in := bufio.NewScanner(stdout)
	for in.Scan() {
		var l struct{ Type string }
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", in.Bytes(), err)
		}
		if types = append(types, l.Type); l.Type == "apply_start" { // it cannot go on until it is let
			if !slices.Equal(types, []string{"version", "planned_change", "planned_change", "planned_change", "planned_change", "change_summary", "apply_start"}) {
				t.Errorf("before it waits it says %s", types)
			}
			if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(types); !slices.Equal(types[n-3:], []string{"apply_progress", "apply_complete", "change_summary"}) {
		t.Errorf("in the end it says %s", types)
	}
}
