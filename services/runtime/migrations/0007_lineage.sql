-- What a replica knows of the log is bound to what the log holds, not to numbers alone: a server that took another's
-- place may have the same numbers and another past.

-- The chain value of the event at the head; NULL when that event had been archived before this column came.
ALTER TABLE runtime.log_heads ADD COLUMN chain bytea CHECK (octet_length(chain) = 32);
UPDATE runtime.log_heads h SET chain = e.chain
FROM runtime.events e WHERE e.partition = h.partition AND e.position = h.position;

-- A run as a batch was decided on it from memory: stored only if it still stands there.
CREATE TYPE runtime.known_run AS (
    run_id     text,
    latest_seq bigint,
    chain_head bytea
);

-- The log of receipts keeps its own name when the log gets a new epoch: its first one, which its checkpoints state.
ALTER TABLE runtime.installation ADD COLUMN receipt_log text CHECK (receipt_log <> '');
UPDATE runtime.installation SET receipt_log = log_epoch;
ALTER TABLE runtime.installation ALTER COLUMN receipt_log SET NOT NULL;

-- The history of the server that the log was last seen on; NULL until a replica has looked.
ALTER TABLE runtime.installation
    ADD COLUMN system_identifier bigint,
    ADD COLUMN timeline          integer CHECK (timeline > 0);

-- Every epoch that the log ever had, and why it was given. Never changed.
CREATE TABLE runtime.log_epochs (
    number    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_epoch text        NOT NULL UNIQUE CHECK (log_epoch <> ''),
    given_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause     text        NOT NULL CHECK (cause IN ('installed', 'ordered', 'events_missing', 'history_unknown')),
    given_by  text        NOT NULL,
    detail    text        NOT NULL
);
INSERT INTO runtime.log_epochs (log_epoch, given_at, cause, given_by, detail)
SELECT log_epoch, created_at, 'installed', 'migration', '' FROM runtime.installation;
CREATE TRIGGER log_epochs_append_only BEFORE UPDATE OR DELETE ON runtime.log_epochs
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER log_epochs_not_truncated BEFORE TRUNCATE ON runtime.log_epochs
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();

-- The only way to another epoch, so that none is given without a record of it. A batch that is under way is waited for:
-- what is stored before belongs to the old epoch, what is stored after to the new one. Every replica hears of it in the
-- order of the commits. Returns the log's epoch, which is another one than `given` if somebody was faster.
CREATE FUNCTION runtime.give_log_epoch(expected text, given text, cause text, given_by text, detail text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current text;
BEGIN
    PERFORM 1 FROM runtime.log_heads ORDER BY partition FOR UPDATE;
    SELECT log_epoch INTO current FROM runtime.installation FOR UPDATE;
    IF current <> expected THEN
        RETURN current;
    END IF;
    UPDATE runtime.installation SET log_epoch = given;
    INSERT INTO runtime.log_epochs (log_epoch, cause, given_by, detail) VALUES (given, cause, given_by, detail);
    PERFORM pg_notify('runtime_log', 'epoch');
    RETURN given;
END
$$;

REVOKE ALL ON runtime.log_epochs FROM runtime_app;
REVOKE ALL ON FUNCTION runtime.give_log_epoch FROM PUBLIC;
GRANT SELECT ON runtime.log_epochs TO runtime_app;
GRANT EXECUTE ON FUNCTION runtime.give_log_epoch TO runtime_app;
GRANT UPDATE (system_identifier, timeline) ON runtime.installation TO runtime_app;
