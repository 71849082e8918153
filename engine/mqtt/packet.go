package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// Types of control packets: the upper half of a packet's first byte (MQTT 3.1.1, section 2.2.1).
const (
	connectPacket = iota + 1
	connackPacket
	publishPacket
	pubackPacket
	pubrecPacket
	pubrelPacket
	pubcompPacket
	subscribePacket
	subackPacket
	unsubscribePacket
	unsubackPacket
	pingreqPacket
	pingrespPacket
	disconnectPacket
)

// Codes that a CONNACK refuses a connection with (section 3.2.2.3).
const (
	refusedVersion    = 1
	refusedIdentifier = 2
)

// subscriptionRefused is what a SUBACK says of a filter that is refused (section 3.9.3).
const subscriptionRefused = 0x80

// violation says which rule of the protocol a client broke. The answer to it is the end of the connection.
type violation string

func (v violation) Error() string { return "the client breaks the protocol: " + string(v) }

// readLength reads a packet's remaining length.
func readLength(r io.ByteReader) (int, error) {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return n, nil
		}
	}
	return 0, violation("a remaining length has more than four bytes")
}

// flagsAllowed reports whether the lower half of a packet's first byte is what its type wants.
func flagsAllowed(kind, flags byte) bool {
	switch kind {
	case publishPacket:
		return flags>>1&3 != 3
	case pubrelPacket, subscribePacket, unsubscribePacket:
		return flags == 2
	}
	return flags == 0
}

// fields are what is left to decode of a packet. What goes beyond its end sets broken, and is empty.
type fields struct {
	rest   []byte
	broken bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.broken = nil, true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// binary returns bytes that have their length before them.
func (f *fields) binary() []byte { return f.take(int(f.uint16())) }

// text returns a string that has its length before it.
func (f *fields) text() []byte {
	b := f.binary()
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		f.broken = true
	}
	return b
}

// connect is what a CONNECT packet says. A will is decoded and forgotten: there is nobody to send it to. So are user name and
// password: whoever reaches the port may publish, as over HTTP.
type connect struct {
	clientID  string
	clean     bool
	keepAlive time.Duration // 0 for none
}

// decodeConnect decodes a CONNECT packet's body. code is that of the CONNACK to refuse it with, or 0.
func decodeConnect(body []byte) (c connect, code byte, err error) {
	f := fields{rest: body}
	name, level := string(f.text()), f.byte()
	switch {
	case f.broken || name != "MQTT" && name != "MQIsdp":
		return c, 0, violation("a CONNECT without the protocol's name")
	case name != "MQTT" || level != 4:
		return c, refusedVersion, nil
	}
	flags := f.byte()
	c.clean, c.keepAlive = flags&0x02 != 0, time.Duration(f.uint16())*time.Second
	c.clientID = string(f.text())
	will, willFlags := flags&0x04 != 0, flags&0x38
	if will {
		f.text()
		f.binary()
	}
	hasUser, hasPassword := flags&0x80 != 0, flags&0x40 != 0
	if hasUser {
		f.text()
	}
	if hasPassword {
		f.binary()
	}
	switch {
	case f.broken || len(f.rest) > 0:
		return c, 0, violation("a CONNECT whose fields do not fill it")
	case flags&1 != 0 || !will && willFlags != 0 || willFlags&0x18 == 0x18 || hasPassword && !hasUser:
		return c, 0, violation("a CONNECT with flags that exclude one another")
	case c.clientID == "" && !c.clean, len(c.clientID) > maxClientID:
		return c, refusedIdentifier, nil
	}
	return c, 0, nil
}

// publish is what a PUBLISH packet says. Its slices point into the packet.
type publish struct {
	qos     byte
	topic   []byte
	id      uint16 // 0 with QoS 0
	payload []byte
}

func decodePublish(flags byte, body []byte) (p publish, err error) {
	f := fields{rest: body}
	p.qos, p.topic = flags>>1&3, f.text()
	if p.qos > 0 {
		p.id = f.uint16()
	}
	p.payload = f.rest
	switch {
	case f.broken:
		return p, violation("a PUBLISH that ends before its fields, or whose topic is not UTF-8")
	case len(p.topic) == 0 || bytes.ContainsAny(p.topic, "+#"):
		return p, violation("a PUBLISH whose topic is empty or has a wildcard")
	case p.qos > 0 && p.id == 0:
		return p, violation("a PUBLISH with the packet identifier 0")
	}
	return p, nil
}

// decodeFilters returns how many topic filters a SUBSCRIBE or UNSUBSCRIBE has, and its packet identifier.
func decodeFilters(kind byte, body []byte) (id uint16, count int, err error) {
	f := fields{rest: body}
	id = f.uint16()
	for len(f.rest) > 0 && !f.broken {
		if len(f.text()) == 0 {
			f.broken = true
		}
		if kind == subscribePacket && f.byte() > 2 {
			f.broken = true
		}
		count++
	}
	if f.broken || count == 0 || id == 0 {
		return 0, 0, violation(fmt.Sprintf("a packet of type %d whose filters cannot be read", kind))
	}
	return id, count, nil
}

// answer returns the four bytes of a PUBACK, PUBREC, PUBCOMP or UNSUBACK.
func answer(kind byte, id uint16) [4]byte { return [4]byte{kind << 4, 2, byte(id >> 8), byte(id)} }

// suback returns a SUBACK that refuses all filters.
func suback(id uint16, filters int) []byte {
	b := binary.AppendUvarint([]byte{subackPacket << 4}, uint64(2+filters)) // a remaining length is a varint of seven bits each
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, bytes.Repeat([]byte{subscriptionRefused}, filters)...)
}
