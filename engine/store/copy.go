package store

import (
	"encoding/binary"
	"math"

	"github.com/nsready/nsready/engine/telemetry"
)

// copyBuffer builds the input of COPY … FROM STDIN BINARY (PostgreSQL documentation, COPY, "Binary Format").
type copyBuffer struct {
	b    []byte
	rows int
}

const (
	copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // signature, flags, no extension

	pgEpoch = 946684800_000000 // microseconds from 1970 to 2000, where PostgreSQL's timestamps begin

	// Object ids of element types, from pg_type.dat.
	oidFloat8 = 701
	oidInt2   = 21
)

func (c *copyBuffer) reset() { c.b, c.rows = append(c.b[:0], copyHeader...), 0 }

// finish appends the trailer and returns the whole.
func (c *copyBuffer) finish() []byte {
	c.int16(-1)
	return c.b
}

// event appends a row of telemetryColumns.
func (c *copyBuffer) event(e *telemetry.Event, ref, set int32) {
	c.row(9)
	c.timestamp(e.Time)
	c.timestamp(e.ReceivedAt)
	c.int4(ref)
	c.int4(set)
	c.float8s(e.Values)
	c.qualities(e.Quality)
	c.text(e.Source)
	c.text(e.EventID)
	c.jsonb(e.Attributes)
}

// latest appends a row of latestColumns.
func (c *copyBuffer) latest(e *telemetry.Event, ref, set int32) {
	c.row(6)
	c.int4(ref)
	c.int4(set)
	c.timestamp(e.Time)
	c.float8s(e.Values)
	c.qualities(e.Quality)
	c.text(e.Source)
}

func (c *copyBuffer) row(columns int16) {
	if len(c.b) == 0 {
		c.reset()
	}
	c.rows++
	c.int16(columns)
}

func (c *copyBuffer) int16(v int16) { c.b = binary.BigEndian.AppendUint16(c.b, uint16(v)) }
func (c *copyBuffer) int32(v int)   { c.b = binary.BigEndian.AppendUint32(c.b, uint32(v)) }

func (c *copyBuffer) null() { c.int32(-1) }

func (c *copyBuffer) int4(v int32) {
	c.int32(4)
	c.int32(int(v))
}

func (c *copyBuffer) timestamp(t telemetry.Micros) {
	c.int32(8)
	c.b = binary.BigEndian.AppendUint64(c.b, uint64(int64(t)-pgEpoch))
}

// text writes nil and "" as null.
func (c *copyBuffer) text(s []byte) {
	if len(s) == 0 {
		c.null()
		return
	}
	c.int32(len(s))
	c.b = append(c.b, s...)
}

func (c *copyBuffer) jsonb(s []byte) {
	if len(s) == 0 {
		c.null()
		return
	}
	c.int32(1 + len(s))
	c.b = append(c.b, 1) // version of the format
	c.b = append(c.b, s...)
}

// float8s writes an array in which NaN is null (array_send in arrayfuncs.c: dimensions, null flag, type, length, lower bound).
func (c *copyBuffer) float8s(values []float64) {
	nulls, size := 0, 20
	for _, v := range values {
		if math.IsNaN(v) {
			nulls = 1
			size += 4
		} else {
			size += 12
		}
	}
	c.int32(size)
	c.int32(1)
	c.int32(nulls)
	c.int32(oidFloat8)
	c.int32(len(values))
	c.int32(1)
	for _, v := range values {
		if math.IsNaN(v) {
			c.null()
			continue
		}
		c.int32(8)
		c.b = binary.BigEndian.AppendUint64(c.b, math.Float64bits(v))
	}
}

// qualities writes nil as null.
func (c *copyBuffer) qualities(q []byte) {
	if q == nil {
		c.null()
		return
	}
	c.int32(20 + 6*len(q))
	c.int32(1)
	c.int32(0)
	c.int32(oidInt2)
	c.int32(len(q))
	c.int32(1)
	for _, v := range q {
		c.int32(2)
		c.int16(int16(v))
	}
}
