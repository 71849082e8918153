-- What every apply changed, so that every version can be read back, and what was changed by other means.

-- commit: of the repository of the declaration. tool: the program's version. revision: of registry_state right after the apply.
ALTER TABLE registry_versions
    ADD COLUMN commit   text,
    ADD COLUMN message  text,
    ADD COLUMN tool     text,
    ADD COLUMN revision bigint;

-- changes: zstd of lines of JSON, one for each change, with the object before and after. state: all objects after it, in the
-- same form, where reading begins; the first version begins with nothing. objects: how many are managed after it.
-- since_state: how many changes must be read after the last state, with these. settled: revision of registry_state up to which
-- an apply undid what was changed by hand, or took it over, or it is nothing that nsready manages.
CREATE TABLE registry_changes (
    version_id  bigint PRIMARY KEY REFERENCES registry_versions (id) ON DELETE CASCADE,
    created     integer NOT NULL,
    updated     integer NOT NULL,
    deleted     integer NOT NULL,
    objects     integer NOT NULL,
    since_state integer NOT NULL,
    settled     bigint NOT NULL,
    changes     bytea NOT NULL,
    state       bytea
);
ALTER TABLE registry_changes ALTER COLUMN changes SET STORAGE EXTERNAL, ALTER COLUMN state SET STORAGE EXTERNAL;

-- Changes to the registry that are no part of an apply. who: the role that logged in. via: the name and address that its
-- connection gave. op: insert, update, delete, or truncate, which has one row for a table. before, after: the columns that
-- changed, all of them for insert and delete. revision: that of registry_state which the statement made.
CREATE TABLE registry_audit (
    id        bigserial PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    revision  bigint NOT NULL,
    who       text NOT NULL,
    via       text NOT NULL,
    op        text NOT NULL,
    kind      text NOT NULL,
    object_id text,
    name      text,
    before    jsonb,
    after     jsonb
);
-- Both grow with the place in the table.
CREATE INDEX idx_registry_audit_place ON registry_audit USING brin (at, revision);

-- Arguments: kind, column of the id, column of the name, columns that a declaration knows. It fires after registry_changed,
-- whose name comes first, so that the revision is that of this statement. It runs as its owner: who may change the registry
-- need have no right to the audit.
CREATE FUNCTION registry_recorded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    columns  text[] := TG_ARGV[3:];
    old_row  text := (SELECT string_agg(format('o.%I', c), ', ') FROM unnest(columns) c);
    new_row  text := (SELECT string_agg(format('n.%I', c), ', ') FROM unnest(columns) c);
    the_same text := (SELECT string_agg(format('CASE WHEN o.%1$I IS NOT DISTINCT FROM n.%1$I THEN %1$L END', c), ', ') FROM unnest(columns) c);
    via      text := concat_ws(' from ', nullif(current_setting('application_name'), ''), host(inet_client_addr()));
    found    text;
BEGIN
    found := CASE TG_OP
        WHEN 'INSERT' THEN format('SELECT ''insert'', n.%1$I::text, n.%2$I::text, NULL::jsonb, to_jsonb(a)
            FROM new_rows n, LATERAL (SELECT %3$s) a', TG_ARGV[1], TG_ARGV[2], new_row)
        WHEN 'DELETE' THEN format('SELECT ''delete'', o.%1$I::text, o.%2$I::text, to_jsonb(b), NULL::jsonb
            FROM old_rows o, LATERAL (SELECT %3$s) b', TG_ARGV[1], TG_ARGV[2], old_row)
        WHEN 'UPDATE' THEN format('SELECT ''update'', n.%1$I::text, n.%2$I::text, to_jsonb(b) - the_same, to_jsonb(a) - the_same
            FROM old_rows o JOIN new_rows n USING (%1$I), LATERAL (SELECT %3$s) b, LATERAL (SELECT %4$s) a, LATERAL (SELECT ARRAY[%5$s] AS the_same) s
            WHERE (%3$s) IS DISTINCT FROM (%4$s)', TG_ARGV[1], TG_ARGV[2], old_row, new_row, the_same)
        ELSE 'SELECT ''truncate'', NULL::text, NULL::text, NULL::jsonb, NULL::jsonb'
    END;
    EXECUTE 'INSERT INTO registry_audit (revision, who, via, kind, op, object_id, name, before, after)
        SELECT (SELECT revision FROM registry_state), session_user, $1, $2, found.* FROM (' || found || ') found' USING via, TG_ARGV[0];
    RETURN NULL;
END $$;

-- An apply says that it is one by the setting nsready.apply, which ends with its transaction.
DO $$
DECLARE
    t record;
    event text;
BEGIN
    EXECUTE format('ALTER FUNCTION registry_recorded SET search_path = %I, pg_temp', current_schema());
    FOR t IN SELECT * FROM (VALUES
        ('customers', 'customer', 'id', 'name', 'name metadata parent_customer_id events_per_second burst device_events_per_second device_burst managed managed_by prevent_destroy retired_at'),
        ('projects', 'project', 'id', 'name', 'customer_id name description managed managed_by prevent_destroy retired_at'),
        ('sites', 'site', 'id', 'name', 'project_id name location managed managed_by prevent_destroy retired_at'),
        ('devices', 'device', 'id', 'name', 'site_id name device_type external_id status reporting_interval_seconds parameters events_per_second burst managed managed_by prevent_destroy retired_at'),
        ('parameter_templates', 'parameter', 'id', 'key', 'key name unit metadata managed managed_by prevent_destroy retired_at'),
        ('thresholds', 'threshold', 'id', 'name', 'parameter_key name above below for_seconds deadband severity managed managed_by'),
        ('platform_thresholds', 'platform', 'metric', 'metric', 'metric warning critical managed managed_by'),
        ('retention', 'retention', 'id', 'id', 'raw_seconds compress_after_seconds managed managed_by'),
        ('limits', 'limits', 'id', 'id', 'connections connections_per_address device_events_per_second device_burst customer_events_per_second customer_burst managed managed_by')
    ) AS t (name, kind, id, label, columns) LOOP
        FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
            EXECUTE format('CREATE TRIGGER registry_recorded_%s AFTER %s ON %I %s FOR EACH STATEMENT
                WHEN (current_setting(''nsready.apply'', true) IS DISTINCT FROM ''on'') EXECUTE FUNCTION registry_recorded(%L, %L, %L, %s)',
                lower(event), event, t.name,
                CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                    WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' ELSE '' END,
                t.kind, t.id, t.label, (SELECT string_agg(quote_literal(c), ', ') FROM unnest(string_to_array(t.columns, ' ')) c));
        END LOOP;
    END LOOP;
END $$;
