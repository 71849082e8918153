package registry

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// changeLine is a change as WriteChanges writes it: with its objects whole, to be read when their kind is known.
type changeLine struct {
	Action  Action          `json:"action"`
	Address Address         `json:"address"`
	Reason  string          `json:"reason,omitempty"`
	Cause   Cause           `json:"cause,omitempty"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

// WriteChanges writes changes with their objects, a line of JSON each, for ReadChanges. The same changes give the same bytes.
func WriteChanges(w io.Writer, changes []Change) error {
	out := bufio.NewWriterSize(w, 64<<10)
	e := json.NewEncoder(out)
	for i := range changes {
		c := &changes[i]
		line := struct {
			Action  Action  `json:"action"`
			Address Address `json:"address"`
			Reason  string  `json:"reason,omitempty"`
			Cause   Cause   `json:"cause,omitempty"`
			Before  Object  `json:"before,omitempty"`
			After   Object  `json:"after,omitempty"`
		}{c.Action, c.Address, c.Reason, c.Cause, c.Before, c.After}
		if err := e.Encode(&line); err != nil {
			return fmt.Errorf("writing the change of %s: %w", c.Address, err)
		}
	}
	return out.Flush()
}

// ReadChanges reads what WriteChanges wrote, to the end. An error names the line.
func ReadChanges(r io.Reader) ([]Change, error) {
	d := json.NewDecoder(bufio.NewReaderSize(r, 64<<10))
	d.DisallowUnknownFields()
	var changes []Change
	for n := 1; ; n++ {
		var line changeLine
		err := d.Decode(&line)
		if errors.Is(err, io.EOF) {
			return changes, nil
		}
		var c Change
		if err == nil {
			c, err = line.change()
		}
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", n, err)
		}
		changes = append(changes, c)
	}
}

func (l *changeLine) change() (Change, error) {
	c := Change{Action: l.Action, Address: l.Address, Reason: l.Reason, Cause: l.Cause}
	var err error
	if c.Before, err = readObject(l.Address.Kind, l.Before); err != nil {
		return c, fmt.Errorf("before: %w", err)
	}
	if c.After, err = readObject(l.Address.Kind, l.After); err != nil {
		return c, fmt.Errorf("after: %w", err)
	}
	var complete bool
	switch l.Action {
	case Create:
		complete = c.After != nil
	case Delete, Release, Purge:
		complete = c.Before != nil && c.After == nil
	default:
		complete = c.Before != nil && c.After != nil
	}
	if !complete {
		return c, fmt.Errorf("a change that is to %s %s has not the objects that it needs", l.Action, l.Address)
	}
	if c.After != nil && c.After.Address() != l.Address {
		return c, fmt.Errorf("after: the object says that it is %s", c.After.Address())
	}
	if c.Before != nil && c.Before.Address() != l.Address {
		from := c.Before.Address()
		if l.Action != Move && l.Action != Import || from.Kind != l.Address.Kind {
			return c, fmt.Errorf("before: the object says that it is %s", from)
		}
		c.From = &from
	}
	c.Fields = fieldChanges(&c)
	return c, nil
}

// readObject reads an object of a kind; nothing is no object.
func readObject(kind Kind, text []byte) (o Object, err error) {
	if text == nil {
		return nil, nil
	}
	switch kind {
	case KindCustomer:
		o = &Customer{}
	case KindProject:
		o = &Project{}
	case KindSite:
		o = &Site{}
	case KindDevice:
		o = &Device{}
	case KindParameter:
		o = &Parameter{}
	case KindThreshold:
		o = &Threshold{}
	case KindPlatform:
		o = &Platform{}
	case KindRetention:
		o = &Retention{}
	case KindLimits:
		o = &Limits{}
	case KindPolicy:
		o = &Policy{}
	case KindDiscovery:
		o = &Discovery{}
	default:
		return nil, fmt.Errorf("%q is no kind of object", kind)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(o); err != nil {
		return nil, err
	}
	return o, nil
}
