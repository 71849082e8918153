package postgres

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFind(t *testing.T) {
	install := func(version string, programs ...string) string {
		dir := t.TempDir()
		for _, p := range programs {
			script := "#!/bin/sh\necho '" + p + " (PostgreSQL) " + version + " (Debian 1)'\n"
			if err := os.WriteFile(filepath.Join(dir, p), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	pg14, pg15, pg17, pg19 := install("14.9", "postgres", "initdb"), install("15.20", "postgres", "initdb"),
		install("17.2", "postgres", "initdb"), install("19devel", "postgres", "initdb")
	clientOnly := install("18.1", "psql")
	linked := t.TempDir()
	if err := os.Symlink(filepath.Join(pg15, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}
	other15 := install("15.3", "postgres", "initdb")

	for name, test := range map[string]struct {
		dirs  []string
		major string
		want  Binaries
		says  []string
	}{
		"newest":             {[]string{pg15, pg17, pg14}, "", Binaries{pg17, "17.2", "17"}, nil},
		"asked for":          {[]string{pg14, pg17, pg15}, "15", Binaries{pg15, "15.20", "15"}, nil},
		"link":               {[]string{linked, pg14}, "", Binaries{pg15, "15.20", "15"}, nil},
		"first among equals": {[]string{other15, pg15}, "", Binaries{other15, "15.3", "15"}, nil},
		"development":        {[]string{pg17, pg19}, "", Binaries{pg19, "19devel", "19"}, nil},
		"client only":        {[]string{clientOnly, pg15}, "", Binaries{pg15, "15.20", "15"}, nil},
		"none":               {[]string{clientOnly, "/nonexistent", ""}, "", Binaries{}, []string{"not found", "apt-get install postgresql)", "PATH"}},
		"too old":            {[]string{pg14}, "", Binaries{}, []string{"found only PostgreSQL 14.9 (" + pg14 + ")", "PostgreSQL 15 or newer"}},
		"another":            {[]string{pg15, pg17}, "16", Binaries{}, []string{"17.2", "15.20", "apt-get install postgresql-16", "pg_upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := find(test.major, test.dirs)
			if test.says == nil && err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("found %v, want %v", got, test.want)
			}
			if test.says != nil {
				if err == nil {
					t.Fatal("no error")
				}
				wantIn(t, err, test.says...)
			}
		})
	}
}

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB
	for range 40 {
		if n, err := l.Write(chunk); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 || info.Size() > maxLog+int64(len(chunk)) {
			t.Errorf("%s holds %d bytes", p, info.Size())
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// What cannot be written is counted and told later.
	if n, err := l.Write([]byte("lost")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("kept\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(text, []byte("\n(4 bytes of log could not be written here)\nkept\n")) {
		t.Errorf("the log ends in %q", text[max(0, len(text)-100):])
	}
}

func TestExplain(t *testing.T) {
	exit := errors.New("exit status 1")
	for name, test := range map[string]struct {
		log  string
		is   error
		want string
	}{
		"nothing":  {"", exit, "exit status 1"},
		"prefixes": {"2026-08-22 10:00:00.123 UTC [17] LOG:  a\n2026-08-22 10:00:00.123 UTC [18] me@plant FATAL:  b\n\n", exit, "exit status 1; PostgreSQL said: LOG:  a | FATAL:  b; more in "},
		"space":    {"initdb: error: could not write file \"x\": No space left on device\n", syscall.ENOSPC, "no space left on device (free some space"},
		"port":     {"LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\n", syscall.EADDRINUSE, "address already in use (stop the other"},
		"last":     {strings.Repeat("a line of the past\n", 5000) + "FATAL:  now\n", exit, "| FATAL:  now; more in"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := openLog(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			l.Write([]byte(test.log))
			got := l.explain(exit)
			if !errors.Is(got, test.is) {
				t.Errorf("%v is no %v", got, test.is)
			}
			wantIn(t, got, test.want)
			if strings.Contains(got.Error(), "\n") || len(got.Error()) > 1000 {
				t.Errorf("too much: %v", got)
			}
		})
	}
}

func TestSharedBuffers(t *testing.T) {
	for memory, want := range map[int64]int64{0: 128 << 20, 128 << 20: 32 << 20, 8 << 30: 1 << 30, 256 << 30: 2 << 30} {
		if got := sharedBuffers(memory); got != want {
			t.Errorf("of %d bytes: %d, want %d", memory, got, want)
		}
	}
	if memory() <= 0 {
		t.Error("this machine's memory is unknown")
	}
}
