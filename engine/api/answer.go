package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

// httpError is a refusal that HTTP itself is about.
type httpError struct {
	status     int
	code       string
	message    string
	retryAfter int // seconds; 0 for none
}

func (e *httpError) Error() string { return e.code + ": " + e.message }

func tooLarge(limit int64) error {
	return &httpError{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("The body is larger than %d bytes.", limit), 0}
}

// problem is one element of an answer's detail, in the original's shape with a code and a line added.
type problem struct {
	Type  string `json:"type"`
	Loc   []any  `json:"loc"` // "body" and the path of the field
	Msg   string `json:"msg"`
	Input string `json:"input,omitempty"`
	Line  int    `json:"line,omitempty"`

	Limit *ingest.Limit `json:"limit,omitempty"` // that the event would have exceeded
}

func problemOf(r *ingest.Rejection) problem {
	return problem{Type: r.Code, Loc: append([]any{"body"}, location(r.Field)...), Msg: r.Message, Input: r.Input, Line: r.Line, Limit: r.Limit}
}

// location splits a path such as metrics[2].value into "metrics", 2, "value".
func location(field string) (path []any) {
	for part := range strings.FieldsFuncSeq(field, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if n, err := strconv.Atoi(part); err == nil {
			path = append(path, n)
		} else {
			path = append(path, part)
		}
	}
	return path
}

// writeRejections answers that no event was accepted.
func writeRejections(w http.ResponseWriter, result ingest.Result) {
	if !result.Batch {
		r := &result.Rejections[0]
		if r.Code == ingest.CodeProtocolRequired { // the original's one error without a list
			writeJSON(w, http.StatusBadRequest, detail{"protocol is required"})
			return
		}
		writeJSON(w, statusForCode(r.Code), detail{[]problem{problemOf(r)}})
		return
	}
	list := make([]problem, len(result.Rejections))
	for i := range result.Rejections {
		list[i] = problemOf(&result.Rejections[i])
	}
	status := http.StatusUnprocessableEntity
	if result.Limited == result.Rejected { // all the same can be sent again
		status = http.StatusTooManyRequests
	}
	writeJSON(w, status, struct {
		Detail   []problem          `json:"detail"`
		Accepted int                `json:"accepted"`
		Rejected int                `json:"rejected"`
		Errors   []ingest.Rejection `json:"errors"` // in the form of an answer to a batch of which some events are accepted
	}{list, 0, result.Rejected, result.Rejections})
}

type detail struct {
	Detail any `json:"detail"`
}

// writeError answers a request that failed as a whole. What it does not know is 500, and its text stays inside.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	var (
		refusal     *httpError
		rejection   *ingest.Rejection
		unavailable *telemetry.UnavailableError
	)
	switch {
	case errors.As(err, &refusal):
		if refusal.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(refusal.retryAfter))
		}
		switch refusal.code {
		case "content_encoding_unsupported":
			w.Header().Set("Accept-Encoding", acceptedEncodings)
		case "body_too_large", "body_incomplete", "body_timeout": // what is left of the body is not worth reading
			w.Header().Set("Connection", "close")
		}
		writeJSON(w, refusal.status, detail{[]problem{{Type: refusal.code, Loc: []any{"body"}, Msg: refusal.message}}})
	case errors.As(err, &rejection):
		writeJSON(w, statusForCode(rejection.Code), detail{[]problem{problemOf(rejection)}})
	case errors.As(err, &unavailable):
		setRetryAfter(w, unavailable.RetryAfter)
		writeJSON(w, http.StatusServiceUnavailable, detail{[]problem{{Type: unavailable.Code, Loc: []any{"body"}, Msg: unavailableText(unavailable)}}})
	case r.Context().Err() != nil || errors.Is(err, context.Canceled): // nobody reads the answer
		writeJSON(w, http.StatusServiceUnavailable, detail{"The request was given up."})
	default:
		writeJSON(w, http.StatusInternalServerError, detail{"Internal error."})
	}
}

// setRetryAfter names a time after which sending again has a prospect, in whole seconds, at least one (RFC 9110, 10.2.3).
func setRetryAfter(w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}

// unavailableText tells a sender why the queue takes nothing, without the inner error's text.
func unavailableText(u *telemetry.UnavailableError) string {
	switch u.Code {
	case "queue_full":
		return "The queue is full: send again after the time in Retry-After."
	case "disk_full":
		return "The queue's disk is nearly full: send again after the time in Retry-After."
	case ingest.CodeRateLimitedDevice, ingest.CodeRateLimitedCustomer: // the text is for senders
		return u.Err.Error() + " A body with more events than may come at once never passes: send smaller ones."
	case ingest.CodeRegistryDown:
		return "The registry cannot be asked just now whether it knows the device or parameter: send again after the time in Retry-After."
	default:
		return "The queue cannot store the events just now: send again after the time in Retry-After."
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	out, err := json.Marshal(v)
	if err != nil {
		status, out = http.StatusInternalServerError, []byte(`{"detail":"Internal error."}`)
	}
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(status)
	w.Write(out)
}

// newRouter returns a router whose own answers have the original's form.
func newRouter(log *slog.Logger) *httprouter.Router {
	r := httprouter.New()
	r.NotFound = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusNotFound, detail{"Not Found"}) })
	r.MethodNotAllowed = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusMethodNotAllowed, detail{"Method Not Allowed"})
	})
	r.PanicHandler = func(w http.ResponseWriter, req *http.Request, cause any) {
		log.Error("panic while answering", "method", req.Method, "path", req.URL.Path, "panic", cause, "stack", string(debug.Stack()))
		writeJSON(w, http.StatusInternalServerError, detail{"Internal error."})
	}
	r.RedirectFixedPath = false
	return r
}

// secure sets the headers that browsers look at.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"] = nosniff
		h["Cache-Control"] = noStore
		next.ServeHTTP(w, r)
	})
}

var (
	nosniff = []string{"nosniff"}
	noStore = []string{"no-store"}
)

// statusOf is the one table from the code of a refusal to an HTTP status; what it does not name is 422.
var statusOf = map[string]int{
	ingest.CodeEmpty:            http.StatusBadRequest,
	ingest.CodeJSONInvalid:      http.StatusBadRequest,
	ingest.CodeTooDeep:          http.StatusBadRequest,
	ingest.CodeUTF8Invalid:      http.StatusBadRequest,
	ingest.CodeDuplicateKey:     http.StatusBadRequest,
	ingest.CodeFieldCase:        http.StatusBadRequest,
	ingest.CodeTooManyMembers:   http.StatusBadRequest,
	ingest.CodeNumberTooLong:    http.StatusBadRequest,
	ingest.CodeProtocolRequired: http.StatusBadRequest,
	ingest.CodeProtobufInvalid:  http.StatusBadRequest,
	ingest.CodeTooManyEvents:    http.StatusRequestEntityTooLarge,
	ingest.CodeEventTooLarge:    http.StatusRequestEntityTooLarge,

	ingest.CodeRateLimitedDevice:   http.StatusTooManyRequests,
	ingest.CodeRateLimitedCustomer: http.StatusTooManyRequests,
}

func statusForCode(code string) int {
	if s, ok := statusOf[code]; ok {
		return s
	}
	return http.StatusUnprocessableEntity
}
