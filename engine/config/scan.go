package config

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/nsready/nsready/engine/registry"
)

// Limits of one source file. They are far above what a person writes, and below what makes HCL's parser, which recurses
// on every bracket and keeps some hundred bytes for every token, exhaust the stack or the memory.
const (
	maxFileSize  = 64 << 20
	maxDataSize  = 256 << 20 // of one that file() reads
	maxLine      = 64 << 10
	maxNesting   = 32
	maxOperators = 1000    // in one expression, between two commas
	maxNumber    = 64      // bytes of one number
	maxTokens    = 8 << 20 // of one file
	maxInvalid   = 100     // characters outside strings that no token starts with
	maxPieces    = 1 << 30 // bytes times lines (or $ and %) of all texts: HCL joins the pieces one by one
)

// scan looks over the bytes of a file before HCL's parser sees them. What it refuses is either not text, or nested
// or chained beyond what the parser survives. It follows HCL's own scanner through strings, heredocs and templates.
// It returns the text with its line ends normalised, and the pieces that can be parsed apart from the rest.
func scan(filename string, src []byte) (text []byte, pieces []piece, diags hcl.Diagnostics) {
	if len(src) > maxFileSize {
		return src, nil, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "File too large",
			Detail:   fmt.Sprintf("%s has %d bytes; a file may have up to %d. Split it into several files in one directory, or keep the devices in a CSV file for for_each.", filename, len(src), maxFileSize),
			Subject:  &hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		}}
	}
	if diags := scanText(filename, src); diags.HasErrors() {
		return src, nil, diags
	}
	if bytes.IndexByte(src, '\r') >= 0 {
		src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	}
	s := scanner{filename: filename, src: src, line: 1}
	s.run()
	return src, s.found, s.diags
}

// scanText finds bytes that are no readable text: at most ten places.
func scanText(filename string, src []byte) hcl.Diagnostics {
	var diags hcl.Diagnostics
	line, start := 1, 0
	report := func(at, size int, summary, detail string) {
		diags = append(diags, problemAt(filename, src, line, start, at, size, summary, detail))
	}
	for i := 0; i < len(src) && len(diags) < 10; {
		c := src[i]
		if c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		switch {
		case c == '\n':
			if i-start > maxLine {
				report(start+maxLine, 1, "Line too long", fmt.Sprintf("A line may have up to %d bytes; this one has %d.", maxLine, i-start))
			}
			line, start = line+1, i+1
		case c == '\t', c == '\r' && i+1 < len(src) && src[i+1] == '\n':
		case r == utf8.RuneError && size <= 1:
			report(i, 1, "Invalid UTF-8", fmt.Sprintf("The byte 0x%02x is no UTF-8 here. Save the file as UTF-8.", c))
		case r == '\ufeff':
			report(i, size, "Byte order mark", "The file contains a byte order mark (U+FEFF). Save it as UTF-8 without one.")
		case r == 0:
			report(i, 1, "NUL byte", "A NUL byte is no text. Is this file binary, or UTF-16? Save it as UTF-8.")
		case unicode.IsControl(r):
			report(i, size, "Control character", fmt.Sprintf("The control character %U is not allowed in a file. Inside a string, write \\u%04x.", r, r))
		case registry.IsBidi(r):
			report(i, size, "Bidirectional control character", fmt.Sprintf("%U reorders the text around it on the screen, so that it reads differently from what it means. Remove it.", r))
		}
		i += size
	}
	if len(src)-start > maxLine {
		report(start+maxLine, 1, "Line too long", fmt.Sprintf("A line may have up to %d bytes; this one has %d.", maxLine, len(src)-start))
	}
	return diags
}

// problemAt describes size bytes at offset at, in the line that starts at offset start.
func problemAt(filename string, src []byte, line, start, at, size int, summary, detail string) *hcl.Diagnostic {
	pos := hcl.Pos{Line: line, Column: utf8.RuneCount(src[start:at]) + 1, Byte: at}
	end := hcl.Pos{Line: line, Column: pos.Column + utf8.RuneCount(src[at:at+size]), Byte: at + size}
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: detail,
		Subject: &hcl.Range{Filename: filename, Start: pos, End: end},
	}
}

// A scanner walks over one file's tokens, by HCL's rules, and stops at the first thing that it refuses.
type scanner struct {
	filename string
	src      []byte
	pos      int
	diags    hcl.Diagnostics

	frames     []frame
	directives int   // open %{ if } and %{ for } of all frames
	braces     int   // as HCL counts them: } ends a template's sequence when the count is that of its beginning
	sequences  []int // the counts at the beginnings of the open sequences
	tokens     int
	invalid    int
	pieces     int // of all closed texts, times their bytes
	unary      int // ! and - in a row

	found   []piece
	line    int // of the byte at counted
	counted int

	comment func(from, to int) // told of the comments that end with their line; nil for nobody
}

// frame is what is open: a bracket, a string, or a template's sequence.
type frame struct {
	opener    byte // one of { ( [ $ (a sequence) " h (a heredoc)
	at        int
	operators int // in the expression so far
	questions int // among them: each nests what follows it
	empty     bool
	isFor     bool // newlines do not end a for expression

	marker      []byte // heredoc
	lineStart   bool   // heredoc: nothing but text since the line began
	directives  int    // string and heredoc: open %{ if } and %{ for }
	pieces      int    // string and heredoc: what HCL will join
	isDirective bool   // sequence: began with %{

	isBody bool   // { of a block or of the file
	kind   string // of the block
	item   item   // body: what is being read
}

// item is the attribute or block of a body that is being read, as far as it has come.
type item struct {
	begun, isBlock bool // isBlock: nothing but a word and labels so far
	at             int
	kind           string
	labels         int
}

func (s *scanner) run() {
	s.frames = append(s.frames, frame{opener: '{', isBody: true}) // the file
	for s.pos < len(s.src) && s.diags == nil {
		switch s.top().opener {
		case '"':
			s.inString()
		case 'h':
			s.inHeredoc()
		default:
			s.inCode()
		}
	}
}

func (s *scanner) top() *frame { return &s.frames[len(s.frames)-1] }

func (s *scanner) refuse(at, size int, summary, detail string) {
	start := bytes.LastIndexByte(s.src[:at], '\n') + 1
	line := 1 + bytes.Count(s.src[:start], []byte{'\n'})
	s.diags = append(s.diags, problemAt(s.filename, s.src, line, start, at, size, summary, detail))
}

func (s *scanner) push(opener byte, at int) *frame {
	s.frames = append(s.frames, frame{opener: opener, at: at, empty: true, lineStart: true})
	s.checkDepth(at)
	return s.top()
}

func (s *scanner) checkDepth(at int) {
	if len(s.frames)-1+s.directives > maxNesting {
		s.refuse(at, 1, "Nesting too deep", fmt.Sprintf("Brackets, blocks, strings and templates may be nested %d deep. Split this with locals.", maxNesting))
	}
}

func (s *scanner) pop() {
	top := s.top()
	s.directives -= top.directives
	s.pieces += top.pieces * (s.pos - top.at)
	s.frames = s.frames[:len(s.frames)-1]
}

// close ends the frame of a bracket that must have been opened by one of openers.
func (s *scanner) close(opener byte) {
	top := s.top()
	if len(s.frames) == 1 {
		s.refuse(s.pos, 1, "Unbalanced brackets", fmt.Sprintf("Nothing is open that this %q could close.", s.src[s.pos]))
		return
	}
	if top.opener != opener {
		line := 1 + bytes.Count(s.src[:top.at], []byte{'\n'})
		s.refuse(s.pos, 1, "Unbalanced brackets", fmt.Sprintf("This %q does not close the %q of line %d.", s.src[s.pos], s.src[top.at], line))
		return
	}
	s.pop()
}

func (s *scanner) inCode() {
	c := s.src[s.pos]
	if c == ' ' || c == '\t' || c == '\r' {
		s.pos++
		return
	}
	if c == '#' || c == '/' && s.peek(1) == '/' {
		from := s.pos
		if end := bytes.IndexByte(s.src[s.pos:], '\n'); end >= 0 {
			s.pos += end
		} else {
			s.pos = len(s.src)
		}
		if s.comment != nil {
			s.comment(from, s.pos)
		}
		return
	}
	if c == '/' && s.peek(1) == '*' {
		end := bytes.Index(s.src[s.pos+2:], []byte("*/"))
		if end < 0 {
			s.refuse(s.pos, 2, "Unclosed comment", "This comment is never closed by */.")
			return
		}
		s.pos += 2 + end + 2
		return
	}
	top := s.top()
	if c == '\n' {
		if top.opener == '{' && !top.isFor {
			top.operators, top.questions = 0, 0
			s.unary = 0
			top.item = item{}
		}
		s.pos++
		return
	}
	if s.tokens++; s.tokens > maxTokens {
		s.refuse(s.pos, 1, "File too large", "There is too much in this file. Split it into several files in one directory, or keep the devices in a CSV file for for_each.")
		return
	}
	first := top.empty
	top.empty = false
	header := item{}
	if top.isBody {
		header = s.readItem(top, c)
	}
	if c != '!' && c != '-' {
		s.unary = 0
	}
	switch c {
	case '{':
		s.operator('{')
		s.braces++
		inner := s.push('{', s.pos)
		inner.isBody, inner.kind = header.isBlock, header.kind
	case '(', '[':
		s.operator(c)
		s.push(c, s.pos)
	case ')':
		s.close('(')
	case ']':
		s.close('[')
	case '}':
		if n := len(s.sequences); n > 0 && s.sequences[n-1] == s.braces {
			s.sequences = s.sequences[:n-1]
			s.close('$')
		} else {
			inner := s.top().at
			s.close('{')
			s.cut(inner)
		}
		s.braces--
	case '"':
		s.push('"', s.pos)
	case '<':
		if s.peek(1) == '<' {
			s.heredoc()
			return
		}
		s.operator(c)
	case ',':
		top.operators, top.questions = 0, 0
	case '!', '-':
		s.operator(c)
		if s.unary++; s.unary > maxNesting && s.diags == nil {
			s.refuse(s.pos, 1, "Too many operators", fmt.Sprintf("Up to %d ! or - may stand in a row.", maxNesting))
		}
	case '+', '*', '/', '%', '=', '>', '&', '|', '?', '.', ':':
		s.operator(c)
	case '~': // as in ~}
	default:
		s.word(first)
		return
	}
	s.pos++
}

// readItem follows an item of a body by one token, which begins with c, and returns the item as it was before.
func (s *scanner) readItem(top *frame, c byte) item {
	before := top.item
	switch it := &top.item; {
	case !it.begun:
		*it = item{begun: true, isBlock: isIdent(c), at: s.pos}
	case c == '"' || isIdent(c):
		it.labels++
	case c != '{':
		it.isBlock = false
	}
	return before
}

func (s *scanner) peek(n int) byte {
	if s.pos+n < len(s.src) {
		return s.src[s.pos+n]
	}
	return 0
}

// operator counts what makes an expression's tree deeper.
func (s *scanner) operator(c byte) {
	top := s.top()
	top.operators++
	if c == '?' {
		top.questions++
	}
	if top.operators > maxOperators || top.questions > maxNesting {
		s.refuse(s.pos, 1, "Too many operators", fmt.Sprintf("One expression may have up to %d operators, %d of them conditions. Split it with locals.", maxOperators, maxNesting))
	}
}

// word passes over an identifier, a number, or a character that is neither.
func (s *scanner) word(first bool) {
	from := s.pos
	c := s.src[s.pos]
	switch {
	case c >= '0' && c <= '9':
		for s.pos++; s.pos < len(s.src); s.pos++ {
			c = s.src[s.pos]
			exponent := (c == 'e' || c == 'E') && (isDigit(s.peek(1)) || (s.peek(1) == '+' || s.peek(1) == '-') && isDigit(s.peek(2)))
			if exponent {
				s.pos++
			} else if !isDigit(c) && c != '.' {
				break
			}
		}
		if s.pos-from > maxNumber {
			s.refuse(from, maxNumber, "Number too long", fmt.Sprintf("A number may have up to %d digits.", maxNumber))
		}
	case isIdent(c):
		for s.pos++; s.pos < len(s.src) && (isIdent(s.src[s.pos]) || isDigit(s.src[s.pos]) || s.src[s.pos] == '-'); s.pos++ {
		}
		if first && s.peek(0) < utf8.RuneSelf {
			s.keyword(string(s.src[from:s.pos]), from)
		}
		if top := s.top(); top.isBody && top.item.at == from {
			top.item.kind = string(s.src[from:s.pos])
		}
	default:
		s.pos++
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s.src[from:])
			s.pos = from + size
			if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r) {
				return
			}
		}
		if s.invalid++; s.invalid > maxInvalid {
			s.refuse(from, s.pos-from, "Invalid character", "This and many characters before it are not part of the language. Is this an HCL file?")
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isIdent(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// keyword handles the first word of a frame, which says whether it is a for expression or a directive.
func (s *scanner) keyword(word string, at int) {
	top := s.top()
	if !top.isDirective {
		top.isFor = word == "for"
		return
	}
	text := &s.frames[len(s.frames)-2]
	switch word {
	case "if", "for":
		text.directives++
		s.directives++
		s.checkDepth(at)
	case "endif", "endfor":
		if text.directives > 0 {
			text.directives--
			s.directives--
		}
	}
}

// heredoc begins <<MARKER or <<-MARKER.
func (s *scanner) heredoc() {
	from := s.pos
	s.pos += 2
	if s.peek(0) == '-' {
		s.pos++
	}
	word := s.pos
	for s.pos < len(s.src) && (isIdent(s.src[s.pos]) || s.pos > word && (isDigit(s.src[s.pos]) || s.src[s.pos] == '-')) {
		s.pos++
	}
	marker := s.src[word:s.pos]
	if s.peek(0) == '\r' {
		s.pos++
	}
	if len(marker) == 0 || s.peek(0) != '\n' {
		s.refuse(from, 2, "Invalid heredoc", "After << there must be a marker made of letters and digits, such as EOT, and the end of the line.")
		return
	}
	s.push('h', from).marker = marker
	s.pos++
}

// piece counts one more piece of the text that is open.
func (s *scanner) piece() {
	top := s.top()
	if top.pieces++; s.pieces+top.pieces*(s.pos-top.at) > maxPieces {
		s.refuse(top.at, 1, "Text too long", "This text has too many lines, or too many $ and % signs. Put it into a file of its own and read it with file(…).")
	}
}

// sequence handles $ and % in a text: the beginning of ${ or %{, one that is escaped by doubling, or the character alone.
func (s *scanner) sequence() {
	if s.piece(); s.diags != nil {
		return
	}
	c := s.src[s.pos]
	switch {
	case s.peek(1) == c && s.peek(2) == '{':
		s.pos += 3
	case s.peek(1) == '{':
		if s.tokens++; s.tokens > maxTokens {
			s.refuse(s.pos, 1, "File too large", "There is too much in this file. Split it into several files in one directory.")
			return
		}
		s.braces++
		s.sequences = append(s.sequences, s.braces)
		s.push('$', s.pos).isDirective = c == '%'
		s.unary = 0
		s.pos += 2
		if s.peek(0) == '~' {
			s.pos++
		}
	default:
		s.pos++
	}
}

func (s *scanner) inString() {
	switch s.src[s.pos] {
	case '"':
		s.pop()
		s.pos++
	case '\\':
		s.pos += 2
	case '\n':
		s.refuse(s.top().at, 1, "Invalid multi-line string", "This string is not closed on its line. Close it with \", write \\n for a new line, or use a heredoc (<<EOT).")
	case '$', '%':
		s.sequence()
	default:
		s.pos++
	}
}

func (s *scanner) inHeredoc() {
	top := s.top()
	if top.lineStart {
		end := bytes.IndexByte(s.src[s.pos:], '\n')
		if end >= 0 && bytes.Equal(bytes.TrimSpace(s.src[s.pos:s.pos+end]), top.marker) {
			s.pop()
			s.pos += end // the newline belongs to the code
			return
		}
		top.lineStart = false
	}
	switch s.src[s.pos] {
	case '\n':
		top.lineStart = true
		s.piece()
		s.pos++
	case '$', '%':
		s.sequence()
	default:
		s.pos++
	}
}
