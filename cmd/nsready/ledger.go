package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/engine/telemetry"
)

// ledgerView is what ledger -json prints.
type ledgerView struct {
	FormatVersion string        `json:"format_version"`
	Balanced      bool          `json:"balanced"`
	Since         time.Time     `json:"since"`
	Entries       []ledgerEntry `json:"entries"`
	Total         ledgerTotal   `json:"total"`
	Queued        *int64        `json:"queued"` // events in the queue; null when the service could not be asked
}

type ledgerEntry struct {
	store.LedgerEntry
	Imbalance int64 `json:"imbalance"`
}

type ledgerTotal struct {
	telemetry.Tally
	Imbalance int64 `json:"imbalance"` // of the entries, too few or too many
}

func runLedger(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "ledger [flags]", `
Show what became of every event that workers took from the queue, by customer and hour of receipt, as the database counts:
accepted = stored + merged + duplicate + dead + lost. The exit code is 0 when that holds in every line, 2 when an event
is unaccounted for, and 1 when that could not be found out.

Example:
  nsready ledger -since 7d -by customer`)
	var t target
	t.registerDatabase(f)
	customer := f.String("customer", "", "`NAME` of the only customer to show")
	since := f.String("since", "24h", "how far to look back: a `time` such as 90m, 24h or 7d, or a date as 2026-11-20T08:00:00Z")
	by := f.String("by", "hour", "a line for each `hour` or customer")
	collector := f.String("target", "", "`URL` of the collector, which knows what is in the queue\n(default: the one of the 'nsready up' that runs on -data)")
	asJSON := f.json("print the ledger as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	from, err := parseMoment(*since, time.Now())
	if err != nil {
		return fmt.Errorf("-since: %w", err)
	}
	if *by != "hour" && *by != "customer" {
		return fmt.Errorf("-by: want hour or customer, not %q", *by)
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	entries, err := db.Ledger(ctx, *customer, from, *by == "hour")
	if err != nil {
		return err
	}
	v := viewLedger(entries, from)
	queued, unknown := queueDepth(ctx, *collector, t.data)
	if unknown == nil {
		v.Queued = &queued
	}
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printLedger(s.stdout, v, *by == "hour", unknown)
	}
	if err == nil && !v.Balanced {
		return exit(exitNo)
	}
	return err
}

// viewLedger adds the entries up. Their imbalances do not cancel out.
func viewLedger(entries []store.LedgerEntry, since time.Time) ledgerView {
	v := ledgerView{FormatVersion: formatVersion, Since: since.UTC(), Entries: []ledgerEntry{}}
	for _, e := range entries {
		n := e.Imbalance()
		v.Entries = append(v.Entries, ledgerEntry{e, n})
		v.Total.Add(e.Tally)
		v.Total.Imbalance += max(n, -n)
	}
	v.Balanced = v.Total.Imbalance == 0
	return v
}

// parseMoment reads how far to look back from now, or a date.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("want a time such as 90m, 24h or 7d, or a date as 2026-11-20T08:00:00Z, not %q", text)
}

// collectorURL completes the address of a collector; without one it is that of the running 'nsready up'.
func collectorURL(target, data string) (string, error) {
	if target == "" {
		running, err := readReady(data)
		if err != nil {
			return "", fmt.Errorf("%w.\nStart one with 'nsready up', or name one with -target", err)
		}
		if target = running.Collector; target == "" {
			return "", errors.New("the running 'nsready up' does not say where its collector is: name one with -target")
		}
	}
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	return strings.TrimRight(target, "/"), nil
}

// queueDepth asks the service how many events wait in the queue.
func queueDepth(ctx context.Context, target, data string) (int64, error) {
	url, err := collectorURL(target, data)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/health", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var health struct {
		QueueDepth *int64 `json:"queue_depth"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&health); err != nil || health.QueueDepth == nil {
		return 0, fmt.Errorf("%s/v1/health is not that of a collector", url)
	}
	return *health.QueueDepth, nil
}

func printLedger(w io.Writer, v ledgerView, hourly bool, unknown error) error {
	var out bytes.Buffer
	paint := painter(w)
	name := func(e ledgerEntry) string {
		switch {
		case e.Customer != "":
			return clean(e.Customer)
		case e.CustomerID == uuid.Nil:
			return "(unknown)"
		}
		return e.CustomerID.String()
	}
	wide := len("customer")
	for _, e := range v.Entries {
		wide = max(wide, len([]rune(name(e))))
	}
	line := func(customer, hour string, t telemetry.Tally, imbalance int64) {
		fmt.Fprintf(&out, "%-*s", wide, customer)
		if hourly {
			fmt.Fprintf(&out, "  %-17s", hour)
		}
		for _, n := range []int64{t.Accepted, t.Stored, t.Merged, t.Duplicate, t.Dead, t.Lost} {
			fmt.Fprintf(&out, "  %10d", n)
		}
		text := fmt.Sprintf("  %10d", imbalance)
		if imbalance != 0 {
			text = paint(red, text)
		}
		fmt.Fprintln(&out, text)
	}
	fmt.Fprintf(&out, "%-*s", wide, "customer")
	if hourly {
		fmt.Fprintf(&out, "  %-17s", "hour (UTC)")
	}
	for _, column := range []string{"accepted", "stored", "merged", "duplicate", "dead", "lost", "imbalance"} {
		fmt.Fprintf(&out, "  %10s", column)
	}
	fmt.Fprintln(&out)
	for _, e := range v.Entries {
		hour := ""
		if e.Hour != nil {
			hour = e.Hour.Format("2006-01-02 15:04Z")
		}
		line(name(e), hour, e.Tally, e.Imbalance)
	}
	line("total", "", v.Total.Tally, v.Total.Imbalance)
	switch {
	case v.Queued != nil:
		fmt.Fprintf(&out, "\n%d events are in the queue and not stored yet.\n", *v.Queued)
	default:
		first, _, _ := strings.Cut(unknown.Error(), "\n")
		fmt.Fprintf(&out, "\nWhat is in the queue is not known: %s\n", first)
	}
	if v.Balanced {
		fmt.Fprintln(&out, "Every event is accounted for.")
	} else {
		fmt.Fprintf(&out, "IMBALANCE: %d events are unaccounted for.\n", v.Total.Imbalance)
	}
	_, err := w.Write(out.Bytes())
	return err
}
