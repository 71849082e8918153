package main

import (
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/loadgen"
)

// TestMain stands in for the program where a test starts it as the bare responder.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "-respond" {
		if err := serveBare(os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The declaration must be what the benchmark says it measures.
func TestDeclaration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.hcl")
	if err := os.WriteFile(path, declaration(), 0o644); err != nil {
		t.Fatal(err)
	}
	snapshot, _, diags := config.Load(path)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if len(snapshot.Devices) != devices || len(snapshot.Parameters) != parameters {
		t.Errorf("%v", snapshot)
	}
	seq, err := sequence(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if n := seq.Fleet.Values(devices); n != devices*parameters {
		t.Errorf("a turn has %d values, want %d", n, devices*parameters)
	}
	if n := len(seq.Encoder().AppendEvent(nil, 0)); n < 1300 || n > 1500 {
		t.Errorf("an event has %d bytes, want about 1400", n)
	}
}

func TestBareResponder(t *testing.T) {
	b := &bench{}
	stop, err := b.startBare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := []byte("POST /v1/ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
	r, err := loadgen.Raw(t.Context(), loadgen.RawOptions{Addr: b.bare, Requests: [][][]byte{{request, request}, {request}}})
	if err != nil || r.Answers[http.StatusAccepted] != 3 || r.Requests != 3 {
		t.Errorf("report %+v, error %v", r, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestResult(t *testing.T) {
	r := Result{Rounds: []Round{
		{RawCopy: 100, EndToEnd: 2000, Bare: 10, Single: 4},
		{RawCopy: 50, EndToEnd: 900, Bare: 20, Single: 9},
		{RawCopy: 80, EndToEnd: 800, Bare: 10, Single: 5},
	}}
	r.complete()
	if r.Medians.RawCopy != 80 || r.Medians.EndToEnd != 900 || r.Ratios[ratioBatches] != 18 || math.Abs(r.Ratios[ratioSingles]-0.45) > 1e-9 {
		t.Errorf("medians %+v, ratios %v", r.Medians, r.Ratios)
	}
	if median([]float64{3, 1}) != 2 {
		t.Error("the median of 1 and 3 is not 2")
	}
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"round 3", "18.00", "goal: 15", "0.45", "below the goal of 0.5"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	t.Log("\n" + out.String())
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{{"-binary", "/nowhere/nsready"}, {"-rounds", "0"}, {"more"}, {"-bogus"}} {
		var out strings.Builder
		if err := run(t.Context(), args, &out, &out); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestMachine(t *testing.T) {
	m, err := describeMachine(t.TempDir())
	if err != nil || m.Cores < 1 || m.FsyncMs <= 0 || m.MemoryGiB <= 0 {
		t.Errorf("machine %+v, error %v", m, err)
	}
	if mib, err := peakMemory(os.Getpid()); err != nil || mib <= 0 {
		t.Errorf("peak memory %v, error %v", mib, err)
	}
	if _, err := describeMachine("/nowhere"); err == nil {
		t.Error("no error where fsync can't be probed")
	}
}
