package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Ready is what is needed of the ready file of `nsready up`.
type Ready struct {
	Collector   string `json:"collector"`
	DatabaseURL string `json:"database_url"`
}

// System is an `nsready up` of its own that faults are done to. Its collector keeps its address over restarts.
type System struct {
	command []string // of the binary and the flags that do not change
	data    string
	log     *os.File

	mu      sync.Mutex
	ready   Ready
	process *exec.Cmd
	exited  chan struct{}
}

// Options of a System.
type Options struct {
	Binary string // the nsready to run
	Config string // the declaration to run it with
	Data   string // the data directory, which is left behind
}

// Start runs a system and waits until it is ready. What it logs is in DATA.log.
func Start(ctx context.Context, o Options) (*System, error) {
	s := &System{
		command: []string{o.Binary, "up", "-config", o.Config, "-data", o.Data, "-admin", "127.0.0.1:0", "-nats-monitor", "127.0.0.1:0"},
		data:    o.Data,
	}
	var err error
	if s.log, err = os.Create(filepath.Clean(o.Data) + ".log"); err != nil {
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
func (s *System) launch(ctx context.Context, collector string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := filepath.Clean(s.data) + ".ready"
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("starting a system: %w", err)
	}
	c := exec.Command(s.command[0], append(s.command[1:len(s.command):len(s.command)], "-collector", collector, "-ready-file", file)...)
	c.Stdout, c.Stderr = s.log, s.log
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting a system: %w", err)
	}
	exited := make(chan struct{})
	go func() { c.Wait(); close(exited) }()
	s.process, s.exited = c, exited
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(file)
		if err == nil {
			if err := json.Unmarshal(text, &s.ready); err != nil {
				return fmt.Errorf("reading the ready file: %w", err)
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
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
	if err := s.process.Process.Kill(); err != nil {
		return fmt.Errorf("killing the service: %w", err)
	}
	<-s.exited
	return nil
}

// Restart runs the service again, at the address that it had.
func (s *System) Restart(ctx context.Context) error {
	u, err := url.Parse(s.Ready().Collector)
	if err != nil {
		return fmt.Errorf("restarting the service: %w", err)
	}
	return s.launch(ctx, u.Host)
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
