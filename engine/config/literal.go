package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/nsready/nsready/engine/registry"
)

// quoteText writes a text as an expression: in quotes, or, because HCL normalises what is in quotes, by way of JSON.
func quoteText(s string) string {
	if norm.NFC.IsNormalString(s) {
		return literalText(s)
	}
	return `jsondecode(` + literalText(asciiJSON(s)) + `)`
}

func literalText(s string) string {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r == '\r':
			out = append(out, `\r`...)
		case (r == '$' || r == '%') && i+1 < len(s) && s[i+1] == '{':
			out = append(out, byte(r), byte(r))
		case r == ' ' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			out = fmt.Appendf(out, `\U%08x`, r)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return string(append(out, '"'))
}

// asciiJSON writes a text or a JSON text as JSON in ASCII.
func asciiJSON(s string) string {
	var buffer bytes.Buffer
	enc := json.NewEncoder(&buffer)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a text can be encoded
	return escapeJSON(strings.TrimSuffix(buffer.String(), "\n"))
}

func escapeJSON(text string) string {
	var out strings.Builder
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf:
			out.WriteByte(byte(r))
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// maxLiteral is how deep an object is nested that is written out. The blocks around it count in what a file may nest.
const maxLiteral = 12

// objectText writes a JSON object, as an object or by way of jsondecode, or says why it can't.
func objectText(text string) (expr, why string) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil || object == nil {
		return "", "it is no JSON object"
	}
	v, ok := floats(object)
	if !ok {
		return "", "it has a number that can't be kept exactly"
	}
	if _, ok := weigh(v, maxJSON, maxDepth); !ok {
		return "", fmt.Sprintf("it has more than %d bytes, or is nested more than %d deep", maxJSON, maxDepth)
	}
	// What reading would make of it.
	again, err := json.Marshal(v)
	if err == nil && strings.Contains(string(again), `\u0000`) {
		return "", `it contains \u0000`
	}
	canonical := ""
	if err == nil {
		canonical, err = registry.CanonicalJSON(again)
	}
	if err != nil || canonical != text {
		return "", "it has a number that can't be kept exactly, or text that is no UTF-8"
	}
	if _, flat := weigh(v, math.MaxInt, maxLiteral); !flat || !norm.NFC.IsNormalString(text) {
		exact, err := json.Marshal(exponents(v))
		if err != nil {
			return "", "it can't be written as JSON"
		}
		return "jsondecode(" + literalText(escapeJSON(string(exact))) + ")", ""
	}
	return string(appendValue(nil, v)), ""
}

// floats replaces the numbers in a decoded value, as reading does.
func floats(v any) (any, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case []any:
		for i := range v {
			var ok bool
			if v[i], ok = floats(v[i]); !ok {
				return nil, false
			}
		}
	case map[string]any:
		for key := range v {
			var ok bool
			if v[key], ok = floats(v[key]); !ok {
				return nil, false
			}
		}
	}
	return v, true
}

// exponents writes the numbers that jsondecode would take for identifiers, being long, with an exponent.
func exponents(v any) any {
	switch v := v.(type) {
	case float64:
		if math.Abs(v) > 1<<53 {
			return json.Number(strconv.FormatFloat(v, 'e', -1, 64))
		}
	case []any:
		for i := range v {
			v[i] = exponents(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = exponents(v[key])
		}
	}
	return v
}

// appendValue writes a value: on one line when it is short.
func appendValue(out []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(out, "null"...)
	case bool:
		return strconv.AppendBool(out, v)
	case float64:
		return append(out, numberText(v)...)
	case string:
		return append(out, literalText(v)...)
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = string(appendValue(nil, v[i]))
		}
		return appendItems(out, '[', ']', "", items, ",")
	case map[string]any:
		items := make([]string, 0, len(v))
		for _, key := range sortedKeys(v) {
			items = append(items, keyText(key)+" = "+string(appendValue(nil, v[key])))
		}
		return appendItems(out, '{', '}', " ", items, "")
	}
	return out
}

// appendItems writes items between brackets, with pad inside them on one line, and stop after each on several.
func appendItems(out []byte, opening, closing byte, pad string, items []string, stop string) []byte {
	line := strings.Join(items, ", ")
	out = append(out, opening)
	switch {
	case len(items) == 0:
	case len(line) <= lineWidth && !strings.Contains(line, "\n"):
		out = append(append(append(out, pad...), line...), pad...)
	default:
		out = append(out, '\n')
		for _, item := range items {
			out = append(append(append(out, item...), stop...), '\n')
		}
	}
	return append(out, closing)
}

// keyText writes the key of an object: bare when it is a plain word.
func keyText(key string) string {
	plain := key != "" && isIdent(key[0]) && !slices.Contains([]string{"true", "false", "null", "for", "if"}, key)
	for i := range len(key) {
		plain = plain && (isIdent(key[i]) || isDigit(key[i]))
	}
	if plain {
		return key
	}
	return literalText(key)
}

// numberText writes long numbers with an exponent.
func numberText(v float64) string {
	if s := formatNumber(v); len(s) <= 24 {
		return s
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// list writes names on one line, or on as many as there are.
func list(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteText(name)
	}
	if line := "[" + strings.Join(quoted, ", ") + "]"; len(line) <= lineWidth {
		return line
	}
	return "[\n" + strings.Join(quoted, ",\n") + ",\n]"
}

const lineWidth = 90 // of a list or an object, before it takes several lines
