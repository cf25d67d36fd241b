"""Statements on workers and leases, by name."""

INSERT_WORKER = """
INSERT INTO runtime.workers
    (worker_id, service_account_id, org_id, name, adapters, max_concurrent_runs, status, attachment, replica_id,
     agents)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb)
"""
"""Stores a worker that attaches for the first time."""

READ_WORKER = """
SELECT worker_id, service_account_id, org_id, name, adapters, max_concurrent_runs, status
FROM runtime.workers WHERE worker_id = $1
"""
"""A worker as it is now."""

REATTACH_WORKER = """
UPDATE runtime.workers
SET name = $3, adapters = $4, max_concurrent_runs = $5, status = $6, attachment = $7, replica_id = $8,
    agents = $9::jsonb,
    attached_at = clock_timestamp(), last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND status = $2
RETURNING true
"""
"""Gives a worker to its new stream, if its status still is what was decided on."""

MOVE_WORKER = """
UPDATE runtime.workers SET status = $3, last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND attachment = $2 AND status IN ('starting', 'running', 'draining')
RETURNING true
"""
"""Moves a worker's status, and notes a sign of life. The attachment in the condition is what makes an older stream of
the same worker fall silent."""

STORE_HEARTBEATS = """
UPDATE runtime.workers w
SET last_heartbeat_at = clock_timestamp(), status = CASE w.status WHEN 'starting' THEN 'running' ELSE w.status END
FROM unnest($1::text[], $2::text[]) AS s (worker_id, attachment)
WHERE w.worker_id = s.worker_id AND w.attachment = s.attachment AND w.status IN ('starting', 'running', 'draining')
"""
"""Notes signs of life of the workers that were heard, over the streams that still speak for them. A heartbeat moves
the status as `WORKER_TRANSITIONS` says."""

COUNT_LOOK = """
INSERT INTO runtime.replicas (replica_id) VALUES ($1)
ON CONFLICT (replica_id) DO UPDATE SET looks = runtime.replicas.looks + 1
"""
"""Shows that this replica is there and accepts workers."""

READ_REPLICAS = "SELECT replica_id, looks FROM runtime.replicas"
"""All replicas, and in how many looks each of them accepted workers."""

FORGET_REPLICAS = """
DELETE FROM runtime.replicas r USING unnest($1::text[], $2::bigint[]) AS s (replica_id, looks)
WHERE r.replica_id = s.replica_id AND r.looks = s.looks
"""
"""Removes replicas that have not accepted workers since."""

READ_SIGNS_OF_LIFE = """
SELECT worker_id, attachment, last_heartbeat_at, replica_id, status
FROM runtime.workers
WHERE status IN ('starting', 'running', 'draining') OR worker_id = ANY($1::text[])
"""
"""Workers that may be lost, and those that were asked for. A time is read as a mark that changes with every sign of
life, and never compared with a clock."""

LOSE_WORKERS = """
UPDATE runtime.workers w SET status = 'lost'
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS s (worker_id, attachment, last_heartbeat_at)
WHERE w.worker_id = s.worker_id AND w.attachment = s.attachment AND w.last_heartbeat_at = s.last_heartbeat_at
  AND w.status IN ('starting', 'running', 'draining')
RETURNING w.worker_id
"""
"""Loses workers that have given no sign of life since."""

READ_LEASES_OF_ENDED_WORKERS = """
SELECT r.run_id, r.worker_id, r.lease_epoch
FROM runtime.workers w JOIN runtime.runs r USING (worker_id)
WHERE w.status IN ('lost', 'stopped') AND r.status IN ('running', 'canceling') AND NOT r.fenced
LIMIT $1
"""
"""Runs whose worker has ended while it held them."""

READ_LEASES_OF_WORKER = """
SELECT run_id, lease_epoch FROM runtime.runs
WHERE worker_id = $1 AND status IN ('running', 'canceling') AND NOT fenced
"""
"""Runs that a worker holds."""

READ_LEASE_HOLDER = """
SELECT w.worker_id, w.service_account_id
FROM runtime.runs r JOIN runtime.workers w USING (worker_id)
WHERE r.run_id = $1 AND r.lease_epoch = $2
"""
"""The worker that a lease was given to."""

READ_CANCELING_RUNS = "SELECT run_id FROM runtime.runs WHERE status = 'canceling' ORDER BY cancel_requested_time"
"""Runs that are to be cancelled, the longest waiting first."""

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
"""Runs of an org that a worker could take now, the oldest first. A run whose worker was lost waits after its newest
event, which says so. A clock that steps forward makes the pause shorter, and one that steps back ends it."""
