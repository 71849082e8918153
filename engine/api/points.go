package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"

	"github.com/julienschmidt/httprouter"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

// The routes of InfluxDB's HTTP API, versions 1 and 2, and of Prometheus remote write that senders of points use. What they
// carry for authorization is not looked at.
//
// 204 says that all of the body is on disk. A body of which some points, or fields of points, are refused is 400: what is
// good of it is on disk, and the senders do not repeat it. Where one could not be judged just now none is queued and it is
// 503, and they repeat all of it. Telegraf's output for version 1 takes every 4xx as final
// (plugins/outputs/influxdb/http.go of 1.39.3), and Prometheus 429 as well unless it is configured otherwise: both get 503
// for it. A 5xx may not have the words "partial write" or "unable to parse", which end that output's retries too.

// pointsAPI is whose form an answer has.
type pointsAPI int

const (
	influxV1 pointsAPI = iota
	influxV2
	remoteWrite
)

func (c *Collector) handlePoints(r *httprouter.Router) {
	r.POST("/write", c.influx(influxV1))
	r.POST("/api/v2/write", c.influx(influxV2))
	r.POST("/api/v1/write", c.remoteWrite)
	r.GET("/ping", ping)
	r.HEAD("/ping", ping)
	r.GET("/query", query)
	r.POST("/query", query)
}

// influxVersion is what clients of version 1 that ask for it get to know: some choose what they send by it.
var influxVersion = []string{"1.8.0-nsready"}

func ping(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
	w.Header()["X-Influxdb-Version"] = influxVersion
	w.WriteHeader(http.StatusNoContent)
}

// query answers CREATE DATABASE, which Telegraf sends at its start, and everything else with nothing.
func query(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
	type result struct {
		Statement int `json:"statement_id"`
	}
	w.Header()["X-Influxdb-Version"] = influxVersion
	writeJSON(w, http.StatusOK, struct {
		Results []result `json:"results"`
	}{[]result{{0}}})
}

// influx answers requests to write line protocol. Their Content-Type says nothing.
func (c *Collector) influx(api pointsAPI) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
		format, ok := ingest.InfluxPrecision(r.URL.Query().Get("precision"))
		if !ok {
			api.refuse(w, &httpError{http.StatusBadRequest, "precision_unknown", "The precision is not known: want ns, us, ms, s, m or h.", 0})
			return
		}
		expand, err := contentEncoding(r.Header)
		if err != nil {
			api.refuse(w, err)
			return
		}
		c.points(w, r, api, format, expand)
	}
}

// remoteWrite answers Prometheus remote write 1.0.
func (c *Collector) remoteWrite(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if proto := parameters["proto"]; err != nil || kind != "application/x-protobuf" || proto != "" && proto != "prometheus.WriteRequest" {
		remoteWrite.refuse(w, &httpError{http.StatusUnsupportedMediaType, "content_type_unsupported",
			"The Content-Type is not supported: send application/x-protobuf with a prometheus.WriteRequest (remote write 1.0).", 0})
		return
	}
	if e := r.Header["Content-Encoding"]; len(e) != 1 || e[0] != "snappy" {
		w.Header().Set("Accept-Encoding", "snappy")
		remoteWrite.refuse(w, &httpError{http.StatusUnsupportedMediaType, "content_encoding_unsupported", "The Content-Encoding is not supported: send snappy.", 0})
		return
	}
	c.points(w, r, remoteWrite, ingest.Prometheus, unsnappy)
}

// points reads a body of points, and answers when what is accepted of it is on disk.
func (c *Collector) points(w http.ResponseWriter, r *http.Request, api pointsAPI, format ingest.Format, expand decompress) {
	b := c.takeBody(r)
	defer c.putBody(b)
	if err := b.load(r, expand); err != nil {
		api.refuse(w, err)
		return
	}
	// A client that goes away does not take back what it has sent.
	result, err := c.Ingest.Accept(context.WithoutCancel(r.Context()), format, b.data)
	switch {
	case err != nil:
		api.refuse(w, err)
	case len(result.Rejections) > 0:
		api.write(w, http.StatusBadRequest, codePartial, partialText(result), result.Rejections[0].Line)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// codePartial is InfluxDB's code for a partial write among others.
const codePartial = "invalid"

// partialText says which points are refused, in the words by which InfluxDB's clients know a partial write.
func partialText(result ingest.Result) string {
	const most = 10
	var out bytes.Buffer
	fmt.Fprintf(&out, "partial write: %d of %d points refused, %d stored without some of their fields:",
		result.Rejected, result.Accepted+result.Rejected, result.Partial)
	for i := range result.Rejections[:min(len(result.Rejections), most)] {
		r := &result.Rejections[i]
		fmt.Fprintf(&out, " line %d: %s", r.Line, r.Error())
		if r.Input != "" {
			fmt.Fprintf(&out, " (%s)", r.Input)
		}
		out.WriteByte(';')
	}
	if more := result.Rejected + result.Partial - most; more > 0 {
		fmt.Fprintf(&out, " and %d more;", more)
	}
	fmt.Fprintf(&out, " dropped=%d", result.Rejected)
	return out.String()
}

// refuse answers a request that failed as a whole.
func (api pointsAPI) refuse(w http.ResponseWriter, err error) {
	var (
		refusal     *httpError
		rejection   *ingest.Rejection
		unavailable *telemetry.UnavailableError
	)
	h := w.Header()
	switch {
	case errors.As(err, &refusal):
		status := refusal.status
		if refusal.retryAfter > 0 {
			h.Set("Retry-After", strconv.Itoa(refusal.retryAfter))
		}
		if refusal.code == "content_encoding_unsupported" && h.Get("Accept-Encoding") == "" {
			h.Set("Accept-Encoding", acceptedEncodings)
		}
		if status == http.StatusTooManyRequests && api != influxV2 || status == http.StatusRequestTimeout {
			status = http.StatusServiceUnavailable
		}
		if status == http.StatusRequestEntityTooLarge || refusal.code == "body_incomplete" || refusal.code == "body_timeout" { // the rest is not worth reading
			h.Set("Connection", "close")
		}
		api.write(w, status, refusal.code, refusal.message, 0)
	case errors.As(err, &rejection):
		api.write(w, statusForCode(rejection.Code), rejection.Code, rejection.Message, 0)
	case errors.As(err, &unavailable):
		setRetryAfter(w, unavailable.RetryAfter)
		api.write(w, http.StatusServiceUnavailable, unavailable.Code, unavailableText(unavailable), 0)
	case errors.Is(err, context.Canceled): // nobody reads the answer
		api.write(w, http.StatusServiceUnavailable, "canceled", "The request was given up.", 0)
	default:
		api.write(w, http.StatusInternalServerError, "internal", "Internal error.", 0)
	}
}

// write answers with an error. line is that of the first refused point, or 0.
func (api pointsAPI) write(w http.ResponseWriter, status int, code, message string, line int) {
	text := message
	if code != codePartial {
		text = code + ": " + message
	}
	switch api {
	case influxV1:
		writeJSON(w, status, struct {
			Error string `json:"error"`
		}{text})
	case influxV2:
		writeJSON(w, status, struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Line    int    `json:"line,omitempty"`
		}{code, message, line})
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintln(w, text) // Prometheus logs the first line
	}
}
