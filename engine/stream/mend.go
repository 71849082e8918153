package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// After an unclean stop JetStream cuts a block file at the first damaged record, and what was behind it is gone without
// a word; when it was the newest block, its sequences are used again. So damaged records are blanked before the server
// opens its directory: to JetStream they are messages that were erased, all others stay where they are, and the readers see
// a gap of just the damaged frames.
//
// A block file, N.blk in a stream's directory msgs, is a series of records (nats-server 2.x, server/filestore.go), integers
// little endian:
//
//	 0  length of the record, uint32; the highest bit says that it has headers
//	 4  sequence, uint64; the highest bit says that it is erased, the next that it is a mark of a deletion
//	12  time, Unix nanoseconds, int64
//	20  length of the subject, uint16
//	22  subject; if there are headers, their length, uint32, and they; the message
//	-8  HighwayHash-64 of sequence, time, subject, headers and message, keyed with SHA-256 of "<stream>-<N>"
const (
	recordHead = 22
	recordHash = 8
	recordMin  = recordHead + recordHash
	maxRecord  = maxPayload + 64<<10
	maxSubject = 1 << 10
	withHeader = 1 << 31
	erased     = 1 << 63
	deletion   = 1 << 62
)

// mend blanks the damaged records of all streams of a JetStream directory whose server does not run, and returns how many
// frames they were. What is broken at a stream's very end, as by a write that was cut off, is left to JetStream.
func mend(dir string, log *slog.Logger) (damaged uint64, err error) {
	streams, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*", "msgs"))
	if err != nil {
		return 0, fmt.Errorf("looking for damage in %s: %w", dir, err)
	}
	for _, s := range streams {
		n, err := mendStream(s, log)
		damaged += n
		if err != nil {
			return damaged, fmt.Errorf("looking for damage in %s: %w", s, err)
		}
	}
	return damaged, nil
}

func mendStream(msgs string, log *slog.Logger) (damaged uint64, err error) {
	entries, err := os.ReadDir(msgs)
	if err != nil {
		return 0, err
	}
	var numbers []int
	for _, e := range entries {
		if name, is := strings.CutSuffix(e.Name(), ".blk"); is {
			if n, err := strconv.Atoi(name); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	stream := filepath.Base(filepath.Dir(msgs))
	last := uint64(0) // sequence so far
	var memory []byte
	for i, n := range numbers {
		b := blockFile{path: filepath.Join(msgs, strconv.Itoa(n)+".blk"), newest: i == len(numbers)-1, last: last}
		key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, n))
		if b.hash, err = highwayhash.NewDigest64(key[:]); err != nil {
			return damaged, err
		}
		if memory, err = readInto(memory, b.path); err != nil {
			return damaged, err
		}
		b.data = memory
		b.scan()
		for _, d := range b.damage {
			damaged += d.frames
			log.Error("the queue's store is damaged", "stream", stream, "file", b.path, "offset", d.at, "bytes", d.size, "repaired", d.frames == 0,
				"first_frame", d.seq-max(d.frames, 1)+1, "last_frame", d.seq)
		}
		if len(b.damage) > 0 {
			if err := b.write(msgs); err != nil {
				return damaged, err
			}
		}
		last = b.last
	}
	return damaged, nil
}

// readInto reads a file, into memory if it fits.
func readInto(memory []byte, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return nil, err
	}
	memory = slices.Grow(memory[:0], int(s.Size()))[:s.Size()]
	_, err = io.ReadFull(f, memory)
	return memory, err
}

// blockFile is a block file in memory.
type blockFile struct {
	path   string
	newest bool // of its stream
	data   []byte
	hash   *highwayhash.Digest64
	last   uint64 // sequence of the last record
	time   uint64
	damage []damage
}

// damage is a place that was blanked, or repaired.
type damage struct {
	at, size int
	seq      uint64 // of the last frame in it
	frames   uint64 // lost; 0 when it was repaired
}

// scan finds the damaged places and blanks them in memory.
func (b *blockFile) scan() {
	if bytes.HasPrefix(b.data, []byte("cmp")) { // compressed, which no stream of ours is
		return
	}
	le := binary.LittleEndian
	for at := 0; at < len(b.data); {
		if size := b.record(at); size > 0 {
			if seq := le.Uint64(b.data[at+4:]); seq&deletion == 0 && seq&^erased > b.last {
				b.last, b.time = seq&^erased, le.Uint64(b.data[at+12:])
			}
			at += size
			continue
		}
		end := at + recordMin
		for end < len(b.data) && b.record(end) == 0 {
			end++
		}
		end = min(end, len(b.data))
		if end-at >= recordMin {
			b.blank(at, end)
		}
		at = end
	}
}

// record returns the size of the record at an offset, 0 when there is none or it is damaged.
func (b *blockFile) record(at int) int {
	d := b.data[at:]
	if len(d) < recordMin {
		return 0
	}
	le := binary.LittleEndian
	length, subject := le.Uint32(d), int(le.Uint16(d[20:]))
	size := int(length &^ withHeader)
	if size < recordMin || size > len(d) || size > maxRecord && le.Uint64(d[4:])&erased == 0 || subject > maxSubject || recordMin+subject > size {
		return 0
	}
	body := d[recordHead+subject : size-recordHash]
	if length&withHeader != 0 {
		if len(body) < 4 {
			return 0
		}
		n := int(le.Uint32(body))
		body = body[4:]
		if n > len(body) || !bytes.HasPrefix(body, []byte("NATS/1.0")) || !bytes.HasSuffix(body[:n], []byte("\r\n\r\n")) {
			return 0
		}
	}
	if !bytes.Equal(b.sum(d[4:20], d[recordHead:recordHead+subject], body), d[size-recordHash:size]) {
		return 0
	}
	return size
}

func (b *blockFile) sum(parts ...[]byte) []byte {
	b.hash.Reset()
	for _, p := range parts {
		b.hash.Write(p)
	}
	return b.hash.Sum(nil)
}

// blank makes the bytes from at to end one erased record, or repairs them when only the record's length is wrong.
func (b *blockFile) blank(at, end int) {
	le := binary.LittleEndian
	d, size := b.data[at:end], uint32(end-at)
	was := le.Uint32(d)
	for _, flag := range []uint32{withHeader, 0} {
		le.PutUint32(d, size|flag)
		if b.record(at) == int(size) {
			b.last, b.time = le.Uint64(d[4:])&^erased, le.Uint64(d[12:])
			b.damage = append(b.damage, damage{at, len(d), b.last, 0})
			return
		}
	}
	le.PutUint32(d, was)
	// The frames that are missing are those between the sequences on both sides.
	lost := max(1, uint64(bytes.Count(d, []byte("NATS/1.0"))))
	if end == len(b.data) {
		// A write that was cut off was not acknowledged: it is too short, or ends in zeros, as the file system left it.
		if b.newest && (was&^withHeader != size && bits.OnesCount32(was&^withHeader^size) > 1 || le.Uint64(d[len(d)-recordHash:]) == 0) {
			return
		}
	} else if next := le.Uint64(b.data[end+4:]); next&deletion == 0 {
		next &^= erased
		switch {
		case b.last > 0 && next > b.last:
			lost = next - b.last - 1
		case b.last > 0:
			lost = 0
		case next <= lost: // the stream's first
			lost = next - 1
		}
		b.last = next - 1 - lost
	}
	seq := b.last + lost
	if lost == 0 { // it was a mark, or erased before
		seq = 0
	}
	le.PutUint32(d, size)
	le.PutUint64(d[4:], seq|erased)
	le.PutUint64(d[12:], b.time)
	le.PutUint16(d[20:], 0)
	copy(d[size-recordHash:], b.sum(d[4:20], d[recordHead:size-recordHash]))
	b.damage = append(b.damage, damage{at, len(d), seq, lost})
	b.last = max(b.last, seq)
}

// write puts what was blanked to disk. JetStream's index, which knows better, is removed first: it is built again.
func (b *blockFile) write(msgs string) error {
	if err := os.Remove(filepath.Join(msgs, "index.db")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := os.Open(msgs)
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return err
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, d := range b.damage {
		if _, err = f.WriteAt(b.data[d.at:d.at+d.size], int64(d.at)); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
