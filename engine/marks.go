package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/nsready/nsready/engine/failpoint"
	"github.com/nsready/nsready/engine/telemetry"
)

// marks say, outside of JetStream's own files, how far each partition of the queue had got: the newest frame by epoch.
// JetStream cuts a stream that it finds damaged after a crash at the damage and numbers new frames from there; without
// marks nobody would know that there had been more. They are a second behind at most.
type marks map[string]telemetry.Offset

func (e *Engine) marksPath() string { return filepath.Join(e.options.QueueDir, "marks.json") }

// readMarks returns what an earlier run wrote. Marks that cannot be read are an error, but no reason not to start.
func (e *Engine) readMarks() (marks, error) {
	text, err := os.ReadFile(e.marksPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var m marks
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("reading how far the queue had got: %w", err)
	}
	return m, nil
}

// writeMarks writes how far the embedded queue has got, when that has changed. Only one goroutine may call it at a time.
func (e *Engine) writeMarks() error {
	if e.server == nil {
		return nil
	}
	now := marks{}
	for _, p := range e.queue.Partitions() {
		now[p.Epoch] = p.Newest()
	}
	if maps.Equal(now, e.written) {
		return nil
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = replaceSynced(e.marksPath(), text)
	}
	if err != nil {
		return fmt.Errorf("writing how far the queue has got: %w", err)
	}
	e.written = now
	return nil
}

// replaceSynced replaces a file's content in one step, on disk when it returns.
func replaceSynced(path string, content []byte) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	failpoint.Hit("engine.marks-written")
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
