package loadgen

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// due is a request and when it is to be sent.
type due struct {
	request []byte
	at      time.Time
}

// schedule hands each request out when it is due: request n a time of n/rate after the beginning. It returns how late it was.
func schedule(ctx context.Context, began time.Time, rate float64, requests [][]byte, tick func() error, out chan<- due) (late *latencies, err error) {
	defer close(out)
	late = &latencies{}
	for n := 0; n < len(requests); {
		now := time.Since(began)
		for ; n < len(requests); n++ {
			at := time.Duration(float64(n) / rate * float64(time.Second))
			if at > now {
				break
			}
			out <- due{requests[n], began.Add(at)}
			late.add(now - at)
		}
		if ctx.Err() != nil {
			return late, nil
		}
		if err := tick(); err != nil {
			return late, err
		}
	}
	return late, nil
}

// inTurn takes the first of each list, then the second of each, and so on.
func inTurn(lists [][][]byte) (all [][]byte) {
	for k, more := 0, true; more; k++ {
		more = false
		for _, list := range lists {
			if k < len(list) {
				all, more = append(all, list[k]), true
			}
		}
	}
	return all
}

// tickEvery is how finely a schedule is kept.
const tickEvery = 100 * time.Microsecond

// ticker is a timer of the kernel's. A process that waits for nothing else wakes up by Go's own timers only every
// millisecond, which is too coarse for latencies of a few.
type ticker struct{ *os.File }

func newTicker() (ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return ticker{}, fmt.Errorf("making a timer: %w", err)
	}
	every := unix.NsecToTimespec(tickEvery.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		unix.Close(fd)
		return ticker{}, fmt.Errorf("setting a timer: %w", err)
	}
	return ticker{os.NewFile(uintptr(fd), "timer")}, nil
}

// tick waits for the next tick, not at all when one was missed.
func (t ticker) tick() error {
	var missed [8]byte
	_, err := t.Read(missed[:])
	return err
}

// cpuTime returns what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
