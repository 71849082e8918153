package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// inventory holds, for each resource of the admin API, a query for (id, customer, created_at, item): the item has the
// names of the original's API. What is retired is left out.
var inventory = map[string]string{
	"customers": `SELECT c.id, c.id AS customer, c.created_at,
		json_build_object('id', c.id, 'name', c.name, 'metadata', c.metadata, 'created_at', to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS item FROM customers c WHERE c.retired_at IS NULL`,
	"projects": `SELECT p.id, p.customer_id AS customer, p.created_at,
		json_build_object('id', p.id, 'customer_id', p.customer_id, 'name', p.name, 'description', p.description, 'created_at', to_char(p.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS item
		FROM projects p WHERE p.retired_at IS NULL`,
	"sites": `SELECT s.id, p.customer_id AS customer, s.created_at,
		json_build_object('id', s.id, 'project_id', s.project_id, 'name', s.name, 'location', s.location, 'created_at', to_char(s.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS item
		FROM sites s JOIN projects p ON p.id = s.project_id WHERE s.retired_at IS NULL`,
	"devices": `SELECT d.id, p.customer_id AS customer, d.created_at,
		json_build_object('id', d.id, 'site_id', d.site_id, 'name', d.name, 'device_type', d.device_type, 'external_id', d.external_id,
			'status', d.status, 'created_at', to_char(d.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS item
		FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id WHERE d.retired_at IS NULL`,
	"parameter_templates": `SELECT t.id, p.customer_id AS customer, t.created_at,
		json_build_object('id', t.id, 'key', t.key, 'name', t.name, 'unit', t.unit, 'metadata', t.metadata, 'created_at', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) AS item
		FROM parameter_templates t LEFT JOIN projects p ON t.key LIKE 'project:' || p.id || ':%' WHERE t.retired_at IS NULL`,
}

// List returns a JSON array of a resource's items, newest first; of one customer when customer is not zero.
func (s *Store) List(ctx context.Context, resource string, customer uuid.UUID) ([]byte, error) {
	query, ok := inventory[resource]
	if !ok {
		return nil, fmt.Errorf("listing %q: no such resource", resource)
	}
	var out []byte
	err := s.pool.QueryRow(ctx, "SELECT coalesce(json_agg(item ORDER BY created_at DESC, id), '[]') FROM ("+query+") i WHERE $1::uuid IS NULL OR customer = $1",
		nullID(customer)).Scan(&out)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", resource, err)
	}
	return out, nil
}

// Item returns one item as JSON, or nil when there is none with this id that the customer may see.
func (s *Store) Item(ctx context.Context, resource string, id, customer uuid.UUID) ([]byte, error) {
	query, ok := inventory[resource]
	if !ok {
		return nil, fmt.Errorf("reading an item of %q: no such resource", resource)
	}
	var out []byte
	err := s.pool.QueryRow(ctx, "SELECT item FROM ("+query+") i WHERE id = $2 AND ($1::uuid IS NULL OR customer = $1)", nullID(customer), id).Scan(&out)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading an item of %s: %w", resource, err)
	}
	return out, nil
}

func nullID(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}
