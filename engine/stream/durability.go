package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// durability is what an acknowledgement means, and what is to be said about it.
type durability struct{ level, problem string }

const durabilityInterval = 30 * time.Second

// Durability returns what an acknowledgement means: "fsync" when the frame is synced to disk, on each server that holds it;
// "replicated" when it is with several servers that may not have synced it; "unsynced" when it is with one such server.
func (q *Queue) Durability() string { return q.durability.Load().level }

// DurabilityProblem returns what is wrong with the durability, or "".
func (q *Queue) DurabilityProblem() string { return q.durability.Load().problem }

func (q *Queue) watchDurability(ctx context.Context) {
	tick := time.NewTicker(durabilityInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			q.measureDurability(ctx)
		}
	}
}

func (q *Queue) measureDurability(ctx context.Context) {
	if !q.options.External {
		q.durability.Store(&durability{level: "fsync"})
		return
	}
	synced := map[string]bool{} // server names
	why := "no server's monitor is known that could tell whether it syncs always"
	for _, u := range q.options.MonitorURLs {
		name, always, err := askMonitor(ctx, u)
		switch {
		case err != nil:
			why = err.Error()
		case !always:
			why = fmt.Sprintf("server %s does not sync always (jetstream { sync_interval: always })", name)
		}
		if err == nil && always {
			synced[name] = true
		}
	}
	replicas, all := 0, true
	for _, p := range q.partitions {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		info, err := p.stream.Info(asking)
		cancel()
		if err != nil { // what was known before holds on
			info = p.stream.CachedInfo()
		}
		servers := []string{q.nc.ConnectedServerName()}
		if c := info.Cluster; c != nil {
			servers = []string{c.Leader}
			for _, r := range c.Replicas {
				servers = append(servers, r.Name)
			}
		}
		for _, s := range servers {
			if !synced[s] {
				if all && len(synced) > 0 && len(synced) == len(q.options.MonitorURLs) {
					why = fmt.Sprintf("server %q holds frames, and none of the monitors is its own", s)
				}
				all = false
			}
		}
		if n := max(info.Config.Replicas, 1); replicas == 0 || n < replicas {
			replicas = n
		}
	}
	d := &durability{level: "fsync"}
	switch {
	case all:
	case replicas > 1:
		d.level = "replicated"
	default:
		d = &durability{"unsynced", "queue: a power cut may lose the last acknowledged events: " + why}
	}
	if was := q.durability.Swap(d); d.level != "fsync" && (was == nil || was.level != d.level) {
		q.options.Log.Warn("the queue's server may not have synced what is acknowledged", "durability", d.level, "why", why)
	}
}

// askMonitor asks a NATS server's HTTP monitor for the server's name and whether its JetStream syncs always.
func askMonitor(ctx context.Context, monitor string) (name string, always bool, err error) {
	u, err := url.Parse(monitor)
	if err != nil || u.Host == "" {
		return "", false, fmt.Errorf("a monitor's URL is not valid: it has the form http://host:8222")
	}
	doing := func(err error) error { return fmt.Errorf("asking the monitor %s: %w", u.Redacted(), err) }
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(monitor, "/")+"/varz", nil)
	if err != nil {
		return "", false, doing(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", false, doing(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", false, doing(fmt.Errorf("it answers %s", answer.Status))
	}
	var varz struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 4<<20)).Decode(&varz); err != nil {
		return "", false, doing(err)
	}
	return varz.Name, varz.JetStream.Config.SyncAlways, nil
}
