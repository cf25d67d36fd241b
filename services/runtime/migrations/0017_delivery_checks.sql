-- Counted on by every replica that gateways watch, for them to see that what is committed here arrives.
CREATE TABLE runtime.delivery_checks (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO runtime.delivery_checks DEFAULT VALUES;

REVOKE ALL ON runtime.delivery_checks FROM runtime_app;
GRANT SELECT, UPDATE ON runtime.delivery_checks TO runtime_app;
