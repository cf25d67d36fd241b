-- The authority's log: runs, their events, and what belongs to them. What is not granted below can't be done by the
-- service: its role may add events and receipts, and nobody may change one.

-- This installation. A log that is restored from a backup gets a new epoch, and every older cursor becomes stale.
CREATE TABLE runtime.installation (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    log_epoch  text        NOT NULL CHECK (log_epoch <> ''),
    partitions integer     NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO runtime.installation (log_epoch, partitions)
VALUES ('log_' || replace(gen_random_uuid()::text, '-', ''), 16);

-- The newest position of each partition. The row's lock is what makes positions gap-free and in commit order, whatever
-- number of replicas writes.
CREATE TABLE runtime.log_heads (
    partition integer PRIMARY KEY CHECK (partition >= 0),
    position  bigint  NOT NULL DEFAULT 0 CHECK (position >= 0)
) WITH (fillfactor = 50);
INSERT INTO runtime.log_heads (partition)
SELECT generate_series(0, partitions - 1) FROM runtime.installation;

-- Where each run stands: what its events lead to, kept so that nobody has to read them all. Written only in the
-- transaction that stores the events. Times are those in the events.
CREATE TABLE runtime.runs (
    run_id                text        COLLATE "C" PRIMARY KEY,
    partition             integer     NOT NULL REFERENCES runtime.log_heads,
    org_id                text        NOT NULL,
    user_id               text        NOT NULL,
    create_key            text        NOT NULL,
    create_fingerprint    bytea       NOT NULL,
    adapter               text        NOT NULL,
    spec                  bytea       NOT NULL,
    create_time           timestamptz NOT NULL,
    status                text        NOT NULL
        CHECK (status IN ('created', 'running', 'canceling', 'succeeded', 'failed', 'canceled')),
    latest_seq            bigint      NOT NULL CHECK (latest_seq > 0),
    chain_head            bytea       NOT NULL CHECK (octet_length(chain_head) = 32),
    lease_epoch           bigint      NOT NULL CHECK (lease_epoch >= 0),
    worker_id             text        NOT NULL,
    fenced                boolean     NOT NULL,
    attempt               integer     NOT NULL CHECK (attempt >= 0),
    cancel_requested_time timestamptz,
    cancel_reason         text        NOT NULL,
    finish_time           timestamptz,
    finish                bytea,
    totals                text        NOT NULL,
    paced_until_ns        bigint      NOT NULL,
    CHECK ((status IN ('succeeded', 'failed', 'canceled')) = (finish IS NOT NULL AND finish_time IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX runs_create_key ON runtime.runs (org_id, user_id, create_key);
-- The queue: runs that wait for a worker, the oldest first.
CREATE INDEX runs_waiting ON runtime.runs (org_id, adapter, run_id)
    WHERE status = 'created' OR (status = 'running' AND fenced);
CREATE INDEX runs_leased ON runtime.runs (worker_id) WHERE status IN ('running', 'canceling') AND NOT fenced;
CREATE INDEX runs_canceling ON runtime.runs (cancel_requested_time) WHERE status = 'canceling';

-- The log itself. `body` is the serialized RunEvent, made once. An append's key, fingerprint and size stand in the row
-- of its first event.
CREATE TABLE runtime.events (
    partition       integer     NOT NULL,
    position        bigint      NOT NULL,
    run_id          text        COLLATE "C" NOT NULL,
    seq             bigint      NOT NULL,
    type            text        NOT NULL,
    idempotency_key text        COLLATE "C",
    fingerprint     bytea,
    batch_count     integer,
    body            bytea       NOT NULL,
    chain           bytea       NOT NULL,
    recorded_at     timestamptz NOT NULL,
    PRIMARY KEY (run_id, seq),
    UNIQUE (partition, position),
    CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL)),
    CHECK ((idempotency_key IS NULL) = (batch_count IS NULL))
);
CREATE UNIQUE INDEX events_idempotency ON runtime.events (run_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- What was signed about runs that have ended, stored in the transaction that stored their end.
CREATE TABLE runtime.receipts (
    run_id         text        COLLATE "C" PRIMARY KEY,
    canonical_json bytea       NOT NULL,
    signature      bytea       NOT NULL CHECK (octet_length(signature) = 64),
    key_id         text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- Every key that this installation has signed receipts with.
CREATE TABLE runtime.receipt_keys (
    key_id        text        PRIMARY KEY,
    public_key    bytea       NOT NULL CHECK (octet_length(public_key) = 32),
    first_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Workers. Silence is measured by this database's clock. `attachment` names the stream that speaks for the worker; a
-- newer one takes its place.
CREATE TABLE runtime.workers (
    worker_id           text        COLLATE "C" PRIMARY KEY,
    service_account_id  text        NOT NULL,
    org_id              text        NOT NULL,
    name                text        NOT NULL,
    adapters            text[]      NOT NULL,
    max_concurrent_runs integer     NOT NULL CHECK (max_concurrent_runs > 0),
    status              text        NOT NULL CHECK (status IN ('starting', 'running', 'draining', 'stopped', 'lost')),
    attachment          text        NOT NULL,
    attached_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_heartbeat_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
CREATE INDEX workers_attached ON runtime.workers (last_heartbeat_at)
    WHERE status IN ('starting', 'running', 'draining');
CREATE INDEX workers_ended ON runtime.workers (worker_id) WHERE status IN ('lost', 'stopped');

-- Events and receipts are never changed: by grants for the service, and by triggers for everybody else.
CREATE FUNCTION runtime.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON runtime.events
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER events_not_truncated BEFORE TRUNCATE ON runtime.events
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipts_append_only BEFORE UPDATE OR DELETE ON runtime.receipts
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipts_not_truncated BEFORE TRUNCATE ON runtime.receipts
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

REVOKE ALL ON ALL TABLES IN SCHEMA runtime FROM runtime_app;
GRANT SELECT ON runtime.installation TO runtime_app;
GRANT SELECT, UPDATE ON runtime.log_heads TO runtime_app;
GRANT SELECT, INSERT, UPDATE ON runtime.runs, runtime.workers TO runtime_app;
GRANT SELECT, INSERT ON runtime.events, runtime.receipts, runtime.receipt_keys TO runtime_app;
