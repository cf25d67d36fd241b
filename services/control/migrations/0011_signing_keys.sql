-- The keys that sign tokens, after the one of the settings. Operators make them; all replicas follow.

-- sealed is the private key, encrypted by what is derived from the HMAC key; null for a key of the settings, which stands
-- here only so that all replicas know when it ends. A key is published from the beginning, signs from signs_from on until
-- a newer one does, and verifies until ends_at; null: no end yet.
CREATE TABLE control.signing_keys (
    key_id     text PRIMARY KEY,
    sealed     bytea,
    made_at    timestamptz NOT NULL,
    signs_from timestamptz NOT NULL,
    ends_at    timestamptz
);
