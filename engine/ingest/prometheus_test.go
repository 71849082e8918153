package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/nsready/nsready/engine/telemetry"
)

func field(b []byte, number protowire.Number, bytes []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), bytes)
}

// timeSeries writes a TimeSeries. labels are names and values in turn.
func timeSeries(labels []string, samples ...sample) (b []byte) {
	for i := 0; i+1 < len(labels); i += 2 {
		b = field(b, 1, field(field(nil, 1, []byte(labels[i])), 2, []byte(labels[i+1])))
	}
	for _, s := range samples {
		at := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(s.value))
		at = protowire.AppendVarint(protowire.AppendTag(at, 2, protowire.VarintType), uint64(s.millis))
		b = field(b, 2, at)
	}
	return b
}

func writeRequest(series ...[]byte) (b []byte) {
	for _, s := range series {
		b = field(b, 1, s)
	}
	return b
}

func TestSeriesFitTheRegistry(t *testing.T) {
	now := time.Now().UnixMilli()
	at := func(ms int64) string { return fmt.Sprint("meter-1 ", ms*1000, " prometheus voltage=") }
	good := timeSeries([]string{"__name__", "voltage", "instance", "meter-1"}, sample{1.5, now})
	stale := math.Float64frombits(staleNaN)
	for name, c := range map[string]struct {
		body    []byte
		events  []string
		refused []string
	}{
		"one sample":    {writeRequest(good), []string{at(now) + "1.5"}, nil},
		"several":       {writeRequest(timeSeries([]string{"host", "meter-1", "__name__", "voltage", "instance", "x:1"}, sample{1, now - 1}, sample{2, now})), []string{at(now-1) + "1", at(now) + "2"}, nil},
		"stale":         {writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{stale, now - 1}, sample{2, now})), []string{at(now) + "2"}, nil},
		"NaN is null":   {writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{math.NaN(), now})), []string{at(now) + "NaN"}, nil},
		"infinite":      {writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{math.Inf(-1), now}), good), []string{at(now) + "1.5"}, []string{"value_out_of_range"}},
		"unknown":       {writeRequest(timeSeries([]string{"__name__", "up", "host", "meter-1"}, sample{1, now}), good), []string{at(now) + "1.5"}, []string{"unknown_parameter known"}},
		"other device":  {writeRequest(timeSeries([]string{"__name__", "voltage", "host", "web"}, sample{1, now}), good), []string{at(now) + "1.5"}, []string{"unknown_device"}},
		"no name":       {writeRequest(timeSeries([]string{"host", "meter-1"}, sample{1, now}), good), []string{at(now) + "1.5"}, []string{"missing"}},
		"no device":     {writeRequest(timeSeries([]string{"__name__", "voltage", "host", ""}, sample{1, now}), good), []string{at(now) + "1.5"}, []string{"missing"}},
		"no time":       {writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{1, -1}, sample{1, math.MaxInt64}, sample{1, 0})), nil, []string{"timestamp_invalid", "timestamp_invalid", "timestamp_too_old known"}},
		"histogram":     {writeRequest(field(good, 4, nil), good), []string{at(now) + "1.5"}, []string{"type_violation"}},
		"damaged":       {writeRequest([]byte{0x0a, 0x7f}, good, []byte{0xff}, good), []string{at(now) + "1.5", at(now) + "1.5"}, []string{"protobuf_invalid", "protobuf_invalid"}},
		"metadata":      {field(field(nil, 3, []byte("help")), 1, good), []string{at(now) + "1.5"}, nil},
		"exemplars":     {writeRequest(field(good, 3, []byte{1})), []string{at(now) + "1.5"}, nil},
		"no series":     {nil, nil, nil},
		"empty series":  {writeRequest(nil, timeSeries([]string{"__name__", "voltage", "host", "meter-1"})), nil, []string{"missing"}},
		"unknown later": {writeRequest(timeSeries([]string{"__name__", "a", "host", "meter-1"}, sample{1, now}, sample{2, now}, sample{3, now})), nil, []string{"unknown_parameter known", "unknown_parameter known", "unknown_parameter known"}},
	} {
		t.Run(name, func(t *testing.T) {
			result, k, err := accept(t, &growing{now: mill()}, Prometheus, string(c.body))
			slices.Sort(k.refused)
			if err != nil || !slices.Equal(k.events, c.events) || !slices.Equal(k.refused, c.refused) {
				t.Errorf("queued %q, refused %q, %v; want %q, %q: %+v", k.events, k.refused, err, c.events, c.refused, result.Rejections)
			}
		})
	}
	for name, body := range map[string][]byte{
		"cut":       writeRequest(good)[:20],
		"text":      []byte("voltage 1"),
		"cut later": append(writeRequest(good), 0x0a),
	} {
		_, k, err := accept(t, &growing{now: mill()}, Prometheus, string(body))
		if rejection := (*Rejection)(nil); !errors.As(err, &rejection) || rejection.Code != CodeProtobufInvalid || len(k.events) > 0 {
			t.Errorf("%s: %v, %q", name, err, k.events)
		}
	}
}

// What the snapshot does not know is read again, sample by sample, and none is taken for another.
func TestSeriesDeclaredSince(t *testing.T) {
	now := time.Now().UnixMilli()
	var series [][]byte
	for i, name := range []string{"power", "voltage", "power"} {
		series = append(series, timeSeries([]string{"__name__", name, "host", "meter-1"}, sample{float64(10 * i), now}, sample{float64(10*i + 1), now + 1}))
	}
	series = append(series, timeSeries([]string{"__name__", "voltage", "host", "power"}, sample{7, now}))
	_, k, err := accept(t, &growing{now: mill(), next: mill("power")}, Prometheus, string(writeRequest(series...)))
	var values []string
	for _, e := range k.events {
		values = append(values, e[strings.LastIndexByte(e, ' ')+1:])
	}
	slices.Sort(values)
	if want := []string{"power=0", "power=1", "power=20", "power=21", "voltage=10", "voltage=11", "voltage=7"}; err != nil || !slices.Equal(values, want) {
		t.Errorf("%q, %v; want %q", values, err, want)
	}
}

// The next body comes in the same memory.
func TestASeriesIsReadAnew(t *testing.T) {
	var values []float64
	s := &Service{Registry: &growing{now: mill()}, Partitions: 1, Reject: func(_ uuid.UUID, r *Rejection) { t.Error(r) }}
	s.Queue = queueFunc(func(b telemetry.Block) {
		for _, e := range decoded(t, b) {
			values = append(values, e.Values[0])
		}
	})
	var body []byte
	for i := range 3 {
		body = append(body[:0], writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{float64(i), time.Now().UnixMilli()}))...)
		if r, err := s.Accept(context.Background(), Prometheus, body); err != nil || r.Accepted != 1 {
			t.Fatal(r, err)
		}
	}
	if !slices.Equal(values, []float64{0, 1, 2}) {
		t.Errorf("the values are %v", values)
	}
}

func TestTooManySamples(t *testing.T) {
	now := time.Now().UnixMilli()
	body := writeRequest(timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, make([]sample, MaxEvents)...), timeSeries([]string{"__name__", "voltage", "host", "meter-1"}, sample{1, now}))
	_, _, err := accept(t, &growing{now: mill()}, Prometheus, string(body))
	if rejection := (*Rejection)(nil); !errors.As(err, &rejection) || rejection.Code != CodeTooManyEvents {
		t.Error(err)
	}
}

// What comes before a good series does not spoil it, as long as the message is whole.
func FuzzRemoteWrite(f *testing.F) {
	now := time.Now().UnixMilli()
	good := timeSeries([]string{"__name__", "current", "host", "meter-2"}, sample{77.25, now})
	f.Add(writeRequest(good))
	f.Add(writeRequest(timeSeries([]string{"__name__", "voltage", "instance", "web"}, sample{math.NaN(), now}), []byte{8}))
	f.Add(field(nil, 3, []byte("x")))
	g := &growing{now: mill()}
	f.Fuzz(func(t *testing.T, before []byte) {
		_, first, err := accept(t, g, Prometheus, string(before))
		if err != nil {
			return
		}
		result, both, err := accept(t, g, Prometheus, string(before)+string(writeRequest(good)))
		if err != nil || len(both.events) != len(first.events)+1 {
			t.Errorf("%d events and then %d, %v: %+v", len(first.events), len(both.events), err, result.Rejections)
		}
	})
}
