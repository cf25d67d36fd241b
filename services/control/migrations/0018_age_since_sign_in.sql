-- A session's maximum lifetime counts from the last sign-in of its person. `session_created_at` is that time now; it keeps
-- its name for replicas of the previous release.
CREATE OR REPLACE FUNCTION control.record_if_acting(
    acting_session text, acting_user text, acting_org text, roles text[],
    occurred_at timestamptz, action text, reason text, target text, network text, request_id text
) RETURNS TABLE (session_created_at timestamptz, session_refreshed_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(control.tokens_lock(acting_org));
    SELECT coalesce(s.signed_in_again_at, s.created_at), s.refreshed_at INTO session_created_at, session_refreshed_at
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
