package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
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
	recursive := f.Bool("recursive", false, "also the *.hcl files of the directories below, but for hidden ones")
	write := f.Bool("write", true, "rewrite files; -write=false changes nothing, and names those that are not in canonical style")
	asJSON := f.json("print the names, the diffs and the diagnostics as JSON")
	paths, err := f.parse(args, -1)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	files, err := listDeclarations(paths, *recursive)
	if err != nil {
		return err
	}
	v := formatting{FormatVersion: formatVersion, Changed: []string{}, Diagnostics: []diagnostic{}}
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := formatFile(ctx, s, name, *check || !*write, *diff)
		if err != nil {
			return err
		}
		v.add(r)
		if *asJSON {
			continue
		}
		if err := r.print(s, name, *check, *diff); err != nil {
			return err
		}
	}
	if *asJSON {
		if err := writeJSON(s.stdout, v); err != nil {
			return err
		}
	}
	if len(v.Diagnostics) > 0 || *check && len(v.Changed) > 0 { // the other files may be well
		return exit(exitFailed)
	}
	return nil
}

// formatting is what fmt -json prints.
type formatting struct {
	FormatVersion string       `json:"format_version"`
	Changed       []string     `json:"changed"` // files that were not in canonical style
	Diff          string       `json:"diff,omitempty"`
	Diagnostics   []diagnostic `json:"diagnostics"` // of files with errors, which are left as they are
}

func (v *formatting) add(r formatted) {
	v.Diagnostics = append(v.Diagnostics, r.diagnostics...)
	v.Diff += r.diff
	if r.changed {
		v.Changed = append(v.Changed, r.shown)
	}
}

// formatted is what came of one file.
type formatted struct {
	shown       string // the file's name for people
	text        []byte // in canonical style
	changed     bool
	diff        string
	diagnostics []diagnostic
}

func (r *formatted) print(s *streams, name string, check, diff bool) error {
	if err := printDiagnostics(s.stderr, r.diagnostics); err != nil || len(r.diagnostics) > 0 {
		return err
	}
	if name == "-" && !check && !diff {
		_, err := s.stdout.Write(r.text)
		return err
	}
	if r.changed && (name != "-" || check) {
		if _, err := fmt.Fprintln(s.stdout, r.shown); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(s.stdout, r.diff)
	return err
}

// listDeclarations replaces directories by their *.hcl files, and with recursive also by those of the directories below.
func listDeclarations(paths []string, recursive bool) (files []string, err error) {
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
		top, found := filepath.Clean(path)+string(filepath.Separator), len(files)
		err = filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			hidden := strings.HasPrefix(e.Name(), ".")
			switch {
			case name == top:
			case e.IsDir() && (hidden || !recursive):
				return fs.SkipDir
			case !e.IsDir() && !hidden && filepath.Ext(name) == ".hcl":
				files = append(files, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(files) == found {
			return nil, fmt.Errorf("the directory %s has no file whose name ends in .hcl", path)
		}
	}
	return files, nil
}

// formatFile formats one file, and rewrites it unless check is set or it is the standard input.
func formatFile(ctx context.Context, s *streams, name string, check, diff bool) (r formatted, err error) {
	r.shown = name
	var src []byte
	if name == "-" {
		r.shown = "<stdin>"
		src, err = io.ReadAll(s.input(ctx))
	} else {
		src, err = os.ReadFile(name)
	}
	if err != nil {
		return r, err
	}
	text, diags := config.Format(r.shown, src)
	r.diagnostics = describe(diags, &config.Sources{Files: map[string]*hcl.File{r.shown: {Bytes: src}}})
	if diags.HasErrors() {
		return r, nil
	}
	r.text, r.changed = text, !bytes.Equal(src, text)
	if !r.changed {
		return r, nil
	}
	if diff {
		edits := myers.ComputeEdits(span.URIFromPath(name), string(src), string(text))
		r.diff = fmt.Sprint(gotextdiff.ToUnified("old/"+r.shown, "new/"+r.shown, string(src), edits))
	}
	if name == "-" || check {
		return r, nil
	}
	if err := rewriteFile(name, text); err != nil {
		return r, fmt.Errorf("rewriting %s: %w", name, err)
	}
	return r, nil
}

// rewriteFile gives a file new content in one step. Its mode stays, and its owner where we may set that; a symbolic link
// stays one.
func rewriteFile(name string, content []byte) error {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return replaceFile(path, func(f *os.File) error {
		_, err := f.Write(content)
		if owner, ok := info.Sys().(*syscall.Stat_t); err == nil && ok && os.Geteuid() == 0 {
			err = f.Chown(int(owner.Uid), int(owner.Gid))
		}
		if err == nil {
			err = f.Chmod(info.Mode().Perm())
		}
		return err
	})
}
