package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nsready/nsready/engine/telemetry"
)

// freePorts returns ports on which nobody listens.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func startExternal(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	o.Host, o.JetStream, o.NoSigs, o.NoLog, o.DisableJetStreamBanner = "127.0.0.1", true, true, true, true
	o.JetStreamMaxStore, o.JetStreamMaxMemory = 1<<30, 64<<20
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("a NATS server does not start")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

func connect(t *testing.T, urls string) *nats.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	nc, err := Connect(ctx, urls, ConnectOptions{Name: "test", Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func openExternal(t *testing.T, urls string, o Options) *Queue {
	t.Helper()
	o.External, o.Log = true, quiet
	q, err := Open(t.Context(), connect(t, urls), o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func run(t *testing.T, q *Queue) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestManyMayMakeTheQueueAtOnce(t *testing.T) {
	s := startExternal(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true})
	var g sync.WaitGroup
	queues := make([]*Queue, 6)
	for i := range queues {
		nc := connect(t, s.ClientURL())
		g.Go(func() {
			var err error
			if queues[i], err = Open(t.Context(), nc, Options{Partitions: 1 + i%3, MaxBytes: 32 << 20, External: true, Log: quiet}); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if t.Failed() {
		return
	}
	fresh := 0
	for _, q := range queues {
		if len(q.partitions) != len(queues[0].partitions) {
			t.Fatalf("one sees %d partitions, another %d", len(q.partitions), len(queues[0].partitions))
		}
		for i, p := range q.partitions {
			if p.Epoch != queues[0].partitions[i].Epoch || p.Epoch == "" {
				t.Errorf("partition %d has epochs %q and %q", i, p.Epoch, queues[0].partitions[i].Epoch)
			}
			if p.Fresh {
				fresh++
			}
		}
	}
	if fresh != len(queues[0].partitions) {
		t.Errorf("%d partitions were made by one of them, there are %d", fresh, len(queues[0].partitions))
	}
	// Each sees what the others put in.
	stop := run(t, queues[0])
	defer stop()
	defer run(t, queues[1])()
	put(t, queues[0], 0, 1, 2, 3)
	put(t, queues[1], 0, 4, 5)
	until(t, "both to count all events", func() bool {
		return queues[0].partitions[0].Events() == 5 && queues[1].partitions[0].Events() == 5
	})
	if values, _ := read(t, queues[1], 0, 1, 2); fmt.Sprint(values) != "[4 5]" {
		t.Errorf("the second frame holds %v", values)
	}
}

func TestAStreamIsSetRightOrRefused(t *testing.T) {
	s := startExternal(t, server.Options{StoreDir: t.TempDir()})
	openExternal(t, s.ClientURL(), Options{Partitions: 1, MaxBytes: 32 << 20})
	nc := connect(t, s.ClientURL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "INGRESS_0")
	if err != nil {
		t.Fatal(err)
	}
	good := stream.CachedInfo().Config
	reopen := func() (jetstream.StreamConfig, error) {
		if _, err := Open(t.Context(), nc, Options{Partitions: 1, MaxBytes: 32 << 20, External: true, Log: quiet}); err != nil {
			return jetstream.StreamConfig{}, err
		}
		s, err := js.Stream(t.Context(), "INGRESS_0")
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().Config, nil
	}
	bad := good
	bad.Discard, bad.MaxAge, bad.MaxMsgs, bad.MaxBytes = jetstream.DiscardOld, time.Hour, 10, 1<<20
	if _, err := js.UpdateStream(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if got, err := reopen(); err != nil || got.Discard != good.Discard || got.MaxAge != 0 || got.MaxMsgs != good.MaxMsgs || got.MaxBytes != good.MaxBytes {
		t.Errorf("the stream was not set right: %+v, %v", got, err)
	}
	for want, spoil := range map[string]func(*jetstream.StreamConfig){
		"keeps its messages in memory":  func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"drops messages that were read": func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy },
		"persist_mode async":            func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"denies purges":                 func(c *jetstream.StreamConfig) { c.DenyPurge = true },
		"was not made by nsready":       func(c *jetstream.StreamConfig) { c.Metadata = nil },
	} {
		if err := js.DeleteStream(t.Context(), "INGRESS_0"); err != nil {
			t.Fatal(err)
		}
		bad := good
		spoil(&bad)
		if _, err := js.CreateStream(t.Context(), bad); err != nil {
			t.Fatalf("a stream that %s: %v", want, err)
		}
		if _, err := reopen(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "INGRESS_0") {
			t.Errorf("a stream that %s: %v", want, err)
		}
	}
}

func TestNoPasswordIsShown(t *testing.T) {
	var log bytes.Buffer
	o := ConnectOptions{Name: "test", Log: slog.New(slog.NewTextHandler(&log, nil))}
	port := freePorts(t, 1)[0]
	for _, u := range []string{
		"nats://user:hunter2@127.0.0.1:%d", "nats://hunter2@127.0.0.1:%d", "user:hunter2@127.0.0.1:%d,nats://a:hunter2@127.0.0.1:%[1]d",
		"nats://user:hunter2 %%@127.0.0.1:%d", "nats://user:hunter2@127.0.0.1:%dx", "tls://user:hunter2@127.0.0.1:%d",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := Connect(ctx, fmt.Sprintf(u, port), o)
		cancel()
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", u, err)
		}
	}
	s := startExternal(t, server.Options{StoreDir: t.TempDir(), Username: "user", Password: "other"})
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("user", "hunter2")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := Connect(ctx, u.String(), o); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("with a wrong password: %v", err)
	}
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "will go on trying") {
		t.Errorf("the log says %s", text)
	}
}

func TestConnectWaitsForItsServer(t *testing.T) {
	port := freePorts(t, 1)[0]
	connected := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		nc, err := Connect(ctx, fmt.Sprintf("nats://127.0.0.1:%d", port), ConnectOptions{Name: "test", Log: quiet})
		if err == nil {
			nc.Close()
		}
		connected <- err
	}()
	startExternal(t, server.Options{StoreDir: t.TempDir(), Port: port})
	if err := <-connected; err != nil {
		t.Error(err)
	}
}

func TestDurabilityIsWhatTheServerSays(t *testing.T) {
	for _, always := range []bool{true, false} {
		s := startExternal(t, server.Options{StoreDir: t.TempDir(), SyncAlways: always, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT})
		other := startExternal(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT})
		monitor := func(s *server.Server) string { return "http://" + s.MonitorAddr().String() }
		for name, c := range map[string]struct {
			monitors []string
			fsync    bool
		}{
			"none":      {nil, false},
			"its own":   {[]string{monitor(s)}, always},
			"another's": {[]string{monitor(other)}, false},
			"nobody's":  {[]string{"http://127.0.0.1:1"}, false},
			"both":      {[]string{monitor(other), monitor(s) + "/"}, always},
		} {
			q := openExternal(t, s.ClientURL(), Options{Partitions: 1, MaxBytes: 32 << 20, MonitorURLs: c.monitors})
			want := "unsynced"
			if c.fsync {
				want = "fsync"
			}
			if q.Durability() != want || (q.DurabilityProblem() == "") != c.fsync {
				t.Errorf("sync always %v, monitor %s: %s, %q", always, name, q.Durability(), q.DurabilityProblem())
			}
		}
	}
}

// cluster is three JetStream servers.
type cluster struct {
	t       *testing.T
	options []server.Options
	servers []*server.Server
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t}
	dir, ports := t.TempDir(), freePorts(t, 9)
	var routes []string
	for _, p := range ports[:3] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	for i := range 3 {
		c.options = append(c.options, server.Options{
			ServerName: fmt.Sprintf("n%d", i), StoreDir: filepath.Join(dir, fmt.Sprint(i)), SyncAlways: true, Port: ports[3+i],
			HTTPHost: "127.0.0.1", HTTPPort: ports[6+i],
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		})
		c.servers = append(c.servers, nil)
	}
	for i := range 3 {
		c.start(i)
	}
	return c
}

func (c *cluster) start(i int) { c.servers[i] = startExternal(c.t, c.options[i]) }

func (c *cluster) urls() string {
	var urls []string
	for _, o := range c.options {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(urls, ",")
}

// stopLeader shuts the leader of a partition's stream down, and returns its number.
func (c *cluster) stopLeader(q *Queue, partition int) int {
	c.t.Helper()
	at := -1
	until(c.t, "a leader", func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		info, err := q.partitions[partition].stream.Info(ctx)
		if err != nil || info.Cluster == nil {
			return false
		}
		for i, o := range c.options {
			if o.ServerName == info.Cluster.Leader {
				at = i
			}
		}
		return at >= 0
	})
	c.servers[at].Shutdown()
	c.servers[at].WaitForShutdown()
	return at
}

func TestALeaderIsLostUnderLoad(t *testing.T) {
	c := newCluster(t)
	var monitors []string
	for _, o := range c.options {
		monitors = append(monitors, fmt.Sprintf("http://127.0.0.1:%d", o.HTTPPort))
	}
	const partitions = 2
	var queues []*Queue // of two collectors
	var stops []func()
	for range 2 {
		q := openExternal(t, c.urls(), Options{Partitions: partitions, MaxBytes: 256 << 20, Replicas: 3, MonitorURLs: monitors})
		queues = append(queues, q)
		stops = append(stops, run(t, q))
	}
	if d := queues[0].Durability(); d != "fsync" {
		t.Errorf("durability is %q: %s", d, queues[0].DurabilityProblem())
	}
	const senders = 4
	var acknowledged, refused atomic.Int64
	var mu sync.Mutex
	accepted := [partitions]map[float64]bool{{}, {}}
	done := make(chan struct{})
	var g sync.WaitGroup
	for s := range senders {
		g.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				v := float64(s*1e6 + i)
				wait, err := queues[s%2].Append(s/2, block(s, v))
				if err == nil {
					err = wait(t.Context())
				}
				if err == nil {
					acknowledged.Add(1)
					mu.Lock()
					accepted[s/2][v] = true
					mu.Unlock()
				} else if refused.Add(1); !errors.As(err, new(*telemetry.UnavailableError)) {
					t.Error(err)
					return
				} else {
					select {
					case <-done:
					case <-time.After(20 * time.Millisecond):
					}
				}
			}
		})
	}
	more := func(what string) {
		t.Helper()
		n := acknowledged.Load()
		until(t, what, func() bool { return acknowledged.Load() > n+100 })
	}
	more("events before")
	lost := c.stopLeader(queues[0], 0)
	more("events with a server gone")
	c.start(lost)
	more("events with the server back")
	close(done)
	g.Wait()
	t.Logf("%d acknowledged, %d refused", acknowledged.Load(), refused.Load())

	for p := range partitions {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		type place struct{ producer, before uint64 }
		seen := map[place]uint64{}
		producers := telemetry.Producers{}
		events := uint64(0)
		var decoder telemetry.Decoder
		var r *Reader
		last := uint64(0)
		info, err := queues[0].partitions[p].stream.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for last < info.State.LastSeq {
			if r == nil {
				r = queues[1].Read(p, last)
				defer r.Close()
			}
			seq, data, _, err := r.Next(ctx)
			if err != nil && ctx.Err() == nil { // as a worker does
				r = nil
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var b telemetry.Batch
			h, err := decoder.Append(&b, data)
			if err != nil {
				t.Fatal(err)
			}
			if seq != last+1 {
				t.Errorf("partition %d: frame %d follows frame %d", p, seq, last)
			}
			if again, ok := seen[place{h.Producer, h.Before}]; ok {
				t.Errorf("partition %d: frame %d is frame %d again", p, seq, again)
			}
			if n := producers.Missing(h); n > 0 {
				t.Errorf("partition %d: %d events are missing before frame %d", p, n, seq)
			}
			seen[place{h.Producer, h.Before}] = seq
			for _, e := range b.Events {
				delete(accepted[p], e.Values[0])
			}
			events += uint64(h.Events)
			last = seq
		}
		if n := len(accepted[p]); n > 0 {
			t.Errorf("partition %d: %d acknowledged events are missing", p, n)
		}
		for i, q := range queues {
			until(t, fmt.Sprintf("queue %d to count the %d events of partition %d", i, events, p), func() bool { return q.partitions[p].Events() == events })
		}
	}
	for _, stop := range stops {
		stop()
	}
}
