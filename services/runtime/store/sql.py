"""Every statement of the runtime, by name. What is unnested comes as parallel arrays, or as rows of a type."""

# ------------------------------------------------------------------------------------------------- the log, written

# In the order of partitions, so that two replicas never wait for each other.
LOCK_HEADS = """
SELECT partition, position, chain FROM runtime.log_heads
WHERE partition = ANY($1::integer[]) ORDER BY partition FOR UPDATE
"""

# Always at least one row, for the clock and the log's epoch, which are read after the lock was got.
READ_RUNS = """
SELECT c.now_us, c.log_epoch, r.run_id, r.org_id, r.user_id, r.status, r.latest_seq, r.chain_head, r.create_time,
       r.lease_epoch, r.worker_id, r.fenced, r.attempt, r.cancel_requested_time, r.cancel_reason, r.finish_time,
       r.finish, r.totals, r.paced_until_ns, k.keys, k.fingerprints, k.first_seqs, k.counts
FROM (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us, log_epoch FROM runtime.installation
) c
LEFT JOIN runtime.runs r ON r.run_id = ANY($1::text[])
LEFT JOIN LATERAL (
    SELECT array_agg(e.idempotency_key) AS keys, array_agg(e.fingerprint) AS fingerprints,
           array_agg(e.seq) AS first_seqs, array_agg(e.batch_count) AS counts
    FROM runtime.events e
    WHERE e.run_id = r.run_id AND e.idempotency_key = ANY($2::text[])
) k ON true
"""

READ_CREATE_KEYS = """
SELECT r.org_id, r.user_id, r.create_key, r.run_id, r.create_fingerprint
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (org_id, user_id, create_key)
JOIN runtime.runs r USING (org_id, user_id, create_key)
"""

INSERT_RUNS = """
INSERT INTO runtime.runs (
    run_id, partition, org_id, user_id, create_key, create_fingerprint, adapter, retention_class, spec, create_time,
    status, latest_seq, chain_head, lease_epoch, worker_id, fenced, attempt, cancel_requested_time, cancel_reason,
    finish_time, finish, totals, paced_until_ns)
SELECT * FROM unnest(
    $1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::bytea[],
    $10::timestamptz[], $11::text[], $12::bigint[], $13::bytea[], $14::bigint[], $15::text[], $16::boolean[],
    $17::integer[], $18::timestamptz[], $19::text[], $20::timestamptz[], $21::bytea[], $22::text[], $23::bigint[])
"""

# Events, runs and heads, in one round trip; nothing of it, and false, unless every head, and every run that was known
# from a cache, still is what the batch was decided on, by number and chain. The lock comes first: what decides reads
# the locked rows, and what stores asks what was decided. A head that has moved since the statement began is read anew
# once its lock is got (READ COMMITTED); the runs are as old as the statement, but no run moves unless its head does.
#
# Nor is anything stored on a server that would not keep it ($10: unless losing it is allowed). Its settings can change
# at any time: the one that belongs to the session is held as it is until the transaction has ended.
#
# It is completed by `store_batch`.
STORE_BATCH = """
WITH locked AS MATERIALIZED (
    SELECT partition, position, chain FROM runtime.log_heads
    WHERE partition = ANY($4::integer[]) ORDER BY partition FOR UPDATE
), durable AS MATERIALIZED (
    SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), true) <> 'off'
        AND current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' OR $10 AS keeps
), decided AS MATERIALIZED (
    SELECT (SELECT keeps FROM durable) AND cardinality($4::integer[]) = (
        SELECT count(*) FROM unnest($4::integer[], $5::bigint[], $6::bytea[]) AS s (partition, position, chain)
        JOIN locked h USING (partition, position) WHERE h.chain IS NOT DISTINCT FROM s.chain
    ) AND cardinality($7::runtime.known_run[]) = (
        SELECT count(*) FROM unnest($7::runtime.known_run[]) AS s
        JOIN runtime.runs r USING (run_id, latest_seq, chain_head)
    ) AS holds
), stored AS (
    INSERT INTO runtime.events (
        recorded_at, partition, position, run_id, seq, type, body, chain, idempotency_key, fingerprint, batch_count)
    SELECT $1::timestamptz, e.partition, e.position, e.run_id, e.seq, e.type, e.body, e.chain, e.idempotency_key,
           e.fingerprint, e.batch_count
    FROM unnest($2::runtime.new_event[]) AS e
    WHERE (SELECT holds FROM decided)
), moved AS (
    UPDATE runtime.runs r
    SET status = s.status, latest_seq = s.latest_seq, chain_head = s.chain_head, lease_epoch = s.lease_epoch,
        worker_id = s.worker_id, fenced = s.fenced, attempt = s.attempt,
        cancel_requested_time = s.cancel_requested_time, cancel_reason = s.cancel_reason, finish_time = s.finish_time,
        finish = s.finish, totals = s.totals, paced_until_ns = s.paced_until_ns
    FROM unnest($3::runtime.moved_run[]) AS s
    WHERE r.run_id = s.run_id AND (SELECT holds FROM decided)
), moved_heads AS (
    UPDATE runtime.log_heads h SET position = s.position, chain = s.chain
    FROM unnest($4::integer[], $8::bigint[], $9::bytea[]) AS s (partition, position, chain)
    WHERE h.partition = s.partition AND (SELECT holds FROM decided)
)
SELECT holds, keeps, CASE WHEN holds THEN {tail} END AS tail FROM decided, durable
"""
FIRST_OF_TAIL = 11
"""Number of the first argument that the tail has."""


def store_batch(tail: str) -> str:
    """STORE_BATCH with an expression that is evaluated if the batch is stored, and committed with it."""
    return STORE_BATCH.format(tail=tail)


INSERT_RECEIPTS = """
INSERT INTO runtime.receipts (run_id, canonical_json, signature, key_id)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[])
"""

# ------------------------------------------------------------------------------------------------- the log, read

READ_INSTALLATION = "SELECT partitions, receipt_log FROM runtime.installation"

READ_HEADS = "SELECT partition, position, chain FROM runtime.log_heads"

# A page is cut where it would pass the bytes, but has one row at least.
READ_LOG_PAGE = """
SELECT position, run_id, seq, type, body, chain FROM (
    SELECT p.*, sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS bytes_before
    FROM (
        SELECT position, run_id, seq, type, body, chain FROM runtime.events
        WHERE partition = $1 AND position > $2 ORDER BY position LIMIT $3
    ) p
) q
WHERE bytes_before < $4 OR bytes_before = 0
ORDER BY position
"""

# The same, bodies alone and in one value: what reading costs is mostly the number of values. A page that would pass the
# bytes is empty.
READ_LOG_BYTES = """
WITH page AS MATERIALIZED (
    SELECT position, body FROM runtime.events WHERE partition = $1 AND position > $2 ORDER BY position LIMIT $3
)
SELECT min(position) AS first, max(position) AS last, array_agg(body ORDER BY position) AS bodies FROM page
WHERE (SELECT sum(octet_length(body)) FROM page) <= $4
"""

READ_RUN_PAGE = """
SELECT seq, body FROM (
    SELECT p.*, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before
    FROM (SELECT seq, body FROM runtime.events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) p
) q
WHERE bytes_before < $4 OR bytes_before = 0
ORDER BY seq
"""

# $1 run, $2 seq. The newest event's stays with the run when its events have moved to the archive.
READ_CHAIN = """
SELECT coalesce((SELECT chain FROM runtime.events WHERE run_id = $1 AND seq = $2),
                (SELECT chain_head FROM runtime.runs WHERE run_id = $1 AND latest_seq = $2))
"""

# $1 runs
READ_STANDINGS = """
SELECT run_id, user_id, org_id, latest_seq, CASE WHEN archived THEN latest_seq ELSE 0 END AS floor
FROM runtime.runs WHERE run_id = ANY ($1::text[])
"""

READ_RUN = """
SELECT run_id, org_id, user_id, status, latest_seq, chain_head, create_time, lease_epoch, worker_id, fenced, attempt,
       cancel_requested_time, cancel_reason, finish_time, finish, totals, paced_until_ns, spec, archived
FROM runtime.runs WHERE run_id = $1
"""

READ_RECEIPT = "SELECT run_id, canonical_json, signature, key_id FROM runtime.receipts WHERE run_id = $1"

READ_RECEIPT_KEYS = "SELECT key_id, public_key FROM runtime.receipt_keys ORDER BY first_used_at DESC, key_id"

INSERT_RECEIPT_KEY = """
INSERT INTO runtime.receipt_keys (key_id, public_key) VALUES ($1, $2) ON CONFLICT (key_id) DO NOTHING
"""

# ------------------------------------------------------------------------------------------------- workers and leases

INSERT_WORKER = """
INSERT INTO runtime.workers
    (worker_id, service_account_id, org_id, name, adapters, max_concurrent_runs, status, attachment, replica_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

READ_WORKER = """
SELECT worker_id, service_account_id, org_id, name, adapters, max_concurrent_runs, status
FROM runtime.workers WHERE worker_id = $1
"""

REATTACH_WORKER = """
UPDATE runtime.workers
SET name = $3, adapters = $4, max_concurrent_runs = $5, status = $6, attachment = $7, replica_id = $8,
    attached_at = clock_timestamp(), last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND status = $2
RETURNING true
"""

# The attachment in the condition is what makes an older stream of the same worker fall silent.
MOVE_WORKER = """
UPDATE runtime.workers SET status = $3, last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND attachment = $2 AND status IN ('starting', 'running', 'draining')
RETURNING true
"""

COUNT_LOOK = """
INSERT INTO runtime.replicas (replica_id) VALUES ($1)
ON CONFLICT (replica_id) DO UPDATE SET looks = runtime.replicas.looks + 1
"""

READ_REPLICAS = "SELECT replica_id, looks FROM runtime.replicas"

FORGET_REPLICAS = """
DELETE FROM runtime.replicas r USING unnest($1::text[], $2::bigint[]) AS s (replica_id, looks)
WHERE r.replica_id = s.replica_id AND r.looks = s.looks
"""

# A time is read as a mark that changes with every sign of life, and never compared with a clock.
READ_SIGNS_OF_LIFE = """
SELECT worker_id, attachment, last_heartbeat_at, replica_id, status
FROM runtime.workers
WHERE status IN ('starting', 'running', 'draining') OR worker_id = ANY($1::text[])
"""

LOSE_WORKERS = """
UPDATE runtime.workers w SET status = 'lost'
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS s (worker_id, attachment, last_heartbeat_at)
WHERE w.worker_id = s.worker_id AND w.attachment = s.attachment AND w.last_heartbeat_at = s.last_heartbeat_at
  AND w.status IN ('starting', 'running', 'draining')
RETURNING w.worker_id
"""

# Locked, so that none of them is lost before the batch is stored that gives it a run.
LOCK_WORKERS = """
SELECT worker_id, status FROM runtime.workers WHERE worker_id = ANY($1::text[]) ORDER BY worker_id FOR SHARE
"""

READ_LEASES_OF_ENDED_WORKERS = """
SELECT r.run_id, r.worker_id, r.lease_epoch
FROM runtime.workers w JOIN runtime.runs r USING (worker_id)
WHERE w.status IN ('lost', 'stopped') AND r.status IN ('running', 'canceling') AND NOT r.fenced
LIMIT $1
"""

READ_LEASES_OF_WORKER = """
SELECT run_id, lease_epoch FROM runtime.runs
WHERE worker_id = $1 AND status IN ('running', 'canceling') AND NOT fenced
"""

READ_LEASE_HOLDER = """
SELECT w.worker_id, w.service_account_id
FROM runtime.runs r JOIN runtime.workers w USING (worker_id)
WHERE r.run_id = $1 AND r.lease_epoch = $2
"""

READ_CANCELING_RUNS = "SELECT run_id FROM runtime.runs WHERE status = 'canceling' ORDER BY cancel_requested_time"

# A run whose worker was lost waits after its newest event, which says so. A clock that steps forward makes the pause
# shorter, and one that steps back ends it.
READ_WAITING_RUNS = """
SELECT r.run_id FROM runtime.runs r
WHERE org_id = $1 AND adapter = ANY($2::text[]) AND (status = 'created' OR (status = 'running' AND fenced))
  AND NOT (attempt > 0 AND EXISTS (
    SELECT 1 FROM runtime.events e WHERE e.run_id = r.run_id AND e.seq = r.latest_seq
    AND clock_timestamp() >= e.recorded_at
    AND clock_timestamp() < e.recorded_at
        + ($4::integer[])[least(r.attempt, cardinality($4::integer[]))] * interval '1 millisecond'))
ORDER BY r.run_id LIMIT $3
"""
