package engine_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/nsready/nsready/engine"
)

// raw sends the bytes of a request and reads the answer.
func (s *service) raw(request string) answer {
	s.t.Helper()
	c, err := net.Dial("tcp", s.engine.Addresses().Collector)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: request[:strings.IndexByte(request, ' ')]})
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func gzipped(body string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	io.WriteString(z, body)
	z.Close()
	return out.String()
}

func zstdOf(body string, options ...zstd.EOption) string {
	z, err := zstd.NewWriter(nil, options...)
	if err != nil {
		panic(err)
	}
	defer z.Close()
	return string(z.EncodeAll([]byte(body), nil))
}

// The requests that Telegraf 1.39.3 makes, header by header: plugins/outputs/influxdb_v2/http.go (writeBatch) and
// plugins/outputs/influxdb/http.go (makeQueryRequest, makeWriteRequest), with their defaults. Both give net/http a body of
// unknown length, which goes out in chunks.
const (
	telegrafV2 = "POST /api/v2/write?bucket=telegraf&org=acme HTTP/1.1\r\nHost: %s\r\nUser-Agent: Telegraf/1.39.3 Go/1.26.2\r\nTransfer-Encoding: chunked\r\n" +
		"Authorization: Token my-token\r\nContent-Encoding: gzip\r\nContent-Type: text/plain; charset=utf-8\r\nAccept-Encoding: gzip\r\n\r\n%x\r\n%[2]s\r\n0\r\n\r\n"
	telegrafV1 = "POST /write?db=telegraf HTTP/1.1\r\nHost: %s\r\nUser-Agent: Telegraf/1.39.3 Go/1.26.2\r\nTransfer-Encoding: chunked\r\n" +
		"Content-Encoding: gzip\r\nContent-Type: text/plain; charset=utf-8\r\nAccept-Encoding: gzip\r\n\r\n%x\r\n%[2]s\r\n0\r\n\r\n"
	telegrafCreate = "POST /query HTTP/1.1\r\nHost: %s\r\nUser-Agent: Telegraf/1.39.3 Go/1.26.2\r\nContent-Length: 32\r\n" +
		"Content-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\nq=CREATE+DATABASE+%%22telegraf%%22"
)

func (s *service) telegraf(request, body string) answer {
	s.t.Helper()
	zipped := gzipped(body)
	request = strings.Replace(request, "%x", fmt.Sprintf("%x", len(zipped)), 1)
	return s.raw(fmt.Sprintf(request, s.engine.Addresses().Collector, zipped))
}

// hosts gives the devices the external ids "host 0" to "host 3", by SQL.
func (s *service) hosts() {
	s.t.Helper()
	s.exec("UPDATE devices SET external_id = 'host ' || right(name, 1)")
}

func TestTelegraf(t *testing.T) {
	s := start(t)
	s.hosts()
	at := time.Now().Truncate(time.Second)
	ns := func(d time.Duration) string { return fmt.Sprint(at.Add(d).UnixNano()) }
	a := s.raw(fmt.Sprintf(telegrafCreate, s.engine.Addresses().Collector))
	expect(t, "CREATE DATABASE", fmt.Sprint(a.status, a.body), `200{"results":[{"statement_id":0}]}`)
	a = s.telegraf(telegrafV2, `modbus,host=host\ 0,name=main\ incomer voltage=230.5,current=7i `+ns(0)+"\n"+`modbus,host=host\ 1 voltage=231 `+ns(1234567)+"\n")
	expect(t, "version 2", fmt.Sprint(a.status, " ", a.body), "204 ")
	a = s.telegraf(telegrafV1, `modbus,host=host\ 2 voltage=232,count=5i `+ns(0)+"\n")
	expect(t, "version 1", fmt.Sprint(a.status, " ", a.body), "204 ")
	s.drained()
	expect(t, "stored", s.rows(`SELECT right(parameter_key, length(parameter_key) - 45) AS p, value, quality, source, d.external_id, (round((extract(epoch FROM time) - $1) * 1e6))::int
		FROM ingest_events e JOIN devices d ON d.id = e.device_id ORDER BY d.external_id, time, p`, at.Unix()),
		"current 7 192 influx host 0 0\nvoltage 230.5 192 influx host 0 0\nvoltage 231 192 influx host 1 1234\ncount 5 192 influx host 2 0\nvoltage 232 192 influx host 2 0")

	mixed := `modbus,host=host\ 3 voltage=1,status="on fire",up=true ` + ns(0) + "\nmodbus,host=web voltage=1 " + ns(0) + "\nbroken\n" + `modbus,host=host\ 3 voltage=2 ` + ns(time.Second) + "\n"
	a = s.telegraf(telegrafV2, mixed)
	if a.status != 400 || !strings.HasPrefix(a.body, `{"code":"invalid","message":"partial write: 2 of 4 points refused, 1 stored without some of their fields: line 1: unknown_parameter: fields.up: `) ||
		!strings.Contains(a.body, "line 2: unknown_device: host: ") || !strings.Contains(a.body, "line 3: line_invalid: ") || !strings.HasSuffix(a.body, `dropped=2","line":1}`) {
		t.Errorf("a partial write to version 2: %d %s", a.status, a.body)
	}
	a = s.telegraf(telegrafV1, mixed)
	if a.status != 400 || !strings.HasPrefix(a.body, `{"error":"partial write: 2 of 4 points refused`) {
		t.Errorf("a partial write to version 1: %d %s", a.status, a.body)
	}
	s.drained()
	expect(t, "stored of the partial writes", s.rows(`SELECT value FROM ingest_events e JOIN devices d ON d.id = e.device_id WHERE external_id = 'host 3' ORDER BY time`), "1\n2")
	wait(t, "error_logs", func() bool {
		return s.rows(`SELECT context->>'code', sum((context->>'count')::int) FROM error_logs GROUP BY 1 ORDER BY 1`) == "line_invalid 2\nunknown_device 2\nunknown_parameter 2"
	})
	metrics := s.get(s.engine.Addresses().Collector + "/metrics").body
	for _, want := range []string{`ingest_events_total{status="error"} 4`, `ingest_errors_total{error_type="field"} 4`, "nsready_ingest_untimed_total 0"} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no metric %s", want)
		}
	}
}

func (s *service) write(path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+s.engine.Addresses().Collector+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return s.do(req)
}

func TestWritesOfPoints(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Hour)
	device := s.device(0).ID.String()
	line := func(at int64) string { return fmt.Sprintf("m,device_id=%s voltage=%d %d", device, at%1000, at) }
	for _, c := range []struct {
		path   string
		at     int64
		status int
		text   string
	}{
		{"/api/v2/write?precision=s", now.Unix(), 204, ""},
		{"/api/v2/write?precision=ms", now.UnixMilli() + 1, 204, ""},
		{"/api/v2/write?precision=us", now.UnixMicro() + 2, 204, ""},
		{"/api/v2/write?bucket=b&precision=ns", now.UnixNano() + 3000, 204, ""},
		{"/write?db=x&precision=u", now.UnixMicro() + 4, 204, ""},
		{"/write?precision=h", now.Unix() / 3600, 204, ""}, // the same time as in seconds
		{"/write?precision=m", now.Unix() / 60, 204, ""},
		{"/write", now.Unix(), 400, "timestamp_too_old"},
		{"/write?precision=s", now.UnixNano(), 400, "timestamp_invalid"},
		{"/api/v2/write?precision=d", now.Unix(), 400, "precision_unknown"},
	} {
		if a := s.write(c.path, line(c.at)); a.status != c.status || !strings.Contains(a.body, c.text) {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	s.drained()
	expect(t, "times", s.rows("SELECT (round((extract(epoch FROM time) - $1) * 1e6))::int AS t FROM ingest_events ORDER BY 1", now.Unix()), "0\n2\n3\n4\n1000")

	before := time.Now()
	expect(t, "without a time", s.write("/write", "m,device="+device+" current=5").status, 204)
	s.drained()
	var at time.Time
	if err := s.db.QueryRow(t.Context(), "SELECT time FROM ingest_events WHERE parameter_key = $1", s.key("current")).Scan(&at); err != nil ||
		at.Before(before.Truncate(time.Microsecond)) || at.After(time.Now()) {
		t.Errorf("a point without a time is stored at %v, %v", at, err)
	}
	if m := s.get(s.engine.Addresses().Collector + "/metrics").body; !strings.Contains(m, "nsready_ingest_untimed_total 1\n") {
		t.Error("a point without a time is not counted")
	}

	zipped, large := gzipped(line(1)), strings.Repeat("#"+strings.Repeat("x", 1<<20)+"\n", 9)
	for name, c := range map[string]struct {
		path, body string
		header     []string
		status     int
		code       string
	}{
		"empty":            {"/write", "", nil, 204, ""},
		"comments":         {"/api/v2/write", "# x\n\n", nil, 204, ""},
		"any content type": {"/write", "m,device=" + device + " current=5", []string{"Content-Type", "application/x-www-form-urlencoded"}, 204, ""},
		"json":             {"/api/v2/write", `{"a":"b"}`, nil, 400, `"line":1`},
		"not gzip":         {"/api/v2/write", "x", []string{"Content-Encoding", "gzip"}, 400, `"code":"gzip_invalid"`},
		"half gzip":        {"/write", zipped[:len(zipped)-9], []string{"Content-Encoding", "gzip"}, 400, `"error":"gzip_invalid`},
		"deflate":          {"/write", "x", []string{"Content-Encoding", "deflate"}, 415, `content_encoding_unsupported`},
		"large":            {"/api/v2/write", large, nil, 413, "body_too_large"},
		"many":             {"/api/v2/write", strings.Repeat("x\n", 10_001), nil, 413, "too_many_events"},
		"query":            {"/query", "q=DROP+DATABASE+x", []string{"Content-Type", "application/x-www-form-urlencoded"}, 200, `"statement_id":0`},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.write(c.path, c.body, c.header...)
			if a.status != c.status || !strings.Contains(a.body, c.code) || len(a.body) > 8<<10 {
				t.Errorf("answer %d %s, want %d with %s", a.status, a.body, c.status, c.code)
			}
			if c.status == 415 && a.header.Get("Accept-Encoding") != "gzip, zstd" {
				t.Errorf("accepted encodings: %v", a.header)
			}
		})
	}
	a := s.get(s.engine.Addresses().Collector + "/ping")
	if a.status != 204 || a.header.Get("X-Influxdb-Version") == "" {
		t.Errorf("ping: %d %v", a.status, a.header)
	}
	expect(t, "get", s.get(s.engine.Addresses().Collector+"/write").status, 405)
}

func TestPointsWaitForTheDatabase(t *testing.T) {
	s := start(t)
	s.hosts()
	at := fmt.Sprint(time.Now().Unix())
	wait(t, "the external ids", func() bool { return s.engine.Snapshot().DeviceByExternalID("host 0") != nil })
	known, unknown := `m,host=host\ 0 voltage=1 `+at, "m,host=new voltage=1 "+at
	back := s.away()
	for _, path := range []string{"/write?precision=s", "/api/v2/write?precision=s"} {
		expect(t, "a known device to "+path, s.write(path, known).status, 204)
		for _, body := range []string{unknown, known + "\n" + unknown} {
			a := s.write(path, body)
			if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "registry_down") || strings.Contains(a.body, "partial write") {
				t.Errorf("%s: %d %v %s", body, a.status, a.header, a.body)
			}
		}
	}
	back()
	s.exec("UPDATE devices SET external_id = 'new' WHERE external_id = 'host 3'")
	expect(t, "as soon as the database is back", s.write("/write?precision=s", known+"\n"+unknown).status, 204)
	s.drained()
	expect(t, "stored", s.rows("SELECT value FROM ingest_events"), "1\n1")
}

func TestAFullQueueRefusesPointsForAWhile(t *testing.T) {
	s := start(t, func(o *engine.Options) { o.QueueBytes = 4 << 20 })
	defer s.away()()
	first := time.Now().Add(-time.Hour).UnixMilli()
	for i := 0; ; i++ {
		var body strings.Builder
		for j := range 5000 {
			fmt.Fprintf(&body, "m,device=%s voltage=1 %d\n", s.device(j%4).ID, first+int64(5000*i+j))
		}
		path := []string{"/write?precision=ms", "/api/v2/write?precision=ms"}[i%2]
		a := s.write(path, body.String())
		if a.status == 204 && i < 200 {
			continue
		}
		if a.status != 503 || !strings.Contains(a.body, "queue_full") || a.header.Get("Retry-After") == "" {
			t.Errorf("a full queue answers %d %v %s", a.status, a.header, a.body)
		}
		return
	}
}

func TestRemoteWrite(t *testing.T) {
	s := start(t)
	s.hosts()
	field := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	at := time.Now().UnixMilli()
	series := func(name, instance string, bits uint64) []byte {
		b := field(nil, 1, field(field(nil, 1, []byte("__name__")), 2, []byte(name)))
		b = field(b, 1, field(field(nil, 1, []byte("instance")), 2, []byte(instance)))
		sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), bits)
		return field(b, 2, protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(at)))
	}
	const two, three = 0x4000000000000000, 0x4008000000000000
	good := field(field(nil, 1, series("voltage", "host 0", two)), 1, series("current", "host 0", three))
	send := func(message []byte, header ...string) answer {
		return s.write("/api/v1/write", string(snappy.Encode(nil, message)), append([]string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy",
			"X-Prometheus-Remote-Write-Version", "0.1.0", "User-Agent", "Prometheus/3.0.0"}, header...)...)
	}
	expect(t, "good", send(good).status, 204)
	expect(t, "metadata", send(field(nil, 3, []byte("help"))).status, 204)
	a := send(field(good, 1, series("up", "host 0", two)))
	if a.status != 400 || !strings.Contains(a.body, "line 3: unknown_parameter: fields.up") || strings.Count(a.body, "\n") != 1 {
		t.Errorf("an unknown series: %d %s", a.status, a.body)
	}
	s.drained()
	expect(t, "stored", s.rows("SELECT right(parameter_key, 7) AS p, value, source, (round(extract(epoch FROM time) * 1000))::bigint = $1 FROM ingest_events ORDER BY p", at),
		"current 3 prometheus true\nvoltage 2 prometheus true")
	for name, c := range map[string]struct {
		body   string
		header []string
		status int
		code   string
	}{
		"version 2":        {"", []string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "Content-Encoding", "snappy"}, 415, "content_type_unsupported"},
		"text":             {"", []string{"Content-Type", "text/plain", "Content-Encoding", "snappy"}, 415, "content_type_unsupported"},
		"not compressed":   {"", []string{"Content-Type", "application/x-protobuf"}, 415, "content_encoding_unsupported"},
		"not snappy":       {"\x05hello", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}, 400, "snappy_invalid"},
		"nothing":          {"", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}, 400, "snappy_invalid"},
		"4 GiB in 6 bytes": {"\xff\xff\xff\xff\x0f\x00", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}, 413, "body_too_large"},
		"8 MiB in 5 bytes": {"\x80\x80\x80\x04\x00", []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}, 413, "compression_ratio"},
		"no protobuf":      {string(snappy.Encode(nil, []byte("voltage 1"))), []string{"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}, 400, "protobuf_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			if a := s.write("/api/v1/write", c.body, c.header...); a.status != c.status || !strings.Contains(a.body, c.code) {
				t.Errorf("answer %d %s, want %d with %s", a.status, a.body, c.status, c.code)
			}
		})
	}
}

func TestZstd(t *testing.T) {
	s := start(t)
	now := time.Now().Truncate(time.Second)
	body := s.event(0, now, "voltage", "1") + "\n" + s.event(1, now, "voltage", "2")
	post := func(body string) answer {
		return s.post("application/x-ndjson", body, "Content-Encoding", "zstd")
	}
	whole := zstdOf(body)
	expect(t, "one frame", post(whole).status, 200)
	expect(t, "two frames", post(zstdOf(body[:200])+zstdOf(body[200:])).status, 200)
	expect(t, "a large window", post(zstdOf(body, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))).status, 200)
	expect(t, "line protocol", s.write("/write", zstdOf("m,device="+s.device(2).ID.String()+" voltage=3"), "Content-Encoding", "zstd").status, 204)
	s.drained()
	expect(t, "stored", s.rows("SELECT value FROM ingest_events ORDER BY 1"), "1\n2\n3")

	// A frame header: magic number, descriptor, then exponent and mantissa of the window (RFC 8878, 3.1.1.1.2), then an empty block.
	window := func(exponent byte) string {
		return "\x28\xb5\x2f\xfd\x00" + string([]byte{exponent << 3}) + "\x01\x00\x00"
	}
	// One with a single segment and its size of 2 GiB in 8 bytes.
	single := "\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x80\x00\x00\x00\x00\x01\x00\x00"
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"not zstd":       {"hello", 400, "zstd_invalid"},
		"cut":            {whole[:len(whole)-3], 400, "zstd_invalid"},
		"flipped":        {whole[:40] + string([]byte{whole[40] ^ 1}) + whole[41:], 400, "zstd_invalid"},
		"more behind it": {whole + "x", 400, "zstd_invalid"},
		"empty":          {"", 400, ""},
		"2 GiB window":   {window(21), 400, "zstd_invalid"},
		"16 MiB window":  {window(14), 400, "zstd_invalid"},
		"2 GiB segment":  {single, 400, "zstd_invalid"},
		"bomb":           {zstdOf(strings.Repeat("\x00", 64<<20)), 413, "compression_ratio"},
		"large":          {zstdOf(strings.Repeat(whole, 9<<20/len(whole)), zstd.WithEncoderLevel(zstd.SpeedFastest)), 413, ""},
		"dictionary":     {"\x28\xb5\x2f\xfd\x01\x58\x07\x01\x00\x00", 400, "zstd_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := post(c.body)
			runtime.ReadMemStats(&after)
			if a.status != c.status || !strings.Contains(a.body, c.code) {
				t.Errorf("answer %d %s, want %d with %s", a.status, a.body, c.status, c.code)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
				t.Errorf("%d MiB were allocated", n>>20)
			}
		})
	}
	a := s.post("application/json", "{}", "Content-Encoding", "br")
	expect(t, "brotli", fmt.Sprint(a.status, " ", a.header.Get("Accept-Encoding")), "415 gzip, zstd")
}
