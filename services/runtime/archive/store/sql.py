"""Statements on the archive, by name."""

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
"""Runs that are old enough to be archived, the longest due first. Those of each class ($1, with its age in seconds $2)
come from the front of its part of the index, which is why the time is one that does not change during the statement."""

READ_ARCHIVED = "SELECT run_id, sha256, bytes, object FROM runtime.archived_runs WHERE run_id = $1"
"""Where the artifact of a run is, and its hash."""

READ_ARCHIVED_RUNS = "SELECT run_id, sha256, bytes, object FROM runtime.archived_runs WHERE run_id = ANY($1::text[])"
"""The same for several runs."""

ARCHIVE_RUN = "SELECT runtime.archive_run($1, $2, $3, $4, $5, $6)"
"""Moves a run's events out of the log, in one transaction."""

SET_STATEMENT_TIMEOUT = "SELECT set_config('statement_timeout', $1, true)"
"""How long a statement of this transaction may take."""

HOLD_ARCHIVER = """
UPDATE runtime.archiver SET holder = $1, until = clock_timestamp() + $2 * interval '1 millisecond'
WHERE holder = $1 OR until < clock_timestamp()
RETURNING true
"""
"""Makes one replica the archiver for a while, or for a while longer."""
