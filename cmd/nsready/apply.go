package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/nsready/nsready/engine/registry"
	"github.com/nsready/nsready/engine/store"
)

// applyView is what apply -json prints.
type applyView struct {
	planView
	Applied bool  `json:"applied"` // false when there was nothing to do
	Version int64 `json:"version"` // of the registry, now
}

func runApply(ctx context.Context, s *streams, args []string) error {
	f := newFlags(s, "apply [flags]", `
Make the registry match the declaration: show the plan, ask, and execute it in one transaction. It is refused when the
registry has changed since the plan was made. What is no longer declared is retired: its history stays.
Without a terminal, and with -json, nobody can be asked, and -auto-approve is required.

Example:
  nsready apply -auto-approve -config estates/north`)
	var t target
	t.register(f)
	asJSON := f.Bool("json", false, "print the plan and its outcome as JSON")
	approved := f.Bool("auto-approve", false, "do not ask")
	var look impactOptions
	look.register(f)
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	err := func() error {
		if err := look.check(); err != nil {
			return err
		}
		declared, err := loadConfig(s, t.config, *asJSON, t.variables...)
		if err != nil {
			return err
		}
		db, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer db.Close()
		current, ready, err := loadRegistry(ctx, db)
		if err != nil {
			return err
		}
		a := applyView{planView: viewPlan(registry.Diff(current, declared)), Version: current.Version}
		if err := problems(a.Plan); err != nil {
			return err
		}
		if a.Impact, err = look.assess(ctx, &t, db, current, a.Plan); err != nil {
			return err
		}
		if !*asJSON {
			if err := printPlan(s.stdout, a.planView); err != nil {
				return err
			}
		}
		if err := a.Refusal(); err != nil {
			return err
		}
		if !a.Empty() {
			if !*approved {
				if err := approve(ctx, s, a.Summary, *asJSON, args); err != nil {
					return err
				}
			}
			if !ready {
				// The tables are made once it is certain that this is the database, and the plan gets the registry to start from.
				if err := db.Migrate(ctx); err != nil {
					return err
				}
				if current, err = db.LoadRegistry(ctx); err != nil {
					return err
				}
				a.planView = viewPlan(registry.Diff(current, declared))
			}
			if a.Version, err = db.Apply(ctx, a.Plan, author()); err != nil {
				return err
			}
			a.Applied = true
		}
		switch {
		case *asJSON:
			return writeJSON(s.stdout, a)
		case a.Applied:
			_, err = fmt.Fprintf(s.stdout, "\nApply complete! Resources: %s.\nRegistry version %d.\n", a.Summary.done(), a.Version)
		}
		return err
	}()
	if *asJSON {
		return reportJSON(s.stdout, err)
	}
	return err
}

// approve asks on the terminal whether to go on.
func approve(ctx context.Context, s *streams, sum summary, asJSON bool, args []string) error {
	if asJSON || !isTerminal(s.stdin) {
		why := "there is no terminal to ask on"
		if asJSON {
			why = "-json does not ask"
		}
		return fmt.Errorf("the changes were not approved, and %s. To apply them, run:\n\n  nsready apply %s", why, approvedArgs(args))
	}
	question := "\nDo you want nsready to do this?"
	if sum.Destroy > 0 {
		objects := "objects"
		if sum.Destroy == 1 {
			objects = "object"
		}
		question += fmt.Sprintf(" It destroys %d %s; history stays.", sum.Destroy, objects)
	}
	return confirm(ctx, s, question)
}

// confirm asks a question on the terminal. Anything but yes is an error.
func confirm(ctx context.Context, s *streams, question string) error {
	if _, err := fmt.Fprint(s.stdout, question+"\nOnly 'yes' is taken for a yes.\n\n  Enter a value: "); err != nil {
		return err
	}
	type line struct {
		text string
		err  error
	}
	answer := make(chan line, 1)
	go func() { // ends with the process, if nobody answers
		text, err := bufio.NewReader(s.stdin).ReadString('\n')
		answer <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.stdout)
		return ctx.Err()
	case a := <-answer:
		if a.err != nil && a.err != io.EOF {
			return fmt.Errorf("reading the answer: %w", a.err)
		}
		if strings.TrimRight(a.text, "\r\n") != "yes" {
			return fmt.Errorf("not approved, nothing was changed")
		}
	}
	return nil
}

// approvedArgs are the arguments that would have needed no question, for a shell, without the database's password.
func approvedArgs(args []string) string {
	list := []string{"-auto-approve"}
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if name != "database-url" {
			list = append(list, shellQuote(args[i]))
			continue
		}
		list = append(list, `-database-url "$DATABASE_URL"`)
		if !inline {
			i++
		}
	}
	return strings.Join(list, " ")
}

func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./,:@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// author is who runs this program, as far as the system tells.
func author() store.Author {
	a := store.Author{User: "unknown", Host: "unknown"}
	if u, err := user.Current(); err == nil {
		a.User = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		a.Host = host
	}
	return a
}
