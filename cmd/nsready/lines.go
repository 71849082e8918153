package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/impact"
	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// uiVersion of the lines of -json=stream. Its major number changes when a reader would break.
const uiVersion = "1.0"

// jsonForm is the value of a -json that takes "stream", too.
type jsonForm struct{ json, stream bool }

func (j *jsonForm) IsBoolFlag() bool { return true }

func (j *jsonForm) String() string {
	if j.stream {
		return "stream"
	}
	return strconv.FormatBool(j.json)
}

func (j *jsonForm) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if text == "stream" {
		on, err = true, nil
	}
	if err != nil {
		return errors.New("want stream, or nothing for one document")
	}
	*j = jsonForm{json: on, stream: text == "stream"}
	return nil
}

// lines writes what a command does as lines of JSON, each when it happens. Its methods do nothing on nil.
type lines struct {
	out io.Writer
	err error // the first, after which nothing is written
}

// line is one of them. docs/ui-json.md explains the members.
type line struct {
	Level      string          `json:"@level"`
	Message    string          `json:"@message"`
	Module     string          `json:"@module"`
	Timestamp  time.Time       `json:"@timestamp"`
	NSReady    string          `json:"nsready,omitempty"`
	UI         string          `json:"ui,omitempty"`
	Change     *lineChange     `json:"change,omitempty"`
	Changes    *lineChanges    `json:"changes,omitempty"`
	Impact     *impact.Report  `json:"impact,omitempty"`
	Saved      *savedView      `json:"saved_plan,omitempty"`
	Hook       *lineHook       `json:"hook,omitempty"`
	Diagnostic *lineDiagnostic `json:"diagnostic,omitempty"`
	Type       string          `json:"type"`
}

type lineResource struct {
	Address registry.Address `json:"addr"`
	Kind    registry.Kind    `json:"resource_type"`
	Name    string           `json:"resource_name"`
}

type lineChange struct {
	Resource lineResource           `json:"resource"`
	Previous *lineResource          `json:"previous_resource,omitempty"`
	Action   string                 `json:"action"`
	Kind     registry.Hand          `json:"kind,omitempty"`
	Reason   string                 `json:"reason,omitempty"`
	Cause    registry.Cause         `json:"cause,omitempty"`
	Fields   []registry.FieldChange `json:"fields,omitempty"`
	By       *store.Touch           `json:"by,omitempty"`
}

type lineChanges struct {
	Add       int      `json:"add"`
	Change    int      `json:"change"`
	Import    int      `json:"import"`
	Remove    int      `json:"remove"`
	Move      int      `json:"move"`
	Release   int      `json:"release"`
	Operation string   `json:"operation"`           // plan or apply
	FailedOn  []string `json:"failed_on,omitempty"` // what forbids the plan
	Version   *int64   `json:"version,omitempty"`   // of the registry, after an apply
}

type lineHook struct {
	Kind    registry.Kind `json:"resource_type,omitempty"` // whose objects are written now
	Objects int           `json:"objects"`
	Elapsed float64       `json:"elapsed_seconds"`
}

type lineDiagnostic struct {
	Severity string       `json:"severity"`
	Code     string       `json:"code,omitempty"`
	Summary  string       `json:"summary"`
	Detail   string       `json:"detail,omitempty"`
	Range    *lineRange   `json:"range,omitempty"`
	Snippet  *lineSnippet `json:"snippet,omitempty"`
}

type lineRange struct {
	Filename string    `json:"filename"`
	Start    *position `json:"start"`
	End      *position `json:"end"`
}

type lineSnippet struct {
	Context   string `json:"context,omitempty"`
	Code      string `json:"code"`
	StartLine int    `json:"start_line"`
	From      int    `json:"highlight_start_offset"` // in bytes of code
	To        int    `json:"highlight_end_offset"`
}

func resourceAt(a registry.Address) lineResource { return lineResource{a, a.Kind, a.Name()} }

// newLines begins with the line that says which lines follow.
func newLines(out io.Writer) *lines {
	st := &lines{out: out}
	v := thisBuild().Version
	st.write("info", "version", "nsready "+v, line{NSReady: v, UI: uiVersion})
	return st
}

func (st *lines) write(level, kind, message string, l line) {
	if st == nil || st.err != nil {
		return
	}
	l.Level, l.Type, l.Message, l.Module, l.Timestamp = level, kind, message, "nsready.ui", time.Now().UTC()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if st.err = e.Encode(l); st.err == nil {
		_, st.err = st.out.Write(cleanJSON(text.Bytes()))
	}
}

func (st *lines) diagnostic(d diagnostic) {
	view := &lineDiagnostic{Severity: d.Severity, Code: d.Code, Summary: d.Summary, Detail: d.Detail}
	if d.Filename != "" {
		view.Range = &lineRange{d.Filename, d.Start, d.End}
	}
	if d.Snippet != "" {
		from, size := d.Start.Byte-d.offset, len(d.Snippet)
		view.Snippet = &lineSnippet{d.context, d.Snippet, d.Start.Line, min(max(from, 0), size), min(max(d.End.Byte-d.offset, from, 0), size)}
	}
	level, title := "error", "Error: "
	if d.Severity == "warning" {
		level, title = "warn", "Warning: "
	}
	st.write(level, "diagnostic", title+d.Summary, line{Diagnostic: view})
}

// plan writes a plan, and what forbids it.
func (st *lines) plan(v planView, refused []veto) error {
	for _, d := range v.ByHand {
		st.write("info", "resource_drift", fmt.Sprintf("%s: Drift detected (%s)", d.Address, d.Kind),
			line{Change: &lineChange{Resource: resourceAt(d.Address), Action: driftActions[d.Kind], Kind: d.Kind, Fields: d.Fields, By: d.By}})
	}
	for i := range v.Changes {
		c := &v.Changes[i]
		view := &lineChange{Resource: resourceAt(c.Address), Action: c.Action.String(), Reason: c.Reason, Cause: c.Cause, Fields: c.Fields}
		if c.From != nil {
			from := resourceAt(*c.From)
			view.Previous = &from
		}
		st.write("info", "planned_change", fmt.Sprintf("%s: Plan to %s", c.Address, c.Action), line{Change: view})
	}
	if v.Impact != nil {
		st.write("info", "data_impact", v.Impact.Summary(), line{Impact: v.Impact})
	}
	for _, text := range warnings(v.Plan) {
		st.diagnostic(diagnostic{Severity: "warning", Summary: strings.ReplaceAll(text, "\n", " ")})
	}
	changes := countLine(v.Summary, "plan")
	changes.FailedOn = v.FailedOn
	st.write("info", "change_summary", "Plan: "+v.Summary.todo()+".", line{Changes: changes})
	for _, r := range refused {
		st.diagnostic(diagnostic{Severity: "error", Code: r.condition, Summary: "the plan is refused: " + r.why})
	}
	return st.err
}

var driftActions = map[registry.Hand]string{
	registry.EditedByHand: registry.Update.String(), registry.CreatedByHand: registry.Create.String(), registry.DeletedByHand: registry.Delete.String(),
}

func countLine(s summary, operation string) *lineChanges {
	return &lineChanges{Add: s.Add, Change: s.Change, Import: s.Import, Remove: s.Destroy, Move: s.Move, Release: s.Release, Operation: operation}
}

// saved says where a plan was saved.
func (st *lines) saved(v *savedView) {
	st.write("info", "saved_plan", "The plan is saved in "+v.File, line{Saved: v})
}

// applying writes a step of an apply; kind is "" for all of it.
func (st *lines) applying(step string, kind registry.Kind, objects int, since time.Time, message string) {
	level := "info"
	if step == "apply_errored" {
		level = "error"
	}
	st.write(level, step, message, line{Hook: &lineHook{kind, objects, time.Since(since).Round(time.Millisecond).Seconds()}})
}

// applied writes the outcome.
func (st *lines) applied(a *applyView) {
	changes := countLine(a.Summary, "apply")
	changes.Version = &a.Version
	st.write("info", "change_summary", "Apply complete! Resources: "+a.Summary.done()+".", line{Changes: changes})
}

// report writes an error that was not reported yet.
func (st *lines) report(err error) error {
	st.diagnostic(diagnostic{Severity: "error", Summary: err.Error()})
	return st.err
}

// load reads the declaration, and reports what is wrong with it.
func (p *planner) load(ctx context.Context, s *streams) (*registry.Snapshot, error) {
	if s.lines == nil {
		return loadConfig(ctx, s, p.config, p.json, p.variables)
	}
	declared, sources, diags, err := readConfig(ctx, s, config.Load, p.config, p.variables)
	if err != nil {
		return nil, err
	}
	for _, d := range describe(diags, sources) {
		s.lines.diagnostic(d)
	}
	if diags.HasErrors() {
		return nil, exit(exitFailed)
	}
	return declared, nil
}

// start begins the output of a command.
func (p *planner) start(s *streams) {
	if p.stream {
		s.lines = newLines(s.stdout)
	}
}
