package store

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/telemetry"
)

// What is held comes back from its letter as it went there.
func TestHeldEventsAreReadAsTheyWere(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		e := telemetry.Event{
			Held: &telemetry.Held{Device: "meter 7", Measurement: []string{"", `m "1"`}[r.IntN(2)]}, Device: telemetry.Unregistered("meter 7"),
			Time: telemetry.Micros(r.Int64N(4e15)), ReceivedAt: telemetry.Micros(r.Int64N(4e15)), Source: []byte("HTTP"), Set: &telemetry.ParameterSet{},
		}
		if r.IntN(2) == 0 {
			e.Device = uuid.New()
			e.Held = &telemetry.Held{Device: e.Device.String(), Project: uuid.New(), Site: uuid.New()}
		}
		if r.IntN(2) == 0 {
			e.EventID = []byte("e <&> \u2028")
		}
		var attributes []any
		for _, key := range []string{"a", "b", "ключ"}[:1+r.IntN(3)] {
			e.Set.Keys = append(e.Set.Keys, key)
			e.Values = append(e.Values, []float64{math.NaN(), math.Inf(-1), 0, 1e-300, 1.7976931348623157e308, r.NormFloat64()}[r.IntN(6)])
			attributes = append(attributes, []any{nil, map[string]any{"x": 1.5}}[r.IntN(2)])
			e.Quality = append(e.Quality, byte(r.IntN(256)))
		}
		if slices.ContainsFunc(attributes, func(a any) bool { return a != nil }) {
			e.Attributes, _ = json.Marshal(attributes)
		}
		text, err := json.Marshal(eventJSON(&e))
		if err != nil {
			t.Fatal(err)
		}
		encoded := letter{event: text}
		if err := encoded.encode(); err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{text, encoded.event} {
			got, err := readHeld(e.Held.Device, text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			want := e
			want.Values = slices.Clone(e.Values)
			for i := range got.Values { // NaN is unequal to itself
				if math.IsNaN(got.Values[i]) && math.IsNaN(want.Values[i]) {
					got.Values[i], want.Values[i] = 0, 0
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s is read as\n%+v, want\n%+v", text, got, want)
			}
		}
	}
	for _, text := range []string{"", "[]", "{}", `{"metrics":[]}`, `{"metrics":[{"parameter_key":"a","value":"x"}]}`, `{"metrics":[{"parameter_key":"a","value":true}]}`,
		`{"metrics":[{"parameter_key":"a","value":1,"quality":1},{"parameter_key":"b","value":1}]}`, `{"base64":"e30="}`, `{"metrics":[{"value":1}],"source_timestamp":"yesterday"}`} {
		if e, err := readHeld("meter 7", []byte(text)); err == nil {
			t.Errorf("%s is read as %+v", text, e)
		}
	}
}
