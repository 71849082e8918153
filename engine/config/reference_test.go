package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/declaration.md has every block with its attributes, where it may stand, and every function, and none that there is not.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/declaration.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([a-z_0-9]+)[^`]*`")
	names := func(text string) (list []string) {
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
		return list
	}
	rows := map[string][]string{} // the blocks, and below them their attributes
	columns := 3
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		kind := names(cells[0])
		switch {
		case strings.HasPrefix(line, "| block"):
			columns = len(cells)
		case strings.HasPrefix(line, "| function"):
			columns = 2
		case !strings.HasPrefix(line, "| `") || len(kind) == 0 || columns == 2:
		case columns == 3:
			rows[kind[0]] = names(cells[1])
		default:
			for in := range strings.SplitSeq(cells[1], ",") {
				of := kind[0] + " in " + strings.TrimSpace(in)
				if schemas[of] == nil {
					of = kind[0]
				}
				rows[of] = names(cells[2])
			}
		}
	}
	for kind, schema := range schemas {
		if inTests := slices.Contains([]string{"test", "series", "event"}, kind) || strings.HasPrefix(kind, "expect"); inTests {
			continue
		}
		if kind == "validation" || strings.HasSuffix(kind, " in limits") { // a row of its own would say little
			for _, a := range schema.Attributes {
				if !strings.Contains(string(text), "`"+a.Name+"`") {
					t.Errorf("%s: %s is missing", kind, a.Name)
				}
			}
			continue
		}
		var want []string
		for _, a := range schema.Attributes {
			if a.Name != "for_each" && (a.Name != "name" || kind == "declaration") {
				want = append(want, a.Name)
			}
		}
		got := slices.Clone(rows[kind])
		slices.Sort(got)
		slices.Sort(want)
		if rows[kind] == nil && len(want) > 0 || !slices.Equal(got, want) {
			t.Errorf("%s has %v, and the page says %v", kind, want, got)
		}
	}
	for _, b := range fileSchema.Blocks {
		if _, ok := rows[b.Type]; !ok {
			t.Errorf("the block %s is missing", b.Type)
		}
	}
	_, of, _ := strings.Cut(string(text), "## Functions")
	for name := range functions {
		if !strings.Contains(of, fmt.Sprintf("`%s(", name)) {
			t.Errorf("the function %s is missing", name)
		}
	}
}
