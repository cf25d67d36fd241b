"""The statements of the archive, by name."""

# Of each class ($1, with its age in seconds $2) from the front of its part of the index, which is why the time is one
# that stands still during the statement.
READ_DUE_RUNS = """
SELECT r.run_id
FROM unnest($1::text[], $2::bigint[]) AS c (retention_class, age_s)
CROSS JOIN LATERAL (
    SELECT run_id, finish_time + c.age_s * interval '1 second' AS due_time FROM runtime.runs
    WHERE retention_class = c.retention_class AND NOT archived AND run_id <> ALL($3::text[])
      AND finish_time <= statement_timestamp() - c.age_s * interval '1 second'
    ORDER BY finish_time LIMIT $4
) r
ORDER BY r.due_time LIMIT $4
"""

# The first run of the first class, then of the next class, and so on: as many steps as there are classes.
READ_OLDEST_RUNS = """
WITH RECURSIVE oldest AS (
    (SELECT retention_class, finish_time FROM runtime.runs
     WHERE finish_time IS NOT NULL AND NOT archived ORDER BY retention_class, finish_time LIMIT 1)
    UNION ALL
    SELECT next.retention_class, next.finish_time
    FROM oldest CROSS JOIN LATERAL (
        SELECT retention_class, finish_time FROM runtime.runs
        WHERE finish_time IS NOT NULL AND NOT archived AND retention_class > oldest.retention_class
        ORDER BY retention_class, finish_time LIMIT 1
    ) next
)
SELECT retention_class, greatest(extract(epoch FROM statement_timestamp() - finish_time), 0)::float8 AS age_s
FROM oldest
"""

READ_ARCHIVED = "SELECT run_id, sha256, bytes, object FROM runtime.archived_runs WHERE run_id = $1"

READ_ARCHIVED_RUNS = "SELECT run_id, sha256, bytes, object FROM runtime.archived_runs WHERE run_id = ANY($1::text[])"

ARCHIVE_RUN = "SELECT runtime.archive_run($1, $2, $3, $4, $5, $6)"

LONGEST_STATEMENT = "SELECT set_config('statement_timeout', $1, true)"

HOLD_ARCHIVER = """
UPDATE runtime.archiver SET holder = $1, until = clock_timestamp() + $2 * interval '1 millisecond'
WHERE holder = $1 OR until < clock_timestamp()
RETURNING true
"""

READ_FLOOR = "SELECT position FROM runtime.log_floors WHERE partition = $1"

# The positions after $2, $3 of them: rows, as far as they are within $4 bytes, and what is in the archive, without type
# and body. One statement sees one moment: whatever is archived meanwhile, each position is in one of the two.
READ_WHOLE_PAGE = """
SELECT position, run_id, seq, type, body, chain FROM (
    SELECT position, run_id, seq, type, body, chain,
           sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body) AS bytes_before
    FROM runtime.events WHERE partition = $1 AND position > $2::bigint AND position <= $2 + $3::bigint
) in_the_log
WHERE bytes_before < $4 OR bytes_before = 0
UNION ALL
SELECT p.position, a.run_id, a.first_seq + p.nth - 1, NULL, NULL, NULL
FROM runtime.archived_positions a CROSS JOIN LATERAL unnest(a.positions) WITH ORDINALITY AS p (position, nth)
WHERE a.partition = $1 AND a.block BETWEEN $2 / 1024 AND ($2 + $3 - 1) / 1024
  AND p.position > $2 AND p.position <= $2 + $3
ORDER BY position
"""
