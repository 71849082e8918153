package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
)

// discoveryEstate has a place for parameters and one for devices.
const discoveryEstate = `discovery {
  max_devices = 10
}
customer "acme" {
  project "mill" {
    parameter "voltage" {}
%s
    site "north" {
      device "old" {
        type = "meter"
      }
%s
    }
  }
}
`

// TestPendingDevicesAreApproved goes the way from an unknown device to its stored values.
func TestPendingDevicesAreApproved(t *testing.T) {
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "estate.hcl")
	declare := func(parameters, devices string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, discoveryEstate, parameters, devices), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	declare("", "")
	_, r := up(t, data, "-config", file)
	db, err := pgx.Connect(t.Context(), r.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	until := func(what, want, sql string, args ...any) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(20 * time.Second)
		for {
			var got string
			if err := db.QueryRow(t.Context(), sql, args...).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: %s, want %s", what, got, want)
			}
		}
	}
	run := func(code int, args ...string) string {
		t.Helper()
		p := launch(t, args...)
		if got := p.exit(); got != code {
			t.Fatalf("%v exits with %d, want %d:\n%s", args, got, code, p.out.String())
		}
		return p.out.String()
	}
	send := func(path, body string) {
		t.Helper()
		resp, err := http.Post(r.Collector+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 && resp.StatusCode != 204 {
			t.Fatalf("%s %s: %s", path, body, resp.Status)
		}
	}
	declared, _, diags := config.Load(file)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	id, site, project := uuid.New(), declared.Sites[0], declared.Projects[0].ID
	now := time.Now().UTC().Format(time.RFC3339)
	send("/v1/ingest", fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"GPRS","source_timestamp":%q,"metrics":[{"parameter_key":%q,"value":5,"quality":192}]}`,
		project, site.ID, id, now, registry.ParameterKey(project, "voltage")))
	send("/write", "modbus,host=old voltage=1,extra=2,Extra\\ field=2\nm,host=${x}\"%{ voltage=3\nm,host=unwanted voltage=4")
	until("events held", "4", "SELECT count(*)::text FROM dead_letters WHERE reason = 'pending_device'")

	if out := run(0, "devices", "pending", "-data", data); !strings.Contains(out, id.String()) || !strings.Contains(out, "acme/mill/north: voltage") || !strings.Contains(out, "(unknown): Extra field, extra, voltage") {
		t.Errorf("the list is\n%s", out)
	}
	var view struct {
		Declared bool
		Devices  []struct {
			Device, Protocol, Site, Measurement string
			Events                              int
			Parameters                          []string
		}
	}
	if err := json.Unmarshal([]byte(run(0, "devices", "pending", "-json", "-data", data)), &view); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range view.Devices {
		if d.Device == id.String() {
			found = d.Protocol == "GPRS" && d.Site == "site.acme/mill/north" && d.Events == 1 && len(d.Parameters) == 1 && d.Parameters[0] == registry.ParameterKey(project, "voltage")
		}
	}
	if !view.Declared || len(view.Devices) != 4 || !found {
		t.Errorf("as JSON: %+v", view)
	}
	run(1, "devices", "pending", "-json", "-as-hcl", "-data", data)
	if out := run(2, "dlq", "replay", "-data", data, "-dry-run"); !strings.Contains(out, "0 dead letters would be sent, 4 kept") {
		t.Errorf("a replay of what waits: %s", out)
	}
	if out := run(0, "dlq", "purge", "-where", "reason=pending_device,device=unwanted", "-yes", "-data", data); !strings.Contains(out, "1 dead letter deleted") {
		t.Errorf("the purge says %s", out)
	}

	// What is printed is pasted as it is; the parameters that the project lacks are not comments any more then.
	blocks := run(0, "devices", "pending", "-as-hcl", "-data", data)
	for _, want := range []string{"# For site.acme/mill/north:\n\ndevice \"device-" + id.String()[:8] + "\" {\n  # 1 event held, by GPRS, from ", `id         = "` + id.String() + `"`, `parameters = ["voltage"]`,
		"device \"old\" {", `external_id = "old"`, "# parameter \"extra\" {}\n", "# \"Extra field\", by which no parameter can go\n", `external_id = "$${x}\"%%{"`} {
		if !strings.Contains(blocks, want) {
			t.Errorf("%s is not in\n%s", want, blocks)
		}
	}
	blocks = strings.Replace(blocks, `device "old"`, `device "old meter"`, 1) // its site is not known, nor who is there
	lacking := regexp.MustCompile(`(?m)^ *# (parameter "extra" {})$`).FindStringSubmatch(blocks)[1]
	declare(lacking, blocks)
	run(0, "validate", "-config", file)
	run(0, "apply", "-config", file, "-data", data, "-auto-approve")
	until("values", "1 2 3 5", "SELECT coalesce(string_agg(value::text, ' ' ORDER BY value), '') FROM ingest_events")
	until("the id", "1", "SELECT count(*)::text FROM devices WHERE id = $1", id)
	until("letters", "0", "SELECT count(*)::text FROM dead_letters")
	if out := run(0, "devices", "pending", "-as-hcl", "-data", data); out != "# No devices wait to be registered.\n" {
		t.Errorf("afterwards there is\n%s", out)
	}
	if out := run(0, "plan", "-config", file, "-data", data); !strings.Contains(out, "No changes") {
		t.Errorf("a second plan:\n%s", out)
	}

	// A point without any parameter stays, until there is one.
	send("/write", "m,host=late later=7")
	until("events held", "1", "SELECT count(*)::text FROM dead_letters WHERE reason = 'pending_device'")
	blocks += "device \"late\" {\n  type        = \"meter\"\n  external_id = \"late\"\n}\n"
	declare(lacking, blocks)
	run(0, "apply", "-config", file, "-data", data, "-auto-approve")
	until("letters", "unknown_parameter", "SELECT reason FROM dead_letters")
	declare(lacking+`
    parameter "later" {}`, blocks)
	run(0, "apply", "-config", file, "-data", data, "-auto-approve")
	run(0, "dlq", "replay", "-data", data)
	until("values", "1 2 3 5 7", "SELECT string_agg(value::text, ' ' ORDER BY value) FROM ingest_events")
}

// Collectors hold, and one of the workers replays, even when another dies meanwhile.
func TestHeldByManyProcesses(t *testing.T) {
	in := install(t)
	workers := map[string]*program{}
	for _, name := range []string{"one", "two"} {
		workers[name], _ = in.serve(name, "worker", "127.0.0.1:0")
	}
	_, first := in.serve("first", "collector", "127.0.0.1:0")
	_, second := in.serve("second", "collector", "127.0.0.1:0")
	sql := func(text string) {
		t.Helper()
		if err := execute(in.url, text); err != nil {
			t.Fatal(err)
		}
	}
	sql("INSERT INTO discovery DEFAULT VALUES")
	at := time.Now().Add(-time.Minute).UnixMicro()
	const each = 700
	for i, collector := range []string{first.Collector, second.Collector} {
		var body strings.Builder
		for n := range each {
			fmt.Fprintf(&body, "m,host=stranger-%d voltage=%d %d\n", n%3, n, at+int64(i*each+n))
		}
		in.until("a collector to know of the discovery", 20*time.Second, func() bool {
			resp, err := http.Post(collector+"/write?precision=us", "", strings.NewReader(body.String()))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode == 204
		})
	}
	in.until("events to be held", 20*time.Second, func() bool {
		return in.number("SELECT count(*) FROM dead_letters WHERE reason = 'pending_device'") == 2*each
	})
	sql("INSERT INTO devices (site_id, name, device_type, external_id) SELECT site_id, 'stranger-' || n, 'meter', 'stranger-' || n FROM (SELECT site_id FROM devices WHERE name = 'main-incomer') d, generate_series(0, 2) n")
	if err := workers["one"].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	in.until("all to be replayed", takeOver+20*time.Second, func() bool {
		return in.number("SELECT count(*) FROM dead_letters") == 0 && in.number("SELECT count(*) FROM ingest_events WHERE source = 'influx'") == 2*each
	})
	if n := in.number("SELECT count(*) FROM ledger WHERE accepted <> stored + merged + duplicate + dead + lost"); n != 0 {
		t.Errorf("%d lines of the ledger do not balance", n)
	}
	if n := in.number("SELECT sum(stored)::int FROM ledger"); n != 2*each {
		t.Errorf("%d events were stored, want %d", n, 2*each)
	}
}
