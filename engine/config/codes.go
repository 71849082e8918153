package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Explanation is what a code stands for. Codes are stable: one that is no longer used is not given to something else.
// NSC codes are errors in a declaration, NSL codes findings of Lint, NST codes errors in a file of tests.
type Explanation struct {
	Code    string
	Summary string // of the diagnostics; … at the end stands for what differs from one to the other
	Text    string // why it is so, and what to do

	// A source with the mistake and one without. They are empty for what no short source can show.
	Wrong, Right string

	also []string // further summaries of the same
}

// Code returns the code of a diagnostic of this package, or "".
func Code(d *hcl.Diagnostic) string {
	if e := explanation(d.Summary); e != nil {
		return e.Code
	}
	return ""
}

// Explanations returns all of them, in the order of their codes.
func Explanations() []Explanation { return explanations }

var bySummary = func() map[string]*Explanation {
	m := make(map[string]*Explanation, 2*len(explanations))
	for i := range explanations {
		e := &explanations[i]
		for _, s := range append(e.also, e.Summary) {
			if m[s] != nil {
				panic("two codes for " + s)
			}
			m[s] = e
		}
	}
	return m
}()

// explanation finds a summary: itself, or else the longest beginning of it that ends in ….
func explanation(summary string) *Explanation {
	if e := bySummary[summary]; e != nil {
		return e
	}
	for end := strings.LastIndexByte(summary, ' '); end >= 0; end = strings.LastIndexByte(summary[:end], ' ') {
		if e := bySummary[summary[:end]+" …"]; e != nil {
			return e
		}
	}
	return nil
}

// summaryOf returns the summary that goes with a code.
func summaryOf(code string) string {
	for i := range explanations {
		if explanations[i].Code == code {
			return explanations[i].Summary
		}
	}
	panic("no explanation of " + code)
}
