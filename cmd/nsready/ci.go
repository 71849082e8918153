package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"regexp"
	"strings"
)

//go:embed templates/*.yml
var templates embed.FS

// ciPaths are where the files belong, by whose CI it is.
var ciPaths = map[string]string{"github": ".github/workflows/nsready.yml", "gitlab": ".gitlab-ci.yml"}

func runCI(_ context.Context, s *streams, args []string) error {
	f := newFlags(s, "ci [flags] github|gitlab", `
Print a pipeline for GitHub Actions or GitLab CI: fmt, validate and plan for each proposed change, with the plan as a comment;
apply of the plan that was saved, after the merge; drift every night. Its first lines say what it needs.

Example:
  nsready ci github > .github/workflows/nsready.yml`)
	asJSON := f.json("print the pipeline, and where it belongs, as JSON")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(rest) == 0 || ciPaths[rest[0]] == "" {
		return fmt.Errorf("for whose CI? Want github or gitlab")
	}
	text, err := pipeline(rest[0], thisBuild().Version)
	if err != nil {
		return err
	}
	if *asJSON {
		return writeJSON(s.stdout, struct {
			FormatVersion string `json:"format_version"`
			Path          string `json:"path"`
			Content       string `json:"content"`
		}{formatVersion, ciPaths[rest[0]], text})
	}
	_, err = io.WriteString(s.stdout, text)
	return err
}

// released matches a version that go install can fetch.
var released = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// pipeline returns the file of one CI, which installs a version of this program: the newest, when that is no release.
func pipeline(of, version string) (string, error) {
	text, err := templates.ReadFile("templates/" + of + ".yml")
	if err != nil {
		return "", err
	}
	if !released.MatchString(version) {
		version = "latest"
	}
	return strings.ReplaceAll(string(text), "@VERSION@", version), nil
}
