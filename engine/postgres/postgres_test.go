package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play other processes that run a cluster.
func TestMain(m *testing.M) {
	if dir := os.Getenv("NSREADY_TEST_RUN_CLUSTER"); dir != "" {
		c, err := Start(context.Background(), Options{Dir: dir, NoSync: true})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(c.URL("postgres"), c.Pid())
		c.Wait() // until we are killed, or stdin closes
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func run(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil && !t.Failed() && c.err == nil {
			t.Error(err)
		}
	})
	return c
}

func stop(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// query returns what psql prints, unaligned.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	out, err := psql(url, sql)
	if err != nil {
		t.Fatalf("%s: %v: %s", sql, err, out)
	}
	return out
}

func psql(url, sql string) (string, error) {
	b, err := Find("")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(b.Path("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, url).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// refused starts a cluster that cannot be, and returns the error's one line.
func refused(t *testing.T, o Options) error {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err == nil {
		c.Stop(context.Background())
		t.Fatal("it started")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("not one line: %v", err)
	}
	return err
}

func wantIn(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// eventually polls until done holds.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatal("waited in vain: ", what)
		case <-poll.C:
		}
	}
}

// processes returns the PostgreSQL processes that serve dir.
func processes(t *testing.T, dir string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{dir: dir}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && c.serves(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// private returns a directory that nobody else may enter.
func private(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// appendConf adds a line to the configuration of a stopped cluster.
func appendConf(t *testing.T, dir, line string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(line + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TimescaleDB is loaded where it is installed, beside what the cluster's own configuration loads.
func TestTimescaleDB(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	c := run(t, Options{Dir: dir, NoSync: true})
	installed := query(t, c.URL("postgres"), "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'") == "1"
	t.Logf("TimescaleDB is installed: %v", installed)
	libraries := func(c *Cluster) string { return query(t, c.URL("postgres"), "SHOW shared_preload_libraries") }
	want := "plpgsql"
	if installed {
		want = "timescaledb,plpgsql"
		if got := query(t, c.URL("postgres"), "SHOW timescaledb.telemetry_level"); got != "off" {
			t.Errorf("TimescaleDB's own telemetry is %q", got)
		}
	}
	if got := libraries(c); got != want {
		t.Errorf("%q is loaded, want %q", got, want)
	}
	stop(t, c)

	// auto_explain stands for what an operator adds.
	appendConf(t, dir, "shared_preload_libraries = 'auto_explain'")
	want = "auto_explain,plpgsql"
	if installed {
		want = "timescaledb,auto_explain,plpgsql"
	}
	c = run(t, Options{Dir: dir, NoSync: true})
	if got := libraries(c); got != want {
		t.Errorf("%q is loaded, want %q", got, want)
	}
	stop(t, c)

	broken := t.TempDir()
	if err := os.Chmod(filepath.Dir(broken), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "timescaledb.so"), []byte("not a library"), 0o755); err != nil {
		t.Fatal(err)
	}
	appendConf(t, dir, "dynamic_library_path = '"+broken+":$libdir'")
	err := refused(t, Options{Dir: dir, NoSync: true})
	wantIn(t, err, "loading TimescaleDB, ", `could not load library`, "PostgreSQL "+c.Binaries().Version)
}

func TestStart(t *testing.T) {
	home := private(t)
	dir := filepath.Join(home, "a b*[", "postgres") // made with its parent; the name is no pattern
	c := run(t, Options{Dir: dir, Settings: map[string]string{"work_mem": "5MB", "max_connections": "50"}})

	for setting, want := range map[string]string{
		"listen_addresses": "127.0.0.1", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
		"data_checksums": "on", "server_encoding": "UTF8", "lc_collate": "C", "password_encryption": "scram-sha-256",
		"timezone": "UTC", "max_wal_size": "4GB", "checkpoint_timeout": "15min",
		"max_connections": "50", "work_mem": "5MB", // the caller's settings win
	} {
		if setting == "lc_collate" {
			if got := query(t, c.URL("postgres"), "SELECT datcollate FROM pg_database WHERE datname = 'postgres'"); got != want {
				t.Errorf("collation is %q, want %q", got, want)
			}
			continue
		}
		if got := query(t, c.URL("postgres"), "SHOW "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if got := query(t, c.URL("postgres"), "SHOW wal_compression"); got != "lz4" && got != "on" && got != "pglz" {
		t.Errorf("wal_compression is %q", got)
	}
	if out, err := psql(strings.Replace(c.URL("postgres"), c.password, "wrong", 1), "SELECT 1"); err == nil || !strings.Contains(out, "password authentication failed") {
		t.Errorf("a wrong password yields %v: %s", err, out)
	}
	if info, err := os.Stat(dir + ".password"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", info, err)
	}
	if pgid, err := syscall.Getpgid(c.Pid()); err != nil || pgid == syscall.Getpgrp() {
		t.Errorf("PostgreSQL is in our process group, where Ctrl-C reaches it (%v)", err)
	}
	if os.Geteuid() == 0 {
		for path, mine := range map[string]bool{home: true, filepath.Dir(dir): true, dir + ".password": true, dir: false} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Sys().(*syscall.Stat_t).Uid == 0; got != mine {
				t.Errorf("%s belongs to root: %t, want %t", path, got, mine)
			}
		}
	}
	if left, _ := filepath.Glob(escapeGlob(dir) + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}

	query(t, c.URL("postgres"), "CREATE DATABASE plant")
	query(t, c.URL("plant"), "CREATE TABLE kept AS SELECT 42 AS x")
	stop(t, c)
	if err := c.Wait(); err != nil {
		t.Errorf("Wait after Stop: %v", err)
	}
	if pids := processes(t, dir); len(pids) > 0 {
		t.Errorf("Stop left processes %v", pids)
	}
	stop(t, c) // twice is fine

	again := run(t, Options{Dir: dir})
	if got := query(t, again.URL("plant"), "SELECT x FROM kept"); got != "42" {
		t.Errorf("the second start finds %q", got)
	}
	if again.password != c.password {
		t.Error("the password changed")
	}
}

func TestNoSync(t *testing.T) {
	c := run(t, Options{Dir: filepath.Join(private(t), "postgres"), NoSync: true})
	for setting, want := range map[string]string{"fsync": "off", "synchronous_commit": "on"} {
		if got := query(t, c.URL("postgres"), "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
}

// runner starts a process that runs a cluster in dir, and returns it with the cluster's URL and pid.
func runner(t *testing.T, dir string) (cmd *exec.Cmd, url string, pid int) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "NSREADY_TEST_RUN_CLUSTER="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &url, &pid); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return cmd, url, pid
}

func TestParentKilled(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	parent, url, _ := runner(t, dir)
	query(t, url, "CREATE TABLE kept AS SELECT 42 AS x")

	wantIn(t, refused(t, Options{Dir: dir}), "in use by process "+strconv.Itoa(parent.Process.Pid))

	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	eventually(t, "PostgreSQL ends with its parent", func() bool { return len(processes(t, dir)) == 0 })

	c := run(t, Options{Dir: dir, NoSync: true})
	if got := query(t, c.URL("postgres"), "SELECT x FROM kept"); got != "42" {
		t.Errorf("committed data: %q", got)
	}
}

// A start right after the kill meets a PostgreSQL that may still be stopping.
func TestParentKilledAndStartedAtOnce(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	for i := range 3 {
		parent, url, _ := runner(t, dir)
		query(t, url, fmt.Sprintf("CREATE TABLE kept_%d ()", i))
		if err := parent.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		parent.Wait()
	}
	c := run(t, Options{Dir: dir, NoSync: true})
	if got := query(t, c.URL("postgres"), "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'kept_%'"); got != "3" {
		t.Errorf("%s of 3 tables are there", got)
	}
}

// A postmaster that outlived its parent all the same is stopped.
func TestTakeOver(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	c := run(t, Options{Dir: dir, NoSync: true})
	query(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS x")
	stop(t, c)

	handle, cred, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	cmd := c.command(t.Context(), cred, "postgres", handle)
	_, port, _ := net.SplitHostPort(c.addr)
	cmd.Args = append(cmd.Args, "-D", inherited, "-c", "unix_socket_directories="+inherited, "-c", "port="+port)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "the stray server is ready", func() bool {
		pid, status, err := readPostmasterPid(dir)
		return err == nil && pid == cmd.Process.Pid && status == "ready"
	})

	c = run(t, Options{Dir: dir, NoSync: true})
	if err := <-ended; err != nil || !strings.Contains(said.String(), "fast shutdown") {
		t.Errorf("the stray server was not stopped in good order: %v: %s", err, said.String())
	}
	if got := query(t, c.URL("postgres"), "SELECT x FROM kept"); got != "42" {
		t.Errorf("committed data: %q", got)
	}
}

// A killed postmaster is noticed, and a backend that goes on calculating does not keep the next one from starting.
func TestPostmasterKilled(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	c := run(t, Options{Dir: dir, NoSync: true})
	busy := exec.Command(c.binaries.Path("psql"), "-Xqc", "SELECT count(*) FROM generate_series(1, 1e12)", c.URL("postgres"))
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer busy.Wait()
	eventually(t, "the query runs", func() bool {
		return query(t, c.URL("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1e12%' AND pid <> pg_backend_pid()") == "1"
	})
	if err := syscall.Kill(c.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	wantIn(t, c.Wait(), "ended by itself", "killed")
	if err := c.Stop(t.Context()); err == nil {
		t.Error("Stop does not tell that the cluster had ended by itself")
	}
	if len(processes(t, dir)) == 0 {
		t.Fatal("the busy backend ended: this tests nothing")
	}
	c = run(t, Options{Dir: dir, NoSync: true})
	query(t, c.URL("postgres"), "SELECT 1")
}

// After a crash the number in postmaster.pid may belong to anybody.
func TestStalePid(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	c := run(t, Options{Dir: dir, NoSync: true})
	pidFile := filepath.Join(dir, "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, c)

	handle, cred, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	other := exec.Command("sleep", "600") // of the user whom PostgreSQL cannot tell from itself
	other.Dir, other.SysProcAttr = "/", &syscall.SysProcAttr{Credential: cred}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(other.Process.Pid)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, Options{Dir: dir, NoSync: true})
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process was touched: %v", err)
	}
}

func TestStopCutShort(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	c := run(t, Options{Dir: dir, NoSync: true})
	query(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A stopped process takes SIGINT only later, together with the harder SIGQUIT.
	if err := syscall.Kill(c.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Stop(ctx) }()
	eventually(t, "SIGQUIT is sent", func() bool { return c.forced.Load() })
	if err := syscall.Kill(c.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if err == nil {
		t.Fatal("Stop does not tell that it cut PostgreSQL short")
	}
	wantIn(t, err, "cut short")
	if text, err := os.ReadFile(dir + ".log"); err != nil || !strings.Contains(string(text), "immediate shutdown") {
		t.Errorf("PostgreSQL was not told to stop at once (%v): %s", err, text)
	}
	if pids := processes(t, dir); len(pids) > 0 {
		t.Errorf("Stop left processes %v", pids)
	}
	c = run(t, Options{Dir: dir, NoSync: true})
	if got := query(t, c.URL("postgres"), "SELECT x FROM kept"); got != "42" {
		t.Errorf("committed data: %q", got)
	}
}

func TestInterruptedCreation(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	unfinished := func() []string {
		found, err := filepath.Glob(dir + ".new-*/PG_VERSION")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	// A killed process leaves its directory, which looks like a cluster.
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), "NSREADY_TEST_RUN_CLUSTER="+dir)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "initdb is at work", func() bool { return len(unfinished()) == 1 })
	parent.Process.Kill()
	parent.Wait()
	left := unfinished()
	if len(left) == 0 {
		t.Fatal("nothing was left: this tests nothing")
	}

	// A cancelled one cleans up.
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan error, 1)
	go func() {
		_, err := Start(ctx, Options{Dir: dir, NoSync: true})
		started <- err
	}()
	eventually(t, "another initdb is at work", func() bool { now := unfinished(); return len(now) == 1 && !slices.Equal(now, left) })
	enough := errors.New("enough")
	cancel(enough)
	if err := <-started; !errors.Is(err, enough) {
		t.Fatalf("a cancelled start returns %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cluster's directory exists (%v)", err)
	}

	c := run(t, Options{Dir: dir, NoSync: true})
	query(t, c.URL("postgres"), "SELECT 1")
	if left := unfinished(); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = refused(t, Options{Dir: filepath.Join(private(t), "postgres"), Addr: l.Addr().String(), NoSync: true})
	wantIn(t, err, l.Addr().String(), "choose another address")
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v is no EADDRINUSE", err)
	}
}

func TestRefused(t *testing.T) {
	dir := filepath.Join(private(t), "postgres")
	wantIn(t, refused(t, Options{}), "no directory")
	wantIn(t, refused(t, Options{Dir: dir, Addr: "here"}), "address to listen on")

	// Only as good as its settings: the first start creates, the second is as bad.
	for range 2 {
		wantIn(t, refused(t, Options{Dir: dir, NoSync: true, Settings: map[string]string{"max_connections": "many"}}),
			"max_connections", "PostgreSQL said", dir+".log")
	}
	if err := os.Remove(dir + ".password"); err != nil {
		t.Fatal(err)
	}
	wantIn(t, refused(t, Options{Dir: dir}), "password")

	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Find("")
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, refused(t, Options{Dir: dir}), dir, "PostgreSQL 9:", b.Version, "apt-get install postgresql-9", "pg_upgrade")

	if err := os.Remove(filepath.Join(dir, "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	wantIn(t, refused(t, Options{Dir: dir}), "not empty")
}

// A cluster serves the user that it belongs to, be it not root.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user; the other tests run as an ordinary one now")
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	home := t.TempDir()
	for dir := home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nobody, daemon = 65534, 1
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, dir string) (*exec.Cmd, string) {
		cmd := exec.Command("/proc/self/fd/3") // the binary's own directory may be root's alone
		cmd.ExtraFiles = []*os.File{self}
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "NSREADY_TEST_RUN_CLUSTER="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return cmd, line
	}
	dir := filepath.Join(home, "postgres")
	cmd, line := as(nobody, dir)
	var url string
	if _, err := fmt.Sscan(line, &url); err != nil || !strings.HasPrefix(url, "postgres://") {
		t.Fatalf("as nobody: %s", line)
	}
	query(t, url, "CREATE TABLE kept AS SELECT 42 AS x")
	cmd.Process.Kill()
	cmd.Wait()

	// Root goes on as that user.
	c := run(t, Options{Dir: dir, NoSync: true})
	if got := query(t, c.URL("postgres"), "SELECT x FROM kept"); got != "42" {
		t.Errorf("committed data: %q", got)
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d", c.Pid())); err != nil || info.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("the postmaster does not run as the directory's owner (%v)", err)
	}
	stop(t, c)

	// A third user is told whose it is.
	if err := os.Chown(home, daemon, daemon); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".lock", ".log", ".password"} {
		if err := os.Chown(dir+suffix, daemon, daemon); err != nil {
			t.Fatal(err)
		}
	}
	_, line = as(daemon, dir)
	wantIn(t, errors.New(line), "permission denied", "belongs to user "+userName(nobody))

	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	wantIn(t, refused(t, Options{Dir: dir}), "belongs to root", "chown")
}

func TestNoSpace(t *testing.T) {
	home := private(t)
	if err := syscall.Mount("tmpfs", home, "tmpfs", 0, "size=12m,mode=0700"); err != nil {
		t.Skipf("cannot mount a small file system here: %v; TestExplain covers the text", err)
	}
	defer syscall.Unmount(home, syscall.MNT_DETACH)
	err := refused(t, Options{Dir: filepath.Join(home, "postgres"), NoSync: true})
	wantIn(t, err, "no space left on device", "free some space")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v is no ENOSPC", err)
	}
	if left, _ := filepath.Glob(filepath.Join(home, "postgres.new-*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}
