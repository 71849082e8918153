// Package config reads the declaration of an estate, written in HCL, into a registry.Snapshot.
//
// A declaration is one file, or a directory of *.hcl files that count as one, but for *.nsreadytest.hcl, its tests. The label of a block is the name of what
// it declares, and nesting says what belongs to what:
//
//	retention { … }   limits { … }   platform "queue_depth" { … }   locals { … }
//	template "energy_meter" {  parameter "voltage" { … threshold "high" { … } } }
//	customer "Acme Mills" {
//	  project "energy" {
//	    parameter "…" { … }
//	    site "north" {
//	      device "main-incomer" { … }
//	    }
//	  }
//	}
//	declaration { … }   moved { … }   import { … }   released { … }
//
// A customer, project, site, device or parameter with for_each is declared once for each element of a list, set or
// object; its name must then be set by the attribute name. In it and in the blocks inside it, each.key (the index or
// key) and each.value are those of the innermost for_each; the expression of a nested for_each still sees the outer ones.
// What else an expression may contain: literals, text with ${…} and %{ if }, lists, objects, local.NAME, indexing,
// arithmetic, comparison, conditions, and the functions of this package. Reading a declaration takes bounded time and
// memory whatever is in it, and touches no file outside its directory.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/nsready/nsready/engine/registry"
)

// Sources are the files that a declaration was read from, for printing the places that diagnostics point at.
type Sources struct {
	Files map[string]*hcl.File // by the name that the ranges carry; a file with errors may have no body
}

// Load reads the declaration at path, a file or a directory with *.hcl files. It reports all it finds wrong at once,
// ordered by place. The snapshot is nil when there is an error.
func Load(path string) (*registry.Snapshot, *Sources, hcl.Diagnostics) { return newLoader().load(path) }

func (l *loader) load(path string) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	info, err := os.Stat(path)
	if err != nil {
		return l.refuse("Declaration not readable", "%s: %s.", path, reason(err))
	}
	dir, names := filepath.Dir(path), []string{path}
	if info.IsDir() {
		dir = path
		if names, err = listFiles(path); err != nil {
			return l.refuse("Declaration not readable", "%s: %s.", path, reason(err))
		}
		if len(names) == 0 {
			return l.refuse("Declaration not readable", "The directory %s has no file whose name ends in .hcl.", path)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return l.refuse("Declaration not readable", "%s: %s.", dir, reason(err))
	}
	defer root.Close()
	l.reach(root)
	for _, name := range names {
		src, err := readRegular(os.Stat, os.OpenFile, name)
		if err != nil {
			l.diags = append(l.diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Declaration not readable", Detail: fmt.Sprintf("%s: %s.", name, reason(err)),
			})
			l.partial = true
			continue
		}
		l.add(name, src)
	}
	return l.finish()
}

// reach lets expressions read the environment, and files below root.
func (l *loader) reach(root *os.Root) {
	l.env = os.Getenv
	l.read = func(name string) ([]byte, error) {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, errors.New("the path must be relative and stay below the directory of the declaration")
		}
		return readRegular(root.Stat, root.OpenFile, filepath.FromSlash(name))
	}
}

// listFiles returns the paths of the *.hcl files in a directory, sorted. Hidden ones and tests don't count.
func listFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".hcl" && !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), TestSuffix) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// readRegular reads a file that is neither a directory nor something whose reading could block or never end.
func readRegular(stat func(string) (fs.FileInfo, error), open func(string, int, fs.FileMode) (*os.File, error), name string) ([]byte, error) {
	check := func(info fs.FileInfo) error {
		switch {
		case info.IsDir():
			return errors.New("it is a directory")
		case !info.Mode().IsRegular():
			return errors.New("it is not a regular file")
		case info.Size() > maxFileSize:
			return fmt.Errorf("it has %d bytes; a file may have up to %d", info.Size(), maxFileSize)
		}
		return nil
	}
	// Opening a device can have effects, hence the look before; it may be replaced meanwhile, hence the one after.
	info, err := stat(name)
	if err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, err
	}
	f, err := open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err == nil {
		err = check(before)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != before.Size() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return nil, errors.New("it was changed while it was read; try again")
	}
	return data, nil
}

// reason is an error in words, without the path that the message names already.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "there is no such file"
	}
	return err.Error()
}

// parse checks and parses one file, with its line ends normalised.
func parse(filename string, src []byte) (*hcl.File, hcl.Diagnostics) {
	if strings.HasSuffix(filename, ".json") {
		return &hcl.File{Bytes: src}, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "JSON syntax",
			Detail:   "A declaration is written in HCL's own syntax, in a file whose name ends in .hcl. Data in JSON can be read with jsondecode(file(…)).",
			Subject:  &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		}}
	}
	if diags := scan(filename, src); diags.HasErrors() {
		return &hcl.File{Bytes: src}, diags
	}
	if bytes.IndexByte(src, '\r') >= 0 {
		src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	}
	return hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
}
