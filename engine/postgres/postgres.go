// Package postgres runs a private PostgreSQL cluster: a process creates it, starts it, and stops it with itself.
//
// Beside the cluster's directory DIR lie DIR.password (the superuser's), DIR.log and DIR.log.1 (what PostgreSQL logs) and
// DIR.lock (held by the process that runs the cluster).
//
// PostgreSQL refuses to run as root. When we are root it runs as the owner of the cluster's directory, which is the user
// postgres, or nobody where there is none. That user may be unable to enter the directory by its path (below a 0700
// home), so the programs get it as an open file and know it as /proc/self/fd/3.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// inherited is the cluster's directory as the programs we start see it.
const inherited = "/proc/self/fd/3"

const (
	fastTimeout      = time.Minute      // from SIGINT to SIGQUIT; a fast shutdown writes a checkpoint
	takeoverTimeout  = 10 * time.Second // the same for what an earlier process left running
	immediateTimeout = 10 * time.Second // from SIGQUIT to SIGKILL; PostgreSQL kills its own children after 5 s
	pollInterval     = 10 * time.Millisecond
	portAttempts     = 5
)

// Options say which cluster to run and how. Only Dir is required.
type Options struct {
	Dir  string // the cluster's directory; made with its parents when it does not exist
	Addr string // host:port to listen on; "" is 127.0.0.1:0, port 0 is a free one

	// Settings are added to the server's, and win over ours, over postgresql.conf and over ALTER SYSTEM.
	Settings map[string]string

	Log *slog.Logger // nil discards

	// NoSync turns fsync off: a crash of the machine destroys the cluster; one of the server alone does no harm.
	// For tests only.
	NoSync bool
}

// Cluster is a running cluster.
type Cluster struct {
	binaries Binaries
	dir      string // absolute
	addr     string // host:port, the port known
	password string
	lock     *os.File
	out      *logFile
	log      *slog.Logger

	process  *os.Process
	stopping atomic.Bool
	forced   atomic.Bool   // by more than a fast shutdown
	done     chan struct{} // closed after err is set and the lock released
	err      error
}

// Start runs the cluster in o.Dir, which it creates on first use, and returns when it accepts connections; that may take
// long after a crash, while PostgreSQL recovers. A server that an earlier process left running there is stopped first.
// TimescaleDB is loaded when the installation has it, for databases that create the extension.
// ctx bounds the start only: the cluster runs until Stop, or until this process ends in whatever way.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return c, nil
}

func start(ctx context.Context, o Options) (_ *Cluster, err error) {
	c := &Cluster{log: o.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		return nil, errors.New("no directory given")
	}
	if c.dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("address to listen on: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o700); err != nil {
		return nil, err
	}
	if c.lock, err = acquire(c.dir + ".lock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.release()
		}
	}()
	if c.out, err = openLog(c.dir + ".log"); err != nil {
		return nil, err
	}

	major, err := clusterMajor(c.dir)
	if err != nil {
		return nil, err
	}
	if c.binaries, err = Find(major); err != nil {
		if major != "" {
			err = fmt.Errorf("%s holds a cluster of PostgreSQL %s: %w", c.dir, major, err)
		}
		return nil, err
	}
	if major == "" {
		if err := c.create(ctx, o.NoSync); err != nil {
			return nil, fmt.Errorf("creating a cluster in %s: %w", c.dir, err)
		}
	}
	password, err := os.ReadFile(c.dir + ".password")
	if err != nil {
		return nil, fmt.Errorf("reading the password of the cluster in %s: %w", c.dir, err)
	}
	c.password = strings.TrimSpace(string(password))

	dir, cred, err := openDir(c.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := c.takeOver(); err != nil {
		return nil, err
	}
	settings := defaultSettings(o.NoSync)
	if c.accepts(ctx, dir, cred, "wal_compression", "lz4") {
		settings["wal_compression"] = "lz4"
	}
	libraries, timescale, err := c.withTimescaleDB(ctx, dir, cred)
	if err != nil {
		return nil, err
	}
	if timescale {
		maps.Copy(settings, timescaleSettings)
	}
	// PL/pgSQL, which triggers need, is loaded now: an upgrade of PostgreSQL's files under a running server would otherwise keep
	// its new sessions from loading it.
	settings["shared_preload_libraries"] = strings.TrimPrefix(libraries+",plpgsql", ",")
	settings["listen_addresses"] = host
	maps.Copy(settings, o.Settings)

	for attempt := 1; ; attempt++ {
		p, err := listenPort(host, port)
		if err != nil {
			return nil, err
		}
		c.addr = net.JoinHostPort(host, p)
		settings["port"] = p
		err = c.run(ctx, dir, cred, settings)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		if port != "0" || attempt == portAttempts {
			return nil, fmt.Errorf("listening on %s: %w", c.addr, err)
		}
	}
	c.log.Info("PostgreSQL is ready", "version", c.binaries.Version, "addr", c.addr, "dir", c.dir, "log", c.out.path)
	return c, nil
}

// URL returns the connection string of a database of the cluster, with the superuser's password.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", c.password),
		Host:     c.addr,
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr returns the host:port that the cluster listens on.
func (c *Cluster) Addr() string { return c.addr }

// Binaries returns the programs that the cluster runs with.
func (c *Cluster) Binaries() Binaries { return c.binaries }

// Pid returns the process id of the postmaster.
func (c *Cluster) Pid() int { return c.process.Pid }

// Done returns a channel that is closed when the cluster has ended, by Stop or by itself.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Wait waits until the cluster has ended. The error is nil if Stop ended it in good order.
func (c *Cluster) Wait() error {
	<-c.done
	return c.err
}

// Stop ends the cluster and returns when its processes are gone: sessions are cut, all is written, the next start needs no
// recovery. When ctx ends, or after a minute, it stops at once instead, which loses no committed data either;
// the error then says so.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stopping.Store(true)
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{
		{os.Interrupt, fastTimeout},
		{syscall.SIGQUIT, immediateTimeout},
		{os.Kill, immediateTimeout},
	} {
		c.forced.Store(step.signal != os.Interrupt)
		if err := c.process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping PostgreSQL (process %d): %w", c.Pid(), err)
		}
		select {
		case <-c.done:
			if c.err != nil {
				return fmt.Errorf("stopping PostgreSQL: %w", c.err)
			}
			return nil
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx) // the harder signals get their time
		case <-time.After(step.wait):
		}
	}
	return fmt.Errorf("stopping PostgreSQL: process %d does not end, not even killed", c.Pid())
}

// release gives up what a cluster holds beside its process.
func (c *Cluster) release() {
	if c.out != nil {
		c.out.Close()
	}
	c.lock.Close()
}

// clusterMajor returns the major version of the cluster in dir, "" if there is none and one may be created.
func clusterMajor(dir string) (string, error) {
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err == nil {
		return strings.TrimSpace(string(version)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", unreadable(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unreadable(dir, err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%s is not empty and holds no PostgreSQL cluster: choose another directory, or empty it", dir)
	}
	return "", nil
}

func unreadable(dir string, err error) error {
	if info, statErr := os.Stat(dir); errors.Is(err, fs.ErrPermission) && statErr == nil {
		uid := info.Sys().(*syscall.Stat_t).Uid
		return fmt.Errorf("%w: %s belongs to user %s; run as that user or as root, or choose another directory", err, dir, userName(uid))
	}
	return err
}

// openDir opens the cluster's directory and says as whom to run its programs.
func openDir(path string) (*os.File, *syscall.Credential, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	info, err := dir.Stat()
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 {
		if int(stat.Uid) != os.Geteuid() {
			dir.Close()
			return nil, nil, fmt.Errorf("%s belongs to user %s; run as that user or as root, or choose another directory", path, userName(stat.Uid))
		}
		return dir, nil, nil
	}
	if stat.Uid == 0 {
		dir.Close()
		return nil, nil, fmt.Errorf("%s belongs to root, as whom PostgreSQL refuses to run: give it to another user (chown -R postgres %s)", path, path)
	}
	return dir, credential(stat.Uid, stat.Gid), nil
}

// command prepares a PostgreSQL program that knows dir as the inherited directory, and further files as the
// descriptors after it.
func (c *Cluster) command(ctx context.Context, cred *syscall.Credential, program string, dir *os.File, more ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binaries.Path(program))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"} // none of PGDATA, PGPORT, PGOPTIONS, …
	cmd.ExtraFiles = append([]*os.File{dir}, more...)
	// A process group of its own, so that Ctrl-C at the terminal reaches us alone and we stop things in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true}
	cmd.WaitDelay = immediateTimeout
	return cmd
}

// create makes the cluster in a directory of another name, so that an interrupted attempt is never taken for a cluster.
func (c *Cluster) create(ctx context.Context, noSync bool) error {
	leftovers, err := filepath.Glob(escapeGlob(c.dir) + ".new-*")
	if err != nil {
		return err
	}
	for _, path := range leftovers {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing an unfinished cluster: %w", err)
		}
	}
	path, err := os.MkdirTemp(filepath.Dir(c.dir), filepath.Base(c.dir)+".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(path) // renamed when all went well
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		if uid, gid, err = unprivileged(); err != nil {
			return err
		}
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	dir, cred, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()

	password := rand.Text()
	if err := writeFile(c.dir+".password", password+"\n"); err != nil {
		return err
	}
	handover, err := os.CreateTemp("", "nsready-password-")
	if err != nil {
		return err
	}
	defer handover.Close()
	// initdb opens it through /proc, which needs no name but the right owner.
	if err := errors.Join(os.Remove(handover.Name()), handover.Chown(uid, gid)); err != nil {
		return err
	}
	if _, err := handover.WriteString(password + "\n"); err != nil {
		return err
	}

	c.log.Info("creating a PostgreSQL cluster", "version", c.binaries.Version, "dir", c.dir)
	cmd := c.command(ctx, cred, "initdb", dir, handover)
	cmd.Args = append(cmd.Args, "--pgdata="+inherited, "--username=postgres", "--pwfile=/proc/self/fd/4",
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions")
	if noSync {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread() // Pdeathsig follows the thread
	err = cmd.Run()
	runtime.UnlockOSThread()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return c.out.explain(fmt.Errorf("initdb: %w", err))
	}
	if err := os.Rename(path, c.dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.dir))
}

// accepts reports whether the server takes the value of a setting, which may depend on how it was built.
func (c *Cluster) accepts(ctx context.Context, dir *os.File, cred *syscall.Credential, name, value string) bool {
	_, err := c.ask(ctx, dir, cred, name, name+"="+value)
	return err == nil
}

// ask returns the value that a setting has, or would have with others.
func (c *Cluster) ask(ctx context.Context, dir *os.File, cred *syscall.Credential, name string, others ...string) (string, error) {
	cmd := c.command(ctx, cred, "postgres", dir)
	cmd.Args = append(cmd.Args, "-D", inherited, "-C", name)
	for _, s := range others {
		cmd.Args = append(cmd.Args, "-c", s)
	}
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// withTimescaleDB returns the libraries to preload: those that the cluster's own configuration names and, when this
// installation has it, TimescaleDB before them.
func (c *Cluster) withTimescaleDB(ctx context.Context, dir *os.File, cred *syscall.Credential) (libraries string, timescale bool, err error) {
	configured, err := c.ask(ctx, dir, cred, "shared_preload_libraries")
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return "", false, nil // the start will say what is wrong with the configuration
	}
	if err != nil {
		return "", false, fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	libraries = configured
	if !strings.Contains(libraries, timescaleLibrary) {
		libraries = strings.TrimSuffix(timescaleLibrary+","+libraries, ",")
	}
	// A value that depends on the libraries makes the server load them before it answers.
	_, err = c.ask(ctx, dir, cred, "shared_memory_size", "shared_preload_libraries="+libraries)
	if err == nil {
		return libraries, true, nil
	}
	if !errors.As(err, &exit) || !exit.Exited() { // killed, it has told nothing
		return "", false, fmt.Errorf("looking for TimescaleDB: %w", err)
	}
	if !bytes.Contains(exit.Stderr, []byte(timescaleLibrary)) || bytes.Contains(exit.Stderr, []byte(`could not access file "`+timescaleLibrary+`"`)) {
		return configured, false, nil // it is not there, or the start will say what else is wrong
	}
	return "", false, fmt.Errorf("loading TimescaleDB, which is installed beside %s: %s; install one that fits PostgreSQL %s, or remove it",
		c.binaries.Path("postgres"), linePrefix.ReplaceAllString(strings.TrimSpace(string(exit.Stderr)), ""), c.binaries.Version)
}

// run starts the postmaster and waits until it accepts connections.
func (c *Cluster) run(ctx context.Context, dir *os.File, cred *syscall.Credential, settings map[string]string) error {
	cmd := c.command(context.Background(), cred, "postgres", dir)
	cmd.Args = append(cmd.Args, "-D", inherited, "-c", ownSetting+"="+c.dir, "-c", "unix_socket_directories="+inherited)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		cmd.Args = append(cmd.Args, "-c", name+"="+settings[name])
	}
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.SysProcAttr.Pdeathsig = syscall.SIGINT
	cmd.WaitDelay = time.Second // for backends that outlive a killed postmaster, which only the next start stops
	c.out.forget()

	started := make(chan error)
	exited := make(chan struct{})
	var exit error
	// The thread that forks must live as long as the child, for Pdeathsig fires when it ends.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		exit = cmd.Wait()
		close(exited)
	}()
	if err := <-started; err != nil {
		return err
	}

	slow := time.NewTicker(5 * time.Second)
	defer slow.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case <-exited:
			if exit == nil {
				exit = errors.New("it stopped at once")
			}
			return c.out.explain(exit)
		case <-ctx.Done():
			cmd.Process.Signal(syscall.SIGQUIT)
			<-exited
			return c.out.explain(fmt.Errorf("gave up waiting: %w", context.Cause(ctx)))
		case <-slow.C:
			c.log.Info("waiting for PostgreSQL to accept connections", "dir", c.dir, "last", c.out.last())
		case <-poll.C:
			pid, status, err := readPostmasterPid(c.dir)
			if err != nil {
				return err
			}
			if pid != cmd.Process.Pid || status != "ready" {
				continue
			}
			c.process, c.done = cmd.Process, make(chan struct{})
			go c.watch(exited, &exit)
			return nil
		}
	}
}

// watch waits for the postmaster's end.
func (c *Cluster) watch(exited <-chan struct{}, exit *error) {
	<-exited
	switch {
	case c.forced.Load():
		c.err = errors.New("it did not end in time and was cut short; it will recover at its next start")
	case *exit != nil:
		c.err = c.out.explain(fmt.Errorf("PostgreSQL ended by itself: %w", *exit))
	case !c.stopping.Load():
		c.err = c.out.explain(errors.New("PostgreSQL was stopped by somebody else"))
	}
	c.release()
	close(c.done)
}

// listenPort returns the port to use: a free one for "0".
func listenPort(host, port string) (string, error) {
	if port != "0" {
		return port, nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	p := l.Addr().(*net.TCPAddr).Port
	return strconv.Itoa(p), l.Close()
}
