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
