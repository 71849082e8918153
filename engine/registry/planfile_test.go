package registry

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func randomSavedPlan(seed uint64) *SavedPlan {
	r := rand.New(rand.NewPCG(seed, 1))
	current := Declare(randomObjects(r))
	for o := range current.Objects {
		if d, ok := o.(*Device); ok {
			d.Managed = r.IntN(3) > 0
		}
	}
	current.Registry, current.Version, current.Revision = uuid.Must(uuid.NewRandomFromReader(bytes.NewReader(make([]byte, 16)))), 3, 17
	return &SavedPlan{
		Plan: Diff(current, Declare(randomObjects(r))), Tool: "v1.2.3", MaxDestroy: "5%",
		Author: "pat@press-pc", Commit: "0123456789abcdef0123456789abcdef01234567", Created: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	}
}

func write(t testing.TB, p *SavedPlan) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WritePlan(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(text []byte) (*SavedPlan, error) { return ReadPlan(bytes.NewReader(text), int64(len(text))) }

func TestSavedPlanIsReadAsItWasWritten(t *testing.T) {
	for seed := range uint64(100) {
		p := randomSavedPlan(seed)
		text := write(t, p)
		got, err := read(text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, p) {
			t.Fatalf("seed %d:\ngot  %+v\nwant %+v", seed, got.Plan, p.Plan)
		}
		if again := write(t, randomSavedPlan(seed)); !bytes.Equal(again, text) {
			t.Fatalf("seed %d: the same plan gave other bytes", seed)
		}
		p.Author, p.Created = "sam@office", p.Created.Add(time.Hour)
		before, after := bytes.Split(text, []byte("\n")), bytes.Split(write(t, p), []byte("\n"))
		for i := range before {
			if same := bytes.Equal(before[i], after[i]); same == (i == 1 || i == len(before)-2) {
				t.Fatalf("seed %d: another author and time, line %d: %s", seed, i+1, after[i])
			}
		}
	}
}

// Every byte that is changed, and every cut, is noticed.
func TestDamagedPlanIsRefused(t *testing.T) {
	text := write(t, randomSavedPlan(1))
	for i := range text {
		damaged := bytes.Clone(text)
		damaged[i] ^= 1
		if _, err := read(damaged); err == nil {
			t.Fatalf("byte %d of %d was changed, and the plan is read", i, len(text))
		}
		if _, err := read(text[:i]); !errors.Is(err, ErrPlanDamaged) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(text), err)
		}
	}
	if _, err := read(append(bytes.Clone(text), '\n')); !errors.Is(err, ErrPlanDamaged) {
		t.Errorf("a byte more: %v", err)
	}
}

// seal completes a file's text with the checksum.
func seal(text string) []byte {
	return fmt.Appendf(nil, "%s%s%x\n", text, planSeal, sha256.Sum256([]byte(text)))
}

func TestReadPlanRefuses(t *testing.T) {
	const head = PlanMagic + planFormat + "\n" + `{"author":"a","created":"2026-03-04T05:06:07Z"}` + "\n"
	for _, c := range []struct{ text, want string }{
		{"", "does not begin as one"},
		{"customer \"acme\" {}\n", "does not begin as one"},
		{PlanMagic + "2\nwhatever", `has the format "2", and this program knows "1"`},
		{PlanMagic + planFormat + "\n", "line 2: unexpected EOF"},
		{head, "line 3: unexpected EOF"},
		{head + "{}\n{\n", "change 1"},
		{head + `{"changes":1}` + "\n", "it has 0 changes, and says that there are 1"},
		{head + `{"colour":1}` + "\n", `unknown field "colour"`},
		{head + "{} {}\n", "something behind"},
	} {
		_, err := read(seal(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

// Whatever is read is written as something that reads the same; the checksum is made right, so that it hides nothing.
func FuzzReadPlan(f *testing.F) {
	small := randomSavedPlan(1)
	small.Plan.Changes = small.Plan.Changes[:2]
	whole := write(f, small)
	f.Add(whole)
	f.Add(whole[:len(whole)-planSealSize])
	f.Add([]byte(PlanMagic + planFormat + "\n{}\n{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, file := range [][]byte{text, seal(string(text))} {
			p, err := read(file)
			if err != nil {
				continue
			}
			again, err := read(write(t, p))
			if err != nil || !reflect.DeepEqual(again, p) {
				t.Fatalf("%v\ngot  %+v\nwant %+v", err, again, p)
			}
		}
	})
}
