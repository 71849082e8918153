package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nsready/nsready/engine/registry"
)

// StaleFilter says which devices are meant, by names; a field that is "" asks for nothing.
type StaleFilter struct{ Customer, Project, Site string }

// StaleSeries is a series of an active device whose newest value is too old, or that never had one.
type StaleSeries struct {
	DeviceID     uuid.UUID        `json:"device_id"`
	Device       registry.Address `json:"device"`
	ParameterKey string           `json:"parameter_key"`
	Parameter    string           `json:"parameter"` // short name
	Unit         string           `json:"unit"`
	Precision    *int             `json:"precision"` // decimals to show the value with; null when none are declared
	Time         *time.Time       `json:"time"`      // of the newest value, UTC; null when there was none
	Value        *float64         `json:"value"`
	Age          *float64         `json:"age_seconds"`
	StaleAfter   float64          `json:"stale_after_seconds"`
	Silent       bool             `json:"device_silent"` // no series of the device is fresh

	// The silent gateway that the device, which is silent, is reached through; null and zero for none.
	Via        *uuid.UUID       `json:"unreachable_via"`
	ViaAddress registry.Address `json:"-"`
}

// Stale returns the stale series, by customer, project, site, device and parameter.
func (s *Store) Stale(ctx context.Context, f StaleFilter) (list []StaleSeries, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL jit = off"); err != nil { // compiling takes longer than the query
			return err
		}
		rows, err := tx.Query(ctx, `SELECT f.device_id, f.customer, f.project, f.site, f.device, f.parameter_key, f.parameter, coalesce(f.unit, ''), f.precision,
			f.time, f.value, extract(epoch FROM f.age)::float8, extract(epoch FROM f.stale_after)::float8, f.silent,
			f.unreachable_via, coalesce(c.name, ''), coalesce(p.name, ''), coalesce(s.name, ''), coalesce(d.name, '')
			FROM v_scada_freshness f LEFT JOIN devices d ON d.id = f.unreachable_via LEFT JOIN sites s ON s.id = d.site_id
			LEFT JOIN projects p ON p.id = s.project_id LEFT JOIN customers c ON c.id = p.customer_id
			WHERE f.stale AND ($1 = '' OR f.customer = $1) AND ($2 = '' OR f.project = $2) AND ($3 = '' OR f.site = $3)
			ORDER BY f.customer, f.project, f.site, f.device, f.parameter`, f.Customer, f.Project, f.Site)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l StaleSeries, err error) {
			var names, via [4]string
			err = row.Scan(&l.DeviceID, &names[0], &names[1], &names[2], &names[3], &l.ParameterKey, &l.Parameter, &l.Unit, &l.Precision,
				&l.Time, &l.Value, &l.Age, &l.StaleAfter, &l.Silent, &l.Via, &via[0], &via[1], &via[2], &via[3])
			l.Device = registry.NewAddress(registry.KindDevice, names[:]...)
			if l.Via != nil {
				l.ViaAddress = registry.NewAddress(registry.KindDevice, via[:]...)
			}
			if l.Time != nil {
				*l.Time = l.Time.UTC()
			}
			return l, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading which series are stale: %w", s.schemaError(ctx, err))
	}
	return list, nil
}
