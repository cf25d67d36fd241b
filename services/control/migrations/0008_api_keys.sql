-- API keys apart from what they sign in, several of them each; and blocking.
CREATE TABLE control.api_keys (
    api_key_id    text PRIMARY KEY,
    -- A service account or a person.
    owner         text NOT NULL,
    org_id        text NOT NULL REFERENCES control.orgs,
    name          text NOT NULL,
    -- How the key begins; empty as long as nobody has seen it again.
    prefix        text NOT NULL,
    key_hash      bytea NOT NULL UNIQUE,
    scopes        text[] NOT NULL,
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    last_used_at  timestamptz,
    -- When its use after its end was last put on record.
    refused_at    timestamptz,
    revoked_at    timestamptz,
    revoke_reason text,
    replaced_by   text,
    CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL)),
    -- A person's key has an end, whatever the code of the program thinks.
    CHECK (owner LIKE 'sva\_%' OR expires_at IS NOT NULL)
);
CREATE INDEX api_keys_by_owner ON control.api_keys (owner, created_at DESC);
CREATE INDEX api_keys_by_end ON control.api_keys (expires_at) WHERE revoked_at IS NULL AND expires_at IS NOT NULL;

INSERT INTO control.api_keys (api_key_id, owner, org_id, name, prefix, key_hash, scopes, created_by, created_at)
SELECT 'apk_' || substr(service_account_id, 5), service_account_id, org_id, name, '', key_hash,
       ARRAY['runs.read', 'runs.write', 'workers.attach', 'workers.read'], created_by, created_at
FROM control.service_accounts;

-- The release before keeps the one key of an account here. It goes on doing so, and finds here what it understands: a
-- key with all scopes and without an end.
ALTER TABLE control.service_accounts ALTER COLUMN key_hash DROP NOT NULL;

CREATE FUNCTION control.key_of_the_release_before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control.api_keys (api_key_id, owner, org_id, name, prefix, key_hash, scopes, created_by, created_at)
    VALUES ('apk_' || substr(NEW.service_account_id, 5), NEW.service_account_id, NEW.org_id, NEW.name, '', NEW.key_hash,
            ARRAY['runs.read', 'runs.write', 'workers.attach', 'workers.read'], NEW.created_by, NEW.created_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER key_of_the_release_before AFTER INSERT ON control.service_accounts
    FOR EACH ROW WHEN (NEW.key_hash IS NOT NULL) EXECUTE FUNCTION control.key_of_the_release_before();

ALTER TABLE control.users ADD COLUMN blocked_at timestamptz;
ALTER TABLE control.service_accounts ADD COLUMN blocked_at timestamptz;
