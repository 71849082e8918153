-- managed_by: the name of the declaration that manages the object, null where managed is false.
-- prevent_destroy: no plan deletes the object until an apply has taken this back.

ALTER TABLE platform_thresholds ADD COLUMN managed boolean NOT NULL DEFAULT true;
ALTER TABLE retention ADD COLUMN managed boolean NOT NULL DEFAULT true;
ALTER TABLE limits ADD COLUMN managed boolean NOT NULL DEFAULT true;
ALTER TABLE platform_thresholds ALTER COLUMN managed SET DEFAULT false;
ALTER TABLE retention ALTER COLUMN managed SET DEFAULT false;
ALTER TABLE limits ALTER COLUMN managed SET DEFAULT false;

DO $$
DECLARE
    t text;
    used boolean;
BEGIN
    FOREACH t IN ARRAY ARRAY['customers', 'projects', 'sites', 'devices', 'parameter_templates', 'thresholds',
                             'platform_thresholds', 'retention', 'limits'] LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN managed_by text', t);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE managed)', t) INTO used;
        IF used THEN -- an update, even of nothing, counts as a change of the registry
            EXECUTE format('UPDATE %I SET managed_by = ''default'' WHERE managed', t);
        END IF;
    END LOOP;
    FOREACH t IN ARRAY ARRAY['customers', 'projects', 'sites', 'devices', 'parameter_templates'] LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN prevent_destroy boolean NOT NULL DEFAULT false', t);
    END LOOP;
END $$;

-- A renamed parameter takes what refers to its key along.
ALTER TABLE thresholds DROP CONSTRAINT thresholds_parameter_key_fkey,
    ADD FOREIGN KEY (parameter_key) REFERENCES parameter_templates (key) ON UPDATE CASCADE ON DELETE CASCADE;
ALTER TABLE measurements DROP CONSTRAINT measurements_parameter_key_fkey,
    ADD FOREIGN KEY (parameter_key) REFERENCES parameter_templates (key) ON UPDATE CASCADE ON DELETE RESTRICT;
ALTER TABLE missing_intervals DROP CONSTRAINT missing_intervals_parameter_key_fkey,
    ADD FOREIGN KEY (parameter_key) REFERENCES parameter_templates (key) ON UPDATE CASCADE ON DELETE RESTRICT;

-- What parameters that were renamed were called before, so that events which were accepted before and are stored after it are
-- found with the others. A name that a parameter has again means that one.
CREATE TABLE parameter_renames (
    old_key text PRIMARY KEY,
    key     text NOT NULL
);

-- The names that parameters have now.
CREATE FUNCTION current_parameter_keys(wanted text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM parameter_renames WHERE old_key = ANY (wanted)) THEN
        (SELECT array_agg(CASE WHEN r.key <> ALL (wanted) AND NOT EXISTS (SELECT FROM parameter_templates t WHERE t.key = w.key)
                               THEN r.key ELSE w.key END ORDER BY w.i)
         FROM unnest(wanted) WITH ORDINALITY w (key, i) LEFT JOIN parameter_renames r ON r.old_key = w.key)
    ELSE wanted END
$$;

-- Lets values that are stored under keys be found under others from now on, keys exchanged among them. A set that has got
-- the keys of another one keeps a digest of its own, by which it is never found for new values; and one that would have a
-- key twice, because it holds values under both, stays as it is.
CREATE FUNCTION rename_parameter_keys(old_keys text[], new_keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE renamed_sets ON COMMIT DROP AS
        SELECT s.id, array_agg(coalesce(r.new_key, k.key) ORDER BY k.i) AS keys
        FROM parameter_sets s
        CROSS JOIN LATERAL unnest(s.keys) WITH ORDINALITY k (key, i)
        LEFT JOIN unnest(old_keys, new_keys) r (old_key, new_key) ON r.old_key = k.key
        WHERE s.keys && old_keys
        GROUP BY s.id HAVING count(DISTINCT coalesce(r.new_key, k.key)) = count(*);
    UPDATE parameter_sets s SET keys = r.keys, digest = int4send(s.id) FROM renamed_sets r WHERE s.id = r.id;
    UPDATE parameter_sets s SET digest = d.digest
    FROM (SELECT DISTINCT ON (1) sha256(convert_to(array_to_string(keys, chr(31)), 'UTF8')) AS digest, id FROM renamed_sets ORDER BY 1, id) d
    WHERE s.id = d.id AND NOT EXISTS (SELECT FROM parameter_sets o WHERE o.digest = d.digest);
    DROP TABLE renamed_sets;

    UPDATE parameter_renames p SET key = r.new_key FROM unnest(old_keys, new_keys) r (old_key, new_key) WHERE p.key = r.old_key;
    INSERT INTO parameter_renames SELECT * FROM unnest(old_keys, new_keys)
    ON CONFLICT (old_key) DO UPDATE SET key = excluded.key;
    DELETE FROM parameter_renames WHERE old_key = key OR old_key = ANY (new_keys);
END $$;
