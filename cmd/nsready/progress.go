package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	progressAfter = 2 * time.Second  // on a terminal; what is quicker needs no word
	progressEvery = 10 * time.Second // in a log
)

// progress says on stderr what takes long: on a terminal in a line that is rewritten each second and goes in the end, in
// automation in a line every ten seconds. Otherwise it is silent.
type progress struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex
	what  string
	since time.Time
	shown int // characters on the terminal's line

	done, ended chan struct{}
}

// progress begins to watch a piece of work, whose description is as "Reading the registry". Its stop must be called.
func (s *streams) progress(what string) *progress {
	p := &progress{out: s.stderr, terminal: isTerminal(s.stderr), what: what, since: time.Now(), done: make(chan struct{}), ended: make(chan struct{})}
	if !p.terminal && !automated() {
		close(p.ended)
		return p
	}
	go p.run()
	return p
}

// now says what the work is at.
func (p *progress) now(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
}

// stop ends the watch, and leaves no trace on a terminal.
func (p *progress) stop() {
	close(p.done)
	<-p.ended
}

func (p *progress) run() {
	defer close(p.ended)
	every := progressEvery
	if p.terminal {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.say()
		case <-p.done:
			if p.shown > 0 {
				fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.shown))
			}
			return
		}
	}
}

func (p *progress) say() {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := time.Since(p.since)
	if p.terminal && age < progressAfter {
		return
	}
	text := string(legible(fmt.Appendf(nil, "%s… %d s", p.what, int(age.Seconds()))))
	if !p.terminal {
		fmt.Fprintln(p.out, text)
		return
	}
	length := utf8.RuneCountInString(text)
	fmt.Fprintf(p.out, "\r%s%s", text, strings.Repeat(" ", max(p.shown-length, 0)))
	p.shown = max(p.shown, length)
}
