-- The log of receipts (docs/protocol/receipt-log.md): a Merkle tree whose leaves are all receipts. It only grows; what
-- was stored of it is never changed, and its one moving row can only move forward.

-- How far the log has come. The row's lock is what makes the merging of any number of replicas one after the other.
-- `frontier`: the hashes of the largest perfect subtrees, 32 bytes each, the leftmost first.
CREATE TABLE runtime.receipt_log (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    size     bigint  NOT NULL DEFAULT 0 CHECK (size >= 0),
    frontier bytea   NOT NULL DEFAULT '',
    CHECK (octet_length(frontier) = 32 * length(replace(size::bit(64)::text, '0', '')))
);
INSERT INTO runtime.receipt_log DEFAULT VALUES;

-- Receipts that wait for the merger, put there by a trigger in the transaction that stores the receipt: none can be
-- forgotten.
CREATE TABLE runtime.receipts_unmerged (
    run_id     text        COLLATE "C" PRIMARY KEY REFERENCES runtime.receipts,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION runtime.note_unmerged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime.receipts_unmerged (run_id) SELECT run_id FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER receipts_to_merge AFTER INSERT ON runtime.receipts
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION runtime.note_unmerged();
INSERT INTO runtime.receipts_unmerged (run_id, created_at) SELECT run_id, created_at FROM runtime.receipts;

CREATE TABLE runtime.receipt_leaves (
    leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
    run_id     text   COLLATE "C" NOT NULL UNIQUE REFERENCES runtime.receipts
);

-- The root of each perfect subtree, level 0 being the leaves: stored once, when it comes about.
CREATE TABLE runtime.receipt_nodes (
    level      smallint NOT NULL CHECK (level BETWEEN 0 AND 62),
    node_index bigint   NOT NULL CHECK (node_index >= 0),
    hash       bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, node_index)
);

-- What was signed about the log, by whom. Two keys may have signed one size: around a rotation both do.
CREATE TABLE runtime.receipt_checkpoints (
    size       bigint      NOT NULL CHECK (size >= 0),
    key_id     text        NOT NULL REFERENCES runtime.receipt_keys,
    note       bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (size, key_id)
);

CREATE FUNCTION runtime.refuse_shrinking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size <= OLD.size THEN
        RAISE EXCEPTION 'the log of receipts only grows' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER receipt_log_only_grows BEFORE UPDATE ON runtime.receipt_log
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_shrinking();
CREATE TRIGGER receipt_log_stays BEFORE DELETE OR TRUNCATE ON runtime.receipt_log
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

CREATE TRIGGER receipt_leaves_append_only BEFORE UPDATE OR DELETE ON runtime.receipt_leaves
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_leaves_not_truncated BEFORE TRUNCATE ON runtime.receipt_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_nodes_append_only BEFORE UPDATE OR DELETE ON runtime.receipt_nodes
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_nodes_not_truncated BEFORE TRUNCATE ON runtime.receipt_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_checkpoints_append_only BEFORE UPDATE OR DELETE ON runtime.receipt_checkpoints
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_checkpoints_not_truncated BEFORE TRUNCATE ON runtime.receipt_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

-- A receipt leaves the waiting row only by becoming a leaf.
CREATE FUNCTION runtime.refuse_forgetting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM runtime.receipt_leaves WHERE run_id = OLD.run_id) THEN
        RAISE EXCEPTION 'the receipt is not in the log yet' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER receipts_unmerged_until_merged BEFORE DELETE ON runtime.receipts_unmerged
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_forgetting();
CREATE TRIGGER receipts_unmerged_not_truncated BEFORE TRUNCATE ON runtime.receipts_unmerged
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

REVOKE ALL ON runtime.receipt_log, runtime.receipts_unmerged, runtime.receipt_leaves, runtime.receipt_nodes,
    runtime.receipt_checkpoints FROM runtime_app;
GRANT SELECT, UPDATE ON runtime.receipt_log TO runtime_app;
GRANT SELECT, INSERT, DELETE ON runtime.receipts_unmerged TO runtime_app;
GRANT SELECT, INSERT ON runtime.receipt_leaves, runtime.receipt_nodes, runtime.receipt_checkpoints TO runtime_app;
