package main

import "context"

// devicesCommands are the subcommands of devices, in the order of its help.
var devicesCommands = []command{
	{"stale", "list series whose newest value is too old, and silent gateways", runDevicesStale},
}

func runDevices(ctx context.Context, s *streams, args []string) error {
	return runSub(ctx, s, args, "devices", "What devices do, apart from what is declared of them.", "nsready devices stale", devicesCommands)
}
