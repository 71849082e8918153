-- How the registry may be changed; one row at most. require_saved_plan: apply takes plans that were saved before, and nothing else.
CREATE TABLE policy (
    id                 boolean PRIMARY KEY DEFAULT true CHECK (id),
    require_saved_plan boolean NOT NULL,
    managed            boolean NOT NULL DEFAULT false,
    managed_by         text
);
CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON policy
FOR EACH STATEMENT EXECUTE FUNCTION registry_changed();

DO $$
DECLARE
    event text;
BEGIN
    FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
        EXECUTE format('CREATE TRIGGER registry_recorded_%s AFTER %s ON policy %s FOR EACH STATEMENT
            WHEN (current_setting(''nsready.apply'', true) IS DISTINCT FROM ''on'')
            EXECUTE FUNCTION registry_recorded(''policy'', ''id'', ''id'', ''require_saved_plan'', ''managed'', ''managed_by'')',
            lower(event), event,
            CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows' ELSE '' END);
    END LOOP;
END $$;
