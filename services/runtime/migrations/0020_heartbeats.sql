-- Every heartbeat changed this index, and with it all indexes of the table: nobody looks for a time in it. Workers that have not
-- ended are found by workers_of_accounts.
DROP INDEX CONCURRENTLY IF EXISTS runtime.workers_attached;
