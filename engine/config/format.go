package config

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format returns a file in canonical style: indentation and alignment as HCL's tools have it, lines that end in LF
// without spaces before, one newline at the end. It refuses a file that it can't parse, and it is idempotent.
func Format(filename string, src []byte) ([]byte, hcl.Diagnostics) {
	file, pieces, diags := parse(filename, src)
	if !diags.HasErrors() {
		diags = append(diags, checkPieces(filename, file.Bytes, pieces)...)
	}
	if diags.HasErrors() {
		return nil, diags
	}
	out := hclwrite.Format(file.Bytes)
	out = append(bytes.TrimRight(out, "\n \t"), '\n')
	return out, diags
}
