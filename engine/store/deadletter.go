package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nsready/nsready/engine/telemetry"
)

// letter is a dead letter that Commit will write.
type letter struct {
	account *account
	events  int64 // that it stands for
	from    Stream
	seq     uint64
	index   int
	device  pgtype.UUID
	pending pgtype.Text // what a held event calls its device
	reason  string
	message string
	event   []byte // JSON
}

// DeadLetter keeps an event that the database refuses, with the reason, in the transaction that stores its neighbours.
// lane, seq and index say where in the queue it was.
func (t *Tx) DeadLetter(_ context.Context, lane int, seq uint64, index int, e *telemetry.Event, rejected *telemetry.RejectedError) error {
	event, err := json.Marshal(eventJSON(e))
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	c := t.claim
	l := letter{account: c.ledger.account(c.devices[e.Device], e.ReceivedAt), events: 1, from: c.streams[lane], seq: seq, index: index,
		device: pgtype.UUID{Bytes: e.Device, Valid: true}, reason: rejected.Reason, message: rejected.Err.Error(), event: event}
	if h := e.Held; h != nil {
		l.device.Valid = h.Device == e.Device.String()
		l.pending = text([]byte(h.Device))
	}
	t.letters = append(t.letters, l)
	return nil
}

// DeadFrame keeps a frame that cannot be decoded. Its header, zero when it is unreadable too, says how many events it held.
func (t *Tx) DeadFrame(_ context.Context, lane int, seq uint64, h telemetry.Header, data []byte, rejected *telemetry.RejectedError) error {
	event, err := json.Marshal(map[string]string{"frame": base64.StdEncoding.EncodeToString(data)})
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	received := h.ReceivedAt
	if h.Events == 0 {
		received = telemetry.MicrosOf(time.Now())
	}
	c := t.claim
	a := c.ledger.account(nil, received)
	a.Accepted += int64(h.Events)
	t.letters = append(t.letters, letter{account: a, events: int64(h.Events), from: c.streams[lane], seq: seq,
		reason: rejected.Reason, message: rejected.Err.Error(), event: event})
	return nil
}

// writeLetters writes the dead letters of the transaction.
func (t *Tx) writeLetters(ctx context.Context) error {
	for len(t.letters) > 0 {
		n := min(len(t.letters), maxLetters)
		if err := t.putLetters(ctx, t.letters[:n]); err != nil {
			return fmt.Errorf("writing dead letters: %w", err)
		}
		t.letters = t.letters[n:]
	}
	return nil
}

// maxLetters is how many dead letters one statement writes.
const maxLetters = 1000

// putLetters writes letters. What the database will not even take as a dead letter is kept in base64.
func (t *Tx) putLetters(ctx context.Context, letters []letter) error {
	c := t.claim
	if err := c.exec(ctx, "SAVEPOINT letters"); err != nil {
		return err
	}
	err := t.insertLetters(ctx, letters)
	if err == nil {
		return c.exec(ctx, "RELEASE SAVEPOINT letters")
	}
	if asRejected(err) == nil || len(letters) == 1 && letters[0].encoded() {
		return err
	}
	if err := c.exec(ctx, "ROLLBACK TO SAVEPOINT letters; RELEASE SAVEPOINT letters"); err != nil {
		return err
	}
	if len(letters) > 1 {
		half := len(letters) / 2
		if err := t.putLetters(ctx, letters[:half]); err != nil {
			return err
		}
		return t.putLetters(ctx, letters[half:])
	}
	if err := letters[0].encode(); err != nil {
		return err
	}
	return t.putLetters(ctx, letters)
}

func (t *Tx) insertLetters(ctx context.Context, letters []letter) error {
	c := t.claim
	n := len(letters)
	epochs, numbers := make([]string, n), make([]int32, n)
	seqs, indexes, devices := make([]int64, n), make([]int32, n), make([]pgtype.UUID, n)
	pending, reasons, messages, events := make([]pgtype.Text, n), make([]string, n), make([]string, n), make([]string, n)
	for i := range letters {
		l := &letters[i]
		epochs[i], numbers[i] = l.from.Epoch, int32(l.from.Number)
		seqs[i], indexes[i], devices[i], pending[i] = int64(l.seq), int32(l.index), l.device, l.pending
		reasons[i], messages[i], events[i] = l.reason, strings.ReplaceAll(strings.ToValidUTF8(l.message, "\ufffd"), "\x00", "\ufffd"), string(l.event)
	}
	// The same frame was a dead letter before when somebody set the offset back.
	tag, err := c.conn.Exec(ctx, `INSERT INTO dead_letters (epoch, partition, seq, event_index, device_id, pending, reason, message, event)
		SELECT n.epoch, n.number, n.seq, n.index, n.device, n.pending, n.reason, n.message, n.event::jsonb
		FROM unnest($1::text[], $2::int[], $3::bigint[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[])
			WITH ORDINALITY n (epoch, number, seq, index, device, pending, reason, message, event, i) ORDER BY n.i
		ON CONFLICT (epoch, partition, seq, event_index) DO UPDATE SET reason = excluded.reason, message = excluded.message`,
		epochs, numbers, seqs, indexes, devices, pending, reasons, messages, events)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != int64(n) {
		return fmt.Errorf("%w: the database took %d of %d dead letters", ErrUnbalanced, tag.RowsAffected(), n)
	}
	for i := range letters {
		letters[i].account.Dead += letters[i].events
	}
	return nil
}

const encodedPrefix = `{"base64":"`

func (l *letter) encoded() bool { return bytes.HasPrefix(l.event, []byte(encodedPrefix)) }

func (l *letter) encode() (err error) {
	l.event, err = json.Marshal(map[string][]byte{"base64": l.event})
	return err
}

// eventJSON is an event in the form in which it was sent.
func eventJSON(e *telemetry.Event) map[string]any {
	var attributes []json.RawMessage
	if e.Attributes != nil && json.Unmarshal(e.Attributes, &attributes) != nil {
		attributes = nil
	}
	metrics := make([]map[string]any, len(e.Values))
	for i, v := range e.Values {
		m := map[string]any{"parameter_key": e.Set.Keys[i], "value": v, "quality": telemetry.QualityGood}
		switch {
		case math.IsNaN(v):
			m["value"] = nil
		case math.IsInf(v, 0): // JSON has no number for it
			m["value"] = fmt.Sprint(v)
		}
		if e.Quality != nil {
			m["quality"] = e.Quality[i]
		}
		if i < len(attributes) {
			m["attributes"] = attributes[i]
		}
		metrics[i] = m
	}
	m := map[string]any{
		"device_id": e.Device, "source_timestamp": e.Time.Time().Format(time.RFC3339Nano), "protocol": string(e.Source),
		"event_id": string(e.EventID), "received_at": e.ReceivedAt.Time().Format(time.RFC3339Nano), "metrics": metrics,
	}
	switch h := e.Held; {
	case h == nil:
	case h.Point():
		delete(m, "device_id")
		m["device"], m["measurement"] = h.Device, h.Measurement
	default:
		m["project_id"], m["site_id"] = h.Project, h.Site
	}
	return m
}
