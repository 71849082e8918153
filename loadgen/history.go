package loadgen

import "sync"

// outcome is what a run knows of one event.
type outcome uint8

const (
	unsent       outcome = iota
	unknown              // attempted, and no answer that settles it: it may be stored or not
	acknowledged         // the service promised that it is stored
	refused              // the service said that it isn't
)

// history holds the outcome of each event of a run, in two bits. It is safe for concurrent use.
type history struct {
	mu     sync.Mutex
	packed []uint8 // four events a byte
	counts [4]uint64
}

// set records the outcome of count events from the first on.
func (h *history) set(first uint64, count int, o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if need := int((first + uint64(count) + 3) / 4); need > len(h.packed) {
		h.packed = append(h.packed, make([]uint8, need-len(h.packed))...)
	}
	for n := first; n < first+uint64(count); n++ {
		cell, shift := &h.packed[n/4], n%4*2
		h.counts[*cell>>shift&3]-- // that of unsent wraps, and is never read
		h.counts[o]++
		*cell = *cell&^(3<<shift) | uint8(o)<<shift
	}
}

// outcome returns what is known of event n.
func (h *history) outcome(n uint64) outcome {
	if n/4 >= uint64(len(h.packed)) {
		return unsent
	}
	return outcome(h.packed[n/4] >> (n % 4 * 2) & 3)
}

// events returns a number that all attempted events are below.
func (h *history) events() uint64 { return uint64(len(h.packed)) * 4 }

// tally returns how many events have each outcome.
func (h *history) tally() (acked, refusals, unknowns uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[acknowledged], h.counts[refused], h.counts[unknown]
}
