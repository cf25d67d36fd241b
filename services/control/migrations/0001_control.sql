-- People, orgs, sessions, service accounts, limits and the audit trail.
-- What is secret is stored as a MAC under a key that is not in the database, or not at all.

CREATE TABLE control.users (
    user_id    text PRIMARY KEY,
    email      text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL
);

CREATE TABLE control.orgs (
    org_id      text PRIMARY KEY,
    name        text NOT NULL,
    -- The person whose own org it is; one each.
    personal_of text UNIQUE REFERENCES control.users,
    created_at  timestamptz NOT NULL
);

CREATE TABLE control.memberships (
    org_id     text NOT NULL REFERENCES control.orgs,
    user_id    text NOT NULL REFERENCES control.users,
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_by_user ON control.memberships (user_id);

CREATE TABLE control.challenges (
    challenge_id text PRIMARY KEY,
    email        text NOT NULL,
    device_id    text NOT NULL,
    code_hash    bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    guesses      integer NOT NULL DEFAULT 0,
    ended        text CHECK (ended IN ('used', 'replaced', 'exhausted'))
);
-- One live code per address, whatever the code of the program thinks.
CREATE UNIQUE INDEX challenges_live ON control.challenges (email) WHERE ended IS NULL;
CREATE INDEX challenges_by_age ON control.challenges (created_at);

CREATE TABLE control.sessions (
    session_id    text PRIMARY KEY,
    user_id       text NOT NULL REFERENCES control.users,
    org_id        text NOT NULL REFERENCES control.orgs,
    device_id     text NOT NULL,
    -- Of the refresh token that rotates next. The token itself is made from it and a key, and stored nowhere.
    counter       bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    refreshed_at  timestamptz NOT NULL,
    revoked_at    timestamptz,
    revoke_reason text,
    CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
);
CREATE INDEX sessions_by_user ON control.sessions (user_id, created_at DESC);

CREATE TABLE control.service_accounts (
    service_account_id text PRIMARY KEY,
    org_id             text NOT NULL REFERENCES control.orgs,
    name               text NOT NULL,
    key_hash           bytea NOT NULL UNIQUE,
    created_by         text NOT NULL,
    created_at         timestamptz NOT NULL,
    revoked_at         timestamptz
);
CREATE INDEX service_accounts_by_org ON control.service_accounts (org_id, created_at DESC);

-- One number a bucket (GCRA): when it would be empty. A row whose moment has passed says nothing and may go.
CREATE TABLE control.rate_limits (
    bucket   text PRIMARY KEY,
    empty_at timestamptz NOT NULL
);
CREATE INDEX rate_limits_by_age ON control.rate_limits (empty_at);

CREATE TABLE control.audit_events (
    audit_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    action      text NOT NULL,
    -- Empty when it was allowed and needs no reason.
    reason      text NOT NULL,
    actor       text NOT NULL,
    org_id      text NOT NULL,
    target      text NOT NULL,
    network     text NOT NULL,
    request_id  text NOT NULL
);
CREATE INDEX audit_events_by_org ON control.audit_events (org_id, audit_id);
CREATE INDEX audit_events_by_actor ON control.audit_events (actor, audit_id);
-- What was recorded stays as it was recorded.
REVOKE UPDATE, DELETE, TRUNCATE ON control.audit_events FROM control_app;
