package impact

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// Lines say the impact of a change for people, a statement each. Names in them are as the registry has them.
func (im *Impact) Lines() (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if r := im.Retention; r != nil {
		r.lines(say)
	}
	if c := im.Compression; c != nil {
		c.lines(say)
	}
	if d := im.Device; d != nil {
		d.lines(say, im.Action)
	}
	if p := im.Parameter; p != nil {
		p.lines(say)
	}
	if t := im.Threshold; t != nil {
		t.lines(say)
	}
	if im.Unknown != "" {
		say("the effect on data is not known: %s", im.Unknown)
	}
	return lines
}

func (r *Retention) lines(say func(string, ...any)) {
	switch {
	case r.Days > 0:
		days := "the day " + r.First
		if r.Days > 1 {
			days = fmt.Sprintf("%d days, %s to %s", r.Days, r.First, r.Last)
		}
		say("drops %s, %s: %s, at the engine's next hourly run", number(r.Rows, "row", r.RowsExact), Bytes(r.Bytes), days)
		if r.RowsExact && r.Rows > 0 {
			say("the oldest point that goes is of %s; the ledger and error logs of that time go too", r.Oldest.Format(time.RFC3339))
		} else {
			say("the ledger and error logs of that time go too")
		}
	case r.after == 0:
		say("drops nothing, now or later: the oldest day, %s, would have gone on %s", r.OldestDay, r.EndsBefore.Format(time.DateOnly))
	case r.before == 0:
		say("drops nothing now: the oldest day, %s, will go on %s", r.OldestDay, r.EndsAfter.Format(time.DateOnly))
	default:
		say("drops nothing now: the oldest day, %s, will go on %s rather than %s", r.OldestDay, r.EndsAfter.Format(time.DateOnly), r.EndsBefore.Format(time.DateOnly))
	}
}

func (c *Compression) lines(say func(string, ...any)) {
	switch {
	case !c.Supported:
		say("compresses nothing: this database has no TimescaleDB")
	case c.longer:
		say("what is compressed stays so; what comes is compressed later, or not at all")
	case c.Days == 0:
		say("compresses nothing now: no day is that old that is not compressed already")
	case c.Ratio > 0:
		say("compresses %s, %s, to about %s", plural(int64(c.Days), "day"), Bytes(c.Bytes), Bytes(int64(float64(c.Bytes)*c.Ratio)))
	default:
		say("compresses %s, %s", plural(int64(c.Days), "day"), Bytes(c.Bytes))
	}
}

func (d *Device) lines(say func(string, ...any), action registry.Action) {
	verb := map[registry.Action]string{registry.Delete: "holds", registry.Create: "returns to", registry.Move: "takes along", registry.Import: "takes along"}[action]
	if d.Rows > 0 {
		span := "up to " + d.Newest.Format(time.RFC3339)
		if !d.Oldest.IsZero() {
			span = fmt.Sprintf("from %s to %s", d.Oldest.Format(time.RFC3339), d.Newest.Format(time.RFC3339))
		}
		stay, end := "they stay ", "until retention ends them, the last on "
		if d.Rows == 1 {
			stay, end = "it stays ", "until retention ends it on "
		}
		if d.KeptUntil.IsZero() {
			stay += "for ever"
		} else {
			stay += end + d.KeptUntil.Format(time.DateOnly)
		}
		say("%s %s, about %s, %s; %s", verb, number(d.Rows, "row", d.RowsExact), Bytes(d.Bytes), span, stay)
	}
	if d.Alerts > 0 {
		why := "it is gone"
		if action == registry.Move || action == registry.Import {
			why = "their thresholds are the project's that it leaves"
		}
		say("%s of it will be resolved: %s", plural(int64(d.Alerts), "open alert"), why)
	}
}

func (p *Parameter) lines(say func(string, ...any)) {
	if p.to == nil {
		if p.Senders > 0 {
			say("%s sent it within the last 24 hours: each event that has it will be refused; its history stays", plural(int64(p.Senders), "device"))
		}
		return
	}
	what := map[registry.Violation]string{
		registry.Flag: "stored as uncertain", registry.Reject: "refused, with all of their event", registry.Accept: "stored as sent",
	}[p.to.OnViolation]
	on := ""
	if p.Outside > 0 {
		on = " on " + plural(int64(p.OutsideDevices), "device")
	}
	say("%s of %s since %s are outside%s (%s as it is); such values will be %s", count(p.Outside), plural(p.Values, "value"), p.Look.since(), on, count(p.OutsideBefore), what)
	p.Look.lines(say)
}

func (t *Threshold) lines(say func(string, ...any)) {
	if t.Starting > 0 {
		names := make([]string, len(t.StartingOn))
		for i, a := range t.StartingOn {
			names[i] = a.String()
		}
		if n := t.Starting - len(names); n > 0 {
			names = append(names, "and "+count(int64(n))+" more")
		}
		hold := ""
		if t.hold != "" {
			hold = ", if values stay as they are for " + t.hold
		}
		say("%s would start firing%s: %s", plural(int64(t.Starting), "alert"), hold, strings.Join(names, ", "))
	}
	if t.Stopping > 0 {
		are := "are"
		if t.Stopping == 1 {
			are = "is"
		}
		say("%s that %s firing would stop", plural(int64(t.Stopping), "alert"), are)
	}
	if t.Of == 0 {
		return
	}
	fires, as := t.Fires, ""
	verb := "would have fired"
	switch t.action {
	case registry.Delete:
		fires, as = t.FiresBefore, " as it is"
	case registry.Update:
		as = fmt.Sprintf(", %s as it is", plural(int64(t.FiresBefore), "time"))
	}
	if !t.Complete {
		verb += " at least"
	}
	last := ""
	if fires > 0 && !t.LastFired.IsZero() {
		last = fmt.Sprintf(", last on %s at %s", t.LastDevice, t.LastFired.Format(time.RFC3339))
	}
	on := ""
	if t.FiredDevices > 0 {
		on = " on " + plural(int64(t.FiredDevices), "device")
	}
	say("%s %s%s since %s (%s)%s%s", verb, plural(int64(fires), "time"), on, t.Look.since(), plural(t.Values, "value"), as, last)
	t.Look.lines(say)
}

func (l *Look) since() string { return l.Since.Format(minute) }

// lines say what was not looked at.
func (l *Look) lines(say func(string, ...any)) {
	if l.Complete {
		return
	}
	span, of := "since "+l.since(), ""
	if !l.Until.IsZero() {
		span = fmt.Sprintf("from %s to %s", l.since(), l.Until.Format(minute))
	}
	if l.some {
		of = fmt.Sprintf(", of %s of %s", count(int64(l.Devices)), plural(int64(l.Of), "device"))
	}
	say("there was time to look at the history %s only%s", span, of)
}

const minute = "2006-01-02T15:04Z"

// Summary says what the plan does to data, in sentences; "" when that is nothing.
func (r *Report) Summary() string {
	var parts []string
	if r.RowsDropped > 0 {
		parts = append(parts, fmt.Sprintf("drops %s, %s", number(r.RowsDropped, "row", r.RowsExact), Bytes(r.BytesDropped)))
	}
	switch {
	case r.AlertsStarting > 0 && r.AlertsStopping > 0:
		parts = append(parts, fmt.Sprintf("%s would start firing, %s would stop", plural(int64(r.AlertsStarting), "alert"), count(int64(r.AlertsStopping))))
	case r.AlertsStarting > 0:
		parts = append(parts, plural(int64(r.AlertsStarting), "alert")+" would start firing")
	case r.AlertsStopping > 0:
		parts = append(parts, plural(int64(r.AlertsStopping), "alert")+" would stop firing")
	}
	unknown := 0
	for _, im := range r.Changes {
		if im.Unknown != "" {
			unknown++
		}
	}
	if unknown > 0 {
		parts = append(parts, fmt.Sprintf("the effect of %s is not known", plural(int64(unknown), "change")))
	}
	var lines []string
	if len(parts) > 0 {
		lines = append(lines, "Data: "+strings.Join(parts, "; ")+".")
	}
	if r.Disk != nil {
		lines = append(lines, r.Disk.String())
	}
	return strings.Join(lines, "\n")
}

// String says what becomes of the disk.
func (d *Disk) String() string {
	parts := []string{Bytes(d.Bytes) + " now"}
	change := func(before, after string) string {
		if before == after {
			return before
		}
		return before + " -> " + after
	}
	parts = append(parts, "about "+change(Bytes(d.BytesPerDay), Bytes(d.BytesPerDayAfter))+" a day")
	level := func(bytes int64) string {
		if bytes == 0 {
			return "never"
		}
		return "at " + Bytes(bytes)
	}
	if d.LevelBefore == 0 && d.LevelAfter == 0 {
		parts = append(parts, "never levels off")
	} else {
		parts = append(parts, "levels off "+change(level(d.LevelBefore), level(d.LevelAfter)))
	}
	if d.Capacity > 0 {
		day := func(t time.Time) string {
			if t.IsZero() {
				return "never"
			}
			return t.Format(time.DateOnly)
		}
		parts = append(parts, fmt.Sprintf("full %s (%s: %s)", change(day(d.FullBefore), day(d.FullAfter)), d.CapacitySource, Bytes(d.Capacity)))
	}
	text := "Disk: " + strings.Join(parts, "; ") + "."
	beside := ""
	if d.DevicesUnknown > 0 {
		beside = fmt.Sprintf(" beside %s without a declared interval and parameters", plural(int64(d.DevicesUnknown), "device"))
	}
	if known := d.DevicesAdded - d.DevicesUnknown; known > 0 {
		text += fmt.Sprintf(" Of that, %s will send about %s a day%s.", plural(int64(known), "new device"), plural(d.ValuesPerDayAdded, "value"), beside)
	} else if d.DevicesUnknown > 0 {
		text += fmt.Sprintf(" What %s will send is not known: no interval or no parameters are declared.", plural(int64(d.DevicesUnknown), "new device"))
	}
	if d.young {
		text += " No whole day is stored yet, so that what the devices of today send is not counted."
	}
	return text
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}

func number(n int64, noun string, exact bool) string {
	if exact {
		return plural(n, noun)
	}
	return "about " + plural(n, noun)
}

// count writes a number: below a million all of it, above its first three digits.
func count(n int64) string {
	if n < 1_000_000 {
		s := strconv.FormatInt(n, 10)
		if n >= 1000 {
			s = s[:len(s)-3] + "," + s[len(s)-3:]
		}
		return s
	}
	return scaled(n/1000, "k", "M", "G", "T")
}

// Bytes writes a size in units of 1000.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	return scaled(n, "B", "kB", "MB", "GB", "TB", "PB")
}

// scaled writes a number with three digits at most, in the unit that fits.
func scaled(n int64, units ...string) string {
	v, i := float64(n), 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	digits := 0
	switch {
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if digits > 0 {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " " + units[i]
}
