package postgres

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// acquire takes the lock that says who runs a cluster. It ends with the process at the latest.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(f) // for the message only
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by process %s: stop that one, or choose another directory",
				strings.TrimSuffix(path, ".lock"), strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unprivileged returns the user and group to give a new cluster to when we are root.
func unprivileged() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return 0, 0, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: " +
				"run as another user, or create one (useradd --system postgres)")
		}
	}
	uid, err = strconv.Atoi(u.Uid)
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// credential returns who to run as: uid with its groups where the system knows them.
func credential(uid, gid uint32) *syscall.Credential {
	c := &syscall.Credential{Uid: uid, Gid: gid}
	if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
		ids, _ := u.GroupIds()
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				c.Groups = append(c.Groups, uint32(n))
			}
		}
	}
	return c
}

func userName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// writeFile replaces a file of mode 0600 so that after a crash it is whole, old or new.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // renamed when all went well
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var escapeGlob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace

// maxLog bounds each of the two files of a log.
const maxLog = 16 << 20

// logFile takes what PostgreSQL writes. It starts a new file when one is full, keeping one older, and remembers the last lines.
type logFile struct {
	path string

	mu   sync.Mutex
	f    *os.File
	size int64
	lost int64 // bytes that could not be written since the last that could
	tail []byte
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write never fails: that would end the copying from PostgreSQL's pipe, and then PostgreSQL would hang on a full one.
// What a full disk does not take is counted and told as soon as something can be written again.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if extra := len(l.tail) - 8<<10; extra > 0 {
		l.tail = append(l.tail[:0], l.tail[extra:]...)
	}
	if l.write(p) != nil {
		l.lost += int64(len(p))
	}
	return len(p), nil
}

func (l *logFile) write(p []byte) error {
	if l.size >= maxLog {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
		old := l.f
		if err := l.open(); err != nil {
			return err
		}
		old.Close()
	}
	if l.lost > 0 {
		n, err := fmt.Fprintf(l.f, "(%d bytes of log could not be written here)\n", l.lost)
		l.size += int64(n)
		if err != nil {
			return err
		}
		l.lost = 0
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return err
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// forget empties the memory of last lines.
func (l *logFile) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = nil
}

var linePrefix = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \w+ \[\d+\] (\S+@\S+ )?`)

// lines returns the last lines that tell something, without their prefixes, at most n.
func (l *logFile) lines(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(l.tail)) {
		line = strings.TrimSpace(linePrefix.ReplaceAllString(line, ""))
		if line != "" && !strings.HasPrefix(line, "LOG:  starting PostgreSQL") && !strings.HasPrefix(line, "LOG:  database system is") {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

func (l *logFile) last() string { return strings.Join(l.lines(1), "") }

// explain adds to err, on one line, what PostgreSQL said last and where to read more, and recognises what we know a remedy for.
func (l *logFile) explain(err error) error {
	lines := l.lines(6)
	said := strings.Join(lines, " | ")
	for _, known := range []struct {
		says   string
		errno  syscall.Errno
		remedy string
	}{
		{"No space left on device", syscall.ENOSPC, "free some space, or choose another directory"},
		{"Disk quota exceeded", syscall.EDQUOT, "free some space, or choose another directory"},
		{"Address already in use", syscall.EADDRINUSE, "stop the other process, or choose another address"},
		{"Permission denied", syscall.EACCES, "look at the owner and mode of the directory and of what is in it"},
	} {
		if strings.Contains(said, known.says) {
			err = fmt.Errorf("%w (%s)", known.errno, known.remedy)
			break
		}
	}
	if said == "" {
		return err
	}
	return fmt.Errorf("%w; PostgreSQL said: %s; more in %s", err, said, l.path)
}
