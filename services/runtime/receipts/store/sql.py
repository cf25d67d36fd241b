"""Statements on receipts and their log, by name."""

READ_RECEIPT = "SELECT run_id, canonical_json, signature, key_id FROM runtime.receipts WHERE run_id = $1"
"""The receipt of a run."""

READ_RECEIPT_KEYS = """
SELECT k.public_key, e.endorsed_by, e.signature
FROM runtime.receipt_keys k LEFT JOIN runtime.receipt_key_endorsements e USING (key_id)
ORDER BY k.first_used_at DESC, k.key_id
"""
"""All keys that receipts were ever signed with, the latest first, with their endorsements."""

INSERT_RECEIPT_KEY = """
INSERT INTO runtime.receipt_keys (key_id, public_key) VALUES ($1, $2) ON CONFLICT (key_id) DO NOTHING
"""
"""Publishes a key before its first receipt."""

INSERT_ENDORSEMENT = """
INSERT INTO runtime.receipt_key_endorsements (key_id, endorsed_by, signature) VALUES ($1, $2, $3)
ON CONFLICT (key_id) DO NOTHING
"""
"""Publishes the endorsement of a key; the first one stays."""

HAS_RECEIPT_KEY = "SELECT EXISTS (SELECT FROM runtime.receipt_keys WHERE key_id = $1)"
"""Whether the installation has ever signed with a key."""

LOCK_RECEIPT_LOG = "SELECT size, frontier FROM runtime.receipt_log FOR UPDATE SKIP LOCKED"
"""The end of the log of receipts, to be moved. A replica that finds it locked lets the other one do the work."""

READ_UNMERGED = """
SELECT r.run_id, r.canonical_json, r.signature, r.key_id
FROM runtime.receipts_unmerged u JOIN runtime.receipts r USING (run_id)
WHERE u.run_id = ANY($1::text[]) ORDER BY u.created_at, u.run_id
"""
"""Those of some receipts that are not in the log of receipts yet, the oldest first."""

READ_WAITING = """
SELECT run_id FROM runtime.receipts_unmerged WHERE run_id <> ALL($2::text[]) ORDER BY created_at, run_id LIMIT $1
"""
"""The runs whose receipts are not in the log of receipts yet, the oldest first."""

HAS_CHECKPOINT = "SELECT EXISTS (SELECT FROM runtime.receipt_checkpoints WHERE size = $1 AND key_id = $2)"
"""Whether a key has signed the log at a size."""

INSERT_LEAVES = """
INSERT INTO runtime.receipt_leaves (leaf_index, run_id)
SELECT $1::bigint + n - 1, run_id FROM unnest($2::text[]) WITH ORDINALITY AS l (run_id, n)
"""
"""Gives runs their places in the log of receipts."""

INSERT_NODES = """
INSERT INTO runtime.receipt_nodes (level, node_index, hash)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
"""
"""Stores hashes of the tree that never change again."""

DELETE_UNMERGED = "DELETE FROM runtime.receipts_unmerged WHERE run_id = ANY($1::text[])"
"""Removes the receipts that were merged from those that wait."""

MOVE_RECEIPT_LOG = "UPDATE runtime.receipt_log SET size = $1, frontier = $2"
"""Moves the end of the log of receipts."""

INSERT_CHECKPOINT = "INSERT INTO runtime.receipt_checkpoints (size, key_id, note) VALUES ($1, $2, $3)"
"""Stores a signed checkpoint."""

READ_BACKLOG = """
SELECT count(*) AS receipts,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_s
FROM runtime.receipts_unmerged
"""
"""How many receipts wait to be merged, and how long the oldest has waited."""

READ_CHECKPOINT = """
SELECT size, note FROM runtime.receipt_checkpoints
WHERE size = (SELECT max(size) FROM runtime.receipt_checkpoints)
ORDER BY created_at, key_id
"""
"""The newest checkpoint, as each key signed it."""

READ_LEAF_INDEX = "SELECT leaf_index FROM runtime.receipt_leaves WHERE run_id = $1"
"""The place of a run in the log of receipts."""

READ_NODES = """
SELECT level, node_index, hash
FROM unnest($1::smallint[], $2::bigint[]) AS w (level, node_index) JOIN runtime.receipt_nodes USING (level, node_index)
"""
"""Hashes of the tree, for proofs."""
