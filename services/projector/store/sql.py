"""Every query of the projector, by name."""

ENSURE_CHECKPOINTS = """
INSERT INTO projection.checkpoints (projection, version, partition, log_epoch)
SELECT $1, $2, partition, $3 FROM unnest($4::int[]) AS partition
ON CONFLICT DO NOTHING
"""

CHECKPOINTS = """
SELECT projection, version, partition, log_epoch, position FROM projection.checkpoints
WHERE projection = $1 AND version = $2 AND partition = ANY ($3::int[])
"""

ALL_CHECKPOINTS = """
SELECT projection, version, partition, log_epoch, position FROM projection.checkpoints
ORDER BY projection, version, partition
"""

# Compare-and-set. The row stays locked until the end of the transaction, so a partition has one writer at a time.
ADVANCE = """
UPDATE projection.checkpoints SET position = $6, updated_at = now()
WHERE projection = $1 AND version = $2 AND partition = $3 AND log_epoch = $4 AND position = $5
RETURNING position
"""

READ_SUMMARIES = """
SELECT run_id, document, summary_hash FROM projection.run_summaries
WHERE version = $1 AND run_id = ANY ($2::text[])
"""

WRITE_SUMMARIES = """
INSERT INTO projection.run_summaries AS stored
    (version, run_id, user_id, org_id, status, latest_seq, document, summary_hash)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[], $8::bytea[])
ON CONFLICT (version, run_id) DO UPDATE SET
    user_id = excluded.user_id, org_id = excluded.org_id, status = excluded.status,
    latest_seq = excluded.latest_seq, document = excluded.document, summary_hash = excluded.summary_hash,
    updated_at = now()
WHERE stored.latest_seq < excluded.latest_seq
RETURNING run_id
"""

# Found again after a restart, the same drift is one row.
RECORD_DRIFT = """
INSERT INTO projection.drifts (projection, version, run_id, seq, stored_hash, computed_hash, computed_document)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
"""

# Rows are inserted, and so locked, in the order of their names: two batches that share topics wait for each other
# but never in a circle. The lock is held until commit, which is what makes seqs gap-free.
RAISE_HEADS = """
INSERT INTO projection.topic_heads AS stored (topic, head)
SELECT topic, added FROM unnest($1::text[], $2::bigint[]) AS raised (topic, added) ORDER BY topic COLLATE "C"
ON CONFLICT (topic) DO UPDATE SET head = stored.head + excluded.head
RETURNING topic, head
"""

APPEND_JOURNAL = """
INSERT INTO projection.journal (topic, seq, run_id, payload)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[])
"""

EPOCH = "SELECT epoch FROM projection.journal_epoch"

POSITIONS = "SELECT topic, floor, head FROM projection.topic_heads WHERE topic = ANY ($1::text[])"

PAGE = """
SELECT topic, seq, payload FROM projection.journal WHERE topic = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""

SUMMARY = "SELECT document FROM projection.run_summaries WHERE version = $1 AND run_id = $2"

SUMMARIES = """
SELECT document FROM projection.run_summaries
WHERE version = $1 AND org_id = $2
  AND ($3::text IS NULL OR user_id = $3)
  AND ($4::text IS NULL OR status = $4)
  AND ($5 = '' OR run_id < $5)
ORDER BY run_id DESC LIMIT $6
"""
