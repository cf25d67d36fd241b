"""Statements on the log's epochs and on the server that it is on."""

# The name of the file that is written to begins with the timeline, from the moment of a promotion on; what the control
# file says of it is older.
READ_HISTORY = """
SELECT i.log_epoch, i.system_identifier, i.timeline, s.system_identifier AS server_system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer AS server_timeline
FROM runtime.installation i CROSS JOIN pg_control_system() s
"""

# The heads, and whether the event that was followed last is not in the log any more. Where it was archived meanwhile,
# its number has to do.
COMPARE_HEADS = """
SELECT h.partition, h.position, h.chain, coalesce(
    h.position < f.position
    OR f.chain <> '' AND f.chain <> coalesce(e.chain, CASE WHEN h.position = f.position THEN h.chain END), false
) AS missing
FROM runtime.log_heads h
LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bytea[]) AS f (partition, position, chain) USING (partition)
LEFT JOIN runtime.events e ON e.partition = f.partition AND e.position = f.position
ORDER BY h.partition
"""

GIVE_EPOCH = "SELECT runtime.give_log_epoch($1, $2, $3, $4, $5)"

NOTE_SERVER = "UPDATE runtime.installation SET system_identifier = $1, timeline = $2"
