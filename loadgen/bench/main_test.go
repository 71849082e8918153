package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/config"
	"github.com/nsready/nsready/engine/telemetry"
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
	start := beginning(time.Now())
	seq, err := sequence(snapshot, start)
	if err != nil {
		t.Fatal(err)
	}
	if n := seq.Fleet.Values(devices); n != devices*parameters {
		t.Errorf("a turn has %d values, want %d", n, devices*parameters)
	}
	if n := len(seq.Encoder().AppendEvent(nil, 0)); n < 1300 || n > 1500 {
		t.Errorf("an event has %d bytes, want about 1400", n)
	}
	few, err := sequence(sparse(snapshot), start)
	if err != nil {
		t.Fatal(err)
	}
	if n := few.Fleet.Values(devices); n != devices {
		t.Errorf("a sparse turn has %d values, want %d", n, devices)
	}
	if n := seq.Fleet.Values(devices); n != devices*parameters {
		t.Errorf("a turn has %d values after a sparse one was made", n)
	}
}

// All events of a run are of one day, in the past, and not so old that they would be backfill.
func TestBeginning(t *testing.T) {
	for _, now := range []string{"00:00:00", "00:04:59", "00:05:00", "00:09:00", "12:00:00", "23:59:59"} {
		at, err := time.Parse(time.DateTime, "2026-03-01 "+now)
		if err != nil {
			t.Fatal(err)
		}
		start := beginning(at)
		end := start + telemetry.MicrosOf(time.Unix(0, 0).Add(5*time.Minute)) - 1
		if start.Day() != end.Day() || end.Time().After(at) || at.Sub(start.Time()) > telemetry.BackfillAge/4 {
			t.Errorf("at %v events are from %v to %v", at, start.Time(), end.Time())
		}
	}
}

func TestSendAgain(t *testing.T) {
	var list [][]byte
	for i := range 25 {
		list = append(list, []byte{byte('a' + i)})
	}
	all, more := sendAgain([][][]byte{list, list[:3]})
	if more != 3 || len(all) != 2 || len(all[1]) != 3 {
		t.Errorf("%d more, lists %q", more, all)
	}
	if got := string(slices.Concat(all[0]...)); got != "abcdaefghijklmnkopqrstuvwxuy" {
		t.Errorf("order %s", got)
	}
}

func TestChoose(t *testing.T) {
	for list, want := range map[string]string{
		"":               phaseNames(),
		"x10":            "x10",
		"single,copy":    "copy, single",
		"half":           "x100, single, half",
		"fsync,x10,half": "x100, x10, single, half, fsync",
	} {
		chosen, err := choose(list)
		var names []string
		for _, p := range chosen {
			names = append(names, p.name)
		}
		if got := strings.Join(names, ", "); err != nil || got != want {
			t.Errorf("-only %s: %s, error %v, want %s", list, got, err, want)
		}
	}
	if _, err := choose("x100,bogus"); err == nil || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("error %v", err)
	}
}

// Each figure belongs to a phase and has one key; a quotient is of figures that its phase or one before it yields.
func TestFigures(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range figures {
		if seen[f.key] || !slices.ContainsFunc(phases, func(p phase) bool { return p.name == f.phase() }) {
			t.Errorf("%s: there twice, or of no phase", f.key)
		}
		seen[f.key] = true
		if f.of != "" && (figureOf(f.of).over != "" || figureOf(f.over).over != "" || f.unit != "") {
			t.Errorf("%s is %s over %s", f.key, f.over, f.of)
		}
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

func exampleResult(t *testing.T) *Result {
	t.Helper()
	var rounds []*round
	for _, figures := range []map[string]float64{
		{"copy.values": 100, "x100.values": 4000, "single.requests": 4, "bare.requests": 10, "half.single.p99": 3.5, "half.x100.p99": 2, "x10.values": 5},
		{"copy.values": 50, "x100.values": 2100, "single.requests": 9, "bare.requests": 20, "half.single.p99": 4.5, "half.x100.p99": 9},
		{"copy.values": 80, "x100.values": 1600, "single.requests": 5, "bare.requests": 10, "half.single.p99": 1.5, "half.x100.p99": 2},
	} {
		r := newRound()
		for key, v := range figures {
			r.set(key, v, "")
			r.set(strings.Replace(key, ".p99", ".p50", 1), v, "")
			r.set(strings.Replace(key, ".p99", ".p99_9", 1), v, "")
		}
		rounds = append(rounds, r)
	}
	rounds[1].set("bare.requests", 20, "generator-bound: <much>")
	rounds[0].missing["fsync"] = "strace is missing"
	r := &Result{Commit: "0123456789abcdef <dirty>"}
	r.complete(phases, rounds)
	return r
}

func TestResult(t *testing.T) {
	r := exampleResult(t)
	for key, want := range map[string]float64{"copy.values": 80, "x100.values": 2100, "x100.over_copy": 40, "single.over_bare": 0.45, "x10.values": 0} {
		if got := r.median(key); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: median %v, want %v", key, got, want)
		}
	}
	if median([]float64{3, 1}) != 2 || median([]float64{9, 1, 2}) != 2 {
		t.Error("medians are wrong")
	}
	table := string(r.table())
	for _, want := range []string{
		"round 3", "goal 40, met", "goal 0.85, short by 48 %", "at most 3, over by 17 %", "at most 3, met",
		"not measured: strace is missing", "invalid, round 2: generator-bound: <much>",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log("\n" + table)
	}
}

func TestPicture(t *testing.T) {
	for name, r := range map[string]*Result{"example": exampleResult(t), "nothing measured": {}} {
		picture := r.picture()
		d := xml.NewDecoder(strings.NewReader(string(picture)))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, picture)
			}
		}
		if want := map[string]int{"example": 6, "nothing measured": 0}[name]; strings.Count(string(picture), `class="dot"`) != want {
			t.Errorf("%s: %d latencies, want %d", name, strings.Count(string(picture), `class="dot"`), want)
		}
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.456: "0.46", 9.994: "9.99", 9.996: "10.0", 99.96: "100", 9994: "9994", 9996: "10.0 k", 999_499: "999.5 k", 2_684_000: "2.68 M"} {
		if got := format(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{{"-binary", "/nowhere/nsready"}, {"-rounds", "0"}, {"-rounds", "10"}, {"more"}, {"-bogus"}, {"-only", "bogus"}} {
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
	if _, err := describeMachine("/nowhere"); err == nil {
		t.Error("no error where fsync can't be probed")
	}
}

func TestCommit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is missing")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if got := commit(t.Context(), "/nowhere"); got != "unknown" {
		t.Errorf("commit %q outside of a repository", got)
	}
	git := exec.Command("sh", "-c", "git init -q && git -c user.name=x -c user.email=x@example.org commit -q --allow-empty -m x && git rev-parse HEAD")
	hash, err := git.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := commit(t.Context(), "/nowhere"); got != strings.TrimSpace(string(hash)) {
		t.Errorf("commit %q, want %s", got, hash)
	}
}

// The peak counts from when it is watched, by the kernel's own account or by samples.
func TestMemory(t *testing.T) {
	const mib = 64
	watch := map[string]func() *memory{
		"kernel": func() *memory {
			m, err := watchMemory(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			return m
		},
		"samples": func() *memory {
			m := &memory{pid: os.Getpid(), ended: make(chan struct{}), sampled: make(chan float64, 1)}
			go m.sample(m.ended)
			return m
		},
	}
	for name, begin := range watch {
		debug.FreeOSMemory() // or the block would take what the one before has left
		before, err := resident(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		m := begin()
		block := make([]byte, mib<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		peak, err := m.stop()
		runtime.KeepAlive(block)
		if err != nil || peak < before+mib/2 || peak > before+4*mib {
			t.Errorf("%s: peak %.0f MiB after %.0f, error %v", name, peak, before, err)
		}
		if again, err := m.stop(); again != peak || err != nil {
			t.Errorf("%s: stopped again it says %v, error %v", name, again, err)
		}
	}
	if _, err := watchMemory(1 << 30); err == nil {
		t.Error("no error for a process that is not there")
	}
}
