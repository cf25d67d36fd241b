-- A mint of a person is one statement.

-- The key of the lock between who issues tokens of an org and who revokes them.
CREATE FUNCTION control.tokens_lock(of_org text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('tokens of ' || of_org, 0)
$$;

-- Puts an entry on record for a session that acts in an org which is open, for a person with one of the roles there, and
-- returns when the session was made and refreshed; otherwise it does nothing, and returns no row. Until the statement ends
-- nobody revokes tokens of the org. Each statement in here sees what was committed before it: one that waited for the lock
-- sees what those did who had it.
CREATE FUNCTION control.record_if_acting(
    acting_session text, acting_user text, acting_org text, roles text[],
    occurred_at timestamptz, action text, reason text, target text, network text, request_id text
) RETURNS TABLE (session_created_at timestamptz, session_refreshed_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(control.tokens_lock(acting_org));
    SELECT s.created_at, s.refreshed_at INTO session_created_at, session_refreshed_at
    FROM control.sessions s
    JOIN control.orgs o ON o.org_id = s.org_id
    JOIN control.memberships m ON m.org_id = s.org_id AND m.user_id = s.user_id
    WHERE s.session_id = acting_session AND s.user_id = acting_user AND s.org_id = acting_org
      AND s.revoked_at IS NULL AND o.delete_at IS NULL AND m.role = ANY (roles);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO control.audit_events (occurred_at, action, reason, actor, org_id, target, network, request_id)
    VALUES (occurred_at, action, reason, acting_user, acting_org, target, network, request_id);
    RETURN NEXT;
END
$$;
