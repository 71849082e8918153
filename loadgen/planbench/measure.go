package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nsready/nsready/engine/postgres"
)

// sample is what one run of the program took.
type sample struct{ seconds, cpu, mib float64 }

// measured are the samples of an estate, by step.
type measured map[string][]sample

// steps of a round, in their order.
var steps = []struct {
	name, title string
	args        []string
	changed     bool // before it, every tenth device of the declaration is changed
}{
	{"validate", "validate", []string{"validate"}, false},
	{"create", "apply, from an empty database", []string{"apply", "-auto-approve"}, false},
	{"plan", "plan, nothing changed", []string{"plan", "-detailed-exitcode"}, false},
	{"change", "apply, one device in ten changed", []string{"apply", "-auto-approve"}, true},
}

// measure does one round: it writes the estate, starts a PostgreSQL in dir, runs the steps, and removes all.
func (m *measured) measure(ctx context.Context, program, dir string, e estate) (err error) {
	if *m == nil {
		*m = measured{}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	cluster, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }()
	if err := e.write(dir, false); err != nil {
		return err
	}
	config := []string{"-config", filepath.Join(dir, "estate.hcl")}
	database := append(config, "-database-url", cluster.URL("postgres"))
	for _, step := range steps {
		if step.changed {
			if err := e.write(dir, true); err != nil {
				return err
			}
		}
		args := append(step.args[:len(step.args):len(step.args)], config...)
		if step.name != "validate" {
			args = append(step.args[:len(step.args):len(step.args)], database...)
		}
		s, err := runOnce(ctx, program, args)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		(*m)[step.name] = append((*m)[step.name], s)
	}
	if _, err := runOnce(ctx, program, append([]string{"plan", "-detailed-exitcode"}, database...)); err != nil {
		return fmt.Errorf("the changes are not in the database: %w", err)
	}
	return nil
}

// runOnce runs the program to its end.
func runOnce(ctx context.Context, program string, args []string) (sample, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return sample{}, fmt.Errorf("nsready %s: %w: %s", args[0], err, said.String())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return sample{took.Seconds(), cpu.Seconds(), float64(usage.Maxrss) / 1024}, nil // Linux counts in KiB
}

const perSite = 100 // devices, among literal blocks

// write writes the declaration. changed gives every tenth device another interval.
func (e estate) write(dir string, changed bool) error {
	interval := func(i int) string {
		if changed && i%10 == 0 {
			return "20s"
		}
		return "10s"
	}
	return writeFile(filepath.Join(dir, "estate.hcl"), func(w *bufio.Writer) {
		w.WriteString("template \"meter\" {\n  parameter \"voltage\" {\n    min = 0\n    max = 500\n  }\n  parameter \"current\" {\n  }\n}\n\ncustomer \"bench\" {\n  project \"bench\" {\n")
		if !e.Literal {
			w.WriteString(`    site "bench" {
      device "meter" {
        for_each    = csvdecode(file("devices.csv"))
        name        = each.value.name
        type        = each.value.type
        external_id = each.value.external_id
        interval    = each.value.interval
        template    = "meter"
      }
    }
`)
		}
		for i := 0; e.Literal && i < e.Devices; i++ {
			if i%perSite == 0 {
				fmt.Fprintf(w, "    site \"site-%05d\" {\n", i/perSite)
			}
			fmt.Fprintf(w, "      device \"meter-%07d\" {\n        type        = \"meter\"\n        external_id = \"EXT-%07d\"\n        interval    = %q\n        template    = \"meter\"\n      }\n", i, i, interval(i))
			if i%perSite == perSite-1 || i == e.Devices-1 {
				w.WriteString("    }\n")
			}
		}
		w.WriteString("  }\n}\n")
	}, func() error {
		if e.Literal {
			return nil
		}
		return writeFile(filepath.Join(dir, "devices.csv"), func(w *bufio.Writer) {
			w.WriteString("name,type,external_id,interval\n")
			for i := range e.Devices {
				fmt.Fprintf(w, "meter-%07d,meter,EXT-%07d,%s\n", i, i, interval(i))
			}
		}, nil)
	})
}

// writeFile writes a file, and then does what goes with it, if anything.
func writeFile(name string, write func(*bufio.Writer), then func() error) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("writing the declaration: %w", err)
	}
	w := bufio.NewWriter(f)
	write(w)
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("writing the declaration: %w", err)
	}
	if then != nil {
		return then()
	}
	return nil
}
