package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/nsready/nsready/engine/telemetry"
)

// DeadLetter keeps an event that the database refuses, with the reason, in the transaction that stores its neighbours.
// seq and index say where in the queue it was.
func (t *Tx) DeadLetter(ctx context.Context, seq uint64, index int, e *telemetry.Event, rejected *telemetry.RejectedError) error {
	event, err := json.Marshal(eventJSON(e))
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	return t.deadLetter(ctx, seq, index, &e.Device, rejected, event)
}

// DeadFrame keeps a frame that cannot be decoded.
func (t *Tx) DeadFrame(ctx context.Context, seq uint64, data []byte, rejected *telemetry.RejectedError) error {
	event, err := json.Marshal(map[string]string{"frame": base64.StdEncoding.EncodeToString(data)})
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	return t.deadLetter(ctx, seq, 0, nil, rejected, event)
}

func (t *Tx) deadLetter(ctx context.Context, seq uint64, index int, device any, rejected *telemetry.RejectedError, event []byte) error {
	c := t.claim
	_, err := c.conn.Exec(ctx, `INSERT INTO dead_letters (epoch, partition, seq, event_index, device_id, reason, message, event)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		c.epoch, c.partition, int64(seq), index, device, rejected.Reason, rejected.Err.Error(), event)
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	return nil
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
		if math.IsNaN(v) {
			m["value"] = nil
		}
		if e.Quality != nil {
			m["quality"] = e.Quality[i]
		}
		if i < len(attributes) {
			m["attributes"] = attributes[i]
		}
		metrics[i] = m
	}
	return map[string]any{
		"device_id": e.Device, "source_timestamp": e.Time.Time().Format(time.RFC3339Nano), "protocol": string(e.Source),
		"event_id": string(e.EventID), "received_at": e.ReceivedAt.Time().Format(time.RFC3339Nano), "metrics": metrics,
	}
}
