package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// approval is how a command gets leave to change something.
type approval struct {
	given, input bool
	flags        *flags
	args         []string // of the command
}

func (a *approval) register(f *flags, args []string) {
	a.flags, a.args = f, args
	f.BoolVar(&a.given, "auto-approve", false, "do not ask")
	f.BoolVar(&a.input, "input", isOn(cmp.Or(os.Getenv("NSREADY_INPUT"), "true")), "ask on the terminal; -input=false, like NSREADY_INPUT=0, never does")
}

// approve asks on the terminal whether to go on, unless it was said already.
func (a *approval) approve(ctx context.Context, s *streams, question string, asJSON bool) error {
	why := ""
	switch {
	case a.given:
		return nil
	case asJSON:
		why = "-json does not ask"
	case !a.input:
		why = "-input=false does not ask"
	case !isTerminal(s.stdin):
		why = "there is no terminal to ask on"
	default:
		return confirm(ctx, s, question)
	}
	return fmt.Errorf("the changes were not approved, and %s. To apply them, run:\n\n  nsready %s %s", why, a.flags.Name(), a.flags.approved(a.args))
}

// confirm asks a question on the terminal. Anything but yes is an error.
func confirm(ctx context.Context, s *streams, question string) error {
	if _, err := fmt.Fprint(s.stdout, question+"\nOnly 'yes' is taken for a yes.\n\n  Enter a value: "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(s.input(ctx)).ReadString('\n')
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(s.stdout)
		return ctx.Err()
	case err != nil && err != io.EOF:
		return fmt.Errorf("reading the answer: %w", err)
	case strings.TrimRight(answer, "\r\n") != "yes":
		return errors.New("not approved, nothing was changed")
	}
	return nil
}

// approved are the arguments that would have needed no question, for a shell, without the database's password.
func (f *flags) approved(args []string) string {
	list := []string{"-auto-approve"}
	for _, one := range f.given(args) {
		list = append(list, one.quoted())
	}
	return strings.Join(list, " ")
}

// shellQuote makes a shell take s as one word, without quotes where none are needed.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./,:@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return quote(s)
}

// quote makes a shell take s as one word.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
