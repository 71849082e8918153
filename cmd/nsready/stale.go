package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// staleView is what devices stale -json prints.
type staleView struct {
	FormatVersion string              `json:"format_version"`
	Gateways      []silentGateway     `json:"gateways"` // those with the most devices behind them first
	Series        []store.StaleSeries `json:"series"`   // all that are stale, of gateways and of what is behind them, too
}

// silentGateway is one through which silent devices are reached.
type silentGateway struct {
	DeviceID uuid.UUID        `json:"device_id"`
	Device   registry.Address `json:"device"`
	Behind   int              `json:"devices_behind"`
}

// staleWhere is the value of -where.
type staleWhere struct {
	text   string
	filter store.StaleFilter
}

func (w *staleWhere) String() string { return w.text }

func (w *staleWhere) Set(text string) error {
	w.text, w.filter = text, store.StaleFilter{}
	return eachCondition(text, func(key, value string) error {
		switch key {
		case "customer":
			w.filter.Customer = value
		case "project":
			w.filter.Project = value
		case "site":
			w.filter.Site = value
		default:
			return fmt.Errorf("there is no condition %q: want customer, project or site", key)
		}
		return nil
	})
}

func runDevicesStale(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "devices stale [flags]", `
List the series of active devices whose newest value is too old: older than stale_after of the parameter, or of the device's
override, or else than three intervals. Silent gateways come first, each with the number of silent devices behind it, which
are not listed themselves but with -json. The exit code is 0 when no series is stale, 2 when some are, and 1 when that could
not be found out.

Example:
  nsready devices stale -where customer="Acme Mills",site=north`)
	var t target
	t.registerDatabase(f)
	var where staleWhere
	f.Var(&where, "where", "`CONDITIONS`, separated by commas, that must all hold: customer=NAME, project=NAME, site=NAME;\na value with a comma goes in double quotes")
	asJSON := f.json("print the series as JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	series, err := db.Stale(ctx, where.filter)
	if err != nil {
		return err
	}
	v := viewStale(series)
	if *asJSON {
		err = writeJSON(s.stdout, v)
	} else {
		err = printStale(s.stdout, v)
	}
	if err == nil && len(series) > 0 {
		return exit(exitNo)
	}
	return err
}

func viewStale(series []store.StaleSeries) staleView {
	v := staleView{FormatVersion: formatVersion, Gateways: []silentGateway{}, Series: append([]store.StaleSeries{}, series...)}
	at := map[uuid.UUID]int{}
	last := uuid.Nil
	for i := range series {
		s := &series[i]
		if s.Via == nil || s.DeviceID == last {
			continue
		}
		last = s.DeviceID
		if _, known := at[*s.Via]; !known {
			at[*s.Via] = len(v.Gateways)
			v.Gateways = append(v.Gateways, silentGateway{DeviceID: *s.Via, Device: s.ViaAddress})
		}
		v.Gateways[at[*s.Via]].Behind++
	}
	slices.SortStableFunc(v.Gateways, func(a, b silentGateway) int { return b.Behind - a.Behind })
	return v
}

// printStale writes a line for each gateway, each silent device that is behind none, and each stale series of others.
func printStale(w io.Writer, v staleView) error {
	var out bytes.Buffer
	if len(v.Series) == 0 {
		fmt.Fprintln(&out, "No series is stale.")
		_, err := w.Write(out.Bytes())
		return err
	}
	gateways, newest := map[uuid.UUID]bool{}, map[uuid.UUID]*store.StaleSeries{}
	for _, g := range v.Gateways {
		gateways[g.DeviceID] = true
	}
	for i := range v.Series {
		s := &v.Series[i]
		if was := newest[s.DeviceID]; was == nil || was.Age == nil || s.Age != nil && *s.Age < *was.Age {
			newest[s.DeviceID] = s
		}
	}
	lines := [][]string{{"device", "stale", "last value"}}
	behind, devices, series := 0, 0, 0
	for _, g := range v.Gateways {
		behind += g.Behind
		last := "not known"
		if s := newest[g.DeviceID]; s != nil {
			last = lastValue(s, true)
		}
		lines = append(lines, []string{clean(g.Device.Path), fmt.Sprintf("silent gateway, %d %s behind it", g.Behind, plural(g.Behind, "device")), last})
	}
	said := map[uuid.UUID]bool{}
	for i := range v.Series {
		switch s := &v.Series[i]; {
		case gateways[s.DeviceID] || s.Via != nil:
		case !s.Silent:
			series++
			lines = append(lines, []string{clean(s.Device.Path), clean(s.Parameter), lastValue(s, false)})
		case !said[s.DeviceID]:
			said[s.DeviceID] = true
			devices++
			lines = append(lines, []string{clean(s.Device.Path), "silent", lastValue(newest[s.DeviceID], true)})
		}
	}
	wide := [2]int{}
	for _, line := range lines {
		for i := range wide {
			wide[i] = max(wide[i], len([]rune(line[i])))
		}
	}
	for _, line := range lines {
		text := fmt.Sprintf("%-*s  %-*s  %s", wide[0], line[0], wide[1], line[1], line[2])
		fmt.Fprintln(&out, strings.TrimRight(text, " "))
	}
	fmt.Fprintf(&out, "\nSilent: %d %s with %d %s behind, and %d other %s. Stale beside these: %d series.\n",
		len(v.Gateways), plural(len(v.Gateways), "gateway"), behind, plural(behind, "device"), devices, plural(devices, "device"), series)
	_, err := w.Write(out.Bytes())
	return err
}

// lastValue says when the newest value of a series came, and what it was.
func lastValue(s *store.StaleSeries, named bool) string {
	if s.Age == nil {
		return "never"
	}
	text := time.Duration(*s.Age*float64(time.Second)).Truncate(time.Second).String() + " ago"
	if s.Value != nil {
		value := strings.TrimRight(shownValue(*s.Value, s.Precision)+" "+s.Unit, " ")
		if named {
			value = s.Parameter + " " + value
		}
		text += ", " + clean(value)
	}
	return text
}
