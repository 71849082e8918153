package config

import (
	"slices"
	"strings"

	"github.com/nsready/nsready/engine/registry"
)

// gateway is what a device says of the device that it is reached through.
type gateway struct {
	of *registry.Device
	reference
	in *each
}

// gatewayAddress reads an address as far as it differs from that of the device: NAME, SITE/NAME, PROJECT/SITE/NAME, or all
// of it. It is false when it is none.
func gatewayAddress(of registry.Address, text string) (a registry.Address, ok bool) {
	const levels = 4
	names := strings.Split(text, "/")
	if path, whole := strings.CutPrefix(text, string(registry.KindDevice)+"."); whole && len(names) == levels {
		names = strings.Split(path, "/")
	}
	if len(names) > levels || slices.Contains(names, "") {
		return a, false
	}
	own := strings.Split(of.Path, "/")
	path := strings.Join(append(own[:levels-len(names):levels-len(names)], names...), "/")
	return registry.NewAddress(registry.KindDevice, registry.Address{Path: path}.Names()...), true
}

// resolveGateways gives devices the gateways that they name.
func (l *loader) resolveGateways() {
	for _, g := range l.gateways {
		a, ok := gatewayAddress(g.of.Addr, g.name)
		site, _ := a.Parent()
		switch {
		case !ok:
			l.report(*g.rng, g.in, "Invalid gateway", "%s is no address of a device: write its name, with that of its site, project and customer in front of it where they are others than here.", quote(g.name))
		case a == g.of.Addr:
			l.report(*g.rng, g.in, "Invalid gateway", "A device cannot be its own gateway. Leave it out of a device that is reached directly.")
		case customerOf(a) != customerOf(g.of.Addr):
			l.report(*g.rng, g.in, "Invalid gateway", "%s belongs to another customer, whose devices are no way to this one.", a)
		case l.declaredAt(a) != nil:
			g.of.Gateway = a
		case l.own.referenced[site]: // its owner declares it
			l.refer(a, origin{g.rng, g.in})
			g.of.Gateway = a
		case l.told[place{"Unknown gateway", *g.rng}] < 3:
			l.unknown(g.reference, g.in, "gateway", "No device %s is declared", l.gatewaysLike(a, strings.Count(g.name, "/")))
		default:
			l.unknown(g.reference, g.in, "gateway", "No device %s is declared", nil)
		}
	}
	l.checkGateways()
}

// gatewaysLike are devices that could have been meant, each with as many names of what it is in.
func (l *loader) gatewaysLike(a registry.Address, outer int) (list []string) {
	tail := func(path string, names int) (head, rest string) {
		parts := strings.Split(path, "/")
		at := max(0, len(parts)-names)
		return strings.Join(parts[:at], "/"), strings.Join(parts[at:], "/")
	}
	within, _ := tail(a.Path, outer+1)
	for path := range l.declared[registry.KindDevice] {
		if in, rest := tail(path, outer+1); in == within {
			if list = append(list, rest); len(list) > 1000 {
				return nil
			}
		}
	}
	slices.Sort(list)
	return list
}

// checkGateways reports devices that are reached through themselves.
func (l *loader) checkGateways() {
	byDevice := make(map[registry.Address]*gateway, len(l.gateways))
	for i := range l.gateways {
		byDevice[l.gateways[i].of.Addr] = &l.gateways[i]
	}
	next := func(a registry.Address) registry.Address {
		if g := byDevice[a]; g != nil {
			return g.of.Gateway
		}
		return registry.Address{}
	}
	passed := make(map[registry.Address]bool, len(l.gateways))
	for _, g := range l.gateways {
		cycle := findCycle(g.of.Addr, next, passed)
		if cycle == nil {
			continue
		}
		var names []string
		for _, a := range append(cycle, cycle[0]) {
			names = append(names, a.String())
		}
		g := byDevice[cycle[0]]
		l.report(*g.rng, g.in, "Cycle of gateways", "Following the gateways leads back: %s.", strings.Join(names, " → "))
	}
}

// customerOf returns the path of the customer that an address is below.
func customerOf(a registry.Address) string {
	customer, _, _ := strings.Cut(a.Path, "/")
	return customer
}

// gatewayText is the shortest text that gatewayAddress reads as a gateway's address.
func gatewayText(of, gateway registry.Address) string {
	own, names := strings.Split(of.Path, "/"), strings.Split(gateway.Path, "/")
	same := 0
	for same < len(names)-1 && own[same] == names[same] {
		same++
	}
	return strings.Join(names[same:], "/")
}

// findGateways finds the devices whose gateway cannot be said, and why.
func (w *writer) findGateways() {
	w.gateways = map[string]string{}
	gateway := map[registry.Address]registry.Address{}
	for _, d := range w.s.Devices {
		if d.Gateway == (registry.Address{}) {
			continue
		}
		gateway[d.Addr] = d.Gateway
		site, _ := d.Gateway.Parent()
		_, declared := slices.BinarySearchFunc(w.s.Devices, d.Gateway.Path, func(d *registry.Device, path string) int { return strings.Compare(d.Addr.Path, path) })
		declared = declared || w.references[d.Gateway] && w.references[site]
		switch {
		case customerOf(d.Gateway) != customerOf(d.Addr):
			w.gateways[d.Addr.Path] = "it belongs to another customer"
		case !declared || slices.ContainsFunc(d.Gateway.Names(), func(name string) bool { return registry.NameFault(name) != "" }):
			w.gateways[d.Addr.Path] = "it is not declared here"
		}
	}
	passed := make(map[registry.Address]bool, len(gateway))
	for _, d := range w.s.Devices {
		for _, a := range findCycle(d.Addr, func(a registry.Address) registry.Address { return gateway[a] }, passed) {
			w.gateways[a.Path] = "following the gateways leads back to this device"
		}
	}
}
