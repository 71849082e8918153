package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/nsready/nsready/engine/postgres"
	"github.com/nsready/nsready/engine/store"
	"github.com/nsready/nsready/loadgen"
)

// composed is the installation of docker-compose.yml, under names, ports and images of its own.
type composed struct {
	t       *testing.T
	docker  *docker.Client
	command []string // docker-compose, or docker compose
	project string
	env     map[string]string // what differs from the file's defaults
	url     string            // of the database
}

const (
	ownLabel     = "nsready.test"               // of images, and so of their containers: the project
	composeLabel = "com.docker.compose.project" // of what docker-compose makes
	stale        = 20 * time.Minute             // after which a project is what a failed run has left; a run of tests ends before
	awkward      = `p@ss w:rd/%'"\#`            // a password that needs quoting everywhere
)

// compose makes the images. Everything is removed when the test ends.
func compose(t *testing.T) *composed {
	skip := func(why string, err error) {
		fmt.Fprintln(os.Stderr, "WARNING: containers are NOT TESTED:", why, err)
		t.Skip(why, err)
	}
	pool, err := dockertest.NewPool("")
	if err == nil {
		err = pool.Client.Ping()
	}
	if err != nil {
		skip("no Docker daemon answers:", err)
	}
	// The name of a project tells its age.
	c := &composed{t: t, docker: pool.Client, project: fmt.Sprintf("nsreadytest-%d-%d", time.Now().Unix(), os.Getpid())}
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if err = exec.Command(command[0], append(command[1:], "version")...).Run(); err == nil {
			c.command = command
			break
		}
	}
	if c.command == nil {
		skip("there is neither 'docker compose' nor docker-compose:", err)
	}
	c.sweep(func(project string) bool {
		seconds, err := strconv.ParseInt(strings.Split(project, "-")[1], 10, 64)
		return err != nil || time.Since(time.Unix(seconds, 0)) > stale
	})
	t.Cleanup(func() { c.sweep(func(project string) bool { return project == c.project }) })
	c.env = map[string]string{
		"CONTAINER_SUFFIX": "-" + c.project, "POSTGRES_PASSWORD": awkward, "ADMIN_BEARER_TOKEN": "a token", "QUEUE_SIZE": "256MiB",
		"NSREADY_IMAGE": c.project + ":nsready", "GO_IMAGE": c.project + ":go", "BASE_IMAGE": c.project + ":base",
		"DB_IMAGE": c.project + ":postgres", "NATS_IMAGE": c.project + ":nats",
	}
	for _, name := range []string{"DB_PORT", "NATS_PORT", "NATS_MONITOR_PORT", "COLLECTOR_PORT", "ADMIN_PORT"} {
		c.env[name] = freeAddress(t)
	}
	c.url = (&url.URL{Scheme: "postgres", User: url.UserPassword("postgres", awkward), Host: c.env["DB_PORT"], Path: "/nsready"}).String()

	start := time.Now()
	dir := t.TempDir()
	for name, pkg := range map[string]string{"nsready": ".", "nats-server": "github.com/nats-io/nats-server/v2"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s", "-o", filepath.Join(dir, name), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	built := time.Now()
	var server rootfs
	server.add("/nats-server", filepath.Join(dir, "nats-server"))
	c.image("nats", `ENTRYPOINT ["/nats-server"]`, &server)
	c.image("postgres", postgresImage, c.postgresFiles())
	var toolchain rootfs
	toolchain.program("/bin/sh", "/bin/cp", "/bin/mkdir")
	toolchain.add("/bin/go", "testdata/images/go")
	toolchain.add("/prebuilt", filepath.Join(dir, "nsready"))
	toolchain.text("/etc/ssl/certs/ca-certificates.crt", 0, "")
	c.image("go", "ENV PATH=/bin", &toolchain)
	c.image("base", "", &rootfs{})
	c.run("build", "collector_service")
	image, err := c.docker.InspectImage(c.env["NSREADY_IMAGE"])
	if err != nil {
		t.Fatal(err)
	}
	if user := image.Config.User; user == "" || strings.HasPrefix(user, "0") || strings.HasPrefix(user, "root") {
		t.Errorf("the image's user is %q", user)
	}
	if image.Size > 40<<20 {
		t.Errorf("the image has %d MiB", image.Size>>20)
	}
	t.Logf("binaries in %.1f s, images in %.1f s; nsready's has %.1f MB", built.Sub(start).Seconds(), time.Since(built).Seconds(), float64(image.Size)/1e6)
	return c
}

// freeAddress returns a loopback address that stays the same when a container is started again.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sweep removes everything of the projects that are wanted gone.
func (c *composed) sweep(gone func(project string) bool) {
	check := func(err error) {
		if err != nil {
			c.t.Error("removing:", err)
		}
	}
	ours := func(labels map[string]string) bool {
		project := cmp.Or(labels[composeLabel], labels[ownLabel])
		return strings.HasPrefix(project, "nsreadytest-") && gone(project)
	}
	containers, err := c.docker.ListContainers(docker.ListContainersOptions{All: true})
	check(err)
	for _, x := range containers {
		if ours(x.Labels) {
			check(c.docker.RemoveContainer(docker.RemoveContainerOptions{ID: x.ID, Force: true, RemoveVolumes: true}))
		}
	}
	networks, err := c.docker.ListNetworks()
	check(err)
	for _, x := range networks {
		if project, _, ok := strings.Cut(x.Name, "_"); ok && ours(map[string]string{ownLabel: project}) {
			check(c.docker.RemoveNetwork(x.ID))
		}
	}
	volumes, err := c.docker.ListVolumes(docker.ListVolumesOptions{})
	check(err)
	for _, x := range volumes {
		if ours(x.Labels) {
			check(c.docker.RemoveVolume(x.Name))
		}
	}
	// An image that others were built from cannot go before they are gone, and takes the layers between with it.
	for again := true; again; {
		images, err := c.docker.ListImages(docker.ListImagesOptions{Filters: map[string][]string{"label": {ownLabel}}})
		check(err)
		again = false
		var stays error
		for _, x := range images {
			if !ours(x.Labels) {
				continue
			}
			if err := c.docker.RemoveImageExtended(x.ID, docker.RemoveImageOptions{Force: true}); err == nil {
				again = true
			} else if !errors.Is(err, docker.ErrNoSuchImage) {
				stays = err
			}
		}
		if !again {
			check(stays)
		}
	}
}

// rootfs are the files of an image.
type rootfs struct {
	b     bytes.Buffer
	w     *tar.Writer
	known map[string]bool
	err   error
}

func (r *rootfs) write(h *tar.Header, content []byte) {
	if r.w == nil {
		r.w, r.known = tar.NewWriter(&r.b), map[string]bool{}
	}
	if r.known[h.Name] || r.err != nil {
		return
	}
	r.known[h.Name] = true
	h.Size = int64(len(content))
	if r.err = r.w.WriteHeader(h); r.err == nil {
		_, r.err = r.w.Write(content)
	}
}

func (r *rootfs) dir(name string, mode int64, owner int) {
	r.write(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner}, nil)
}

func (r *rootfs) text(name string, mode int64, content string) {
	r.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644 | mode}, []byte(content))
}

// add adds a file of this machine.
func (r *rootfs) add(name, from string) {
	content, err := os.ReadFile(from)
	if err != nil {
		r.err = errors.Join(r.err, err)
		return
	}
	r.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, content)
}

var library = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// program adds programs, or libraries, with the libraries that they need.
func (r *rootfs) program(names ...string) {
	for _, name := range names {
		r.add(name, name)
		out, err := exec.Command("ldd", name).Output()
		if err != nil {
			r.err = errors.Join(r.err, fmt.Errorf("ldd %s: %w", name, err))
		}
		for _, m := range library.FindAllStringSubmatch(string(out), -1) {
			r.add(m[1], m[1])
		}
	}
}

// image makes an image that has these files.
func (c *composed) image(tag, dockerfile string, files *rootfs) {
	c.t.Helper()
	if files.w != nil {
		files.err = errors.Join(files.err, files.w.Close())
	}
	var in rootfs
	text := fmt.Sprintf("FROM scratch\nLABEL %s=%s\n", ownLabel, c.project)
	if files.w != nil {
		text += "ADD rootfs.tar /\n"
		in.text("rootfs.tar", 0, files.b.String())
	}
	in.text("Dockerfile", 0, text+dockerfile+"\n")
	if err := errors.Join(files.err, in.err, in.w.Close()); err != nil {
		c.t.Fatalf("files of the image %s: %v", tag, err)
	}
	var out bytes.Buffer
	err := c.docker.BuildImage(docker.BuildImageOptions{Context: c.t.Context(), Name: c.project + ":" + tag, InputStream: &in.b, OutputStream: &out,
		RmTmpContainer: true, ForceRmTmpContainer: true})
	if err != nil {
		c.t.Fatalf("building the image %s: %v\n%s", tag, err, out.String())
	}
}

const postgresImage = `USER 999:999
ENTRYPOINT ["/bin/sh", "/entrypoint"]
STOPSIGNAL SIGINT`

// postgresFiles are this machine's PostgreSQL, without TimescaleDB, as which it would have to be preloaded.
func (c *composed) postgresFiles() *rootfs {
	r := &rootfs{}
	pg, err := postgres.Find("")
	if err != nil {
		c.t.Fatal(err)
	}
	r.program("/bin/sh", pg.Path("postgres"), pg.Path("initdb"), pg.Path("psql"), pg.Path("pg_isready"))
	where := func(what string) string {
		out, err := exec.Command(pg.Path("pg_config"), what).Output()
		if err != nil {
			c.t.Fatalf("pg_config %s: %v", what, err)
		}
		return strings.TrimSpace(string(out))
	}
	libraries, err := filepath.Glob(filepath.Join(where("--pkglibdir"), "*.so"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range libraries {
		if base := filepath.Base(name); !strings.HasPrefix(base, "llvm") && !strings.HasPrefix(base, "timescaledb") {
			r.program(name)
		}
	}
	err = filepath.WalkDir(where("--sharedir"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(name, "timescaledb") && !strings.Contains(name, "/man/") {
			r.add(name, name)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, zone := range []string{"UTC", "GMT"} {
		if name := "/usr/share/zoneinfo/" + zone; exists(name) {
			r.add(name, name)
		}
	}
	r.text("/etc/passwd", 0, "postgres:x:999:999::/:/bin/sh\n")
	entrypoint, err := os.ReadFile("testdata/images/postgres")
	if err != nil {
		c.t.Fatal(err)
	}
	r.text("/entrypoint", 0, "BIN="+pg.Dir+"\n"+string(entrypoint))
	r.add("/bin/pg_isready", pg.Path("pg_isready"))
	r.add("/bin/psql", pg.Path("psql"))
	r.dir("/tmp/", 0o1777, 0)
	r.dir("/var/run/postgresql/", 0o775, 999)
	r.dir("/var/lib/postgresql/data/", 0o700, 999)
	return r
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// run runs docker-compose.
func (c *composed) run(args ...string) {
	c.t.Helper()
	args = append(append(c.command[1:len(c.command):len(c.command)], "-f", "../../docker-compose.yml", "-p", c.project), args...)
	cmd := exec.CommandContext(c.t.Context(), c.command[0], args...)
	cmd.Env = os.Environ()
	for name, value := range c.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// name is that of a service's container.
func (c *composed) name(container string) string { return container + c.env["CONTAINER_SUFFIX"] }

func (c *composed) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *composed) state(container string) docker.State {
	c.t.Helper()
	x, err := c.docker.InspectContainer(c.name(container))
	c.must(err)
	return x.State
}

func (c *composed) log(container string) string {
	var out bytes.Buffer
	err := c.docker.Logs(docker.LogsOptions{Container: c.name(container), OutputStream: &out, ErrorStream: &out, Stdout: true, Stderr: true})
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return out.String()
}

// until waits for a condition and returns how long that took.
func (c *composed) until(what string, limit time.Duration, holds func() bool) time.Duration {
	c.t.Helper()
	return until(c.t, what, limit, holds)
}

// query reads one row over a connection of its own, which no fault has broken.
func (c *composed) query(sql string, into ...any) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	db, err := pgx.Connect(ctx, c.url)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	return db.QueryRow(ctx, sql).Scan(into...)
}

// moving waits until each partition has stored something that was sent after now.
func (c *composed) moving() time.Duration {
	c.t.Helper()
	start := time.Now()
	var now time.Time
	c.until("the database", 30*time.Second, func() bool { return c.query("SELECT now()", &now) == nil })
	c.until("all partitions to move", 30*time.Second, func() bool {
		var n int
		err := c.query(fmt.Sprintf("SELECT count(*) FROM partitions WHERE id < 4 AND updated_at > '%s'", now.Format(time.RFC3339Nano)), &n)
		return err == nil && n == 4
	})
	return time.Since(start)
}

// The containers of docker-compose.yml come up in any order, take a value to its view, and are killed, paused and stopped
// under load. The images stand in for the public ones, but nsready's is made by the Dockerfile.
func TestCompose(t *testing.T) {
	c := compose(t)
	collector, admin := "http://"+c.env["COLLECTOR_PORT"], "http://"+c.env["ADMIN_PORT"]
	began := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"nsready_db", "nsready_nats", "collector_service", "admin_tool"} {
				text := c.log(name)
				t.Logf("%s:\n%s", name, text[max(0, len(text)-6000):])
			}
		}
	})

	// The database and the queue come last, and are waited for, also when one goes away again before the other comes.
	c.run("up", "-d", "--no-build", "--no-deps", "collector_service", "admin_tool")
	c.until("both to miss the database", 30*time.Second, func() bool {
		const said = "the database cannot be used yet"
		return strings.Contains(c.log("collector_service"), said) && strings.Contains(c.log("admin_tool"), said)
	})
	c.run("up", "-d", "--no-build", "--no-deps", "db")
	c.until("the collector to miss the queue", 60*time.Second, func() bool { return strings.Contains(c.log("collector_service"), "NATS does not answer yet") })
	c.must(c.docker.StopContainer(c.name("nsready_db"), 30))
	c.run("up", "-d", "--no-build", "--no-deps", "nats")
	c.until("the collector to miss the database again", 30*time.Second, func() bool { return strings.Contains(c.log("collector_service"), "cannot start yet") })
	c.run("up", "-d", "--no-build")
	well := func() bool {
		h := health(t, collector)
		return h.Service == "ok" && h.Durability == "fsync"
	}
	c.until("health", 60*time.Second, well)
	for _, name := range []string{"collector_service", "admin_tool"} {
		x, err := c.docker.InspectContainer(c.name(name))
		c.must(err)
		if !x.HostConfig.ReadonlyRootfs || x.RestartCount != 0 || strings.Contains(c.log(name), awkward) {
			t.Errorf("%s: read-only %v, restarts %d, or its log tells the password", name, x.HostConfig.ReadonlyRootfs, x.RestartCount)
		}
	}

	apply := launch(t, "apply", "-config", "../../nsready.hcl", "-database-url", c.url, "-auto-approve")
	if code := apply.exit(); code != 0 {
		t.Fatalf("apply exits with %d: %s", code, apply.out.String())
	}
	var device, project, site string
	c.must(c.query(`SELECT d.id, p.id, s.id FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id WHERE d.name = 'main-incomer'`,
		&device, &project, &site))
	event := fmt.Sprintf(`{"project_id":%q,"site_id":%q,"device_id":%q,"protocol":"HTTP","source_timestamp":%q,"metrics":[{"parameter_key":"project:%s:voltage","value":231.25,"quality":192}]}`,
		project, site, device, time.Now().UTC().Format(time.RFC3339Nano), project)
	c.until("the event to be accepted", 10*time.Second, func() bool {
		resp, err := http.Post(collector+"/v1/ingest", "application/json", strings.NewReader(event))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	c.until("the value in the view", 10*time.Second, func() bool {
		var value float64
		return c.query("SELECT value FROM v_scada_latest WHERE device_id = '"+device+"' AND parameter_key LIKE '%:voltage'", &value) == nil && value == 231.25
	})
	t.Logf("from nothing to a value in the view: %.1f s", time.Since(began).Seconds())

	answers := func() bool {
		req, err := http.NewRequest("GET", admin+"/admin/customers", nil)
		c.must(err)
		req.Header.Set("Authorization", "Bearer "+c.env["ADMIN_BEARER_TOKEN"])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}
	c.until("the admin API", 30*time.Second, answers)

	// What operators run inside the containers.
	c.run("exec", "-T", "db", "psql", "-U", "postgres", "-d", "nsready", "-c", "SELECT * FROM v_scada_latest")
	c.run("exec", "-T", "collector_service", "/nsready", "health", "-target", "http://nats:8222/healthz")
	c.run("exec", "-T", "admin_tool", "/nsready", "health", "-target", "http://127.0.0.1:8000")

	// A password that is wrong for a time.
	db, err := pgx.Connect(t.Context(), c.url)
	c.must(err)
	defer db.Close(context.Background())
	_, err = db.Exec(t.Context(), "ALTER ROLE postgres PASSWORD 'another'")
	c.must(err)
	c.must(c.docker.RestartContainer(c.name("admin_tool"), 30))
	c.until("the password to be refused", 30*time.Second, func() bool { return strings.Contains(c.log("admin_tool"), "password authentication failed") })
	_, err = db.Exec(t.Context(), "ALTER ROLE postgres PASSWORD '"+strings.ReplaceAll(awkward, "'", "''")+"'")
	c.must(err)
	c.until("the admin API to come back", 30*time.Second, answers)

	sending, stop := context.WithCancel(t.Context())
	defer stop()
	report := make(chan loadgen.Report, 1)
	go func() { report <- c.load(sending, collector) }()
	c.moving()
	kill := func(name string) func() {
		return func() {
			c.must(c.docker.KillContainer(docker.KillContainerOptions{ID: c.name(name), Signal: docker.SIGKILL}))
			c.until(name+" to end", 10*time.Second, func() bool { return !c.state(name).Running })
			c.must(c.docker.StartContainer(c.name(name), nil)) // which the restart policy does not do after a kill from outside
		}
	}
	pause := func(name string) func() {
		return func() {
			c.must(c.docker.PauseContainer(c.name(name)))
			<-time.After(5 * time.Second)
			c.must(c.docker.UnpauseContainer(c.name(name)))
		}
	}
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"collector_service stopped", func() {
			start := time.Now()
			c.must(c.docker.StopContainer(c.name("collector_service"), 40))
			if s := c.state("collector_service"); s.ExitCode != 0 || time.Since(start) > 25*time.Second {
				t.Errorf("the collector exits with %d after %s", s.ExitCode, time.Since(start))
			}
			c.must(c.docker.StartContainer(c.name("collector_service"), nil))
		}},
		{"collector_service killed", kill("collector_service")},
		{"nats paused", pause("nsready_nats")},
		{"nats killed", kill("nsready_nats")},
		{"db stopped at once", func() {
			c.must(c.docker.StopContainer(c.name("nsready_db"), 0))
			c.must(c.docker.StartContainer(c.name("nsready_db"), nil))
		}},
		{"db killed", kill("nsready_db")},
		{"db paused", pause("nsready_db")},
	} {
		start := time.Now()
		fault.do()
		done := time.Since(start)
		t.Logf("%s for %.1f s, all partitions move again after %.1f s", fault.name, done.Seconds(), c.moving().Seconds())
	}
	stop()
	if r := <-report; !r.Ok() {
		t.Errorf("the promise is broken: %+v", r)
	} else {
		t.Logf("%+v of %+v", r.Values, r.Answers)
	}
	c.until("health", 30*time.Second, well)
	asked := launch(t, "health", "-target", collector)
	if code := asked.exit(); code != 0 {
		t.Errorf("health exits with %d: %s", code, asked.out.String())
	}
	for _, name := range []string{"nsready_db", "collector_service", "admin_tool"} {
		c.until(name+" to be called healthy", 30*time.Second, func() bool { return c.state(name).Health.Status == "healthy" })
	}
	c.run("stop")
	for _, name := range []string{"nsready_db", "nsready_nats", "collector_service", "admin_tool"} {
		if s := c.state(name); s.ExitCode != 0 && name != "nsready_nats" || s.OOMKilled { // a NATS server exits with 1 when it is told to end
			t.Errorf("%s exits with %d", name, s.ExitCode)
		}
	}
}

func (c *composed) load(ctx context.Context, target string) (r loadgen.Report) {
	db, err := store.Open(c.t.Context(), c.url)
	if err != nil {
		c.t.Error(err)
		return r
	}
	defer db.Close()
	snapshot, err := db.LoadRegistry(c.t.Context())
	if err == nil {
		r, err = loadgen.Run(ctx, loadgen.Options{Target: target, Snapshot: snapshot, Stored: db, Rate: 40, Batch: 40, Timeout: 5 * time.Second})
	}
	if err != nil {
		c.t.Errorf("load: %v", err)
	}
	return r
}
