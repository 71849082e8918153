package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nsready/nsready/engine/ingest"
	"github.com/nsready/nsready/engine/telemetry"
)

// desk is an Ingester that accepts everything but what begins with bad, and what its fields say.
type desk struct {
	mu      sync.Mutex
	bodies  []string
	refused []string
	verdict func(body string) error // of Submit, when not nil
	disk    func(body string) error // of its wait, when not nil; may block
}

func (d *desk) Submit(_ context.Context, _ ingest.Format, body []byte) (ingest.Result, func(context.Context) error, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := string(body)
	d.bodies = append(d.bodies, text)
	if d.verdict != nil {
		if err := d.verdict(text); err != nil {
			return ingest.Result{}, nil, err
		}
	}
	if strings.HasPrefix(text, "bad") {
		return ingest.Result{Rejected: 1}, nil, nil
	}
	return ingest.Result{Accepted: 1}, func(context.Context) error {
		if d.disk != nil {
			return d.disk(text)
		}
		return nil
	}, nil
}

func (d *desk) Refuse(code string, input []byte, _ string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = append(d.refused, code+" "+string(input))
}

func newReceiver(d *desk) *Receiver {
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}) }
	return &Receiver{Ingest: d, Log: slog.New(slog.DiscardHandler), Grace: 5 * time.Second, Metrics: Metrics{
		Connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}),
		Closed:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "v"}, []string{"reason"}),
		Queued:      counter(), Refused: counter(), Unavailable: counter(),
	}}
}

// pipes is a listener of connections through memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return nil }

// served is a Receiver that serves.
type served struct {
	t *testing.T
	*Receiver
	pipes *pipes
	stop  func() // waits until Serve has returned
}

func serve(t *testing.T, d *desk) *served {
	s := &served{t: t, Receiver: newReceiver(d), pipes: &pipes{conns: make(chan net.Conn), done: make(chan struct{})}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, s.pipes) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// client is the other end of a connection, in the words of another implementation's codec.
type client struct {
	t *testing.T
	net.Conn
}

func (s *served) dial() *client {
	here, there := net.Pipe()
	s.pipes.conns <- there
	s.t.Cleanup(func() { here.Close() })
	return &client{s.t, here}
}

func (s *served) connect() *client {
	s.t.Helper()
	c := s.dial()
	c.send(connectAs("device", 0))
	c.expect("CONNACK 0")
	return c
}

func connectAs(id string, keepAlive uint16) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession, p.ClientIdentifier, p.Keepalive = "MQTT", 4, true, id, keepAlive
	return p
}

func publishOf(qos byte, id uint16, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	return p
}

func (c *client) send(list ...packets.ControlPacket) {
	c.t.Helper()
	var b bytes.Buffer
	for _, p := range list {
		if err := p.Write(&b); err != nil {
			c.t.Fatal(err)
		}
	}
	c.Write(b.Bytes()) // fails when the receiver has enough, which what is read next tells
}

// read returns the next packet as its name and identifier, or what ended the connection.
func (c *client) read() string {
	p, err := packets.ReadPacket(c)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return "end"
	}
	if err != nil {
		return err.Error()
	}
	switch p := p.(type) {
	case *packets.ConnackPacket:
		return fmt.Sprint("CONNACK ", p.ReturnCode)
	case *packets.PubackPacket:
		return fmt.Sprint("PUBACK ", p.MessageID)
	case *packets.PubrecPacket:
		return fmt.Sprint("PUBREC ", p.MessageID)
	case *packets.PubcompPacket:
		return fmt.Sprint("PUBCOMP ", p.MessageID)
	case *packets.SubackPacket:
		return fmt.Sprintf("SUBACK %d %x", p.MessageID, p.ReturnCodes)
	case *packets.UnsubackPacket:
		return fmt.Sprint("UNSUBACK ", p.MessageID)
	case *packets.PingrespPacket:
		return "PINGRESP"
	}
	return fmt.Sprintf("%T", p)
}

func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Fatalf("got %s, want %s", got, w)
		}
	}
}

func (s *served) closed(reason string) int {
	return int(testutil.ToFloat64(s.Metrics.Closed.WithLabelValues(reason)))
}

const topic = "nsready/ingest"

func TestPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{verdict: func(body string) error {
			if body == "broken" {
				return &ingest.Rejection{Code: ingest.CodeJSONInvalid}
			}
			return nil
		}}
		s := serve(t, d)
		c := s.connect()
		c.send(publishOf(0, 0, topic, "a"), publishOf(1, 7, topic, "b"), publishOf(1, 8, topic, "bad"), publishOf(1, 9, "nsready/other", "c"),
			publishOf(1, 10, topic, "broken"), publishOf(2, 0xabcd, topic+"/ndjson", "d"))
		c.expect("PUBACK 7", "PUBACK 8", "PUBACK 9", "PUBACK 10", "PUBREC 43981")
		release := packets.NewControlPacket(packets.Pubrel).(*packets.PubrelPacket)
		release.MessageID = 0xabcd
		subscribe := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		subscribe.MessageID, subscribe.Topics, subscribe.Qoss = 3, []string{"#", "$SYS/x"}, []byte{1, 0}
		unsubscribe := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		unsubscribe.MessageID, unsubscribe.Topics = 4, []string{"#"}
		go c.send(release, subscribe, unsubscribe, packets.NewControlPacket(packets.Pingreq), packets.NewControlPacket(packets.Disconnect))
		c.expect("PUBCOMP 43981", "SUBACK 3 8080", "UNSUBACK 4", "PINGRESP", "end")
		s.stop()
		if got := fmt.Sprint(d.bodies, d.refused); got != "[a b bad broken d] [topic_unknown nsready/other]" {
			t.Error("submitted and refused:", got)
		}
		if q, r := testutil.ToFloat64(s.Metrics.Queued), testutil.ToFloat64(s.Metrics.Refused); q != 3 || r != 3 {
			t.Errorf("%v are counted as queued, %v as refused", q, r)
		}
		for _, reason := range Reasons {
			if n := s.closed(reason); n != 0 {
				t.Errorf("%d connections were closed for %s", n, reason)
			}
		}
	})
}

// Publishes in flight go to the queue together, and are acknowledged in their order when the disk has them.
func TestAnAcknowledgementWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
		d := &desk{disk: func(body string) error { <-disk[body]; return nil }}
		s := serve(t, d)
		c := s.connect()
		c.send(publishOf(1, 1, topic, "a"), publishOf(1, 2, topic, "b"), packets.NewControlPacket(packets.Pingreq))
		c.expect("PINGRESP") // nobody waits for the disk but who asked for it
		got := make(chan string)
		go func() { got <- c.read(); got <- c.read() }()
		close(disk["b"])
		synctest.Wait()
		select {
		case p := <-got:
			t.Fatalf("%s before its time", p)
		default:
		}
		if len(d.bodies) != 2 {
			t.Fatalf("submitted: %q", d.bodies)
		}
		close(disk["a"])
		if first, second := <-got, <-got; first != "PUBACK 1" || second != "PUBACK 2" {
			t.Error(first, second)
		}
	})
}

func TestAStopAcknowledgesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan struct{})
		s := serve(t, &desk{disk: func(string) error { <-disk; return nil }})
		c := s.connect()
		c.send(publishOf(1, 1, topic, "a"))
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(disk) })
		go s.stop()
		c.expect("PUBACK 1", "end")
	})
}

func TestWhatIsUnavailableIsNotAcknowledged(t *testing.T) {
	full := &telemetry.UnavailableError{Code: "queue_full", RetryAfter: 3 * time.Second, Err: errors.New("full")}
	only := func(want string) func(string) error {
		return func(body string) error {
			if body == want {
				return full
			}
			return nil
		}
	}
	for name, d := range map[string]*desk{"at once": {verdict: only("b")}, "later": {disk: only("b")}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, d)
				c := s.connect()
				start := time.Now()
				c.send(publishOf(1, 1, topic, "a"), publishOf(1, 2, topic, "b"), publishOf(1, 3, topic, "c"))
				c.expect("PUBACK 1", "end")
				if took := time.Since(start); took != full.RetryAfter {
					t.Errorf("closed after %s", took)
				}
				s.stop()
				if n := s.closed(reasonUnavailable); n != 1 {
					t.Errorf("counted %d times", n)
				}
			})
		})
	}
	t.Run("QoS 0", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, &desk{verdict: only("b"), disk: only("c")})
			c := s.connect()
			c.send(publishOf(0, 0, topic, "b"), publishOf(0, 0, topic, "c"), publishOf(1, 1, topic, "a"))
			c.expect("PUBACK 1")
			if n := testutil.ToFloat64(s.Metrics.Unavailable); n != 2 {
				t.Errorf("%v are counted", n)
			}
		})
	})
}

func TestSilence(t *testing.T) {
	for name, test := range map[string]struct {
		send []byte
		want time.Duration
	}{
		"nothing":         {nil, connectTimeout},
		"half a CONNECT":  {[]byte{0x10, 20, 0, 4}, connectTimeout},
		"keep-alive":      {nil, 90 * time.Second},
		"half a PUBLISH":  {[]byte{0x32, 100, 0, 4}, packetTimeout},
		"half a length":   {[]byte{0x32, 0x80}, 90 * time.Second},
		"a PINGREQ first": {[]byte{0xc0, 0}, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &desk{})
				c := s.dial()
				if test.want != connectTimeout {
					c.send(connectAs("x", 60))
					c.expect("CONNACK 0")
				}
				start := time.Now()
				c.Write(test.send)
				if name == "a PINGREQ first" {
					c.expect("PINGRESP")
				}
				c.expect("end")
				if took := time.Since(start); took != test.want {
					t.Errorf("closed after %s, want %s", took, test.want)
				}
				s.stop()
				if s.closed(reasonTimeout) != 1 {
					t.Error("it is not counted as a timeout")
				}
			})
		})
	}
}

func TestAClientThatReadsNothingIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &desk{})
		c := s.connect()
		c.send(publishOf(1, 1, topic, "a"))
		time.Sleep(writeTimeout + time.Second) // the test's own clock
		if s.closed(reasonTimeout) != 1 {
			t.Error("it is not closed")
		}
		c.expect("end")
	})
}

func TestTheSameClientAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &desk{})
		old := s.connect()
		now := s.connect()
		old.expect("end")
		now.send(publishOf(1, 1, topic, "a"))
		now.expect("PUBACK 1")
		if s.closed(reasonTakenOver) != 1 {
			t.Error("it is not counted")
		}
	})
}

func TestConnectIsRefused(t *testing.T) {
	change := func(f func(*packets.ConnectPacket)) []byte {
		p := connectAs("x", 0)
		f(p)
		var b bytes.Buffer
		p.Write(&b)
		return b.Bytes()
	}
	for name, test := range map[string]struct {
		send []byte
		want string
	}{
		"MQTT 5":                 {change(func(p *packets.ConnectPacket) { p.ProtocolVersion = 5 }), "CONNACK 1"},
		"MQTT 3.1":               {change(func(p *packets.ConnectPacket) { p.ProtocolName, p.ProtocolVersion = "MQIsdp", 3 }), "CONNACK 1"},
		"no id, not clean":       {change(func(p *packets.ConnectPacket) { p.ClientIdentifier, p.CleanSession = "", false }), "CONNACK 2"},
		"a long id":              {change(func(p *packets.ConnectPacket) { p.ClientIdentifier = strings.Repeat("x", maxClientID+1) }), "CONNACK 2"},
		"another protocol":       {change(func(p *packets.ConnectPacket) { p.ProtocolName = "HTTP" }), "end"},
		"a reserved flag":        {[]byte("\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01x"), "end"},
		"a will with QoS 3":      {change(func(p *packets.ConnectPacket) { p.WillFlag, p.WillTopic, p.WillQos = true, "w", 3 }), "end"},
		"a will's QoS, no will":  {change(func(p *packets.ConnectPacket) { p.WillQos = 1 }), "end"},
		"a password and no user": {change(func(p *packets.ConnectPacket) { p.PasswordFlag, p.Password = true, []byte("x") }), "end"},
		"larger than one may be": {[]byte{0x10, 0xff, 0xff, 0x03}, "end"},
		"a length of five bytes": {[]byte{0x10, 0xff, 0xff, 0xff, 0xff, 0x01}, "end"},
		"something else first":   {[]byte{0xc0, 0}, "end"},
		"HTTP":                   {[]byte("GET / HTTP/1.1\r\n"), "end"},
		"a will, user, password": {change(func(p *packets.ConnectPacket) {
			p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, "w", []byte("gone"), 1, true
			p.UsernameFlag, p.Username, p.PasswordFlag, p.Password = true, "u", true, []byte{0, 255}
		}), "CONNACK 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &desk{})
				c := s.dial()
				go c.Write(test.send)
				c.expect(test.want)
				if test.want == "CONNACK 0" {
					return
				}
				if test.want != "end" {
					c.expect("end")
				}
				s.stop()
				if s.closed(reasonProtocol) != 1 {
					t.Error("it is not counted")
				}
			})
		})
	}
}

func TestViolationsEndTheConnection(t *testing.T) {
	for name, send := range map[string]string{
		"a second CONNECT":        "\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x",
		"QoS 3":                   "\x36\x07\x00\x01t\x00\x01xx",
		"packet identifier 0":     "\x32\x07\x00\x01t\x00\x00xx",
		"a wildcard in a topic":   "\x30\x05\x00\x01+xx",
		"an empty topic":          "\x30\x04\x00\x00xx",
		"a topic with NUL":        "\x30\x05\x00\x01\x00xx",
		"a topic not in UTF-8":    "\x30\x05\x00\x01\xffxx",
		"a topic beyond its end":  "\x30\x04\x00\x09tx",
		"no filters":              "\x82\x02\x00\x01",
		"a filter's QoS":          "\x82\x06\x00\x01\x00\x01t\x03",
		"flags of SUBSCRIBE":      "\x80\x06\x00\x01\x00\x01t\x00",
		"flags of PINGREQ":        "\xc1\x00",
		"a server's packet":       "\x20\x02\x00\x00",
		"a PUBACK for nothing":    "\x40\x02\x00\x01",
		"type 0":                  "\x00\x00",
		"type 15":                 "\xf0\x00",
		"a packet too large":      "\x30\x81\x80\x20",
		"a DISCONNECT with bytes": "\xe0\x01\x00",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &desk{}
				s := serve(t, d)
				c := s.connect()
				go io.WriteString(c, send)
				c.expect("end")
				s.stop()
				if s.closed(reasonProtocol) != 1 || len(d.bodies) > 0 {
					t.Errorf("counted %d, submitted %q", s.closed(reasonProtocol), d.bodies)
				}
			})
		})
	}
}

// What is announced costs nothing; what has come is counted, and bounded for all connections together.
func TestMemoryFollowsWhatHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &desk{})
		for i := range 200 {
			c := s.dial()
			c.send(connectAs(fmt.Sprint("c", i), 0))
			c.expect("CONNACK 0")
			c.Write([]byte{0x30, 0xff, 0xff, 0x1f, 0, 1, 't'}) // the first bytes of 512 KiB
		}
		synctest.Wait()
		if held := s.held.Load(); held != 200*aheadRead {
			t.Errorf("%d bytes are held", held)
		}
		c := s.connect()
		s.held.Add(maxHeld - s.held.Load())
		go c.send(publishOf(1, 1, topic, "a"))
		c.expect("end")
		if s.closed(reasonUnavailable) != 1 {
			t.Error("it is not counted")
		}
	})
}

func TestTooManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &desk{})
		s.connect()
		s.mu.Lock()
		for range MaxClients - 1 {
			here, _ := net.Pipe()
			s.conns[newConn(s.Receiver, here)] = struct{}{}
		}
		s.mu.Unlock()
		s.dial().expect("end")
		if s.closed(reasonLimit) != 1 {
			t.Error("it is not counted")
		}
	})
}

// FuzzConnection sends any bytes after a CONNECT. Whatever they are, the answers are packets, what is submitted was sent,
// nothing stays held, and the connection ends when the client's side does.
func FuzzConnection(f *testing.F) {
	seed := func(list ...packets.ControlPacket) {
		var b bytes.Buffer
		for _, p := range list {
			p.Write(&b)
		}
		f.Add(true, b.Bytes())
	}
	seed(connectAs("x", 1))
	seed(publishOf(1, 1, topic, "abc"), publishOf(2, 2, topic, "bad"), publishOf(0, 0, "x/y", ""), packets.NewControlPacket(packets.Pingreq))
	seed(publishOf(1, 1, topic, strings.Repeat("x", 10_000)), packets.NewControlPacket(packets.Disconnect))
	f.Add(false, []byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x\x82\x06\x00\x01\x00\x01t\x00\xa2\x05\x00\x01\x00\x01t"))
	f.Add(true, []byte("\x30\xff\xff\x1f\x00\x01t"))
	f.Fuzz(func(t *testing.T, connected bool, data []byte) {
		d := &desk{}
		s := serve(t, d)
		c := s.dial()
		if connected {
			c.send(connectAs("fuzz", 0))
			c.expect("CONNACK 0")
		}
		answers := make(chan error, 1)
		go func() {
			for {
				if _, err := packets.ReadPacket(c); err != nil {
					answers <- err
					return
				}
			}
		}()
		c.Write(data)
		s.stop() // it stops reading where it is
		if err := <-answers; !errors.Is(err, io.EOF) {
			t.Errorf("an answer is no packet: %v", err)
		}
		for _, body := range d.bodies {
			if !bytes.Contains(data, []byte(body)) {
				t.Errorf("submitted %q, which nobody sent", body)
			}
		}
		if held := s.held.Load(); held != 0 {
			t.Errorf("%d bytes stay held", held)
		}
	})
}
