package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every code that the source has for a refusal or a dead letter is explained, and every one that is explained is there.
func TestEveryAnswerIsExplained(t *testing.T) {
	forms := map[string]*regexp.Regexp{
		fromCollector:  regexp.MustCompile(`Code[A-Z]\w* *= "(\w+)"|httpError\{http\.\w+, "(\w+)"|UnavailableError\{Code: "(\w+)"|q\.refuse\([^"\n]*, "(\w+)"`),
		fromDeadLetter: regexp.MustCompile(`RejectedError\{Reason: "(\w+)"|reasonFrame *= "(\w+)"|PendingDevice *= "(\w+)"`),
	}
	found := map[string]bool{"22…" + fromDeadLetter: true, "23…" + fromDeadLetter: true} // of asRejected in engine/store
	for _, dir := range []string{"api", "ingest", "mqtt", "store", "stream", "telemetry", "worker"} {
		paths, err := filepath.Glob(filepath.Join("../../engine", dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no source in %s: %v", dir, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for from, form := range forms {
				for _, m := range form.FindAllStringSubmatch(string(src), -1) {
					found[strings.Join(m[1:], "")+from] = true
				}
			}
		}
	}
	explained := map[string]bool{}
	for _, e := range allExplanations() {
		if e.From != fromCollector && e.From != fromDeadLetter {
			continue
		}
		key := e.Code + e.From
		if explained[key] || e.Summary == "" || e.Text == "" {
			t.Errorf("%+v is incomplete, or there twice", e)
		}
		if explained[key] = true; !found[key] {
			t.Errorf("nothing in the source has the code %s of a %s", e.Code, e.From)
		}
	}
	for key := range found {
		if !explained[key] {
			t.Errorf("%s is not explained", key)
		}
	}
}

// Codes are found whatever their case, and none is another's beginning by accident.
func TestExplainCodes(t *testing.T) {
	for _, e := range allExplanations() {
		if strings.HasSuffix(e.Code, "…") {
			continue
		}
		found, err := explain(strings.ToUpper(e.Code))
		if err != nil || !slices.Contains(found, e) {
			t.Errorf("%s: %v, %v", e.Code, found, err)
		}
	}
	for code, want := range map[string]int{"22003": 1, "23505": 1, "42P01": 0, "22": 0, "": 0, "…": 0, "unknown_device": 2} {
		if found, err := explain(code); len(found) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", code, found, err)
		}
	}
}
