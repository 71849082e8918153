-- The processes that run workers. Each says every second that it is alive; the others take over the queue's partitions of
-- one that does not. session tells a process from an earlier one of the same name.
CREATE TABLE workers (
    name       text PRIMARY KEY,
    session    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- The newest frame that was seen of each stream of the queue, about once a second, so that frames that vanish before they
-- are stored are counted and named.
CREATE TABLE queue_streams (
    epoch  text NOT NULL,
    id     integer NOT NULL,
    newest bigint NOT NULL,
    events bigint NOT NULL, -- up to it
    PRIMARY KEY (epoch, id)
);
