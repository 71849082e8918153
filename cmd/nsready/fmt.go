package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hexops/gotextdiff"
	"github.com/hexops/gotextdiff/myers"
	"github.com/hexops/gotextdiff/span"

	"github.com/nsready/nsready/engine/config"
)

func runFmt(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "fmt [flags] [PATH ...]", `
Rewrite declarations in canonical style, and print the names of the files that changed.
PATH is a file, a directory, whose *.hcl files are meant, or - for standard input, which is written to standard output.
The default is the current directory. A file with a syntax error is left as it is.

Example:
  nsready fmt -check -diff estates/north`)
	check := f.Bool("check", false, "change nothing; exit with 1 when a file is not in canonical style")
	diff := f.Bool("diff", false, "show the changes as a unified diff")
	paths, err := f.parse(args, -1)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	files, err := listDeclarations(paths)
	if err != nil {
		return err
	}
	failed, changed := false, false
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := formatFile(s, name, *check, *diff)
		var reported exit
		switch {
		case errors.As(err, &reported): // the others may be well
			failed = true
		case err != nil:
			return err
		}
		changed = changed || c
	}
	if failed || *check && changed {
		return exit(exitFailed)
	}
	return nil
}

// listDeclarations replaces directories by their *.hcl files.
func listDeclarations(paths []string) (files []string, err error) {
	for _, path := range paths {
		if path == "-" {
			files = append(files, path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		found := false
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".hcl" && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
				files = append(files, filepath.Join(path, e.Name()))
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("the directory %s has no file whose name ends in .hcl", path)
		}
	}
	return files, nil
}

// formatFile formats one file and reports whether it was not in canonical style.
func formatFile(s *streams, name string, check, diff bool) (changed bool, err error) {
	shown := name
	var src []byte
	if name == "-" {
		shown = "<stdin>"
		src, err = io.ReadAll(s.stdin)
	} else {
		src, err = os.ReadFile(name)
	}
	if err != nil {
		return false, err
	}
	formatted, diags := config.Format(shown, src)
	sources := &config.Sources{Files: map[string]*hcl.File{shown: {Bytes: src}}}
	if err := reportDiagnostics(s, diags, sources, false); err != nil {
		return false, err
	}
	changed = !bytes.Equal(src, formatted)
	switch {
	case name == "-" && !check && !diff:
		_, err = s.stdout.Write(formatted)
		return changed, err
	case !changed:
		return false, nil
	}
	if name != "-" || check {
		if _, err := fmt.Fprintln(s.stdout, shown); err != nil {
			return true, err
		}
	}
	if diff {
		edits := myers.ComputeEdits(span.URIFromPath(name), string(src), string(formatted))
		if _, err := fmt.Fprint(s.stdout, gotextdiff.ToUnified("old/"+shown, "new/"+shown, string(src), edits)); err != nil {
			return true, err
		}
	}
	if name == "-" || check {
		return true, nil
	}
	if err := replaceFile(name, formatted); err != nil {
		return true, fmt.Errorf("rewriting %s: %w", name, err)
	}
	return true, nil
}

// replaceFile gives a file new content in one step. Its mode stays, and its owner where we may set that; a symbolic link
// stays one.
func replaceFile(name string, content []byte) (err error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if owner, ok := info.Sys().(*syscall.Stat_t); err == nil && ok && os.Geteuid() == 0 {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
