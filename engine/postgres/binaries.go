package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MinMajor is the oldest PostgreSQL that NSReady works with.
const MinMajor = 15

// Binaries are the programs of one PostgreSQL installation.
type Binaries struct {
	Dir     string // holds postgres, initdb and the rest
	Version string // such as "15.20"
	Major   string // such as "15"
}

// Path returns the path of a program such as pg_dump.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// Find returns the installation of a major version, or the newest for "". It looks on PATH, in /usr/lib/postgresql/*/bin,
// /usr/pgsql-*/bin and where pg_config points.
func Find(major string) (Binaries, error) {
	return find(major, candidates())
}

func find(major string, dirs []string) (Binaries, error) {
	var found []Binaries
	for _, dir := range dirs {
		b, err := inspect(dir)
		if err != nil {
			return Binaries{}, err
		}
		if b.Dir != "" && !slices.ContainsFunc(found, func(f Binaries) bool { return f.Dir == b.Dir }) {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(a, b Binaries) int { return cmp.Compare(number(b.Major), number(a.Major)) })
	for _, b := range found {
		if b.Major == major || major == "" && number(b.Major) >= MinMajor {
			return b, nil
		}
	}
	remedy := fmt.Sprintf("install PostgreSQL %d or newer (Debian, Ubuntu: apt-get install postgresql)", MinMajor)
	if major != "" {
		remedy = fmt.Sprintf("install PostgreSQL %s (Debian, Ubuntu: apt-get install postgresql-%s)", major, major)
	}
	remedy += ", or put the directory that holds its initdb and postgres on PATH"
	if major != "" && len(found) > 0 {
		remedy += ", or bring the cluster to the newer version with pg_upgrade"
	}
	if len(found) == 0 {
		return Binaries{}, errors.New("PostgreSQL's programs were not found: " + remedy)
	}
	var have []string
	for _, b := range found {
		have = append(have, fmt.Sprintf("%s (%s)", b.Version, b.Dir))
	}
	return Binaries{}, fmt.Errorf("found only PostgreSQL %s: %s", strings.Join(have, ", "), remedy)
}

// candidates returns the directories to look in; what comes first is preferred among equals.
func candidates() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the pattern is malformed
		}
		dirs = append(dirs, matches...)
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	return dirs
}

// inspect returns what is installed in dir, or the zero Binaries if that is not all we need.
func inspect(dir string) (Binaries, error) {
	// PATH often holds links; initdb finds postgres beside the real one.
	postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return Binaries{}, nil
	}
	if postgres, err = filepath.Abs(postgres); err != nil {
		return Binaries{}, err
	}
	b := Binaries{Dir: filepath.Dir(postgres)}
	if _, err := exec.LookPath(b.Path("initdb")); err != nil {
		return Binaries{}, nil
	}
	out, err := exec.Command(postgres, "--version").Output() // postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)
	if err != nil {
		return Binaries{}, fmt.Errorf("asking %s for its version: %w", postgres, err)
	}
	_, version, _ := strings.Cut(string(out), "(PostgreSQL) ")
	b.Version, _, _ = strings.Cut(strings.TrimSpace(version), " ")
	b.Major = strings.TrimRight(b.Version[:len(b.Version)-len(strings.TrimLeft(b.Version, "0123456789"))], " ")
	if b.Major == "" {
		return Binaries{}, fmt.Errorf("%s --version says %q, which names no version", postgres, strings.TrimSpace(string(out)))
	}
	return b, nil
}

func number(major string) int {
	n, _ := strconv.Atoi(major) // digits alone, see inspect
	return n
}
