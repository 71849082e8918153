-- Events of devices that the registry does not know are held until it does, where that is declared. One row at most; null: not declared.
CREATE TABLE discovery (
    id                    boolean PRIMARY KEY DEFAULT true CHECK (id),
    hold_seconds          double precision,
    max_devices           bigint,
    max_events            bigint,
    max_events_per_device bigint,
    managed               boolean NOT NULL DEFAULT false,
    managed_by            text
);
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON discovery
FOR EACH STATEMENT EXECUTE FUNCTION registry_changed();

DO $$
DECLARE
    event text;
BEGIN
    FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
        EXECUTE format('CREATE TRIGGER registry_recorded_%s AFTER %s ON discovery %s FOR EACH STATEMENT
            WHEN (current_setting(''nsready.apply'', true) IS DISTINCT FROM ''on'')
            EXECUTE FUNCTION registry_recorded(''discovery'', ''id'', ''id'', ''hold_seconds'', ''max_devices'', ''max_events'', ''max_events_per_device'', ''managed'', ''managed_by'')',
            lower(event), event,
            CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' ELSE '' END);
    END LOOP;
END $$;

-- A dead letter of the reason pending_device is an event of a device that was not known. pending is what the event called it,
-- its UUID or its external id, and stays when the letter gets another reason.
ALTER TABLE dead_letters ADD COLUMN pending text;
CREATE INDEX idx_dead_letters_pending ON dead_letters (pending, id) WHERE reason = 'pending_device';
