//go:build chaos

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	armed string
	left  atomic.Int64
)

func init() {
	text := os.Getenv(Variable)
	if text == "" {
		return
	}
	name, count, _ := strings.Cut(text, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic(Variable + "=" + text + ": want NAME:N")
	}
	armed = name
	left.Store(n)
}

// Hit kills the process, as SIGKILL does, when name is due.
func Hit(name string) {
	if name == armed && left.Add(-1) == 0 {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {}
	}
}
