"""Statements on schedules, by name."""

_SELECT = """
SELECT schedule_id, org_id, user_id, name, create_fingerprint, cron, time_zone, every_ms, anchor_time, overlap,
    catch_up_ms, spec, create_time, next_time, status, pause_reason, last_run_id, started, skipped, refused,
    refused_in_row, closed_with_org,
    EXISTS (SELECT FROM runtime.ended_accounts e WHERE e.account_id = user_id) AS owner_ended,
    EXISTS (SELECT FROM runtime.places p
            WHERE p.subject = user_id AND p.org_id IN ('', schedules.org_id) AND p.is_lost) AS owner_out,
    EXISTS (SELECT FROM runtime.places p
            WHERE p.subject = '' AND p.org_id = schedules.org_id AND p.is_lost) AS org_closed
FROM runtime.schedules"""
"""Schedules, for statements that add a condition."""

NOW = "SELECT clock_timestamp()"
"""The current time, after the locks were obtained."""

LOCK_ORG = "SELECT pg_advisory_xact_lock(hashtextextended('schedules/' || $1, 0))"
"""Makes transactions that add schedules to an org run one after the other, each until its commit."""

READ_BY_KEY = f"{_SELECT} WHERE org_id = $1 AND user_id = $2 AND create_key = $3"
"""The schedule that a key created, deleted or not."""

COUNT = """
SELECT count(*) AS all_of_org, count(*) FILTER (WHERE name = $2) AS of_name
FROM runtime.schedules WHERE org_id = $1 AND status <> 'deleted'
"""
"""How many schedules an org has, and how many of them have a given name."""

INSERT = """
INSERT INTO runtime.schedules (schedule_id, org_id, user_id, name, create_key, create_fingerprint, cron, time_zone,
    every_ms, anchor_time, overlap, catch_up_ms, spec, create_time, next_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
"""Stores a new schedule."""

FIND = f"{_SELECT} WHERE org_id = $1 AND (schedule_id = $2 OR name = $2 AND status <> 'deleted')"
"""A schedule of an org by its id, deleted or not, or by its name. No name is an id, because ids have capitals."""

LOCK = f"{_SELECT} WHERE schedule_id = $1 FOR UPDATE"
"""A schedule, to be changed. The statement waits for a replica that settles one of its times."""

LIST = f"""{_SELECT}
WHERE org_id = $1 AND status <> 'deleted' AND schedule_id < coalesce(nullif($2, ''), '~')
ORDER BY schedule_id DESC LIMIT $3
"""
"""Schedules of an org below an id, the newest first; below all if it is empty ("~" comes after every id)."""

ACTIVE_OF = """
SELECT schedule_id FROM runtime.schedules
WHERE user_id = $1 AND status = 'active' AND $2 IN ('', org_id) ORDER BY schedule_id
"""
"""The schedules of an owner that start runs, in all orgs or in one."""

ACTIVE_IN = "SELECT schedule_id FROM runtime.schedules WHERE org_id = $1 AND status = 'active' ORDER BY schedule_id"
"""The schedules of an org that start runs."""

CLOSED_IN_OPEN_ORGS = """
SELECT schedule_id FROM runtime.schedules s WHERE closed_with_org AND status = 'paused'
AND NOT EXISTS (SELECT FROM runtime.places p WHERE p.subject = '' AND p.org_id = s.org_id AND p.is_lost)
AND schedule_id <> ALL($2::text[])
ORDER BY schedule_id LIMIT $1
"""
"""Schedules that were paused because their orgs were deleted, and whose orgs were restored, without those that are left
out ($2)."""

TAKE_DUE = f"""{_SELECT}
WHERE status = 'active' AND next_time <= statement_timestamp() AND schedule_id <> ALL($2::text[])
ORDER BY next_time LIMIT $1 FOR UPDATE SKIP LOCKED
"""
"""Schedules whose time has come, the longest due first, without those that another replica is settling. The time is one
that does not change during the statement: an index is of no use for others."""

READ_STANDINGS = """
SELECT d.schedule_id,
       coalesce(last.status IN ('succeeded', 'failed', 'canceled'), true) AS last_ended,
       coalesce(first.create_key, '') AS run_key, coalesce(first.run_id, '') AS run_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    AS d (schedule_id, org_id, user_id, last_run_id, first_key, last_key)
LEFT JOIN runtime.runs last ON last.run_id = d.last_run_id
LEFT JOIN LATERAL (
    SELECT run_id, create_key FROM runtime.runs
    WHERE org_id = d.org_id AND user_id = d.user_id AND create_key BETWEEN d.first_key AND d.last_key
    ORDER BY create_key LIMIT 1
) first ON true
"""
"""For each schedule, whether its last run has ended, and the first run that exists for its times that have come. The
keys of one schedule's times differ only in digits, so every collation sorts them in the order of time."""

MOVE = """
UPDATE runtime.schedules SET next_time = $2, status = $3, pause_reason = $4, last_run_id = $5, started = $6,
    skipped = $7, refused = $8, refused_in_row = $9, closed_with_org = $10,
    delete_time = CASE WHEN $3 = 'deleted' THEN coalesce(delete_time, clock_timestamp()) END
WHERE schedule_id = $1
"""
"""Stores the state of a schedule that has been locked."""

RECORD = """
INSERT INTO runtime.schedule_times (schedule_id, nominal_time, cause, outcome, times, reason, message, run_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (schedule_id, run_id) WHERE run_id <> '' DO NOTHING
"""
"""Records the outcome of a time. A run that is already recorded is not recorded again."""

PRUNE = """
DELETE FROM runtime.schedule_times WHERE schedule_id = $1 AND number <= (
    SELECT number FROM runtime.schedule_times WHERE schedule_id = $1 ORDER BY number DESC OFFSET $2 LIMIT 1)
"""
"""Drops all but the newest records of a schedule."""

READ_TIMES = """
SELECT nominal_time, record_time, cause, outcome, times, reason, message, run_id
FROM runtime.schedule_times WHERE schedule_id = $1 ORDER BY number DESC LIMIT $2
"""
"""The newest records of a schedule, the newest first."""

READ_LATE = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(next_time)), 0)::float8
FROM runtime.schedules WHERE status = 'active' AND next_time <= statement_timestamp()
"""
"""For how many seconds the schedule that has been due the longest has been due; 0 if none is due."""

FORGET_DELETED = """
DELETE FROM runtime.schedules WHERE schedule_id = ANY(ARRAY(
    SELECT schedule_id FROM runtime.schedules
    WHERE status = 'deleted' AND delete_time < statement_timestamp() - $1 * interval '1 millisecond'
    ORDER BY delete_time LIMIT $2 FOR UPDATE SKIP LOCKED))
"""
"""Drops schedules that were deleted longer than $1 milliseconds ago, the longest ago first, at most $2 of them."""
