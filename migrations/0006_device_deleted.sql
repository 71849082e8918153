-- A device that is deleted takes its telemetry with it when its deletion commits, and not before: what the workers store
-- meanwhile goes too. The lock keeps their transactions apart from that moment; 1853059704 is "nsrx".
CREATE OR REPLACE FUNCTION device_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1853059704);
    DELETE FROM telemetry WHERE device_ref = OLD.ref;
    DELETE FROM telemetry_latest WHERE device_ref = OLD.ref;
    RETURN NULL;
END $$;
DROP TRIGGER device_deleted ON devices;
CREATE CONSTRAINT TRIGGER device_deleted AFTER DELETE ON devices DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION device_deleted();
