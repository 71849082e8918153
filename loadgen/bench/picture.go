package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

const (
	pictureWidth = 860
	nameWidth    = 400 // of the texts on the left
	barWidth     = 300 // of a goal
	lineHeight   = 26
)

// picture is the result as SVG: how much of each goal is reached, and the latencies at half load.
func (r *Result) picture() []byte {
	var b bytes.Buffer
	text := func(x, y int, class, s string) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n", x, y, class, html.EscapeString(s))
	}
	y := 30
	text(20, y, "title", "NSReady: how much of each goal is reached")
	y += 20
	text(20, y, "small", fmt.Sprintf("%s, %d cores, PostgreSQL %s, commit %.12s, medians of %d", r.Machine.CPU, r.Machine.Cores,
		r.Machine.PostgreSQL["server_version"], r.Commit, r.Rounds))
	y += 30
	top := y - 12
	for _, p := range r.Phases {
		for _, m := range p.Figures {
			if m.Goal == nil {
				continue
			}
			class := "short"
			if m.Goal.Met {
				class = "met"
			}
			width := int(barWidth * min(m.Goal.Reached, 1.3))
			text(20, y+4, "name", p.Name+": "+m.Name)
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"16\" class=\"%s\"/>\n", nameWidth, y-9, width, class)
			text(nameWidth+6, y+4, "value", format(m.Median)+" "+m.Unit)
			y += lineHeight
		}
	}
	fmt.Fprintf(&b, "<line x1=\"%[1]d\" x2=\"%[1]d\" y1=\"%d\" y2=\"%d\" class=\"goal\"/>\n", nameWidth+barWidth, top, y-lineHeight+12)
	text(nameWidth+barWidth+4, top+2, "small", "goal")
	y += 20
	text(20, y, "title", "Acknowledgement at half of the maximum: p50, p99, p99.9 in ms")
	y += 30
	// A logarithmic scale from 0.1 to 1000 ms.
	place := func(ms float64) int {
		const left, right = 160, pictureWidth - 40
		return left + int((right-left)*min(max((math.Log10(ms)+1)/4, 0), 1))
	}
	top = y - 12
	for _, kind := range []struct{ key, name string }{{"half.single", "single events"}, {"half.x100", "batches of 100"}} {
		ms := []float64{r.median(kind.key + ".p50"), r.median(kind.key + ".p99"), r.median(kind.key + ".p99_9")}
		text(20, y+4, "name", kind.name)
		if ms[0] == 0 {
			text(160, y+4, "small", "not measured")
			y += 2 * lineHeight
			continue
		}
		fmt.Fprintf(&b, "<line x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%[3]d\" class=\"strip\"/>\n", place(ms[0]), place(ms[2]), y)
		for i, v := range ms {
			fmt.Fprintf(&b, "<circle cx=\"%d\" cy=\"%d\" r=\"5\" class=\"dot\"/>\n", place(v), y)
			above := y - 10
			if i == 1 {
				above = y + 20
			}
			text(place(v)-12, above, "small", format(v))
		}
		y += 2 * lineHeight
	}
	goal := figureOf("half.single.p99").atMost
	fmt.Fprintf(&b, "<line x1=\"%[1]d\" x2=\"%[1]d\" y1=\"%d\" y2=\"%d\" class=\"goal\"/>\n", place(goal), top, y-lineHeight)
	text(place(goal)-40, y-lineHeight+14, "small", fmt.Sprintf("goal of p99: %g ms", goal))
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">
<style>.title{font-size:16px;font-weight:bold}.small{font-size:11px;fill:#555}.value{font-size:11px}.met{fill:#8fc98b}.short{fill:#e6b566}
.goal{stroke:#333;stroke-dasharray:4 3}.strip{stroke:#7a9cc6;stroke-width:3}.dot{fill:#2f5f98}</style>
<rect width="100%%" height="100%%" fill="white"/>
`, pictureWidth, y+10)
	return append([]byte(head), append(b.Bytes(), "</svg>\n"...)...)
}

// median returns the median of a figure, 0 when it was not measured.
func (r *Result) median(key string) float64 {
	for _, p := range r.Phases {
		for _, m := range p.Figures {
			if m.Key == key {
				return m.Median
			}
		}
	}
	return 0
}
