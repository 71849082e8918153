// Package telemetry says what is measured: events, their parameter sets and qualities, and the frame in which they wait
// in the queue. It does no I/O.
package telemetry

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Micros is a point in time as microseconds since the Unix epoch, the resolution of PostgreSQL.
type Micros int64

// MicrosOf truncates t to its microsecond.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// Day returns the number of the UTC day since the Unix epoch.
func (m Micros) Day() int64 {
	const day = 24 * 60 * 60 * 1e6
	d := int64(m) / day
	if int64(m)%day < 0 {
		d--
	}
	return d
}

// OPC quality codes (OPC DA 3.0, section 6.8) that NSReady itself assigns. Devices may send any code from 0 to 255.
const (
	QualityUncertain       = 64 // uncertain, non-specific: the value does not fit its parameter's type
	QualityUncertainLimits = 84 // uncertain, engineering units exceeded: outside its parameter's range
	QualityGood            = 192
)

// ParameterSet is an ordered list of parameter keys, shared by all events that carry just these.
type ParameterSet struct {
	ID   uint32 // among the sets of the process or frame that it belongs to
	Keys []string
}

// Size returns how many bytes the set takes in a frame's dictionary, at most.
func (s *ParameterSet) Size() int {
	n := 2 * binary.MaxVarintLen32
	for _, k := range s.Keys {
		n += binary.MaxVarintLen32 + len(k)
	}
	return n
}

// Event is one message of one device: the values of a parameter set at one time.
type Event struct {
	Device     uuid.UUID
	Time       Micros // at the device
	ReceivedAt Micros // at the collector; the same for all events of a frame
	Set        *ParameterSet
	Values     []float64 // one for each key of Set; NaN is null
	Quality    []byte    // one for each key of Set; nil when all are QualityGood
	Source     []byte    // protocol, such as GPRS
	EventID    []byte    // nil when the sender gave none
	Attributes []byte    // JSON array with one object or null for each key of Set; nil when there are none
	Held       *Held     // nil when the registry knows the device
}

// Held is what an event of a device that the registry does not know says beside its values. Its Device is what it calls
// the device, or that of Unregistered. It becomes a dead letter of the reason PendingDevice.
type Held struct {
	Device        string    // a UUID or, of a point alone, an external id
	Project, Site uuid.UUID // that it says it is of; zero for a point, whose parameter keys are names of fields
	Measurement   string    // of a point; "" where there is no such thing
}

// PendingDevice is the reason of the dead letters that wait for their device.
const PendingDevice = "pending_device"

// Point reports whether the event came by a protocol that knows neither projects nor parameter keys.
func (h *Held) Point() bool { return h.Project == uuid.Nil }

// Unregistered returns an id by which to tell devices apart that are known by an external id and not registered.
func Unregistered(externalID string) uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte(externalID)) }

// Tally counts acknowledged events by what became of them.
type Tally struct {
	Accepted  int64 `json:"accepted"`  // taken from the queue, or missing from it
	Stored    int64 `json:"stored"`    // became a row
	Merged    int64 `json:"merged"`    // changed the row of their device and time
	Duplicate int64 `json:"duplicate"` // found that row the same already
	Dead      int64 `json:"dead"`      // became dead letters, those that wait for their device among them
	Lost      int64 `json:"lost"`      // were missing from the queue
}

// Imbalance returns how many events are unaccounted for, negative when there are more than were accepted. It is always 0.
func (t Tally) Imbalance() int64 {
	return t.Accepted - t.Stored - t.Merged - t.Duplicate - t.Dead - t.Lost
}

// Add adds the counts of o.
func (t *Tally) Add(o Tally) {
	t.Accepted += o.Accepted
	t.Stored += o.Stored
	t.Merged += o.Merged
	t.Duplicate += o.Duplicate
	t.Dead += o.Dead
	t.Lost += o.Lost
}

// RejectedError says that the database refuses the data itself: writing the same again cannot succeed.
type RejectedError struct {
	Reason string // stable, such as the SQLSTATE
	Err    error
}

func (e *RejectedError) Error() string { return fmt.Sprintf("rejected (%s): %v", e.Reason, e.Err) }
func (e *RejectedError) Unwrap() error { return e.Err }

// Lanes of the queue. Each partition has one stream in each lane, so that a device that sends what it has gathered for
// days does not keep what happens now waiting.
const (
	Live     = 0
	Backfill = 1 // events that are older than BackfillAge when they are received
	Lanes    = 2

	BackfillAge = time.Hour
)

// Offset is how far a stream of the queue is stored: all frames up to Seq, which held Events events.
type Offset struct {
	Seq    uint64 `json:"seq"`
	Events uint64 `json:"events"`
}

// Partition returns which of n partitions a device belongs to.
func Partition(device uuid.UUID, n int) int {
	return int(binary.LittleEndian.Uint32(device[12:]) % uint32(n))
}

// Block is what one request adds to the frame of one partition: records and the parameter sets they use, each once.
type Block struct {
	Records    []byte
	Sets       []*ParameterSet
	Dictionary int // bytes that the sets take in a frame, at most
	Events     int
	Held       bool // some of the events are Held
}

// Size returns how many bytes the block takes in a frame, at most.
func (b *Block) Size() int { return len(b.Records) + b.Dictionary }

// UnavailableError says that events are not taken just now, and may be later.
type UnavailableError struct {
	Code       string // stable: queue_full, disk_full, queue_down, registry_down, rate_limited_device and so on
	RetryAfter time.Duration
	Err        error
}

func (e *UnavailableError) Error() string { return e.Code + ": " + e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }
