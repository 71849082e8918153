package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Input gives a value to a variable of a declaration. Later ones hold over earlier ones, and all of them over the
// environment (NSREADY_VAR_name) and the files *.auto.nsvars.hcl in the declaration's directory.
type Input struct {
	Name, Value string // Value is plain text for a string, otherwise an expression such as 5 or ["a", "b"]
	File        string // or the path of a file with lines such as name = "value"
}

const (
	autoInputs  = ".auto.nsvars.hcl"
	inputPrefix = "NSREADY_VAR_"
)

var variableSchema = &hcl.BodySchema{
	Attributes: attributes("", "type", "default", "description"),
	Blocks:     []hcl.BlockHeaderSchema{{Type: "validation"}},
}

var validationSchema = &hcl.BodySchema{Attributes: append(attributes("condition"), attributes("error_message")...)}

// variable is what a variable block declares.
type variable struct {
	*block
	kind string // string, number, bool, any, or list or map of one of the four
	of   string // the kind of the items
	from *hcl.Range
}

// variable reads a variable block.
func (l *loader) variable(m *module, b *block) {
	v := &variable{block: b, kind: "any", from: b.at}
	if first := m.variables[b.label]; first != nil {
		l.report(b.rng, nil, "Duplicate variable", "The variable %s is declared at %s:%d already.", quote(b.label), first.rng.Filename, first.rng.Start.Line)
		return
	}
	if !hclsyntax.ValidIdentifier(b.label) || b.label == "source" || b.label == "for_each" {
		l.report(b.name, nil, "Invalid name", "%s can't be the name of a variable: it is a word of letters, digits, _ and -, other than source and for_each.", quote(b.label)).Context = &b.rng
		return
	}
	m.variables[b.label] = v
	if attr := b.attrs["type"]; attr != nil {
		ok := false
		if v.kind, v.of, ok = variableType(attr.Expr); !ok {
			l.report(attr.Expr.Range(), nil, "Invalid type", "The type of a variable is string, number, bool or any, or list(…) or map(…) of one of these.").Context = &attr.Range
			v.kind = "any"
		}
		delete(b.attrs, "type") // no expression
	}
}

func variableType(expr hcl.Expression) (kind, of string, ok bool) {
	plain := func(s string) bool { return s == "string" || s == "number" || s == "bool" || s == "any" }
	if word := hcl.ExprAsKeyword(expr); word != "" {
		return word, "", plain(word)
	}
	if call, isCall := expr.(*hclsyntax.FunctionCallExpr); isCall && len(call.Args) == 1 && (call.Name == "list" || call.Name == "map") {
		of = hcl.ExprAsKeyword(call.Args[0])
		return call.Name, of, plain(of)
	}
	return "any", "", false
}

func (v *variable) typeName() string {
	if v.of != "" {
		return v.kind + "(" + v.of + ")"
	}
	return v.kind
}

// inspectVariable looks over the expressions of a variable block: the default must stand by itself.
func (l *loader) inspectVariable(v *variable) {
	if attr := v.attrs["default"]; attr != nil && len(attr.Expr.Variables()) > 0 {
		l.broken[attr.Expr] = true
		l.report(attr.Expr.Range(), nil, "Invalid default", "A default can't refer to anything. Use a local value for what depends on others.").Context = &attr.Range
	}
	l.inspectBlock(v.block, false)
}

// bind gives a variable a value in a scope, converted to its type.
func (l *loader) bind(s *scope, v *variable, given any, at hcl.Range, in *each) {
	value, ok := v.convert(given)
	if !ok {
		l.partial = true
		l.report(at, in, "Wrong type", "The variable %s is a %s; this is %s.", quote(v.label), v.typeName(), describe(given))
		return
	}
	s.inputs[v.label] = value
}

func (v *variable) convert(given any) (value any, ok bool) {
	switch v.kind {
	case "list":
		items, ok := given.([]any)
		if !ok {
			return nil, false
		}
		list := make([]any, len(items))
		for i, item := range items {
			if list[i], ok = convertPlain(v.of, item); !ok {
				return nil, false
			}
		}
		return list, true
	case "map":
		items, ok := object(given)
		if !ok {
			return nil, false
		}
		m := make(map[string]any, len(items))
		for key, item := range items {
			if m[key], ok = convertPlain(v.of, item); !ok {
				return nil, false
			}
		}
		return m, true
	}
	return convertPlain(v.kind, given)
}

func convertPlain(kind string, v any) (any, bool) {
	switch kind {
	case "string":
		s, ok := text(v)
		return s, ok
	case "number":
		n, ok := number(v)
		return n, ok
	case "bool":
		yes, ok := boolean(v)
		return yes, ok
	}
	return v, true
}

// bindDefault gives a variable its default, or calls missing when it has none.
func (l *loader) bindDefault(s *scope, v *variable, missing func()) {
	attr := v.attrs["default"]
	if attr == nil {
		l.partial = true
		missing()
		return
	}
	if value, ok := l.evaluate(attr.Expr, nil); ok && value == nil {
		s.inputs[v.label] = nil // null passes for not set, whatever the type
	} else if ok {
		l.bind(s, v, value, attr.Expr.Range(), nil)
	} else {
		l.partial = true
	}
}

// checkInputs evaluates the validations of the scope's variables.
func (l *loader) checkInputs() {
	for _, name := range sortedKeys(l.scope.variables) {
		v := l.scope.variables[name]
		for _, b := range v.blocks {
			if _, bound := l.scope.inputs[name]; !bound || b.attrs["condition"] == nil {
				continue
			}
			f := fields{l: l, b: b}
			value, ok := f.required("condition")
			if !ok {
				l.partial = true
				continue
			}
			if yes, isBool := boolean(value); !isBool {
				f.wrong("condition", "Wrong type", "condition is true or false; this is %s.", describe(value))
			} else if !yes {
				l.report(*v.from, nil, "Invalid input", "The variable %s is %s: %s", quote(name), describe(l.scope.inputs[name]), f.text("error_message", maxText))
			}
		}
	}
}

// given is a value for a variable of the declaration, not yet evaluated.
type given struct {
	expr hclsyntax.Expression // nil for text
	text string
	rng  hcl.Range
}

// gather collects the values that a declaration's variables are given from outside.
func (l *loader) gather(dir string, inputs []Input) map[string]given {
	all := map[string]given{}
	for name := range l.root.variables {
		if text, ok := os.LookupEnv(inputPrefix + name); ok {
			all[name] = l.textInput("environment variable "+inputPrefix+name, l.root.variables[name], text)
		}
	}
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*"+autoInputs))
	if err != nil {
		l.report(hcl.Range{Filename: dir, Start: hcl.InitialPos, End: hcl.InitialPos}, nil, "Variables not readable", "%s.", reason(err))
	}
	for _, name := range names {
		l.readInputs(all, name)
	}
	for _, in := range inputs {
		if in.File != "" {
			l.readInputs(all, in.File)
			continue
		}
		v := l.root.variables[in.Name]
		where := "-var " + in.Name
		if v == nil {
			l.sources.Files[where] = &hcl.File{Bytes: []byte(in.Value)}
			l.unknownInput(in.Name, hcl.Range{Filename: where, Start: hcl.InitialPos, End: hcl.InitialPos})
			continue
		}
		all[in.Name] = l.textInput(where, v, in.Value)
	}
	return all
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func (l *loader) unknownInput(name string, at hcl.Range) {
	if !l.partial {
		l.report(at, nil, "Unknown variable", "The declaration has no variable %s.%s", quote(name), elseAmong(name, options(l.root.variables)))
	}
}

// textInput reads a value that was given as text. where is the name that messages give it.
func (l *loader) textInput(where string, v *variable, text string) given {
	l.sources.Files[where] = &hcl.File{Bytes: []byte(text)}
	g := given{text: text, rng: hcl.Range{Filename: where, Start: hcl.InitialPos, End: hcl.InitialPos}}
	if diags := scanText(where, []byte(text)); diags.HasErrors() {
		l.contentDiags(diags)
		return given{}
	}
	if v.kind == "string" || v.kind == "any" {
		return g
	}
	_, _, diags := scan(where, []byte(text))
	if !diags.HasErrors() {
		g.expr, diags = hclsyntax.ParseExpression([]byte(text), where, hcl.InitialPos)
	}
	l.contentDiags(diags)
	if diags.HasErrors() || !l.isConstant(g.expr) {
		return given{}
	}
	return g
}

// isConstant reports what an expression refers to: values from outside refer to nothing.
func (l *loader) isConstant(expr hclsyntax.Expression) bool {
	if refs := expr.Variables(); len(refs) > 0 {
		l.partial = true
		l.report(refs[0].SourceRange(), nil, "Invalid input", "A value can't refer to anything here. Text must be in quotes.")
		return false
	}
	return l.inspect(expr, false)
}

// readInputs reads a file of values.
func (l *loader) readInputs(all map[string]given, name string) {
	src, err := readRegular(os.Stat, os.OpenFile, name, maxFileSize)
	if err != nil {
		l.partial = true
		l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Variables not readable", Detail: fmt.Sprintf("%s: %s.", name, reason(err))})
		return
	}
	file, pieces, diags := parse(name, src)
	l.sources.Files[name] = file
	diags = append(diags, checkPieces(name, file.Bytes, pieces)...)
	l.contentDiags(diags)
	if diags.HasErrors() {
		return
	}
	attrs, diags := file.Body.JustAttributes()
	l.contentDiags(diags)
	for _, key := range sortedKeys(attrs) {
		expr, ok := attrs[key].Expr.(hclsyntax.Expression)
		switch {
		case l.root.variables[key] == nil:
			l.unknownInput(key, attrs[key].NameRange)
		case ok && l.isConstant(expr):
			all[key] = given{expr: expr, rng: expr.Range()}
		}
	}
}

// bindInputs gives the declaration's own variables their values.
func (l *loader) bindInputs(from map[string]given) {
	for _, name := range sortedKeys(l.root.variables) {
		v := l.root.variables[name]
		g, ok := from[name]
		switch {
		case !ok:
			l.bindDefault(l.scope, v, func() {
				l.report(v.rng, nil, "Missing input", "The variable %s has no default and was given no value. Give it one with -var '%s=VALUE', in a -var-file, or in the environment variable %s%s.", quote(name), name, inputPrefix, name)
			})
		case g.expr != nil:
			if value, ok := l.evaluate(g.expr, nil); ok {
				l.bind(l.scope, v, value, g.rng, nil)
			}
		case g.rng.Filename != "":
			l.bind(l.scope, v, g.text, g.rng, nil)
		}
	}
	l.checkInputs()
}
