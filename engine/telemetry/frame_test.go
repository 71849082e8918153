package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// randomEvents returns events over a few parameter sets, with every optional part now and then.
func randomEvents(r *rand.Rand, n int) ([]Event, []*ParameterSet) {
	var sets []*ParameterSet
	for i := range 1 + r.IntN(5) {
		s := &ParameterSet{ID: uint32(10 + 7*i)}
		for j := range 1 + r.IntN(12) {
			s.Keys = append(s.Keys, fmt.Sprintf("project:%d:parameter_%d_%d", i, i, j))
		}
		sets = append(sets, s)
	}
	events := make([]Event, n)
	for i := range events {
		e := Event{Set: sets[r.IntN(len(sets))], Time: Micros(r.Int64N(1<<55) - 1<<54)}
		for j := range e.Device {
			e.Device[j] = byte(r.Uint32())
		}
		for range e.Set.Keys {
			v := math.Float64frombits(r.Uint64())
			if r.IntN(8) == 0 || math.IsNaN(v) {
				v = math.NaN()
			}
			e.Values = append(e.Values, v)
		}
		if r.IntN(2) == 0 {
			for range e.Set.Keys {
				e.Quality = append(e.Quality, byte(r.Uint32()))
			}
		}
		if r.IntN(2) == 0 {
			e.Source = []byte("GPRS")
		}
		if r.IntN(2) == 0 {
			e.EventID = fmt.Appendf(nil, "event-%d", i)
		}
		if r.IntN(4) == 0 {
			e.Attributes = []byte(`[{"unit":"V"}]`)
		}
		events[i] = e
	}
	return events, sets
}

// hold makes some of the events Held.
func hold(r *rand.Rand, events []Event) {
	for i := range events {
		switch e := &events[i]; r.IntN(3) {
		case 0:
			e.Held = &Held{Device: "meter 7", Measurement: "modbus"}
		case 1:
			e.Held = &Held{Device: e.Device.String(), Project: Unregistered("p"), Site: Unregistered("s")}
		}
	}
}

func seal(h Header, events []Event, sets []*ParameterSet) []byte {
	b := make([]byte, HeaderSize)
	for i := range events {
		b = AppendRecord(b, &events[i])
	}
	h.Events = len(events)
	return SealFrame(b, h, sets)
}

// sameEvent compares all but the identity of the set, bit by bit.
func sameEvent(a, b *Event) bool {
	if len(a.Values) != len(b.Values) {
		return false
	}
	for i := range a.Values {
		if math.Float64bits(a.Values[i]) != math.Float64bits(b.Values[i]) {
			return false
		}
	}
	return a.Device == b.Device && a.Time == b.Time && reflect.DeepEqual(a.Set.Keys, b.Set.Keys) &&
		bytes.Equal(a.Quality, b.Quality) && (a.Quality == nil) == (b.Quality == nil) && bytes.Equal(a.Source, b.Source) &&
		bytes.Equal(a.EventID, b.EventID) && bytes.Equal(a.Attributes, b.Attributes) && reflect.DeepEqual(a.Held, b.Held)
}

func TestFrameRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var decoder Decoder
	var batch Batch
	for round := range 200 {
		events, sets := randomEvents(r, r.IntN(50))
		want := Header{Events: len(events), ReceivedAt: MicrosOf(time.Now()), Producer: r.Uint64(), Before: r.Uint64(), Held: round%2 == 0}
		if want.Held {
			hold(r, events)
		}
		batch.Reset()
		got, err := decoder.Append(&batch, seal(want, events, sets))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if got != want {
			t.Fatalf("round %d: header %+v, want %+v", round, got, want)
		}
		for i := range events {
			if !sameEvent(&batch.Events[i], &events[i]) {
				t.Fatalf("round %d: event %d is %+v, want %+v", round, i, batch.Events[i], events[i])
			}
			if batch.Events[i].ReceivedAt != want.ReceivedAt {
				t.Fatalf("round %d: event %d was received at %v", round, i, batch.Events[i].ReceivedAt)
			}
		}
	}
}

func TestDecoderInternsSets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	events, sets := randomEvents(r, 10)
	var decoder Decoder
	var first, second Batch
	if _, err := decoder.Append(&first, seal(Header{}, events, sets)); err != nil {
		t.Fatal(err)
	}
	for _, s := range sets { // another frame, other ids, equal keys
		s.ID += 1000
	}
	if _, err := decoder.Append(&second, seal(Header{}, events, sets)); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if first.Events[i].Set != second.Events[i].Set {
			t.Fatalf("event %d: equal keys gave two sets", i)
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	events, sets := randomEvents(r, 3)
	for _, held := range []bool{false, true} {
		if held {
			hold(r, events)
		}
		everyFlippedBit(t, seal(Header{Producer: 7, Held: held}, events, sets))
	}
}

func everyFlippedBit(t *testing.T, frame []byte) {
	var decoder Decoder
	for bit := range len(frame) * 8 {
		if bit/8 >= 5 && bit/8 < 8 { // reserved, and not covered
			continue
		}
		damaged := bytes.Clone(frame)
		damaged[bit/8] ^= 1 << (bit % 8)
		batch := Batch{Events: make([]Event, 2, 10)}
		if _, err := decoder.Append(&batch, damaged); !errors.Is(err, ErrFrame) {
			t.Fatalf("bit %d: error is %v", bit, err)
		}
		if len(batch.Events) != 2 {
			t.Fatalf("bit %d: %d events are left behind", bit, len(batch.Events)-2)
		}
	}
	for n := range frame {
		if _, err := decoder.Append(&Batch{}, frame[:n]); !errors.Is(err, ErrFrame) {
			t.Fatalf("cut to %d bytes: error is %v", n, err)
		}
	}
}

// FuzzDecoder feeds records and dictionaries of any content, under a header that is right.
func FuzzDecoder(f *testing.F) {
	events, sets := randomEvents(rand.New(rand.NewPCG(7, 8)), 5)
	good := seal(Header{}, events, sets)
	f.Add(good[HeaderSize:], uint32(5), uint32(len(good)-20), false)
	f.Add([]byte{}, uint32(0), uint32(HeaderSize), false)
	hold(rand.New(rand.NewPCG(9, 10)), events)
	good = seal(Header{Held: true}, events, sets)
	f.Add(good[HeaderSize:], uint32(5), uint32(len(good)-20), true)
	f.Fuzz(func(t *testing.T, content []byte, count, dictionary uint32, held bool) {
		if len(content) > 1<<16 {
			return
		}
		b := SealFrame(append(make([]byte, HeaderSize), content...), Header{Events: int(count), Held: held}, nil)
		reseal(b, dictionary)
		var decoder Decoder
		var batch Batch
		if _, err := decoder.Append(&batch, b); err == nil && len(batch.Events) != int(count) {
			t.Fatalf("%d events decoded, the header says %d", len(batch.Events), count)
		}
	})
}

func TestDay(t *testing.T) {
	for _, c := range []struct {
		at   string
		want int64
	}{{"1970-01-01T00:00:00Z", 0}, {"1970-01-01T23:59:59.999999Z", 0}, {"1969-12-31T23:59:59.999999Z", -1}, {"2026-11-23T00:00:00Z", 20780}} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := MicrosOf(at).Day(); got != c.want {
			t.Errorf("day of %s is %d, want %d", c.at, got, c.want)
		}
	}
}

func TestProducersKnowWhatIsMissing(t *testing.T) {
	p := Producers{}
	for i, frame := range []struct {
		h       Header
		missing uint64
	}{
		{Header{Producer: 1, Before: 100, Events: 5}, 0}, // the first that is seen: the reader begins here
		{Header{Producer: 2, Before: 0, Events: 3}, 0},
		{Header{Producer: 1, Before: 105, Events: 5}, 0},
		{Header{Producer: 1, Before: 117, Events: 1}, 7},
		{Header{Producer: 2, Before: 4, Events: 1}, 1},
		{Header{Producer: 1, Before: 105, Events: 5}, 0}, // again
		{Header{Producer: 1, Before: 118, Events: 1}, 0},
	} {
		if got := p.Missing(frame.h); got != frame.missing {
			t.Errorf("frame %d: %d events are missing, want %d", i, got, frame.missing)
		}
	}
}

// A frame without held events is what it was before there were any, and no other has one.
func TestOldFrames(t *testing.T) {
	events, sets := randomEvents(rand.New(rand.NewPCG(11, 12)), 3)
	if frame := seal(Header{}, events, sets); frame[4] != 1 {
		t.Errorf("the version of a frame without held events is %d", frame[4])
	}
	events[1].Held = &Held{Device: "meter 7"}
	frame := seal(Header{Held: true}, events, sets)
	if frame[4] != 2 {
		t.Errorf("the version of a frame with held events is %d", frame[4])
	}
	frame[4] = 1
	if _, err := new(Decoder).Append(&Batch{}, frame); !errors.Is(err, ErrFrame) {
		t.Errorf("a held event in a frame of version 1: %v", err)
	}
}
