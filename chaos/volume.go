package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Volume is an ext4 file system in a file, whose power can be cut. It lies in a temporary directory, which holds the file, the
// mount point, and a lock that says that its maker lives.
type Volume struct {
	dir    string
	lock   *os.File
	device uint64 // of the mounted file system
}

const (
	volumePrefix = "nsready-volume-"
	volumeSize   = 3 << 30 // the file is sparse

	// newVolume is how old another's directory is at least when its lock counts.
	newVolume = time.Minute

	letGoTimeout = 20 * time.Second // for killed processes to be gone, and their mount free
)

// NewVolume makes a volume and mounts it, which takes root and loop devices. What runs left behind that were killed is removed.
func NewVolume() (*Volume, error) {
	if err := removeVolumes(); err != nil {
		return nil, fmt.Errorf("removing old volumes: %w", err)
	}
	v := &Volume{}
	if err := v.make(); err != nil {
		return nil, fmt.Errorf("making a volume: %w", errors.Join(err, v.Close()))
	}
	return v, nil
}

func (v *Volume) make() (err error) {
	if v.dir, err = os.MkdirTemp("", volumePrefix); err != nil {
		return err
	}
	if v.lock, err = os.Create(filepath.Join(v.dir, "lock")); err != nil {
		return err
	}
	if err := unix.Flock(int(v.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	image, err := os.Create(v.image())
	if err != nil {
		return err
	}
	if err := errors.Join(image.Truncate(volumeSize), image.Close()); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", v.image()).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	if err := os.Mkdir(v.Path(), 0o755); err != nil {
		return err
	}
	return v.mount()
}

// Path returns the root of the volume's file system.
func (v *Volume) Path() string { return filepath.Join(v.dir, "mount") }

// Beside returns the path of a file that no cut harms.
func (v *Volume) Beside(name string) string { return filepath.Join(v.dir, name) }

func (v *Volume) image() string { return filepath.Join(v.dir, "image") }

// mount attaches the file to a loop device, which goes with its mount, and mounts it.
func (v *Volume) mount() error {
	image, err := os.OpenFile(v.image(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	var loop *os.File
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("looking for a free loop device: %w", err)
		}
		if loop, err = os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0); err != nil {
			return err
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			break
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return fmt.Errorf("attaching %s: %w", loop.Name(), err)
		}
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), v.Path(), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", loop.Name(), err)
	}
	var s unix.Stat_t
	if err := unix.Stat(v.Path(), &s); err != nil {
		return err
	}
	v.device = s.Dev
	return nil
}

// ours checks that root is the root of this volume's file system: an ext4 on a loop device over this volume's image.
func (v *Volume) ours(root *os.File) error {
	var s, image unix.Stat_t
	if err := errors.Join(unix.Fstat(int(root.Fd()), &s), unix.Stat(v.image(), &image)); err != nil {
		return err
	}
	const ext4Root = 2 // inode
	number := unix.Minor(s.Dev)
	loop, err := os.Open("/dev/loop" + strconv.Itoa(int(number)))
	if err != nil {
		return err
	}
	defer loop.Close()
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	const loopMajor = 7
	if err != nil || unix.Major(s.Dev) != loopMajor || s.Ino != ext4Root || v.device != 0 && s.Dev != v.device ||
		info.Device != image.Dev || info.Inode != image.Ino {
		return errors.Join(fmt.Errorf("%s is no file system that was made here", root.Name()), err)
	}
	return nil
}

// mounted reports whether something is mounted.
func (v *Volume) mounted() (bool, error) {
	var at, above unix.Stat_t
	if err := unix.Stat(v.Path(), &at); errors.Is(err, unix.ENOENT) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	err := unix.Stat(v.dir, &above)
	return at.Dev != above.Dev, err
}

const (
	// Of ext4's ioctl.h.
	ext4Shutdown   = 0x8004587d
	ext4NoLogFlush = 2
)

// Cut cuts the power: what was not synced is lost, whether content, name or size. From here on whoever uses the volume gets
// errors. Then kill ends whoever may begin to use it, Cut all processes that do. The volume is unmounted when Cut returns.
func (v *Volume) Cut(kill func() error) error {
	if err := v.shutDown(); err != nil {
		return fmt.Errorf("cutting the power: %w", err)
	}
	if err := kill(); err != nil {
		return fmt.Errorf("cutting the power: %w", err)
	}
	if err := v.letGo(); err != nil {
		return fmt.Errorf("cutting the power: %w", err)
	}
	return nil
}

func (v *Volume) shutDown() error {
	root, err := os.Open(v.Path())
	if err != nil {
		return err
	}
	defer root.Close()
	if err := v.ours(root); err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(int(root.Fd()), ext4Shutdown, ext4NoLogFlush)
}

// On mounts the volume again, as it was when the power was cut.
func (v *Volume) On() error {
	if err := v.mount(); err != nil {
		return fmt.Errorf("giving power again: %w", err)
	}
	return nil
}

// letGo kills who uses the volume or its mount point, and unmounts it.
func (v *Volume) letGo() error {
	for deadline := time.Now().Add(letGoTimeout); ; {
		users, err := v.users()
		if err != nil {
			return err
		}
		for _, pid := range users {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
		err = unix.EBUSY
		if len(users) == 0 {
			err = unix.Unmount(v.Path(), 0)
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // it is not mounted
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("unmounting %s: %w, by the processes %v", v.Path(), err, users)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// users returns the processes that work in the volume or have files of it open.
func (v *Volume) users() (pids []int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || pid == os.Getpid() {
			continue
		}
		links, err := filepath.Glob(process + "/fd/*")
		if err != nil {
			return nil, err
		}
		for _, link := range append(links, process+"/cwd", process+"/root") {
			at, err := os.Readlink(link)
			if err == nil && (at == v.Path() || strings.HasPrefix(at, v.Path()+"/")) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

// Close unmounts and removes the volume, with what still uses it.
func (v *Volume) Close() (err error) {
	if v.dir == "" {
		return nil
	}
	mounted, err := v.mounted()
	if mounted {
		root, failed := os.Open(v.Path())
		if failed == nil {
			failed = errors.Join(v.ours(root), root.Close())
		} else if errors.Is(failed, unix.EIO) { // its power is cut, which was only done to one of ours
			failed = nil
		}
		err = errors.Join(err, failed)
	}
	if err == nil {
		err = v.letGo()
	}
	if err == nil {
		err = os.RemoveAll(v.dir)
	}
	if v.lock != nil {
		err = errors.Join(err, v.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("removing the volume in %s: %w", v.dir, err)
	}
	return nil
}

// removeVolumes removes the volumes of runs that were killed.
func removeVolumes() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), volumePrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < newVolume {
			continue // gone meanwhile, or just being made
		}
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue // somebody else's
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		if err := (&Volume{dir: dir, lock: lock}).Close(); err != nil {
			return err
		}
	}
	return nil
}
