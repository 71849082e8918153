package main

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

// healthView is what health -json prints.
type healthView struct {
	FormatVersion string          `json:"format_version"`
	Ok            bool            `json:"ok"`
	URL           string          `json:"url"`
	Status        int             `json:"status"` // of HTTP
	Milliseconds  float64         `json:"milliseconds"`
	Answer        json.RawMessage `json:"answer,omitempty"`

	told told
}

// told is what is read of an answer: of a collector's, of the admin API's, or of such as {"status": …}.
type told struct {
	Service    string   `json:"service"`
	QueueDepth *int64   `json:"queue_depth"`
	DB         string   `json:"db"`
	Status     string   `json:"status"`
	Reason     string   `json:"reason"`
	Durability string   `json:"durability"`
	Problems   []string `json:"problems"`
}

func runHealth(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "health [flags]", `
Ask a running service how it is. The exit code is 0 when it is well, 2 when it answers that it is not, and 1 when there is
no answer. It needs neither a shell nor curl, and so it is also what asks inside a container.

Example:
  nsready health -target http://localhost:8001`)
	at := f.String("target", "", "`URL` of a collector or an admin API; of another page of theirs, such as /healthz (it answers) or\n/readyz (it takes events); or of a NATS server's monitor, as http://nats:8222/healthz\n(default: the collector of the 'nsready up' that runs on -data)")
	data := f.String("data", ".nsready", "data `DIR` of the running 'nsready up'")
	timeout := f.Duration("timeout", 5*time.Second, "how long to wait for the answer")
	asJSON := f.json("print what was found, with the answer, as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	page, err := healthURL(*at, *data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	v, err := askHealth(ctx, page)
	if err != nil {
		return err
	}
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printHealth(s.stdout, v)
	}
	if err == nil && !v.Ok {
		return exit(exitNo)
	}
	return err
}

// healthURL completes a target. Collector and admin API both answer at /health.
func healthURL(target, data string) (string, error) {
	target, err := collectorURL(target, data)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("-target: want a URL such as http://localhost:8001, not %q", target)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/health"
	}
	return u.String(), nil
}

func askHealth(ctx context.Context, page string) (v healthView, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return v, err
	}
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return v, fmt.Errorf("no whole answer from %s: %w", page, err)
	}
	v = healthView{FormatVersion: formatVersion, URL: page, Status: resp.StatusCode, Milliseconds: float64(time.Since(start).Microseconds()) / 1000}
	if err := json.Unmarshal(body, &v.told); err != nil || v.told.Service == "" && v.told.Status == "" {
		return v, fmt.Errorf("%s answers %s, but does not tell how a service is", page, resp.Status)
	}
	v.Answer = body
	v.Ok = resp.StatusCode < 300 && (v.told.Service == "" || v.told.Service == "ok")
	return v, nil
}

func printHealth(w io.Writer, v healthView) error {
	t := v.told
	var text strings.Builder
	if t.Service != "" {
		text.WriteString(t.Service)
	} else {
		text.WriteString(t.Status)
	}
	if t.Reason != "" {
		fmt.Fprintf(&text, ": %s", t.Reason)
	}
	if t.QueueDepth != nil {
		fmt.Fprintf(&text, ", %d events in the queue (%s), database %s, durability %s", *t.QueueDepth, t.Status, t.DB, t.Durability)
	}
	text.WriteByte('\n')
	for _, problem := range t.Problems {
		fmt.Fprintf(&text, "  %s\n", problem)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
