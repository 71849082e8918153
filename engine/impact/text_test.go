package impact

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

func TestLines(t *testing.T) {
	at := time.Date(2026, 8, 25, 7, 0, 12, 0, time.UTC)
	d := func(days int) time.Time { return at.Truncate(day).AddDate(0, 0, days) }
	press := site.Child(registry.KindDevice, "press-01")
	look := Look{Since: at, Values: 12_400_000, Devices: 40, Of: 40, Complete: true}
	part := Look{Since: at, Values: 3_830_000, Devices: 1, Of: 4000, some: true}
	early := Look{Since: at, Until: d(3), Values: 0, Devices: 1, Of: 1}
	bad := &Impact{}
	(&assessment{impacts: []*Impact{bad}, o: Options{Limit: 5 * time.Second}}).unknown(0, errors.New("permission denied for table alerts"))
	for _, test := range []struct {
		name   string
		impact Impact
		want   string
	}{
		{"retention shortened", Impact{Retention: &Retention{before: 90 * day, after: 30 * day, Rows: 412_345_678, Bytes: 61_234_567_890, Days: 60, First: "2026-08-25", Last: "2026-10-23", Oldest: d(0)}},
			"drops about 412 M rows, 61.2 GB: 60 days, 2026-08-25 to 2026-10-23, at the engine's next hourly run\n" +
				"the ledger and error logs of that time go too"},
		{"one day", Impact{Retention: &Retention{before: 90 * day, after: 30 * day, Rows: 1, RowsExact: true, Bytes: 65536, Days: 1, First: "2026-08-25", Last: "2026-08-25", Oldest: at}},
			"drops 1 row, 65.5 kB: the day 2026-08-25, at the engine's next hourly run\n" +
				"the oldest point that goes is of 2026-08-25T07:00:12Z; the ledger and error logs of that time go too"},
		{"lengthened", Impact{Retention: &Retention{before: 30 * day, after: 90 * day, OldestDay: "2026-08-25", EndsBefore: d(31), EndsAfter: d(91)}},
			"drops nothing now: the oldest day, 2026-08-25, will go on 2026-11-24 rather than 2026-09-25"},
		{"declared", Impact{Retention: &Retention{after: 90 * day, OldestDay: "2026-08-25", EndsAfter: d(91)}},
			"drops nothing now: the oldest day, 2026-08-25, will go on 2026-11-24"},
		{"taken out", Impact{Retention: &Retention{before: 90 * day, OldestDay: "2026-08-25", EndsBefore: d(91)}},
			"drops nothing, now or later: the oldest day, 2026-08-25, would have gone on 2026-11-24"},
		{"no TimescaleDB", Impact{Compression: &Compression{}}, "compresses nothing: this database has no TimescaleDB"},
		{"compression", Impact{Compression: &Compression{Supported: true, Days: 3, Bytes: 2e9, Ratio: 0.08}}, "compresses 3 days, 2 GB, to about 160 MB"},
		{"first compression", Impact{Compression: &Compression{Supported: true, Days: 1, Bytes: 1234}}, "compresses 1 day, 1.23 kB"},
		{"compression of nothing", Impact{Compression: &Compression{Supported: true}}, "compresses nothing now: no day is that old that is not compressed already"},
		{"later compression", Impact{Compression: &Compression{Supported: true, longer: true}}, "what is compressed stays so; what comes is compressed later, or not at all"},
		{"device retired", Impact{Action: registry.Delete, Device: &Device{Rows: 1234, RowsExact: true, Bytes: 182_000, Oldest: at, Newest: d(90), KeptUntil: d(181), Alerts: 2}},
			"holds 1,234 rows, about 182 kB, from 2026-08-25T07:00:12Z to 2026-11-23T00:00:00Z; they stay until retention ends them, the last on 2027-02-22\n" +
				"2 open alerts of it will be resolved: it is gone"},
		{"device returns", Impact{Action: registry.Create, Device: &Device{Rows: 1_999_999, Newest: d(90), Bytes: 999_600}},
			"returns to about 2 M rows, about 1 MB, up to 2026-11-23T00:00:00Z; they stay for ever"},
		{"device moves", Impact{Action: registry.Move, Device: &Device{Rows: 1, RowsExact: true, Newest: at, Oldest: at, Bytes: 5, KeptUntil: d(91)}},
			"takes along 1 row, about 5 B, from 2026-08-25T07:00:12Z to 2026-08-25T07:00:12Z; it stays until retention ends it on 2026-11-24"},
		{"parameter", Impact{Parameter: &Parameter{Look: look, Outside: 431, OutsideDevices: 1, OutsideBefore: 2, to: &registry.Parameter{OnViolation: registry.Reject}}},
			"431 of 12.4 M values since 2026-08-25T07:00Z are outside on 1 device (2 as it is); such values will be refused, with all of their event"},
		{"parameter, in part", Impact{Parameter: &Parameter{Look: part, to: &registry.Parameter{OnViolation: registry.Flag}}},
			"0 of 3.83 M values since 2026-08-25T07:00Z are outside (0 as it is); such values will be stored as uncertain\n" +
				"there was time to look at the history since 2026-08-25T07:00Z only, of 1 of 4,000 devices"},
		{"parameter, not to the end", Impact{Parameter: &Parameter{Look: early, to: &registry.Parameter{OnViolation: registry.Accept}}},
			"0 of 0 values since 2026-08-25T07:00Z are outside (0 as it is); such values will be stored as sent\n" +
				"there was time to look at the history from 2026-08-25T07:00Z to 2026-08-28T00:00Z only"},
		{"parameter retired", Impact{Parameter: &Parameter{Senders: 1}},
			"1 device sent it within the last 24 hours: each event that has it will be refused; its history stays"},
		{"threshold", Impact{Threshold: &Threshold{Look: look, action: registry.Create, Fires: 37, FiredDevices: 4, LastFired: at, LastDevice: press, Starting: 3, StartingOn: []registry.Address{press}, hold: "5m"}},
			"3 alerts would start firing, if values stay as they are for 5m: device.acme/mill/north/press-01, and 2 more\n" +
				"would have fired 37 times on 4 devices since 2026-08-25T07:00Z (12.4 M values), last on device.acme/mill/north/press-01 at 2026-08-25T07:00:12Z"},
		{"threshold changed", Impact{Threshold: &Threshold{Look: part, action: registry.Update, Fires: 1, FiresBefore: 12, FiredDevices: 1, LastFired: at, LastDevice: press, Stopping: 1}},
			"1 alert that is firing would stop\n" +
				"would have fired at least 1 time on 1 device since 2026-08-25T07:00Z (3.83 M values), 12 times as it is, last on device.acme/mill/north/press-01 at 2026-08-25T07:00:12Z\n" +
				"there was time to look at the history since 2026-08-25T07:00Z only, of 1 of 4,000 devices"},
		{"threshold removed", Impact{Threshold: &Threshold{Look: look, action: registry.Delete}},
			"would have fired 0 times since 2026-08-25T07:00Z (12.4 M values) as it is"},
		{"not known", *bad, "the effect on data is not known: permission denied for table alerts"},
	} {
		if got := strings.Join(test.impact.Lines(), "\n"); got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
}

func TestSummary(t *testing.T) {
	date := func(s string) time.Time {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, test := range []struct {
		report Report
		want   string
	}{
		{Report{}, ""},
		{Report{RowsDropped: 412_000_000, BytesDropped: 61_000_000_000, AlertsStarting: 3}, "Data: drops about 412 M rows, 61 GB; 3 alerts would start firing."},
		{Report{RowsExact: true, RowsDropped: 1, AlertsStarting: 1, AlertsStopping: 2}, "Data: drops 1 row, 0 B; 1 alert would start firing, 2 would stop."},
		{Report{AlertsStopping: 2, Changes: []*Impact{{Unknown: "x"}}}, "Data: 2 alerts would stop firing; the effect of 1 change is not known."},
		{Report{Disk: &Disk{Bytes: 61e9, BytesPerDay: 12e8, BytesPerDayAfter: 14e8}}, "Disk: 61 GB now; about 1.2 GB -> 1.4 GB a day; never levels off."},
		{Report{Disk: &Disk{Bytes: 61e9, BytesPerDay: 12e8, BytesPerDayAfter: 12e8, LevelAfter: 42e9, Capacity: 2e11, CapacitySource: "-disk", FullBefore: date("2027-03-02")}},
			"Disk: 61 GB now; about 1.2 GB a day; levels off never -> at 42 GB; full 2027-03-02 -> never (-disk: 200 GB)."},
		{Report{Disk: &Disk{Bytes: 987e4, BytesPerDayAfter: 133e5, young: true}},
			"Disk: 9.87 MB now; about 0 B -> 13.3 MB a day; never levels off. No whole day is stored yet, so that what the devices of today send is not counted."},
		{Report{Disk: &Disk{LevelBefore: 1, LevelAfter: 1, DevicesAdded: 3, DevicesUnknown: 1, ValuesPerDayAdded: 17280}},
			"Disk: 0 B now; about 0 B a day; levels off at 1 B. Of that, 2 new devices will send about 17,280 values a day beside 1 device without a declared interval and parameters."},
	} {
		if got := test.report.Summary(); got != test.want {
			t.Errorf("got\n%s\nwant\n%s", got, test.want)
		}
	}
}

func TestScaled(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 1234: "1.23 kB", 9_995: "10 kB", 99_949: "99.9 kB", 99_950: "100 kB", 999_499: "999 kB",
		999_500: "1 MB", 12_345_678: "12.3 MB", 5e18: "5000 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 999_999: "999,999", 1_000_000: "1 M", 999_999_999: "1 G", 123_456_789_012: "123 G"} {
		if got := count(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
