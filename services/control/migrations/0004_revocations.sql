-- What was revoked, in one order, for every service that takes tokens (ADR 0029).
--
-- A position is given in the transaction that revokes, under the lock of this one row: positions have no hole, and their
-- order is that of the commits. A sequence has neither: who reads up to one of its numbers may miss a smaller one that is
-- committed later.
CREATE TABLE control.revocation_head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    position bigint NOT NULL
);

-- Ends the tokens that match each text that isn't empty; with issued_before, only those from before that time.
CREATE TABLE control.revocations (
    position      bigint PRIMARY KEY,
    session_id    text NOT NULL,
    subject       text NOT NULL,
    org_id        text NOT NULL,
    issued_before timestamptz,
    revoked_at    timestamptz NOT NULL,
    reason        text NOT NULL,
    CHECK (session_id <> '' OR subject <> '')
);
CREATE INDEX revocations_by_age ON control.revocations (revoked_at);

-- Tokens of what was revoked before may still be about.
INSERT INTO control.revocations (position, session_id, subject, org_id, revoked_at, reason)
SELECT row_number() OVER (ORDER BY revoked_at, session_id, subject), session_id, subject, '', revoked_at, reason
FROM (
    SELECT session_id, '' AS subject, revoked_at, revoke_reason AS reason
    FROM control.sessions WHERE revoked_at > now() - interval '25 hours'
    UNION ALL
    SELECT '', service_account_id, revoked_at, 'account_revoked'
    FROM control.service_accounts WHERE revoked_at > now() - interval '25 hours'
) AS before;

INSERT INTO control.revocation_head (position) SELECT COALESCE(max(position), 0) FROM control.revocations;
