package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// piece is a device block that stands by itself on whole lines in a site. An estate has a hundred thousand of them, and
// what HCL keeps of each token is fifty times its text: so they are parsed one by one, when they are evaluated.
type piece struct {
	site       int // offset of the { of the block around it
	start, end int // offsets
	pos        hcl.Pos
}

// cut notes a block that was just closed as a piece, if it is one. open is the offset of its {.
func (s *scanner) cut(open int) {
	if s.diags != nil {
		return
	}
	top := s.top()
	it := top.item
	if top.kind != "site" || !top.isBody || !it.isBlock || it.kind != "device" || it.labels != 1 {
		return
	}
	begin := bytes.LastIndexByte(s.src[:it.at], '\n') + 1
	if len(bytes.Trim(s.src[begin:it.at], " \t")) > 0 {
		return
	}
	end := s.pos + 1
	if rest := bytes.TrimLeft(s.src[end:], " \t"); len(rest) > 0 && rest[0] != '\n' {
		return
	}
	s.line += bytes.Count(s.src[s.counted:begin], []byte{'\n'})
	s.counted = begin
	s.found = append(s.found, piece{site: top.at, start: it.at, end: end, pos: hcl.Pos{Line: s.line, Column: it.at - begin + 1, Byte: it.at}})
}

// without returns a file's text with comments in place of its pieces, so that everything else keeps its place.
func without(src []byte, pieces []piece) []byte {
	if len(pieces) == 0 {
		return src
	}
	out := bytes.Clone(src)
	for i := 0; i < len(pieces); {
		start, end := pieces[i].start, pieces[i].end
		for i++; i < len(pieces) && pieces[i].site == pieces[i-1].site && len(bytes.TrimSpace(src[end:pieces[i].start])) == 0; i++ {
			end = pieces[i].end // one comment for those that follow one another
		}
		for j := start; j < end; j++ {
			if out[j] != '\n' {
				out[j] = ' '
			}
		}
		copy(out[start:], "/*")
		copy(out[end-2:], "*/")
	}
	return out
}

// checkPieces looks for syntax errors in pieces.
func checkPieces(filename string, src []byte, pieces []piece) (diags hcl.Diagnostics) {
	for _, p := range pieces {
		_, found := hclsyntax.ParseConfig(src[p.start:p.end], filename, p.pos)
		diags = append(diags, found...)
	}
	return diags
}

// openPiece parses a piece inside a block. It returns nil when it can't be parsed or evaluated, which is reported.
func (l *loader) openPiece(outer *block, p piece) *block {
	const bytesPerStep = 4
	if l.steps += (p.end - p.start) / bytesPerStep; l.steps > maxSteps {
		if !l.stopped {
			l.reportProblem(l.exhausted(outer.rng), outer.rng, nil)
		}
		return nil
	}
	filename := outer.rng.Filename
	src := l.sources.Files[filename].Bytes
	file, diags := hclsyntax.ParseConfig(src[p.start:p.end], filename, p.pos)
	l.contentDiags(diags)
	if diags.HasErrors() {
		return nil
	}
	content, diags := file.Body.Content(siteSchema)
	l.contentDiags(diags)
	if len(content.Blocks) != 1 {
		return nil
	}
	b := l.block(content.Blocks[0], outer.kind)
	l.inspectBlock(b, outer.inEach)
	return b
}

// inner yields the blocks inside a block in their order. A piece is parsed for this call alone.
func (l *loader) inner(b *block, yield func(*block) bool) {
	pieces, blocks := b.pieces, b.blocks
	b.opened = true
	for len(pieces) > 0 || len(blocks) > 0 {
		if len(blocks) > 0 && (len(pieces) == 0 || blocks[0].rng.Start.Byte < pieces[0].start) {
			if !yield(blocks[0]) {
				return
			}
			blocks = blocks[1:]
			continue
		}
		inner := l.openPiece(b, pieces[0])
		if inner != nil {
			goOn := yield(inner)
			l.forget(inner)
			if !goOn {
				return
			}
		}
		pieces = pieces[1:]
	}
}

// forget lets go of a block that was parsed for one use.
func (l *loader) forget(b *block) {
	for _, attr := range b.attrs {
		delete(l.broken, attr.Expr)
	}
	for _, inner := range b.blocks {
		l.forget(inner)
	}
}

// openRest checks the pieces in blocks that were never evaluated.
func (l *loader) openRest(blocks []*block) {
	for _, b := range blocks {
		if !b.opened {
			l.inner(b, func(*block) bool { return true })
		}
		l.openRest(b.blocks)
	}
}
