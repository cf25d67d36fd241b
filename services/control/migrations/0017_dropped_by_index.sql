-- The oldest audit events of a chain are found by the chain. Before, every call read all seals twice and all events once:
-- with millions of them it came to its time limit, and nothing was dropped any more.
CREATE OR REPLACE FUNCTION control.drop_audit_events(before timestamptz, most integer) RETURNS bigint
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
    ), going AS MATERIALIZED (
        -- OFFSET keeps it apart: joined with all seals, it would read all of them.
        SELECT s.audit_id, s.sequence < d.sequence AS is_before_last
        FROM ended d CROSS JOIN LATERAL (
            SELECT a.audit_id, a.sequence FROM control.audit_seals a
            WHERE a.org_id = d.org_id AND a.sequence <= d.sequence OFFSET 0
        ) s
    ), events AS (
        DELETE FROM control.audit_events WHERE audit_id = ANY(ARRAY(SELECT audit_id FROM going)) RETURNING audit_id
    ), seals AS (
        DELETE FROM control.audit_seals WHERE audit_id = ANY(ARRAY(SELECT audit_id FROM going WHERE is_before_last))
    )
    SELECT count(*) INTO dropped FROM events;
    RETURN dropped;
END
$$;
