package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// inspection is told what a command line may hold, by the command itself.
type inspection struct {
	flags       func(*flags)
	subcommands func([]command)
}

// commandLine is that of one command as its own flags and usage tell it.
type commandLine struct {
	name    string // such as dlq ls
	summary string
	usage   string // what follows nsready; "" for a command that has only subcommands
	about   string // the help between usage and flags, with its example
	flags   *flag.FlagSet
	subs    []commandLine
}

// inspectCommands returns the lines of commands, the subcommands of which have their names behind of.
func inspectCommands(of string, list []command) (lines []commandLine) {
	for _, c := range list {
		l := commandLine{name: of + c.name, summary: c.summary}
		in := &inspection{
			flags:       func(f *flags) { l.usage, l.about, l.flags = f.usage, f.about, f.FlagSet },
			subcommands: func(subs []command) { l.subs = inspectCommands(l.name+" ", subs) },
		}
		// It does nothing but tell, and so has nothing to fail with.
		_ = c.run(context.Background(), &streams{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, inspect: in}, nil)
		lines = append(lines, l)
	}
	return lines
}

// choices are the words of a usage between which one chooses: bash, zsh and fish of "completion bash|zsh|fish".
func (l *commandLine) choices() []string {
	for _, w := range strings.Fields(l.usage) {
		if strings.Contains(w, "|") && strings.Trim(w, "abcdefghijklmnopqrstuvwxyz|") == "" {
			return strings.Split(w, "|")
		}
	}
	return nil
}

// last is the name without those of the commands that it is below.
func (l *commandLine) last() string { return l.name[strings.LastIndexByte(l.name, ' ')+1:] }

// flagValue says what a flag wants: "" for no value, files or dirs to choose from, other for what cannot be guessed.
func flagValue(f *flag.Flag) (kind, name, text string) {
	name, text = flag.UnquoteUsage(f)
	text, _, _ = strings.Cut(text, "\n")
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return "", "", text
	}
	switch strings.ToUpper(name) {
	case "FILE", "PATH":
		return "files", name, text
	case "DIR", "DIRECTORY":
		return "dirs", name, text
	}
	return "other", name, text
}

func init() { // its scripts hold the table that it stands in
	commands = append(commands, command{"completion", "print what makes a shell complete commands and flags", runCompletion})
}

func runCompletion(_ context.Context, s *streams, args []string) error {
	f := newFlags(s, "completion bash|zsh|fish", `
Print a script that makes a shell complete the commands of nsready and their flags. To have it in each new shell, add a line
to its start file:

  bash, ~/.bashrc:                    source <(nsready completion bash)
  zsh, ~/.zshrc, behind compinit:     source <(nsready completion zsh)
  fish, ~/.config/fish/config.fish:   nsready completion fish | source

Example:
  nsready completion bash`)
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	shells := map[string]func([]commandLine) string{"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
	if len(rest) == 0 || shells[rest[0]] == nil {
		return fmt.Errorf("for which shell? Want bash, zsh or fish")
	}
	_, err = io.WriteString(s.stdout, shells[rest[0]](inspectCommands("", commands)))
	return err
}

// eachLine calls visit for every command and subcommand.
func eachLine(lines []commandLine, visit func(l *commandLine)) {
	for i := range lines {
		visit(&lines[i])
		eachLine(lines[i].subs, visit)
	}
}

func lastNames(lines []commandLine) string {
	var list []string
	for i := range lines {
		list = append(list, lines[i].last())
	}
	return strings.Join(list, " ")
}

// completeBash is for bash 4 and newer. Where no case sets COMPREPLY, bash completes file names.
func completeBash(lines []commandLine) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for nsready, by 'nsready completion bash'
_nsready() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at=${COMP_WORDS[1]} dash=- flags= values= dirs= words=
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s help' -- "$cur"))
		return
	fi
	case $at in
`, lastNames(lines))
	for _, l := range lines {
		if l.subs != nil {
			fmt.Fprintf(&b, "\t%s)\n\t\tif ((COMP_CWORD == 2)); then\n\t\t\tCOMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n\t\t\treturn\n\t\tfi\n\t\tat=\"$at ${COMP_WORDS[2]}\" ;;\n", l.name, lastNames(l.subs))
		}
	}
	fmt.Fprintf(&b, "\tesac\n\tcase $at in\n\thelp) words='%s' ;;\n", lastNames(lines))
	eachLine(lines, func(l *commandLine) {
		if l.flags == nil {
			return
		}
		var all, other, dirs []string
		l.flags.VisitAll(func(f *flag.Flag) {
			all = append(all, f.Name)
			switch kind, _, _ := flagValue(f); kind {
			case "other":
				other = append(other, f.Name)
			case "dirs":
				dirs = append(dirs, f.Name)
			}
		})
		fmt.Fprintf(&b, "\t'%s') flags='%s' values=' %s ' dirs=' %s ' words='%s' ;;\n", l.name, strings.Join(append(all, "help"), " "),
			strings.Join(other, " "), strings.Join(dirs, " "), strings.Join(l.choices(), " "))
	})
	b.WriteString(`	esac
	local before=${prev##-} ; before=${before##-}
	if [[ $prev == -* && $values == *" $before "* ]]; then
		compopt +o default 2>/dev/null
	elif [[ $prev == -* && $dirs == *" $before "* ]]; then
		compopt -o filenames 2>/dev/null
		local IFS=$'\n'
		COMPREPLY=($(compgen -d -- "$cur"))
	elif [[ $cur == -* ]]; then
		[[ $cur == --* ]] && dash=--
		COMPREPLY=($(compgen -P "$dash" -W "$flags" -- "${cur#"$dash"}"))
	elif [[ -n $words ]]; then
		COMPREPLY=($(compgen -W "$words" -- "$cur"))
	fi
}
complete -o default -F _nsready nsready
`)
	return b.String()
}

// completeZsh needs compinit.
func completeZsh(lines []commandLine) string {
	var b strings.Builder
	described := func(lines []commandLine) string {
		var list []string
		for _, l := range lines {
			list = append(list, quote(strings.ReplaceAll(l.last(), ":", `\:`)+":"+l.summary))
		}
		return strings.Join(list, " ")
	}
	fmt.Fprintf(&b, `#compdef nsready
# zsh completion for nsready, by 'nsready completion zsh'
_nsready() {
	local at=$words[2]
	local -a list
	if (( CURRENT == 2 )); then
		list=(%s 'help:explain a command')
		_describe command list
		return
	fi
	case $at in
`, described(lines))
	for _, l := range lines {
		if l.subs != nil {
			fmt.Fprintf(&b, "\t%s)\n\t\tif (( CURRENT == 3 )); then\n\t\t\tlist=(%s)\n\t\t\t_describe command list\n\t\t\treturn\n\t\tfi\n\t\tat=\"$at $words[3]\"\n\t\tshift words\n\t\t(( CURRENT-- )) ;;\n", l.name, described(l.subs))
		}
	}
	fmt.Fprintf(&b, "\tesac\n\tshift words\n\t(( CURRENT-- ))\n\tcase $at in\n\thelp) _values command %s ;;\n", lastNames(lines))
	// In a specification brackets and colons have a meaning.
	plain := strings.NewReplacer("[", "(", "]", ")", ":", ";", `\`, `\\`).Replace
	eachLine(lines, func(l *commandLine) {
		if l.flags == nil {
			return
		}
		rest := "'*:file:_files'"
		if c := l.choices(); c != nil {
			rest = quote("1:which:(" + strings.Join(c, " ") + ")")
		}
		fmt.Fprintf(&b, "\t%s) _arguments %s", quote(l.name), rest)
		l.flags.VisitAll(func(f *flag.Flag) {
			kind, name, text := flagValue(f)
			action := map[string]string{"files": ":_files", "dirs": ":_files -/", "other": ": "}[kind]
			if action != "" {
				action = ":" + plain(name) + action
			}
			b.WriteString(" \\\n\t\t" + quote("-"+f.Name+"["+plain(text)+"]"+action))
		})
		b.WriteString(" '-help[explain the command]' ;;\n")
	})
	b.WriteString("\tesac\n}\ncompdef _nsready nsready\n")
	return b.String()
}

// completeFish is for fish 3 and newer.
func completeFish(lines []commandLine) string {
	var b strings.Builder
	b.WriteString(`# fish completion for nsready, by 'nsready completion fish'
function __nsready_in
	set -l line (commandline -opc)
	set -e line[1]
	set -l n (count $argv)
	test (count $line) -ge $n; and test "$line[1..$n]" = "$argv"
end
function __nsready_at
	set -l line (commandline -opc)
	set -e line[1]
	test "$line" = "$argv"
end
complete -c nsready -e
`)
	offer := func(lines []commandLine, of string) {
		for _, l := range lines {
			fmt.Fprintf(&b, "complete -c nsready -f -n %s -a %s -d %s\n", quote("__nsready_at "+of), l.last(), quote(l.summary))
		}
	}
	offer(lines, "")
	offer([]commandLine{{name: "help", summary: "explain a command"}}, "")
	offer(lines, "help")
	eachLine(lines, func(l *commandLine) {
		if l.subs != nil {
			offer(l.subs, l.name)
			return
		}
		if l.flags == nil {
			return
		}
		in := quote("__nsready_in " + l.name)
		if c := l.choices(); c != nil {
			fmt.Fprintf(&b, "complete -c nsready -f -n %s -a %s\n", quote("__nsready_at "+l.name), quote(strings.Join(c, " ")))
		}
		fmt.Fprintf(&b, "complete -c nsready -n %s -o help -d 'explain the command'\n", in)
		l.flags.VisitAll(func(f *flag.Flag) {
			kind, _, text := flagValue(f)
			wants := map[string]string{"files": " -r -F", "dirs": " -x -a '(__fish_complete_directories)'", "other": " -x"}[kind]
			fmt.Fprintf(&b, "complete -c nsready -n %s -o %s%s -d %s\n", in, f.Name, wants, quote(text))
		})
	})
	return b.String()
}
