package sheet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a file. They are far above what is real, and keep a hostile one from using up the memory.
const (
	maxRecord  = 1 << 20   // bytes of one row
	maxColumns = 64        // of the header
	maxRows    = 2_000_000 // of one file
)

// cell is one field of a row, and where it begins: column counts characters of the line, from 1.
type cell struct {
	text         string
	line, column int
}

// fault is what is wrong with the form of a row, at a place.
type fault struct {
	line, column int
	index        int // of the field, from 0
	reason       string
}

// parser reads the records of a CSV file (RFC 4180) one by one. Beyond that, a field of the JSON column may be a JSON object without
// quotes around it, if it is a whole one that a comma or the line's end follows.
type parser struct {
	in           *bufio.Reader
	jsonColumn   int // index, -1 for none
	line, column int // of the next character
	size         int // bytes of the record so far
	text         []byte
}

func newParser(in io.Reader) *parser {
	return &parser{in: bufio.NewReaderSize(in, 64<<10), jsonColumn: -1, line: 1, column: 1}
}

// errTooLong ends the reading of a file.
var errTooLong = errors.New("record too long")

func (p *parser) next() (byte, error) {
	c, err := p.in.ReadByte()
	if err != nil {
		return 0, err
	}
	if p.size++; p.size > maxRecord {
		return 0, errTooLong
	}
	switch {
	case c == '\n':
		p.line, p.column = p.line+1, 1
	case c < utf8.RuneSelf || c >= 0xc0: // not within a character
		p.column++
	}
	return c, nil
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek(n int) byte {
	if b, _ := p.in.Peek(n + 1); len(b) > n {
		return b[n]
	}
	return 0
}

// atEnd reports whether a field can end here: before a comma, a line's end, or the file's.
func (p *parser) atEnd() bool {
	c := p.peek(0)
	if c == 0 {
		_, err := p.in.Peek(1)
		return err != nil
	}
	return c == ',' || c == '\n' || c == '\r' && p.peek(1) == '\n'
}

// record reads one record. A record with a fault was passed over to the end of its line. The error is io.EOF at the end, or one
// that ends the reading.
func (p *parser) record(cells []cell) ([]cell, *fault, error) {
	if _, err := p.in.Peek(1); err != nil {
		return nil, nil, err
	}
	p.size = 0
	from := p.line
	for {
		c, wrong, err := p.field(len(cells))
		if err == nil && wrong == nil {
			if cells = append(cells, c); len(cells) > maxColumns {
				return nil, &fault{c.line, c.column, -1, fmt.Sprintf("the row has more than %d fields", maxColumns)}, p.skipLine()
			}
			switch end, _ := p.in.Peek(1); {
			case len(end) == 0:
				return cells, nil, nil
			case end[0] == ',':
				_, err = p.next()
			default:
				return cells, nil, p.skipLine()
			}
		}
		if wrong != nil && err == nil {
			err = p.skipLine()
		}
		if errors.Is(err, errTooLong) {
			err = fmt.Errorf("line %d: the row that begins here has more than %d bytes; is a quote not closed, or is this no CSV file?", from, maxRecord)
		}
		if wrong != nil || err != nil {
			return nil, wrong, err
		}
	}
}

// skipLine passes over the rest of the line.
func (p *parser) skipLine() error {
	for {
		c, err := p.next()
		if errors.Is(err, io.EOF) || err == nil && c == '\n' {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// field reads one field, up to what ends it.
func (p *parser) field(index int) (cell, *fault, error) {
	at := cell{line: p.line, column: p.column}
	wrong := func(reason string, args ...any) (cell, *fault, error) {
		return cell{}, &fault{at.line, at.column, index, fmt.Sprintf(reason, args...)}, nil
	}
	p.text = p.text[:0]
	var err error
	switch c := p.peek(0); {
	case c == '"':
		closed, err := p.quoted()
		switch {
		case err != nil:
			return cell{}, nil, err
		case !closed:
			return wrong("the quote that opens here is never closed")
		case !p.atEnd():
			line, column := p.line, p.column
			return wrong("the quoted text that begins here ends before column %d of line %d, and more follows: write a quote inside it twice, as \"\"", column, line)
		}
	case c == '{' && index == p.jsonColumn:
		if err = p.object(); err != nil {
			return cell{}, nil, err
		}
		if !json.Valid(p.text) || !p.atEnd() {
			return wrong(`JSON with commas or quotes must be quoted, with each quote in it twice: "{""city"": ""Pune""}"`)
		}
	default:
		for !p.atEnd() {
			if c, err = p.next(); err != nil {
				return cell{}, nil, err
			}
			p.text = append(p.text, c)
		}
		if i := bytes.IndexByte(p.text, '"'); i >= 0 {
			return wrong(`there is a quote inside a text that is not quoted: put the text in quotes, and write the quote twice, as ""`)
		}
	}
	at.text = string(p.text)
	return at, nil, nil
}

// quoted reads a quoted text. closed is false at the end of the file.
func (p *parser) quoted() (closed bool, err error) {
	if _, err := p.next(); err != nil {
		return false, err
	}
	for {
		c, err := p.next()
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		case c != '"':
		case p.peek(0) != '"':
			return true, nil
		default:
			if _, err := p.next(); err != nil {
				return false, err
			}
		}
		p.text = append(p.text, c)
	}
}

// object reads up to the bracket that closes the first one, within the line.
func (p *parser) object() error {
	depth, inText := 0, false
	for c := p.peek(0); c != 0 && c != '\n'; c = p.peek(0) {
		if _, err := p.next(); err != nil {
			return err
		}
		p.text = append(p.text, c)
		switch {
		case inText && c == '\\' && p.peek(0) != '\n' && p.peek(0) != 0:
			c, err := p.next()
			if err != nil {
				return err
			}
			p.text = append(p.text, c)
		case c == '"':
			inText = !inText
		case inText:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return nil
			}
		}
	}
	return nil
}

// header reads the first row, and returns the index of each column in the file, -1 for those that it has not.
func (p *parser) header(columns, required []string) (index []int, count int, err error) {
	const want = "A CSV file in UTF-8 is needed, whose first line is: "
	refuse := func(reason string, args ...any) ([]int, int, error) {
		return nil, 0, fmt.Errorf("line 1: %s.\n%s%s", fmt.Sprintf(reason, args...), want, strings.Join(columns, ","))
	}
	start, err := p.in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	switch {
	case bytes.HasPrefix(start, []byte("\ufeff")):
		if _, err := p.in.Discard(3); err != nil {
			return nil, 0, err
		}
	case bytes.HasPrefix(start, []byte{0xff, 0xfe}), bytes.HasPrefix(start, []byte{0xfe, 0xff}):
		return refuse("the file is UTF-16; save it as \"CSV UTF-8\"")
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return refuse("the file is a workbook or an archive; save it as CSV")
	}
	var cells []cell
	for len(cells) == 0 {
		var wrong *fault
		if cells, wrong, err = p.record(nil); errors.Is(err, io.EOF) {
			return refuse("the file is empty")
		} else if err != nil {
			return nil, 0, err
		}
		switch {
		case wrong != nil:
			return refuse("%s (column %d)", wrong.reason, wrong.column)
		case isBlank(cells):
			cells = nil
		}
	}
	index = make([]int, len(columns))
	for i := range index {
		index[i] = -1
	}
	for i, c := range cells {
		at := slices.Index(columns, strings.TrimSpace(c.text))
		switch {
		case at < 0 && len(cells) == 1 && strings.ContainsAny(c.text, ";\t"):
			return refuse("the columns are separated by semicolons or tabs; save the file with commas")
		case strings.IndexByte(c.text, 0) >= 0:
			return refuse("the header holds a NUL; is this a text file?")
		case at < 0:
			return refuse("there is no column %s (column %d)", quote(c.text), c.column)
		case index[at] >= 0:
			return refuse("the column %s is there twice (column %d)", quote(columns[at]), c.column)
		}
		index[at] = i
	}
	for _, name := range required {
		if index[slices.Index(columns, name)] < 0 {
			return refuse("the column %s is missing", name)
		}
	}
	return index, len(cells), nil
}

// isBlank reports whether a row says nothing: an empty line, or one of commas, as spreadsheets leave behind.
func isBlank(cells []cell) bool {
	return !slices.ContainsFunc(cells, func(c cell) bool { return strings.TrimSpace(c.text) != "" })
}

// quote shows input in a message: escaped, and cut when long.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}
