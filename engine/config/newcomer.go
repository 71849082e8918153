package config

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/nsready/nsready/engine/registry"
)

// Newcomer is a device that somebody may want to declare.
type Newcomer struct {
	*registry.Device           // with its name, external id and parameters
	Given            uuid.UUID // the id by which it sends; zero when that is its external id
	Notes            []string  // what is known of it, for comments of a line each
}

// WriteNewcomers writes the blocks of devices as they stand in a site, in the style of Format.
func WriteNewcomers(w io.Writer, list []Newcomer) error {
	out := &writer{out: bufio.NewWriter(w), first: true}
	for _, n := range list {
		out.newcomer(n)
	}
	if err := out.out.Flush(); err != nil {
		return fmt.Errorf("writing the blocks of devices: %w", err)
	}
	return nil
}

func (w *writer) newcomer(n Newcomer) {
	b := &body{w: w, addr: n.Addr}
	for _, note := range n.Notes {
		b.comments = append(b.comments, oneLine("# "+note))
	}
	b.set("type", "type", `"unknown"`)
	if n.Given != uuid.Nil {
		b.set("id", "id", quoteText(n.Given.String()))
	}
	b.externalID(n.ExternalID)
	if len(n.Parameters) > 0 {
		b.set("parameters", "parameters", list(n.Parameters))
	}
	w.block(b, "device", n.Addr.Name())
}

// externalID adds a device's external id.
func (b *body) externalID(id string) {
	if strings.TrimSpace(id) != id {
		b.omit("external_id", "%s begins or ends with a space", quote(id))
		return
	}
	b.text("external_id", id, maxName)
}

// NewName makes a name for a device of what it is known by, and adds it to those that are taken.
func NewName(known string, taken map[string]bool) string {
	base := strings.TrimSpace(strings.ToValidUTF8(known, ""))
	if registry.NameFault(base) != "" {
		base = "device"
	}
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[name] = true
	return name
}

// ShortNames returns the last parts of parameter keys, sorted, each once.
func ShortNames(keys []string) []string {
	var names []string
	for _, key := range keys {
		parts := strings.SplitN(key, ":", 3)
		names = append(names, parts[len(parts)-1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
