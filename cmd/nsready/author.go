package main

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/nsready/nsready/engine/store"
)

// occasion is what the flags of an apply say for the registry's history.
type occasion struct{ author, message string }

func (o *occasion) register(f *flags) {
	f.group("For the history", func() {
		f.StringVar(&o.author, "author", "", "`NAME` of who makes the change, for the history\n(default $GITHUB_ACTOR or $GITLAB_USER_LOGIN in CI, else the user, each @ the host)")
		f.StringVar(&o.message, "message", "", "`TEXT` that says what the change is for, for the history")
	})
}

// of completes what the flags say, about an apply of the declaration at config; "" when it is not at hand.
func (o *occasion) of(config string) store.Author {
	by := author()
	if o.author != "" {
		by.User, by.Host = o.author, ""
	}
	by.Message, by.Commit = o.message, commitOf(config)
	return by
}

// author is who runs this program, as far as CI or the system tells.
func author() store.Author {
	a := store.Author{User: "unknown", Host: "unknown"}
	if u, err := user.Current(); err == nil {
		a.User = u.Username
	}
	a.User = cmp.Or(os.Getenv("GITHUB_ACTOR"), os.Getenv("GITLAB_USER_LOGIN"), a.User)
	if host, err := os.Hostname(); err == nil {
		a.Host = host
	}
	b := thisBuild()
	a.Tool = b.Version
	if b.Revision != "" {
		a.Tool += " " + b.Revision[:min(12, len(b.Revision))]
	}
	return a
}

// commitOf returns the commit, in hex, that CI says it runs on, or else the one that is checked out where a declaration is;
// "" when there is none. Whether the declaration was edited since is not known.
func commitOf(config string) string {
	for _, variable := range []string{"GITHUB_SHA", "CI_COMMIT_SHA"} {
		if v := os.Getenv(variable); isCommit(v) {
			return v
		}
	}
	if config == "" {
		return ""
	}
	dir, err := filepath.Abs(config)
	if err != nil {
		return ""
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	for {
		if repository := repositoryAt(dir); repository != "" {
			return head(repository)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// repositoryAt returns git's directory of the checkout whose top a directory is, or "". In a worktree, .git is a file.
func repositoryAt(dir string) string {
	path := filepath.Join(dir, ".git")
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return ""
	case info.IsDir():
		return path
	}
	repository, ok := strings.CutPrefix(firstLine(path), "gitdir: ")
	if !ok {
		return ""
	}
	return within(dir, repository)
}

// head returns the commit that HEAD is at, or "".
func head(repository string) string {
	line := firstLine(filepath.Join(repository, "HEAD"))
	ref, symbolic := strings.CutPrefix(line, "ref: ")
	if !symbolic {
		return commit(line)
	}
	if !filepath.IsLocal(ref) {
		return ""
	}
	// Branches of a worktree are those of the repository that it belongs to.
	shared := repository
	if common := firstLine(filepath.Join(repository, "commondir")); common != "" {
		shared = within(repository, common)
	}
	for _, dir := range []string{repository, shared} {
		if found := commit(firstLine(filepath.Join(dir, ref))); found != "" {
			return found
		}
	}
	return packed(filepath.Join(shared, "packed-refs"), ref)
}

// packed looks a ref up in a file of lines "COMMIT REF".
func packed(path, ref string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if found, name, ok := strings.Cut(lines.Text(), " "); ok && name == ref {
			return commit(found)
		}
	}
	return ""
}

// firstLine returns the first line of a short file, "" when it cannot be read.
func firstLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.TrimRight(string(line), "\r ")
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func commit(text string) string {
	if isCommit(text) {
		return text
	}
	return ""
}

// isCommit reports whether a text is a whole SHA-1 or SHA-256 in hex.
func isCommit(text string) bool {
	return (len(text) == 40 || len(text) == 64) && strings.Trim(text, "0123456789abcdef") == ""
}
