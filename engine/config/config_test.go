package config

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// load reads a declaration from memory: the files that end in .hcl are its source.
func load(files map[string]string) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	l := newLoader()
	l.env = func(name string) string { return map[string]string{"SITE": "north"}[name] }
	l.read = func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Ext(name) == ".hcl" {
			l.add(name, []byte(files[name]))
		}
	}
	return l.finish()
}

var marker = regexp.MustCompile(`# ERROR: (.*)`)

// wanted returns the errors that a fixture's comments announce, as "line: summary".
func wanted(t *testing.T, path string) []string {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	lines := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; lines.Scan(); n++ {
		if m := marker.FindStringSubmatch(lines.Text()); m != nil {
			want = append(want, fmt.Sprintf("%d: %s", n, m[1]))
		}
	}
	return want
}

func TestInvalid(t *testing.T) {
	paths, err := filepath.Glob("testdata/invalid/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want := wanted(t, path)
			if len(want) == 0 {
				t.Fatal("the fixture announces no error")
			}
			snapshot, sources, diags := Load(path)
			if snapshot != nil {
				t.Error("a snapshot came back with the errors")
			}
			var got []string
			for _, d := range diags {
				got = append(got, fmt.Sprintf("%d: %s", d.Subject.Start.Line, d.Summary))
				if d.Detail == "" || d.Subject.Filename != path || d.Subject.Start.Column < 1 {
					t.Errorf("incomplete diagnostic: %v", d)
				}
				if sources.Files[d.Subject.Filename] == nil {
					t.Errorf("the sources lack %s", d.Subject.Filename)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s\n%v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), diags)
			}
		})
	}
}
