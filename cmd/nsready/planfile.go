package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nsready/nsready/engine/registry"
)

// savedView is what commands show of a saved plan, beside the plan.
type savedView struct {
	File        string    `json:"file"`
	ToolVersion string    `json:"tool_version"`
	Author      string    `json:"author"`
	Commit      string    `json:"commit,omitempty"`
	Created     time.Time `json:"created"`
}

// savePlan writes a plan to a file, which is there whole or not at all, for its owner alone.
func savePlan(name string, p *registry.SavedPlan) error {
	if err := replaceFile(name, func(f *os.File) error { return registry.WritePlan(f, p) }); err != nil {
		return fmt.Errorf("saving the plan: %w", err)
	}
	return nil
}

// checkOut refuses to save a plan where there is something else.
func checkOut(name string) error {
	dir, err := os.Stat(filepath.Dir(name))
	if err == nil && !dir.IsDir() {
		err = fmt.Errorf("%s is no directory", filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("-out: %s is there, and is no file", name), err)
	}
	start := make([]byte, len(registry.PlanMagic))
	n, err := io.ReadFull(f, start)
	if n > 0 && string(start) != registry.PlanMagic {
		return fmt.Errorf("-out: %s is there, and is no saved plan; name another file, or remove it", name)
	}
	if err != nil && err != io.EOF {
		return fmt.Errorf("-out: %w", err)
	}
	return nil
}

// readPlan reads a saved plan.
func readPlan(name string) (*registry.SavedPlan, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the saved plan: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the saved plan: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file, and so no saved plan", name)
	}
	p, err := registry.ReadPlan(f, info.Size())
	switch {
	case errors.Is(err, registry.ErrPlanDamaged) && strings.HasSuffix(name, ".hcl"):
		return nil, fmt.Errorf("%s: %w; a declaration is named with -config %s", name, err, shellQuote(name))
	case errors.Is(err, registry.ErrPlanDamaged):
		return nil, fmt.Errorf("%s: %w; make it again with 'nsready plan -out %s'", name, err, shellQuote(name))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func viewSaved(name string, p *registry.SavedPlan) *savedView {
	return &savedView{File: name, ToolVersion: p.Tool, Author: p.Author, Commit: p.Commit, Created: p.Created}
}
