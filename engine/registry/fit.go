package registry

import "math"

// Fit says how a value goes with its parameter.
type Fit uint8

const (
	Fits Fit = iota
	WrongType
	OutsideLimits
)

// Fit compares a value with the parameter's type and limits, whatever OnViolation says. NaN, which is null, fits.
func (p *Parameter) Fit(v float64) Fit {
	switch {
	case p.Type == TypeInt && v != math.Trunc(v) && v == v, p.Type == TypeBool && v != 0 && v != 1 && v == v:
		return WrongType
	case p.Min.Set && v < p.Min.Value, p.Max.Set && v > p.Max.Value:
		return OutsideLimits
	}
	return Fits
}
