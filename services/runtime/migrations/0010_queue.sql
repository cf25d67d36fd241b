-- When a run is given to a worker, how long it may take, and whether it is tried again. `queue` is what its spec says of it,
-- NULL when it says nothing. The rest is what the queue is read by. A run is not given to a worker before
-- `not_before_time`, and the authority ends it at `deadline_time`.
ALTER TABLE runtime.runs
    ADD COLUMN queue             bytea,
    ADD COLUMN priority          integer NOT NULL DEFAULT 0,
    ADD COLUMN concurrency_key   text    NOT NULL DEFAULT '',
    ADD COLUMN concurrency_limit integer NOT NULL DEFAULT 0,
    ADD COLUMN not_before_time   timestamptz,
    ADD COLUMN deadline_time     timestamptz,
    ADD COLUMN failures          integer NOT NULL DEFAULT 0;

-- The queue: runs that wait for a worker, by person, the most urgent and then the oldest first.
DROP INDEX runtime.runs_waiting;
CREATE INDEX runs_waiting ON runtime.runs (org_id, adapter, user_id, priority DESC, run_id)
    WHERE status = 'created' OR (status = 'running' AND fenced);
CREATE INDEX runs_waiting_for_a_time ON runtime.runs (not_before_time)
    WHERE (status = 'created' OR (status = 'running' AND fenced)) AND not_before_time IS NOT NULL;
CREATE INDEX runs_held ON runtime.runs (org_id, user_id) WHERE status IN ('running', 'canceling') AND NOT fenced;
CREATE INDEX runs_held_by_key ON runtime.runs (org_id, concurrency_key)
    WHERE status IN ('running', 'canceling') AND NOT fenced AND concurrency_key <> '';
CREATE INDEX runs_with_a_deadline ON runtime.runs (deadline_time)
    WHERE status IN ('created', 'running') AND deadline_time IS NOT NULL;

-- What a batch stores of runs that moved. Replicas of an earlier version use runtime.moved_run.
CREATE TYPE runtime.moved_run_2 AS (
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
    paced_until_ns        bigint,
    not_before_time       timestamptz,
    deadline_time         timestamptz,
    failures              integer
);
