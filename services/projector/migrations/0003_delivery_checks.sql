-- Counted on by every replica that gateways watch, for them to see that what is committed here arrives.
CREATE TABLE projection.delivery_checks (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO projection.delivery_checks DEFAULT VALUES;
REVOKE INSERT, DELETE ON projection.delivery_checks FROM projector_app;
