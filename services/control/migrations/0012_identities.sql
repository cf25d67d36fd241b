-- Signing in with an identity provider.

-- A sign-in that a device has begun at a provider. Its state, nonce and PKCE verifier are made from its id and a key
-- that is not in the database.
CREATE TABLE control.provider_sign_ins (
    sign_in_id   text PRIMARY KEY,
    provider     text NOT NULL,
    device_id    text NOT NULL,
    redirect_uri text NOT NULL,
    created_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX provider_sign_ins_by_age ON control.provider_sign_ins (created_at);

-- Whom a provider means by a subject. The pair stays when the address at the provider changes.
CREATE TABLE control.identities (
    issuer     text NOT NULL,
    subject    text NOT NULL,
    user_id    text NOT NULL REFERENCES control.users,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_user ON control.identities (user_id);
