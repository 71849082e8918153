package config

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Expressions are evaluated here rather than by HCL: a declaration is small, its language is smaller (no for
// expressions, no splats), and every step and byte is counted, so that no file can keep the machine busy.
//
// A value is one of nil (null), bool, float64, string, []any (a list), set, map[string]any or row (objects).
type set []any

const (
	maxSteps  = 100_000_000 // of all evaluations
	maxString = 256 << 20   // bytes of one string
	maxBytes  = 1 << 30     // of all strings and lists that were made
	maxItems  = 1_000_000   // of one list
	maxChain  = 500         // locals that refer to locals
)

// each is the element that the innermost for_each around an expression is at. It is nil outside for_each.
type each struct{ key, value any }

// problem is why an expression has no value. It becomes a diagnostic where the value was wanted.
type problem struct {
	summary, detail string
	rng             hcl.Range
	silent          bool // was reported already
}

func fail(rng hcl.Range, summary, format string, args ...any) *problem {
	return &problem{summary: summary, detail: fmt.Sprintf(format, args...), rng: rng}
}

var silence = &problem{silent: true}

// local is a value of a locals block.
type local struct {
	attr  *hcl.Attribute
	state int
	value any
	err   *problem
}

const (
	untouched = iota
	evaluating
	evaluated
)

// inspect reports what is no part of the language, wherever in an expression it is, and names that do not exist.
// It returns false when the expression can't be evaluated.
func (l *loader) inspect(expr hcl.Expression, inEach bool) bool {
	node, ok := expr.(hclsyntax.Node)
	if !ok {
		return false
	}
	var p *problem
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		if p != nil {
			return nil
		}
		switch n := n.(type) {
		case *hclsyntax.ForExpr:
			p = fail(n.OpenRange, "Unsupported expression", "A for expression is not part of this language. Repeat a block with for_each, or prepare the list in a CSV or JSON file.")
		case *hclsyntax.TemplateJoinExpr:
			p = fail(n.Range(), "Unsupported expression", "A %%{ for } directive is not part of this language. Repeat a block with for_each instead.")
		case *hclsyntax.SplatExpr:
			p = fail(n.MarkerRange, "Unsupported expression", "A splat ([*] or .*) is not part of this language. Repeat a block with for_each instead.")
		case *hclsyntax.FunctionCallExpr:
			p = checkCall(n)
		case *hclsyntax.ScopeTraversalExpr:
			p = l.checkReference(n, inEach)
		}
		return nil
	})
	if p != nil {
		l.reportProblem(p, expr.Range(), nil)
	}
	return p == nil
}

func checkCall(call *hclsyntax.FunctionCallExpr) *problem {
	f, known := functions[call.Name]
	switch {
	case !known:
		return fail(call.NameRange, "Unknown function", "There is no function %s.%s", quote(call.Name), didYouMean(call.Name, functionNames()))
	case call.ExpandFinal:
		return fail(call.Range(), "Unsupported expression", "An argument list can't be expanded with \"...\". Write the arguments out.")
	case len(call.Args) < f.min, f.max >= 0 && len(call.Args) > f.max:
		return fail(call.Range(), "Wrong number of arguments", "It is %s; here are %d arguments.", f.usage, len(call.Args))
	}
	return nil
}

func (l *loader) checkReference(e *hclsyntax.ScopeTraversalExpr, inEach bool) *problem {
	step := ""
	if len(e.Traversal) > 1 {
		if attr, ok := e.Traversal[1].(hcl.TraverseAttr); ok {
			step = attr.Name
		}
	}
	switch root := e.Traversal.RootName(); root {
	case "local":
		if step == "" {
			return fail(e.Range(), "Invalid reference", "A local value is written local.NAME.")
		}
		if l.scope.locals[step] == nil && !l.partial {
			return fail(e.Range(), "Unknown local value", "No locals block sets %s.%s", quote(step), didYouMean(step, options(l.scope.locals)))
		}
		l.scope.used[step] = true
	case "var":
		if step == "" {
			return fail(e.Range(), "Invalid reference", "A variable is written var.NAME.")
		}
		if l.scope.variables[step] == nil && !l.partial {
			return fail(e.Range(), "Unknown variable", "No variable block declares %s.%s", quote(step), didYouMean(step, options(l.scope.variables)))
		}
	case "each":
		if !inEach {
			return fail(e.Range(), "Invalid reference", "each.key and each.value exist only inside a block with for_each.")
		}
		if step != "key" && step != "value" {
			return fail(e.Range(), "Invalid reference", "Of each there are each.key and each.value.")
		}
	default:
		return fail(e.Range(), "Invalid reference", "%s is none of local.NAME, var.NAME, each.key and each.value.%s Text must be in quotes.", quote(root), didYouMean(root, []string{"local", "var", "each"}))
	}
	return nil
}

// evaluate returns an attribute's value; ok is false when it has none, which was reported.
func (l *loader) evaluate(expr hcl.Expression, in *each) (v any, ok bool) {
	node, isNative := expr.(hclsyntax.Expression)
	if !isNative || l.stopped || l.broken[expr] {
		return nil, false
	}
	v, p := l.eval(node, in)
	if p != nil {
		l.reportProblem(p, expr.Range(), in)
		return nil, false
	}
	return v, true
}

func (l *loader) eval(expr hclsyntax.Expression, in *each) (any, *problem) {
	if p := l.step(expr); p != nil {
		return nil, p
	}
	switch e := expr.(type) {
	case *hclsyntax.LiteralValueExpr:
		return literal(e.Val, e.SrcRange)
	case *hclsyntax.TemplateExpr:
		return l.evalTemplate(e, in)
	case *hclsyntax.TemplateWrapExpr:
		return l.eval(e.Wrapped, in)
	case *hclsyntax.ParenthesesExpr:
		return l.eval(e.Expression, in)
	case *hclsyntax.ScopeTraversalExpr:
		return l.evalReference(e, in)
	case *hclsyntax.RelativeTraversalExpr:
		v, p := l.eval(e.Source, in)
		if p != nil {
			return nil, p
		}
		return follow(v, e.Traversal)
	case *hclsyntax.IndexExpr:
		v, p := l.eval(e.Collection, in)
		if p != nil {
			return nil, p
		}
		key, p := l.eval(e.Key, in)
		if p != nil {
			return nil, p
		}
		return index(v, key, e.BracketRange)
	case *hclsyntax.TupleConsExpr:
		list := make([]any, len(e.Exprs))
		for i, item := range e.Exprs {
			var p *problem
			if list[i], p = l.eval(item, in); p != nil {
				return nil, p
			}
		}
		return list, nil
	case *hclsyntax.ObjectConsExpr:
		return l.evalObject(e, in)
	case *hclsyntax.ConditionalExpr:
		yes, p := l.evalBool(e.Condition, in)
		if p != nil {
			return nil, p
		}
		if yes {
			return l.eval(e.TrueResult, in)
		}
		return l.eval(e.FalseResult, in)
	case *hclsyntax.UnaryOpExpr:
		if e.Op == hclsyntax.OpLogicalNot {
			yes, p := l.evalBool(e.Val, in)
			return !yes, p
		}
		n, p := l.evalNumber(e.Val, in)
		return -n, p
	case *hclsyntax.BinaryOpExpr:
		return l.evalBinary(e, in)
	case *hclsyntax.FunctionCallExpr:
		return l.evalCall(e, in)
	}
	return nil, fail(expr.Range(), "Unsupported expression", "This kind of expression is not part of this language.")
}

// step counts one evaluation.
func (l *loader) step(expr hclsyntax.Expression) *problem {
	if l.steps++; l.steps > maxSteps {
		return l.exhausted(expr.Range())
	}
	return nil
}

// charge counts n bytes, or a list's items at 32 bytes each, that an expression is about to make.
func (l *loader) charge(n int, rng hcl.Range) *problem {
	if n > maxString {
		return fail(rng, "Value too large", "A value may have up to %d bytes; this one would have %d.", maxString, n)
	}
	if l.bytes += n; l.bytes > maxBytes {
		return l.exhausted(rng)
	}
	return nil
}

func (l *loader) exhausted(rng hcl.Range) *problem {
	l.stopped = true
	return fail(rng, "Too much to evaluate", "The expressions of this declaration take too much time or memory. Simplify them, or prepare their values in a CSV or JSON file.")
}

func literal(v cty.Value, rng hcl.Range) (any, *problem) {
	switch {
	case v.IsNull():
		return nil, nil
	case v.Type() == cty.Bool:
		return v.True(), nil
	case v.Type() == cty.String:
		return v.AsString(), nil
	case v.Type() == cty.Number:
		n := v.AsBigFloat()
		f, _ := n.Float64()
		if math.IsInf(f, 0) {
			return nil, fail(rng, "Number out of range", "Numbers go up to %g.", math.MaxFloat64)
		}
		if n.IsInt() && math.Abs(f) >= 1<<53 && math.Abs(f) < 1e64 && n.Text('f', 0) != formatNumber(f) {
			return nil, fail(rng, "Number too precise", "This number can't be kept exactly; the nearest one is %s. If it is an identifier, put it in quotes.", formatNumber(f))
		}
		return f, nil
	}
	return nil, fail(rng, "Unsupported expression", "This kind of value is not part of this language.")
}

func (l *loader) evalTemplate(e *hclsyntax.TemplateExpr, in *each) (any, *problem) {
	if len(e.Parts) == 1 {
		if lit, ok := e.Parts[0].(*hclsyntax.LiteralValueExpr); ok {
			return literal(lit.Val, lit.SrcRange)
		}
	}
	var out []byte
	for _, part := range e.Parts {
		v, p := l.eval(part, in)
		if p != nil {
			return nil, p
		}
		s, ok := text(v)
		if !ok {
			return nil, fail(part.Range(), "Invalid template", "%s can't be part of a text.", describe(v))
		}
		if len(out)+len(s) > maxString {
			return nil, l.charge(len(out)+len(s), e.Range())
		}
		if p := l.charge(len(s), e.Range()); p != nil {
			return nil, p
		}
		out = append(out, s...)
	}
	return string(out), nil
}

func (l *loader) evalObject(e *hclsyntax.ObjectConsExpr, in *each) (any, *problem) {
	object := make(map[string]any, len(e.Items))
	for _, item := range e.Items {
		key, p := l.evalKey(item.KeyExpr, in)
		if p != nil {
			return nil, p
		}
		if _, twice := object[key]; twice {
			return nil, fail(item.KeyExpr.Range(), "Duplicate key", "The key %s is in this object already.", quote(key))
		}
		if object[key], p = l.eval(item.ValueExpr, in); p != nil {
			return nil, p
		}
	}
	return object, nil
}

func (l *loader) evalKey(expr hclsyntax.Expression, in *each) (string, *problem) {
	if key, ok := expr.(*hclsyntax.ObjectConsKeyExpr); ok {
		expr = key.Wrapped
		if !key.ForceNonLiteral {
			if word := hcl.ExprAsKeyword(expr); word != "" {
				return word, nil
			}
			if _, isReference := expr.(*hclsyntax.ScopeTraversalExpr); isReference {
				return "", fail(expr.Range(), "Ambiguous key", "Put this in parentheses if it is a reference, or in quotes if it is text.")
			}
		}
	}
	v, p := l.eval(expr, in)
	if p != nil {
		return "", p
	}
	s, ok := text(v)
	if !ok {
		return "", fail(expr.Range(), "Invalid key", "A key must be text; this is %s.", describe(v))
	}
	return s, nil
}

func (l *loader) evalReference(e *hclsyntax.ScopeTraversalExpr, in *each) (any, *problem) {
	name := ""
	if len(e.Traversal) > 1 {
		if attr, ok := e.Traversal[1].(hcl.TraverseAttr); ok {
			name = attr.Name
		}
	}
	root := e.Traversal.RootName()
	switch {
	case root == "local" && l.scope.values[name] != nil:
		v, p := l.local(l.scope.values[name], e.Range())
		if p != nil {
			return nil, p
		}
		return follow(v, e.Traversal[2:])
	case root == "var":
		if v, ok := l.scope.inputs[name]; ok {
			return follow(v, e.Traversal[2:])
		}
	case root == "each" && in != nil && name == "key":
		return follow(in.key, e.Traversal[2:])
	case root == "each" && in != nil && name == "value":
		return follow(in.value, e.Traversal[2:])
	}
	return nil, silence // inspect reported it
}

// local evaluates a local value once, when it is first wanted.
func (l *loader) local(v *local, from hcl.Range) (any, *problem) {
	switch v.state {
	case evaluated:
		if v.err != nil {
			return nil, silence
		}
		return v.value, nil
	case evaluating:
		return nil, fail(from, "Cycle of local values", "The local value %s is defined by itself.", quote(v.attr.Name))
	}
	if l.chain++; l.chain > maxChain {
		return nil, l.exhausted(from)
	}
	v.state = evaluating
	if expr, ok := v.attr.Expr.(hclsyntax.Expression); ok && !l.broken[v.attr.Expr] {
		v.value, v.err = l.eval(expr, nil)
	} else {
		v.err = silence
	}
	v.state = evaluated
	l.chain--
	if v.err != nil {
		l.reportProblem(v.err, v.attr.Expr.Range(), nil)
		return nil, silence
	}
	return v.value, nil
}

// follow goes on from a value to what .name and [key] name in it.
func follow(v any, path hcl.Traversal) (any, *problem) {
	for _, step := range path {
		var p *problem
		switch step := step.(type) {
		case hcl.TraverseAttr:
			v, p = index(v, step.Name, step.SrcRange)
		case hcl.TraverseIndex:
			var key any
			if key, p = literal(step.Key, step.SrcRange); p == nil {
				v, p = index(v, key, step.SrcRange)
			}
		default:
			p = fail(step.SourceRange(), "Unsupported expression", "This kind of expression is not part of this language.")
		}
		if p != nil {
			return nil, p
		}
	}
	return v, nil
}

func index(v, key any, rng hcl.Range) (any, *problem) {
	switch v := v.(type) {
	case map[string]any:
		name, ok := text(key)
		if !ok {
			return nil, fail(rng, "Invalid index", "A key must be text; this is %s.", describe(key))
		}
		item, ok := v[name]
		if !ok {
			return nil, fail(rng, "Unknown attribute", "There is no %s in it.%s", quote(name), elseAmong(name, options(v)))
		}
		return item, nil
	case row:
		if name, ok := text(key); ok {
			if cell, ok := v.get(name); ok {
				return cell, nil
			}
		}
		attributes, _ := object(v)
		return index(attributes, key, rng)
	case []any:
		n, ok := number(key)
		if !ok || n != math.Trunc(n) {
			return nil, fail(rng, "Invalid index", "A list's items have whole numbers, from 0; this is %s.", describe(key))
		}
		if n < 0 || n >= float64(len(v)) {
			return nil, fail(rng, "Invalid index", "The list has %d items, counted from 0: there is no item %s.", len(v), formatNumber(n))
		}
		return v[int(n)], nil
	}
	return nil, fail(rng, "Invalid index", "%s has no items or attributes.", describe(v))
}

func (l *loader) evalBool(expr hclsyntax.Expression, in *each) (bool, *problem) {
	v, p := l.eval(expr, in)
	if p != nil {
		return false, p
	}
	b, ok := boolean(v)
	if !ok {
		return false, fail(expr.Range(), "Wrong type", "This must be true or false; it is %s.", describe(v))
	}
	return b, nil
}

func (l *loader) evalNumber(expr hclsyntax.Expression, in *each) (float64, *problem) {
	v, p := l.eval(expr, in)
	if p != nil {
		return 0, p
	}
	n, ok := number(v)
	if !ok {
		return 0, fail(expr.Range(), "Wrong type", "This must be a number; it is %s.", describe(v))
	}
	return n, nil
}

func (l *loader) evalBinary(e *hclsyntax.BinaryOpExpr, in *each) (any, *problem) {
	switch e.Op {
	case hclsyntax.OpLogicalAnd, hclsyntax.OpLogicalOr:
		left, p := l.evalBool(e.LHS, in)
		if p != nil || left == (e.Op == hclsyntax.OpLogicalOr) {
			return left, p
		}
		return l.evalBool(e.RHS, in)
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		left, p := l.eval(e.LHS, in)
		if p != nil {
			return nil, p
		}
		right, p := l.eval(e.RHS, in)
		if p != nil {
			return nil, p
		}
		if !isPlain(left) || !isPlain(right) {
			return nil, fail(e.Range(), "Wrong type", "Lists and objects can't be compared.")
		}
		return (left == right) == (e.Op == hclsyntax.OpEqual), nil
	}
	a, p := l.evalNumber(e.LHS, in)
	if p != nil {
		return nil, p
	}
	b, p := l.evalNumber(e.RHS, in)
	if p != nil {
		return nil, p
	}
	var n float64
	switch e.Op {
	case hclsyntax.OpGreaterThan:
		return a > b, nil
	case hclsyntax.OpGreaterThanOrEqual:
		return a >= b, nil
	case hclsyntax.OpLessThan:
		return a < b, nil
	case hclsyntax.OpLessThanOrEqual:
		return a <= b, nil
	case hclsyntax.OpAdd:
		n = a + b
	case hclsyntax.OpSubtract:
		n = a - b
	case hclsyntax.OpMultiply:
		n = a * b
	case hclsyntax.OpDivide:
		n = a / b
	case hclsyntax.OpModulo:
		n = math.Mod(a, b)
	default:
		return nil, fail(e.Range(), "Unsupported expression", "This operator is not part of this language.")
	}
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return nil, fail(e.Range(), "Number out of range", "The result of this calculation is no number.")
	}
	return n, nil
}

func (l *loader) evalCall(e *hclsyntax.FunctionCallExpr, in *each) (any, *problem) {
	f, ok := functions[e.Name]
	if !ok {
		return nil, silence
	}
	args := make([]any, len(e.Args))
	for i, arg := range e.Args {
		var p *problem
		if args[i], p = l.eval(arg, in); p != nil {
			return nil, p
		}
	}
	return f.call(l, call{args: args, expr: e})
}

// isPlain reports whether v is no collection.
func isPlain(v any) bool {
	switch v.(type) {
	case nil, bool, float64, string:
		return true
	}
	return false
}

// text converts a plain value to text, as a template does.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return formatNumber(v), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

func formatNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// number converts a number, or decimal text such as a CSV cell, to a finite number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		if v == "" || strings.Trim(v, "0123456789+-.eE") != "" {
			return 0, false
		}
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	}
	return 0, false
}

func boolean(v any) (yes, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		return v == "true", v == "true" || v == "false"
	}
	return false, false
}

// describe names a value in a message: its kind, and itself when it is short.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "the text " + quote(v)
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return fmt.Sprintf("a list of %d items", len(v))
	case set:
		return fmt.Sprintf("a set of %d items", len(v))
	case map[string]any:
		return fmt.Sprintf("an object with %d attributes", len(v))
	case row:
		return fmt.Sprintf("an object with %d attributes", len(v.columns))
	}
	return "something else"
}

// weigh adds up the items and bytes of a value, up to limit. Values share their parts, so that few bytes of source
// can make a value that is endless to whoever walks all of it. ok is false when it is too large or too deep.
func weigh(v any, limit, depth int) (n int, ok bool) {
	if depth == 0 {
		return 0, false
	}
	n = 1
	add := func(v any) bool {
		m, ok := weigh(v, limit-n, depth-1)
		n += m
		return ok && n <= limit
	}
	switch v := v.(type) {
	case string:
		n += len(v)
	case []any:
		return n, !slices.ContainsFunc(v, func(v any) bool { return !add(v) })
	case set:
		return n, !slices.ContainsFunc(v, func(v any) bool { return !add(v) })
	case map[string]any:
		for key, v := range v {
			if n += len(key); !add(v) {
				return n, false
			}
		}
	case row:
		for i, name := range v.columns {
			if n += len(name); !add(v.cells[v.first+i]) {
				return n, false
			}
		}
	}
	return n, n <= limit
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
