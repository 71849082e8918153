package ingest

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/nsready/nsready/engine/telemetry"
)

// Prometheus remote write 1.0, https://prometheus.io/docs/specs/prw/remote_write_spec/. Of its messages, in protobuf:
//
//	WriteRequest { repeated TimeSeries timeseries = 1; }                                               // 3: metadata
//	TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; repeated … histograms = 4; } // 3: exemplars
//	Label        { string name = 1; string value = 2; }
//	Sample       { double value = 1; int64 timestamp = 2; }                                            // milliseconds

var sourcePrometheus = []byte("prometheus")

// CodeProtobufInvalid says that a body, or a series of it, is not the protobuf message that remote write has.
const CodeProtobufInvalid = "protobuf_invalid"

// staleNaN is how Prometheus marks that a series has ended. It is no value, and not stored: a null in its place would blot
// out the last value that the device is known to have had.
const staleNaN = 0x7ff0000000000002

// eachField calls f for the fields of a message: bytes for the wire types that have a length, otherwise bits. It reports
// whether the message is whole.
func eachField(b []byte, f func(number protowire.Number, bytes []byte, bits uint64) bool) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var bytes []byte
		var bits uint64
		switch kind {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(b)
		case protowire.VarintType:
			bits, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 || !f(number, bytes, bits) {
			return false
		}
		b = b[n:]
	}
	return true
}

// eachSeries calls one for every series of a WriteRequest.
func eachSeries(body []byte, one func(line int, data []byte) (int, *Rejection)) (r *Rejection) {
	series := 0
	whole := eachField(body, func(number protowire.Number, bytes []byte, _ uint64) bool {
		if number != 1 {
			return true
		}
		series++
		_, r = one(series, bytes)
		return r == nil
	})
	if r == nil && !whole {
		r = refuse(CodeProtobufInvalid, "", nil, "The body is no WriteRequest of Prometheus remote write 1.0: it breaks off, or is damaged, behind series %d.", series)
	}
	return r
}

// series is a TimeSeries. It keeps memory from series to series; the zero value is ready to use.
type series struct {
	data    []byte // that was read, nil when it could not be
	name    []byte
	samples []sample
}

type sample struct {
	value  float64
	millis int64
}

// read reads a series, and into e what its samples have in common.
func (s *series) read(data []byte, e *rawEvent) *Rejection {
	if len(data) > 0 && len(s.data) == len(data) && &s.data[0] == &data[0] {
		return nil
	}
	p := e.Point
	*p = rawPoint{}
	s.data, s.name, s.samples = nil, nil, s.samples[:0]
	e.Protocol, e.EventID = sourcePrometheus, nil
	histograms := false
	whole := eachField(data, func(number protowire.Number, bytes []byte, _ uint64) bool {
		switch number {
		case 1:
			var key, value []byte
			if !eachField(bytes, func(number protowire.Number, bytes []byte, _ uint64) bool {
				switch number {
				case 1:
					key = bytes
				case 2:
					value = bytes
				}
				return true
			}) {
				return false
			}
			if string(key) == "__name__" {
				s.name = value
			} else if len(value) > 0 {
				p.tag(key, value, deviceTags[:])
			}
		case 2:
			var at sample
			if !eachField(bytes, func(number protowire.Number, _ []byte, bits uint64) bool {
				switch number {
				case 1:
					at.value = math.Float64frombits(bits)
				case 2:
					at.millis = int64(bits)
				}
				return true
			}) {
				return false
			}
			s.samples = append(s.samples, at)
		case 4:
			histograms = true
		}
		return true
	})
	switch {
	case !whole:
		return refuse(CodeProtobufInvalid, "", nil, "The series is damaged.")
	case histograms:
		return refuse(CodeTypeViolation, "histograms", s.name, "Native histograms are not stored: send classic ones, whose buckets are series of their own.")
	case len(s.name) == 0 || len(s.name) > maxKey:
		return refuse(CodeMissing, "__name__", s.name, "The series has no name, or one of more than %d bytes.", maxKey)
	case p.Tag == "":
		return refuse(CodeMissing, "labels", s.name, "The series names no device: it needs one of the labels device_id, device, external_id, host, instance.")
	}
	s.data = data
	return nil
}

// sample makes e a sample of the series that was read. It reports whether there is nothing to store.
func (s *series) sample(i int, e *rawEvent) (skip bool, r *Rejection) {
	at := s.samples[i]
	if math.Float64bits(at.value) == staleNaN {
		return true, nil
	}
	if math.IsInf(at.value, 0) {
		return false, refuse(CodeValueOutOfRange, "samples", s.name, "The value is infinite.")
	}
	if at.millis < 0 || at.millis > int64(lastMicros)/1000 {
		return false, refuse(CodeTimestampInvalid, "timestamp", nil, "The time lies outside of 1970 to 9999.")
	}
	e.Time = telemetry.Micros(at.millis * 1000)
	e.Metrics = append(e.Metrics[:0], rawMetric{Key: s.name, Value: at.value, Quality: telemetry.QualityGood})
	return false, nil
}
