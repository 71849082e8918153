package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// devicesCommands are the subcommands of devices, in the order of its help.
var devicesCommands = []command{
	{"stale", "list series whose newest value is too old, and silent gateways", runDevicesStale},
	{"pending", "list devices that are not registered and of which events are held", runDevicesPending},
}

func runDevices(ctx context.Context, s *streams, args []string) error {
	return runSub(ctx, s, args, "devices", "What devices do, apart from what is declared of them.", "nsready devices stale", devicesCommands)
}

// pendingView is what devices pending -json prints.
type pendingView struct {
	FormatVersion string          `json:"format_version"`
	Declared      bool            `json:"declared"` // whether events of unknown devices are held
	Devices       []pendingDevice `json:"devices"`
}

type pendingDevice struct {
	store.PendingDevice
	Site *registry.Address `json:"site"` // that its newest event names; null when that is not known
}

func runDevicesPending(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "devices pending [flags]", `
List devices that are not registered and of which events are held, because the declaration has a discovery block. The one
that was seen last comes first. Once a device is registered, what is held of it is stored by itself. To be rid of what is
held of one: nsready dlq purge -where reason=pending_device,device=DEVICE

Example:
  nsready devices pending -as-hcl`)
	var t target
	t.registerDatabase(f)
	asJSON := f.json("print JSON")
	asHCL := f.Bool("as-hcl", false, "print device blocks, to be pasted into their sites")
	limit := f.Int("limit", 1000, "the most to list")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	switch {
	case *asJSON && *asHCL:
		return errors.New("-json and -as-hcl exclude each other")
	case *limit < 1:
		return errors.New("-limit: want 1 or more")
	}
	db, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	live, err := db.LoadRegistry(ctx)
	if err != nil {
		return err
	}
	list, err := db.PendingDevices(ctx, *limit)
	if err != nil {
		return err
	}
	if len(list) == *limit {
		fmt.Fprintf(s.stderr, "There may be more than these %d: list them with -limit.\n", len(list))
	}
	v := viewPending(live, list)
	switch {
	case *asJSON:
		return writeJSON(s.stdout, v)
	case *asHCL:
		return writePending(s.stdout, live, v.Devices)
	}
	return printPending(s.stdout, v)
}

// viewPending names the sites.
func viewPending(live *registry.Snapshot, list []store.PendingDevice) pendingView {
	sites := map[uuid.UUID]*registry.Address{}
	for _, site := range live.Sites {
		sites[site.ID] = &site.Addr
	}
	v := pendingView{FormatVersion: formatVersion, Declared: live.Discovery != nil, Devices: []pendingDevice{}}
	for _, d := range list {
		p := pendingDevice{PendingDevice: d}
		if d.SiteID != nil {
			p.Site = sites[*d.SiteID]
		}
		v.Devices = append(v.Devices, p)
	}
	return v
}

func printPending(w io.Writer, v pendingView) error {
	var out bytes.Buffer
	if len(v.Devices) == 0 {
		fmt.Fprintln(&out, "No devices wait to be registered.")
		if !v.Declared {
			fmt.Fprintln(&out, "Events of devices that are not registered are refused: with a discovery block in the declaration they are held.")
		}
	} else {
		wide := len("device")
		for i := range v.Devices {
			wide = max(wide, len([]rune(clean(v.Devices[i].Device))))
		}
		fmt.Fprintf(&out, "%-*s  %8s  %-20s  %-20s  %-10s  %s\n", wide, "device", "events", "first seen", "last seen", "protocol", "site and parameters")
		for i := range v.Devices {
			d := &v.Devices[i]
			where := "(unknown)"
			if d.Site != nil {
				where = clean(d.Site.Path)
			}
			fmt.Fprintf(&out, "%-*s  %8d  %-20s  %-20s  %-10s  %s: %s\n", wide, clean(d.Device), d.Events, d.FirstSeen.Format(time.RFC3339), d.LastSeen.Format(time.RFC3339),
				clean(d.Protocol), where, clean(fewOf(config.ShortNames(d.Parameters))))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// fewOf lists the first of many names.
func fewOf(names []string) string {
	const most = 8
	if more := len(names) - most; more > 0 {
		names = append(names[:most:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// writePending writes blocks, site by site; those whose site is not known come last.
func writePending(w io.Writer, live *registry.Snapshot, list []pendingDevice) error {
	taken := map[string]map[string]bool{} // names, by site
	for _, d := range live.Devices {
		site := d.Addr.ParentPath()
		if taken[site] == nil {
			taken[site] = map[string]bool{}
		}
		taken[site][d.Addr.Name()] = true
	}
	path := func(d pendingDevice) string {
		if d.Site == nil {
			return ""
		}
		return d.Site.Path
	}
	slices.SortStableFunc(list, func(a, b pendingDevice) int {
		known := func(d pendingDevice) int {
			if d.Site == nil {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(known(a), known(b)), cmp.Compare(path(a), path(b)), cmp.Compare(a.Device, b.Device))
	})
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "# No devices wait to be registered.")
		return err
	}
	for i := 0; i < len(list); {
		site := path(list[i])
		if taken[site] == nil {
			taken[site] = map[string]bool{}
		}
		var part []config.Newcomer
		for ; i < len(list) && path(list[i]) == site; i++ {
			part = append(part, newcomer(&list[i], taken[site]))
		}
		head := "# For site." + clean(site)
		if site == "" {
			head = "# For the sites that they are in, which they do not tell"
		}
		if _, err := fmt.Fprintf(w, "%s:\n\n", head); err != nil {
			return err
		}
		if err := config.WriteNewcomers(w, part); err != nil {
			return err
		}
		if i < len(list) {
			fmt.Fprintln(w)
		}
	}
	return nil
}

// newcomer is a device as it may be declared.
func newcomer(d *pendingDevice, taken map[string]bool) config.Newcomer {
	n := config.Newcomer{Device: &registry.Device{}}
	known := d.Device
	if id, err := uuid.Parse(d.Device); err == nil {
		n.Given, known = id, "device-"+d.Device[:8]
	} else {
		n.ExternalID = d.Device
	}
	n.Addr = registry.NewAddress(registry.KindDevice, config.NewName(known, taken))
	events := "1 event"
	if d.Events > 1 {
		events = fmt.Sprintf("%d events", d.Events)
	}
	n.Notes = []string{fmt.Sprintf("%s held, by %s, from %s to %s.", events, cmp.Or(d.Protocol, "an unknown protocol"), d.FirstSeen.Format(time.RFC3339), d.LastSeen.Format(time.RFC3339))}
	names := config.ShortNames(d.Parameters)
	if d.SiteID != nil {
		n.Parameters = names
		return n
	}
	n.Notes = append(n.Notes, "What it sends is stored where its project has parameters of these names:")
	for _, name := range names {
		note := fmt.Sprintf("parameter %q {}", name)
		if registry.ShortName(name) != name || registry.NameFault(name) != "" {
			note = fmt.Sprintf("%q, by which no parameter can go", name)
		}
		n.Notes = append(n.Notes, note)
	}
	return n
}
