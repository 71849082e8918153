package config

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// redact replaces the values of environment variables in a message by their names: they may be secret, and messages end up
// in logs. A value of fewer than four bytes is none.
func (l *loader) redact(message string) string {
	longestFirst := slices.SortedFunc(maps.Keys(l.fromEnv), func(a, b string) int { // one may be a part of another
		return cmp.Or(cmp.Compare(len(l.fromEnv[b]), len(l.fromEnv[a])), strings.Compare(a, b))
	})
	for _, name := range longestFirst {
		value := l.fromEnv[name]
		if len(value) < 4 {
			continue
		}
		quoted := strconv.Quote(value)
		for _, shown := range []string{value, quoted[1 : len(quoted)-1]} {
			message = replaceFold(message, shown, "$"+name)
			// quote cuts what is long: what is left of the value then stands before the mark.
			head, tail, cut := strings.Cut(message, "\"…")
			if !cut {
				continue
			}
			for n := min(len(shown), len(head)); n >= 4; n-- {
				if strings.EqualFold(head[len(head)-n:], shown[:n]) {
					message = head[:len(head)-n] + "$" + name + "\"…" + tail
					break
				}
			}
		}
	}
	return message
}

// replaceFold is strings.ReplaceAll whatever the case, where folding keeps the length.
func replaceFold(s, old, new string) string {
	low, lowOld := strings.ToLower(s), strings.ToLower(old)
	if len(low) != len(s) || len(lowOld) != len(old) {
		return strings.ReplaceAll(s, old, new)
	}
	var out strings.Builder
	for {
		i := strings.Index(low, lowOld)
		if i < 0 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:i] + new)
		s, low = s[i+len(old):], low[i+len(old):]
	}
}
