-- Orgs of several people: deleting one, inviting into one, and sessions that act in one.

-- When it is to be gone, while it can still be restored.
ALTER TABLE control.orgs ADD COLUMN delete_at timestamptz;
-- Since when it is gone. The row stays: runs and the audit trail name it.
ALTER TABLE control.orgs ADD COLUMN gone_at timestamptz;
ALTER TABLE control.orgs ADD CONSTRAINT orgs_personal_stays CHECK (personal_of IS NULL OR delete_at IS NULL);
ALTER TABLE control.orgs ADD CONSTRAINT orgs_gone_after_deletion CHECK (gone_at IS NULL OR delete_at IS NOT NULL);
CREATE INDEX orgs_to_go ON control.orgs (delete_at) WHERE delete_at IS NOT NULL AND gone_at IS NULL;

-- What is to fall back to its person's own org.
CREATE INDEX sessions_by_org ON control.sessions (org_id) WHERE revoked_at IS NULL;

CREATE TABLE control.invitations (
    invitation_id text PRIMARY KEY,
    org_id        text NOT NULL REFERENCES control.orgs,
    email         text NOT NULL CHECK (email IS NFC NORMALIZED),
    role          text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    invited_by    text NOT NULL REFERENCES control.users,
    created_at    timestamptz NOT NULL,
    -- Of the newest mail; the invitation lives from then.
    sent_at       timestamptz NOT NULL,
    mails         integer NOT NULL DEFAULT 1,
    expires_at    timestamptz NOT NULL,
    ended         text CHECK (ended IN ('accepted', 'declined', 'revoked', 'replaced'))
);
-- One open invitation of an address into an org, whatever the code of the program thinks.
CREATE UNIQUE INDEX invitations_open ON control.invitations (org_id, email) WHERE ended IS NULL;
CREATE INDEX invitations_by_org ON control.invitations (org_id, created_at);
CREATE INDEX invitations_by_email ON control.invitations (email, created_at);
CREATE INDEX invitations_by_age ON control.invitations (expires_at);

-- A revocation may be of all that an org has.
ALTER TABLE control.revocations DROP CONSTRAINT revocations_check;
ALTER TABLE control.revocations ADD CONSTRAINT revocations_names_something
    CHECK (session_id <> '' OR subject <> '' OR org_id <> '');
