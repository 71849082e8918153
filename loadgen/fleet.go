package loadgen

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

// ErrNoDevices says that a registry has no device that could send anything.
var ErrNoDevices = errors.New("no device with parameters is declared: declare devices and parameters, and run nsready apply")

// Fleet is the senders of a registry: its devices that are not retired and have parameters. It is immutable.
type Fleet struct {
	members []member
	perTurn int // values in one event of every member
}

// member is one device.
type member struct {
	device uuid.UUID
	head   []byte // its event's JSON up to the timestamp
	series []*series
	before int // values in one event of all members before this one
}

// series is one parameter of the fleet. Its values are whole multiples of a negative power of ten below 2^53, so that
// their decimal text and float64(grid)/pow10[decimals] are the same number.
type series struct {
	key      string
	head     []byte // a metric's JSON up to its value
	binary   bool
	decimals int
	full     span // what the parameter's type and range allow
	normal   span // the part of full that crosses no threshold
	above    span // beyond an upper threshold, empty when there is none
	below    span // beyond a lower threshold
	hold     float64
}

// span is the multiples lo..hi of a series' resolution, empty when lo > hi.
type span struct{ lo, hi int64 }

func (s span) empty() bool { return s.lo > s.hi }

// at returns the multiple at a fraction of the span, 0 to below 1.
func (s span) at(fraction float64) int64 {
	return min(s.hi, s.lo+int64(fraction*(float64(s.hi-s.lo)+1)))
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// maxGrid keeps multiples exact in float64.
const maxGrid = 1 << 53

// NewFleet returns the fleet of a snapshot, or ErrNoDevices. A device that declares no parameters sends all of its
// project's. A parameter whose type and range leave no value that 15 decimals can write is not sent.
func NewFleet(s *registry.Snapshot) (*Fleet, error) {
	thresholds := map[string][]*registry.Threshold{}
	for _, t := range s.Thresholds {
		thresholds[t.ParameterKey] = append(thresholds[t.ParameterKey], t)
	}
	projects := map[string][]*series{}
	parameters := map[*series]*registry.Parameter{}
	for _, p := range s.Parameters {
		if p.Retired {
			continue
		}
		if one := newSeries(p, thresholds[p.Key]); one != nil {
			project := p.Addr.ParentPath()
			projects[project] = append(projects[project], one)
			parameters[one] = p
		}
	}
	f := &Fleet{}
	for _, d := range s.Devices {
		site := registry.Address{Kind: registry.KindSite, Path: d.Addr.ParentPath()}
		all := projects[site.ParentPath()]
		m := member{device: d.ID, before: f.perTurn, head: head(d)}
		if d.Parameters == nil {
			m.series = all
		} else {
			wanted := make(map[string]bool, len(d.Parameters))
			for _, name := range d.Parameters {
				wanted[name] = true
			}
			for _, one := range all {
				if wanted[parameters[one].Addr.Name()] {
					m.series = append(m.series, one)
				}
			}
		}
		if len(d.Overrides) > 0 {
			shared := m.series
			m.series = nil
			for _, one := range shared {
				p := parameters[one]
				if own := d.OwnParameter(p); own != p {
					one = newSeries(own, thresholds[p.Key])
				}
				if one != nil {
					m.series = append(m.series, one)
				}
			}
		}
		if d.Retired || len(m.series) == 0 {
			continue
		}
		f.members = append(f.members, m)
		f.perTurn += len(m.series)
	}
	if len(f.members) == 0 {
		return nil, ErrNoDevices
	}
	return f, nil
}

// Devices returns the number of devices.
func (f *Fleet) Devices() int { return len(f.members) }

// Values returns the number of values in the first n events of a Sequence over this fleet.
func (f *Fleet) Values(n uint64) uint64 {
	turn, j := f.locate(n)
	return turn*uint64(f.perTurn) + uint64(f.members[j].before)
}

// locate returns how often the whole fleet has sent before event n, and whose turn it is.
func (f *Fleet) locate(n uint64) (turn uint64, member int) {
	d := uint64(len(f.members))
	return n / d, int(n % d)
}

func head(d *registry.Device) []byte {
	b := append([]byte(nil), `{"project_id":"`...)
	b = append(b, d.ProjectID.String()...)
	b = append(b, `","site_id":"`...)
	b = append(b, d.SiteID.String()...)
	b = append(b, `","device_id":"`...)
	b = append(b, d.ID.String()...)
	return append(b, `","protocol":"HTTP","source_timestamp":"`...)
}

// newSeries returns nil when no value fits the parameter.
func newSeries(p *registry.Parameter, thresholds []*registry.Threshold) *series {
	lo, hi := bounds(p)
	s := &series{
		key:    p.Key,
		head:   slices.Concat([]byte(`{"parameter_key":`), quote(p.Key), []byte(`,"value":`)),
		binary: p.Type == registry.TypeBool,
	}
	if !s.resolve(lo, hi, p.Type) {
		return nil
	}
	// Beyond a threshold means a twentieth of the range beyond it, so that rounding never lands on the limit itself.
	width := hi/20 - lo/20
	low, high := lo, hi
	upper, lower := math.Inf(-1), math.Inf(1)
	for _, t := range thresholds {
		if t.Above.Set {
			high = min(high, t.Above.Value-t.Deadband)
			upper = max(upper, t.Above.Value)
		}
		if t.Below.Set {
			low = max(low, t.Below.Value+t.Deadband)
			lower = min(lower, t.Below.Value)
		}
		s.hold = max(s.hold, t.For.Seconds())
	}
	margin := min(width, (high-low)/8)
	if high < hi {
		high -= margin
	}
	if low > lo {
		low += margin
	}
	if s.normal = s.grid(low, high); s.normal.empty() {
		s.normal = s.full
	}
	s.above = s.grid(upper+min(width, (hi-upper)/2), hi)
	if math.IsInf(upper, -1) || s.above.empty() || s.value(s.above.lo) <= upper {
		s.above = span{0, -1}
	}
	s.below = s.grid(lo, lower-min(width, (lower-lo)/2))
	if math.IsInf(lower, 1) || s.below.empty() || s.value(s.below.hi) >= lower {
		s.below = span{0, -1}
	}
	return s
}

// quote returns s as a JSON string.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return b
}

// bounds returns the range to draw values from; a bound that is not declared is set 100 from the other, or to 0 and 100.
func bounds(p *registry.Parameter) (lo, hi float64) {
	switch {
	case p.Type == registry.TypeBool:
		lo, hi = 0, 1
		if p.Min.Set {
			lo = max(lo, p.Min.Value)
		}
		if p.Max.Set {
			hi = min(hi, p.Max.Value)
		}
	case p.Min.Set && p.Max.Set:
		lo, hi = p.Min.Value, p.Max.Value
	case p.Min.Set:
		lo, hi = p.Min.Value, p.Min.Value+100
	case p.Max.Set:
		lo, hi = p.Max.Value-100, p.Max.Value
	default:
		lo, hi = 0, 100
	}
	return lo, hi
}

// resolve finds the coarsest resolution with a thousand values between lo and hi, or else the one that has most.
func (s *series) resolve(lo, hi float64, t registry.DataType) bool {
	s.full = span{0, -1}
	for decimals := range pow10 {
		if decimals > 0 && t != registry.TypeFloat && t != "" {
			break
		}
		finer := series{decimals: decimals}
		if g := finer.grid(lo, hi); g.hi-g.lo > s.full.hi-s.full.lo {
			s.decimals, s.full = decimals, g
			if g.hi-g.lo >= 1000 {
				break
			}
		}
	}
	return !s.full.empty()
}

// grid returns the multiples whose value lies in lo..hi.
func (s *series) grid(lo, hi float64) span {
	scale := pow10[s.decimals]
	l, h := math.Ceil(lo*scale), math.Floor(hi*scale)
	if l > maxGrid || h < -maxGrid || !(l <= h) {
		return span{0, -1}
	}
	g := span{int64(max(l, -maxGrid)), int64(min(h, maxGrid))}
	for !g.empty() && s.value(g.lo) < lo {
		g.lo++
	}
	for !g.empty() && s.value(g.hi) > hi {
		g.hi--
	}
	return g
}

// value returns the number that append writes.
func (s *series) value(grid int64) float64 { return float64(grid) / pow10[s.decimals] }

// append writes a multiple as a JSON number.
func (s *series) append(b []byte, grid int64) []byte {
	if grid < 0 {
		b = append(b, '-')
		grid = -grid
	}
	if s.decimals == 0 {
		return strconv.AppendInt(b, grid, 10)
	}
	var digits [20]byte
	i := len(digits)
	for d := 0; grid > 0 || d <= s.decimals; d++ {
		if d == s.decimals {
			i--
			digits[i] = '.'
		}
		i--
		digits[i] = byte('0' + grid%10)
		grid /= 10
	}
	return append(b, digits[i:]...)
}
