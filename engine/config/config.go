// Package config reads the declaration of an estate, written in HCL, into a registry.Snapshot.
//
// A declaration is one file, or a directory of *.hcl files that count as one, but for *.nsreadytest.hcl, its tests, and
// *.auto.nsvars.hcl, values for its variables. The label of a block is the name of what it declares, and nesting says what
// belongs to what:
//
//	retention { … }   limits { … }   policy { … }   platform "queue_depth" { … }   locals { … }
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
// A block that can be repeated, which all but retention, limits and policy can, is declared once for each element of a list, set
// or object when it has for_each; its name must then be set by the attribute name. In it and in the blocks inside it, each.key (the index or
// key) and each.value are those of the innermost for_each; the expression of a nested for_each still sees the outer ones.
// A variable block names a value that is given from outside (see Input), var.NAME.
//
// module "mill" { source = "./modules/mill" … } puts what the files of another directory below the declaration's hold at
// its own place, the top of a file or inside a customer, project or site, for each element of its for_each. Its other
// attributes are the values of that module's variables. Local values, variables and templates are a module's own, but for
// the templates that are declared around it, which it can use.
//
// What else an expression may contain: literals, text with ${…} and %{ if }, lists, objects, local.NAME, indexing,
// arithmetic, comparison, conditions, and the functions of this package. Reading a declaration takes bounded time and
// memory whatever is in it, and touches no file outside its directory.
package config

import (
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

// Load reads the declaration at path, a file or a directory with *.hcl files, with values for its variables. It reports
// all it finds wrong at once, ordered by place. The snapshot is nil when there is an error.
func Load(path string, inputs ...Input) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	return newLoader().load(path, inputs...)
}

func (l *loader) load(path string, inputs ...Input) (*registry.Snapshot, *Sources, hcl.Diagnostics) {
	info, err := os.Stat(path)
	if err != nil {
		return l.refuse("Declaration not readable", "%s: %s.%s", path, reason(err), beside(path, err))
	}
	dir, names := filepath.Dir(path), []string{path}
	if info.IsDir() {
		dir = path
		entries, err := os.ReadDir(path)
		if err != nil {
			return l.refuse("Declaration not readable", "%s: %s.", path, reason(err))
		}
		names = nil
		for _, name := range declarations(entries) {
			names = append(names, filepath.Join(path, name))
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
	l.reach(dir, root)
	for _, name := range names {
		src, err := readRegular(os.Stat, os.OpenFile, name, maxFileSize)
		if err != nil {
			l.diags = append(l.diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Declaration not readable", Detail: fmt.Sprintf("%s: %s.", name, reason(err)),
			})
			l.partial = true
			continue
		}
		l.add(name, src)
	}
	l.given = l.gather(dir, inputs)
	return l.finish()
}

// reach lets expressions read the environment, and files below root, which is the directory dir.
func (l *loader) reach(dir string, root *os.Root) {
	local := func(name string) (string, error) {
		if name = filepath.FromSlash(name); !filepath.IsLocal(name) {
			return "", errors.New("the path must be relative and stay below the directory of the declaration")
		}
		return name, nil
	}
	l.env = os.Getenv
	l.display = func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	l.read = func(name string) ([]byte, error) {
		name, err := local(name)
		if err != nil {
			return nil, err
		}
		return readRegular(root.Stat, root.OpenFile, name, maxDataSize)
	}
	l.list = func(name string) ([]string, error) {
		name, err := local(name)
		if err != nil {
			return nil, err
		}
		info, err := root.Stat(name)
		if err == nil && !info.IsDir() { // opening another thing could block
			err = errors.New("it is no directory")
		}
		if err != nil {
			return nil, err
		}
		entries, err := fs.ReadDir(root.FS(), filepath.ToSlash(name))
		return declarations(entries), err
	}
}

// declarations returns the names of the *.hcl files of a directory that declare something, sorted. Hidden ones, tests and
// values of variables don't count.
func declarations(entries []fs.DirEntry) (names []string) {
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) == ".hcl" && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, TestSuffix) && !strings.HasSuffix(name, autoInputs) {
			names = append(names, name)
		}
	}
	return names
}

// beside says what a directory has in the place of a declaration that is not there, "" when there is nothing.
func beside(path string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	names := declarations(entries)
	if err != nil || len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" There is %s; -config %s takes all *.hcl files of the directory as one declaration.", filepath.Join(dir, names[0]), dir)
}

// readRegular reads a file that is neither a directory nor something whose reading could block or never end.
func readRegular(stat func(string) (fs.FileInfo, error), open func(string, int, fs.FileMode) (*os.File, error), name string, most int64) ([]byte, error) {
	check := func(info fs.FileInfo) error {
		switch {
		case info.IsDir():
			return errors.New("it is a directory")
		case !info.Mode().IsRegular():
			return errors.New("it is not a regular file")
		case info.Size() > most:
			return fmt.Errorf("it has %d bytes; a file may have up to %d", info.Size(), most)
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
	data, err := io.ReadAll(io.LimitReader(f, most+1))
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

// parse checks and parses one file, with its line ends normalised. The pieces are not in its body.
func parse(filename string, src []byte) (*hcl.File, []piece, hcl.Diagnostics) {
	if strings.HasSuffix(filename, ".json") {
		return &hcl.File{Bytes: src}, nil, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "JSON syntax",
			Detail:   "A declaration is written in HCL's own syntax, in a file whose name ends in .hcl. Data in JSON can be read with jsondecode(file(…)).",
			Subject:  &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		}}
	}
	text, pieces, diags := scan(filename, src)
	if diags.HasErrors() {
		return &hcl.File{Bytes: text}, nil, diags
	}
	file, diags := hclsyntax.ParseConfig(without(text, pieces), filename, hcl.InitialPos)
	file.Bytes = text
	if diags.HasErrors() {
		diags = append(diags, checkPieces(filename, text, pieces)...)
	}
	return file, pieces, diags
}
