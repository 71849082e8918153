package config

import (
	"path"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// module is the *.hcl files of one directory, as read for one place: the top of a declaration, or a block that a module
// block stands in. Its names are its own.
type module struct {
	dir       string // below the declaration's directory, with slashes; "." for that itself
	place     string // type of the block around it, "" for none
	blocks    []*block
	locals    map[string]*hcl.Attribute
	variables map[string]*variable
	used      map[string]bool // local values that something refers to
}

func newModule(dir, place string) *module {
	return &module{dir: dir, place: place, locals: map[string]*hcl.Attribute{}, variables: map[string]*variable{}, used: map[string]bool{}}
}

// scope is a module with the values that its names have where it is used.
type scope struct {
	*module
	outer     *scope // of the module block; nil for the declaration itself
	values    map[string]*local
	inputs    map[string]any // of variables
	templates map[string]*template
}

func newScope(m *module, outer *scope) *scope {
	s := &scope{module: m, outer: outer, values: make(map[string]*local, len(m.locals)), inputs: map[string]any{}, templates: map[string]*template{}}
	for name, attr := range m.locals {
		s.values[name] = &local{attr: attr}
	}
	return s
}

// template finds a template by its name: one of the module's own, or of those around it.
func (s *scope) template(name string) *template {
	for ; s != nil; s = s.outer {
		if t := s.templates[name]; t != nil {
			return t
		}
	}
	return nil
}

// templateNames are what could have been meant by the name of a template.
func (s *scope) templateNames() (names []string) {
	for ; s != nil; s = s.outer {
		names = append(names, options(s.templates)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// path returns a path that is relative to the module's directory as one below the declaration's.
func (s *scope) path(name string) string {
	if name == "" || path.IsAbs(name) {
		return name // refused where it is opened
	}
	return path.Join(s.dir, name)
}

// enter makes a scope the one that names are looked up in, until leave is called.
func (l *loader) enter(s *scope) (leave func()) {
	before := l.scope
	l.scope = s
	return func() { l.scope = before }
}

// sorted returns the local values in the order in which they are written.
func (s *scope) sorted() []*local {
	list := make([]*local, 0, len(s.values))
	for _, v := range s.values {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *local) int { return compareRanges(&a.attr.Range, &b.attr.Range) })
	return list
}

// inspectModule looks for what can't be evaluated, wherever the module is used.
func (l *loader) inspectModule(m *module) {
	defer l.enter(newScope(m, nil))()
	for _, v := range l.scope.sorted() {
		if !l.inspect(v.attr.Expr, false) {
			l.broken[v.attr.Expr] = true
		}
	}
	for _, name := range sortedKeys(m.variables) {
		l.inspectVariable(m.variables[name])
	}
	for _, b := range m.blocks {
		l.inspectBlock(b, false)
	}
}

// evaluateLocals evaluates all local values of the scope, to report what is wrong with those that nobody uses too.
func (l *loader) evaluateLocals() {
	for _, v := range l.scope.sorted() {
		if _, p := l.local(v, v.attr.NameRange); p != nil {
			l.partial = true
		}
	}
}
