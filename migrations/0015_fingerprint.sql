-- What the managed rows of the registry hash to after a version, when nothing but what it records was done: while they still do, nobody
-- has changed them by whatever means, and what the version left behind need not be read. Null: it has to be.
ALTER TABLE registry_changes ADD COLUMN fingerprint text;
