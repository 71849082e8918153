package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/nsready/nsready/engine/store/storetest"
)

var update = flag.Bool("update", false, "rewrite the expected output in scripts")

func TestMain(m *testing.M) {
	// Scripts run this program as nsready.
	if filepath.Base(os.Args[0]) == "nsready" {
		main()
	}
	if err := os.Setenv("LC_ALL", "C.UTF-8"); err != nil {
		panic(err)
	}
	storetest.Main(m)
}

// tbKey is the key of a script's testing.TB.
type tbKey struct{}

// TestScripts runs testdata/script/*.txtar. Beside testscript's own commands there are
//
//	database             make an empty database, and name it in DATABASE_URL
//	[!] psql SQL         run a statement there
//	ready FILE           write the ready.json of a running 'nsready up' that has this database
//	exits CODE PROGRAM … run a program that must exit with this code
//	wantjson FILE KEY=VALUE …   compare values of a JSON document, at paths such as changes.0.action
//	mode FILE OCTAL      compare a file's permissions
func TestScripts(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("GO_VERSION", runtime.Version())
			env.Setenv("LC_ALL", "C.UTF-8")
			env.Values[tbKey{}] = env.T()
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			return os.Symlink(program, filepath.Join(bin, "nsready"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"database": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Setenv("DATABASE_URL", storetest.Database(ts.Value(tbKey{}).(testing.TB)))
			},
			"psql": func(ts *testscript.TestScript, neg bool, args []string) {
				if err := execute(ts.Getenv("DATABASE_URL"), args[0]); (err != nil) != neg {
					ts.Fatalf("%s: %v", args[0], err)
				}
			},
			"exits":    exits,
			"wantjson": wantJSON,
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				name := ts.MkAbs(args[0])
				ts.Check(os.MkdirAll(filepath.Dir(name), 0o755))
				text, err := json.Marshal(map[string]any{"database_url": ts.Getenv("DATABASE_URL"), "pid": os.Getpid()})
				ts.Check(err)
				ts.Check(os.WriteFile(name, text, 0o600))
			},
			"mode": func(ts *testscript.TestScript, _ bool, args []string) {
				info, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
					ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
				}
			},
		},
	})
}

func execute(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// exits is exec with an exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var failed *exec.ExitError
	code := 0
	switch {
	case errors.As(err, &failed):
		code = failed.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%s exited with %d, want %s", args[1], code, args[0])
	}
}

func wantJSON(ts *testscript.TestScript, _ bool, args []string) {
	var document any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &document); err != nil {
		ts.Fatalf("%s is no JSON document: %v", args[0], err)
	}
	for _, wanted := range args[1:] {
		path, want, _ := strings.Cut(wanted, "=")
		v := document
		for _, step := range strings.Split(path, ".") {
			switch at := v.(type) {
			case map[string]any:
				v = at[step]
			case []any:
				var i int
				if _, err := fmt.Sscan(step, &i); step == "length" {
					v = len(at)
				} else if err == nil && i < len(at) {
					v = at[i]
				} else {
					v = nil
				}
			default:
				v = nil
			}
		}
		if got := fmt.Sprint(v); got != want {
			ts.Fatalf("%s is %s, want %s", path, got, want)
		}
	}
}

// terminal opens a pseudo terminal; what is written to its slave can be read from the master.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

const smallEstate = `customer "acme" {
  project "mill" {
    site "north" {
      device "press-01" {
        type = "meter"
      }
    }
  }
}
`

// session is nsready on a terminal.
type session struct {
	*exec.Cmd
	master *os.File
	screen bytes.Buffer
}

func startSession(t *testing.T, env ...string) *session {
	t.Helper()
	return startApply(t, storetest.Database(t), nil, env...)
}

// startApply starts nsready apply with flags, of smallEstate to the database at url.
func startApply(t *testing.T, url string, args []string, env ...string) *session {
	t.Helper()
	return startSessionOf(t, url, append([]string{"apply"}, args...), env...)
}

// startSessionOf runs a command on a terminal.
func startSessionOf(t *testing.T, url string, args []string, env ...string) *session {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nsready.hcl"), []byte(smallEstate), 0o644); err != nil {
		t.Fatal(err)
	}
	master, slave := terminal(t)
	s := &session{Cmd: exec.Command(program, args...), master: master}
	s.Args[0] = "nsready"
	s.Dir = dir
	s.Env = append(os.Environ(), append([]string{"DATABASE_URL=" + url, "TERM=xterm", "NO_COLOR="}, env...)...)
	s.Stdin, s.Stdout, s.Stderr = slave, slave, slave
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill() })
	slave.Close()
	return s
}

// until reads what the terminal shows until it contains text.
func (s *session) until(t *testing.T, text string) {
	t.Helper()
	deadline := time.AfterFunc(time.Minute, func() { s.Process.Kill() })
	defer deadline.Stop()
	buffer := make([]byte, 4096)
	for !strings.Contains(s.screen.String(), text) {
		n, err := s.master.Read(buffer)
		s.screen.Write(buffer[:n])
		if err != nil {
			t.Fatalf("the terminal never showed %q:\n%s", text, s.screen.String())
		}
	}
}

// exitCode waits for the end.
func (s *session) exitCode(t *testing.T) int {
	t.Helper()
	deadline := time.AfterFunc(time.Minute, func() { s.Process.Kill() })
	defer deadline.Stop()
	s.Wait() // its exit code is looked at
	return s.ProcessState.ExitCode()
}

func TestApplyOnTerminal(t *testing.T) {
	for _, test := range []struct {
		name, answer, want string
		code               int
	}{
		{"yes", "yes\n", "Apply complete! Resources: 4 added, 0 changed, 0 destroyed.", 0},
		{"y is no yes", "y\n", "not approved, nothing was changed", 1},
		{"YES is no yes", "YES\n", "not approved, nothing was changed", 1},
		{"end of input", "\x04", "not approved, nothing was changed", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startSession(t)
			s.until(t, "Enter a value: ")
			if !strings.Contains(s.screen.String(), "\x1b[32m+\x1b[0m customer.acme") {
				t.Errorf("no green + on a terminal: %q", s.screen.String())
			}
			if _, err := s.master.WriteString(test.answer); err != nil {
				t.Fatal(err)
			}
			s.until(t, test.want)
			if code := s.exitCode(t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
		})
	}
}

func TestNoColorOnTerminal(t *testing.T) {
	s := startSession(t, "NO_COLOR=1")
	s.until(t, "Enter a value: ")
	if strings.Contains(s.screen.String(), "\x1b") {
		t.Errorf("escape sequences under NO_COLOR: %q", s.screen.String())
	}
}

func TestInterruptWhileAsking(t *testing.T) {
	s := startSession(t)
	s.until(t, "Enter a value: ")
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.until(t, "Interrupted.")
	if code := s.exitCode(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}

// asked is an input that nobody writes to. It calls read when it is read from.
type asked struct {
	read func()
	end  chan struct{}
}

func (a asked) Read([]byte) (int, error) {
	a.read()
	<-a.end
	return 0, io.EOF
}

func TestInterruptWhileStandardInputIsRead(t *testing.T) {
	url := migrated(t)
	for _, args := range [][]string{
		{"fmt", "-"},
		{"import", "registry", "-", "-database-url", url},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		in := asked{cancel, make(chan struct{})}
		ended := make(chan int, 1)
		var out lockedBuffer
		go func() { ended <- run(ctx, args, in, &out, &out) }()
		select {
		case code := <-ended:
			if code == 0 || !strings.Contains(out.String(), "canceled") {
				t.Errorf("%v exits with %d: %s", args, code, out.String())
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%v goes on after an interrupt", args)
		}
		close(in.end)
	}
	if !ask[bool](t, url, `SELECT `+free) {
		t.Error("the registry is still locked")
	}
}

func TestInterruptWhileADeclarationIsRead(t *testing.T) {
	for _, command := range []string{"validate", "lint"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out bytes.Buffer
		if code := run(ctx, []string{command, "-config", "../../nsready.hcl"}, strings.NewReader(""), &out, &out); code == 0 {
			t.Errorf("%s says: %s", command, out.String())
		}
	}
}
