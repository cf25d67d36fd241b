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
"""The current record of a worker."""

REATTACH_WORKER = """
UPDATE runtime.workers
SET name = $3, adapters = $4, max_concurrent_runs = $5, status = $6, attachment = $7, replica_id = $8,
    agents = $9::jsonb,
    attached_at = clock_timestamp(), last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND status = $2
RETURNING true
"""
"""Gives a worker to its new stream, if it still has the status on which this was decided."""

MOVE_WORKER = """
UPDATE runtime.workers SET status = $3, last_heartbeat_at = clock_timestamp()
WHERE worker_id = $1 AND attachment = $2 AND status IN ('starting', 'running', 'draining')
RETURNING true
"""
"""Moves a worker's status, and notes a sign of life. Because the condition contains the attachment, an older stream of
the same worker no longer counts."""

STORE_HEARTBEATS = """
WITH heard AS (
    SELECT w.worker_id FROM runtime.workers w
    JOIN unnest($1::text[], $2::text[]) AS s (worker_id, attachment) USING (worker_id, attachment)
    WHERE w.status IN ('starting', 'running', 'draining') ORDER BY w.worker_id FOR NO KEY UPDATE OF w
)
UPDATE runtime.workers w
SET last_heartbeat_at = clock_timestamp(), status = CASE w.status WHEN 'starting' THEN 'running' ELSE w.status END
FROM heard WHERE w.worker_id = heard.worker_id
"""
"""Notes signs of life of the workers that were heard over the streams that still speak for them. A heartbeat moves the
status as `WORKER_TRANSITIONS` defines. Workers are locked in the order of their ids, as by batches that give them runs;
otherwise the two could deadlock."""

COUNT_LOOK = """
INSERT INTO runtime.replicas (replica_id) VALUES ($1)
ON CONFLICT (replica_id) DO UPDATE SET looks = runtime.replicas.looks + 1
"""
"""Shows that this replica is present and accepts workers."""

READ_REPLICAS = "SELECT replica_id, looks FROM runtime.replicas"
"""All replicas, and the number of looks in which each of them accepted workers."""

FORGET_REPLICAS = """
DELETE FROM runtime.replicas r USING unnest($1::text[], $2::bigint[]) AS s (replica_id, looks)
WHERE r.replica_id = s.replica_id AND r.looks = s.looks
"""
"""Removes replicas that have not accepted workers since then."""

READ_SIGNS_OF_LIFE = """
SELECT worker_id, attachment, last_heartbeat_at, replica_id, status
FROM runtime.workers
WHERE status IN ('starting', 'running', 'draining') OR worker_id = ANY($1::text[])
"""
"""Workers that may be lost, and the workers that were asked for. A time is read as a mark that changes with every sign
of life, and is never compared with a clock."""

LOSE_WORKERS = """
WITH silent AS (
    SELECT w.worker_id FROM runtime.workers w
    JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS s (worker_id, attachment, last_heartbeat_at)
        USING (worker_id, attachment, last_heartbeat_at)
    WHERE w.status IN ('starting', 'running', 'draining') ORDER BY w.worker_id FOR NO KEY UPDATE OF w
)
UPDATE runtime.workers w SET status = 'lost' FROM silent WHERE w.worker_id = silent.worker_id
RETURNING w.worker_id
"""
"""Marks workers as lost that have given no sign of life since then. Locks as `STORE_HEARTBEATS` does."""

STOP_WORKERS_OF = """
WITH own AS (
    SELECT worker_id FROM runtime.workers
    WHERE service_account_id = $1 AND status IN ('starting', 'running', 'draining')
    ORDER BY worker_id FOR NO KEY UPDATE
)
UPDATE runtime.workers w SET status = 'stopped' FROM own WHERE w.worker_id = own.worker_id
RETURNING w.worker_id
"""
"""Stops the workers of an account, attached or not. Locks as `STORE_HEARTBEATS` does."""

REMOVE_ENDED_WORKERS = """
WITH page AS (
    SELECT worker_id FROM runtime.workers WHERE status IN ('lost', 'stopped') AND worker_id > $1
    ORDER BY worker_id LIMIT $3
), gone AS (
    DELETE FROM runtime.workers WHERE worker_id = ANY(ARRAY(
        SELECT w.worker_id FROM runtime.workers w
        WHERE w.worker_id = ANY(ARRAY(SELECT worker_id FROM page)) AND w.status IN ('lost', 'stopped')
          AND w.last_heartbeat_at < statement_timestamp() - $2 * interval '1 day'
          AND NOT EXISTS (SELECT 1 FROM runtime.runs r WHERE r.worker_id = w.worker_id
                          AND r.status IN ('running', 'canceling') AND NOT r.fenced)
        FOR UPDATE SKIP LOCKED))
    RETURNING worker_id
), events AS (
    DELETE FROM runtime.worker_events WHERE worker_id = ANY(ARRAY(SELECT worker_id FROM gone))
), topics AS (
    DELETE FROM runtime.worker_topics WHERE worker_id = ANY(ARRAY(SELECT worker_id FROM gone))
)
SELECT (SELECT count(*) FROM gone) AS removed,
       (SELECT max(worker_id) FROM page HAVING count(*) = $3) AS reached
"""
"""Removes workers that ended long ago, with their topics: those among the next ended workers ($3) after an id ($1). A
worker that holds a run stays: its lease is found by its row. A locked row is coming back: it is skipped."""

READ_LEASES_OF_ENDED_WORKERS = """
SELECT r.run_id, r.worker_id, r.lease_epoch
FROM runtime.workers w JOIN runtime.runs r USING (worker_id)
WHERE w.status IN ('lost', 'stopped') AND r.status IN ('running', 'canceling') AND NOT r.fenced
AND r.run_id <> ALL($2::text[])
LIMIT $1
"""
"""Runs whose worker ended while it held them, without those that are left out ($2)."""

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
"""Runs that are being canceled, the longest waiting first."""

_CANDIDATE = """r.run_id, r.user_id, r.priority, r.concurrency_key, r.concurrency_limit,
           coalesce(k.held, 0) AS key_held"""
_IS_READY = """
          (r.status = 'created' OR (r.status = 'running' AND r.fenced)) AND r.run_id <> ALL($9::text[])
          AND (r.not_before_time IS NULL OR r.not_before_time <= clock_timestamp())
          AND (r.deadline_time IS NULL OR r.deadline_time > clock_timestamp())
          AND (r.concurrency_key = '' OR coalesce(k.held, 0) < r.concurrency_limit)
          AND (r.thread_policy = '' OR r.attempt > 0 OR NOT EXISTS (
            SELECT 1 FROM runtime.runs o
            WHERE o.org_id = r.org_id AND o.thread_id = r.thread_id AND o.thread_id <> ''
              AND (o.status IN ('running', 'canceling') AND o.run_id <> r.run_id
                   OR o.status = 'created' AND o.run_id < r.run_id)))
          AND NOT (r.attempt > r.failures AND EXISTS (
            SELECT 1 FROM (
                SELECT type, recorded_at FROM runtime.events
                WHERE run_id = r.run_id AND type IN ('executor.lost', 'attempt.failed') ORDER BY seq DESC LIMIT 1) e
            WHERE e.type = 'executor.lost' AND clock_timestamp() >= e.recorded_at
            AND clock_timestamp() < e.recorded_at
                + ($4::integer[])[least(r.attempt - r.failures, cardinality($4::integer[]))]
                  * interval '1 millisecond')
            AND NOT EXISTS (
                SELECT 1 FROM runtime.workers w WHERE w.worker_id = r.worker_id AND w.status = 'stopped'))"""
"""Whether a run could start if there is a place for it."""

READ_WAITING_RUNS = f"""
WITH RECURSIVE held AS (
    SELECT run_id, user_id, concurrency_key, parent_run_id FROM runtime.runs
    WHERE org_id = $1 AND status IN ('running', 'canceling') AND NOT fenced
), held_by_person AS (
    SELECT user_id, count(*) AS held FROM held GROUP BY user_id
), held_by_key AS (
    SELECT concurrency_key, count(*) AS held FROM held WHERE concurrency_key <> '' GROUP BY concurrency_key
), above AS (
    SELECT parent_run_id AS run_id FROM held WHERE parent_run_id <> '' AND ($5 > 0 OR $6 > 0)
    UNION
    SELECT p.parent_run_id FROM above a JOIN runtime.runs p USING (run_id) WHERE p.parent_run_id <> ''
), counting AS (
    SELECT run_id, user_id FROM held WHERE ($5 > 0 OR $6 > 0) AND run_id NOT IN (SELECT a.run_id FROM above a)
), counting_by_person AS (
    SELECT user_id, count(*) AS counting FROM counting GROUP BY user_id
), lent AS (
    SELECT r.run_id, r.parent_run_id AS lender FROM counting c JOIN runtime.runs r ON r.parent_run_id = c.run_id
    WHERE r.parent_run_id <> '' AND (r.status = 'created' OR (r.status = 'running' AND r.fenced))
    UNION ALL
    SELECT r.run_id, r.run_id FROM above a JOIN runtime.runs r USING (run_id) WHERE r.status = 'running' AND r.fenced
), people AS (
    SELECT a.adapter, (
        SELECT r.user_id FROM runtime.runs r WHERE r.org_id = $1 AND r.adapter = a.adapter
        AND (r.status = 'created' OR (r.status = 'running' AND r.fenced)) ORDER BY r.user_id LIMIT 1
    ) AS user_id
    FROM unnest($2::text[]) AS a (adapter)
    UNION ALL
    SELECT p.adapter, (
        SELECT r.user_id FROM runtime.runs r WHERE r.org_id = $1 AND r.adapter = p.adapter AND r.user_id > p.user_id
        AND (r.status = 'created' OR (r.status = 'running' AND r.fenced)) ORDER BY r.user_id LIMIT 1
    )
    FROM people p WHERE p.user_id IS NOT NULL
), ready AS (
    SELECT f.* FROM people p CROSS JOIN LATERAL (
        SELECT {_CANDIDATE}
        FROM runtime.runs r LEFT JOIN held_by_key k USING (concurrency_key)
        WHERE r.org_id = $1 AND r.adapter = p.adapter AND r.user_id = p.user_id
          AND ($5 = 0 OR (SELECT count(*) FROM counting) < $5)
          AND ($6 = 0 OR (SELECT count(*) FROM counting c WHERE c.user_id = p.user_id) < $6)
          AND {_IS_READY}
        ORDER BY r.priority DESC, r.run_id LIMIT $3
    ) f
    UNION
    SELECT {_CANDIDATE}
    FROM lent l JOIN runtime.runs r USING (run_id) LEFT JOIN held_by_key k USING (concurrency_key)
    WHERE r.adapter = ANY($2::text[])
          AND {_IS_READY}
), ranked AS (
    SELECT r.*, coalesce(h.held, 0) + row_number() OVER of_person AS turn,
           key_held + row_number() OVER of_key AS key_turn,
           l.lender IS NOT NULL AND row_number() OVER of_lender = 1 AS has_place
    FROM ready r LEFT JOIN held_by_person h USING (user_id) LEFT JOIN lent l USING (run_id)
    WINDOW of_person AS (PARTITION BY r.user_id ORDER BY r.priority DESC, r.run_id),
           of_key AS (PARTITION BY r.concurrency_key ORDER BY r.priority DESC, r.run_id),
           of_lender AS (PARTITION BY l.lender ORDER BY r.priority DESC, r.run_id)
), of_people AS (
    SELECT ranked.*, coalesce(mark, 0) AS served, coalesce(counting, 0) + row_number() OVER (
        PARTITION BY user_id, has_place ORDER BY priority DESC, run_id) AS person_place
    FROM ranked LEFT JOIN unnest($7::text[], $8::bigint[]) AS s (user_id, mark) USING (user_id)
    LEFT JOIN counting_by_person USING (user_id)
    WHERE concurrency_key = '' OR key_turn <= concurrency_limit
), of_org AS (
    SELECT of_people.*, row_number() OVER (
        PARTITION BY has_place ORDER BY priority DESC, turn, served, run_id) AS org_place
    FROM of_people WHERE has_place OR $6 = 0 OR person_place <= $6
), chosen AS (
    SELECT of_org.*, row_number() OVER (ORDER BY priority DESC, turn, served, run_id) AS place FROM of_org
    WHERE has_place OR $5 = 0 OR org_place <= $5 - (SELECT count(*) FROM counting)
    ORDER BY place LIMIT $3
), waiting AS (
    SELECT count(*) AS waiting FROM (
        SELECT 1 FROM runtime.runs
        WHERE org_id = $1 AND adapter = ANY($2::text[]) AND (status = 'created' OR (status = 'running' AND fenced))
          AND (not_before_time IS NULL OR not_before_time <= clock_timestamp()) AND run_id <> ALL($9::text[])
        LIMIT $3 + 1
    ) w
)
SELECT waiting, run_id, user_id, (SELECT r.spec FROM runtime.runs r WHERE r.run_id = chosen.run_id) AS spec
FROM waiting LEFT JOIN chosen ON true ORDER BY place
"""  # noqa: S608 - constants
"""Runs of an org that a worker could take now, in order: by priority; then the person with the fewest runs at workers
comes first, then the person who was served longest ago ($7, $8: people and a mark that grows); then a person's oldest
run. $5 and $6: how many runs of the org and of a person may run at a time, 0 for any number. $9: runs that are left
out.

Each person's first runs are looked up in the index, so a person with thousands of waiting runs costs the others
nothing. Runs that are over a limit, or behind an older run of their thread, are left out so that they don't block runs
that could start; the limits are checked again when a run is given to a worker. `above`: the ancestors of runs that
workers hold; they don't count for the org and the person. `lent`: runs that may start although a limit is reached; each
takes the place of its parent, or its own place, which a run below it has. `waiting`: the number of runs that wait, up
to one more than was asked for. There is always a row, without a run if none could start.

A run whose worker was lost pauses after the event that records the loss; a run whose worker said goodbye does not. If
the clock steps forward, the pause is shorter; if it steps back, the pause ends."""

READ_WAITING = """
SELECT count(*) AS runs, coalesce(greatest(extract(epoch FROM
    clock_timestamp() - min(greatest(create_time, not_before_time))), 0), 0)::float8 AS oldest_s
FROM runtime.runs
WHERE (status = 'created' OR (status = 'running' AND fenced))
  AND (not_before_time IS NULL OR not_before_time <= clock_timestamp())
"""
"""How many runs wait whose time has come, and how long the first has waited, since its creation or its time."""

READ_NEXT_TIME = """
SELECT ceil(extract(epoch FROM min(not_before_time) - clock_timestamp()) * 1000)::bigint AS wait_ms FROM runtime.runs
WHERE (status = 'created' OR (status = 'running' AND fenced))
  AND not_before_time > statement_timestamp()
  AND not_before_time <= statement_timestamp() + $1 * interval '1 millisecond'
"""
"""The time until the next run's time, if it comes soon; NULL for none."""

READ_OVERDUE_RUNS = """
SELECT run_id FROM runtime.runs
WHERE status IN ('created', 'running') AND deadline_time IS NOT NULL AND deadline_time <= statement_timestamp()
AND run_id <> ALL($2::text[])
ORDER BY deadline_time LIMIT $1
"""
"""Runs whose time is over, the longest overdue first, without those that are left out ($2). An index finds them by a
time that does not change during the statement."""
