package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// everyCommand returns the lines of all commands and subcommands that do something.
func everyCommand() (list []*commandLine) {
	eachLine(inspectCommands("", commands), func(l *commandLine) {
		if l.flags != nil {
			list = append(list, l)
		}
	})
	return list
}

// parses says what is wrong with words of a shell that begin behind "nsready", by the flags that the command really has.
func parses(words []string) (*commandLine, error) {
	if len(words) == 0 {
		return nil, errors.New("no command")
	}
	for n := min(2, len(words)); n > 0; n-- {
		for _, l := range everyCommand() {
			if l.name != strings.Join(words[:n], " ") {
				continue
			}
			f := &flags{FlagSet: l.flags, help: func() {}, streams: &streams{}}
			rest, err := f.parse(words[n:], -1)
			if err != nil {
				return l, err
			}
			if _, takes, _ := strings.Cut(strings.TrimPrefix(l.usage, l.name), "[flags]"); len(rest) > 0 && strings.TrimSpace(takes) == "" && l.choices() == nil {
				return l, fmt.Errorf("%s takes no argument %q", l.name, rest[0])
			}
			return l, nil
		}
	}
	return nil, fmt.Errorf("there is no command %q", words[0])
}

// shellWords splits a simple command, up to a redirection or the next command.
func shellWords(text string) (words []string) {
	for _, m := range regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`).FindAllString(text, -1) {
		if strings.HasPrefix(m, "|") || strings.HasPrefix(m, ">") || strings.HasPrefix(m, "&&") || m == ";" || m == "}" {
			break
		}
		words = append(words, strings.NewReplacer(`'`, "", `"`, "").Replace(m))
	}
	return words
}

func TestEveryCommandIsInTheHelp(t *testing.T) {
	var out bytes.Buffer
	printHelp(&out)
	for _, c := range commands {
		if n := strings.Count(out.String(), "\n  "+c.name+" "); n != 1 {
			t.Errorf("%s is in the help %d times; groups says under which heading", c.name, n)
		}
	}
	for _, g := range groups {
		for _, name := range g.names {
			if !slices.ContainsFunc(commands, func(c command) bool { return c.name == name }) {
				t.Errorf("there is no command %q for %q", name, g.title)
			}
		}
	}
}

func TestEveryCommandHasAnExampleThatParses(t *testing.T) {
	list := everyCommand()
	if len(list) < 15 {
		t.Fatalf("only %d commands were found", len(list))
	}
	for _, l := range list {
		_, examples, ok := strings.Cut(l.about, "\nExample:\n")
		if !ok {
			t.Errorf("%s has no example", l.name)
			continue
		}
		if !strings.Contains(examples, "nsready "+l.name) {
			t.Errorf("the example of %s is of another command: %s", l.name, examples)
		}
		for _, line := range strings.Split(strings.TrimSpace(examples), "\n") {
			if _, words, ok := strings.Cut(line, "nsready "); ok {
				// What comes before it are variables, as postgres://nsready:secret@db/nsready.
				if i := strings.LastIndex(line, " nsready "); i >= 0 {
					words = line[i+len(" nsready "):]
				}
				if _, err := parses(shellWords(words)); err != nil {
					t.Errorf("an example of %s: %s: %v", l.name, line, err)
				}
			}
		}
	}
	if _, err := parses([]string{"plan", "-nonsense"}); err == nil {
		t.Error("a flag that does not exist was not noticed")
	}
	if _, err := parses([]string{"version", "stray"}); err == nil {
		t.Error("a stray argument was not noticed")
	}
}

func TestFlagsTakeOneDashOrTwo(t *testing.T) {
	noJSON := []string{"completion"} // its output is for shells
	for _, l := range everyCommand() {
		if l.flags.Lookup("json") == nil {
			if !slices.Contains(noJSON, l.name) {
				t.Errorf("%s has no -json", l.name)
			}
			continue
		}
		for _, form := range []string{"-json", "--json", "-json=true", "--json=true"} {
			if parsed, err := parses(append(strings.Fields(l.name), form)); err != nil || parsed.flags.Lookup("json").Value.String() != "true" {
				t.Errorf("%s %s: %v", l.name, form, err)
			}
		}
	}
	for _, form := range []string{"-json", "--json"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"version", form}, strings.NewReader(""), &stdout, &stderr); code != 0 || !strings.HasPrefix(stdout.String(), "{") {
			t.Errorf("version %s exits with %d: %s%s", form, code, &stdout, &stderr)
		}
	}
}

// A mistake in a command line is told as the rest of the output is.
func TestMistakesUnderJSONAreJSON(t *testing.T) {
	logs := []string{"up", "serve", "load"} // print something else under -json
	for _, l := range everyCommand() {
		if l.flags.Lookup("json") == nil || slices.Contains(logs, l.name) {
			continue
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append(strings.Fields(l.name), "-nonsense", "-json"), strings.NewReader(""), &stdout, &stderr)
		var v failure
		if err := json.Unmarshal(stdout.Bytes(), &v); err != nil || code != exitFailed || v.FormatVersion == "" || len(v.Diagnostics) != 1 || stderr.Len() > 0 {
			t.Errorf("%s exits with %d: %s%s", l.name, code, &stdout, &stderr)
		}
	}
}

// A command that is asked for its flags does nothing else.
func TestInspectionDoesNothing(t *testing.T) {
	for _, c := range commands {
		var stdout, stderr bytes.Buffer
		told := 0
		in := &inspection{flags: func(*flags) { told++ }, subcommands: func([]command) { told++ }}
		c.run(t.Context(), &streams{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, inspect: in}, nil)
		if told != 1 || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%s told %d times, and printed %s%s", c.name, told, &stdout, &stderr)
		}
	}
}

// shell returns a shell that is installed, or skips the test aloud.
func shell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "WARNING: completion in %s is NOT TESTED: it is not installed\n", name)
		t.Skip(err)
	}
	return path
}

// completer is an interactive shell on a terminal, with nsready on its path and the completion loaded.
func completer(t *testing.T, path string, args []string, begin string) *session {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "work/estates"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(program, filepath.Join(dir, "bin/nsready")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "work/plant.hcl"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	master, slave := terminal(t)
	s := &session{Cmd: exec.Command(path, args...), master: master}
	s.Dir = filepath.Join(dir, "work")
	s.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"), "PS1=> ", "TERM=dumb", "HOME="+dir,
		"XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	s.Stdin, s.Stdout, s.Stderr = slave, slave, slave
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill(); s.Wait() })
	slave.Close()
	if _, err := s.master.WriteString(begin + "; echo loaded-$((40+2))\n"); err != nil {
		t.Fatal(err)
	}
	s.until(t, "loaded-42")
	return s
}

// completions are what is typed, and the command line that has to come of it. Each is completed without a second choice.
var completions = []struct{ typed, want string }{
	{"nsready val\t", "nsready validate"},
	{"nsready force\t", "nsready force-unlock"},
	{"nsready dlq rep\t", "nsready dlq replay"},
	{"nsready lock st\t", "nsready lock status"},
	{"nsready apply -auto\t", "nsready apply -auto-approve"},
	{"nsready dlq replay -dry\t", "nsready dlq replay -dry-run"},
	{"nsready lock status -js\t", "nsready lock status -json"},
	{"nsready completion zs\t", "nsready completion zsh"},
	{"nsready ci gitl\t", "nsready ci gitlab"},
	{"nsready help pla\t", "nsready help plan"},
	{"nsready validate pla\t", "nsready validate plant.hcl"},
	{"nsready plan -config pla\t", "nsready plan -config plant.hcl"},
	{"nsready plan -data est\t", "nsready plan -data estates"},
}

// complete types lines behind echo, which prints what came of them.
func complete(t *testing.T, s *session, list []struct{ typed, want string }) {
	t.Helper()
	for i, c := range list {
		// The words are completed as those of nsready, and then printed: ^A goes to the start of the line.
		if _, err := fmt.Fprintf(s.master, "%s", c.typed); err != nil {
			t.Fatal(err)
		}
		s.screen.Reset()
		if _, err := fmt.Fprintf(s.master, "\x05'<%d'\x01echo \x05\n", i); err != nil {
			t.Fatal(err)
		}
		s.until(t, fmt.Sprintf("<%d\r\n", i))
		got := s.screen.String()
		got = got[:strings.LastIndex(got, fmt.Sprintf("<%d\r\n", i))]
		got = strings.TrimRight(got[strings.LastIndex(got, "\n")+1:], " /") // of a directory
		if got != c.want {
			t.Errorf("%q became %q, want %q", c.typed, got, c.want)
		}
	}
}

func TestCompletionInBash(t *testing.T) {
	path, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	s := completer(t, path, []string{"--norc", "--noprofile", "-i"}, "bind 'set bell-style none'; source <(nsready completion bash)")
	complete(t, s, append(slices.Clone(completions), struct{ typed, want string }{"nsready apply --auto\t", "nsready apply --auto-approve"}))
}

func TestCompletionInZsh(t *testing.T) {
	s := completer(t, shell(t, "zsh"), []string{"-f", "-i"}, "bindkey -e; unsetopt zle_bracketed_paste prompt_cr prompt_sp beep; autoload -U compinit; compinit -u -D; source <(nsready completion zsh)")
	complete(t, s, completions)
}

func TestCompletionInFish(t *testing.T) {
	path := shell(t, "fish")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.Symlink(program, filepath.Join(dir, "nsready")), os.Mkdir(filepath.Join(dir, "estates"), 0o755),
		os.WriteFile(filepath.Join(dir, "plant.hcl"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, c := range completions {
		line := strings.TrimSuffix(c.typed, "\t")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := exec.CommandContext(ctx, path, "--no-config", "-c", "./nsready completion fish | source; complete -C "+quote(line))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := c.want[strings.LastIndexByte(c.want, ' ')+1:]
		if got := strings.Fields(strings.ReplaceAll(string(out), "\t", " ")); len(got) == 0 || strings.TrimSuffix(got[0], "/") != want || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q offers %q, want %q alone", line, out, want)
		}
	}
}

func TestPipelines(t *testing.T) {
	invocation := regexp.MustCompile(`(?:^|[\s;&|({])nsready +([a-z].*)`)
	for of := range ciPaths {
		text, err := pipeline(of, "(devel)")
		if err != nil {
			t.Fatal(err)
		}
		var document any
		decoder := yaml.NewDecoder(strings.NewReader(text))
		if err := decoder.Decode(&document); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
		if err := decoder.Decode(new(any)); err != io.EOF {
			t.Errorf("%s: more than one document: %v", of, err)
		}
		used := map[string]bool{}
		walk(document, func(key, value string) {
			if key == "uses" && !regexp.MustCompile(`^[a-z-]+/[a-z-]+@v[0-9]+\.[0-9]+\.[0-9]+$`).MatchString(value) {
				t.Errorf("%s: the action %s has no exact version", of, value)
			}
			for _, line := range strings.Split(value, "\n") {
				if strings.Contains(line, "DATABASE_URL") || strings.Contains(line, "TOKEN") && !strings.Contains(line, "CI_PROJECT_DIR") {
					if line != "${{ secrets.DATABASE_URL }}" {
						t.Errorf("%s: a line of a script has a secret: %s", of, line)
					}
				}
				m := invocation.FindStringSubmatch(line)
				if m == nil || strings.HasPrefix(line, "{") || strings.Contains(line, "go install") {
					continue
				}
				words := shellWords(m[1])
				used[words[0]] = true
				if _, err := parses(words); err != nil {
					t.Errorf("%s: nsready %s: %v", of, strings.Join(words, " "), err)
				}
			}
		})
		for _, name := range []string{"fmt", "validate", "plan", "apply", "drift"} {
			if !used[name] {
				t.Errorf("%s: nsready %s is not used", of, name)
			}
		}
	}
	for version, want := range map[string]string{"v1.2.3": "v1.2.3", "(devel)": "latest", "v0.0.0-20261101000000-abcdef123456+dirty": "latest", "v1.0.0-rc.1": "v1.0.0-rc.1"} {
		if text, err := pipeline("github", version); err != nil || !strings.Contains(text, `NSREADY_VERSION: "`+want+`"`) {
			t.Errorf("version %s: not %s, %v", version, want, err)
		}
	}
}

// walk calls visit for every string of a document, with the key that it is below.
func walk(v any, visit func(key, value string)) {
	var down func(key string, v any)
	down = func(key string, v any) {
		switch v := v.(type) {
		case string:
			visit(key, v)
		case []any:
			for _, item := range v {
				down(key, item)
			}
		case map[string]any:
			for k, item := range v {
				down(k, item)
			}
		}
	}
	down("", v)
}
