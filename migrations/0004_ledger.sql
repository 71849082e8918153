-- Every acknowledged event, by what became of it, written in the transaction that stores it:
-- accepted = stored + merged + duplicate + dead + lost, in each row. The hour is that of receipt; the customer is all
-- zeros where it is not known. Workers write rows of their own partition only, so that they never wait for one another.
CREATE TABLE ledger (
    customer_id uuid NOT NULL,
    hour        timestamptz NOT NULL,
    partition   integer NOT NULL,
    accepted    bigint NOT NULL DEFAULT 0, -- events read from the queue, and those that it should have held
    stored      bigint NOT NULL DEFAULT 0, -- became a row
    merged      bigint NOT NULL DEFAULT 0, -- changed the row of their device and time
    duplicate   bigint NOT NULL DEFAULT 0, -- the row was the same already
    dead        bigint NOT NULL DEFAULT 0, -- are in dead_letters, or were
    lost        bigint NOT NULL DEFAULT 0, -- were not in the queue any more
    PRIMARY KEY (customer_id, hour, partition)
) WITH (fillfactor = 50);
