// Package api is the HTTP side of the service: the collector that devices talk to, and the admin API. It turns requests
// into calls and errors into statuses, and knows nothing else.
package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/ingest"
)

// Limits on a request to the collector, in bytes.
const (
	MaxEventBody = 512 << 10 // of one event
	MaxBatchBody = 8 << 20   // of a batch, as sent and after decompression

	firstRead = 4 << 10  // the least that a body counts for
	aheadRead = 64 << 10 // the most that is set aside for a body before it has come
	keptRead  = 1 << 20  // the most that is kept after it

	maxURL     = 2 << 10
	maxHeaders = 100 // lines, whose size the server limits
)

// Accepter takes bodies in; see ingest.Service.
type Accepter interface {
	Accept(ctx context.Context, format ingest.Format, body []byte) (ingest.Result, error)
}

// Collector serves devices. Its fields are set before Handler.
type Collector struct {
	Ingest  Accepter // nil: health and metrics alone
	Health  func() Health
	Ready   func() error // why the service is not ready, or nil
	Metrics http.Handler
	Latency prometheus.Observer // seconds from a request's first byte to its answer
	Log     *slog.Logger

	held   held
	bodies sync.Pool
}

// Health is the body of /v1/health, in the original's shape. Depths are in events.
type Health struct {
	Service    string      `json:"service"` // ok or degraded
	QueueDepth int64       `json:"queue_depth"`
	DB         string      `json:"db"` // connected or disconnected
	Queue      QueueHealth `json:"queue"`

	Status     string         `json:"status"`     // of the queue's depth against its thresholds: normal, warning, critical
	Durability string         `json:"durability"` // what an acknowledgement means: fsync, replicated or unsynced
	Storage    string         `json:"storage"`    // native-partitions or timescaledb
	Registry   RegistryHealth `json:"registry"`
	Problems   []string       `json:"problems,omitempty"`
}

// RegistryHealth is which state of the registry events are judged by, and the newest that the database has, as far as known.
type RegistryHealth struct {
	Version        int64 `json:"version"`  // of the last apply
	Revision       int64 `json:"revision"` // of the last change by whatever means
	NewestVersion  int64 `json:"newest_version"`
	NewestRevision int64 `json:"newest_revision"`
}

// QueueHealth is the original's account of its consumer.
type QueueHealth struct {
	Consumer     string `json:"consumer"`
	Pending      int64  `json:"pending"`     // events not read by a worker
	AckPending   int64  `json:"ack_pending"` // events read and not committed
	Redelivered  int64  `json:"redelivered"`
	WaitingPulls int64  `json:"waiting_pulls"`
}

// Handler returns the collector's routes. What browsers need beside the answer is left off the hot one.
func (c *Collector) Handler() http.Handler {
	r := newRouter(c.Log)
	r.GET("/v1/health", c.health)
	r.GET("/health", c.health)
	r.GET("/healthz", func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		writeJSON(w, http.StatusOK, status{"ok"})
	})
	r.GET("/readyz", c.ready)
	r.Handler(http.MethodGet, "/metrics", c.Metrics)
	hot := newRouter(c.Log)
	if c.Ingest != nil {
		hot.POST(HotPath, c.ingest)
		c.handlePoints(hot)
	}
	hot.NotFound, hot.HandleMethodNotAllowed = secure(r), true
	return checkHead(hot)
}

type status struct {
	Status string `json:"status"`
}

func (c *Collector) health(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
	writeJSON(w, http.StatusOK, c.Health())
}

func (c *Collector) ready(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
	if err := c.Ready(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, struct {
			Status string `json:"status"`
			Reason string `json:"reason"`
		}{"not ready", err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, status{"ready"})
}

// ingest answers 200 when what it accepted is on disk.
func (c *Collector) ingest(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	b := c.takeBody(r)
	defer c.putBody(b)
	format, err := b.read(r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	// A client that goes away, or closes its half, does not take back what it has sent.
	result, err := c.Ingest.Accept(context.WithoutCancel(r.Context()), format, b.data)
	if err != nil {
		writeError(w, r, err)
		return
	}
	if result.Limited > 0 {
		setRetryAfter(w, result.RetryAfter)
	}
	if result.Accepted == 0 {
		writeRejections(w, result)
		return
	}
	b.answer = writeQueued(w, result, b.answer[:0])
}

// checkHead refuses requests for what stands in their head.
func checkHead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var refusal *httpError
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		switch {
		case r.ProtoMajor != 1: // the preface of HTTP/2 without TLS, which net/http lets through
			refusal = &httpError{http.StatusHTTPVersionNotSupported, "http_version_unsupported", "This address speaks HTTP/1.1.", 0}
		case len(r.RequestURI) > maxURL:
			refusal = &httpError{http.StatusRequestURITooLong, "url_too_long", fmt.Sprintf("The URL is longer than %d bytes.", maxURL), 0}
		case lines > maxHeaders:
			refusal = &httpError{http.StatusRequestHeaderFieldsTooLarge, "too_many_headers", fmt.Sprintf("The request has more than %d headers.", maxHeaders), 0}
		}
		// net/http does not say whether a chunked request had a Content-Length too. Nothing behind such a one may be taken for
		// a request (RFC 9112, 6.1).
		if refusal != nil || len(r.TransferEncoding) > 0 {
			w.Header()["Connection"] = connectionClose
		}
		if refusal != nil {
			writeError(w, r, refusal)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var connectionClose = []string{"close"}

// takeBody returns memory for the body of a request, from which on its time counts.
func (c *Collector) takeBody(r *http.Request) *body {
	b, ok := c.bodies.Get().(*body)
	if !ok {
		b = &body{}
	}
	b.start, b.held = time.Now(), c.held.begin(r)
	return b
}

// putBody takes a body back when its request is answered. A buffer that one large body needed is not kept for the small ones.
func (c *Collector) putBody(b *body) {
	b.held.release()
	c.Latency.Observe(time.Since(b.start).Seconds())
	if cap(b.data) <= keptRead && cap(b.compressed) <= keptRead {
		c.bodies.Put(b)
	}
}

// writeQueued answers that events are queued, in out's memory. The single event's answer is on the hot path and written by
// hand.
func writeQueued(w http.ResponseWriter, result ingest.Result, out []byte) []byte {
	out = append(out, `{"status":"queued","trace_id":"`...)
	out = appendUUID(out)
	if !result.Batch {
		out = append(out, '"')
		out = append(appendHeld(out, result.Held), '}')
	} else {
		out = append(out, `","accepted":`...)
		out = strconv.AppendInt(out, int64(result.Accepted), 10)
		out = appendHeld(out, result.Held)
		out = append(out, `,"rejected":`...)
		out = strconv.AppendInt(out, int64(result.Rejected), 10)
		out = append(out, `,"errors":`...)
		if len(result.Rejections) == 0 {
			out = append(out, "[]}"...)
		} else {
			list, err := json.Marshal(result.Rejections)
			if err != nil { // strings and numbers only
				panic(err)
			}
			out = append(append(out, list...), '}')
		}
	}
	w.Header()["Content-Type"] = contentJSON
	w.Write(out)
	return out
}

// appendHeld appends how many of the accepted events wait for their devices, when there are some.
func appendHeld(out []byte, n int) []byte {
	if n == 0 {
		return out
	}
	return strconv.AppendInt(append(out, `,"held":`...), int64(n), 10)
}

var contentJSON = []string{"application/json"}

// appendUUID appends a random UUID, version 4. It is no secret.
func appendUUID(b []byte) []byte {
	var id [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		id[i], id[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// body is a request's body, read into memory that is used again.
type body struct {
	data       []byte
	compressed []byte
	answer     []byte
	start      time.Time
	held       share
}

// read reads and decompresses the body of a request to ingest within its limits.
func (b *body) read(r *http.Request) (ingest.Format, error) {
	format, err := contentFormat(r.Header)
	if err != nil {
		return 0, err
	}
	expand, err := contentEncoding(r.Header)
	if err != nil {
		return 0, err
	}
	if err := b.load(r, expand); err != nil {
		return 0, err
	}
	if format == ingest.JSON && len(b.data) > MaxEventBody && firstByte(b.data) != '[' {
		return 0, tooLarge(MaxEventBody)
	}
	return format, nil
}

// load reads the body of a request within its limits, and decompresses it with expand, which is nil for none.
func (b *body) load(r *http.Request, expand decompress) (err error) {
	size := r.ContentLength
	if size > MaxBatchBody {
		return tooLarge(MaxBatchBody)
	}
	if err := b.held.add(min(max(size, firstRead), aheadRead)); err != nil {
		return err
	}
	target := &b.data
	if expand != nil {
		target = &b.compressed
	}
	cover := b.held.cover
	if *target, err = readAll(*target, r.Body, max(size, 0), MaxBatchBody, cover); err != nil || expand == nil {
		return err
	}
	compressed := int64(cap(b.compressed))
	b.data, err = expand(b.data, b.compressed, func(n int64) error { return cover(compressed + n) })
	return err
}

func firstByte(b []byte) byte {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) > 0 {
		return b[0]
	}
	return 0
}

// readAll reads r into b's memory, which grows as far as cover allows.
func readAll(b []byte, r io.Reader, size, limit int64, cover func(n int64) error) ([]byte, error) {
	b = b[:0]
	if want := min(max(size+1, firstRead), aheadRead); int64(cap(b)) < want { // more only when it has come
		b = make([]byte, 0, want)
	}
	for {
		if len(b) == cap(b) {
			if err := cover(2 * int64(cap(b))); err != nil {
				return b, err
			}
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return b, tooLarge(limit)
		}
		if err == io.EOF {
			return b, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return b, &httpError{http.StatusRequestTimeout, "body_timeout", "The body did not come in time: send it at once.", 0}
		}
		if err != nil {
			return b, readError()
		}
	}
}

func readError() error {
	return &httpError{http.StatusBadRequest, "body_incomplete", "The body ends before its announced length, or is not framed as HTTP wants it.", 0}
}
