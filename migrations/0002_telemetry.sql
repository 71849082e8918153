-- What was measured: one row per device and time. vals[i] is the value of keys[i] of its parameter set;
-- quality null means that all are 192 (good); attributes is null or an array with one object or null per value.

CREATE TABLE parameter_sets (
    id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    keys   text[] NOT NULL
);

-- The id of an ordered list of parameter keys, which is stored when it is new.
CREATE FUNCTION parameter_set_id(wanted text[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    d bytea := sha256(convert_to(array_to_string(wanted, chr(31)), 'UTF8'));
    found_id integer;
BEGIN
    SELECT id INTO found_id FROM parameter_sets WHERE digest = d;
    IF found_id IS NULL THEN
        INSERT INTO parameter_sets (digest, keys) VALUES (d, wanted) ON CONFLICT (digest) DO NOTHING RETURNING id INTO found_id;
        IF found_id IS NULL THEN
            SELECT id INTO found_id FROM parameter_sets WHERE digest = d;
        END IF;
    END IF;
    RETURN found_id;
END $$;

-- A TimescaleDB hypertable where the extension is, otherwise daily native partitions, made when their day is first written.
DO $$
DECLARE
    hyper boolean := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    EXECUTE 'CREATE TABLE telemetry (
        time        timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        device_ref  integer NOT NULL,
        set_id      integer NOT NULL,
        vals        double precision[] NOT NULL,
        quality     smallint[],
        source      text,
        event_id    text,
        attributes  jsonb,
        PRIMARY KEY (device_ref, time))' || CASE WHEN hyper THEN '' ELSE ' PARTITION BY RANGE (time)' END;
    IF hyper THEN
        PERFORM create_hypertable('telemetry', by_range('time', interval '1 day'), create_default_indexes => false);
        EXECUTE 'ALTER TABLE telemetry SET (timescaledb.compress, timescaledb.compress_segmentby = ''device_ref, set_id'',
                                            timescaledb.compress_orderby = ''time DESC'')';

        -- The policy that compresses old chunks is what the retention declares, whoever declared it.
        CREATE FUNCTION retention_compresses() RETURNS trigger LANGUAGE plpgsql AS $f$
        DECLARE
            wanted interval := (SELECT make_interval(secs => compress_after_seconds) FROM retention);
            present interval := (SELECT config ->> 'compress_after' FROM timescaledb_information.jobs
                                 WHERE proc_name = 'policy_compression' AND hypertable_schema = TG_TABLE_SCHEMA AND hypertable_name = 'telemetry');
        BEGIN
            IF wanted IS DISTINCT FROM present THEN
                PERFORM remove_compression_policy('telemetry', if_exists => true);
                IF wanted IS NOT NULL THEN
                    PERFORM add_compression_policy('telemetry', wanted);
                END IF;
            END IF;
            RETURN NULL;
        END $f$;
        CREATE TRIGGER retention_compresses AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retention
        FOR EACH STATEMENT EXECUTE FUNCTION retention_compresses();
    END IF;
END $$;

-- The newest row of each device and parameter set. It never moves backwards.
CREATE TABLE telemetry_latest (
    device_ref  integer NOT NULL,
    set_id      integer NOT NULL,
    time        timestamptz NOT NULL,
    vals        double precision[] NOT NULL,
    quality     smallint[],
    source      text,
    PRIMARY KEY (device_ref, set_id)
) WITH (fillfactor = 50);

-- How far each partition of the queue is stored: all frames up to seq, which held events events.
CREATE TABLE partitions (
    epoch      text NOT NULL,
    id         integer NOT NULL,
    seq        bigint NOT NULL DEFAULT 0,
    events     bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (epoch, id)
);

-- Events that were acknowledged but that the database refused, with the reason; nothing else is ever left out of telemetry.
CREATE TABLE dead_letters (
    id          bigserial PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now(),
    epoch       text NOT NULL,
    partition   integer NOT NULL,
    seq         bigint NOT NULL,
    event_index integer NOT NULL,
    device_id   uuid, -- null: a whole frame that could not be read
    reason      text NOT NULL,
    message     text NOT NULL,
    event       jsonb NOT NULL,
    UNIQUE (epoch, partition, seq, event_index)
);

-- One row from the moment a threshold is exceeded until it is resolved, and after.
CREATE TABLE alerts (
    id           bigserial PRIMARY KEY,
    threshold_id uuid NOT NULL,
    device_id    uuid NOT NULL,
    state        text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    severity     text NOT NULL,
    value        double precision NOT NULL,
    pending_at   timestamptz NOT NULL,
    fired_at     timestamptz,
    resolved_at  timestamptz
);
CREATE UNIQUE INDEX alerts_open ON alerts (threshold_id, device_id) WHERE state <> 'resolved';

-- The original's event ids: <event_id or device:time>:<parameter key>, the time as ISO 8601 with microseconds only when there are some.
CREATE FUNCTION telemetry_event_id(event_id text, device uuid, t timestamptz, key text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(event_id,
                    device || ':' || to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') ||
                    CASE WHEN date_trunc('second', t) = t THEN '' ELSE to_char(t AT TIME ZONE 'UTC', '.US') END || '+00:00')
           || ':' || key
$$;

CREATE VIEW ingest_events AS
SELECT t.time, d.id AS device_id, v.key AS parameter_key, v.value, coalesce(v.quality, 192::smallint) AS quality, t.source,
       telemetry_event_id(t.event_id, d.id, t.time, v.key) AS event_id,
       coalesce(nullif(t.attributes -> (v.i - 1)::integer, 'null'), '{}') AS attributes,
       t.received_at AS created_at
FROM telemetry t
JOIN devices d ON d.ref = t.device_ref
JOIN parameter_sets s ON s.id = t.set_id
CROSS JOIN LATERAL ROWS FROM (unnest(s.keys, t.vals, t.quality)) WITH ORDINALITY v (key, value, quality, i);

-- A device that is deleted takes its telemetry with it, as the original's foreign key did. An apply only retires devices.
CREATE FUNCTION device_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM telemetry WHERE device_ref = OLD.ref;
    DELETE FROM telemetry_latest WHERE device_ref = OLD.ref;
    RETURN NULL;
END $$;
CREATE TRIGGER device_deleted AFTER DELETE ON devices FOR EACH ROW EXECUTE FUNCTION device_deleted();

-- DELETE on the view takes single values out of their rows, and the row with its last value. Compressed rows cannot be
-- locked; instead it tries again when somebody has changed the row's parameter set meanwhile.
CREATE FUNCTION ingest_events_delete() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    d integer := (SELECT ref FROM devices WHERE id = OLD.device_id);
    s integer;
    k text[];
    i integer;
BEGIN
    LOOP
        SELECT p.id, p.keys INTO s, k FROM telemetry t JOIN parameter_sets p ON p.id = t.set_id
        WHERE t.device_ref = d AND t.time = OLD.time;
        i := array_position(k, OLD.parameter_key);
        IF i IS NULL THEN
            RETURN NULL;
        ELSIF cardinality(k) = 1 THEN
            DELETE FROM telemetry WHERE device_ref = d AND time = OLD.time AND set_id = s;
        ELSE
            UPDATE telemetry
            SET set_id = parameter_set_id(k[:i-1] || k[i+1:]), vals = vals[:i-1] || vals[i+1:],
                quality = quality[:i-1] || quality[i+1:], attributes = attributes - (i - 1)
            WHERE device_ref = d AND time = OLD.time AND set_id = s;
        END IF;
        EXIT WHEN FOUND;
    END LOOP;
    -- What was the newest row of its set gives way to the one before, and to what is left of itself.
    DELETE FROM telemetry_latest l WHERE l.device_ref = d AND l.set_id = s AND l.time = OLD.time;
    IF FOUND THEN
        INSERT INTO telemetry_latest (device_ref, set_id, time, vals, quality, source)
        SELECT t.device_ref, t.set_id, t.time, t.vals, t.quality, t.source FROM telemetry t
        WHERE t.device_ref = d AND t.set_id = s AND t.time < OLD.time ORDER BY t.time DESC LIMIT 1;
        INSERT INTO telemetry_latest AS l (device_ref, set_id, time, vals, quality, source)
        SELECT t.device_ref, t.set_id, t.time, t.vals, t.quality, t.source FROM telemetry t
        WHERE t.device_ref = d AND t.time = OLD.time
        ON CONFLICT (device_ref, set_id) DO UPDATE
        SET time = excluded.time, vals = excluded.vals, quality = excluded.quality, source = excluded.source WHERE excluded.time > l.time;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER ingest_events_delete INSTEAD OF DELETE ON ingest_events FOR EACH ROW EXECUTE FUNCTION ingest_events_delete();

-- Deleting may touch any number of compressed rows.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        ALTER FUNCTION device_deleted() SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0;
        ALTER FUNCTION ingest_events_delete() SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0;
    END IF;
END $$;

CREATE VIEW v_scada_history AS
SELECT time, device_id, parameter_key, value, quality, source FROM ingest_events;

CREATE VIEW v_scada_latest AS
SELECT DISTINCT ON (d.id, v.key) d.id AS device_id, v.key AS parameter_key, l.time, v.value, coalesce(v.quality, 192::smallint) AS quality
FROM telemetry_latest l
JOIN devices d ON d.ref = l.device_ref
JOIN parameter_sets s ON s.id = l.set_id
CROSS JOIN LATERAL unnest(s.keys, l.vals, l.quality) v (key, value, quality)
ORDER BY d.id, v.key, l.time DESC, l.set_id DESC;

-- Tables of the original that nothing writes yet.
CREATE TABLE measurements (
    time          timestamptz NOT NULL,
    device_id     uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    parameter_key text NOT NULL REFERENCES parameter_templates (key) ON DELETE RESTRICT,
    agg_interval  text NOT NULL,
    value_avg     double precision,
    value_min     double precision,
    value_max     double precision,
    value_count   bigint,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_measurements_device_param_time ON measurements (device_id, parameter_key, time);

CREATE TABLE missing_intervals (
    id            bigserial PRIMARY KEY,
    device_id     uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    parameter_key text NOT NULL REFERENCES parameter_templates (key) ON DELETE RESTRICT,
    start_time    timestamptz NOT NULL,
    end_time      timestamptz NOT NULL,
    reason        text,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_missing_intervals_device_param ON missing_intervals (device_id, parameter_key, start_time, end_time);
