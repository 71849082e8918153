package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/store"
)

// rejections gathers refused events for error_logs: one row for each code and device in an interval, with a count, so
// that a sender gone wild fills neither memory nor disk.
type rejections struct {
	store *store.Store
	log   *slog.Logger

	mu      sync.Mutex
	pending map[rejectionKey]*rejectionRow
	codes   map[string]int // rows of pending
	more    int            // refused events without a row of their own
}

type rejectionKey struct {
	code   string
	device uuid.UUID
}

type rejectionRow struct {
	first ingest.Rejection
	at    time.Time
	count int
}

const (
	maxRejections      = 1000
	maxOfCode          = 100 // made-up device ids are endless
	rejectionsInterval = 500 * time.Millisecond
)

func (r *rejections) add(device uuid.UUID, rejection *ingest.Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := rejectionKey{rejection.Code, device}
	if row := r.pending[key]; row != nil {
		row.count++
		return
	}
	if len(r.pending) >= maxRejections || r.codes[key.code] >= maxOfCode {
		r.more++
		return
	}
	if r.pending == nil {
		r.pending, r.codes = map[rejectionKey]*rejectionRow{}, map[string]int{}
	}
	r.codes[key.code]++
	r.pending[key] = &rejectionRow{first: *rejection, at: time.Now(), count: 1}
}

// run writes what was gathered, until ctx ends, and then once more.
func (r *rejections) run(ctx context.Context) error {
	tick := time.NewTicker(rejectionsInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now, cancel := context.WithTimeout(ctx, 5*time.Second)
			r.flush(now)
			cancel()
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			r.flush(last)
			return nil
		}
	}
}

// flush writes the gathered rows. When the database fails they wait for the next time.
func (r *rejections) flush(ctx context.Context) {
	r.mu.Lock()
	pending, more := r.pending, r.more
	r.pending, r.codes, r.more = nil, nil, 0
	r.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	entries := make([]store.LogEntry, 0, len(pending)+1)
	for key, row := range pending {
		detail := map[string]any{"code": key.code, "count": row.count}
		if key.device != uuid.Nil {
			detail["device_id"] = key.device
		}
		if row.first.Field != "" {
			detail["field"] = row.first.Field
		}
		if row.first.Input != "" {
			detail["input"] = row.first.Input
		}
		entries = append(entries, store.LogEntry{Time: row.at, Source: "ingest", Level: "ERROR",
			Message: row.first.Code + ": " + row.first.Message, Context: detail})
	}
	if more > 0 {
		entries = append(entries, store.LogEntry{Time: time.Now(), Source: "ingest", Level: "ERROR",
			Message: "more events were refused than error_logs has room for in an interval", Context: map[string]any{"count": more}})
	}
	if err := r.store.LogErrors(ctx, entries); err != nil {
		r.log.Warn("refused events are not in error_logs yet", "rows", len(entries), "err", err)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.more += more
		for key, row := range r.pending { // what came since
			if was := pending[key]; was != nil {
				was.count += row.count
			} else if len(pending) < maxRejections {
				pending[key] = row
			} else {
				r.more += row.count
			}
		}
		r.pending, r.codes = pending, map[string]int{}
		for key := range pending {
			r.codes[key.code]++
		}
	}
}
