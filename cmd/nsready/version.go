package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// build says which program this is.
type build struct {
	Version  string `json:"version"`            // of the module, (devel) when it was built from a checkout
	Revision string `json:"revision,omitempty"` // of the checkout
	Time     string `json:"time,omitempty"`     // of that revision, RFC 3339
	Modified bool   `json:"modified,omitempty"` // the checkout had changes besides
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func runVersion(_ context.Context, s *streams, args []string) error {
	f := newFlags(s, "version [-json]", `
Print the version of this program, and what it was built from.

Example:
  nsready version -json`)
	asJSON := f.json("print JSON")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	b := thisBuild()
	if *asJSON {
		return writeJSON(s.stdout, struct {
			FormatVersion string `json:"format_version"`
			build
		}{formatVersion, b})
	}
	text := "nsready " + b.Version
	if b.Revision != "" {
		text += fmt.Sprintf(", revision %.12s of %s", b.Revision, b.Time)
		if b.Modified {
			text += ", modified"
		}
	}
	_, err := fmt.Fprintf(s.stdout, "%s, %s, %s\n", text, b.Go, b.Platform)
	return err
}

func thisBuild() build {
	b := build{Version: "(unknown)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.Time = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}
