package chaos

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// Ready is what is needed of the ready file of `nsready up`.
type Ready struct {
	Collector   string `json:"collector"`
	DatabaseURL string `json:"database_url"`
	NATSMonitor string `json:"nats_monitor"`
}

// System is an `nsready up` of its own that faults are done to. Its collector keeps its address over restarts.
type System struct {
	command []string // of the binary and the flags that do not change
	data    string
	file    string  // of the log, and of the ready file, without their extensions
	volume  *Volume // that holds data, or nil
	config  string
	log     *os.File
	sender  *registry.Device // whose events post sends
	holding bool             // the declaration says that events of unknown devices are held

	mu         sync.Mutex
	ready      Ready
	process    *exec.Cmd
	exited     chan struct{}
	recoveries []time.Duration // from each launch but the first to its readiness
}

// Options of a System.
type Options struct {
	Binary string   // the nsready to run
	Config string   // the declaration to run it with
	Data   string   // the data directory, which is left behind
	Volume *Volume  // when not nil, it holds the data directory instead
	Flags  []string // more of up's
}

// Start runs a system and waits until it is ready. What it logs is in DATA.log, or beside the volume.
func Start(ctx context.Context, o Options) (*System, error) {
	s := &System{data: filepath.Clean(o.Data), file: filepath.Clean(o.Data), volume: o.Volume, config: o.Config}
	if o.Volume != nil {
		s.data, s.file = filepath.Join(o.Volume.Path(), "data"), o.Volume.Beside("data")
	}
	s.command = append([]string{o.Binary, "up", "-config", o.Config, "-data", s.data, "-admin", "127.0.0.1:0", "-nats-monitor", "127.0.0.1:0"}, o.Flags...)
	var err error
	if s.log, err = os.Create(s.file + ".log"); err != nil {
		return nil, fmt.Errorf("starting a system: %w", err)
	}
	if err := s.launch(ctx, "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// startTimeout is for a start after a crash, with PostgreSQL's recovery.
const startTimeout = 60 * time.Second

// launch runs the process and waits for its ready file.
func (s *System) launch(ctx context.Context, collector string, env ...string) error {
	if err := s.begin(collector, env...); err != nil {
		return err
	}
	return s.await(ctx)
}

// begin runs the process.
func (s *System) begin(collector string, env ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(s.file + ".ready"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("starting a system: %w", err)
	}
	c := exec.Command(s.command[0], append(s.command[1:len(s.command):len(s.command)], "-collector", collector, "-ready-file", s.file+".ready")...)
	c.Stdout, c.Stderr = s.log, s.log
	c.Env = append(os.Environ(), env...)
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting a system: %w", err)
	}
	exited := make(chan struct{})
	go func() { c.Wait(); close(exited) }()
	s.process, s.exited = c, exited
	return nil
}

// await waits for the ready file.
func (s *System) await(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(s.file + ".ready")
		if err == nil {
			if err := json.Unmarshal(text, &s.ready); err != nil {
				return fmt.Errorf("reading the ready file: %w", err)
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("the system ended before it was ready: %s", s.tail())
		case <-ctx.Done():
			return fmt.Errorf("the system is not ready: %w: %s", context.Cause(ctx), s.tail())
		}
	}
}

// tail returns the last lines of the system's log.
func (s *System) tail() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// Log returns the path of what the system logs.
func (s *System) Log() string { return s.log.Name() }

// Ready returns where the system is.
func (s *System) Ready() Ready {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Kill ends the service with SIGKILL and waits until it is gone.
func (s *System) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing the service: %w", err)
	}
	<-s.exited
	return nil
}

// Restart runs the service again, at the address that it had.
func (s *System) Restart(ctx context.Context) error {
	began := time.Now()
	collector, err := s.collector()
	if err == nil {
		err = s.launch(ctx, collector)
	}
	if err != nil {
		return fmt.Errorf("restarting the service: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recoveries = append(s.recoveries, time.Since(began))
	return nil
}

// collector returns the collector's host:port.
func (s *System) collector() (string, error) {
	u, err := url.Parse(s.Ready().Collector)
	if err != nil {
		return "", err
	}
	return u.Host, nil
}

// Recoveries returns how long each restart took until the service was ready.
func (s *System) Recoveries() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recoveries)
}

// CutPower cuts the power of the service's volume, and gives it again: the service is gone, and of what it wrote there is
// what it had synced.
func (s *System) CutPower() error {
	if s.volume == nil {
		return errors.New("cutting the power: the system has no volume of its own")
	}
	if err := s.freeze(); err != nil {
		return fmt.Errorf("cutting the power: %w", err)
	}
	if err := s.volume.Cut(s.Kill); err != nil { // one that just starts may not use the volume yet
		return err
	}
	return s.volume.On()
}

// freeze stops the service's threads before the power is cut. An fsync that is under way then is cut with it, and often reports
// success for what is lost (ext4 on Linux 6.18: one in nine cuts with four writers). Nobody hears of that where the power is
// really cut; a service that ran on would acknowledge it.
func (s *System) freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Process.Signal(syscall.SIGSTOP); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return fmt.Errorf("stopping the service: %w", err)
	}
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; <-tick.C {
		frozen, err := frozen(s.process.Process.Pid)
		if err != nil {
			return fmt.Errorf("stopping the service: %w", err)
		} else if frozen {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("stopping the service: its threads do not stop")
		}
	}
}

// frozen reports whether no thread of a process can run its code any more: each is stopped, or ends what it does in the
// kernel and is stopped then. The first that stops makes the others.
func frozen(pid int) (bool, error) {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	stopped := len(names) == 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		} else if err != nil {
			return false, err
		}
		state := text[bytes.LastIndexByte(text, ')')+2:][0] // proc(5)
		switch state {
		case 'T', 'Z', 'X':
			stopped = true
		case 'D':
		default:
			return false, nil
		}
	}
	return stopped, nil
}

// CutPowerAfter cuts the power at a random moment of the next d.
func (s *System) CutPowerAfter(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(rand.N(d)):
		return s.CutPower()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// firstFrames returns the sequence of the oldest frame of each of the queue's partitions, as JetStream's monitor tells them.
func (s *System) firstFrames(ctx context.Context) (first []uint64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Ready().NATSMonitor+"/jsz?streams=1", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Accounts []struct {
			Streams []struct {
				State struct {
					First uint64 `json:"first_seq"`
				} `json:"state"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	for _, account := range answer.Accounts {
		for _, stream := range account.Streams {
			first = append(first, stream.State.First)
		}
	}
	return first, nil
}

// AwaitPurge fills the queue until it is being purged.
func (s *System) AwaitPurge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	before, err := s.firstFrames(ctx)
	for i := 0; err == nil; i++ {
		if err = s.fill(ctx, i); err != nil {
			break
		}
		var now []uint64
		if now, err = s.firstFrames(ctx); err == nil && !slices.Equal(before, now) {
			return nil
		}
	}
	return fmt.Errorf("waiting for the queue to be purged: %w", err)
}

// fill sends large events of long ago, the i-th of them.
func (s *System) fill(ctx context.Context, i int) error {
	var bulk strings.Builder
	for n := range 60 { // inside the limits on strings, members and records
		fmt.Fprintf(&bulk, `,"%d":"`, n)
		for bulk.Len() < 4000*(n+1) {
			bulk.WriteString(crand.Text())
		}
		bulk.WriteByte('"')
	}
	return s.post(ctx, time.Now().Add(-time.Minute), 4, "{"+bulk.String()[1:]+"}")
}

// findSender finds a device whose events may be sent.
func (s *System) findSender(ctx context.Context) error {
	if s.sender != nil {
		return nil
	}
	db, err := store.Open(ctx, s.Ready().DatabaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	snapshot, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(snapshot.Devices, func(d *registry.Device) bool { return !d.Retired && len(d.Parameters) > 0 })
	if i < 0 {
		return errors.New("no device is declared")
	}
	s.sender = snapshot.Devices[i]
	return nil
}

// post sends events of all that a device measures, a microsecond apart. Whoever judges the load does not look at them.
func (s *System) post(ctx context.Context, at time.Time, count int, attributes string) error {
	if err := s.findSender(ctx); err != nil {
		return err
	}
	d := s.sender
	var body strings.Builder
	for n := range count {
		fmt.Fprintf(&body, `{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"chaos","source_timestamp":%q,"metrics":[`,
			d.ProjectID, d.SiteID, d.ID, at.Add(time.Duration(n)*time.Microsecond).UTC().Format(time.RFC3339Nano))
		for i, name := range d.Parameters {
			fmt.Fprintf(&body, `%s{"parameter_key":%q,"value":1,"attributes":%s}`, strings.Repeat(",", min(i, 1)), registry.ParameterKey(d.ProjectID, name), attributes)
			attributes = "{}"
		}
		body.WriteString("]}\n")
	}
	_, err := s.send(ctx, "/v1/ingest", body.String())
	return err
}

// Discovered is how many values of a device, each of another time, discover sends; the device's external id begins with
// DiscoveredPrefix.
const (
	Discovered       = 1200
	DiscoveredPrefix = "discovered "
)

// discover sends values of a device that is not registered, so that they are held, and registers it.
func (s *System) discover(ctx context.Context) error {
	if err := s.findSender(ctx); err != nil {
		return err
	}
	name := fmt.Sprint(DiscoveredPrefix, time.Now().UnixNano())
	var body strings.Builder
	for n := range Discovered {
		fmt.Fprintf(&body, "chaos,host=%s %s=1 %d\n", strings.ReplaceAll(name, " ", `\ `), s.sender.Parameters[0], time.Now().Add(-time.Hour/2).UnixMicro()+int64(n))
	}
	if busy, err := s.send(ctx, "/write?precision=us", body.String()); busy || err != nil {
		return err
	}
	db, err := store.Open(ctx, s.Ready().DatabaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	current, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	site := registry.Address{Kind: registry.KindSite, Path: s.sender.Addr.ParentPath()}
	added := &registry.Device{Addr: site.Child(registry.KindDevice, name), Type: "meter", State: "active", ExternalID: name}
	_, err = db.Apply(ctx, registry.Add(current, registry.NewSnapshot([]registry.Object{added})), store.Author{User: "chaos"})
	return err
}

// send posts lines to the collector, and reports whether it was too busy to take them.
func (s *System) send(ctx context.Context, path, body string) (busy bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Ready().Collector+path, strings.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	busy = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
	if err != nil || resp.StatusCode/100 != 2 && !busy {
		return busy, errors.Join(fmt.Errorf("the collector answered %s: %.300s", resp.Status, text), err)
	}
	return busy, nil
}

// biteTimeout is for a failpoint to be reached.
const biteTimeout = 30 * time.Second

// KillAt restarts the service so that it kills itself when it comes to a failpoint for the n-th time, does what brings it
// there, and restarts it. The binary must be one that was built with the tag chaos.
func (s *System) KillAt(ctx context.Context, point string, n int) error {
	doing := func(err error) error { return fmt.Errorf("killing the service at %s: %w", point, err) }
	collector, err := s.collector()
	if err == nil {
		err = s.Kill()
	}
	if err == nil && strings.HasPrefix(point, "store.plan-") {
		err = s.declare(fmt.Sprintf("customer \"%s %d\" {}\n", point, time.Now().UnixNano()))
	}
	if err == nil && point == "engine.replayed" && !s.holding {
		err, s.holding = s.declare("discovery {\n}\n"), true
	}
	if err == nil {
		err = s.begin(collector, fmt.Sprintf("%s=%s:%d", failpoint.Variable, point, n))
	}
	if err != nil {
		return doing(err)
	}
	ctx, cancel := context.WithTimeout(ctx, biteTimeout)
	defer cancel()
	trouble := s.await(ctx)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 1; ; i++ {
		if trouble == nil {
			switch { // what fails because the service is gone shows there
			case point == "store.day-made":
				trouble = s.post(ctx, time.Now().AddDate(0, 0, -i), 1, "{}")
			case strings.HasPrefix(point, "stream.purg"):
				trouble = s.fill(ctx, i)
			case point == "engine.replayed":
				trouble = s.discover(ctx)
			}
		}
		select {
		case <-s.exited:
			if how := s.process.ProcessState.String(); how != "signal: killed" {
				return doing(fmt.Errorf("it ended with %s: %w: %s", how, trouble, s.tail()))
			}
			return s.Restart(context.WithoutCancel(ctx))
		case <-ctx.Done():
			return doing(fmt.Errorf("it does not come there: %w", errors.Join(context.Cause(ctx), trouble)))
		case <-tick.C:
		}
	}
}

// declare adds to the declaration.
func (s *System) declare(text string) error {
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// KillDatabase waits until PostgreSQL is ready, so that it is not one that was killed before, and ends its postmaster with
// SIGKILL; the service starts it again.
func (s *System) KillDatabase(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		// The postmaster keeps its pid in the first line of this file, and its status in the eighth.
		text, err := os.ReadFile(filepath.Join(s.data, "postgres", "postmaster.pid"))
		if lines := strings.Split(string(text), "\n"); err == nil && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
			if err != nil || pid <= 1 {
				return fmt.Errorf("killing the database: %q is no pid", lines[0])
			}
			if err = syscall.Kill(pid, syscall.SIGKILL); err == nil {
				return nil
			}
			if !errors.Is(err, syscall.ESRCH) { // otherwise the file is of one that is gone
				return fmt.Errorf("killing the database, pid %d: %w", pid, err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("killing the database: it is not ready: %w", context.Cause(ctx))
		}
	}
}

// Stop ends the service as Ctrl-C does.
func (s *System) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.log.Close()
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping the service: %w", err)
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping the service: %w", errors.Join(context.Cause(ctx), s.process.Process.Kill()))
	}
}
