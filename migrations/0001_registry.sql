-- What exists. Names and columns of the original platform's registry are kept; columns were added.
-- managed: created or adopted by an apply. retired_at: removed from the declaration; history stays.

CREATE TABLE customers (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name               text NOT NULL UNIQUE,
    metadata           jsonb DEFAULT '{}',
    created_at         timestamptz NOT NULL DEFAULT now(),
    parent_customer_id uuid REFERENCES customers (id) ON DELETE CASCADE,
    managed            boolean NOT NULL DEFAULT false,
    retired_at         timestamptz
);
CREATE INDEX idx_customers_parent ON customers (parent_customer_id) WHERE parent_customer_id IS NOT NULL;

CREATE TABLE projects (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    name        text NOT NULL,
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    managed     boolean NOT NULL DEFAULT false,
    retired_at  timestamptz,
    UNIQUE (customer_id, name)
);
CREATE INDEX idx_projects_customer ON projects (customer_id);

CREATE TABLE sites (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       text NOT NULL,
    location   jsonb DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    managed    boolean NOT NULL DEFAULT false,
    retired_at timestamptz,
    UNIQUE (project_id, name)
);
CREATE INDEX idx_sites_project ON sites (project_id);

-- ref is the device's number in telemetry. external_id is deferrable so that one apply can swap two of them.
CREATE TABLE devices (
    id                         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    site_id                    uuid NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    name                       text NOT NULL,
    device_type                text NOT NULL,
    external_id                text,
    status                     text NOT NULL DEFAULT 'active',
    created_at                 timestamptz NOT NULL DEFAULT now(),
    ref                        integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    reporting_interval_seconds double precision,
    parameters                 text[],
    managed                    boolean NOT NULL DEFAULT false,
    retired_at                 timestamptz,
    UNIQUE (site_id, name),
    CONSTRAINT devices_external_id_key UNIQUE (external_id) DEFERRABLE INITIALLY IMMEDIATE
);
CREATE INDEX idx_devices_site ON devices (site_id);

-- metadata: project_id, dtype, min, max, required, description; and interval_seconds, on_violation, default_quality.
CREATE TABLE parameter_templates (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key        text NOT NULL UNIQUE,
    name       text NOT NULL,
    unit       text,
    metadata   jsonb DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    managed    boolean NOT NULL DEFAULT false,
    retired_at timestamptz
);

CREATE TABLE thresholds (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    parameter_key text NOT NULL REFERENCES parameter_templates (key) ON DELETE CASCADE,
    name          text NOT NULL,
    above         double precision,
    below         double precision,
    for_seconds   double precision NOT NULL DEFAULT 0,
    deadband      double precision NOT NULL DEFAULT 0,
    severity      text NOT NULL DEFAULT 'warning',
    created_at    timestamptz NOT NULL DEFAULT now(),
    managed       boolean NOT NULL DEFAULT false,
    UNIQUE (parameter_key, name)
);

CREATE TABLE platform_thresholds (
    metric   text PRIMARY KEY,
    warning  double precision,
    critical double precision
);

-- One row at most.
CREATE TABLE retention (
    id                     boolean PRIMARY KEY DEFAULT true CHECK (id),
    raw_seconds            double precision NOT NULL,
    compress_after_seconds double precision
);

-- An apply writes a row without project: version counts them, diff_json is the plan.
CREATE TABLE registry_versions (
    id          bigserial PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now(),
    checksum    text NOT NULL,
    description text,
    project_id  uuid REFERENCES projects (id) ON DELETE CASCADE,
    version     integer,
    diff_json   jsonb DEFAULT '{}',
    author      text,
    full_config jsonb DEFAULT '{}'
);
CREATE UNIQUE INDEX uq_registry_versions_project_version ON registry_versions (project_id, version)
    WHERE project_id IS NOT NULL AND version IS NOT NULL;
CREATE UNIQUE INDEX uq_registry_versions_version ON registry_versions (version) WHERE project_id IS NULL;

CREATE TABLE tokens (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    device_id  uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    token_hash text NOT NULL UNIQUE,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_tokens_device ON tokens (device_id);

-- The revision counts every change to the registry, by apply, API or SQL, and is announced when the change commits.
CREATE TABLE registry_state (
    id       boolean PRIMARY KEY DEFAULT true CHECK (id),
    revision bigint NOT NULL
);
INSERT INTO registry_state (revision) VALUES (1);

CREATE FUNCTION registry_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE registry_state SET revision = revision + 1;
    PERFORM pg_notify('nsready_registry', '');
    RETURN NULL;
END $$;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['customers', 'projects', 'sites', 'devices', 'parameter_templates', 'thresholds',
                             'platform_thresholds', 'retention'] LOOP
        EXECUTE format('CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
                        FOR EACH STATEMENT EXECUTE FUNCTION registry_changed()', t);
    END LOOP;
END $$;

CREATE TABLE error_logs (
    id      bigserial PRIMARY KEY,
    time    timestamptz NOT NULL DEFAULT now(),
    source  text,
    level   text,
    message text NOT NULL,
    context jsonb DEFAULT '{}'
);
CREATE INDEX idx_error_logs_time ON error_logs (time);
