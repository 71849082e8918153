package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is the service, as a child.
type process struct {
	cmd  *exec.Cmd
	log  string        // file that holds its output
	done chan struct{} // closed when it has ended
	err  error         // how, once done is closed
}

func start(logFile string, args []string) (*process, error) {
	p := &process{cmd: exec.Command(args[0], args[1:]...), log: logFile, done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has it open
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: an interrupt on the terminal reaches the service through stop alone.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the service: %w", err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, waits for it, and kills it when that takes too long. The error of one that failed holds
// the end of its output.
func (p *process) stop(patience time.Duration) error {
	p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-p.done:
	case <-time.After(patience):
		if err := p.cmd.Process.Kill(); err != nil {
			return fmt.Errorf("killing the service: %w", err)
		}
		<-p.done
	}
	if p.err == nil {
		return nil
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("the service: %w (and its output: %w)", p.err, err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("the service: %w; its last words:\n%s", p.err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
}
