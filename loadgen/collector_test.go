package loadgen

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// collector keeps the ingest contract over memory. Its fields make it misbehave.
type collector struct {
	*httptest.Server

	// fault, when not nil, sees each request with its number and whole body, and answers in its own way by returning true.
	fault func(w http.ResponseWriter, request int, events []sentEvent) bool
	// reject says which events of a batch are refused.
	reject func(sentEvent) bool
	// store says what becomes of one accepted event.
	store func(c *collector, e sentEvent)
	depth func() int

	mu       sync.Mutex
	requests int
	rows     storedRows
	events   []sentEvent
}

func newCollector(t *testing.T) *collector {
	c := &collector{store: (*collector).keep}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) keep(e sentEvent) {
	at, err := time.Parse(time.RFC3339Nano, e.Timestamp)
	if err != nil {
		panic(err)
	}
	c.events = append(c.events, e)
	for _, m := range e.Metrics {
		c.rows = append(c.rows, storedRow{e.DeviceID, telemetry.MicrosOf(at), m.Key, m.Value, int16(m.Quality), e.EventID + ":" + m.Key})
	}
}

func (c *collector) StoredValues(ctx context.Context, prefix string, from, to telemetry.Micros,
	row func(uuid.UUID, telemetry.Micros, []byte, float64, int16, []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rows.StoredValues(ctx, prefix, from, to, row)
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.String() {
	case "GET /v1/health":
		depth := 0
		if c.depth != nil {
			depth = c.depth()
		}
		fmt.Fprintf(w, `{"service":"ok","queue_depth":%d,"db":"connected","queue":{}}`, depth)
	case "POST /v1/ingest":
		c.ingest(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (c *collector) ingest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	batch := r.Header.Get("Content-Type") == "application/x-ndjson"
	var events []sentEvent
	for d := json.NewDecoder(bytes.NewReader(body)); d.More(); {
		var e sentEvent
		if err := d.Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		events = append(events, e)
	}
	c.mu.Lock()
	c.requests++
	request := c.requests
	c.mu.Unlock()
	if c.fault != nil && c.fault(w, request, events) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var refusals []string
	for i, e := range events {
		if c.reject != nil && c.reject(e) {
			refusals = append(refusals, fmt.Sprintf(`{"line":%d,"code":"out_of_range","field":"metrics[0].value","message":"too large"}`, i+1))
			continue
		}
		c.store(c, e)
	}
	switch {
	case len(refusals) == len(events):
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprintf(w, `{"detail":[]}`)
	case batch:
		fmt.Fprintf(w, `{"status":"queued","trace_id":"%s","accepted":%d,"rejected":%d,"errors":[%s]}`, uuid.New(), len(events)-len(refusals), len(refusals), strings.Join(refusals, ","))
	default:
		fmt.Fprintf(w, `{"status":"queued","trace_id":"%s"}`, uuid.New())
	}
}
