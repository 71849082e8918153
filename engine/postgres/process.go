package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// readPostmasterPid returns the process and the status that dir/postmaster.pid holds, 0 and "" if there is no such file or
// it is not yet complete.
func readPostmasterPid(dir string) (pid int, status string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	lines := strings.Split(string(text), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return 0, "", nil
	}
	if len(lines) > 7 {
		status = strings.TrimSpace(lines[7])
	}
	return max(pid, -pid), status, nil // negative: a single-user backend
}

// takeOver stops what an earlier process left running on the cluster. We hold the lock, so nobody uses it.
func (c *Cluster) takeOver() error {
	pid, _, err := readPostmasterPid(c.dir)
	if err != nil {
		return err
	}
	if pid != 0 {
		if c.serves(pid) {
			c.log.Info("stopping the PostgreSQL that an earlier process left running", "dir", c.dir, "pid", pid)
			if err := c.end(pid, os.Interrupt); err != nil {
				return err
			}
		} else if syscall.Kill(pid, 0) != syscall.ESRCH {
			// The number belongs to another process now, which PostgreSQL would take for a server.
			if err := os.Remove(filepath.Join(c.dir, "postmaster.pid")); err != nil {
				return err
			}
		}
	}
	// Backends outlive a killed postmaster while they are busy, and keep the next one from starting.
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, process := range processes {
		if pid, err := strconv.Atoi(filepath.Base(process)); err == nil && c.serves(pid) {
			if err := c.end(pid, syscall.SIGQUIT); err != nil {
				return err
			}
		}
	}
	sockets, err := filepath.Glob(escapeGlob(c.dir) + "/.s.PGSQL.*")
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		if err := os.Remove(socket); err != nil {
			return err
		}
	}
	return nil
}

// serves reports whether pid is a PostgreSQL process of this cluster.
func (c *Cluster) serves(pid int) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	cmdline, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return false
	}
	args := bytes.Split(cmdline, []byte{0})
	if name := filepath.Base(string(args[0])); name != "postgres" && !strings.HasPrefix(name, "postgres:") {
		return false
	}
	for _, arg := range args {
		if string(arg) == ownSetting+"="+c.dir {
			return true
		}
	}
	// PostgreSQL works in its cluster's directory. In a container even root may not be allowed to look.
	cwd, err := os.Stat(proc + "/cwd")
	if err != nil {
		return false
	}
	dir, err := os.Stat(c.dir)
	return err == nil && os.SameFile(cwd, dir)
}

// end sends the first signal to a process of the cluster, then harder ones until it is gone.
func (c *Cluster) end(pid int, first os.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer p.Release()
	for _, signal := range []os.Signal{first, syscall.SIGQUIT, os.Kill} {
		if !c.serves(pid) { // asked after p has hold of the process: the number cannot have been given to another
			return nil
		}
		if err := p.Signal(signal); errors.Is(err, os.ErrProcessDone) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stopping process %d: %w", pid, err)
		}
		deadline := time.After(takeoverTimeout)
		poll := time.NewTicker(pollInterval)
		for waiting := true; waiting; {
			select {
			case <-deadline:
				waiting = false
			case <-poll.C:
				if !c.serves(pid) {
					poll.Stop()
					return nil
				}
			}
		}
		poll.Stop()
	}
	return fmt.Errorf("process %d serves %s and cannot be stopped", pid, c.dir)
}
