package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/telemetry"
)

// isPending is the condition of the index on the dead letters that wait for their device.
const isPending = "reason = '" + telemetry.PendingDevice + "'"

// maxPending is how many devices CountPending tells apart, far more than may be declared.
const maxPending = 1_000_000

// CountPending returns how many events are held of each device that events name.
func (s *Store) CountPending(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, "SELECT pending, count(*) FROM dead_letters WHERE "+isPending+" AND pending IS NOT NULL GROUP BY 1 LIMIT $1", maxPending)
	if err != nil {
		return nil, fmt.Errorf("counting held events: %w", err)
	}
	counts := map[string]int64{}
	var name string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { counts[name] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting held events: %w", err)
	}
	return counts, nil
}

// HeldEvent is a dead letter that waits for its device.
type HeldEvent struct {
	ID    int64 // of the letter
	Event telemetry.Event
	Err   error // why it cannot be read; nil when Event is right
}

// HeldEvents returns up to limit events that are held of some devices, with letters after an id, in their order.
func (s *Store) HeldEvents(ctx context.Context, devices []string, after int64, limit int) ([]HeldEvent, error) {
	rows, err := s.pool.Query(ctx, "SELECT id, pending, event FROM dead_letters WHERE "+isPending+" AND pending = ANY ($1) AND id > $2 ORDER BY id LIMIT $3", devices, after, limit)
	if err != nil {
		return nil, fmt.Errorf("reading held events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h HeldEvent, err error) {
		var name string
		var event []byte
		if err := row.Scan(&h.ID, &name, &event); err != nil {
			return h, err
		}
		h.Event, h.Err = readHeld(name, event)
		return h, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading held events: %w", err)
	}
	return list, nil
}

// Unwanted is a held event that its device cannot have after all.
type Unwanted struct {
	ID              int64 // of the letter
	Device          uuid.UUID
	Reason, Message string
}

// Replayed deletes the letters of held events that are in the queue again. Those of unwanted ones become dead letters of
// another reason.
func (s *Store) Replayed(ctx context.Context, queued []int64, unwanted []Unwanted) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue("DELETE FROM dead_letters WHERE id = ANY ($1)", queued)
		for _, u := range unwanted {
			b.Queue("UPDATE dead_letters SET reason = $2, message = $3, device_id = coalesce(nullif($4::uuid, '00000000-0000-0000-0000-000000000000'), device_id) WHERE id = $1 AND "+isPending, u.ID, u.Reason, u.Message, u.Device)
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return fmt.Errorf("noting which held events are in the queue again: %w", err)
	}
	return nil
}

// DropPending deletes held events that were held for longer than hold, and returns how many there were.
func (s *Store) DropPending(ctx context.Context, hold time.Duration) (int64, error) {
	tag, err := s.pool.Exec(ctx, "DELETE FROM dead_letters WHERE "+isPending+" AND created_at < now() - make_interval(secs => $1)", hold.Seconds())
	if err != nil {
		return 0, fmt.Errorf("dropping events that were held for long: %w", err)
	}
	return tag.RowsAffected(), nil
}

// heldJSON is what eventJSON writes of a held event.
type heldJSON struct {
	Project     uuid.UUID `json:"project_id"`
	Site        uuid.UUID `json:"site_id"`
	Measurement string    `json:"measurement"`
	Time        time.Time `json:"source_timestamp"`
	Protocol    string    `json:"protocol"`
	EventID     string    `json:"event_id"`
	ReceivedAt  time.Time `json:"received_at"`
	Metrics     []struct {
		Key        string          `json:"parameter_key"`
		Value      any             `json:"value"`
		Quality    *uint8          `json:"quality"`
		Attributes json.RawMessage `json:"attributes"`
	} `json:"metrics"`
	Encoded []byte `json:"base64"`
}

// readHeld reads the event of a letter that waits for a device.
func readHeld(device string, data []byte) (e telemetry.Event, err error) {
	var m heldJSON
	if err := json.Unmarshal(data, &m); err != nil {
		return e, err
	}
	if m.Encoded != nil {
		if err := json.Unmarshal(m.Encoded, &m); err != nil {
			return e, err
		}
	}
	if len(m.Metrics) == 0 {
		return e, errors.New("it has no values")
	}
	e.Held = &telemetry.Held{Device: device, Project: m.Project, Site: m.Site, Measurement: m.Measurement}
	if e.Device, err = uuid.Parse(device); err != nil {
		e.Device = telemetry.Unregistered(device)
	}
	e.Time, e.ReceivedAt, e.Source = telemetry.MicrosOf(m.Time), telemetry.MicrosOf(m.ReceivedAt), []byte(m.Protocol)
	if m.EventID != "" {
		e.EventID = []byte(m.EventID)
	}
	e.Set = &telemetry.ParameterSet{}
	attributes := make([]json.RawMessage, len(m.Metrics))
	some := false
	for i, metric := range m.Metrics {
		value := math.NaN()
		switch v := metric.Value.(type) {
		case nil:
		case float64:
			value = v
		case string: // an infinity
			if value, err = strconv.ParseFloat(v, 64); err != nil {
				return e, err
			}
		default:
			return e, fmt.Errorf("the value %v is no number", v)
		}
		e.Set.Keys, e.Values = append(e.Set.Keys, metric.Key), append(e.Values, value)
		if metric.Quality != nil {
			e.Quality = append(e.Quality, *metric.Quality)
		}
		attributes[i] = metric.Attributes
		some = some || metric.Attributes != nil && string(metric.Attributes) != "null"
	}
	if e.Quality != nil && len(e.Quality) != len(e.Values) {
		return e, errors.New("not all of its values have a quality")
	}
	if some {
		if e.Attributes, err = json.Marshal(attributes); err != nil {
			return e, err
		}
	}
	return e, nil
}

// PendingDevice is a device of which events are held.
type PendingDevice struct {
	Device      string     `json:"device"`     // what events call it: a UUID or an external id
	Protocol    string     `json:"protocol"`   // of the newest event
	ProjectID   *uuid.UUID `json:"project_id"` // that the newest event says it is of; null where the protocol does not know
	SiteID      *uuid.UUID `json:"site_id"`
	Events      int64      `json:"events"`
	FirstSeen   time.Time  `json:"first_seen"` // when the first held event came, and the last
	LastSeen    time.Time  `json:"last_seen"`
	Measurement string     `json:"measurement,omitempty"` // of the newest point
	Parameters  []string   `json:"parameters"`            // keys, or, of points, names of fields, that the newest 100 events have
}

// PendingDevices lists the devices of which events are held, the one that was seen last first, up to limit.
func (s *Store) PendingDevices(ctx context.Context, limit int) ([]PendingDevice, error) {
	rows, err := s.pool.Query(ctx, `SELECT p.pending, coalesce(e.event ->> 'protocol', ''), (e.event ->> 'project_id')::uuid, (e.event ->> 'site_id')::uuid, p.events, p.first, p.last,
			coalesce(e.event ->> 'measurement', ''),
			coalesce((SELECT array_agg(DISTINCT k.key ORDER BY k.key) FROM (SELECT l.event FROM dead_letters l WHERE l.`+isPending+` AND l.pending = p.pending ORDER BY l.id DESC LIMIT 100) n,
				LATERAL jsonb_path_query(n.event, '$.metrics[*].parameter_key') q (v), LATERAL (SELECT v #>> '{}') k (key)), '{}')
		FROM (SELECT pending, count(*) AS events, min(created_at) AS first, max(created_at) AS last, max(id) AS newest
			FROM dead_letters WHERE `+isPending+` AND pending IS NOT NULL GROUP BY 1) p
		JOIN dead_letters e ON e.id = p.newest
		ORDER BY p.last DESC, p.pending LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the devices that wait: %w", s.schemaError(ctx, err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d PendingDevice, err error) {
		err = row.Scan(&d.Device, &d.Protocol, &d.ProjectID, &d.SiteID, &d.Events, &d.FirstSeen, &d.LastSeen, &d.Measurement, &d.Parameters)
		d.FirstSeen, d.LastSeen = d.FirstSeen.UTC(), d.LastSeen.UTC()
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the devices that wait: %w", s.schemaError(ctx, err))
	}
	return list, nil
}
