package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
)

// TestWhatMQTTAcknowledgedSurvivesAKill publishes as fast as it goes and kills the service meanwhile.
func TestWhatMQTTAcknowledgedSurvivesAKill(t *testing.T) {
	declared, _, diags := config.Load("../../nsready.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := declared.Devices[0]
	data := filepath.Join(t.TempDir(), "data")
	p, r := up(t, data, "-mqtt", "127.0.0.1:0")
	if !strings.HasPrefix(r.MQTT, "mqtt://127.0.0.1:") {
		t.Fatalf("ready file %+v", r)
	}
	c := paho.NewClient(paho.NewClientOptions().AddBroker(strings.Replace(r.MQTT, "mqtt", "tcp", 1)).SetClientID("device").SetProtocolVersion(4).SetAutoReconnect(false))
	if token := c.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	var count atomic.Int64
	acknowledged := make(chan []time.Time, 1)
	began := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	go func() {
		type sent struct {
			at    time.Time
			token paho.Token
		}
		inFlight, done := make(chan sent, 32), []time.Time(nil)
		go func() {
			defer close(inFlight)
			for i := 0; c.IsConnected(); i++ {
				at := began.Add(time.Duration(i) * time.Millisecond)
				inFlight <- sent{at, c.Publish("nsready/ingest", 1, false, fmt.Sprintf(
					`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"MQTT","source_timestamp":%q,"metrics":[{"parameter_key":%q,"value":%d}]}`,
					d.ProjectID, d.SiteID, d.ID, at.Format(time.RFC3339Nano), registry.ParameterKey(d.ProjectID, d.Parameters[0]), i))}
			}
		}()
		for s := range inFlight {
			if s.token.WaitTimeout(10*time.Second) && s.token.Error() == nil {
				done = append(done, s.at)
				count.Add(1)
			}
		}
		acknowledged <- done
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for count.Load() < 2000 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("only %d publishes are acknowledged", count.Load())
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.exit()
	want := <-acknowledged
	_, r = up(t, data)
	deadline = time.After(30 * time.Second)
	db, err := pgx.Connect(t.Context(), r.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	for missing := -1; missing != 0; {
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM unnest($1::timestamptz[]) AS sent(at)
			WHERE (SELECT count(*) FROM ingest_events WHERE device_id = $2 AND time = at) <> 1`, want, d.ID).Scan(&missing); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("of %d acknowledged events %d are not stored once", len(want), missing)
		}
	}
	t.Logf("%d acknowledged events are stored", len(want))
}
