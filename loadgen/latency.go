package loadgen

import (
	"math/bits"
	"time"
)

// latencies is a histogram of durations: exact below 64 µs, above that within 1/64 of the duration.
type latencies struct {
	counts [64 * 38]uint64
	n      uint64
	max    time.Duration
}

// slot returns the place of a duration: 64 linear steps for each power of two of its microseconds.
func slot(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 64 {
		return int(us)
	}
	shift := bits.Len64(us) - 7
	return min((shift+1)*64+int(us>>shift)-64, len(latencies{}.counts)-1)
}

// upper returns the largest duration of a slot.
func upper(slot int) time.Duration {
	if slot < 64 {
		return time.Duration(slot) * time.Microsecond
	}
	shift := slot/64 - 1
	return time.Duration((uint64(slot%64)+65)<<shift-1) * time.Microsecond
}

func (l *latencies) add(d time.Duration) {
	l.counts[slot(d)]++
	l.n++
	l.max = max(l.max, d)
}

func (l *latencies) merge(other *latencies) {
	for i, c := range other.counts {
		l.counts[i] += c
	}
	l.n += other.n
	l.max = max(l.max, other.max)
}

// quantile returns a duration that the fraction q of all durations does not exceed, 0 when there are none.
func (l *latencies) quantile(q float64) time.Duration {
	if l.n == 0 {
		return 0
	}
	rank := uint64(q * float64(l.n))
	for i, c := range l.counts {
		if rank < c {
			return min(upper(i), l.max)
		}
		rank -= c
	}
	return l.max
}

// Latency sums up how long answers took, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

func (l *latencies) summary() Latency {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Latency{ms(l.quantile(.5)), ms(l.quantile(.95)), ms(l.quantile(.99)), ms(l.quantile(.999)), ms(l.max)}
}
