package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/alert"
	"github.com/nsready/nsready/engine/telemetry"
)

// OpenAlerts returns the alerts that are not resolved, of all partitions.
func (c *Claim) OpenAlerts(ctx context.Context) ([]alert.Open, error) { return openAlerts(ctx, c.conn) }

func openAlerts(ctx context.Context, db interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}) ([]alert.Open, error) {
	rows, err := db.Query(ctx, `SELECT threshold_id, device_id, state, severity, value, pending_at, fired_at FROM alerts WHERE state <> 'resolved'`)
	if err != nil {
		return nil, fmt.Errorf("reading open alerts: %w", err)
	}
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o alert.Open, err error) {
		var pending time.Time
		var fired *time.Time
		if err := row.Scan(&o.Threshold, &o.Device, &o.State, &o.Severity, &o.Value, &pending, &fired); err != nil {
			return o, err
		}
		o.PendingAt = telemetry.MicrosOf(pending)
		if fired != nil {
			o.FiredAt = telemetry.MicrosOf(*fired)
		}
		return o, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading open alerts: %w", err)
	}
	return open, nil
}

// Latest calls row for the newest row of each device and parameter set.
func (c *Claim) Latest(ctx context.Context, row func(device uuid.UUID, keys []string, at telemetry.Micros)) error {
	rows, err := c.conn.Query(ctx, `SELECT d.id, l.set_id, l.time FROM telemetry_latest l JOIN devices d ON d.ref = l.device_ref`)
	if err != nil {
		return fmt.Errorf("reading the latest times: %w", err)
	}
	type entry struct {
		device uuid.UUID
		set    int32
		at     time.Time
	}
	entries, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e entry, err error) {
		err = r.Scan(&e.device, &e.set, &e.at)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("reading the latest times: %w", err)
	}
	for _, e := range entries {
		keys, err := c.setKeys(ctx, e.set)
		if err != nil {
			return err
		}
		row(e.device, keys, telemetry.MicrosOf(e.at))
	}
	return nil
}

// Alerts writes transitions, in their order. One that is written again has no effect. An alert that resolves before it
// fired leaves no row.
func (t *Tx) Alerts(ctx context.Context, transitions []alert.Transition) error {
	b := &pgx.Batch{}
	for i := range transitions {
		a := &transitions[i]
		var fired *time.Time
		if a.FiredAt != 0 {
			at := a.FiredAt.Time()
			fired = &at
		}
		switch {
		case a.To != alert.Resolved:
			b.Queue(`INSERT INTO alerts (threshold_id, device_id, state, severity, value, pending_at, fired_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
				ON CONFLICT (threshold_id, device_id) WHERE state <> 'resolved'
				DO UPDATE SET state = excluded.state, severity = excluded.severity, value = excluded.value, fired_at = excluded.fired_at`,
				a.Threshold, a.Device, a.To, a.Severity, a.Value, a.PendingAt.Time(), fired)
		case fired == nil:
			b.Queue("DELETE FROM alerts WHERE threshold_id = $1 AND device_id = $2 AND state <> 'resolved'", a.Threshold, a.Device)
		default:
			b.Queue(`UPDATE alerts SET state = 'resolved', value = $3, resolved_at = $4
				WHERE threshold_id = $1 AND device_id = $2 AND state <> 'resolved'`, a.Threshold, a.Device, a.Value, a.At.Time())
		}
	}
	if err := t.claim.conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("writing %d alert transitions: %w", len(transitions), err)
	}
	return nil
}
