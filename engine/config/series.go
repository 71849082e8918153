package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// maxSamples is how many samples the series of a test may have together, those without a value among them.
const maxSamples = 5_000_000

// Run is a part of a series: Count samples whose values begin at First and go on in steps of Step, or Count samples that
// have no value when Missing. A value that is NaN is a null.
type Run struct {
	First, Step float64
	Count       int
	Missing     bool
}

// Value returns the value of sample i.
func (r Run) Value(i int) float64 { return r.First + float64(i)*r.Step }

const seriesNumber = `(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?`

var (
	seriesWord = regexp.MustCompile(`[^ \t\n]+`)
	seriesForm = regexp.MustCompile(`^(?:(_)|([+-]?` + seriesNumber + `|NaN)([+-]` + seriesNumber + `)?)(?:x([0-9]{1,9}))?$`)
)

// parseSeries reads a series of at most most samples:
//
//	230        a value
//	230x3      230 and then three times again
//	230+2x3    230 232 234 236
//	230-2x3    230 228 226 224
//	_          a sample without a value
//	_x3        three of them
//	NaN        a null
//
// It says why it can't, and where: at is the first byte of what is wrong, size its bytes.
func parseSeries(s string, most int) (runs []Run, at, size int, why string) {
	total := 0
	for _, word := range seriesWord.FindAllStringIndex(s, -1) {
		text := s[word[0]:word[1]]
		wrong := func(why string, args ...any) ([]Run, int, int, string) {
			return nil, word[0], len(text), quote(text) + " " + fmt.Sprintf(why, args...)
		}
		m := seriesForm.FindStringSubmatch(text)
		if m == nil {
			return wrong("is not understood: want a value such as 230, 230x3, 230+2x3, NaN, _ or _x3")
		}
		missing, first, step, count := m[1] != "", m[2], m[3], m[4]
		r := Run{Count: 1, Missing: missing}
		if count != "" {
			n, _ := strconv.Atoi(count) // at most nine digits
			if r.Count = n + 1; missing {
				r.Count = n
			}
		}
		switch {
		case missing && r.Count == 0:
			return wrong("is no sample")
		case step != "" && count == "":
			return wrong("has a step and does not say how many: write %sx10 for ten steps", text)
		case step != "" && first == "NaN":
			return wrong("has a step that leads nowhere")
		}
		if !missing {
			r.First, _ = strconv.ParseFloat(first, 64)
			if step != "" {
				r.Step, _ = strconv.ParseFloat(step, 64)
			}
			if last := r.Value(r.Count - 1); first != "NaN" && (math.IsInf(r.First, 0) || math.IsInf(r.Step, 0) || math.IsInf(last, 0) || math.IsNaN(last)) {
				return wrong("leads beyond the numbers, which go up to %g", math.MaxFloat64)
			}
		}
		if total += r.Count; total > most {
			return wrong("makes too many samples: the series of a test may have %d together", maxSamples)
		}
		runs = append(runs, r)
	}
	if total == 0 {
		return nil, 0, len(s), "there is no value in it"
	}
	return runs, 0, 0, ""
}
