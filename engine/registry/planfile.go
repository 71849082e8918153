package registry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// SavedPlan is a plan with what its file says about it.
type SavedPlan struct {
	Plan       *Plan
	Tool       string // version of the program that made it
	MaxDestroy string // how many objects it may destroy, as -max-destroy takes it; "" for the usual
	Author     string
	Commit     string // that the declaration was read at, in hex; "" where that is not known
	Created    time.Time
}

// PlanMagic is how a saved plan begins.
const PlanMagic = "nsready plan, format "

// A saved plan is text: PlanMagic and the version of the format; who made it, when, and of which commit; what else there is to say of it, with
// the number of changes; the changes, as WriteChanges writes them; and planSeal with the SHA-256 of all before, in hex.
const (
	planFormat = "1"
	planSeal   = "sha256 "

	planSealSize = len(planSeal) + 2*sha256.Size + 1
	planLineSize = 64 // the most that the first line may have
)

// planOrigin is the second line.
type planOrigin struct {
	Author  string    `json:"author"`
	Commit  string    `json:"commit,omitempty"`
	Created time.Time `json:"created"`
}

// planHeader is the third line.
type planHeader struct {
	Tool       string `json:"tool_version"`
	MaxDestroy string `json:"max_destroy,omitempty"`
	*Plan
	Changes int `json:"changes"`
}

// ErrPlanDamaged says that a file is no saved plan, or not a whole one.
var ErrPlanDamaged = errors.New("the file is no saved plan, or a damaged one")

// WritePlan writes a plan for ReadPlan. The same plan gives the same bytes, but for author, commit and time, which have the second line
// to themselves, and for the last line.
func WritePlan(w io.Writer, p *SavedPlan) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	fmt.Fprintln(out, PlanMagic+planFormat)
	e := json.NewEncoder(out)
	err := e.Encode(planOrigin{p.Author, p.Commit, p.Created})
	if err == nil {
		err = e.Encode(planHeader{p.Tool, p.MaxDestroy, p.Plan, len(p.Plan.Changes)})
	}
	if err == nil {
		err = WriteChanges(out, p.Plan.Changes)
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "%s%x\n", planSeal, sum.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}

// ReadPlan reads what WritePlan wrote, of the given size in bytes. It reads nothing into memory before the checksum is found right; what
// it takes then grows with the size alone. It refuses a newer format, and with ErrPlanDamaged everything else that is not as written.
func ReadPlan(r io.ReaderAt, size int64) (*SavedPlan, error) {
	first := make([]byte, min(size, planLineSize))
	if _, err := r.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	line, _, ok := bytes.Cut(first, []byte("\n"))
	format, known := strings.CutPrefix(string(line), PlanMagic)
	switch {
	case !ok || !known:
		return nil, fmt.Errorf("%w: it does not begin as one", ErrPlanDamaged)
	case format != planFormat:
		return nil, fmt.Errorf("the plan has the format %q, and this program knows %q: use the nsready that made it, or make the plan again", format, planFormat)
	}
	length := size - int64(planSealSize)
	if err := checkSeal(r, length); err != nil {
		return nil, err
	}
	start := int64(len(line) + 1)
	p, err := decodePlan(bufio.NewReaderSize(io.NewSectionReader(r, start, length-start), 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlanDamaged, err)
	}
	return p, nil
}

// checkSeal compares the file's first length bytes with the checksum behind them.
func checkSeal(r io.ReaderAt, length int64) error {
	if length <= 0 {
		return fmt.Errorf("%w: it has no end", ErrPlanDamaged)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, length)); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	seal := make([]byte, planSealSize)
	if _, err := r.ReadAt(seal, length); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the plan: %w", err)
	}
	if want := planSeal + hex.EncodeToString(sum.Sum(nil)) + "\n"; string(seal) != want {
		return fmt.Errorf("%w: its checksum is wrong", ErrPlanDamaged)
	}
	return nil
}

func decodePlan(r *bufio.Reader) (*SavedPlan, error) {
	var origin planOrigin
	if err := readLine(r, &origin); err != nil {
		return nil, fmt.Errorf("line 2: %w", err)
	}
	header := planHeader{Plan: &Plan{}}
	if err := readLine(r, &header); err != nil {
		return nil, fmt.Errorf("line 3: %w", err)
	}
	changes, err := ReadChanges(r)
	if err != nil {
		return nil, err
	}
	if header.Plan == nil || len(changes) != header.Changes {
		return nil, fmt.Errorf("it has %d changes, and says that there are %d", len(changes), header.Changes)
	}
	header.Plan.Changes = changes
	return &SavedPlan{Plan: header.Plan, Tool: header.Tool, MaxDestroy: header.MaxDestroy, Author: origin.Author, Commit: origin.Commit, Created: origin.Created}, nil
}

// readLine reads one line, which is one JSON document.
func readLine(r *bufio.Reader, v any) error {
	text, err := r.ReadBytes('\n')
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is something behind the document")
	}
	return nil
}
