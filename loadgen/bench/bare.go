package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

// bareResponder measures single events at a server that does nothing with them.
func bareResponder(ctx context.Context, b *bench, r *round) error {
	s := b.service
	requests := s.seq.Requests(b.bare, singleConnections, 1, s.turn, b.size.singleTurns) // nothing is stored: the turns stay free
	report, err := fire(ctx, s.db, b.bare, requests, 0)
	if err != nil {
		return err
	}
	r.set("bare.requests", report.PerSecond(), report.Bound())
	r.set("bare.generator", 100*report.CPU, "")
	return nil
}

// serveBare is the best that net/http can do: it reads each request and answers 202. Its address goes to w.
func serveBare(w io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w, l.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	parentGone := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(parentGone) }()
	select {
	case err := <-failed:
		return err
	case <-parentGone:
		return server.Close()
	}
}

// startBare runs this program as a bare responder, in a process of its own as the service is.
func (b *bench) startBare(ctx context.Context) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-respond")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the bare responder: %w", err)
	}
	stop = func() error {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil && ctx.Err() == nil {
			return fmt.Errorf("stopping the bare responder: %w", err)
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the bare responder: %w", err), stop())
	}
	b.bare = strings.TrimSpace(line)
	return stop, nil
}
