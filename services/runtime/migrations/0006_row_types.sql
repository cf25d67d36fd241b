-- What a batch stores, as rows: one value for all new events, one for all runs that moved. Taking them apart costs less
-- than as many arrays as there are columns, on both sides.
CREATE TYPE runtime.new_event AS (
    partition       integer,
    position        bigint,
    run_id          text,
    seq             bigint,
    type            text,
    body            bytea,
    chain           bytea,
    idempotency_key text,
    fingerprint     bytea,
    batch_count     integer
);

CREATE TYPE runtime.moved_run AS (
    run_id                text,
    status                text,
    latest_seq            bigint,
    chain_head            bytea,
    lease_epoch           bigint,
    worker_id             text,
    fenced                boolean,
    attempt               integer,
    cancel_requested_time timestamptz,
    cancel_reason         text,
    finish_time           timestamptz,
    finish                bytea,
    totals                text,
    paced_until_ns        bigint
);
