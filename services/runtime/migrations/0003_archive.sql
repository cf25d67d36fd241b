-- The archive (docs/protocol/archive.md): the events of a run that finished long ago leave the log, once a replay
-- artifact of all of them was stored elsewhere, read back and verified. Their run, receipt, head and floor stay.

-- What the archive holds. `positions` are those that the events had in their partition, in the order of seq: with the
-- artifact they say all that the pruned rows said of the order of things.
CREATE TABLE runtime.archived_runs (
    run_id       text        COLLATE "C" PRIMARY KEY REFERENCES runtime.runs,
    partition    integer     NOT NULL,
    positions    bigint[]    NOT NULL CHECK (cardinality(positions) > 0),
    sha256       bytea       NOT NULL CHECK (octet_length(sha256) = 32),
    bytes        bigint      NOT NULL CHECK (bytes > 0),
    stored_bytes bigint      NOT NULL CHECK (stored_bytes > 0),
    object       text        NOT NULL CHECK (object <> ''),
    archived_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE runtime.runs ADD COLUMN archived boolean NOT NULL DEFAULT false;
CREATE INDEX runs_to_archive ON runtime.runs (finish_time) WHERE finish_time IS NOT NULL AND NOT archived;

-- The highest position of each partition that was pruned. Above it the log has no hole; who wants to read from below
-- it is refused and never skips.
CREATE TABLE runtime.log_floors (
    partition integer PRIMARY KEY REFERENCES runtime.log_heads,
    position  bigint  NOT NULL DEFAULT 0 CHECK (position >= 0)
);
INSERT INTO runtime.log_floors (partition) SELECT partition FROM runtime.log_heads;

-- Which replica archives. Two at once would be a waste and no harm.
CREATE TABLE runtime.archiver (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    holder   text        NOT NULL DEFAULT '',
    until    timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO runtime.archiver DEFAULT VALUES;

-- Records that a run is in the archive, and prunes its events: both or neither. The only way to delete an event.
-- `verified_chain`: the chain head that the caller computed from the artifact that it read back. False: done before.
CREATE FUNCTION runtime.archive_run(
    the_run text, the_sha256 bytea, the_bytes bigint, the_stored_bytes bigint, the_object text, verified_chain bytea
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    run   runtime.runs;
    kept  bigint[];
    chain bytea;
BEGIN
    SELECT * INTO run FROM runtime.runs WHERE run_id = the_run FOR UPDATE;
    IF run.archived THEN
        RETURN false;
    END IF;
    IF run.finish_time IS NULL OR NOT EXISTS (SELECT FROM runtime.receipts WHERE run_id = the_run) THEN
        RAISE EXCEPTION 'the run has not finished' USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT array_agg(position ORDER BY seq), (array_agg(e.chain ORDER BY seq DESC))[1] INTO kept, chain
    FROM runtime.events e WHERE run_id = the_run;
    IF cardinality(kept) IS DISTINCT FROM run.latest_seq OR chain IS DISTINCT FROM run.chain_head
       OR verified_chain IS DISTINCT FROM run.chain_head THEN
        RAISE EXCEPTION 'the artifact is not that of the run' USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO runtime.archived_runs (run_id, partition, positions, sha256, bytes, stored_bytes, object)
    VALUES (the_run, run.partition, kept, the_sha256, the_bytes, the_stored_bytes, the_object);
    UPDATE runtime.log_floors f SET position = greatest(f.position, (SELECT max(p) FROM unnest(kept) p))
    WHERE partition = run.partition;
    UPDATE runtime.runs SET archived = true WHERE run_id = the_run;
    DELETE FROM runtime.events WHERE run_id = the_run;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION runtime.archive_run FROM PUBLIC;
GRANT EXECUTE ON FUNCTION runtime.archive_run TO runtime_app;

-- Events are append-only still, for the owner too, but for those of an archived run.
DROP TRIGGER events_append_only ON runtime.events;
CREATE TRIGGER events_append_only BEFORE UPDATE ON runtime.events
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE FUNCTION runtime.refuse_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM gone WHERE NOT EXISTS (SELECT FROM runtime.archived_runs a WHERE a.run_id = gone.run_id)
    ) THEN
        RAISE EXCEPTION 'runtime.events is append-only: the run is not in the archive'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER events_not_lost AFTER DELETE ON runtime.events
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_loss();

CREATE TRIGGER archived_runs_append_only BEFORE UPDATE OR DELETE ON runtime.archived_runs
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER archived_runs_not_truncated BEFORE TRUNCATE ON runtime.archived_runs
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

REVOKE ALL ON runtime.archived_runs, runtime.log_floors, runtime.archiver FROM runtime_app;
GRANT SELECT ON runtime.archived_runs, runtime.log_floors TO runtime_app;
GRANT SELECT, UPDATE ON runtime.archiver TO runtime_app;
