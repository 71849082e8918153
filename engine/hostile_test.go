package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nsready/nsready/engine"
)

// A class of bad input, and members of it.
type class struct {
	id, what string
	members  []member
}

type member struct {
	name string
	try  func(x *trial)
}

// groups are the groups of classes, by how many each has.
var groups = map[string]int{"HF": 26, "EN": 16, "JS": 24, "NU": 22, "ST": 18, "TM": 16, "VO": 12}

// hostile is a service that bad input is sent to, and what of that it must have stored.
type hostile struct {
	*service
	client http.Client
	log    lockedBuffer
	now    time.Time

	mu       sync.Mutex
	made     int
	requests int
	stored   map[string]int    // rows by event id
	content  map[string]string // of some of them
}

// trial is one member's.
type trial struct {
	*testing.T
	*hostile
	class *class
	name  string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

func TestHostileInput(t *testing.T) {
	h := &hostile{now: time.Now().Add(-time.Hour).Truncate(time.Second), stored: map[string]int{}, content: map[string]string{}}
	h.service = start(t, func(o *engine.Options) {
		o.Log = slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	h.client = http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableCompression: true}}
	h.hosts()
	wait(t, "the external ids", func() bool { return h.engine.Snapshot().DeviceByExternalID("host 0") != nil })

	framing, slow := framingClasses()
	rows := slices.Concat(framing, encodingClasses(), syntaxClasses(), numberClasses(), stringClasses(), timeClasses(), volumeClasses())
	complete(t, slices.Concat(rows, slow))
	waits := h.begin(t, slow) // half a minute, beside the others
	for _, name := range []string{"HF", "EN", "JS", "NU", "ST", "TM", "VO"} {
		h.group(t, name, slices.DeleteFunc(slices.Clone(rows), func(c class) bool { return c.id[:2] != name }))
	}
	h.group(t, "points", pointClasses())
	waits()
	h.service.t = t
	h.drained()
	h.checkLog(t)
	h.checkStored(t)
}

// begin tries classes all at once. The function that it returns waits for them.
func (h *hostile) begin(t *testing.T, rows []class) (wait func()) {
	var all sync.WaitGroup
	for _, c := range rows {
		for _, m := range c.members {
			all.Go(func() { m.try(&trial{t, h, &c, m.name}) })
		}
	}
	return all.Wait
}

// complete checks that no class is missing, and that each has members.
func complete(t *testing.T, rows []class) {
	members := map[string]int{}
	for _, c := range rows {
		members[c.id] += len(c.members)
	}
	for name, n := range groups {
		for i := range n {
			if id := fmt.Sprintf("%s%02d", name, i+1); members[id] < 3 {
				t.Errorf("%s has %d members, want 3", id, members[id])
			}
		}
	}
}

// group tries classes, and looks at what they did to the service as a whole.
func (h *hostile) group(t *testing.T, name string, rows []class) {
	t.Run(name, func(t *testing.T) {
		h.service.t = t
		h.send(t, "GET", "/healthz", "")
		h.client.CloseIdleConnections()
		var heap runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&heap)
		heapBefore, goroutines, cpu, requests := heap.HeapAlloc, runtime.NumGoroutine(), cpuTime(t), h.requests
		t.Run("classes", func(t *testing.T) {
			for _, c := range rows {
				t.Run(c.id, func(t *testing.T) {
					for _, m := range c.members {
						m.try(&trial{t, h, &c, m.name})
					}
				})
			}
		})
		requests, cpu = h.requests-requests, cpuTime(t)-cpu
		h.client.CloseIdleConnections()
		wait(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines+8 })
		h.drained()
		runtime.GC()
		runtime.GC() // what pools held the first time
		runtime.ReadMemStats(&heap)
		growth := int64(heap.HeapAlloc) - int64(heapBefore)
		each := cpu / time.Duration(max(requests, 1))
		t.Logf("%d requests, %v of CPU for each and for what sends it, %d KiB of heap more", requests, each, growth>>10)
		if each > 10*time.Millisecond && !raced {
			t.Errorf("a request costs %v of CPU", each)
		}
		if growth > 24<<20 {
			t.Errorf("the heap has grown by %d MiB", growth>>20)
		}
		h.checkLog(t)
		h.checkStored(t)
	})
}

var raced bool // the race detector is on, which costs much

func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// checkLog wants nothing in the log that senders of bad input could put there, and no mistake of ours.
func (h *hostile) checkLog(t *testing.T) {
	text := h.log.take()
	for line := range strings.Lines(text) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			t.Errorf("in the log: %.500s", line)
		}
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("a control character in the log: %.500q", line)
		}
	}
	if len(text) > 1<<20 {
		t.Errorf("the log has %d KiB", len(text)>>10)
	}
	wait(t, "error_logs to be written without control characters", func() bool {
		return h.rows(`SELECT count(*) FROM error_logs WHERE message ~ '[\x01-\x1f\x7f-\x9f]' OR EXISTS (SELECT FROM jsonb_each_text(context) WHERE value ~ '[\x01-\x1f\x7f-\x9f]')`) == "0"
	})
}

// checkStored wants exactly the events in the database that were good.
func (h *hostile) checkStored(t *testing.T) {
	got := map[string]int{}
	rows, err := h.db.Query(t.Context(), "SELECT coalesce(event_id, source), count(*), min(concat_ws('|', vals, quality, attributes)) FROM telemetry GROUP BY 1")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, content string
		var n int
		if err := rows.Scan(&id, &n, &content); err != nil {
			t.Fatal(err)
		}
		got[id] = n
		if want, ok := h.content[id]; ok && content != want {
			t.Errorf("%s: stored is %s, want %s", id, content, want)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if n := got[id]; n != h.stored[id] {
			t.Errorf("%s: stored %d times, want %d", id, n, h.stored[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.stored)) {
		if got[id] == 0 {
			t.Errorf("%s: stored 0 times, want %d", id, h.stored[id])
		}
	}
	h.stored = got // it was said
}

func (x *trial) fail(format string, args ...any) {
	x.Helper()
	x.Errorf("%s %s: %s: %s", x.class.id, x.class.what, x.name, fmt.Sprintf(format, args...))
}

// refusable returns a good event at a time of its own that must not be stored once it is spoiled.
func (x *trial) refusable() string { return x.make("refused") }

// good returns an event that must be stored.
func (x *trial) good(note string) string {
	x.mu.Lock()
	x.stored[x.id(note)]++
	x.mu.Unlock()
	return x.make(note)
}

func (x *trial) id(note string) string { return x.class.id + " " + x.name + ": " + note }

func (x *trial) make(note string) string {
	x.mu.Lock()
	x.made++
	at := x.now.Add(time.Duration(x.made) * time.Millisecond)
	x.mu.Unlock()
	return strings.Replace(x.event(0, at, "voltage", "1"), `"metrics"`, fmt.Sprintf(`"event_id":%q,"metrics"`, x.id(note)), 1)
}

// ids returns the project, site and device of good events.
func (x *trial) ids() (project, site, device string) {
	d := x.device(0)
	return d.ProjectID.String(), d.SiteID.String(), d.ID.String()
}

func (h *hostile) send(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+h.engine.Addresses().Collector+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s with %d bytes: %v", method, path, len(body), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.requests++
	h.mu.Unlock()
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// ingest posts a body, and header fields, name and value in turn.
func (x *trial) ingest(kind, body string, header ...string) answer {
	x.Helper()
	a := x.send(x.T, "POST", "/v1/ingest", body, append([]string{"Content-Type", kind}, header...)...)
	if got := a.header.Get("Content-Type"); got != "application/json" {
		x.fail("an answer %d of type %q", a.status, got)
	}
	return a
}

// reasons is what an answer says of refused events.
type reasons struct {
	Accepted, Rejected int
	Errors             []reason
	detail             []reason
}

type reason struct {
	Line                                   int
	Code, Type, Field, Message, Msg, Input string
	Loc                                    []any
}

var stableCode = regexp.MustCompile(`^[a-z][a-z0-9_]+$`)

// check wants one of the statuses, as 400|413, and looks at all that holds for every answer of ours.
func (x *trial) check(a answer, want string) (r reasons) {
	x.Helper()
	if !slices.Contains(strings.Split(want, "|"), strconv.Itoa(a.status)) {
		x.fail("answer %d %.300s, want %s", a.status, a.body, want)
	}
	if a.status >= 500 && a.status != 501 && a.status != 503 && a.status != 505 {
		x.fail("answer %d", a.status)
	}
	if len(a.body) > 64<<10 {
		x.fail("the answer has %d bytes", len(a.body))
	}
	if i := strings.IndexFunc(strings.TrimSuffix(a.body, "\n"), func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }); i >= 0 {
		x.fail("the answer has a control character: %.300q", a.body[i:])
	}
	for _, leak := range []string{"SQLSTATE", "goroutine ", ".go:"} {
		if strings.Contains(a.body, leak) {
			x.fail("the answer shows its inside: %.300s", a.body)
		}
	}
	if retry := a.header.Get("Retry-After"); (a.status == 429 || a.status == 503) && retry == "" {
		x.fail("%d without Retry-After", a.status)
	}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") || a.body == "" {
		return r
	}
	var doc struct {
		reasons
		Detail json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		x.fail("the answer is no JSON: %v: %.300s", err, a.body)
	}
	r = doc.reasons
	if len(doc.Detail) > 0 && doc.Detail[0] == '[' {
		if err := json.Unmarshal(doc.Detail, &r.detail); err != nil {
			x.fail("the answer's detail: %v: %.300s", err, a.body)
		}
	}
	for i := range r.detail {
		d := &r.detail[i]
		d.Code, d.Message = d.Type, d.Msg
		if len(d.Loc) == 0 || d.Loc[0] != "body" {
			x.fail("no path in %.300s", a.body)
		} else {
			d.Field = field(d.Loc[1:])
		}
	}
	if len(r.detail) > 100 || len(r.Errors) > 100 {
		x.fail("%d reasons", max(len(r.detail), len(r.Errors)))
	}
	for _, d := range slices.Concat(r.detail, r.Errors) {
		if !stableCode.MatchString(d.Code) || d.Message == "" || len(d.Message) > 400 || utf8.RuneCountInString(d.Field) > 128 || utf8.RuneCountInString(d.Input) > 64 {
			x.fail("a reason that is none: %+v", d)
		}
		for _, text := range []string{d.Message, d.Field, d.Input} {
			if strings.ContainsFunc(text, func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }) {
				x.fail("a reason with characters that do not print: %q", text)
			}
		}
	}
	return r
}

func field(loc []any) string {
	var out strings.Builder
	for _, part := range loc {
		switch part := part.(type) {
		case float64:
			fmt.Fprintf(&out, "[%.0f]", part)
		default:
			if out.Len() > 0 {
				out.WriteByte('.')
			}
			fmt.Fprint(&out, part)
		}
	}
	return out.String()
}

// edit spoils a good event.
type edit func(event string) string

func swap(old, new string) edit {
	return func(event string) string {
		if !strings.Contains(event, old) {
			panic("no " + old + " in " + event)
		}
		return strings.Replace(event, old, new, 1)
	}
}

func all(edits ...edit) edit {
	return func(event string) string {
		for _, e := range edits {
			event = e(event)
		}
		return event
	}
}

func (e edit) and(other edit) edit    { return all(e, other) }
func value(v string) edit             { return swap(`"value":1`, `"value":`+v) }
func quality(v string) edit           { return swap(`"quality":192`, `"quality":`+v) }
func attributes(v string) edit        { return swap(`"quality":192`, `"quality":192,"attributes":`+v) }
func extra(members string) edit       { return swap(`"protocol"`, members+`,"protocol"`) }
func protocol(v string) edit          { return swap(`"HTTP"`, v) }
func parameter(suffix string) edit    { return swap(`:voltage"`, `:voltage`+suffix+`"`) }
func before(text string) edit         { return func(event string) string { return text + event } }
func after(text string) edit          { return func(event string) string { return event + text } }
func instead(text string) edit        { return func(string) string { return text } }
func times(n int, text string) string { return strings.Repeat(text, n) }

var stampPattern = regexp.MustCompile(`"source_timestamp":"[^"]*"`)

func when(v string) edit {
	return func(event string) string { return stampPattern.ReplaceAllLiteralString(event, `"source_timestamp":`+v) }
}

// bad is an event that is refused with a status and a code, on its own, and alone among good neighbours: in NDJSON always,
// in an array when its grammar is right. The field "*" is any.
func bad(name string, status int, code, at string, spoil edit) member {
	return member{name, func(x *trial) {
		event := spoil(x.refusable())
		one := func(what string, list []reason, line int, code, at string) {
			if len(list) != 1 || list[0].Line != line || list[0].Code != code || at != "*" && list[0].Field != at {
				x.fail("%s: the reasons are %+v, want one with line %d, code %s, field %s", what, list, line, code, at)
			}
		}
		switch {
		case code == "protocol_required": // has the original's answer
			x.check(x.ingest("application/json", event), strconv.Itoa(status))
		case len(event) > 512<<10:
			one("alone", x.check(x.ingest("application/json", event), "413").detail, 0, "body_too_large", "")
		default:
			one("alone", x.check(x.ingest("application/json", event), strconv.Itoa(status)).detail, 0, code, at)
		}
		if !strings.Contains(event, "\n") {
			a := x.ingest("application/x-ndjson", x.good("before, NDJSON")+"\n"+event+"\n"+x.good("after, NDJSON"))
			r := x.check(a, "200")
			one("in NDJSON", r.Errors, 2, code, at)
			expect(x.T, x.id("accepted of NDJSON"), r.Accepted, 2)
		}
		if code == "json_invalid" || code == "too_deep" {
			r := x.check(x.ingest("application/json", "["+x.make("refused neighbour")+","+event+","+x.make("refused neighbour")+"]"), "400")
			if len(r.detail) != 1 || r.detail[0].Code != code {
				x.fail("in an array: %+v, want %s", r.detail, code)
			}
			return
		}
		r := x.check(x.ingest("application/json", "["+x.good("before, array")+","+event+","+x.good("after, array")+"]"), "200")
		one("in an array", r.Errors, 2, code, at)
	}}
}

// stored is an odd event that is stored. Content is its values, qualities and attributes as PostgreSQL writes them, "" when it
// does not matter.
func stored(name, content string, change edit) member {
	return member{name, func(x *trial) {
		if content != "" {
			x.content[x.id("stored")] = content
		}
		x.check(x.ingest("application/json", change(x.good("stored"))), "200")
		r := x.check(x.ingest("application/x-ndjson", change(x.good("stored"))), "200")
		expect(x.T, x.id("accepted of NDJSON"), r.Accepted, 1)
	}}
}

// body is a request that is answered with one of the statuses as a whole, and the code when it is refused.
func body(name, want, code, kind string, make func(x *trial) string, header ...string) member {
	return member{name, func(x *trial) {
		r := x.check(x.ingest(kind, make(x), header...), want)
		if code != "" && (len(r.detail) == 0 || r.detail[0].Code != code) {
			x.fail("the reasons are %+v, want %s", r.detail, code)
		}
	}}
}
