package main

import (
	"fmt"
	"maps"
	"os"
	"strings"
)

// argsVariable holds flags for every command. With the name of a command behind it, as in NSREADY_CLI_ARGS_dlq_ls, it holds
// flags for that one.
const argsVariable = "NSREADY_CLI_ARGS"

// variableOf is the variable with the flags of one command.
func variableOf(command string) string {
	return argsVariable + "_" + strings.NewReplacer(" ", "_", "-", "_").Replace(command)
}

// checkArgsVariables refuses variables that are meant for a command and belong to none: their flags, which may be gates,
// would not hold.
func checkArgsVariables() error {
	known := map[string]bool{}
	for _, setting := range os.Environ() {
		name, value, _ := strings.Cut(setting, "=")
		if !strings.HasPrefix(name, argsVariable+"_") || value == "" {
			continue
		}
		if len(known) == 0 {
			eachLine(inspectCommands("", commands), func(l *commandLine) {
				if l.flags != nil {
					known[variableOf(l.name)] = true
				}
			})
		}
		if !known[name] {
			hint := ""
			if best := nearest(name, maps.Keys(known)); best != "" {
				hint = fmt.Sprintf(" Did you mean %s?", best)
			}
			return fmt.Errorf("%s is set, and there is no such command.%s", clean(name), hint)
		}
	}
	return nil
}

// parseVariables takes the flags of the environment, which those of the command line come after.
func (f *flags) parseVariables() error {
	for _, name := range []string{argsVariable, variableOf(f.Name())} {
		words, err := splitWords(os.Getenv(name))
		if err == nil {
			err = f.FlagSet.Parse(words)
		}
		if rest := f.Args(); err == nil && len(rest) > 0 {
			err = fmt.Errorf("%q is no flag, and only flags can stand there", rest[0])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// splitWords splits text as a shell would, at white space that is not quoted. It expands nothing.
func splitWords(text string) (words []string, err error) {
	var word strings.Builder
	var quote rune // the one that is open
	opened, inWord, escaped := 0, false, false
	for i, r := range []rune(text) {
		switch {
		case escaped:
			if quote == '"' && !strings.ContainsRune("\"\\$`", r) {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			inWord, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			inWord, quote, opened = true, r, i+1
		case strings.ContainsRune(" \t\r\n", r):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	switch {
	case quote != 0:
		return nil, fmt.Errorf("the quote %c that is its character %d is never closed", quote, opened)
	case escaped:
		return nil, fmt.Errorf(`it ends in a backslash, with nothing behind it to quote`)
	case inWord:
		words = append(words, word.String())
	}
	return words, nil
}
