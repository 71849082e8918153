package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

// judge accepts and refuses by the first word of a body.
type judge struct{}

func (judge) Accept(_ context.Context, format ingest.Format, body []byte) (ingest.Result, error) {
	word, _, _ := bytes.Cut(body, []byte(" "))
	switch string(word) {
	case "full":
		return ingest.Result{}, &telemetry.UnavailableError{Code: "queue_full", RetryAfter: 7 * time.Second, Err: errors.New("full")}
	case "broken":
		return ingest.Result{}, &ingest.Rejection{Code: ingest.CodeJSONInvalid, Message: "Broken."}
	case "refused":
		return ingest.Result{Rejected: 1, Rejections: []ingest.Rejection{{Code: ingest.CodeUnknownDevice, Field: "device_id", Message: string(body)}}}, nil
	case "panic":
		panic("as the body wants it")
	}
	return ingest.Result{Accepted: len(body), Batch: format == ingest.NDJSON}, nil
}

func newCollector() *Collector {
	return &Collector{Ingest: judge{}, Health: func() Health { return Health{Service: "ok"} }, Ready: func() error { return nil }, Metrics: http.NotFoundHandler(),
		Latency: prometheus.NewHistogram(prometheus.HistogramOpts{}), Log: slog.New(slog.DiscardHandler)}
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second}
}

// servers runs a Server and an http.Server with the same handler.
func servers(t testing.TB, h http.Handler) (fast, plain func() net.Conn) {
	listen := func(name string, serve func(net.Listener) error, close func() error) func() net.Conn {
		path := filepath.Join(t.TempDir(), name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- serve(l) }()
		t.Cleanup(func() {
			close()
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
		return func() net.Conn {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(30 * time.Second))
			return c
		}
	}
	ours, theirs := NewServer(newHTTP(h)), newHTTP(h)
	return listen("ours", ours.Serve, ours.Close), listen("theirs", theirs.Serve, theirs.Close)
}

// reply is what of an answer two servers must have in common.
type reply struct {
	Status int
	Header http.Header
	Body   string
	Close  bool
}

var traceID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

func (r reply) String() string {
	return fmt.Sprintf("%d %v %.200q %v", r.Status, r.Header, r.Body, r.Close)
}

// untilReset ends where the connection was reset: net/http does not always wait until a client has read its last answer.
type untilReset struct{ io.Reader }

func (r untilReset) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, syscall.ECONNRESET) {
		err = io.EOF
	}
	return n, err
}

// exchange sends parts, ends its side, and returns the answers; what is no answer is the last one's body.
func exchange(t testing.TB, c net.Conn, parts ...string) (all []reply) {
	t.Helper()
	defer c.Close()
	go func() { // the server may not care to read it all
		for i, part := range parts {
			if i > 0 {
				runtime.Gosched()
			}
			if _, err := io.WriteString(c, part); err != nil {
				return
			}
		}
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	r := bufio.NewReader(untilReset{c})
	for {
		if _, err := r.Peek(1); err != nil {
			if err, ok := err.(net.Error); ok && err.Timeout() {
				t.Fatal("the server neither answers nor closes")
			}
			return all
		}
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			rest, _ := io.ReadAll(r)
			return append(all, reply{Body: err.Error() + string(rest)})
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			body = append(body, err.Error()...)
		}
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil && time.Since(date).Abs() < time.Minute {
			response.Header.Set("Date", "now")
		}
		response.Header.Del("Content-Length")
		all = append(all, reply{response.StatusCode, response.Header, traceID.ReplaceAllString(string(body), "id"), response.Close})
	}
}

func post(body string, headers ...string) string {
	head := "POST /v1/ingest HTTP/1.1\r\nHost: collector\r\nContent-Type: application/json\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

// The names begin with the class of reliability's list of hostile inputs, where there is one.
var exchanges = map[string]string{
	"one":                       post(`{}`),
	"none":                      "",
	"empty":                     post(""),
	"batch":                     "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 5\r\n\r\n{}\n{}",
	"large":                     post(strings.Repeat(" ", 100_000) + "{}"),
	"refused":                   post("refused"),
	"long refusal":              post("refused " + strings.Repeat("x", 9000)),
	"broken":                    post("broken"),
	"full":                      post("full"),
	"panic":                     post("panic"),
	"unread body":               "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n0123456789",
	"large unread body":         "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("x", 300_000),
	"unread body that ends":     "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234",
	"event too large":           post(`{"` + strings.Repeat("x", MaxEventBody)),
	"no type":                   "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
	"broken gzip":               post("{}", "Content-Encoding: gzip"),
	"unknown encoding":          post("{}", "Content-Encoding: br"),
	"keep-alive":                post("{}", "Connection: Keep-Alive"),
	"close":                     post("{}", "Connection: close"),
	"other paths":               "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	"other method":              "PUT /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	"query":                     "POST /v1/ingest?x=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"absolute form":             "POST http://x/v1/ingest HTTP/1.1\r\nHost: y\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.0":                  "POST /v1/ingest HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"chunked":                   "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	"half a head":               "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Le",
	"half a line":               "POST /v1/in",
	"the same head":             post("{}") + post("{} ") + post("{}"+strings.Repeat(" ", 100)) + post("{}"),
	"other heads":               post("{}", "A: b") + post("{}", "A: c") + post("{}") + post("{}", "B: "),
	"length elsewhere":          post("{}") + "POST /v1/ingest HTTP/1.1\r\nContent-Length: 2\r\nHost: x\r\nContent-Type: application/json\r\n\r\n{}",
	"blank lines after":         post("{}") + "\r\n" + post("{}") + "\r\n\r\n" + post("{}") + "\n\n\n" + post("{}"),
	"many blank lines after":    post("{}") + "\r\n\r\n\r\n",
	"blank lines before":        "\r\n" + post("{}"),
	"bare line feeds":           strings.ReplaceAll(post("{}"), "\r\n", "\n"),
	"one bare line feed":        strings.Replace(post("{}"), "collector\r\n", "collector\n", 1),
	"blanks around values":      "POST /v1/ingest HTTP/1.1\r\nHost:x  \r\nContent-Type:  application/json \r\nContent-Length:  2  \r\n\r\n{}",
	"tabs around values":        "POST /v1/ingest HTTP/1.1\r\nHost:\tx\r\nContent-Type: application/json\r\nContent-Length: 2\t\r\n\r\n{}",
	"names in any case":         "POST /v1/ingest HTTP/1.1\r\nhOST: x\r\ncontent-type: application/json\r\nCONTENT-LENGTH: 2\r\n\r\n{}",
	"bytes that are no ASCII":   post("{}", "X: gr\xc3\xbc\xc3\x9fe", "Y: \xff"),
	"HF01 over the limit":       "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8388609\r\n\r\n{}",
	"HF01 far over the limit":   "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
	"HF02 chunked and too long": "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n900000\r\n" + strings.Repeat(" ", 0x900000) + "\r\n0\r\n\r\n",
	"HF03 length too large":     "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{}",
	"HF04 length too small":     "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{}",
	"HF05 both framings":        "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	"HF05 the other way round":  "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\ntransfer-encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	"HF06 two lengths":          post("{}", "Content-Length: 3"),
	"HF06 the same length":      post("{}", "Content-Length: 2"),
	"HF06 a list of lengths":    "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2, 2\r\n\r\n{}",
	"HF06 signed":               "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: +2\r\n\r\n{}",
	"HF06 hexadecimal":          "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0x2\r\n\r\n{}",
	"HF06 leading zeros":        "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 002\r\n\r\n{}",
	"HF06 no length":            "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: \r\n\r\n",
	"HF07 identity":             post("{}", "Transfer-Encoding: chunked, identity"),
	"HF07 obfuscated":           post("{}", "Transfer-Encoding: xchunked"),
	"HF07 blank before colon":   post("{}", "Transfer-Encoding : chunked"),
	"HF07 folded":               post("{}", "Transfer-Encoding:\r\n chunked"),
	"HF07 vertical tab":         post("{}", "Transfer-Encoding: \vchunked"),
	"HF08 chunk extension":      "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 1<<20) + "\r\n{}\r\n0\r\n\r\n",
	"HF09 chunk size":           "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
	"HF09 negative":             "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
	"HF10 trailer":              "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
	"HF10 announced only":       post("{}", "Trailer: X"),
	"HF14 long header":          post("{}", "X: "+strings.Repeat("x", 30_000)),
	"HF14 not that long":        post("{}", "X: "+strings.Repeat("x", 10_000)),
	"HF15 many headers":         post("{}", strings.Split(strings.TrimSuffix(strings.Repeat("X: y\n", 1000), "\n"), "\n")...),
	"HF16 NUL":                  post("{}", "X: \x00"),
	"HF16 CR":                   post("{}", "X: a\rY: b"),
	"HF16 in the name":          post("{}", "X\x00: a"),
	"HF16 no colon":             post("{}", "X"),
	"HF16 no name":              post("{}", ": x"),
	"HF16 DEL":                  post("{}", "X: \x7f"),
	"HF17 long URL":             "POST /v1/ingest" + strings.Repeat("x", 30_000) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	"HF19 no host":              "POST /v1/ingest HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"HF19 two hosts":            post("{}", "Host: y"),
	"HF19 empty host":           "POST /v1/ingest HTTP/1.1\r\nHost:\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"HF19 bad host":             "POST /v1/ingest HTTP/1.1\r\nHost: a b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	"HF20 HTTP/0.9":             "GET /v1/health\r\n",
	"HF20 HTTP/9.9":             "POST /v1/ingest HTTP/9.9\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	"HF21 HTTP/2":               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"HF22 continue":             post("{}", "Expect: 100-continue"),
	"HF22 refused":              strings.Replace(post("{}", "Expect: 100-continue"), "application/json", "text/plain", 1),
	"HF22 unknown expectation":  post("{}", "Expect: miracles"),
	"HF23 pipelined":            strings.Repeat(post("{}"), 1000),
	"HF24 half a body":          post("{}") + "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}",
	"upgrade":                   post("{}", "Connection: upgrade", "Upgrade: websocket"),
	"header twice":              post("{}", "X: a", "X: b"),
	"type twice":                post("{}", "Content-Type: application/json"),
	"encoding twice":            post("{}", "Content-Encoding: gzip", "Content-Encoding: gzip"),
}

// A Server answers as an http.Server does, and leaves the connection in the same state: a plain request follows.
func TestServerAnswersAsNetHTTPDoes(t *testing.T) {
	fast, plain := servers(t, newCollector().Handler())
	for name, text := range exchanges {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, parts := range [][]string{{text, post("{}")}, {post("{}"), text, post("{}")}, {post("{}") + text + post("{}")}, {text}} {
				got, want := exchange(t, fast(), parts...), exchange(t, plain(), parts...)
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%.200q is answered\n%v, net/http answers\n%v", parts, got, want)
				}
			}
			if len(text) > 5000 {
				return
			}
			bytewise := strings.Split(text+post("{}"), "")
			if got, want := exchange(t, fast(), bytewise...), exchange(t, plain(), bytewise...); !reflect.DeepEqual(got, want) {
				t.Errorf("%.200q, byte by byte, is answered\n%v, net/http answers\n%v", text, got, want)
			}
		})
	}
}

func FuzzServerAnswersAsNetHTTPDoes(f *testing.F) {
	fast, plain := servers(f, newCollector().Handler())
	for _, text := range exchanges {
		if len(text) < 4096 {
			f.Add(text+post("{}"), 10)
		}
	}
	f.Fuzz(func(t *testing.T, text string, cut int) {
		if len(text) > 64<<10 {
			return
		}
		parts := []string{text}
		if 0 < cut && cut < len(text) {
			parts = []string{text[:cut], text[cut:]}
		}
		if got, want := exchange(t, fast(), parts...), exchange(t, plain(), parts...); !reflect.DeepEqual(got, want) {
			t.Errorf("%q is answered\n%v, net/http answers\n%v", parts, got, want)
		}
	})
}

// Whatever is taken for the head of a plain request, net/http reads the same way, and to the same byte.
func FuzzHead(f *testing.F) {
	for _, text := range exchanges {
		if len(text) < 4096 {
			f.Add([]byte(text), []byte(post("{}")))
			f.Add([]byte(post("{}")), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var h head
		for _, b := range [][]byte{first, second} {
			n, v := h.read(b)
			if v != plain {
				continue
			}
			rest := bytes.NewReader(b)
			buffered := bufio.NewReaderSize(rest, 16)
			r, err := http.ReadRequest(buffered)
			if err != nil {
				t.Fatalf("%q is taken, net/http says: %v", b, err)
			}
			if at := len(b) - rest.Len() - buffered.Buffered(); at != n {
				t.Errorf("the head of %q is %d bytes, of net/http %d", b, n, at)
			}
			got := maps.Clone(h.header)
			got["Content-Length"] = r.Header["Content-Length"]
			if r.Method != "POST" || r.RequestURI != HotPath || r.URL.Path != HotPath || r.Proto != "HTTP/1.1" || r.Host != h.host || r.ContentLength != h.length ||
				len(r.TransferEncoding) > 0 || r.Close || r.Trailer != nil || !reflect.DeepEqual(r.Header, got) {
				t.Errorf("%q is read as %d bytes for %q, %q; net/http reads %+v", b, h.length, h.host, h.header, r)
			}
		}
	})
}

// What devices send is what the short way is for.
func TestWhatIsPlain(t *testing.T) {
	for text, want := range map[string]verdict{
		post("{}"): plain,
		post("{}", "User-Agent: curl/8.5.0", "Accept: */*", "Accept-Encoding: gzip", "Connection: keep-alive"):                                   plain,
		"POST /v1/ingest HTTP/1.1\r\nhost: [::1]:8001\r\ncontent-type: application/json\r\nContent-Encoding: gzip\r\ncontent-length: 12\r\n\r\n": plain,
		post("{}")[:20]:                                 more,
		post("{}")[:60]:                                 more,
		"GET":                                           unusual,
		post("{}", "Connection: close"):                 unusual,
		post("{}", "X: a", "x: b"):                      unusual,
		post("{}", "X: \t"):                             unusual,
		post("{}", "Expect: 100-continue"):              unusual,
		post("{}", "Trailer: X"):                        unusual,
		post("{}", "TE: trailers"):                      unusual,
		post("{}", "Upgrade: h2c"):                      unusual,
		strings.Replace(post("{}"), "h: 2", "h: 02", 1): unusual,
		strings.Replace(post("{}"), "h: 2", fmt.Sprint("h: ", MaxBatchBody+1), 1): unusual,
		strings.Replace(post("{}"), "h: 2", "h: 18446744073709551618", 1):         unusual,
		strings.Replace(post("{}"), "Content-Length: 2\r\n", "", 1):               unusual,
		strings.Repeat(post("{}")[1:], 100):                                       unusual,
	} {
		if _, got := new(head).read([]byte(text)); got != want {
			t.Errorf("verdict %d on %.100q, want %d", got, text, want)
		}
	}
}

// echo answers with the body.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header()["Content-Type"] = contentJSON
	w.Write(body)
})

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	fast, _ := servers(t, echo)
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString(post(strings.Repeat("x", i%100) + fmt.Sprint(i)))
	}
	for i, r := range exchange(t, fast(), text.String()) {
		if want := strings.Repeat("x", i%100) + fmt.Sprint(i); r.Status != 200 || r.Body != want {
			t.Fatalf("answer %d is %v, want %s", i, r, want)
		}
	}
}

// pipes is a listener in memory, for tests in a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// serve runs a Server within a bubble, which checks that no goroutine is left at its end.
func serve(t *testing.T, h http.Handler) (s *Server, dial func() net.Conn, served chan error) {
	s, l, served := NewServer(newHTTP(h)), newPipes(), make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return s, l.dial, served
}

func TestSlowClientsAreCut(t *testing.T) {
	send := func(c net.Conn, text string) { io.WriteString(c, text) }
	drip := func(c net.Conn, text string) { // a byte a second
		for i := range len(text) {
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	long := post("{}", "X: "+strings.Repeat("x", 1000))
	for name, test := range map[string]struct {
		client   func(c net.Conn)
		from, to time.Duration // when its connection ends
	}{
		"silent":                  {func(net.Conn) {}, 5 * time.Second, 5 * time.Second},
		"slow head":               {func(c net.Conn) { drip(c, long) }, 5 * time.Second, 5 * time.Second},
		"slow head for net/http":  {func(c net.Conn) { drip(c, "GET /"+long) }, 5 * time.Second, 5 * time.Second},
		"slow second head":        {func(c net.Conn) { send(c, post("{}")); drip(c, long) }, 8 * time.Second, 8 * time.Second}, // from the fourth byte
		"idle":                    {func(c net.Conn) { send(c, post("{}")) }, 74 * time.Second, 75 * time.Second},
		"idle after a blank line": {func(c net.Conn) { send(c, post("{}")+"\r\n") }, 74 * time.Second, 75 * time.Second},
		"idle again":              {func(c net.Conn) { send(c, post("{}")); time.Sleep(20 * time.Second); send(c, post("{}")) }, 94 * time.Second, 95 * time.Second},
		"idle after a slow body": {func(c net.Conn) {
			send(c, strings.TrimSuffix(post("{}"), "}"))
			time.Sleep(20 * time.Second)
			send(c, "}")
		}, 94 * time.Second, 95 * time.Second},
		"slow body": {func(c net.Conn) {
			send(c, strings.TrimSuffix(post(long), long))
			drip(c, long)
		}, 30 * time.Second, 30*time.Second + lingering},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, dial, _ := serve(t, echo)
				c, began, gone := dial(), time.Now(), make(chan struct{})
				go func() { test.client(c); close(gone) }()
				io.Copy(io.Discard, c)
				took := time.Since(began)
				<-gone
				if took < test.from || took > test.to {
					t.Errorf("closed after %v, want %v to %v", took, test.from, test.to)
				}
			})
		})
	}
	t.Run("never reads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, dial, _ := serve(t, echo)
			c, began := dial(), time.Now()
			send(c, post("{}"))
			send(c, post("{}"))
			if took := time.Since(began); took < 29*time.Second || took > 30*time.Second {
				t.Errorf("closed after %v, want 30s", took)
			}
		})
	})
}

// gate is a handler whose requests wait for a word each.
type gate struct {
	entered chan struct{}
	leave   chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	g.entered <- struct{}{}
	<-g.leave
	writeJSON(w, http.StatusOK, status{"ok"})
}

const chunked = "POST /v1/ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s, dial, served := serve(t, g)
		fresh, idle, ours, theirs := dial(), dial(), dial(), dial()
		go io.WriteString(idle, post("{}"))
		<-g.entered
		g.leave <- struct{}{}
		reader := bufio.NewReader(idle)
		if r, err := http.ReadResponse(reader, nil); err != nil || r.Close {
			t.Fatal(r, err)
		} else {
			io.Copy(io.Discard, r.Body)
		}
		go io.WriteString(ours, post("{}"))
		go io.WriteString(theirs, chunked)
		<-g.entered
		<-g.entered
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		for _, c := range []io.Reader{fresh, reader} { // at once: no time passes
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("an idle connection stays open")
			}
		}
		synctest.Wait()
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v with requests in flight", err)
		default:
		}
		for range 2 {
			g.leave <- struct{}{}
		}
		for _, c := range []net.Conn{ours, theirs} {
			reader := bufio.NewReader(c)
			r, err := http.ReadResponse(reader, nil)
			if err != nil || r.StatusCode != http.StatusOK || !r.Close {
				t.Fatal("a request in flight is not answered, or not with Connection: close:", r, err)
			}
			io.Copy(io.Discard, r.Body)
			if _, err := reader.ReadByte(); err != io.EOF {
				t.Error("the connection is not closed:", err)
			}
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := s.Serve(newPipes()); !errors.Is(err, http.ErrServerClosed) {
			t.Error("serving after Shutdown:", err)
		}
	})
}

func TestShutdownThatTakesTooLongIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s, dial, served := serve(t, g)
		ours, half := dial(), dial()
		go io.WriteString(ours, post("{}"))
		go io.WriteString(half, post("{}")[:30])
		<-g.entered
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		s.Close()
		for _, c := range []net.Conn{ours, half} {
			if answer, err := io.ReadAll(c); len(answer) > 0 || err != nil {
				t.Errorf("%q, %v on a connection that was cut", answer, err)
			}
		}
		g.leave <- struct{}{}
		<-served
	})
}

// A request whose head is there when a stop begins is answered, though it is net/http that will serve it.
func TestShutdownWaitsForAHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, served := serve(t, echo)
		c := dial()
		io.WriteString(c, chunked[:40])
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		go io.WriteString(c, chunked[40:])
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != http.StatusOK || !r.Close {
			t.Fatal(r, err)
		}
		c.Close()
		if err := <-down; err != nil {
			t.Error(err)
		}
		<-served
	})
}

// failing accepts n connections with an error that passes, then fails for good.
type failing struct {
	net.Listener
	n int
}

type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

func (f *failing) Accept() (net.Conn, error) {
	if f.n--; f.n >= 0 {
		return nil, passing{errors.New("too many open files")}
	}
	return nil, errors.New("broken")
}

func TestAListenerThatFailsEndsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := NewServer(newHTTP(echo)).Serve(&failing{newPipes(), 3})
		if err == nil || err.Error() != "broken" || time.Since(began) != 35*time.Millisecond {
			t.Errorf("%v after %v, want broken after 5+10+20 ms", err, time.Since(began))
		}
	})
}

// repeated is a client that sends the same request n times and takes every answer.
type repeated struct {
	net.Conn
	request []byte
	n       int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.n--; r.n < 0 {
		return 0, io.EOF
	}
	return copy(p, r.request), nil
}

func (r *repeated) Write(p []byte) (int, error)      { return len(p), nil }
func (r *repeated) Close() error                     { return nil }
func (r *repeated) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (r *repeated) SetReadDeadline(time.Time) error  { return nil }
func (r *repeated) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkPlainRequest measures a request without its system calls.
func BenchmarkPlainRequest(b *testing.B) {
	s := NewServer(newHTTP(newCollector().Handler()))
	request := post(strings.Repeat("x", 1400), "User-Agent: bench", "Accept: */*")
	b.ReportAllocs()
	c := new(fast)
	c.begin(s, &repeated{request: []byte(request), n: b.N})
	c.run()
}
