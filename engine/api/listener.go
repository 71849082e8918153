package api

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// Listener is a net.Listener that keeps no more connections open than Limits allows, which is asked at each. It closes the
// others as soon as they come. Its fields are set before its first use.
type Listener struct {
	net.Listener
	Limits  func() (total, perAddress int64)
	Refused func() // told of every connection that is closed

	mu    sync.Mutex
	total int64
	from  map[netip.Prefix]int64
}

// Accept returns the next connection within the limits.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := network(c.RemoteAddr())
		if l.open(from) {
			return &limitedConn{Conn: c, closed: func() { l.close(from) }}, nil
		}
		l.Refused()
		c.Close()
	}
}

// network returns what counts as one address: an IPv4 address, or the network of 64 bits that one IPv6 host may have for
// itself. It is zero for what has no address.
func network(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	p, err := ip.Prefix(min(ip.BitLen(), 64))
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (l *Listener) open(from netip.Prefix) bool {
	total, perAddress := l.Limits()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= total || l.from[from] >= perAddress {
		return false
	}
	if l.from == nil {
		l.from = map[netip.Prefix]int64{}
	}
	l.total++
	l.from[from]++
	return true
}

func (l *Listener) close(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.from[from]--; l.from[from] == 0 {
		delete(l.from, from)
	}
}

// limitedConn is a connection that counts until it is closed.
type limitedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *limitedConn) Close() error {
	defer c.once.Do(c.closed)
	return c.Conn.Close()
}

// CloseWrite lets net/http send an answer to the end though it does not read the request to its end.
func (c *limitedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
