package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

type accepted func() (ingest.Result, error)

func (a accepted) Accept(context.Context, ingest.Format, []byte) (ingest.Result, error) { return a() }

// Telegraf and Prometheus repeat what is refused for a while, and nothing that is refused for good: see the comment on top
// of points.go for how each of them reads a status.
func TestWhichRefusalsAreRepeated(t *testing.T) {
	rejected := ingest.Result{Rejected: 1, Accepted: 3, Rejections: []ingest.Rejection{{Line: 2, Code: "unknown_device", Message: "No."}}}
	for name, c := range map[string]struct {
		result     ingest.Result
		err        error
		held       int64
		v1, v2, rw int
		retry      bool
	}{
		"accepted":      {result: ingest.Result{Accepted: 1}, v1: 204, v2: 204, rw: 204},
		"nothing":       {v1: 204, v2: 204, rw: 204},
		"partly":        {result: rejected, v1: 400, v2: 400, rw: 400},
		"not yet known": {err: &telemetry.UnavailableError{Code: ingest.CodeRegistryDown, RetryAfter: 2 * time.Second, Err: errors.New("inside")}, v1: 503, v2: 503, rw: 503, retry: true},
		"queue full":    {err: &telemetry.UnavailableError{Code: "queue_full", RetryAfter: 5 * time.Second, Err: errors.New("inside")}, v1: 503, v2: 503, rw: 503, retry: true},
		"too busy":      {held: maxHeld, v1: 503, v2: 429, rw: 503, retry: true},
		"damaged":       {err: &ingest.Rejection{Code: ingest.CodeProtobufInvalid, Message: "No."}, v1: 400, v2: 400, rw: 400},
		"too many":      {err: &ingest.Rejection{Code: ingest.CodeTooManyEvents, Message: "No."}, v1: 413, v2: 413, rw: 413},
		"unforeseen":    {err: errors.New("inside"), v1: 500, v2: 500, rw: 500},
	} {
		t.Run(name, func(t *testing.T) {
			collector := &Collector{Ingest: accepted(func() (ingest.Result, error) { return c.result, c.err }), Log: slog.New(slog.DiscardHandler),
				Metrics: http.NotFoundHandler(), Latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x"})}
			collector.held.total.Store(c.held)
			h := collector.Handler()
			for path, want := range map[string]int{"/write": c.v1, "/api/v2/write": c.v2, "/api/v1/write": c.rw} {
				r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(snappy.Encode(nil, []byte("body")))))
				if path == "/api/v1/write" {
					r.Header.Set("Content-Encoding", "snappy")
					r.Header.Set("Content-Type", "application/x-protobuf")
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != want || (w.Header().Get("Retry-After") != "") != c.retry {
					t.Errorf("%s: %d %v %s, want %d", path, w.Code, w.Header(), w.Body, want)
				}
				if body := w.Body.String(); w.Code >= 500 && (strings.Contains(body, "partial write") || strings.Contains(body, "unable to parse")) || strings.Contains(body, "inside") {
					t.Errorf("%s: the body is %s", path, body)
				}
			}
			if n := collector.held.total.Load(); n != c.held {
				t.Errorf("%d bytes are held", n-c.held)
			}
		})
	}
}

func TestUnzstdTakesNoMemoryForWhatItRefuses(t *testing.T) {
	cover := func(int64) error { return nil }
	for _, exponent := range []byte{14, 18, 21} { // of the window, 16 MiB to 2 GiB: RFC 8878, 3.1.1.1.2
		frame := []byte("\x28\xb5\x2f\xfd\x00" + string([]byte{exponent << 3}) + "\x01\x00\x00")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			_, err := unzstd(nil, frame, cover)
			if refused := (*httpError)(nil); !errors.As(err, &refused) || refused.code != "zstd_invalid" || refused.status != 400 {
				t.Fatal(exponent, err)
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("refusing a window of %d bytes takes %d", 1<<(10+exponent), n/10)
		}
	}
}

func TestExpandedBodiesAreCovered(t *testing.T) {
	body := []byte(strings.Repeat(fmt.Sprint(time.Now()), 1<<15))
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for name, c := range map[string]struct {
		expand     decompress
		compressed []byte
	}{"zstd": {unzstd, z.EncodeAll(body[:len(body)/100], nil)}, "snappy": {unsnappy, snappy.Encode(nil, body)}} {
		full := errors.New("full")
		if _, err := c.expand(nil, c.compressed, func(n int64) error {
			if n > 8<<10 {
				return full
			}
			return nil
		}); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzExpand(f *testing.F) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer z.Close()
	f.Add(z.EncodeAll([]byte("m,host=a v=1"), nil))
	f.Add(snappy.Encode(nil, []byte("m,host=a v=1")))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	f.Fuzz(func(t *testing.T, compressed []byte) {
		for _, expand := range []decompress{unzstd, unsnappy, gunzip} {
			b, err := expand(nil, compressed, func(int64) error { return nil })
			if refused := (*httpError)(nil); err != nil && (!errors.As(err, &refused) || refused.status != 400 && refused.status != 413) {
				t.Errorf("%v", err)
			}
			if err == nil && (len(b) > MaxBatchBody || len(b) > maxRatio*len(compressed)) {
				t.Errorf("%d bytes became %d", len(compressed), len(b))
			}
		}
	})
}
