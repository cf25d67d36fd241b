-- Which earlier key vouches for a key, for those who have pinned the earlier one.
CREATE TABLE runtime.receipt_key_endorsements (
    key_id      text        PRIMARY KEY REFERENCES runtime.receipt_keys,
    endorsed_by text        NOT NULL REFERENCES runtime.receipt_keys CHECK (endorsed_by <> key_id),
    signature   bytea       NOT NULL CHECK (octet_length(signature) = 64),
    endorsed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER receipt_key_endorsements_append_only BEFORE UPDATE OR DELETE ON runtime.receipt_key_endorsements
    FOR EACH ROW EXECUTE FUNCTION runtime.refuse_change();
CREATE TRIGGER receipt_key_endorsements_not_truncated BEFORE TRUNCATE ON runtime.receipt_key_endorsements
    FOR EACH STATEMENT EXECUTE FUNCTION runtime.refuse_change();
REVOKE ALL ON runtime.receipt_key_endorsements FROM runtime_app;
GRANT SELECT, INSERT ON runtime.receipt_key_endorsements TO runtime_app;
