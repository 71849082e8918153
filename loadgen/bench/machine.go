package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is what the figures were measured on.
type Machine struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	MemoryGiB  float64           `json:"memory_gib"`
	Kernel     string            `json:"kernel"`
	Go         string            `json:"go"`
	PostgreSQL map[string]string `json:"postgresql"` // version and settings
	FsyncMs    float64           `json:"fsync_ms"`   // median of writing 8 kB and fdatasync, where the data is
}

func describeMachine(dir string) (Machine, error) {
	m := Machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Kernel: runtime.GOOS, Go: runtime.Version()}
	if v, err := field("/proc/cpuinfo", "model name"); err == nil {
		m.CPU = v
	}
	if v, err := field("/proc/meminfo", "MemTotal"); err == nil {
		m.MemoryGiB = kilobytes(v) / (1 << 20)
	}
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + strings.TrimSpace(string(v))
	}
	var err error
	m.FsyncMs, err = probeFsync(dir)
	return m, err
}

// field returns what follows "name:" in a file of /proc.
func field(path, name string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, name)
}

func kilobytes(text string) float64 {
	number, _, _ := strings.Cut(text, " ")
	kb, _ := strconv.ParseFloat(number, 64) // 0 where /proc doesn't tell
	return kb
}

func probeFsync(dir string) (ms float64, err error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, fmt.Errorf("probing fsync: %w", err)
	}
	defer f.Close()
	block := make([]byte, 8192)
	var took []time.Duration
	for i := range 200 {
		began := time.Now()
		if _, err := f.WriteAt(block, int64(i%16)*8192); err != nil {
			return 0, fmt.Errorf("probing fsync: %w", err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("probing fsync: %w", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Microseconds()) / 1000, nil
}
