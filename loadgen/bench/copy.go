package main

import (
	"context"

	"github.com/nsready/nsready/engine/store/storebench"
)

const copyWriters = 2

// copyOriginal measures pgx's COPY into the original platform's table, a row for each value.
func copyOriginal(ctx context.Context, b *bench, r *round) error {
	s := b.service
	rows, took, err := s.db.CopyOriginal(ctx, storebench.Original{Devices: s.devices, Keys: s.keys, Start: s.seq.Start,
		Rows: b.size.copyRows, Limit: b.size.copyLimit, Writers: copyWriters})
	if err != nil {
		return err
	}
	r.set("copy.values", float64(rows)/took.Seconds(), "")
	return nil
}

// copyTelemetry measures what the database can take of the service's own rows when everything else costs nothing.
func copyTelemetry(ctx context.Context, b *bench, r *round) error {
	s := b.service
	rows := storebench.Rows{Devices: s.devices, Keys: s.keys, Time: s.seq.Time, First: s.turn * devices,
		Count: uint64(b.size.telemetryTurns * devices), Writers: copyWriters}
	s.turn += uint64(b.size.telemetryTurns)
	took, err := s.db.CopyTelemetry(ctx, rows)
	if err != nil {
		return err
	}
	r.set("telemetry.values", float64(rows.Count*parameters)/took.Seconds(), "")
	return nil
}
