package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/registry"
)

const defaultConfig = "nsready.hcl"

const configUsage = "the declaration: a `FILE`, or a directory with *.hcl files"

// validation is what validate -json prints.
type validation struct {
	FormatVersion string       `json:"format_version"`
	Valid         bool         `json:"valid"`
	ErrorCount    int          `json:"error_count"`
	WarningCount  int          `json:"warning_count"`
	Diagnostics   []diagnostic `json:"diagnostics"`
}

func runValidate(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "validate [flags] [PATH]", `
Check a declaration: syntax, names, references, ranges. Nothing is connected to or changed.
PATH is a shorter way to say -config PATH. The exit code is 0 when the declaration is valid, otherwise 1.
What is valid and probably a mistake is shown as a warning; see 'nsready lint'.

Example:
  nsready validate estates/north`)
	path := f.String("config", defaultConfig, configUsage)
	var given variables
	given.register(f)
	asJSON := f.json("print the diagnostics as JSON")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		*path = rest[0]
	}
	declared, sources, diags, err := readConfig(ctx, s, config.Lint, *path, given)
	if err != nil {
		return err
	}
	list := describe(diags, sources)
	if *asJSON {
		v := validation{FormatVersion: formatVersion, Valid: !diags.HasErrors(), Diagnostics: list}
		v.ErrorCount, v.WarningCount = countSeverities(list)
		err = writeJSON(s.stdout, v)
	} else {
		err = printDiagnostics(s.stderr, list)
	}
	switch {
	case err != nil:
		return err
	case diags.HasErrors():
		return exit(exitFailed)
	case !*asJSON:
		_, err = fmt.Fprintf(s.stdout, "%s is valid: %s.\n", *path, declared)
	}
	return err
}

// loadConfig reads a declaration for a command that goes on with it, and reports what is wrong with it.
func loadConfig(ctx context.Context, s *streams, path string, asJSON bool, given variables) (*registry.Snapshot, error) {
	declared, sources, diags, err := readConfig(ctx, s, config.Load, path, given)
	if err != nil {
		return nil, err
	}
	if err := reportDiagnostics(s, diags, sources, asJSON); err != nil {
		return nil, err
	}
	return declared, nil
}

// readConfig reads a declaration with config.Load or config.Lint. The error is that of ctx.
func readConfig(ctx context.Context, s *streams, read func(string, ...config.Input) (*registry.Snapshot, *config.Sources, hcl.Diagnostics),
	path string, given variables) (*registry.Snapshot, *config.Sources, hcl.Diagnostics, error) {
	progress := s.progress("Reading the declaration")
	defer progress.stop()
	var declared *registry.Snapshot
	var sources *config.Sources
	var diags hcl.Diagnostics
	if err := await(ctx, func() { declared, sources, diags = read(path, given...) }); err != nil {
		return nil, nil, nil, err
	}
	return declared, sources, diags, nil
}

// reportDiagnostics prints diagnostics. Its error is not nil when one of them is an error.
func reportDiagnostics(s *streams, diags hcl.Diagnostics, sources *config.Sources, asJSON bool) error {
	list := describe(diags, sources)
	var err error
	if asJSON && diags.HasErrors() {
		err = writeJSON(s.stdout, failure{formatVersion, list})
	} else {
		err = printDiagnostics(s.stderr, list)
	}
	if err == nil && diags.HasErrors() {
		return exit(exitFailed)
	}
	return err
}
