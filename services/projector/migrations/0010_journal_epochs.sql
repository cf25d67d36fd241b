-- The journal gets a new epoch when rows that clients have are gone, or when nobody can tell.

-- Where the journal was last seen: the server, and the OID of the table `journal`, which a restore of a dump makes
-- anew. NULL until a projector has looked.
ALTER TABLE projection.journal_epoch
    ADD COLUMN system_identifier bigint,
    ADD COLUMN timeline          integer CHECK (timeline > 0),
    ADD COLUMN table_oid         bigint;

-- Every epoch that the journal had from now on, and why it was given.
CREATE TABLE projection.journal_epochs (
    number   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch    text        NOT NULL UNIQUE CHECK (epoch <> ''),
    given_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cause    text        NOT NULL CHECK (cause IN ('installed', 'ordered', 'events_missing', 'history_unknown')),
    given_by text        NOT NULL,
    detail   text        NOT NULL
);
INSERT INTO projection.journal_epochs (epoch, cause, given_by, detail)
SELECT epoch, 'installed', 'migration', '' FROM projection.journal_epoch;

-- The only way to another epoch for the service, so that none is given without a record of it. The new epoch has been
-- seen nowhere yet. Returns the journal's epoch, which is another one than `given` if somebody was faster.
CREATE FUNCTION projection.give_journal_epoch(expected text, given text, cause text, given_by text, detail text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current text;
BEGIN
    SELECT epoch INTO current FROM projection.journal_epoch FOR UPDATE;
    IF current <> expected THEN
        RETURN current;
    END IF;
    UPDATE projection.journal_epoch SET epoch = given, system_identifier = NULL, timeline = NULL, table_oid = NULL;
    INSERT INTO projection.journal_epochs (epoch, cause, given_by, detail) VALUES (given, cause, given_by, detail);
    RETURN given;
END
$$;

REVOKE ALL ON projection.journal_epochs FROM projector_app;
REVOKE ALL ON FUNCTION projection.give_journal_epoch FROM PUBLIC;
GRANT SELECT ON projection.journal_epochs TO projector_app;
GRANT EXECUTE ON FUNCTION projection.give_journal_epoch TO projector_app;
GRANT UPDATE (system_identifier, timeline, table_oid) ON projection.journal_epoch TO projector_app;
