-- The lease of the one who may write the registry's declared state: one row at most. Who does not renew it loses it when
-- expires_at is past, by the database's clock; the row may stay until the next one takes it over.
CREATE TABLE registry_lock (
    single     boolean PRIMARY KEY DEFAULT true CHECK (single),
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    operation  text NOT NULL,          -- apply, rollback, …
    who        text NOT NULL,          -- user@host
    job        text NOT NULL,          -- URL of the CI job, '' for none
    pid        integer NOT NULL,       -- on that host
    machine    text NOT NULL DEFAULT '', -- where that pid means something: boot and pid namespace; '' for nowhere
    version    text NOT NULL,          -- of the program
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
