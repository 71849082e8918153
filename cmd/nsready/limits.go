package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// limitView is a limit on events, where it is declared, and how far it is used.
type limitView struct {
	Address   registry.Address `json:"address"` // of the device, or of the customer, for all its devices together
	Rate      registry.Rate    `json:"limit"`
	From      string           `json:"from"`                          // the address of what declares it, or "default"
	Declared  float64          `json:"declared_per_second,omitempty"` // events that follow from the intervals
	PerSecond float64          `json:"stored_per_second"`             // events whose time is in the span that was looked at
	Used      float64          `json:"used"`                          // stored_per_second of the limit's events_per_second
}

// limitsView is what limits explain -json and limits top -json print.
type limitsView struct {
	FormatVersion string      `json:"format_version"`
	Since         time.Time   `json:"since"`
	Limits        []limitView `json:"limits"`
}

var limitsCommands = []command{
	{"explain", "show which limits hold for a device or customer, where they are declared, and how far they are used", runLimitsExplain},
	{"top", "show who comes nearest to its limit", runLimitsTop},
}

func runLimits(ctx context.Context, s *streams, args []string) error {
	return runSub(ctx, s, args, "limits", "Limits say how many events a device, and all devices of a customer together, may send.", "nsready limits explain press-01", limitsCommands)
}

// limitsFlags are what both commands have.
type limitsFlags struct {
	target
	since string
	json  *bool
}

func (l *limitsFlags) register(f *flags) {
	l.registerDatabase(f)
	f.StringVar(&l.since, "since", "5m", "over how long to count stored events: a `time` such as 5m or 24h")
	l.json = f.json("print JSON")
}

func runLimitsExplain(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "limits explain [flags] NAME", `
Show how many events a device, and all devices of its customer together, may send, which declaration says so, what they
would send by their intervals, and what was stored of them. More is refused with 429 and the code rate_limited_device or
rate_limited_customer. NAME is a device's external id, its UUID, or an address: device.acme/mill/north/press-01, customer.acme.

Example:
  nsready limits explain -since 1h device.acme/mill/north/press-01`)
	var l limitsFlags
	l.register(f)
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("of whom? Name a device or a customer: nsready limits explain NAME")
	}
	return l.run(ctx, s, func(ctx context.Context, db *store.Store, use *usage) ([]limitView, error) {
		device, customer, err := findSender(use.registry, rest[0])
		if err != nil {
			return nil, err
		}
		if err := use.count(ctx, db); err != nil {
			return nil, err
		}
		list := []limitView{use.customer(customer)}
		if device != nil {
			list = slices.Insert(list, 0, use.device(device))
		}
		return list, nil
	})
}

func runLimitsTop(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "limits top [flags]", `
Show the devices and customers that come nearest to their limit, by the events that were stored of them. What was refused
is counted in the metric nsready_rate_limited_events_total.

Example:
  nsready limits top -since 1h -n 5`)
	var l limitsFlags
	l.register(f)
	most := f.Int("n", 20, "how `many` to show")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if *most < 1 {
		return fmt.Errorf("-n: want 1 or more, not %d", *most)
	}
	return l.run(ctx, s, func(ctx context.Context, db *store.Store, use *usage) ([]limitView, error) {
		if err := use.count(ctx, db); err != nil {
			return nil, err
		}
		var list []limitView
		for _, d := range use.registry.Devices {
			if use.events[d.ID] > 0 && !d.Retired {
				list = append(list, use.device(d))
			}
		}
		for _, c := range use.registry.Customers {
			if v := use.customer(c); v.PerSecond > 0 && !c.Retired {
				list = append(list, v)
			}
		}
		slices.SortStableFunc(list, func(a, b limitView) int { return cmp.Compare(b.Used, a.Used) })
		return list[:min(len(list), *most)], nil
	})
}

// run reads the registry, and prints what work finds.
func (l *limitsFlags) run(ctx context.Context, s *streams, work func(context.Context, *store.Store, *usage) ([]limitView, error)) error {
	now := time.Now()
	since, err := parseMoment(l.since, now)
	if err == nil && !since.Before(now) {
		err = fmt.Errorf("want a time that has passed, not %q", l.since)
	}
	if err != nil {
		return fmt.Errorf("-since: %w", err)
	}
	db, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	progress := s.progress("Reading the registry")
	current, err := db.LoadRegistry(ctx)
	var list []limitView
	if err == nil {
		progress.now("Counting events")
		list, err = work(ctx, db, &usage{registry: current, since: since, until: now})
	}
	progress.stop()
	if err != nil {
		return err
	}
	if *l.json {
		return writeJSON(s.stdout, limitsView{formatVersion, since.UTC(), append([]limitView{}, list...)})
	}
	return printLimits(s.stdout, list, since)
}

// findSender finds what limits explain names: a customer, or a device with its customer; device is nil for a customer.
func findSender(current *registry.Snapshot, name string) (*registry.Device, *registry.Customer, error) {
	device := current.DeviceByExternalID(name)
	if id, err := uuid.Parse(name); err == nil && device == nil {
		device = current.Device(id)
	}
	of := ""
	if a, err := registry.ParseAddress(name); err == nil && device == nil {
		if a.Kind == registry.KindCustomer {
			of = a.Path
		}
		if i := slices.IndexFunc(current.Devices, func(d *registry.Device) bool { return d.Addr == a }); i >= 0 {
			device = current.Devices[i]
		}
	}
	if device != nil {
		of, _, _ = strings.Cut(device.Addr.Path, "/")
	}
	i := slices.IndexFunc(current.Customers, func(c *registry.Customer) bool { return of != "" && c.Addr.Path == of })
	if i < 0 {
		return nil, nil, fmt.Errorf("there is no device with the external id, UUID or address %q, and no such customer", name)
	}
	return device, current.Customers[i], nil
}

// usage is how far limits are used.
type usage struct {
	registry     *registry.Snapshot
	since, until time.Time
	events       map[uuid.UUID]int64           // stored, by device
	customers    map[string]*registry.Customer // by path
	sums         map[string]sending            // the same
}

// sending is how many events a second come, by what is stored and by what is declared.
type sending struct{ stored, declared float64 }

// count counts what is stored.
func (u *usage) count(ctx context.Context, db *store.Store) (err error) {
	u.events, err = db.EventsByDevice(ctx, u.since, u.until)
	u.customers, u.sums = map[string]*registry.Customer{}, map[string]sending{}
	for _, c := range u.registry.Customers {
		u.customers[c.Addr.Path] = c
	}
	for _, d := range u.registry.Devices {
		customer, _, _ := strings.Cut(d.Addr.Path, "/")
		sum, of := u.sums[customer], u.of(d)
		u.sums[customer] = sending{sum.stored + of.stored, sum.declared + of.declared}
	}
	return err
}

func (u *usage) of(d *registry.Device) (s sending) {
	s.stored = float64(u.events[d.ID]) / u.until.Sub(u.since).Seconds()
	if d.Interval > 0 && !d.Retired {
		s.declared = float64(time.Second) / float64(d.Interval)
	}
	return s
}

func (u *usage) device(d *registry.Device) limitView {
	path, _, _ := strings.Cut(d.Addr.Path, "/")
	customer := u.customers[path]
	_, rate := u.registry.EffectiveLimits().Of(customer)
	return u.view(d.Addr, d.Own(rate), u.of(d), d.Rate, declaredAt{customer.DeviceRate, customer.Addr}, declaredAt{u.top().Device, registry.LimitsAddress})
}

func (u *usage) customer(c *registry.Customer) limitView {
	rate, _ := u.registry.EffectiveLimits().Of(c)
	return u.view(c.Addr, rate, u.sums[c.Addr.Path], c.Rate, declaredAt{u.top().Customer, registry.LimitsAddress})
}

// top returns the limits that are declared for all.
func (u *usage) top() registry.Limits {
	if u.registry.Limits == nil {
		return registry.Limits{}
	}
	return *u.registry.Limits
}

// declaredAt is a rate and what would declare it.
type declaredAt struct {
	rate registry.Rate
	at   registry.Address
}

// view tells of a limit. own is what the object itself declares; others may declare it in its stead.
func (u *usage) view(a registry.Address, rate registry.Rate, s sending, own registry.Rate, others ...declaredAt) limitView {
	v := limitView{Address: a, Rate: rate, From: "default", Declared: s.declared, PerSecond: s.stored, Used: s.stored / rate.PerSecond}
	for _, d := range append([]declaredAt{{own, a}}, others...) {
		if d.rate.Valid() {
			v.From = d.at.String()
			break
		}
	}
	return v
}

func printLimits(w io.Writer, list []limitView, since time.Time) error {
	var out bytes.Buffer
	if len(list) == 0 {
		fmt.Fprintf(&out, "No events are stored since %s.\n", since.UTC().Format(time.RFC3339))
	}
	for _, v := range list {
		what := ""
		if v.Address.Kind == registry.KindCustomer {
			what = ", all its devices together"
		}
		fmt.Fprintf(&out, "%s%s\n", clean(v.Address.String()), what)
		fmt.Fprintf(&out, "  may send  %s events a second, %s at once (%s)\n", rate(v.Rate.PerSecond), grouped(v.Rate.Burst), clean(v.From))
		fmt.Fprintf(&out, "  stored    %s events a second since %s, %s of it\n", rate(v.PerSecond), since.UTC().Format(time.RFC3339), percent(v.Used))
		if v.Declared > 0 {
			fmt.Fprintf(&out, "  declared  %s events a second by interval, %s of it\n", rate(v.Declared), percent(v.Declared/v.Rate.PerSecond))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// rate writes a number of events a second: whole when it is large, else with three digits.
func rate(f float64) string {
	if f >= 1000 {
		return grouped(int64(f + 0.5))
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

func percent(f float64) string { return rate(100*f) + " %" }
