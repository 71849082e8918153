package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	maxModules   = 1000    // that are read
	maxUses      = 10_000  // of modules
	maxModuleIn  = 16      // modules inside one another
	maxAllSource = 1 << 30 // bytes of all *.hcl files
)

// Blocks that a file may hold, by the place that it is for: what the block of that type may hold, and what is a module's own.
var placeSchemas = map[string]*hcl.BodySchema{
	"":         fileSchema,
	"customer": moduleSchema(labelled("project")),
	"project":  moduleSchema(labelled("parameter", "site")),
	"site":     moduleSchema(labelled("device")),
}

func moduleSchema(own []hcl.BlockHeaderSchema) *hcl.BodySchema {
	return &hcl.BodySchema{Blocks: append(append(labelled("template", "variable", "module"), hcl.BlockHeaderSchema{Type: "locals"}), own...)}
}

// moduleKey says which module is meant: a directory, read for a place.
type moduleKey struct{ dir, place string }

// source returns the directory that a module block names.
func (l *loader) source(b *block) (dir string, ok bool) {
	attr := b.attrs["source"]
	if attr == nil {
		l.report(b.rng, nil, "Missing source", "A module block needs the directory of its files, such as source = \"./modules/mill\".")
		return "", false
	}
	text := ""
	if t, isTemplate := attr.Expr.(*hclsyntax.TemplateExpr); isTemplate && t.IsStringLiteral() {
		v, _ := t.Value(nil)
		text = v.AsString()
	}
	if !strings.HasPrefix(text, "./") && !strings.HasPrefix(text, "../") {
		l.report(attr.Expr.Range(), nil, "Invalid source", "The source of a module is the path of a directory in quotes that begins with ./ or ../ and is written out, such as \"./modules/mill\".").Context = &attr.Range
		return "", false
	}
	return path.Join(l.scope.dir, text), true
}

// readModule reads the module that a block uses, once for each place. It reports what can't be read and returns nil.
func (l *loader) readModule(b *block) *module {
	dir, ok := l.source(b)
	if !ok {
		l.partial = true
		return nil
	}
	at := moduleKey{dir, b.outer}
	if m, known := l.modules[at]; known {
		return m
	}
	refuse := func(summary, detail string, args ...any) *module {
		l.partial = true
		l.report(b.attrs["source"].Expr.Range(), nil, summary, detail, args...)
		return nil
	}
	if i := slices.Index(l.reading, at); i >= 0 {
		var cycle []string
		for _, k := range append(l.reading[i:len(l.reading):len(l.reading)], at) {
			cycle = append(cycle, quote(k.dir))
		}
		return refuse("Cycle of modules", "This module contains itself: %s.", strings.Join(cycle, " → "))
	}
	switch {
	case len(l.reading) >= maxModuleIn:
		return refuse("Too many modules", "Modules may be nested %d deep.", maxModuleIn)
	case len(l.modules) >= maxModules:
		return refuse("Too many modules", "A declaration may have up to %d modules.", maxModules)
	}
	names, err := l.list(dir)
	if err == nil && len(names) == 0 {
		err = errors.New("it has no file whose name ends in .hcl")
	}
	if err != nil {
		l.modules[at] = nil
		return refuse("Module not readable", "%s: %s.", quote(dir), reason(err))
	}
	m := newModule(dir, b.outer)
	for _, name := range names {
		src, err := l.read(path.Join(dir, name))
		if err != nil {
			refuse("Module not readable", "%s: %s.", quote(path.Join(dir, name)), reason(err))
			continue
		}
		l.addTo(m, l.display(path.Join(dir, name)), src)
	}
	l.reading = append(l.reading, at)
	l.inspectModule(m)
	l.reading = l.reading[:len(l.reading)-1]
	l.modules[at] = m
	return m
}

// inspectModuleBlock reads the module and checks which inputs it is given.
func (l *loader) inspectModuleBlock(b *block) {
	b.module = l.readModule(b)
	if b.module == nil || l.partial {
		return
	}
	for _, name := range sortedKeys(b.attrs) {
		if name != "source" && name != "for_each" && b.module.variables[name] == nil {
			l.report(b.attrs[name].NameRange, nil, "Unknown variable", "The module has no variable %s.%s", quote(name), elseAmong(name, options(b.module.variables))).Context = &b.rng
		}
	}
}

// use declares what a module holds, once for each element of the block's for_each.
func (l *loader) use(b *block, outer *each, declare func(*block, *each)) {
	for in := range l.instances(b, outer) {
		if l.stopped {
			return
		}
		if b.module == nil {
			l.partial = true
			return
		}
		if l.uses++; l.uses > maxUses {
			l.report(b.rng, in, "Too many modules", "Modules may be used up to %d times.", maxUses)
			l.stopped = true
			return
		}
		s := newScope(b.module, l.scope)
		for _, name := range sortedKeys(b.module.variables) {
			v := b.module.variables[name]
			attr := b.attrs[name]
			if attr == nil {
				l.bindDefault(s, v, func() {
					l.report(b.rng, in, "Missing input", "The module needs a value for its variable %s, which has no default.", quote(name))
				})
				continue
			}
			if given, ok := l.evaluate(attr.Expr, in); ok {
				l.bind(s, v, given, attr.Expr.Range(), in)
			} else {
				l.partial = true
			}
		}
		leave := l.enter(s)
		l.checkInputs()
		l.evaluateLocals()
		l.declareAll(b.module.blocks, nil, declare)
		leave()
	}
}

// children calls declare for each block inside a block and each of its elements: those of modules, too.
func (l *loader) children(b *block, in *each, declare func(*block, *each)) {
	l.inner(b, func(b *block) bool {
		l.declareAll([]*block{b}, in, declare)
		return !l.stopped
	})
}

func (l *loader) declareAll(blocks []*block, outer *each, declare func(*block, *each)) {
	for _, b := range blocks {
		if b.kind == "module" {
			l.use(b, outer, declare)
			continue
		}
		for in := range l.instances(b, outer) {
			declare(b, in)
		}
	}
}

// checkSize counts the bytes of source files.
func (l *loader) checkSize(filename string, n int) hcl.Diagnostics {
	if l.size += n; l.size <= maxAllSource {
		return nil
	}
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: "Declaration too large", Detail: fmt.Sprintf("The files of a declaration may have up to %d bytes together.", maxAllSource),
		Subject: &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
	}}
}
