package main

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// color is the number of an ANSI escape sequence.
type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	bold   color = "1"
)

// painter returns a function that colors text when w is a terminal, or CLICOLOR_FORCE says that it is for one, and its user did
// not forbid it (no-color.org, bixense.com/clicolors).
func painter(w io.Writer) func(color, string) string {
	forced := isOn(os.Getenv("CLICOLOR_FORCE"))
	if os.Getenv("NO_COLOR") != "" || !forced && (os.Getenv("TERM") == "dumb" || !isTerminal(w)) {
		return func(_ color, text string) string { return text }
	}
	return func(c color, text string) string { return "\x1b[" + string(c) + "m" + text + "\x1b[0m" }
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// inASCII writes the signs that are this program's own without letters of Unicode.
var inASCII = strings.NewReplacer("…", "...", "\ufffd", "?")

// legible is text for people as their locale can show it. Other characters, as in names, stay.
func legible(text []byte) []byte {
	if showsUnicode() || bytes.IndexFunc(text, func(r rune) bool { return r > '~' }) < 0 {
		return text
	}
	return []byte(inASCII.Replace(string(text)))
}

// showsUnicode reports whether the locale's encoding is UTF-8. Without a locale it is that of C, which is ASCII.
func showsUnicode() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}
