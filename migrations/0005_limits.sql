-- Limits on what senders may send, in events: so many a second in the long run, and a burst at once. Null: not declared.

ALTER TABLE customers
    ADD COLUMN events_per_second        double precision,
    ADD COLUMN burst                    bigint,
    ADD COLUMN device_events_per_second double precision,
    ADD COLUMN device_burst             bigint;

ALTER TABLE devices
    ADD COLUMN events_per_second double precision,
    ADD COLUMN burst             bigint;

-- One row at most: what holds for all that have no limits of their own.
CREATE TABLE limits (
    id                         boolean PRIMARY KEY DEFAULT true CHECK (id),
    connections                bigint,
    connections_per_address    bigint,
    device_events_per_second   double precision,
    device_burst               bigint,
    customer_events_per_second double precision,
    customer_burst             bigint
);
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON limits
FOR EACH STATEMENT EXECUTE FUNCTION registry_changed();
