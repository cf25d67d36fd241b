-- A batch that creates, gives away or ends runs is stored by one statement, too: its new runs as rows, and its receipts.
CREATE TYPE runtime.new_run AS (
    run_id                text,
    partition             integer,
    org_id                text,
    user_id               text,
    create_key            text,
    create_fingerprint    bytea,
    adapter               text,
    retention_class       text,
    spec                  bytea,
    create_time           timestamptz,
    queue                 bytea,
    priority              integer,
    concurrency_key       text,
    concurrency_limit     integer,
    thread_id             text,
    thread_policy         text,
    parent_run_id         text,
    cancel_with_parent    boolean,
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
    paced_until_ns        bigint,
    not_before_time       timestamptz,
    deadline_time         timestamptz,
    failures              integer
);

CREATE TYPE runtime.new_receipt AS (
    run_id         text,
    canonical_json bytea,
    signature      bytea,
    key_id         text
);
