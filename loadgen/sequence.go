package loadgen

import (
	"hash/fnv"
	"math/bits"
	"strconv"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/telemetry"
)

// Sequence is the endless series of events of one run. Event n, from 0, is a pure function of the sequence's fields: the
// devices send in turn, each with times that rise strictly, values inside their parameter's range that cross no
// threshold, quality 192 and the event id "load-<Run>-<n>".
type Sequence struct {
	Fleet *Fleet
	Run   string           // letters and digits
	Start telemetry.Micros // no event is earlier
	Step  int64            // microseconds between two events of one device, at least 1

	// Anonymous leaves the event id out.
	Anonymous bool
}

// Prefix starts the event ids of a run and of no other.
func (s *Sequence) Prefix() string { return "load-" + s.Run + "-" }

// Time returns the time of event n.
func (s *Sequence) Time(n uint64) telemetry.Micros {
	turn, j := s.Fleet.locate(n)
	return s.Start + telemetry.Micros(int64(turn)*s.Step+int64(j)*s.Step/int64(len(s.Fleet.members)))
}

// pick returns value i of event n, as a multiple of its series' resolution.
func (s *Sequence) pick(seed, n uint64, series *series, i int) int64 {
	width := uint64(series.normal.hi-series.normal.lo) + 1
	high, _ := bits.Mul64(mix(seed+n*0x9e3779b97f4a7c15+uint64(i)*0xd1342543de82ef95), width)
	return series.normal.lo + int64(high)
}

func (s *Sequence) seed() uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.Run))
	return h.Sum64()
}

// mix is the finaliser of SplitMix64: every input bit flips about half of the output bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Encoder writes events as JSON. It is not safe for concurrent use; a Sequence may have many.
type Encoder struct {
	seq    *Sequence
	seed   uint64
	prefix string
	clock  stamp
}

// Encoder returns an encoder of the sequence's events.
func (s *Sequence) Encoder() *Encoder { return &Encoder{seq: s, seed: s.seed(), prefix: s.Prefix()} }

// AppendEvent appends the JSON object of event n, without a newline.
func (e *Encoder) AppendEvent(b []byte, n uint64) []byte {
	_, j := e.seq.Fleet.locate(n)
	m := &e.seq.Fleet.members[j]
	b = append(b, m.head...)
	b = e.clock.append(b, e.seq.Time(n))
	if e.seq.Anonymous {
		b = append(b, `","metrics":[`...)
	} else {
		b = append(b, `","event_id":"`...)
		b = append(b, e.prefix...)
		b = strconv.AppendUint(b, n, 10)
		b = append(b, `","metrics":[`...)
	}
	for i, series := range m.series {
		b = series.appendMetric(b, i, e.seq.pick(e.seed, n, series, i))
	}
	return append(b, "]}"...)
}

// AppendBatch appends the events from to from+count-1: the bare object when count is 1, otherwise one a line.
func (e *Encoder) AppendBatch(b []byte, from uint64, count int) []byte {
	if count == 1 {
		return e.AppendEvent(b, from)
	}
	for n := from; n < from+uint64(count); n++ {
		b = append(e.AppendEvent(b, n), '\n')
	}
	return b
}

func (s *series) appendMetric(b []byte, i int, grid int64) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, s.head...)
	b = s.append(b, grid)
	return append(b, `,"quality":192,"attributes":{}}`...)
}

// contentType returns the media type of what AppendBatch writes.
func contentType(count int) string {
	if count == 1 {
		return "application/json"
	}
	return "application/x-ndjson"
}

// stamp writes times as RFC 3339 with microseconds in UTC, and remembers the text of the second it wrote last.
type stamp struct {
	second int64
	text   []byte
}

func (s *stamp) append(b []byte, t telemetry.Micros) []byte {
	second, micro := int64(t)/1e6, int64(t)%1e6
	if s.text == nil || s.second != second {
		s.second = second
		s.text = time.Unix(second, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, s.text...)
	for unit := int64(1e5); unit > 0; unit /= 10 {
		b = append(b, byte('0'+micro/unit%10))
	}
	return append(b, 'Z')
}

// NewSequence returns the sequence of a fresh run over the devices of a snapshot that begins now and keeps pace with the
// clock when events are sent at the given rate, in events a second.
func NewSequence(snapshot *registry.Snapshot, run string, rate float64) (*Sequence, error) {
	fleet, err := NewFleet(snapshot)
	if err != nil {
		return nil, err
	}
	return &Sequence{
		Fleet: fleet,
		Run:   run,
		Start: telemetry.MicrosOf(time.Now()),
		Step:  max(1, int64(float64(fleet.Devices())*1e6/rate)),
	}, nil
}
