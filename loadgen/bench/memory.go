package main

import (
	"fmt"
	"os"
	"time"
)

// memory follows how much memory a process has at most.
type memory struct {
	pid     int
	exact   bool // the kernel keeps the peak, and let us reset it
	ended   chan struct{}
	sampled chan float64 // the peak of samples, when there is no exact one
	peak    float64
	err     error
}

// watchMemory begins to follow a process; its peak so far does not count.
func watchMemory(pid int) (*memory, error) {
	m := &memory{pid: pid, ended: make(chan struct{}), sampled: make(chan float64, 1)}
	if _, err := resident(pid); err != nil {
		return nil, err
	}
	// Writing 5 resets VmHWM (proc(5)); the process must be ours, and the kernel allow it.
	m.exact = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) == nil
	if !m.exact {
		go m.sample(m.ended)
	}
	return m, nil
}

func (m *memory) sample(ended <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for peak, last := 0.0, false; ; {
		if mib, err := resident(m.pid); err == nil { // that the process is gone is noticed in stop
			peak = max(peak, mib)
		}
		if last {
			m.sampled <- peak
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			last = true
		}
	}
}

// stop returns the peak in MiB since watchMemory; again, the same.
func (m *memory) stop() (mib float64, err error) {
	if m.ended == nil {
		return m.peak, m.err
	}
	close(m.ended)
	m.ended = nil
	if m.exact {
		m.peak, m.err = status(m.pid, "VmHWM")
	} else {
		m.peak = <-m.sampled
		_, m.err = resident(m.pid)
	}
	return m.peak, m.err
}

// resident returns the memory that a process has now, in MiB.
func resident(pid int) (mib float64, err error) { return status(pid, "VmRSS") }

func status(pid int, name string) (mib float64, err error) {
	v, err := field(fmt.Sprintf("/proc/%d/status", pid), name)
	return kilobytes(v) / 1024, err
}
