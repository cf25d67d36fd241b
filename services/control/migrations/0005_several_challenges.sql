-- Mail waits in the database, and a person may have several codes at a time, one a device.
--
-- A mail has no text: it is written when the mail leaves, from what it is about and a key that is not in the database.
CREATE TABLE control.mails (
    mail_id    text PRIMARY KEY,
    kind       text NOT NULL,
    address    text NOT NULL,
    -- What it tells of: an id.
    about      text NOT NULL,
    created_at timestamptz NOT NULL,
    -- When it is tried next; while a replica has it on its way, when that one has failed.
    due_at     timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0
);
CREATE INDEX mails_by_due ON control.mails (due_at);
CREATE INDEX mails_by_about ON control.mails (about);
CREATE INDEX mails_by_expiry ON control.mails (expires_at);

-- A code that somebody else asked for no longer takes the place of one's own. Not unique: the release before replaces
-- whichever live code of the address it finds first.
DROP INDEX control.challenges_live;
CREATE INDEX challenges_live ON control.challenges (email, device_id) WHERE ended IS NULL;

-- Which devices an account has been used on.
CREATE INDEX sessions_by_device ON control.sessions (device_id, user_id);
