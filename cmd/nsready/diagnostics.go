package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/text/width"

	"github.com/nsready/nsready/engine/config"
)

// formatVersion of all JSON that commands print. Its major number changes when a reader would break.
const formatVersion = "1.0"

// diagnostic is a problem in a declaration, or another error, which then has only a summary.
type diagnostic struct {
	Severity string    `json:"severity"`       // error or warning
	Code     string    `json:"code,omitempty"` // for nsready explain
	Summary  string    `json:"summary"`
	Detail   string    `json:"detail,omitempty"`
	Filename string    `json:"filename,omitempty"`
	Start    *position `json:"start,omitempty"`
	End      *position `json:"end,omitempty"`     // just behind
	Snippet  string    `json:"snippet,omitempty"` // the line that Start is on

	context string // the block around it, such as device "press-01"
	offset  int    // of the snippet in its file
}

// position counts lines and columns (characters as people see them) from 1, bytes from 0.
type position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// describe completes diagnostics with the source that they point at.
func describe(diags hcl.Diagnostics, sources *config.Sources) []diagnostic {
	list := make([]diagnostic, 0, len(diags))
	for _, d := range diags {
		view := diagnostic{Severity: "error", Code: config.Code(d), Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			view.Severity = "warning"
		}
		if r := d.Subject; r != nil {
			view.Filename = r.Filename
			view.Start = &position{r.Start.Line, r.Start.Column, r.Start.Byte}
			view.End = &position{r.End.Line, r.End.Column, r.End.Byte}
			if sources != nil && sources.Files[r.Filename] != nil && !config.Confidential(d) {
				file := sources.Files[r.Filename]
				view.Snippet, view.offset = sourceLine(file.Bytes, r.Start.Byte)
				if nav, ok := file.Nav.(interface{ ContextString(int) string }); ok {
					view.context = nav.ContextString(r.Start.Byte)
				}
			}
		}
		list = append(list, view)
	}
	return list
}

// sourceLine returns the line that holds a byte, without its end, and where it starts. Of a long line it returns the part
// around the byte.
func sourceLine(src []byte, offset int) (line string, start int) {
	const before, after = 80, 120
	offset = min(max(offset, 0), len(src))
	start = bytes.LastIndexByte(src[:offset], '\n') + 1
	end := len(src)
	if n := bytes.IndexByte(src[offset:], '\n'); n >= 0 {
		end = offset + n
	}
	cut := ""
	if end-offset > after {
		end, cut = offset+after, "…"
		for end > offset && !utf8.RuneStart(src[end]) {
			end--
		}
	}
	if offset-start > before {
		for start = offset - before; start < offset && !utf8.RuneStart(src[start]); start++ {
		}
	}
	return strings.TrimSuffix(string(src[start:end]), "\r") + cut, start
}

// printDiagnostics writes diagnostics for people, and for editors that know file:line:column.
func printDiagnostics(w io.Writer, list []diagnostic) error {
	_, err := w.Write(legible(renderDiagnostics(painter(w), list)))
	return err
}

// maxAlike is how many diagnostics are shown to people that have the same code, or, without one, the same summary.
const maxAlike = 20

func renderDiagnostics(paint func(color, string) string, list []diagnostic) []byte {
	var out bytes.Buffer
	alike, shown := map[string]int{}, map[string]int{}
	for _, d := range list {
		alike[d.likeness()]++
	}
	for _, d := range list {
		like := d.likeness()
		if shown[like]++; shown[like] > maxAlike {
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('\n')
		}
		if d.Filename != "" {
			fmt.Fprintf(&out, "%s:%d:%d: ", clean(d.Filename), d.Start.Line, d.Start.Column)
		}
		tint, title := red, "Error"
		if d.Severity == "warning" {
			tint, title = yellow, "Warning"
		}
		if d.Code != "" {
			title += " " + d.Code
		}
		fmt.Fprintf(&out, "%s: %s\n", paint(tint, title), paint(bold, d.Summary))
		if strings.TrimSpace(d.Snippet) != "" {
			printSnippet(&out, paint, d, tint)
		}
		if d.Detail != "" {
			fmt.Fprintf(&out, "\n%s\n", d.Detail)
		}
		if more := alike[like] - maxAlike; more > 0 && shown[like] == maxAlike {
			fmt.Fprintf(&out, "\n… and %s more like it (-json lists all)\n", grouped(more))
		}
	}
	return out.Bytes()
}

// likeness is what diagnostics have in common of which only the first are shown.
func (d *diagnostic) likeness() string { return d.Severity + cmp.Or(d.Code, d.Summary) }

// countSeverities counts errors and warnings.
func countSeverities(list []diagnostic) (errors, warnings int) {
	for _, d := range list {
		if d.Severity == "warning" {
			warnings++
		} else {
			errors++
		}
	}
	return errors, warnings
}

// printSnippet shows the first line of the place, and marks it below: behind the line's own tabs, two columns for a wide
// character, none for a combining one.
func printSnippet(out *bytes.Buffer, paint func(color, string) string, d diagnostic, tint color) {
	within := ""
	if d.context != "" {
		within = ", in " + clean(d.context)
	}
	number := fmt.Sprintf("%4d: ", d.Start.Line)
	fmt.Fprintf(out, "\n  on %s line %d%s:\n%s", clean(d.Filename), d.Start.Line, within, number)

	// What goes on in further lines is marked to the end of this one.
	from, to := d.Start.Byte-d.offset, d.End.Byte-d.offset
	indent := strings.Repeat(" ", len(number))
	marks := 0
	for i, r := range d.Snippet {
		shown, columns := printable(r)
		out.WriteRune(shown)
		switch {
		case i >= to && i >= from:
		case i >= from:
			marks += columns
		case r == '\t':
			indent += "\t"
		default:
			indent += strings.Repeat(" ", columns)
		}
	}
	fmt.Fprintf(out, "\n%s%s\n", indent, paint(tint, strings.Repeat("^", max(marks, 1))))
}

// printable returns the character to show for r, and how many columns it takes on a terminal.
func printable(r rune) (shown rune, columns int) {
	switch {
	case r == '\t':
		return r, 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return r, 0
	case !unicode.IsPrint(r): // direction marks too, which could show something else than there is
		return unicode.ReplacementChar, 1
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return r, 2
	}
	return r, 1
}

// clean makes a name safe for a terminal: what is not printable is escaped as in Go.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// writeJSON writes one document.
func writeJSON(w io.Writer, v any) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// failure is what a command prints under -json when it could not do its work.
type failure struct {
	FormatVersion string       `json:"format_version"`
	Diagnostics   []diagnostic `json:"diagnostics"`
}
