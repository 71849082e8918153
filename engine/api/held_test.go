package api

import (
	"net/http"
	"testing"
)

func TestOneAddressCannotHoldAll(t *testing.T) {
	var h held
	of := func(address string, bytes int64) (share, error) {
		s := h.begin(&http.Request{RemoteAddr: address})
		return s, s.add(bytes)
	}
	var shares []share
	greedy := 0
	for range 2 * maxHeld / aheadRead {
		s, err := of("192.0.2.1:1", aheadRead)
		if err != nil {
			s.release()
			break
		}
		shares = append(shares, s)
		greedy++
	}
	if greedy != maxHeldFrom/aheadRead {
		t.Errorf("one address holds %d bodies, want %d", greedy, maxHeldFrom/aheadRead)
	}
	s, err := of("192.0.2.1:2", 1)
	if err != nil {
		t.Errorf("its small body is refused: %v", err)
	}
	shares = append(shares, s)
	s, err = of("[2001:db8::1]:1", aheadRead)
	if err != nil {
		t.Errorf("another address is refused: %v", err)
	}
	if err := s.cover(2 * aheadRead); err != nil || s.n != 2*aheadRead || s.told != s.n {
		t.Errorf("a body that grows: %v, %+v", err, s)
	}
	shares = append(shares, s)
	for i := range shares {
		shares[i].release()
	}
	if n := h.total.Load(); n != 0 || len(h.from) != 0 {
		t.Errorf("%d bytes stay counted, %v", n, h.from)
	}
}
