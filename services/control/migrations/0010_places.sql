-- What a revocation means for what needs no token, such as a schedule: somebody has lost the place from which runs are
-- started, or has it back (docs/operations/revocation.md).
ALTER TABLE control.revocations ADD COLUMN place_change text NOT NULL DEFAULT ''
    CHECK (place_change IN ('', 'lost', 'back'));

-- Places that were lost before there was word of it. Who was removed from an org before this is not known any more.
WITH lost AS (
    SELECT user_id AS subject, '' AS org_id, blocked_at AS since, 'account_blocked' AS reason
    FROM control.users WHERE blocked_at IS NOT NULL
    UNION ALL
    SELECT service_account_id, '', blocked_at, 'account_blocked'
    FROM control.service_accounts WHERE blocked_at IS NOT NULL AND revoked_at IS NULL
    UNION ALL
    SELECT '', org_id, now(), 'org_deleted' FROM control.orgs WHERE delete_at IS NOT NULL
), head AS (
    SELECT position FROM control.revocation_head FOR UPDATE
), placed AS (
    INSERT INTO control.revocations (position, session_id, subject, org_id, issued_before, revoked_at, reason,
        place_change)
    SELECT head.position + row_number() OVER (ORDER BY since, subject, org_id), '', subject, org_id, since, now(),
           reason, 'lost'
    FROM lost CROSS JOIN head RETURNING position
)
UPDATE control.revocation_head SET position = (SELECT max(position) FROM placed) WHERE EXISTS (SELECT FROM placed);
