"""The statements of the archive, by name."""

READ_DUE_RUNS = """
SELECT run_id FROM runtime.runs
WHERE finish_time <= clock_timestamp() - $1 * interval '1 second' AND NOT archived AND run_id <> ALL($2::text[])
ORDER BY finish_time LIMIT $3
"""

# How long the run that is due longest has been so.
READ_OVERDUE = """
SELECT greatest(extract(epoch FROM clock_timestamp() - min(finish_time)) - $1, 0)::float8
FROM runtime.runs WHERE finish_time IS NOT NULL AND NOT archived
"""

READ_ARCHIVED = "SELECT run_id, sha256, bytes, object FROM runtime.archived_runs WHERE run_id = $1"

ARCHIVE_RUN = "SELECT runtime.archive_run($1, $2, $3, $4, $5, $6)"

LONGEST_STATEMENT = "SELECT set_config('statement_timeout', $1, true)"

HOLD_ARCHIVER = """
UPDATE runtime.archiver SET holder = $1, until = clock_timestamp() + $2 * interval '1 millisecond'
WHERE holder = $1 OR until < clock_timestamp()
RETURNING true
"""

READ_FLOORS = "SELECT partition, position FROM runtime.log_floors"

READ_FLOOR = "SELECT position FROM runtime.log_floors WHERE partition = $1"
