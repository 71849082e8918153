-- overrides: what holds for the device instead of what the templates of its parameters say, by their short names: min, max,
-- interval_seconds, stale_after_seconds, on_violation, default_quality. Null for nothing.
-- gateway_id: the device through which it is reached. One apply may make both, and in any order.
ALTER TABLE devices
    ADD COLUMN overrides  jsonb,
    ADD COLUMN gateway_id uuid,
    ADD CONSTRAINT devices_gateway_fkey FOREIGN KEY (gateway_id) REFERENCES devices (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT devices_gateway_is_another CHECK (gateway_id <> id);
CREATE INDEX idx_devices_gateway ON devices (gateway_id) WHERE gateway_id IS NOT NULL;

-- The audit knows the new columns.
DO $$
DECLARE
    columns text := 'site_id name device_type external_id status reporting_interval_seconds parameters events_per_second burst gateway_id overrides managed managed_by prevent_destroy retired_at';
    event text;
BEGIN
    FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
        EXECUTE format('DROP TRIGGER registry_recorded_%s ON devices', lower(event));
        EXECUTE format('CREATE TRIGGER registry_recorded_%s AFTER %s ON devices %s FOR EACH STATEMENT
            WHEN (current_setting(''nsready.apply'', true) IS DISTINCT FROM ''on'') EXECUTE FUNCTION registry_recorded(''device'', ''id'', ''name'', %s)',
            lower(event), event,
            CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' ELSE '' END,
            (SELECT string_agg(quote_literal(c), ', ') FROM unnest(string_to_array(columns, ' ')) c));
    END LOOP;
END $$;

-- Seconds in a template's metadata or an override, which other programs may have written as text; null for none above 0.
CREATE FUNCTION registry_seconds(v jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE jsonb_typeof(v)
        WHEN 'number' THEN CASE WHEN v::numeric > 0 AND v::numeric < 1e10 THEN v::double precision END
        WHEN 'string' THEN CASE WHEN v #>> '{}' ~ '^\s*\+?\d{1,10}(\.\d{1,20})?\s*$' THEN nullif((v #>> '{}')::double precision, 0) END
    END
$$;

-- How old the newest value of each declared series of an active device is. stale_after: what the device overrides, or the
-- template says, or else three times the longer of the intervals of the parameter and the device; where none is declared, it
-- and stale are null. A series that never had a value is stale. silent: no series of the device is fresh. unreachable_via: where
-- the device is silent and its gateway is, too, the outermost silent gateway on the way to it that nothing fresh lies behind.
-- Whatever the planner knows of the tables, devices are taken one by one, and looked up in objects where they meet others.
CREATE VIEW v_scada_freshness AS
WITH RECURSIVE judged AS MATERIALIZED (
    SELECT d.id AS device_id, d.name AS device, s.name AS site, p.name AS project, c.name AS customer, d.status, d.gateway_id, f.*
    FROM devices d JOIN sites s ON s.id = d.site_id JOIN projects p ON p.id = s.project_id JOIN customers c ON c.id = p.customer_id
    CROSS JOIN LATERAL (
        SELECT *, bool_and(stale) OVER () AS silent, row_number() OVER () = 1 AS head
        FROM (
            SELECT q.short, t.key, t.unit, CASE WHEN t.metadata ->> 'precision' ~ '^(\d|1[0-5])$' THEN (t.metadata ->> 'precision')::integer END AS precision,
                   n.time, n.value, now() - n.time AS age, a.stale_after,
                   CASE WHEN a.stale_after IS NOT NULL THEN n.time IS NULL OR now() - n.time > a.stale_after END AS stale
            FROM unnest(d.parameters) q (short)
            JOIN parameter_templates t ON t.key = 'project:' || p.id || ':' || q.short AND t.retired_at IS NULL
            CROSS JOIN LATERAL (
                SELECT make_interval(secs => coalesce(
                    registry_seconds(d.overrides -> q.short -> 'stale_after_seconds'), registry_seconds(t.metadata -> 'stale_after_seconds'),
                    3 * greatest(coalesce(registry_seconds(d.overrides -> q.short -> 'interval_seconds'), registry_seconds(t.metadata -> 'interval_seconds')),
                        CASE WHEN d.reporting_interval_seconds > 0 AND d.reporting_interval_seconds < 1e10 THEN d.reporting_interval_seconds END))) AS stale_after
            ) a
            LEFT JOIN LATERAL (
                SELECT l.time, l.vals[array_position(k.keys, t.key)] AS value
                FROM telemetry_latest l JOIN parameter_sets k ON k.id = l.set_id
                WHERE l.device_ref = d.ref AND t.key = ANY (k.keys) ORDER BY l.time DESC, l.set_id DESC LIMIT 1
            ) n ON true
        ) series
    ) f
    WHERE d.retired_at IS NULL AND s.retired_at IS NULL AND p.retired_at IS NULL AND c.retired_at IS NULL
), gateway AS MATERIALIZED (
    SELECT g.id, g.gateway_id, ((SELECT jsonb_object_agg(device_id, silent) FROM judged WHERE head AND silent IS NOT NULL) ->> g.id::text)::boolean AS silent
    FROM devices g WHERE g.retired_at IS NULL AND g.id IN (SELECT gateway_id FROM devices WHERE retired_at IS NULL)
), way AS (
    SELECT g.id, CASE WHEN g.silent THEN g.id END AS via FROM gateway g
    WHERE g.gateway_id IS NULL OR NOT EXISTS (SELECT FROM devices o WHERE o.id = g.gateway_id AND o.retired_at IS NULL)
    UNION ALL
    SELECT g.id, CASE WHEN g.silent THEN coalesce(w.via, g.id) WHEN g.silent IS NULL THEN w.via END FROM way w JOIN gateway g ON g.gateway_id = w.id
)
SELECT device_id, device, site, project, customer, key AS parameter_key, short AS parameter, unit, precision, time, value, age, stale_after, stale,
       coalesce(silent, false) AS silent,
       CASE WHEN silent THEN ((SELECT jsonb_object_agg(id, via) FROM way WHERE via IS NOT NULL) ->> gateway_id::text)::uuid END AS unreachable_via
FROM judged WHERE status = 'active';
