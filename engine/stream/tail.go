package stream

import "sync"

// tail holds the newest frames of a partition of an embedded queue, once they are on disk, for a worker that keeps up:
// reading them back would cost as much as storing them, and keep the server's blocks in memory.
type tail struct {
	mu     sync.Mutex
	frames [][]byte // of consecutive sequences
	first  uint64   // sequence of frames[0]
	bytes  int
	change chan struct{} // closed when frames were stored
}

// maxTail is how many bytes of frames a tail holds. A worker that falls further behind reads them from the stream.
const maxTail = 4 << 20

func newTail() *tail { return &tail{change: make(chan struct{})} }

// add takes in a frame that was stored. It copies data.
func (t *tail) add(seq uint64, data []byte) {
	data = append(make([]byte, 0, len(data)), data...)
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq != t.first+uint64(len(t.frames)) {
		t.drop(len(t.frames))
		t.first = seq
	}
	t.frames = append(t.frames, data)
	t.bytes += len(data)
	for t.bytes > maxTail && len(t.frames) > 1 {
		t.drop(1)
	}
}

// wake tells those who wait that frames were stored and counted.
func (t *tail) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.change)
	t.change = make(chan struct{})
}

// take returns a frame, whether the next one is there too, and a channel that is closed when more are stored. The frames up
// to it are dropped. data is nil when the frame is not there.
func (t *tail) take(seq uint64) (data []byte, more bool, change <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq < t.first || seq >= t.first+uint64(len(t.frames)) {
		return nil, false, t.change
	}
	t.drop(int(seq - t.first))
	data = t.frames[0]
	t.drop(1)
	return data, len(t.frames) > 0, t.change
}

// has reports whether a frame is there.
func (t *tail) has(seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return seq >= t.first && seq < t.first+uint64(len(t.frames))
}

func (t *tail) drop(n int) {
	for i, data := range t.frames[:n] {
		t.bytes -= len(data)
		t.frames[i] = nil
	}
	t.frames = t.frames[n:]
	t.first += uint64(n)
}
