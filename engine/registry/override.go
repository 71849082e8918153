package registry

import (
	"cmp"
	"slices"
	"time"
)

// Override is what holds for one device instead of what a parameter's template says. A field that is not set is as the
// template has it.
type Override struct {
	Parameter   string        `json:"parameter"` // its short name
	Min         Bound         `json:"min,omitzero"`
	Max         Bound         `json:"max,omitzero"`
	Interval    time.Duration `json:"interval_ns,omitzero"`
	StaleAfter  time.Duration `json:"stale_after_ns,omitzero"`
	OnViolation Violation     `json:"on_violation,omitzero"`
	Quality     Bound         `json:"default_quality,omitzero"` // whole, from 0 to 255
}

// Empty reports whether an override says nothing.
func (o Override) Empty() bool { return o == Override{Parameter: o.Parameter} }

// Apply returns a parameter as the override makes it.
func (o Override) Apply(p *Parameter) *Parameter {
	own := *p
	if o.Min.Set {
		own.Min = o.Min
	}
	if o.Max.Set {
		own.Max = o.Max
	}
	own.Interval, own.StaleAfter = cmp.Or(o.Interval, p.Interval), cmp.Or(o.StaleAfter, p.StaleAfter)
	own.OnViolation = cmp.Or(o.OnViolation, p.OnViolation)
	if o.Quality.Set {
		own.Quality = uint8(o.Quality.Value)
	}
	return &own
}

// SortOverrides puts overrides in the order that those of a device have.
func SortOverrides(list []Override) {
	slices.SortFunc(list, func(a, b Override) int { return cmp.Compare(a.Parameter, b.Parameter) })
}

// Override returns what the device overrides of a parameter of its project, by the short name; the zero Override for nothing.
func (d *Device) Override(short string) Override {
	if i, ok := slices.BinarySearchFunc(d.Overrides, short, func(o Override, short string) int { return cmp.Compare(o.Parameter, short) }); ok {
		return d.Overrides[i]
	}
	return Override{Parameter: short}
}

// OwnParameter returns a parameter as it is for the device: the parameter itself, where the device overrides nothing of it.
func (d *Device) OwnParameter(p *Parameter) *Parameter {
	for _, o := range d.Overrides {
		if p.Key == ParameterKey(d.ProjectID, o.Parameter) {
			return o.Apply(p)
		}
	}
	return p
}

// fields are the attributes that are set.
func (o Override) fields() (list []Field) {
	for _, f := range []Field{
		{"min", o.Min.String()}, {"max", o.Max.String()}, {"interval", FormatDuration(o.Interval)}, {"stale_after", FormatDuration(o.StaleAfter)},
		{"on_violation", string(o.OnViolation)}, {"default_quality", o.Quality.String()},
	} {
		if f.Value != "" {
			list = append(list, Field{"override." + o.Parameter + "." + f.Name, f.Value})
		}
	}
	return list
}

// differences are the fields that two objects of a kind do not have in common. They have the same ones, but for those of
// overrides, which come last.
func differences(before, after Object) (list []FieldChange) {
	was, is := before.Fields(), after.Fields()
	for len(was) > 0 && len(is) > 0 && was[0].Name == is[0].Name {
		if was[0].Value != is[0].Value {
			list = append(list, FieldChange{is[0].Name, was[0].Value, is[0].Value})
		}
		was, is = was[1:], is[1:]
	}
	gone := make(map[string]string, len(was))
	for _, f := range was {
		gone[f.Name] = f.Value
	}
	for _, f := range is {
		if gone[f.Name] != f.Value {
			list = append(list, FieldChange{f.Name, gone[f.Name], f.Value})
		}
		delete(gone, f.Name)
	}
	for _, f := range was {
		if _, left := gone[f.Name]; left {
			list = append(list, FieldChange{Name: f.Name, Before: f.Value})
		}
	}
	return list
}
