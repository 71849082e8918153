package api

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[fe80::1%1]:80": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := network(a).String(); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
	if got := network(&net.UnixAddr{Name: "x"}); got.IsValid() {
		t.Errorf("a socket without an address counts as %v", got)
	}
}

func TestListenerKeepsToItsLimits(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var total, perAddress, refused atomic.Int64
	total.Store(3)
	perAddress.Store(2)
	l := &Listener{Listener: inner, Limits: func() (int64, int64) { return total.Load(), perAddress.Load() }, Refused: func() { refused.Add(1) }}
	accepted := make(chan net.Conn, 10)
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			accepted <- c
		}
	}()
	// dial reports whether a connection from an address, another one for each number, is kept.
	dial := func(from byte) bool {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	}
	expect := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: kept is %v", what, got)
		}
	}
	expect("the first", dial(1), true)
	expect("the second", dial(1), true)
	expect("the third of an address", dial(1), false)
	expect("another address", dial(2), true)
	expect("the fourth of all", dial(3), false)
	first := <-accepted
	if _, ok := first.(interface{ CloseWrite() error }); !ok {
		t.Error("a connection cannot be closed by half")
	}
	for range 2 { // counts once
		first.Close()
	}
	expect("in the place of one that was closed", dial(3), true)
	expect("in a place that is not there", dial(4), false)
	total.Store(10)
	perAddress.Store(1)
	expect("an address that has the most, since the limit was lowered", dial(1), false)
	expect("an address that has none", dial(4), true)
	if n := refused.Load(); n != 4 {
		t.Errorf("%d were refused, want 4", n)
	}
	for len(accepted) > 0 {
		(<-accepted).Close()
	}
	if len(l.from) != 0 || l.total != 0 {
		t.Errorf("%d are still counted, of %d addresses", l.total, len(l.from))
	}
	inner.Close()
	if err := <-done; err == nil {
		t.Error("no error after the listener was closed")
	}
}
