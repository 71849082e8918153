package engine_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What comes after the text of a wire member.
const (
	closes = iota // another request, which must not be answered: the connection is closed
	stays         // another request, which is answered
	half          // the end of what the client sends
	reset         // a reset
)

const lastRequest = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// wire is a text whose answers have the statuses, in order, such as "200 400|closed". It is sent in one piece, in small
// ones, and behind a request on the same connection.
func wire(name, want string, end int, text func(x *trial) string) member {
	return member{name, func(x *trial) {
		x.wire("whole", want, end, text(x))
		x.wire("behind another", "400 "+want, end, request("{"), text(x))
		if t := text(x); len(t) <= 1500 {
			x.wire("bytewise", want, end, strings.Split(t, "")...)
		} else {
			x.wire("in halves", want, end, t[:len(t)/2], t[len(t)/2:])
		}
	}}
}

func (x *trial) dial(from string) *net.TCPConn {
	x.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", x.engine.Addresses().Collector)
	if err != nil {
		x.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func (x *trial) wire(how, want string, end int, parts ...string) {
	x.Helper()
	x.mu.Lock()
	x.requests++ // though it may be more than one
	x.mu.Unlock()
	c := x.dial("")
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil { // the server need not read it all
				return
			}
		}
		switch end {
		case half:
			c.CloseWrite()
		case reset:
			c.SetLinger(0)
			c.Close()
		default:
			io.WriteString(c, lastRequest)
		}
	}()
	statuses, err := x.answers(c)
	c.Close()
	<-sent
	switch {
	case end == reset:
		return
	case end == stays:
		want = strings.TrimPrefix(want+" 200", " ")
	}
	wanted := strings.Fields(want)
	if errors.Is(err, syscall.ECONNRESET) && end == closes && len(statuses) >= len(wanted)-1 { // the last answer need not arrive
		wanted, err = wanted[:min(len(statuses), len(wanted))], nil
	}
	if err != nil {
		x.fail("%s: after %q: %v", how, statuses, err)
	}
	if !slices.EqualFunc(statuses, wanted, func(got, want string) bool { return slices.Contains(strings.Split(want, "|"), got) }) {
		x.fail("%s: the answers are %q, want %q", how, statuses, want)
	}
}

// answers reads answers until the server closes the connection.
func (x *trial) answers(c net.Conn) (statuses []string, err error) {
	r := bufio.NewReader(c)
	for {
		if _, err := r.Peek(1); err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				return statuses, errors.New("the server neither answers nor closes")
			}
			if err == io.EOF {
				err = nil
			}
			return statuses, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses, err
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return statuses, err
		}
		if len(statuses) < 100 { // of 10,000 the first will do
			x.check(answer{resp.StatusCode, resp.Header, string(text)}, strconv.Itoa(resp.StatusCode))
			switch resp.StatusCode {
			case 404, 405, 408, 413, 414, 415: // net/http has its own texts for others
				if got := resp.Header.Get("Content-Type"); got != "application/json" {
					x.fail("an answer %d of type %q", resp.StatusCode, got)
				}
			}
		}
		statuses = append(statuses, strconv.Itoa(resp.StatusCode))
	}
}

// head is a request up to the empty line, which it lacks.
func head(headers ...string) string {
	return "POST /v1/ingest HTTP/1.1\r\nHost: collector\r\nContent-Type: application/json\r\n" + lines(headers)
}

func lines(headers []string) string {
	var out strings.Builder
	for _, h := range headers {
		out.WriteString(h + "\r\n")
	}
	return out.String()
}

func request(body string, headers ...string) string {
	return head(append(headers, fmt.Sprint("Content-Length: ", len(body)))...) + "\r\n" + body
}

// toPath is a good request but for its first line.
func toPath(line, body string, headers ...string) string {
	_, rest, _ := strings.Cut(request(body, headers...), "\r\n")
	return line + "\r\n" + rest
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// chunked is a request whose body is what follows the head.
func chunked(body string, headers ...string) string {
	return head(append(headers, "Transfer-Encoding: chunked")...) + "\r\n" + body
}

// fixed is a text that the trial has no part in.
func fixed(text string) func(*trial) string { return func(*trial) string { return text } }

// spoiled makes a text of an event that must not be stored.
func spoiled(text func(event string) string) func(*trial) string {
	return func(x *trial) string { return text(x.refusable()) }
}

// kept makes a text of an event that must be stored.
func kept(text func(event string) string) func(*trial) string {
	return func(x *trial) string { return text(x.good("stored")) }
}

// framingClasses are those of HTTP itself. The second result are those that take long.
func framingClasses() (quick, slow []class) {
	withHeader := func(headers ...string) func(*trial) string {
		return spoiled(func(e string) string { return request(e, headers...) })
	}
	withChunks := func(chunks func(e string) string) func(*trial) string {
		return spoiled(func(e string) string { return chunked(chunks(e)) })
	}
	keptChunks := func(chunks func(e string) string, headers ...string) func(*trial) string {
		return kept(func(e string) string { return chunked(chunks(e), headers...) })
	}
	one := func(e string) string { return chunk(e) + "0\r\n\r\n" }
	path := func(line string) func(*trial) string {
		return spoiled(func(e string) string { return toPath(line, e) })
	}
	h2 := func(frames string) func(*trial) string { return fixed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames) }
	frame := func(kind, flags byte, stream uint32, payload string) string {
		n := len(payload)
		return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}) + payload
	}
	var resets strings.Builder
	for i := range uint32(10_000) {
		resets.WriteString(frame(1, 5, 2*i+1, "\x82\x84\x86") + frame(3, 0, 2*i+1, "\x00\x00\x00\x08"))
	}
	numbered := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("X%d: y", i))
		}
		return all
	}
	quick = []class{
		{"HF01", "Content-Length over the limit: refused before the body comes", []member{
			wire("by one byte", "413", closes, fixed(head("Content-Length: 8388609")+"\r\n")),
			wire("by terabytes", "413", closes, fixed(head("Content-Length: 9223372036854775807")+"\r\n")),
			wire("more than an integer holds", "400", closes, fixed(head("Content-Length: 99999999999999999999")+"\r\n")),
			wire("one event", "413", closes, spoiled(func(e string) string { return request(e + times(512<<10, " ")) })),
		}},
		{"HF02", "chunks over the limit: refused, closed", []member{
			wire("many chunks", "413", closes, fixed(chunked(times(9, chunk(times(1<<20, " ")))+"0\r\n\r\n"))),
			wire("one chunk", "413", closes, fixed(chunked(chunk(times(9<<20, " "))+"0\r\n\r\n"))),
			wire("an endless chunk", "413", closes, fixed(chunked("7fffffffffffffff\r\n"+times(9<<20, " ")))),
		}},
		{"HF03", "Content-Length larger than the body", []member{
			wire("by one byte", "400", half, spoiled(func(e string) string { return head(fmt.Sprint("Content-Length: ", len(e)+1)) + "\r\n" + e })),
			wire("no body at all", "400", half, fixed(head("Content-Length: 100")+"\r\n")),
			wire("by megabytes", "400", half, spoiled(func(e string) string { return head("Content-Length: 8388608") + "\r\n" + e })),
		}},
		{"HF04", "Content-Length smaller than the body: the rest is no request", []member{
			wire("by one byte", "400 400", closes, spoiled(func(e string) string { return head(fmt.Sprint("Content-Length: ", len(e)-1)) + "\r\n" + e })),
			wire("zero", "400 400", closes, spoiled(func(e string) string { return head("Content-Length: 0") + "\r\n" + e })),
			wire("none", "400 400", closes, spoiled(func(e string) string { return head() + "\r\n" + e })),
			wire("half", "400 400", closes, spoiled(func(e string) string { return head(fmt.Sprint("Content-Length: ", len(e)/2)) + "\r\n" + e })),
		}},
		// RFC 9112, 6.1 lets a server read such a request by its chunks alone, when it closes the connection then. net/http does.
		{"HF05", "Content-Length and Transfer-Encoding: read by its chunks, closed, nothing behind it is a request", []member{
			wire("the length first", "200", closes, keptChunks(one, "Content-Length: 5")),
			wire("the length last", "200", closes, kept(func(e string) string {
				return head("Transfer-Encoding: chunked", "Content-Length: 3000") + "\r\n" + one(e)
			})),
			wire("a length of 0", "200", closes, keptChunks(one, "Content-Length: 0")),
			wire("a request behind the chunks", "200", closes, func(x *trial) string {
				return chunked(one(x.good("stored")), "Content-Length: 1000") + request(x.make("smuggled"))
			}),
			wire("broken chunks, right by length", "400", closes, spoiled(func(e string) string {
				return head("Transfer-Encoding: chunked", fmt.Sprint("Content-Length: ", len(e))) + "\r\n" + e
			})),
		}},
		{"HF06", "Content-Lengths that differ, or are none", []member{
			wire("two", "400", closes, withHeader("Content-Length: 5")),
			wire("a list", "400", closes, fixed(head("Content-Length: 2, 3")+"\r\n{}")),
			wire("a list of the same", "400", closes, fixed(head("Content-Length: 2, 2")+"\r\n{}")),
			wire("signed", "400", closes, fixed(head("Content-Length: +2")+"\r\n{}")),
			wire("negative", "400", closes, fixed(head("Content-Length: -2")+"\r\n{}")),
			wire("hexadecimal", "400", closes, fixed(head("Content-Length: 0x2")+"\r\n{}")),
			wire("two numbers", "400", closes, fixed(head("Content-Length: 2 3")+"\r\n{}")),
		}},
		{"HF07", "Transfer-Encoding that is not just chunked", []member{
			wire("chunked, identity", "400|501", closes, withHeader("Transfer-Encoding: chunked, identity")),
			wire("identity", "400|501", closes, withHeader("Transfer-Encoding: identity")),
			wire("gzip, chunked", "400|501", closes, withHeader("Transfer-Encoding: gzip, chunked")),
			wire("xchunked", "400|501", closes, withHeader("Transfer-Encoding: xchunked")),
			wire("vertical tab", "400|501", closes, withHeader("Transfer-Encoding: \vchunked")),
			wire("blank before the colon", "400|501", closes, withHeader("Transfer-Encoding : chunked")),
			wire("twice", "400|501", closes, withHeader("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")),
			wire("quoted", "400|501", closes, withHeader(`Transfer-Encoding: "chunked"`)),
		}},
		{"HF08", "chunk extensions", []member{
			wire("of 1 MB", "400", closes, withChunks(func(e string) string { return fmt.Sprintf("%x;%s\r\n%s\r\n0\r\n\r\n", len(e), times(1<<20, "x"), e) })),
			wire("1 MB in many chunks", "400", closes, withChunks(func(e string) string { return times(10_000, "1;"+times(100, "x")+"\r\n \r\n") + one(e) })),
			wire("of 5 kB at the end", "400", closes, withChunks(func(e string) string { return chunk(e) + "0;" + times(5000, "x") + "\r\n\r\n" })),
			wire("a small one is none of our business", "200", closes, keptChunks(func(e string) string { return fmt.Sprintf("%x;a=b\r\n%s\r\n0\r\n\r\n", len(e), e) })),
		}},
		{"HF09", "chunk sizes that are none", []member{
			wire("overflow", "400", closes, withChunks(func(e string) string { return "fffffffffffffffff\r\n" + e })),
			wire("negative", "400", closes, withChunks(func(e string) string { return "-5\r\n" + e })),
			wire("0x", "400", closes, withChunks(func(e string) string { return fmt.Sprintf("0x%x\r\n%s\r\n0\r\n\r\n", len(e), e) })),
			wire("junk", "400", closes, withChunks(func(e string) string { return "zz\r\n" + e })),
			wire("empty", "400", closes, withChunks(func(e string) string { return "\r\n" + e })),
			wire("too small", "400", closes, withChunks(func(e string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(e)-1, e) })),
			wire("too large", "400", half, withChunks(func(e string) string { return fmt.Sprintf("%x\r\n%s", len(e)+9, e) })),
		}},
		{"HF10", "trailer fields: ignored", []member{
			wire("announced", "200", closes, keptChunks(func(e string) string { return chunk(e) + "0\r\nX-Sum: 1\r\n\r\n" }, "Trailer: X-Sum")),
			wire("not announced", "200", closes, keptChunks(func(e string) string { return chunk(e) + "0\r\nX-Sum: 1\r\n\r\n" })),
			wire("a field of the head", "200", closes, keptChunks(func(e string) string {
				return chunk(e) + "0\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n"
			})),
			wire("forbidden ones announced", "400", closes, spoiled(func(e string) string {
				return chunked(chunk(e)+"0\r\nContent-Length: 1\r\n\r\n", "Trailer: Content-Length")
			})),
			wire("of 100 kB", "400", closes, withChunks(func(e string) string { return chunk(e) + "0\r\nX: " + times(100_000, "x") + "\r\n\r\n" })),
		}},
		{"HF14", "a head of more than 16 KiB", []member{
			wire("one long field", "431", closes, withHeader("X: "+times(32<<10, "x"))),
			wire("many fields", "431", closes, withHeader(strings.Split(strings.TrimSpace(times(900, "X: "+times(30, "x")+"\n")), "\n")...)),
			wire("a long name", "431", closes, withHeader(times(1<<20, "x")+": y")),
			wire("it never ends", "431", half, fixed(head()+times(64<<10, "x"))),
		}},
		{"HF15", "1,000 headers", []member{
			wire("different ones", "431", closes, withHeader(numbered(1000)...)),
			wire("the same one", "431", closes, withHeader(slices.Repeat([]string{"X: y"}, 1000)...)),
			wire("some more than 100", "431", closes, withHeader(numbered(100)...)),
			wire("90 are not too many", "200", stays, kept(func(e string) string { return request(e, numbered(90)...) })),
		}},
		{"HF16", "header lines that are none", []member{
			wire("NUL in a value", "400", closes, withHeader("X: a\x00b")),
			wire("CR in a value", "400", closes, withHeader("X: a\rY: b")),
			wire("NUL in a name", "400", closes, withHeader("X\x00: a")),
			wire("blank in a name", "400", closes, withHeader("X Y: a")),
			wire("no colon", "400", closes, withHeader("X")),
			wire("no name", "400", closes, withHeader(": x")),
			wire("escape in a value", "400", closes, withHeader("X: \x1b[31m")),
			wire("the first one folded", "400", closes, fixed("POST /v1/ingest HTTP/1.1\r\n Host: x\r\nContent-Length: 2\r\n\r\n{}")),
		}},
		{"HF17", "a URL of more than 2 KiB", []member{
			wire("query", "414", closes, path("POST /v1/ingest?"+times(2048, "x")+" HTTP/1.1")),
			wire("path", "414", closes, path("POST /v1/ingest/"+times(2048, "x")+" HTTP/1.1")),
			wire("line protocol", "414", closes, path("POST /write?precision="+times(2048, "n")+" HTTP/1.1")),
			wire("100 kB", "431", closes, path("POST /v1/ingest?"+times(100_000, "x")+" HTTP/1.1")),
			wire("2 KiB are not too long", "200", stays, kept(func(e string) string { return toPath("POST /v1/ingest?"+times(2033-1, "x")+" HTTP/1.1", e) })),
		}},
		{"HF18", "methods that are not for it: 405 with Allow", []member{
			methodNotAllowed("TRACE"), methodNotAllowed("FOO"), methodNotAllowed("PUT"), methodNotAllowed("post"), methodNotAllowed("GET"),
			wire("CONNECT", "400|404|405", stays, fixed("CONNECT collector:80 HTTP/1.1\r\nHost: collector:80\r\n\r\n")),
			wire("none", "400", closes, path(" /v1/ingest HTTP/1.1")),
			wire("no token", "400", closes, path("P@ST /v1/ingest HTTP/1.1")),
			wire("a long one", "405", stays, path(times(2000, "A")+" /v1/ingest HTTP/1.1")),
		}},
		// RFC 9112, 3.2.2 wants absolute forms to be taken; the collector has no name of its own to compare.
		{"HF19", "absolute form, and a Host that is none", []member{
			wire("absolute", "200", stays, kept(func(e string) string { return toPath("POST http://elsewhere/v1/ingest HTTP/1.1", e) })),
			wire("no Host", "400", closes, spoiled(func(e string) string {
				return strings.Replace(request(e), "Host: collector\r\n", "", 1)
			})),
			wire("two", "400", closes, withHeader("Host: other")),
			wire("with a blank", "400", closes, spoiled(func(e string) string { return strings.Replace(request(e), "Host: collector", "Host: a b", 1) })),
			wire("with a slash", "400", closes, spoiled(func(e string) string { return strings.Replace(request(e), "Host: collector", "Host: a/b<", 1) })),
			wire("an authority", "400|404|405", stays, path("POST collector:80 HTTP/1.1")),
		}},
		{"HF20", "other versions of HTTP", []member{
			wire("0.9", "400", closes, fixed("GET /healthz\r\n")),
			wire("1.0 is answered, once", "200", closes, kept(func(e string) string { return toPath("POST /v1/ingest HTTP/1.0", e) })),
			wire("1.0 has no chunks", "400", closes, spoiled(func(e string) string { return strings.Replace(chunked(one(e)), "HTTP/1.1", "HTTP/1.0", 1) })),
			wire("9.9", "400|505", closes, path("POST /v1/ingest HTTP/9.9")),
			wire("2.0", "400|505", closes, path("POST /v1/ingest HTTP/2.0")),
			wire("1", "400", closes, path("POST /v1/ingest HTTP/1")),
			wire("1.10", "400", closes, path("POST /v1/ingest HTTP/1.10")),
			wire("in small letters", "400", closes, path("POST /v1/ingest http/1.1")),
		}},
		{"HF21", "HTTP/2 without TLS: closed at its preface", []member{
			wire("preface", "505", closes, h2("")),
			wire("rapid reset", "505", closes, h2(frame(4, 0, 0, "")+resets.String())),
			wire("CONTINUATION flood", "505", closes, h2(frame(1, 0, 1, "\x82")+times(1000, frame(9, 0, 1, times(1000, "\x00"))))),
			wire("SETTINGS and PING flood", "505", closes, h2(times(10_000, frame(4, 0, 0, "\x00\x03\x00\x00\x00\x64")+frame(6, 0, 0, "12345678")))),
			wire("HPACK bomb", "505", closes, h2(frame(1, 4, 1, "\x40\x01a\x7f\x80\x1f"+times(4000, "a")+times(10_000, "\xbe")))),
			wire("an upgrade is not taken", "200", stays, kept(func(e string) string {
				return request(e, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
			})),
		}},
		{"HF22", "Expect: 100-continue: refused without asking for the body", []member{
			wire("of another type", "415", half, fixed("POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")),
			wire("too large", "413", closes, fixed(head("Content-Length: 8388609", "Expect: 100-continue")+"\r\n")),
			wire("in another encoding", "415", half, fixed(head("Content-Length: 5000", "Content-Encoding: br", "Expect: 100-continue")+"\r\n")),
			wire("another expectation", "417", half, fixed(head("Content-Length: 5000", "Expect: miracles")+"\r\n")),
			wire("a good request is told to go on", "100 200", stays, kept(func(e string) string { return request(e, "Expect: 100-continue") })),
		}},
		{"HF23", "10,000 requests in one go: all are answered, in order", []member{
			{"without bodies", func(x *trial) {
				x.wire("whole", strings.TrimSpace(times(10_000, "200 ")), stays, times(10_000, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
			}},
			{"refused ones", func(x *trial) {
				x.wire("whole", strings.TrimSpace(times(10_000, "400 ")), stays, times(10_000, request("{")))
			}},
			{"of all kinds", func(x *trial) {
				x.wire("whole", strings.TrimSpace(times(2500, "404 400 415 400 ")+"200"), stays, times(2500, toPath("POST /v2/ingest HTTP/1.1", "{}")+request("")+
					request("x", "Content-Encoding: br")+request("x", "X: y"))+request(x.good("stored")))
			}},
		}},
		{"HF24", "half-closed and reset connections: nothing of half a body is stored", []member{
			wire("half-closed in a body", "400", half, spoiled(func(e string) string { return request(e)[:len(request(e))-1] })),
			wire("half-closed in a head", "400|", half, fixed(head())),
			wire("half-closed in a chunk", "400", half, spoiled(func(e string) string { return chunked(chunk(e)[:len(e)]) })),
			wire("half-closed before the last chunk", "400", half, withChunks(func(e string) string { return chunk(e) })),
			wire("half-closed in NDJSON", "400", half, spoiled(func(e string) string {
				return strings.Replace(request(e+"\n"+e), "application/json", "application/x-ndjson", 1)[:len(request(e))+20]
			})),
			wire("reset in a body", "", reset, spoiled(func(e string) string { return request(e)[:len(request(e))-1] })),
			wire("reset in a head", "", reset, fixed(head())),
			wire("reset before the last chunk", "", reset, withChunks(func(e string) string { return chunk(e) })),
			wire("half-closed behind a body", "200", half, kept(func(e string) string { return request(e) })),
		}},
		{"HF25", "paths that are none of its own", []member{
			wire("//", "404", stays, path("POST //v1/ingest HTTP/1.1")),
			wire("..", "404", stays, path("POST /v1/x/../ingest HTTP/1.1")),
			wire("%2e", "404", stays, path("POST /v1/%2e/ingest HTTP/1.1")),
			wire("%2e%2e", "404", stays, path("POST /v1/x/%2e%2e/ingest HTTP/1.1")),
			wire("%00", "404", stays, path("POST /v1/ingest%00 HTTP/1.1")),
			wire(";", "404", stays, path("POST /v1/ingest;x=y HTTP/1.1")),
			wire("backslash", "404", stays, path(`POST /v1\ingest HTTP/1.1`)),
			wire("other case", "404", stays, path("POST /V1/Ingest HTTP/1.1")),
			wire("broken escape", "400", closes, path("POST /v1/ingest%zz HTTP/1.1")),
			wire("NUL", "400", closes, path("POST /v1/ingest\x00 HTTP/1.1")),
			wire("no slash", "400|404", closes, path("POST v1/ingest HTTP/1.1")),
			wire("asterisk", "400|404|405", stays, path("POST * HTTP/1.1")),
			wire("slash at the end, as the original", "307", stays, path("POST /v1/ingest/ HTTP/1.1")),
		}},
		{"HF26", "headers that claim to be someone else: ignored", []member{
			wire("X-Forwarded-For", "200", stays, kept(func(e string) string {
				return request(e, "X-Forwarded-For: 10.0.0.1, 127.0.0.1", "Forwarded: for=10.0.0.1")
			})),
			wire("X-Real-IP", "200", stays, kept(func(e string) string { return request(e, "X-Real-IP: 10.0.0.1\r\nTrue-Client-IP: ::1") })),
			wire("X-Tenant", "200", stays, kept(func(e string) string {
				return request(e, "X-Tenant: other", "X-Customer-ID: 00000000-0000-4000-8000-000000000000")
			})),
			wire("method and path", "200", stays, kept(func(e string) string {
				return request(e, "X-HTTP-Method-Override: GET", "X-Original-URL: /metrics", "X-Rewrite-URL: /x")
			})),
		}},
	}
	ndjson := func(body string) string {
		return strings.Replace(request(body), "application/json", "application/x-ndjson", 1)
	}
	slow = []class{
		{"HF03", "Content-Length larger than the body, on a connection that stays: 408", []member{
			drip("by one byte", 30*time.Second, "408", func(e string) string { return head(fmt.Sprint("Content-Length: ", len(e)+1)) + "\r\n" + e }, ""),
		}},
		{"HF11", "a head byte by byte: closed after 5 seconds", []member{
			drip("in a field", 5*time.Second, "", func(string) string { return head("X: ") }, "x"),
			drip("in the first line", 5*time.Second, "400", func(string) string { return "POST /v1/ing" }, "e"),
			drip("field by field", 5*time.Second, "", func(string) string { return "GET /healthz HTTP/1.1\r\nHost: x\r\n" }, "X: y\r\n"),
			drip("in the second request", 5*time.Second, "400", func(string) string { return request("{") + head("X: ") }, "x"),
			drip("nothing comes", 5*time.Second, "", func(string) string { return "" }, ""),
		}},
		{"HF12", "a body byte by byte: 408 after 30 seconds", []member{
			drip("of JSON", 30*time.Second, "408", func(e string) string { return head("Content-Length: 5000") + "\r\n" + e }, " "),
			drip("in chunks", 30*time.Second, "408", func(e string) string { return chunked(chunk(e)) }, "1\r\n \r\n"),
			drip("of NDJSON, compressed", 30*time.Second, "408", func(e string) string {
				return strings.Replace(ndjson(gzipped(e)), "Content-Length: ", "Content-Encoding: gzip\r\nContent-Length: 1", 1)
			}, "\x00"),
			drip("in the second request", 30*time.Second, "400 408", func(e string) string { return request("{") + head("Content-Length: 5000") + "\r\n" + e }, " "),
		}},
		{"HF13", "answers that are not read: closed after 30 seconds", []member{
			deaf("refusals of batches", ndjson(times(300, "{\n"))),
			deaf("metrics", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
			deaf("refusals of chunked bodies", strings.Replace(request(times(300, "{\n")), "application/json", "application/x-ndjson;charset=utf-8", 1)),
		}},
	}
	return quick, slow
}

func methodNotAllowed(method string) member {
	return member{method, func(x *trial) {
		c := x.dial("")
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, method+" /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			x.fail("%v", err)
			return
		}
		text, _ := io.ReadAll(resp.Body)
		x.check(answer{resp.StatusCode, resp.Header, string(text)}, "405")
		if !strings.Contains(resp.Header.Get("Allow"), "POST") {
			x.fail("Allow is %q", resp.Header.Get("Allow"))
		}
	}}
}

// drip is a beginning after which little comes, until the server gives up after a time with answers of some statuses.
func drip(name string, limit time.Duration, want string, begin func(event string) string, drop string) member {
	return member{name, func(x *trial) {
		c := x.dial("")
		defer c.Close()
		began := time.Now()
		c.SetDeadline(began.Add(limit + 15*time.Second))
		io.WriteString(c, begin(x.refusable()))
		done := make(chan struct{})
		defer close(done)
		go func() {
			for tick := time.NewTicker(time.Second); ; {
				select {
				case <-tick.C:
					io.WriteString(c, drop) // fails when the server has had enough
				case <-done:
					tick.Stop()
					return
				}
			}
		}()
		statuses, err := x.answers(c)
		if errors.Is(err, syscall.ECONNRESET) { // by a drop that came too late
			err = nil
		}
		if took := time.Since(began); err != nil || took < limit-time.Second || took > limit+10*time.Second {
			x.fail("closed after %v, %v; want %v", took, err, limit)
		}
		// The last answer may be lost: by the reset, or because net/http lets the time to write it end with the time to read.
		wanted := strings.Fields(want)
		if !slices.Equal(statuses, wanted) && !slices.Equal(statuses, wanted[:max(len(wanted)-1, 0)]) {
			x.fail("the answers are %q, want %q", statuses, want)
		}
	}}
}

// deaf sends a request again and again and reads no answer, until the server gives up.
func deaf(name, text string) member {
	return member{name, func(x *trial) {
		c := x.dial("")
		defer c.Close()
		c.SetReadBuffer(4 << 10)
		began := time.Now()
		c.SetDeadline(began.Add(60 * time.Second))
		var err error
		for many := bytes.Repeat([]byte(text), 100); err == nil; {
			_, err = c.Write(many)
		}
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			x.fail("the server still waits after %v", time.Since(began))
		}
	}}
}
