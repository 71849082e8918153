package main

import (
	"context"
	"fmt"

	"github.com/nsready/nsready/engine/config"
)

// linted is what lint -json prints.
type linted struct {
	FormatVersion string       `json:"format_version"`
	ErrorCount    int          `json:"error_count"`
	WarningCount  int          `json:"warning_count"`
	Diagnostics   []diagnostic `json:"diagnostics"`
}

func runLint(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "lint [flags] [PATH]", `
Look over a declaration for what is allowed and probably a mistake, such as a threshold that can never fire. Nothing is connected
to or changed. PATH is a shorter way to say -config PATH. Every finding has a code, which 'nsready explain CODE' explains.

A comment silences findings on its line, or, standing alone, on the next line that is no comment. It must say why:
  # nolint:NSL0001 the meter smooths its values itself

The exit code is 0 with and without findings, and 1 when the declaration is not valid. With -fail-on=warning it is 2 when there
are findings.

Example:
  nsready lint -fail-on=warning estates/north`)
	path := f.String("config", defaultConfig, configUsage)
	var given variables
	given.register(f)
	asJSON := f.json("print the findings as JSON")
	failOn := f.String("fail-on", "error", "exit with 2 when there are findings: error or `warning`")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if *failOn != "error" && *failOn != "warning" {
		return fmt.Errorf("-fail-on is %q; want error or warning", *failOn)
	}
	if len(rest) > 0 {
		*path = rest[0]
	}
	_, sources, diags, err := readConfig(ctx, s, config.Lint, *path, given)
	if err != nil {
		return err
	}
	v := linted{FormatVersion: formatVersion, Diagnostics: describe(diags, sources)}
	v.ErrorCount, v.WarningCount = countSeverities(v.Diagnostics)
	switch {
	case *asJSON:
		err = writeJSON(s.stdout, v)
	case v.ErrorCount > 0:
		err = printDiagnostics(s.stderr, v.Diagnostics)
	case v.WarningCount > 0:
		if err = printDiagnostics(s.stdout, v.Diagnostics); err == nil {
			_, err = fmt.Fprintf(s.stdout, "\n%s: %s.\n", *path, findingCount(v.WarningCount))
		}
	default:
		_, err = fmt.Fprintf(s.stdout, "%s: no findings.\n", *path)
	}
	switch {
	case err != nil:
		return err
	case v.ErrorCount > 0:
		return exit(exitFailed)
	case v.WarningCount > 0 && *failOn == "warning":
		return exit(exitNo)
	}
	return nil
}

func findingCount(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return grouped(n) + " findings"
}
