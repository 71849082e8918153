package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	answers := map[string]struct {
		status int
		body   string
	}{
		"/health":     {200, `{"service":"ok","queue_depth":12,"db":"connected","status":"normal","durability":"fsync"}`},
		"/ill/health": {200, `{"service":"degraded","queue_depth":7,"db":"disconnected","status":"normal","durability":"unsynced","problems":["database: does not answer"]}`},
		"/readyz":     {503, `{"status":"not ready","reason":"queue: full"}`},
		"/healthz":    {200, `{"status":"ok"}`},
		"/admin":      {200, `{"service":"ok"}`},
		"/html":       {200, `<html>`},
		"/other":      {200, `{"hello":"world"}`},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answers[r.URL.Path].status)
		io.WriteString(w, answers[r.URL.Path].body)
	}))
	defer server.Close()
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"", 0, "ok, 12 events in the queue (normal), database connected, durability fsync\n"},
		{"/", 0, "ok, 12 events"},
		{"/ill/health", 2, "degraded, 7 events in the queue (normal), database disconnected, durability unsynced\n  database: does not answer\n"},
		{"/readyz", 2, "not ready: queue: full\n"},
		{"/healthz", 0, "ok\n"},
		{"/admin", 0, "ok\n"},
		{"/html", 1, "answers 200 OK, but does not tell how a service is"},
		{"/other", 1, "does not tell"},
	} {
		var out, said bytes.Buffer
		code := run(t.Context(), []string{"health", "-target", server.URL + c.path}, nil, &out, &said)
		if text := out.String() + said.String(); code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("health of %q exits with %d, want %d: %s", c.path, code, c.code, text)
		}
		out.Reset()
		if again := run(t.Context(), []string{"health", "-json", "-target", server.URL + c.path}, nil, &out, &said); again != c.code {
			t.Errorf("health -json of %q exits with %d", c.path, again)
		}
		var v healthView
		if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Ok != (c.code == 0) {
			t.Errorf("health -json of %q: %v: %s", c.path, err, out.String())
		}
	}
}
