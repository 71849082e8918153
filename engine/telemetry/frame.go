package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A frame is the unit of the queue: the events of all requests that waited for the same fsync.
// Integers are little endian, "uvarint" as in encoding/binary, floats IEEE 754.
//
//	 0  magic "NSRF"
//	 4  version, 1 byte: 1, or 2 when events of unknown devices may be among the records
//	 5  zero, 3 bytes
//	 8  CRC-32C of all bytes from 12 on, uint32
//	12  number of events, uint32
//	16  receive time, microseconds since the Unix epoch, int64
//	24  producer, uint64: random, of the process that made the frame; a process may take another at any time
//	32  number of events that this producer put into the partition before this frame, uint64
//	40  offset of the dictionary, uint32
//	44  records, one an event
//	..  dictionary: uvarint count, then for each parameter set uvarint id, uvarint count of keys, the keys
//
// A record is a flag byte, the device's UUID, the time (int64 microseconds), uvarint id of the parameter set, a value
// (float64, NaN for null) for each of its keys, then what the flags announce: a quality byte for each key, the source,
// the event id, the attributes. Strings are uvarint length and bytes. The record of an event that is Held has, in place of
// the id, the keys themselves as the dictionary would have them, and at its end: what it calls its device, project and site as
// UUIDs, the measurement.
const (
	frameMagic   = "NSRF"
	frameVersion = 1
	heldVersion  = 2
	HeaderSize   = 44

	hasQuality    = 1
	hasSource     = 2
	hasEventID    = 4
	hasAttributes = 8
	isHeld        = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFrame is wrapped by every error about a frame's bytes.
var ErrFrame = errors.New("invalid frame")

// Header is what a frame says of itself.
type Header struct {
	Events     int
	ReceivedAt Micros
	Producer   uint64
	Before     uint64 // events of this producer in the partition before this frame
	Held       bool   // some of its events may be Held
}

// Producers holds, for each producer, how many events it has put into a partition up to the newest frame that was seen.
type Producers map[uint64]uint64

// Missing takes in the header of the next frame and returns how many events of its producer are missing since the one
// before: 0 for a producer that was not seen yet, and for a frame that comes again.
func (p Producers) Missing(h Header) uint64 {
	seen, known := p[h.Producer]
	p[h.Producer] = max(seen, h.Before+uint64(h.Events))
	if !known || h.Before <= seen {
		return 0
	}
	return h.Before - seen
}

// AppendRecord appends the record of e to b. len(e.Values) must be len(e.Set.Keys), and len(e.Quality) the same or 0.
func AppendRecord(b []byte, e *Event) []byte {
	var flags byte
	if e.Quality != nil {
		flags |= hasQuality
	}
	if len(e.Source) > 0 {
		flags |= hasSource
	}
	if len(e.EventID) > 0 {
		flags |= hasEventID
	}
	if len(e.Attributes) > 0 {
		flags |= hasAttributes
	}
	if e.Held != nil {
		flags |= isHeld
	}
	b = append(b, flags)
	b = append(b, e.Device[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Time))
	if e.Held != nil {
		b = appendKeys(b, e.Set)
	} else {
		b = binary.AppendUvarint(b, uint64(e.Set.ID))
	}
	for _, v := range e.Values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	b = append(b, e.Quality...)
	if flags&hasSource != 0 {
		b = appendString(b, e.Source)
	}
	if flags&hasEventID != 0 {
		b = appendString(b, e.EventID)
	}
	if flags&hasAttributes != 0 {
		b = appendString(b, e.Attributes)
	}
	if h := e.Held; h != nil {
		b = appendString(b, h.Device)
		b = append(append(b, h.Project[:]...), h.Site[:]...)
		b = appendString(b, h.Measurement)
	}
	return b
}

func appendKeys(b []byte, s *ParameterSet) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.Keys)))
	for _, k := range s.Keys {
		b = appendString(b, k)
	}
	return b
}

// SealFrame completes a frame: b is HeaderSize bytes of any content followed by the records, sets are the parameter sets
// that the records use, each once.
func SealFrame(b []byte, h Header, sets []*ParameterSet) []byte {
	le := binary.LittleEndian
	dictionary := len(b)
	b = binary.AppendUvarint(b, uint64(len(sets)))
	for _, s := range sets {
		b = appendKeys(binary.AppendUvarint(b, uint64(s.ID)), s)
	}
	copy(b, frameMagic)
	version := uint32(frameVersion)
	if h.Held {
		version = heldVersion
	}
	le.PutUint32(b[4:], version)
	le.PutUint32(b[12:], uint32(h.Events))
	le.PutUint64(b[16:], uint64(h.ReceivedAt))
	le.PutUint64(b[24:], h.Producer)
	le.PutUint64(b[32:], h.Before)
	le.PutUint32(b[40:], uint32(dictionary))
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// DecodeHeader checks a frame's magic, version and checksum, and returns its header.
func DecodeHeader(b []byte) (Header, error) {
	le := binary.LittleEndian
	switch {
	case len(b) < HeaderSize || string(b[:4]) != frameMagic:
		return Header{}, fmt.Errorf("%w: not a frame", ErrFrame)
	case b[4] != frameVersion && b[4] != heldVersion:
		return Header{}, fmt.Errorf("%w: version %d, this program reads %d and %d", ErrFrame, b[4], frameVersion, heldVersion)
	case crc32.Checksum(b[12:], castagnoli) != le.Uint32(b[8:]):
		return Header{}, fmt.Errorf("%w: checksum mismatch", ErrFrame)
	}
	return Header{
		Events:     int(le.Uint32(b[12:])),
		ReceivedAt: Micros(le.Uint64(b[16:])),
		Producer:   le.Uint64(b[24:]),
		Before:     le.Uint64(b[32:]),
		Held:       b[4] == heldVersion,
	}, nil
}

// Decoder decodes frames. It interns parameter sets: equal lists of keys are one *ParameterSet over all its frames.
// The zero value is ready to use; it is not safe for concurrent use.
type Decoder struct {
	sets  map[string]*ParameterSet // by their keys' encoding
	frame map[uint64]*ParameterSet // of the frame at hand, by its ids
}

// maxInterned bounds the decoder's memory; past it the interned sets are forgotten and found again.
const maxInterned = 1 << 16

// Batch is a list of decoded events. Their byte slices point into the frames they came from.
type Batch struct {
	Events []Event
	values []float64 // backs the events' values
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Events)
	b.Events, b.values = b.Events[:0], b.values[:0]
}

// Append decodes a frame and appends its events to the batch, which keeps references to data. On an error the batch is
// as it was before.
func (d *Decoder) Append(b *Batch, data []byte) (Header, error) {
	h, err := DecodeHeader(data)
	if err != nil {
		return h, err
	}
	events, values := len(b.Events), len(b.values)
	if err := d.records(b, h, data); err != nil {
		b.Events, b.values = b.Events[:events], b.values[:values]
		return h, err
	}
	return h, nil
}

func (d *Decoder) records(b *Batch, h Header, data []byte) error {
	dictionary := int(binary.LittleEndian.Uint32(data[40:]))
	if dictionary < HeaderSize || dictionary > len(data) {
		return fmt.Errorf("%w: dictionary at %d of %d bytes", ErrFrame, dictionary, len(data))
	}
	if err := d.dictionary(data[dictionary:]); err != nil {
		return err
	}
	r := reader{b: data[HeaderSize:dictionary]}
	for range h.Events {
		flags := r.byte()
		e := Event{ReceivedAt: h.ReceivedAt}
		copy(e.Device[:], r.bytes(16))
		e.Time = Micros(r.uint64())
		var set *ParameterSet
		if flags&isHeld == 0 {
			set = d.frame[r.uvarint()]
		} else if h.Held {
			set = r.keys()
		}
		if set == nil || r.bad {
			return fmt.Errorf("%w: record %d of %d", ErrFrame, len(b.Events), h.Events)
		}
		e.Set = set
		raw := r.bytes(8 * len(set.Keys))
		start := len(b.values)
		for i := 0; i+8 <= len(raw); i += 8 {
			b.values = append(b.values, math.Float64frombits(binary.LittleEndian.Uint64(raw[i:])))
		}
		e.Values = b.values[start:len(b.values):len(b.values)]
		if flags&hasQuality != 0 {
			e.Quality = r.bytes(len(set.Keys))
		}
		if flags&hasSource != 0 {
			e.Source = r.string()
		}
		if flags&hasEventID != 0 {
			e.EventID = r.string()
		}
		if flags&hasAttributes != 0 {
			e.Attributes = r.string()
		}
		if flags&isHeld != 0 {
			e.Held = &Held{Device: string(r.string())}
			copy(e.Held.Project[:], r.bytes(16))
			copy(e.Held.Site[:], r.bytes(16))
			e.Held.Measurement = string(r.string())
		}
		b.Events = append(b.Events, e)
	}
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: records do not fill their %d bytes", ErrFrame, dictionary-HeaderSize)
	}
	return nil
}

func (d *Decoder) dictionary(data []byte) error {
	if d.sets == nil || len(d.sets) > maxInterned {
		d.sets, d.frame = map[string]*ParameterSet{}, map[uint64]*ParameterSet{}
	}
	clear(d.frame)
	r := reader{b: data}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		id := r.uvarint()
		start := r.b
		count := r.uvarint()
		for i := uint64(0); i < count && !r.bad; i++ {
			r.string()
		}
		if r.bad {
			break
		}
		encoded := start[:len(start)-len(r.b)]
		set := d.sets[string(encoded)]
		if set == nil {
			set = &ParameterSet{ID: uint32(len(d.sets)), Keys: make([]string, 0, count)}
			keys := reader{b: encoded}
			keys.uvarint()
			for range count {
				set.Keys = append(set.Keys, string(keys.string()))
			}
			d.sets[string(encoded)] = set
		}
		d.frame[id] = set
	}
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: dictionary", ErrFrame)
	}
	return nil
}

func appendString[S string | []byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes values off the front of b. Once they run short, bad stays set and it returns zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.bytes(int(n))
}

// keys reads what appendKeys writes. The set is this event's alone: what unknown devices send is endless.
func (r *reader) keys() *ParameterSet {
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad = true
		return nil
	}
	set := &ParameterSet{Keys: make([]string, n)}
	for i := range set.Keys {
		set.Keys[i] = string(r.string())
	}
	return set
}
