-- Where the log was last seen includes the OID of the table `events`, which a restore of a dump makes anew: without it, a
-- dump that was restored into the same server was taken for the log that had been there.
ALTER TABLE runtime.installation ADD COLUMN table_oid bigint;
-- From now on, so that the release does not take its own column for another history.
UPDATE runtime.installation SET table_oid = 'runtime.events'::regclass::oid::bigint;
GRANT UPDATE (table_oid) ON runtime.installation TO runtime_app;
