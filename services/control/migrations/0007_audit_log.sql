-- The audit log of an org is a hash chain (ADR 0034). What is recorded waits until some replica gives it its place: so
-- nobody who records something waits for another who does.

-- The lock of those who seal.
CREATE TABLE control.audit_sealing (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO control.audit_sealing DEFAULT VALUES;

-- Events without a place in a chain, put there by a trigger in the transaction that records them: none can be forgotten,
-- whichever release wrote it.
CREATE TABLE control.audit_waiting (
    audit_id bigint PRIMARY KEY REFERENCES control.audit_events
);
CREATE FUNCTION control.note_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control.audit_waiting (audit_id) SELECT audit_id FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_events_wait AFTER INSERT ON control.audit_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION control.note_audit_event();
INSERT INTO control.audit_waiting (audit_id) SELECT audit_id FROM control.audit_events;

-- The place of an event in the chain of its org ('' for what has none), and the chain after it. The seal before the oldest
-- event that is kept has no event any more: it is what the chain goes on from.
CREATE TABLE control.audit_seals (
    org_id   text   NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    audit_id bigint NOT NULL UNIQUE,
    chain    bytea  NOT NULL CHECK (octet_length(chain) = 32),
    PRIMARY KEY (org_id, sequence)
);

-- An event stops waiting only by being sealed.
CREATE FUNCTION control.refuse_unsealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM control.audit_seals WHERE audit_id = OLD.audit_id) THEN
        RAISE EXCEPTION 'the audit event is not sealed yet' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER audit_waiting_until_sealed BEFORE DELETE ON control.audit_waiting
    FOR EACH ROW EXECUTE FUNCTION control.refuse_unsealed();

-- What others did to a person.
CREATE INDEX audit_events_by_person ON control.audit_events (target, audit_id) WHERE starts_with(target, 'usr_');

-- The only way in which the service's role can remove events: the oldest of each chain, sealed, and never those of the
-- last 30 days. `most` bounds one call. The last seal that goes stays, without its event.
CREATE FUNCTION control.drop_audit_events(before timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    bound constant timestamptz := least(before, now() - interval '30 days');
    dropped bigint;
BEGIN
    PERFORM FROM control.audit_sealing FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH oldest AS (
        SELECT audit_id, occurred_at FROM control.audit_events ORDER BY audit_id LIMIT most
    ), reached AS (
        SELECT s.org_id, max(s.sequence) AS sequence
        FROM oldest o JOIN control.audit_seals s USING (audit_id) WHERE o.occurred_at < bound GROUP BY s.org_id
    ), ended AS (
        -- Up to the first that must stay: a chain has no hole.
        SELECT r.org_id, coalesce((
            SELECT min(s.sequence) - 1 FROM control.audit_seals s JOIN control.audit_events e USING (audit_id)
            WHERE s.org_id = r.org_id AND s.sequence <= r.sequence AND e.occurred_at >= bound
        ), r.sequence) AS sequence
        FROM reached r
    ), events AS (
        DELETE FROM control.audit_events e USING control.audit_seals s, ended d
        WHERE s.audit_id = e.audit_id AND s.org_id = d.org_id AND s.sequence <= d.sequence
        RETURNING e.audit_id
    ), seals AS (
        DELETE FROM control.audit_seals s USING ended d WHERE s.org_id = d.org_id AND s.sequence < d.sequence
    )
    SELECT count(*) INTO dropped FROM events;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION control.drop_audit_events(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.drop_audit_events(timestamptz, integer) TO control_app;

REVOKE ALL ON control.audit_sealing, control.audit_waiting, control.audit_seals FROM control_app;
GRANT SELECT, UPDATE ON control.audit_sealing TO control_app;
GRANT SELECT, INSERT, DELETE ON control.audit_waiting TO control_app;
GRANT SELECT, INSERT ON control.audit_seals TO control_app;
