package main

import (
	"slices"
	"testing"
	"unicode/utf8"
)

func TestSplitWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil}, {" \t\n", nil}, {"-json", []string{"-json"}}, {"  -a  -b=c\t-d ", []string{"-a", "-b=c", "-d"}},
		{`-target "device.Acme Mills/energy" -out ''`, []string{"-target", "device.Acme Mills/energy", "-out", ""}},
		{`'a "b" \c'`, []string{`a "b" \c`}}, {`"a 'b' \" \\ \$ \x"`, []string{`a 'b' " \ $ \x`}},
		{`a\ b c\\ \'`, []string{"a b", `c\`, "'"}}, {`-m='new presses'" in hall"\ 3`, []string{"-m=new presses in hall 3"}},
		{"$HOME `id` *", []string{"$HOME", "`id`", "*"}}, {"é 'ü ö'", []string{"é", "ü ö"}},
	} {
		if got, err := splitWords(c.text); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.text, got, err, c.want)
		}
	}
	for text, want := range map[string]string{
		`-m "a`: `the quote " that is its character 4 is never closed`, `é'`: `the quote ' that is its character 2 is never closed`,
		`a\`: `it ends in a backslash, with nothing behind it to quote`, `"\"`: `the quote " that is its character 1 is never closed`,
	} {
		if words, err := splitWords(text); err == nil || err.Error() != want {
			t.Errorf("%s: %q, %v; want %s", text, words, err, want)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add("-target 'a b'", "c\\\"")
	f.Fuzz(func(t *testing.T, a, b string) {
		if words, err := splitWords(shellQuote(a) + " " + shellQuote(b)); utf8.ValidString(a+b) && (err != nil || !slices.Equal(words, []string{a, b})) {
			t.Errorf("%q and %q are %q, %v", a, b, words, err)
		}
		_, _ = splitWords(a) // whatever it is, it ends
	})
}
