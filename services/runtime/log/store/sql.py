"""Statements on the log, by name. Arguments that are unnested come as parallel arrays, or as rows of a type."""

from collections.abc import Callable

LOCK_HEADS = """
SELECT partition, position, chain FROM runtime.log_heads
WHERE partition = ANY($1::integer[]) ORDER BY partition FOR UPDATE
"""
"""The heads of partitions, to be moved; in the order of partitions, so that two replicas never wait for each other."""

READ_RUNS = """
SELECT c.now_us, c.log_epoch, r.run_id, r.org_id, r.user_id, r.status, r.latest_seq, r.chain_head, r.create_time,
       r.lease_epoch, r.worker_id, r.fenced, r.attempt, r.cancel_requested_time, r.cancel_reason, r.finish_time,
       r.finish, r.totals, r.paced_until_ns, r.not_before_time, r.deadline_time, r.failures, r.queue,
       CASE WHEN r.thread_policy <> '' THEN r.thread_id ELSE '' END AS thread_id, r.parent_run_id, k.keys,
       k.fingerprints, k.first_seqs, k.counts
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
"""Runs, and what was appended to them under some keys. There is always at least one row, for the clock and the log's
epoch, which are read after the lock was acquired."""

LOCK_WORKERS = """
SELECT worker_id, status FROM runtime.workers WHERE worker_id = ANY($1::text[]) ORDER BY worker_id FOR SHARE
"""
"""Workers that are to be given a run. They are locked, so that none of them is lost before the batch that gives it a
run is stored."""

LOCK_SHARES = """
SELECT pg_advisory_xact_lock(key) FROM (
    SELECT DISTINCT hashtextextended(name, 0) AS key FROM unnest($1::text[]) AS name ORDER BY key
) keys
"""
"""Shares that are to grow, by name. They are locked, in one order, so that no other batch gives away runs of them
before this one is stored. Two names with the same hash only wait for each other."""

_ABOVE = """
WITH RECURSIVE above AS (
    SELECT r.parent_run_id AS run_id FROM runtime.runs r
    WHERE r.org_id IN ({orgs}) AND r.status IN ('running', 'canceling') AND NOT r.fenced AND r.parent_run_id <> ''
    UNION
    SELECT p.parent_run_id FROM above a JOIN runtime.runs p USING (run_id) WHERE p.parent_run_id <> ''
)"""
"""The runs above those that workers hold, in some orgs."""

COUNT_SHARES = f"""{_ABOVE.format(orgs="SELECT unnest($4::text[])")}
SELECT k.kind, k.org_id, k.name, CASE k.kind
    WHEN 'org' THEN (
        SELECT count(*) FROM runtime.runs r
        WHERE r.org_id = k.org_id AND r.status IN ('running', 'canceling') AND NOT r.fenced
          AND r.run_id NOT IN (SELECT a.run_id FROM above a))
    WHEN 'person' THEN (
        SELECT count(*) FROM runtime.runs r
        WHERE r.org_id = k.org_id AND r.user_id = k.name AND r.status IN ('running', 'canceling') AND NOT r.fenced
          AND r.run_id NOT IN (SELECT a.run_id FROM above a))
    WHEN 'key' THEN (
        SELECT count(*) FROM runtime.runs r
        WHERE r.org_id = k.org_id AND r.concurrency_key = k.name AND r.concurrency_key <> ''
          AND r.status IN ('running', 'canceling') AND NOT r.fenced)
    WHEN 'thread' THEN (
        SELECT count(*) FROM runtime.runs r
        WHERE r.org_id = k.org_id AND r.thread_id = k.name AND r.thread_id <> ''
          AND r.status IN ('running', 'canceling'))
    WHEN 'open_thread' THEN (
        SELECT count(*) FROM runtime.runs r
        WHERE r.org_id = k.org_id AND r.thread_id = k.name AND r.thread_id <> ''
          AND r.status IN ('created', 'running', 'canceling'))
    WHEN 'children' THEN (
        SELECT count(*) FROM runtime.runs r WHERE r.parent_run_id = k.name AND r.parent_run_id <> '')
END AS runs
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (kind, org_id, name)
"""  # noqa: S608 - constants
"""How many runs count in some shares, after these were locked. $4: the orgs in which a run that is above another one
does not count."""

_OF_FAMILY = "SELECT o.org_id FROM runtime.runs o WHERE o.run_id = ANY($1::text[] || $2::text[])"
"""The orgs of runs and of their parents."""

READ_LENDERS = f"""{_ABOVE.format(orgs=_OF_FAMILY)}
SELECT s.run_id, CASE WHEN s.run_id IN (SELECT run_id FROM above) THEN s.run_id ELSE p.run_id END AS lender
FROM unnest($1::text[], $2::text[]) AS s (run_id, parent_run_id)
LEFT JOIN runtime.runs p ON p.run_id = s.parent_run_id AND p.status IN ('running', 'canceling') AND NOT p.fenced
    AND p.run_id NOT IN (SELECT run_id FROM above)
WHERE p.run_id IS NOT NULL OR s.run_id IN (SELECT run_id FROM above)
"""  # noqa: S608 - constants
"""Those of the runs ($1), with their parents ($2), that take a place which is already counted: that of the parent, or
their own, which a run below them has."""

READ_CREATE_KEYS = """
SELECT r.org_id, r.user_id, r.create_key, r.run_id, r.create_fingerprint
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (org_id, user_id, create_key)
JOIN runtime.runs r USING (org_id, user_id, create_key)
"""
"""Runs that were created under these keys."""

STORE_BATCH = """
WITH locked AS MATERIALIZED (
    SELECT partition, position, chain FROM runtime.log_heads
    WHERE partition = ANY($4::integer[]) ORDER BY partition FOR UPDATE
{locks}), durable AS MATERIALIZED (
    SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), true) <> 'off'
        AND current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' OR $10 AS keeps
), decided AS MATERIALIZED (
    SELECT (SELECT keeps FROM durable){conditions} AND cardinality($4::integer[]) = (
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
        finish = s.finish, totals = s.totals, paced_until_ns = s.paced_until_ns, not_before_time = s.not_before_time,
        deadline_time = s.deadline_time, failures = s.failures
    FROM unnest($3::runtime.moved_run_2[]) AS s
    WHERE r.run_id = s.run_id AND (SELECT holds FROM decided)
), moved_heads AS (
    UPDATE runtime.log_heads h SET position = s.position, chain = s.chain
    FROM unnest($4::integer[], $8::bigint[], $9::bytea[]) AS s (partition, position, chain)
    WHERE h.partition = s.partition AND (SELECT holds FROM decided)
{rows})
SELECT holds, keeps, CASE WHEN holds THEN {notification} END AS notification FROM decided, durable
"""
"""Stores events, runs and heads in one round trip. Nothing is stored, and the answer is false, unless every head, and
every run that was known from a cache, is still as it was when the batch was decided, by number and chain. The unique
index finds an idempotency key that was used before.

The locks come first: `decided` reads the locked rows, and the parts that store ask `decided`. A locked row that has
changed since the statement began is read again once its lock is acquired (READ COMMITTED). The runs are as old as the
statement, but no run moves unless its head does.

Nothing is stored on a server that would not keep it, either ($10: unless losing it is allowed). Its settings can change
at any time: the one that belongs to the session is held as it is until the transaction has ended.

`store_batch` completes the statement."""

_MORE_LOCKS = """), takers AS MATERIALIZED (
    SELECT status FROM runtime.workers
    WHERE worker_id = ANY($14::text[]) AND (SELECT count(*) FROM locked) > 0 ORDER BY worker_id FOR SHARE
), epoch AS MATERIALIZED (
    SELECT log_epoch FROM runtime.installation
    WHERE $13::text <> '' AND (SELECT count(*) FROM locked) > 0 FOR SHARE
"""
_MORE_CONDITIONS = """
        AND NOT EXISTS (SELECT 1 FROM takers WHERE status IN ('lost', 'stopped'))
        AND ($13::text = '' OR $13::text = (SELECT log_epoch FROM epoch))
       """
_MORE_ROWS = """), created AS (
    INSERT INTO runtime.runs (
        run_id, partition, org_id, user_id, create_key, create_fingerprint, adapter, retention_class, spec, create_time,
        queue, priority, concurrency_key, concurrency_limit, thread_id, thread_policy, parent_run_id,
        cancel_with_parent, status, latest_seq, chain_head, lease_epoch, worker_id, fenced, attempt,
        cancel_requested_time, cancel_reason, finish_time, finish, totals, paced_until_ns, not_before_time,
        deadline_time, failures)
    SELECT * FROM unnest($11::runtime.new_run[]) WHERE (SELECT holds FROM decided)
), sealed AS (
    INSERT INTO runtime.receipts (run_id, canonical_json, signature, key_id)
    SELECT * FROM unnest($12::runtime.new_receipt[]) WHERE (SELECT holds FROM decided)
"""
"""The further parts of STORE_BATCH for a batch that creates ($11), ends ($12) or gives away runs. A worker that gets
one ($14) has to be there, and the log has to have the epoch that the receipts state ($13). Batches of appends leave
these parts out, because opening the tables and their indexes costs a fifth of the statement."""


def store_batch(notification: Callable[[int], str], *, more: bool) -> str:
    """Return the statement that stores a batch; with `more`, one that creates, ends or gives away runs.

    `notification` takes the number of its first argument and returns an expression that is evaluated if the batch is
    stored, and committed with it.
    """
    if not more:
        return STORE_BATCH.format(locks="", conditions="", rows="", notification=notification(11))
    parts = {"locks": _MORE_LOCKS, "conditions": _MORE_CONDITIONS, "rows": _MORE_ROWS}
    return STORE_BATCH.format(**parts, notification=notification(15))


READ_HEADS = "SELECT partition, position, chain FROM runtime.log_heads"
"""The heads of all partitions."""

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
"""A page of a partition, in commit order. Its last row is the one with which it reaches the bytes, if any does."""

READ_LOG_BYTES = """
WITH page AS MATERIALIZED (
    SELECT position, body FROM runtime.events WHERE partition = $1 AND position > $2 ORDER BY position LIMIT $3
)
SELECT min(position) AS first, max(position) AS last, array_agg(body ORDER BY position) AS bodies FROM page
WHERE (SELECT sum(octet_length(body)) FROM page) <= $4
"""
"""The same, but only the bodies and in one value, because the cost of reading is mostly the number of values. A page
that would exceed the bytes is empty."""

READ_RUN_PAGE = """
SELECT seq, body FROM (
    SELECT p.*, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before
    FROM (SELECT seq, body FROM runtime.events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) p
) q
WHERE bytes_before < $4 OR bytes_before = 0
ORDER BY seq
"""
"""A page of a run's events."""

READ_RUN_TYPES = """
SELECT body FROM (
    SELECT p.*, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before
    FROM (
        SELECT seq, body FROM runtime.events WHERE run_id = $1 AND seq > $2 AND type = ANY($5::text[])
        ORDER BY seq LIMIT $3
    ) p
) q
WHERE bytes_before < $4 OR bytes_before = 0
ORDER BY seq
"""
"""A page of a run's events of some types."""

_INDEXED = (
    # `events_shown`
    (
        *("message", "progress.reported", "request.answered", "request.expired", "request.opened", "run.started"),
        "step.completed",
    ),
    # `events_asked_for`
    ("checkpoint.saved", "child.finished", "child.started", "input.received"),
)
"""Types whose events an index finds in a run. An index is used where the statement names exactly its types."""
INDEXED_TYPES = frozenset(type_ for index in _INDEXED for type_ in index)


def _of_each_type(types: str, after: str, rest: str) -> str:
    """The events of a run after a seq, of each of some `INDEXED_TYPES` those that `rest` picks."""
    found = " UNION ALL ".join(
        f"""(
            SELECT seq, body FROM runtime.events
            WHERE run_id = $1 AND seq > {after} AND type = asked.type AND type IN ({", ".join(map(repr, index))}) {rest}
        )"""  # noqa: S608 - constants
        for index in _INDEXED
    )
    return f"SELECT found.* FROM unnest({types}::text[]) AS asked (type), LATERAL ({found}) AS found"  # noqa: S608 - constants


READ_RUN_INDEXED_TYPES = f"""
SELECT body FROM (
    SELECT p.*, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before
    FROM ({_of_each_type("$5", "$2", "ORDER BY seq LIMIT $3")} ORDER BY seq LIMIT $3) p
) q
WHERE bytes_before < $4 OR bytes_before = 0
ORDER BY seq
"""  # noqa: S608 - constants
"""READ_RUN_TYPES for INDEXED_TYPES, each of them once: a run may have a million others."""

READ_RUN_INDEXED_NEWEST = f"""
SELECT body FROM ({_of_each_type("$3", "$2", "ORDER BY seq DESC LIMIT 1")}) n ORDER BY seq DESC LIMIT 1
"""  # noqa: S608 - constants
"""READ_RUN_NEWEST for INDEXED_TYPES."""

READ_RUN_NEWEST = """
SELECT body FROM runtime.events WHERE run_id = $1 AND seq > $2 AND ($3::text[] = '{}' OR type = ANY($3::text[]))
ORDER BY seq DESC LIMIT 1
"""
"""The newest of a run's events of some types."""

_RUN = """
SELECT run_id, org_id, user_id, status, latest_seq, chain_head, create_time, lease_epoch, worker_id, fenced, attempt,
       cancel_requested_time, cancel_reason, finish_time, finish, totals, paced_until_ns, not_before_time,
       deadline_time, failures, queue, CASE WHEN thread_policy <> '' THEN thread_id ELSE '' END AS thread_id,
       parent_run_id, spec, archived"""
"""Everything that is read of a run."""

READ_RUN = f"""{_RUN}
FROM runtime.runs WHERE run_id = $1
"""
"""A run as it is now."""

_NEWEST = """
       ARRAY(
           SELECT body FROM (
               SELECT seq, body, sum(octet_length(body)) OVER (ORDER BY seq DESC) - octet_length(body) AS bytes_after
               FROM ({events}) n
           ) q
           WHERE bytes_after < {bytes} ORDER BY seq
       )"""
"""The newest of some of a run's events, up to the one that reaches the bytes, in the order of the log."""
_OF_TYPES = """SELECT seq, body FROM runtime.events WHERE run_id = $1 AND type IN ({types})
                     ORDER BY seq DESC LIMIT {limit}"""
"""A run's newest events of some types, which an index finds."""
_MESSAGES = _OF_TYPES.format(types="'message'", limit="$2")
_OUTPUT = """SELECT seq, body FROM (SELECT seq, type, body FROM runtime.events WHERE run_id = $1
                                     ORDER BY seq DESC LIMIT $4) newest WHERE type = 'text.delta'"""
"""The output among a run's newest events."""
_REQUESTS = _OF_TYPES.format(types="'request.opened', 'request.answered', 'request.expired'", limit="$6")

_PROGRESS = """
       (SELECT body FROM runtime.events WHERE run_id = $1 AND type = 'progress.reported' AND seq > coalesce(
            (SELECT max(seq) FROM runtime.events WHERE run_id = $1 AND type = 'run.started'), 0)
        ORDER BY seq DESC LIMIT 1)"""
"""The last progress that the newest attempt of a run has reported."""
_STEPS = "(SELECT count(*) FROM runtime.events WHERE run_id = $1 AND type = 'step.completed')"
"""How many steps of a run are done."""

READ_EXCERPT = f"""{_RUN},
{_NEWEST.format(events=_MESSAGES, bytes="$3")} AS messages,
{_NEWEST.format(events=_OUTPUT, bytes="$5")} AS output,
{_NEWEST.format(events=_REQUESTS, bytes="$7")} AS requests,
{_PROGRESS} AS progress, {_STEPS} AS steps
FROM runtime.runs WHERE run_id = $1
"""
"""A run as it is now, and the events that show how it stands. It is one statement, so all of it is as of one moment,
even while the run goes on. It returns as many of the newest messages, output and requests as fit, in the log's
order."""
