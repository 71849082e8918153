package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func volume(t *testing.T) *Volume {
	t.Helper()
	v, err := NewVolume()
	if err != nil {
		fmt.Fprintln(os.Stderr, "WARNING: power cuts are NOT TESTED, which takes root and loop devices:", err)
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func TestACutLosesWhatWasNotSynced(t *testing.T) {
	v := volume(t)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(v.Path(), name))
		if err == nil {
			_, err = f.WriteString("content")
		}
		if err == nil && sync {
			err = f.Sync()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("synced", true)
	write("renamed", true)
	write("later", false)
	if err := os.Rename(filepath.Join(v.Path(), "renamed"), filepath.Join(v.Path(), "new")); err != nil {
		t.Fatal(err)
	}
	user := exec.Command("sleep", "1000")
	user.Dir = v.Path()
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	if err := v.Cut(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := user.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a process in the volume ended with %v", err)
	}
	if err := v.On(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"synced": "content", "renamed": "content", "new": "", "later": ""} {
		text, err := os.ReadFile(filepath.Join(v.Path(), name))
		if string(text) != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
}

func TestOnlyAVolumeOfOursIsCut(t *testing.T) {
	v := volume(t)
	if err := unix.Mount("tmpfs", v.Path(), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := v.Cut(func() error { return nil }); err == nil {
		t.Error("the power of another file system was cut")
	}
	if err := unix.Unmount(v.Path(), 0); err != nil {
		t.Fatal(err)
	}
	other := volume(t)
	if err := (&Volume{dir: v.dir, device: other.device}).Cut(func() error { return nil }); err == nil {
		t.Error("the power of another volume was cut")
	}
}

func TestVolumesOfKilledRunsAreRemoved(t *testing.T) {
	v := volume(t)
	if err := v.lock.Close(); err != nil { // as the end of a process does
		t.Fatal(err)
	}
	user := exec.Command("sleep", "1000")
	user.Dir = v.Path()
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * newVolume)
	if err := os.Chtimes(v.dir, old, old); err != nil {
		t.Fatal(err)
	}
	kept := volume(t)
	if err := user.Wait(); err == nil {
		t.Error("who used the old volume goes on")
	}
	if _, err := os.Stat(v.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old volume is still there: %v", err)
	}
	if _, err := os.Stat(kept.image()); err != nil {
		t.Error(err)
	}
	v.dir = "" // nothing is left to close
}
