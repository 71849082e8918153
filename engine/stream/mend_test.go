package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsready/nsready/engine/telemetry"
)

// place is where a frame is: from and to are offsets of its record in a block file.
type place struct {
	file     string
	from, to int
}

// image puts frames of many sizes into a queue, and returns its directory as a power cut at the end would leave it, and
// where the frames are. The number of the frame is its event's value.
func image(t *testing.T, frames int) (dir string, places map[uint64]place) {
	live := t.TempDir()
	q, _ := open(t, live, 1, 64<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range frames {
		if !try(t, q, float64(i+1), r.IntN(1000)<<(7*(r.IntN(4)/3))) {
			t.Fatal("refused")
		}
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	places = map[uint64]place{}
	files := blocks(t, dir)
	if frames > 500 && len(files) < 2 {
		t.Fatalf("%d block files are too few for a test", len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(data); {
			size := int(binary.LittleEndian.Uint32(data[at:]) &^ withHeader)
			places[binary.LittleEndian.Uint64(data[at+4:])] = place{filepath.Base(file), at, at + size}
			at += size
		}
	}
	if len(places) != frames {
		t.Fatalf("%d records of %d frames", len(places), frames)
	}
	return dir, places
}

func blocks(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream/*/streams/INGRESS_0/msgs/*.blk"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func flip(t *testing.T, dir, file string, at int, bit uint) {
	t.Helper()
	path := filepath.Join(dir, "jetstream/$G/streams/INGRESS_0/msgs", file)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 1 << bit
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// survivors opens a queue and returns the frames in it, by sequence, and how many frames were found to be damaged.
func survivors(t *testing.T, dir string, frames uint64) (map[uint64]bool, uint64) {
	t.Helper()
	q, server, stop := openWith(t, Options{Partitions: 1, MaxBytes: 64 << 20, Dir: dir})
	defer stop()
	if last := q.Partitions()[0].Last(); last != frames {
		t.Fatalf("the queue ends at frame %d, it had %d", last, frames)
	}
	if !try(t, q, float64(frames+1), 1) { // a new one behind the last
		t.Fatal("refused")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := q.Read(0, 0)
	defer r.Close()
	got := map[uint64]bool{}
	var decoder telemetry.Decoder
	for seq := uint64(0); seq <= frames; {
		var data []byte
		var err error
		if seq, data, _, err = r.Next(ctx); err != nil {
			t.Fatal(err)
		}
		var b telemetry.Batch
		if _, err := decoder.Append(&b, data); err != nil || b.Events[0].Values[0] != float64(seq) {
			t.Fatalf("frame %d holds %v, %v", seq, b.Events, err)
		}
		got[seq] = true
	}
	delete(got, frames+1)
	return got, server.Damaged()
}

func TestFlippedBitsCostNoMoreThanTheirFrames(t *testing.T) {
	const frames = 900
	origin, places := image(t, frames)
	trials := 8
	if testing.Short() {
		trials = 4
	}
	for trial := range trials {
		r := rand.New(rand.NewPCG(7, uint64(trial)))
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
			t.Fatal(err)
		}
		hit := map[uint64]bool{}
		for range 1 + r.IntN(12) {
			seq := 1 + r.Uint64N(frames)
			if trial%3 == 0 && len(hit) == 0 {
				seq = []uint64{1, frames / 2, frames}[trial/3%3] // the ends above all
			}
			p := places[seq]
			at := p.from + r.IntN(p.to-p.from)
			if trial%2 == 0 { // in the record's head, which tells where the next one begins
				at = p.from + r.IntN(recordHead)
			}
			flip(t, dir, p.file, at, r.UintN(8))
			hit[seq] = true
		}
		if trial%4 < 2 {
			os.Remove(filepath.Join(dir, "jetstream/$G/streams/INGRESS_0/msgs/index.db")) // as it is not there after a power cut
		}
		got, damaged := survivors(t, dir, frames)
		lost := uint64(0)
		for seq := uint64(1); seq <= frames; seq++ {
			if !got[seq] {
				lost++
				if !hit[seq] {
					t.Errorf("trial %d: frame %d is lost, though it was intact", trial, seq)
				}
			}
		}
		if damaged != lost {
			t.Errorf("trial %d: %d of the frames %v are lost, %d are counted", trial, lost, hit, damaged)
		}
		if again, damaged := survivors2(t, dir); damaged != 0 || again < len(got) {
			t.Errorf("trial %d: after another start %d frames are left of %d, and %d are damaged", trial, again, len(got), damaged)
		}
	}
}

// survivors2 starts a queue that was mended once more.
func survivors2(t *testing.T, dir string) (frames int, damaged uint64) {
	t.Helper()
	q, server, stop := openWith(t, Options{Partitions: 1, MaxBytes: 64 << 20, Dir: dir})
	defer stop()
	info, err := q.Partitions()[0].stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Msgs), server.Damaged()
}

func TestAWriteThatWasCutOffIsNoDamage(t *testing.T) {
	const frames = 300
	origin, places := image(t, frames)
	for name, spoil := range map[string]func(path string, p place) error{
		"short":      func(path string, p place) error { return os.Truncate(path, int64(p.to-5)) },
		"very short": func(path string, p place) error { return os.Truncate(path, int64(p.from+10)) },
		"zeros": func(path string, p place) error {
			if err := os.Truncate(path, int64(p.from+recordHead)); err != nil {
				return err
			}
			return os.Truncate(path, int64(p.to))
		},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
			t.Fatal(err)
		}
		p := places[frames]
		if err := spoil(filepath.Join(dir, "jetstream/$G/streams/INGRESS_0/msgs", p.file), p); err != nil {
			t.Fatal(err)
		}
		q, server, stop := openWith(t, Options{Partitions: 1, MaxBytes: 64 << 20, Dir: dir})
		if last := q.Partitions()[0].Last(); last != frames-1 || server.Damaged() != 0 {
			t.Errorf("%s: the queue ends at frame %d, %d are damaged", name, last, server.Damaged())
		}
		stop()
	}
}

func TestDamageIsSaid(t *testing.T) {
	dir, places := image(t, 300)
	p := places[200]
	flip(t, dir, p.file, (p.from+p.to)/2, 3)
	var log strings.Builder
	n, err := mend(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if want := "first_frame=200 last_frame=200"; err != nil || n != 1 || !strings.Contains(log.String(), want) || !strings.Contains(log.String(), fmt.Sprint("offset=", p.from)) {
		t.Errorf("%d frames, %v: %s", n, err, log.String())
	}
}
