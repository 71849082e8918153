-- What a version imported, moved and released is counted apart. Versions from before have it under updated and deleted.
ALTER TABLE registry_changes
    ADD COLUMN imported integer NOT NULL DEFAULT 0,
    ADD COLUMN moved    integer NOT NULL DEFAULT 0,
    ADD COLUMN released integer NOT NULL DEFAULT 0;
