package loadgen

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// Stored is the database that a run is verified against.
type Stored interface {
	// StoredValues calls row for every stored value whose time is in from..to (to excluded) and whose event id starts
	// with prefix, in any order. A null value is NaN. The event id is as the view ingest_events has it, with ":" and the
	// parameter key at its end. The slices are valid during the call only. An error of row ends it and is returned.
	StoredValues(ctx context.Context, prefix string, from, to telemetry.Micros,
		row func(device uuid.UUID, t telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error) error
}

// Violation names one value that breaks the promise.
type Violation struct {
	Kind         string    `json:"kind"` // lost, duplicated, altered or unexpected
	EventID      string    `json:"event_id"`
	DeviceID     uuid.UUID `json:"device_id"`
	Time         time.Time `json:"time"`
	ParameterKey string    `json:"parameter_key"`
	Detail       string    `json:"detail"`
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s of device %s at %s, event %s: %s", v.Kind, v.ParameterKey, v.DeviceID,
		v.Time.Format("2006-01-02T15:04:05.000000Z07:00"), v.EventID, v.Detail)
}

// maxExamples bounds the violations of one kind that are told apart.
const maxExamples = 5

// checker compares what is stored with what a run knows. It keeps one bit a value.
type checker struct {
	seq      *Sequence
	history  *history
	seed     uint64
	prefix   []byte
	seen     []uint64
	values   Values
	examples map[string][]Violation
}

func newChecker(seq *Sequence, h *history) *checker {
	return &checker{
		seq:      seq,
		history:  h,
		seed:     seq.seed(),
		prefix:   []byte(seq.Prefix()),
		seen:     make([]uint64, seq.Fleet.Values(h.events())/64+1),
		examples: map[string][]Violation{},
	}
}

// clockSlack widens the window that is read back, so that a value stored under a wrong time is seen and named.
const clockSlack = 10 * 60 * 1e6

// verify reads back the run's values and counts them.
func (c *checker) verify(ctx context.Context, stored Stored) error {
	from, to := c.seq.Start-clockSlack, c.seq.Time(c.history.events())+clockSlack
	if err := stored.StoredValues(ctx, c.seq.Prefix(), from, to, c.row); err != nil {
		return fmt.Errorf("reading back what is stored: %w", err)
	}
	c.missing()
	return nil
}

// row takes in one stored value.
func (c *checker) row(device uuid.UUID, t telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error {
	c.values.Stored++
	found := func(kind string, count *uint64, detail string, args ...any) {
		*count++
		if len(c.examples[kind]) < maxExamples {
			c.examples[kind] = append(c.examples[kind], Violation{kind, string(eventID), device, t.Time(), string(key), fmt.Sprintf(detail, args...)})
		}
	}
	n, ok := c.event(eventID, key)
	if !ok {
		found("unexpected", &c.values.Unexpected, "no event of this run has this id")
		return nil
	}
	switch c.history.outcome(n) {
	case unsent:
		found("unexpected", &c.values.Unexpected, "the event was never sent")
		return nil
	case refused:
		found("unexpected", &c.values.Unexpected, "the service refused the event")
		return nil
	}
	_, j := c.seq.Fleet.locate(n)
	m := &c.seq.Fleet.members[j]
	i := m.index(key)
	if i < 0 {
		found("unexpected", &c.values.Unexpected, "the event had no such parameter")
		return nil
	}
	bit := c.seq.Fleet.Values(n) + uint64(i)
	if mask := uint64(1) << (bit % 64); c.seen[bit/64]&mask != 0 {
		found("duplicated", &c.values.Duplicated, "the event's value is stored more than once")
	} else {
		c.seen[bit/64] |= mask
	}
	want := m.series[i].value(c.seq.pick(c.seed, n, m.series[i], i))
	switch {
	case device != m.device:
		found("altered", &c.values.Altered, "was sent by device %s", m.device)
	case t != c.seq.Time(n):
		found("altered", &c.values.Altered, "was sent with time %s", c.seq.Time(n).Time().Format(time.RFC3339Nano))
	case math.Float64bits(value) != math.Float64bits(want):
		found("altered", &c.values.Altered, "is %v, was sent as %v", value, want)
	case quality != telemetry.QualityGood:
		found("altered", &c.values.Altered, "has quality %d, was sent with %d", quality, telemetry.QualityGood)
	}
	return nil
}

// event returns the number in an event id "<prefix><n>:<key>".
func (c *checker) event(id, key []byte) (n uint64, ok bool) {
	rest, ok := bytes.CutPrefix(id, c.prefix)
	if !ok {
		return 0, false
	}
	digits, ok := bytes.CutSuffix(rest, key)
	if !ok || len(digits) < 2 || digits[len(digits)-1] != ':' {
		return 0, false
	}
	digits = digits[:len(digits)-1]
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || digits[0] == '0' && len(digits) > 1 || digits[0] == '+' {
		return 0, false
	}
	return n, true
}

// index returns the place of a parameter in the member's events, or -1.
func (m *member) index(key []byte) int {
	for i, s := range m.series {
		if s.key == string(key) {
			return i
		}
	}
	return -1
}

// missing counts what was sent and not seen, and what was not promised and seen all the same.
func (c *checker) missing() {
	for n := range c.history.events() {
		o := c.history.outcome(n)
		if o == unsent {
			continue
		}
		_, j := c.seq.Fleet.locate(n)
		m := &c.seq.Fleet.members[j]
		first := c.seq.Fleet.Values(n)
		width := uint64(len(m.series))
		c.values.Attempted += width
		switch o {
		case acknowledged:
			c.values.Acknowledged += width
		case refused:
			c.values.Refused += width
			continue
		case unknown:
			c.values.Unknown += width
		}
		for i, series := range m.series {
			bit := first + uint64(i)
			seen := c.seen[bit/64]>>(bit%64)&1 != 0
			switch {
			case o == unknown && seen:
				c.values.Recovered++
			case o == acknowledged && !seen:
				c.values.Lost++
				if len(c.examples["lost"]) < maxExamples {
					c.examples["lost"] = append(c.examples["lost"], Violation{"lost", c.seq.Prefix() + strconv.FormatUint(n, 10) + ":" + series.key,
						m.device, c.seq.Time(n).Time(), series.key, "was acknowledged and is not stored"})
				}
			}
		}
	}
}

// violations returns the examples, the worst kind first.
func (c *checker) violations() []Violation {
	var all []Violation
	for _, kind := range []string{"lost", "duplicated", "altered", "unexpected"} {
		all = append(all, c.examples[kind]...)
	}
	return all
}

// watched reports progress while values are read back.
type watched struct {
	Stored
	sender *sender
}

func (w *watched) StoredValues(ctx context.Context, prefix string, from, to telemetry.Micros,
	row func(uuid.UUID, telemetry.Micros, []byte, float64, int16, []byte) error) error {
	var rows uint64
	last := time.Now()
	return w.Stored.StoredValues(ctx, prefix, from, to, func(device uuid.UUID, t telemetry.Micros, key []byte, value float64, quality int16, eventID []byte) error {
		if rows++; rows%4096 == 0 && time.Since(last) >= time.Second {
			last = time.Now()
			w.sender.progress("verifying", func(p *Progress) { p.Stored = rows })
		}
		return row(device, t, key, value, quality, eventID)
	})
}
