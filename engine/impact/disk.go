package impact

import (
	"context"
	"time"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// Disk is how large the database is and will be, in bytes, before and after the plan. All but Bytes is estimated.
type Disk struct {
	Bytes             int64 `json:"bytes"`                // now, on disk
	BytesPerDay       int64 `json:"bytes_per_day_before"` // of telemetry, the mean of the last seven whole days or fewer
	BytesPerDayAfter  int64 `json:"bytes_per_day_after"`
	ValuesPerDayAdded int64 `json:"values_per_day_added"` // of new devices, as far as they declare an interval and parameters
	DevicesAdded      int   `json:"devices_added"`
	DevicesUnknown    int   `json:"devices_without_interval"` // of these, those that do not

	young bool // no whole day is stored, so that BytesPerDay is not known

	// What it levels off at when as much is dropped as comes; 0 when nothing is ever dropped.
	LevelBefore int64 `json:"level_bytes_before,omitempty"`
	LevelAfter  int64 `json:"level_bytes_after,omitempty"`

	// When it has reached the capacity: no time when it never does. Without a capacity nothing is known of it.
	Capacity       int64     `json:"capacity_bytes,omitempty"`
	CapacitySource string    `json:"capacity_source,omitempty"`
	FullBefore     time.Time `json:"full_before,omitzero"`
	FullAfter      time.Time `json:"full_after,omitzero"`
}

// measure is what telemetry has taken on disk so far.
type measure struct {
	size         int64 // of the whole database
	valuesPerRow float64
	bytesPerRow  float64
	bytesPerDay  float64
	ratio        float64              // compressed to plain bytes
	counted      map[*store.Day]int64 // rows of days of which the server has no statistics
	whole        map[*store.Day]bool  // days that bytesPerDay is the mean of
	wholeDays    int
	leaving      map[int32]int64 // rows of those days, of devices that are retired
}

// likelyRow is the size of a row, with its index, where no statistics and no time to count tell.
const likelyRow = 150

// rows returns how many rows a day has, estimated.
func (m *measure) rows(d *store.Day) int64 {
	if n, ok := m.counted[d]; ok {
		return n
	}
	if d.Rows >= 0 {
		return d.Rows
	}
	return int64(float64(d.Bytes) / m.bytesPerRow)
}

func (m *measure) isWhole(d *store.Day) bool { return m.whole[d] }

// weigh finds out how much telemetry takes: a row, a day.
func (a *assessment) weigh(ctx context.Context) error {
	m := &a.measure
	m.counted, m.whole, m.leaving, m.bytesPerRow = map[*store.Day]int64{}, map[*store.Day]bool{}, map[int32]int64{}, likelyRow
	// Today's partition is not whole; devices whose clock is ahead make tomorrow's.
	var first time.Time
	var bytes, packed, plain int64
	for i := range a.days {
		d := &a.days[i]
		if d.Compressed && d.PlainBytes > 0 {
			packed, plain = packed+d.Bytes, plain+d.PlainBytes
		}
		if age := a.o.Now.Sub(d.End); age < 0 || age >= week*24*time.Hour {
			continue
		}
		if first.IsZero() {
			first = d.Start
		}
		m.whole[d] = true
		if bytes += d.Bytes; d.Compressed {
			bytes += max(d.PlainBytes-d.Bytes, 0)
		}
	}
	if plain > 0 {
		m.ratio = float64(packed) / float64(plain)
	}
	if !first.IsZero() {
		m.wholeDays = int(a.o.Now.Truncate(24*time.Hour).Sub(first) / (24 * time.Hour))
		m.bytesPerDay = float64(bytes) / float64(max(m.wholeDays, 1))
	}
	ctx, cancel := context.WithTimeout(ctx, a.o.Limit/5)
	defer cancel()
	var rows, size int64
	for i := len(a.days) - 1; i >= 0; i-- { // the newest are those without statistics
		d := &a.days[i]
		n := d.Rows
		if n < 0 {
			var err error
			if n, _, err = a.db.CountDay(ctx, d); store.TimedOut(err) {
				break
			} else if err != nil {
				return err
			}
			m.counted[d] = n
		}
		if m.whole[d] || rows == 0 {
			rows += n
			size += max(d.Bytes, d.PlainBytes)
		}
	}
	if rows > 0 {
		m.bytesPerRow = float64(size) / float64(rows)
	}
	return nil
}

// grow says what becomes of the disk.
func (a *assessment) grow() {
	m := &a.measure
	d := &Disk{Bytes: m.size, BytesPerDay: int64(m.bytesPerDay), young: m.wholeDays == 0}
	added := 0.0 // bytes a day
	relevant := false
	before, after := model{}, model{}
	if r := a.current.Retention; r != nil {
		before.keep, before.compress = r.Raw, r.CompressAfter
	}
	after.keep, after.compress = before.keep, before.compress
	for _, c := range a.changes {
		if c.Action == registry.Release { // it stays as it is
			continue
		}
		switch c.Address.Kind {
		case registry.KindRetention:
			r := retentionOf(c.After)
			after.keep, after.compress = r.Raw, r.CompressAfter
			relevant = relevant || after != before
		case registry.KindDevice:
			if c.Action != registry.Create {
				continue
			}
			v := c.After.(*registry.Device)
			d.DevicesAdded++
			if v.Interval <= 0 || len(v.Parameters) == 0 {
				d.DevicesUnknown++
				continue
			}
			rows := float64(24*time.Hour) / float64(v.Interval)
			values := rows * float64(len(v.Parameters))
			d.ValuesPerDayAdded += int64(values)
			if m.valuesPerRow > 0 {
				added += values * m.bytesPerRow / m.valuesPerRow
			}
		}
	}
	if m.wholeDays > 0 {
		for _, rows := range m.leaving {
			added -= float64(rows) * m.bytesPerRow / float64(m.wholeDays)
		}
	}
	relevant = relevant || int64(added) != 0
	if !relevant || len(a.days) == 0 || m.valuesPerRow == 0 {
		return
	}
	before.growth, after.growth = m.bytesPerDay, max(m.bytesPerDay+added, 0)
	d.BytesPerDayAfter = int64(after.growth)
	d.LevelBefore, d.LevelAfter = a.level(before), a.level(after)
	if d.Capacity, d.CapacitySource = a.o.Disk, a.o.DiskSource; a.o.Free && d.Capacity > 0 {
		d.Capacity += d.Bytes
	}
	if d.Capacity > 0 {
		d.FullBefore, d.FullAfter = a.full(before, d.Capacity), a.full(after, d.Capacity)
	}
	a.report.Disk = d
}

// model is how the database goes on: growth bytes come each day, and are compressed and dropped when they are old enough; 0
// is never.
type model struct {
	growth         float64
	keep, compress time.Duration
}

// size returns the bytes that the database has in some days.
func (a *assessment) size(m model, days int) int64 {
	at := a.o.Now.AddDate(0, 0, days)
	ratio := 1.0
	if a.db != nil && a.db.Compresses() && a.measure.ratio > 0 {
		ratio = a.measure.ratio
	}
	size := float64(a.measure.size)
	for i := range a.days {
		d := &a.days[i]
		switch {
		case m.keep > 0 && d.Expired(at.Add(-m.keep)):
			size -= float64(d.Bytes)
		case !d.Compressed && m.compress > 0 && d.Expired(at.Add(-m.compress)):
			size -= float64(d.Bytes) * (1 - ratio)
		}
	}
	const day = 24 * time.Hour
	there := days // of the days that come, not dropped yet
	if m.keep > 0 {
		there = min(there, int((m.keep+day-1)/day))
	}
	plain := there
	if m.compress > 0 {
		plain = min(plain, int((m.compress+day-1)/day))
	}
	return int64(size + m.growth*(float64(plain)+ratio*float64(there-plain)))
}

// level returns what the database levels off at, 0 when it does not.
func (a *assessment) level(m model) int64 {
	if m.keep == 0 {
		return 0
	}
	return a.size(m, int(m.keep/(24*time.Hour))+2)
}

// full returns the day on which the database reaches a capacity, or no time when it does not within twenty years.
func (a *assessment) full(m model, capacity int64) time.Time {
	const years = 20 * 365
	for days := range years {
		if a.size(m, days) >= capacity {
			return a.o.Now.UTC().Truncate(24*time.Hour).AddDate(0, 0, days)
		}
	}
	return time.Time{}
}
