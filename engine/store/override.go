package store

import (
	"encoding/json"
	"fmt"

	"github.com/nsready/nsready/engine/registry"
)

// override is what devices.overrides holds, by the short name of the parameter: what a template's metadata says, where it is
// another for the device.
type override struct {
	Min            any `json:"min,omitempty"`
	Max            any `json:"max,omitempty"`
	Interval       any `json:"interval_seconds,omitempty"`
	StaleAfter     any `json:"stale_after_seconds,omitempty"`
	OnViolation    any `json:"on_violation,omitempty"`
	DefaultQuality any `json:"default_quality,omitempty"`
}

// overrides writes null for none.
func (c *copyBuffer) overrides(d *registry.Device) error {
	if len(d.Overrides) == 0 {
		c.null()
		return nil
	}
	number := func(b registry.Bound) any {
		if b.Set {
			return b.Value
		}
		return nil
	}
	byName := make(map[string]override, len(d.Overrides))
	for _, o := range d.Overrides {
		row := override{Min: number(o.Min), Max: number(o.Max), DefaultQuality: number(o.Quality)}
		if o.Interval != 0 {
			row.Interval = o.Interval.Seconds()
		}
		if o.StaleAfter != 0 {
			row.StaleAfter = o.StaleAfter.Seconds()
		}
		if o.OnViolation != "" {
			row.OnViolation = o.OnViolation
		}
		byName[o.Parameter] = row
	}
	text, err := json.Marshal(byName)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Addr, err)
	}
	c.jsonb(text)
	return nil
}

// overridden reads what overrides writes. What cannot be understood is left out. The same JSON yields the same slice.
func (l *loader) overridden(text []byte) []registry.Override {
	if len(text) == 0 {
		return nil
	}
	if list, ok := l.overrides[string(text)]; ok {
		return list
	}
	list := parseOverrides(text)
	l.overrides[string(text)] = list
	return list
}

func parseOverrides(text []byte) (list []registry.Override) {
	var byName map[string]json.RawMessage
	if json.Unmarshal(text, &byName) != nil {
		return nil
	}
	for name, text := range byName {
		var row override
		if json.Unmarshal(text, &row) != nil {
			continue
		}
		o := registry.Override{Parameter: name, Min: jsonBound(row.Min), Max: jsonBound(row.Max),
			Interval: seconds(jsonBound(row.Interval).Value), StaleAfter: seconds(jsonBound(row.StaleAfter).Value)}
		switch v, _ := row.OnViolation.(string); registry.Violation(v) {
		case registry.Flag, registry.Reject, registry.Accept:
			o.OnViolation = registry.Violation(v)
		}
		if q := jsonBound(row.DefaultQuality); q.Set && q.Value >= 0 && q.Value <= 255 {
			o.Quality = registry.BoundOf(float64(uint8(q.Value)))
		}
		if !o.Empty() {
			list = append(list, o)
		}
	}
	registry.SortOverrides(list)
	return list
}
