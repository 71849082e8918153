-- Which registry this is, so that a plan made from one is never applied to another.
ALTER TABLE registry_state ADD COLUMN registry_id uuid NOT NULL DEFAULT gen_random_uuid();
