package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what is declared or imported, in bytes.
const (
	MaxName = 128      // of a name, identifier or unit
	MaxText = 4 << 10  // of a description
	MaxJSON = 64 << 10 // of metadata or a location
)

// NameFault says what keeps a text from being a name, such as "is empty", or "".
func NameFault(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > MaxName:
		return fmt.Sprintf("has %d bytes; a name may have up to %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.TrimSpace(name) != name:
		return "begins or ends with a space"
	}
	for _, r := range name {
		if unicode.IsControl(r) || IsBidi(r) || r == '\ufeff' || r == '\u200b' {
			return fmt.Sprintf("contains the invisible character %U", r)
		}
	}
	return ""
}

// ControlIn returns the first character of a text that reads as something else than it is: a control character, or one
// that reorders others. A text of several lines may have line feeds and tabs.
func ControlIn(text string, lines bool) (r rune, found bool) {
	for _, r := range text {
		if unicode.IsControl(r) && (r != '\n' && r != '\t' || !lines) || IsBidi(r) {
			return r, true
		}
	}
	return 0, false
}

// IsBidi reports whether a character reorders the text around it on the screen.
func IsBidi(r rune) bool {
	return r == 0x061c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func (b Bound) String() string {
	if !b.Set {
		return ""
	}
	return formatFloat(b.Value)
}

// BoundOf returns a set Bound.
func BoundOf(v float64) Bound { return Bound{Set: true, Value: v} }

func formatFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
func formatInt(v int) string       { return strconv.Itoa(v) }
func formatBool(v bool) string     { return strconv.FormatBool(v) }

// FormatDuration writes 0 as "" and whole days as "90d"; otherwise as time.Duration does, without zero parts.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return ""
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

func formatAddress(a Address) string {
	if a == (Address{}) {
		return ""
	}
	return a.String()
}

// CanonicalJSON rewrites a JSON object with sorted keys, no spaces and numbers without exponents or trailing zeros,
// so that it reads the same after PostgreSQL kept it as jsonb; "" and an empty object become "".
func CanonicalJSON(text []byte) (string, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return "", nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return "", err
	}
	if len(object) == 0 {
		return "", nil
	}
	canonicalNumbers(object)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(object); err != nil {
		return "", err
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func canonicalNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = canonicalNumbers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = canonicalNumbers(v[i])
		}
	case json.Number:
		if f, err := v.Float64(); err == nil && (strings.ContainsAny(v.String(), ".eE") || f == 0) {
			return json.Number(strconv.FormatFloat(f+0, 'f', -1, 64)) // not -0
		}
	}
	return v
}
