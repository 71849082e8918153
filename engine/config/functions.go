package config

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"golang.org/x/text/unicode/norm"
)

// function is one that expressions may call.
type function struct {
	usage    string
	min, max int // arguments; max is -1 for any number
	call     func(*loader, call) (any, *problem)
}

// call is one call of a function with its evaluated arguments.
type call struct {
	args []any
	expr *hclsyntax.FunctionCallExpr
}

var functions map[string]function

func init() { // not in the declaration: the functions refer to the loader, which refers to them
	functions = map[string]function{
		"concat":     {"concat(list, …), one list with the items of all", 1, -1, concat},
		"csvdecode":  {"csvdecode(text), a list with one object for each row, by the names in the first row", 1, 1, csvDecode},
		"env":        {"env(name), an environment variable, which must be set", 1, 1, env},
		"file":       {"file(path), the text of a file; the path is relative to the directory of the declaration, or of the module", 1, 1, file},
		"format":     {"format(text, value, …), the text with %s, %d, %05d, %.2f and the like replaced by the values", 1, -1, format},
		"jsondecode": {"jsondecode(text), the value of a JSON text", 1, 1, jsonDecode},
		"length":     {"length(value), the number of items of a list or object, or of characters of a text", 1, 1, length},
		"lower":      {"lower(text), in lower case", 1, 1, lower},
		"merge":      {"merge(object, …), one object with the attributes of all; where they share a name, the last one holds", 1, -1, merge},
		"range":      {"range(end), range(start, end) or range(start, end, step), the numbers from start (or 0) to before end", 1, 3, rangeOf},
		"replace":    {"replace(text, old, new), the text with every old replaced by new", 3, 3, replace},
		"tonumber":   {"tonumber(value), a number", 1, 1, toNumber},
		"toset":      {"toset(list), the list without duplicates, sorted", 1, 1, toSet},
		"tostring":   {"tostring(value), a text", 1, 1, toString},
		"upper":      {"upper(text), in upper case", 1, 1, upper},
	}
}

func functionNames() []string { return sortedKeys(functions) }

func (c call) argRange(i int) hcl.Range { return c.expr.Args[i].Range() }

func (c call) text(i int) (string, *problem) {
	s, ok := text(c.args[i])
	if !ok {
		return "", fail(c.argRange(i), "Wrong type", "This must be text; it is %s. It is %s.", describe(c.args[i]), functions[c.expr.Name].usage)
	}
	return s, nil
}

func (c call) list(i int) ([]any, *problem) {
	switch v := c.args[i].(type) {
	case []any:
		return v, nil
	case set:
		return v, nil
	}
	return nil, fail(c.argRange(i), "Wrong type", "This must be a list; it is %s. It is %s.", describe(c.args[i]), functions[c.expr.Name].usage)
}

// checkItems refuses a list of n items that is about to be made when that is too many.
func (l *loader) checkItems(n int, rng hcl.Range) *problem {
	if n > maxItems {
		return fail(rng, "Value too large", "A list may have up to %d items; this one would have %d.", maxItems, n)
	}
	return l.charge(32*n, rng)
}

func concat(l *loader, c call) (any, *problem) {
	var out []any
	for i := range c.args {
		items, p := c.list(i)
		if p != nil {
			return nil, p
		}
		if len(out)+len(items) > maxItems {
			return nil, l.checkItems(len(out)+len(items), c.expr.Range())
		}
		if p := l.checkItems(len(items), c.expr.Range()); p != nil {
			return nil, p
		}
		out = append(out, items...)
	}
	return out, nil
}

func merge(l *loader, c call) (any, *problem) {
	out := map[string]any{}
	for i, arg := range c.args {
		attributes, ok := object(arg)
		if !ok {
			return nil, fail(c.argRange(i), "Wrong type", "This must be an object; it is %s.", describe(arg))
		}
		if p := l.charge(64*len(attributes), c.expr.Range()); p != nil {
			return nil, p
		}
		for key, v := range attributes {
			out[key] = v
		}
	}
	return out, nil
}

func file(l *loader, c call) (any, *problem) {
	name, p := c.text(0)
	if p != nil {
		return nil, p
	}
	inside := l.scope.path(name)
	text, ok := l.texts[inside]
	if !ok {
		data, err := l.read(inside)
		if err != nil {
			return nil, fail(c.argRange(0), "File not readable", "%s: %s.", quote(name), reason(err))
		}
		if !utf8.Valid(data) {
			return nil, fail(c.argRange(0), "File not readable", "%s is no UTF-8 text.", quote(name))
		}
		text = string(norm.NFC.Bytes(bytes.TrimPrefix(data, []byte("\ufeff"))))
		l.texts[inside] = text
	}
	return text, l.charge(len(text), c.expr.Range())
}

func env(l *loader, c call) (any, *problem) {
	name, p := c.text(0)
	if p != nil {
		return nil, p
	}
	v := l.env(name)
	switch {
	case v == "":
		return nil, fail(c.argRange(0), "Environment variable not set", "The environment variable %s is not set, or empty.", quote(name))
	case !utf8.ValidString(v):
		return nil, fail(c.argRange(0), "Environment variable not set", "The environment variable %s is no UTF-8 text.", quote(name))
	}
	v = norm.NFC.String(v)
	l.fromEnv[name] = v
	return v, l.charge(len(v), c.expr.Range())
}

func csvDecode(l *loader, c call) (any, *problem) {
	s, p := c.text(0)
	if p != nil {
		return nil, p
	}
	r := csv.NewReader(strings.NewReader(s))
	r.ReuseRecord = true
	head, err := r.Read()
	if err == io.EOF {
		return nil, fail(c.argRange(0), "Invalid CSV", "The text is empty; its first row must name the columns.")
	}
	if err != nil {
		return nil, csvProblem(c, err)
	}
	columns := slices.Clone(head)
	for i, name := range columns {
		if name == "" || slices.Contains(columns[:i], name) {
			return nil, fail(c.argRange(0), "Invalid CSV", "Column %d of the first row is named %s; the names must be unique and not empty.", i+1, quote(name))
		}
	}
	t := &table{columns: columns}
	var rows []any
	for {
		record, err := r.Read()
		if err == io.EOF {
			return rows, l.charge(len(s), c.expr.Range())
		}
		if err != nil {
			return nil, csvProblem(c, err)
		}
		if p := l.charge(48+16*len(columns), c.expr.Range()); p != nil {
			return nil, p
		}
		rows = append(rows, row{t, len(t.cells)})
		if t.cells = append(t.cells, record...); len(rows) > maxItems {
			return nil, l.checkItems(len(rows), c.expr.Range())
		}
	}
}

func csvProblem(c call, err error) *problem {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return fail(c.argRange(0), "Invalid CSV", "Line %d, column %d of the CSV text: %s.", e.Line, e.Column, e.Err)
	}
	return fail(c.argRange(0), "Invalid CSV", "%s.", err)
}

func jsonDecode(l *loader, c call) (any, *problem) {
	s, p := c.text(0)
	if p != nil {
		return nil, p
	}
	if p := l.charge(len(s), c.expr.Range()); p != nil {
		return nil, p
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	if err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return jsonValue(v, c)
		}
		err = errors.New("there is more after the value")
	}
	at := dec.InputOffset()
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	}
	line := 1 + strings.Count(s[:min(int(at), len(s))], "\n")
	return nil, fail(c.argRange(0), "Invalid JSON", "Line %d of the JSON text: %s.", line, err)
}

// jsonValue replaces the numbers in a decoded value, in place.
func jsonValue(v any, c call) (any, *problem) {
	var p *problem
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return nil, fail(c.argRange(0), "Invalid JSON", "The number %s is out of range.", quote(v.String()))
		}
		if n, err := strconv.ParseInt(v.String(), 10, 64); math.Abs(f) >= 1<<53 && (err != nil || int64(f) != n) && !strings.ContainsAny(v.String(), ".eE") {
			return nil, fail(c.argRange(0), "Invalid JSON", "The number %s can't be kept exactly. If it is an identifier, put it in quotes.", v)
		}
		return f, nil
	case []any:
		for i := range v {
			if v[i], p = jsonValue(v[i], c); p != nil {
				return nil, p
			}
		}
	case map[string]any:
		for key := range v {
			if v[key], p = jsonValue(v[key], c); p != nil {
				return nil, p
			}
		}
	}
	return v, nil
}

func rangeOf(l *loader, c call) (any, *problem) {
	bounds := make([]float64, len(c.args))
	for i, arg := range c.args {
		n, ok := number(arg)
		if !ok {
			return nil, fail(c.argRange(i), "Wrong type", "This must be a number; it is %s.", describe(arg))
		}
		bounds[i] = n
	}
	start, end, step := 0.0, bounds[0], 1.0
	if len(bounds) > 1 {
		start, end = bounds[0], bounds[1]
	}
	if len(bounds) > 2 {
		step = bounds[2]
	} else if end < start {
		step = -1
	}
	if step == 0 || (end-start)*step < 0 {
		return nil, fail(c.expr.Range(), "Invalid range", "Steps of %g never lead from %g to %g.", step, start, end)
	}
	count := math.Ceil((end - start) / step)
	if !(count <= maxItems) {
		return nil, fail(c.expr.Range(), "Value too large", "A range may have up to %d numbers; this one would have %.0f.", maxItems, count)
	}
	if p := l.checkItems(int(count), c.expr.Range()); p != nil {
		return nil, p
	}
	list := make([]any, int(count))
	for i := range list {
		list[i] = start + float64(i)*step
	}
	return list, nil
}

var formatVerb = regexp.MustCompile(`%(?:%|[-+ 0#]*[0-9]{0,3}(?:\.[0-9]{1,3})?([a-zA-Z]))?`)

func format(l *loader, c call) (any, *problem) {
	pattern, p := c.text(0)
	if p != nil {
		return nil, p
	}
	var out strings.Builder
	next, at := 1, 0
	for _, m := range formatVerb.FindAllStringSubmatchIndex(pattern, -1) {
		out.WriteString(pattern[at:m[0]])
		verb := pattern[m[0]:m[1]]
		at = m[1]
		if verb == "%%" {
			out.WriteByte('%')
			continue
		}
		if m[2] < 0 {
			return nil, fail(c.argRange(0), "Invalid format", "A %% must be followed by a width and one of s, d, f, g, e, x, X; write %%%% for the sign itself.")
		}
		if next == len(c.args) {
			return nil, fail(c.expr.Range(), "Invalid format", "There is no value for %s.", quote(verb))
		}
		v, rng := c.args[next], c.argRange(next)
		next++
		switch pattern[m[2]] {
		case 's', 'v':
			s, ok := text(v)
			if !ok {
				return nil, fail(rng, "Wrong type", "%s needs text; this is %s.", quote(verb), describe(v))
			}
			fmt.Fprintf(&out, verb[:len(verb)-1]+"s", s)
		case 'd', 'x', 'X':
			n, ok := number(v)
			if !ok || n != math.Trunc(n) || math.Abs(n) > 1<<53 {
				return nil, fail(rng, "Wrong type", "%s needs a whole number; this is %s.", quote(verb), describe(v))
			}
			fmt.Fprintf(&out, verb, int64(n))
		case 'f', 'g', 'e':
			n, ok := number(v)
			if !ok {
				return nil, fail(rng, "Wrong type", "%s needs a number; this is %s.", quote(verb), describe(v))
			}
			fmt.Fprintf(&out, verb, n)
		default:
			return nil, fail(c.argRange(0), "Invalid format", "%s is no format; there are s, d, f, g, e, x, X.", quote(verb))
		}
		if out.Len() > maxString {
			break
		}
	}
	if next < len(c.args) {
		return nil, fail(c.argRange(next), "Invalid format", "There is no %% in the text for this value.")
	}
	out.WriteString(pattern[at:])
	return out.String(), l.charge(out.Len(), c.expr.Range())
}

func replace(l *loader, c call) (any, *problem) {
	var texts [3]string
	for i := range texts {
		var p *problem
		if texts[i], p = c.text(i); p != nil {
			return nil, p
		}
	}
	if texts[1] == "" {
		return nil, fail(c.argRange(1), "Invalid argument", "The text to replace is empty.")
	}
	n := strings.Count(texts[0], texts[1])
	if p := l.charge(len(texts[0])+n*max(0, len(texts[2])-len(texts[1])), c.expr.Range()); p != nil {
		return nil, p
	}
	return strings.ReplaceAll(texts[0], texts[1], texts[2]), nil
}

func length(_ *loader, c call) (any, *problem) {
	switch v := c.args[0].(type) {
	case string:
		return float64(utf8.RuneCountInString(v)), nil
	case []any:
		return float64(len(v)), nil
	case set:
		return float64(len(v)), nil
	case map[string]any:
		return float64(len(v)), nil
	case row:
		return float64(len(v.columns)), nil
	}
	return nil, fail(c.argRange(0), "Wrong type", "%s has no length.", describe(c.args[0]))
}

func lower(l *loader, c call) (any, *problem) { return convert(l, c, strings.ToLower) }
func upper(l *loader, c call) (any, *problem) { return convert(l, c, strings.ToUpper) }

func convert(l *loader, c call, f func(string) string) (any, *problem) {
	s, p := c.text(0)
	if p != nil {
		return nil, p
	}
	if p := l.charge(len(s), c.expr.Range()); p != nil {
		return nil, p
	}
	return f(s), nil
}

func toNumber(_ *loader, c call) (any, *problem) {
	n, ok := number(c.args[0])
	if !ok {
		return nil, fail(c.argRange(0), "Wrong type", "This must be a number; it is %s.", describe(c.args[0]))
	}
	return n, nil
}

func toString(l *loader, c call) (any, *problem) {
	s, p := c.text(0)
	if p != nil {
		return nil, p
	}
	return s, nil
}

func toSet(l *loader, c call) (any, *problem) {
	items, p := c.list(0)
	if p != nil {
		return nil, p
	}
	if p := l.checkItems(len(items), c.expr.Range()); p != nil {
		return nil, p
	}
	texts := make([]string, len(items))
	for i, item := range items {
		s, ok := text(item)
		if !ok {
			return nil, fail(c.argRange(0), "Wrong type", "The items of a set must be text or numbers; item %d is %s.", i, describe(item))
		}
		texts[i] = s
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	out := make(set, len(texts))
	for i, s := range texts {
		out[i] = s
	}
	return out, nil
}
