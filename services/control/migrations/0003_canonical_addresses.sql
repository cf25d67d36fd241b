-- Addresses in Unicode's composed form (NFC). Before, the same name typed on two devices could be two accounts.
--
-- Where two accounts have one address, the older keeps it. The newer is set aside: it keeps its org, its runs, its keys
-- and the sessions that it has, but nobody can sign in to it again, as its address becomes `set-aside:<user_id>`. An
-- audit event says which. Nothing is merged: which of the two somebody wants to keep is theirs to say
-- (docs/runbooks/account-set-aside.md).
--
-- Addresses with characters that nobody sees (zero-width, direction) are no longer taken at a sign-in. Accounts that have
-- one stay as they are, and can't be signed in to again.

-- Codes on their way live ten minutes; the next one is for the composed address.
UPDATE control.challenges SET ended = 'replaced' WHERE ended IS NULL AND email IS NOT NFC NORMALIZED;

WITH ranked AS (
    SELECT user_id,
           row_number() OVER (PARTITION BY normalize(email, NFC) ORDER BY created_at, user_id) AS place
    FROM control.users
), aside AS (
    UPDATE control.users u SET email = 'set-aside:' || u.user_id
    FROM ranked r WHERE r.user_id = u.user_id AND r.place > 1
    RETURNING u.user_id
)
INSERT INTO control.audit_events (occurred_at, action, reason, actor, org_id, target, network, request_id)
SELECT now(), 'user.set_aside', 'same_address', 'migration', COALESCE(o.org_id, ''), a.user_id, '', ''
FROM aside a LEFT JOIN control.orgs o ON o.personal_of = a.user_id;

UPDATE control.users SET email = normalize(email, NFC) WHERE email IS NOT NFC NORMALIZED;

-- Whatever the code of the program thinks.
ALTER TABLE control.users ADD CONSTRAINT users_email_composed CHECK (email IS NFC NORMALIZED);
ALTER TABLE control.challenges ADD CONSTRAINT challenges_email_composed
    CHECK (ended IS NOT NULL OR email IS NFC NORMALIZED);
