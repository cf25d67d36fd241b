-- Where the events of archived runs stood (docs/protocol/archive.md): whoever reads the log from below its floor finds by
-- it which artifacts have what follows on a position. It says what archived_runs.positions says, cut into pieces that a
-- page of the log can afford to read.

-- The entries of one run in one block of its partition; block b holds the positions 1024 * b + 1 … 1024 * (b + 1).
-- `positions` are those of consecutive events, the first of which is `first_seq`.
CREATE TABLE runtime.archived_positions (
    partition integer  NOT NULL,
    block     bigint   NOT NULL CHECK (block >= 0),
    run_id    text     COLLATE "C" NOT NULL REFERENCES runtime.archived_runs,
    first_seq bigint   NOT NULL CHECK (first_seq > 0),
    positions bigint[] NOT NULL CHECK (cardinality(positions) > 0),
    PRIMARY KEY (partition, block, run_id)
);

-- By a trigger: a record without its positions is not possible, whoever writes it.
CREATE FUNCTION runtime.note_positions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime.archived_positions (partition, block, run_id, first_seq, positions)
    SELECT a.partition, (p.position - 1) / 1024, a.run_id, min(p.seq), array_agg(p.position ORDER BY p.seq)
    FROM added a, unnest(a.positions) WITH ORDINALITY AS p (position, seq)
    GROUP BY 1, 2, 3;
    RETURN NULL;
END
$$;
CREATE TRIGGER archived_runs_to_positions AFTER INSERT ON runtime.archived_runs
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION runtime.note_positions();

-- Those that were archived before. The trigger stands already, and its lock keeps others from adding any meanwhile.
INSERT INTO runtime.archived_positions (partition, block, run_id, first_seq, positions)
SELECT a.partition, (p.position - 1) / 1024, a.run_id, min(p.seq), array_agg(p.position ORDER BY p.seq)
FROM runtime.archived_runs a, unnest(a.positions) WITH ORDINALITY AS p (position, seq)
GROUP BY 1, 2, 3;

CREATE TRIGGER archived_positions_append_only BEFORE UPDATE OR DELETE ON runtime.archived_positions
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER archived_positions_not_truncated BEFORE TRUNCATE ON runtime.archived_positions
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

REVOKE ALL ON runtime.archived_positions FROM runtime_app;
GRANT SELECT ON runtime.archived_positions TO runtime_app;
