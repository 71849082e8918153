package api

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// What all bodies that are being read or wait for the queue may take, in bytes; and those of one address, so that it cannot
// keep the others out.
const (
	maxHeld     = 64 << 20
	maxHeldFrom = maxHeld / 2
)

// held counts the bytes of bodies, those of small ones in total alone. The zero value is nothing.
type held struct {
	total atomic.Int64
	mu    sync.Mutex
	from  map[string]int64
}

// share is what one body has of held.
type share struct {
	all  *held
	from string // address of the sender
	n    int64
	told int64 // of n, counted for the address
}

// begin begins to count for a request.
func (h *held) begin(r *http.Request) share { return share{all: h, from: r.RemoteAddr} }

// add counts n bytes more, or refuses them. They are counted either way.
func (s *share) add(n int64) error {
	s.n += n
	over := s.all.total.Add(n) > maxHeld
	if s.n > firstRead {
		over = s.tell() > maxHeldFrom || over
	}
	if over {
		return &httpError{http.StatusTooManyRequests, "too_many_requests", "The collector holds too many bodies that wait: send again after the time in Retry-After.", 1}
	}
	return nil
}

// tell counts for the address what is not yet, and returns how much that has.
func (s *share) tell() int64 {
	if s.told == 0 {
		if host, _, err := net.SplitHostPort(s.from); err == nil {
			s.from = host
		}
	}
	h := s.all
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from == nil {
		h.from = map[string]int64{}
	}
	h.from[s.from] += s.n - s.told
	s.told = s.n
	return h.from[s.from]
}

// cover sees to it that at least n bytes are counted.
func (s *share) cover(n int64) error {
	if n <= s.n {
		return nil
	}
	return s.add(n - s.n)
}

func (s *share) release() {
	s.all.total.Add(-s.n)
	if s.told > 0 {
		h := s.all
		h.mu.Lock()
		if h.from[s.from] -= s.told; h.from[s.from] == 0 {
			delete(h.from, s.from)
		}
		h.mu.Unlock()
	}
	s.n, s.told = 0, 0
}
