-- Accounts that have ended for good, as control has told. Control forgets it once their tokens have expired; what they
-- have left here, such as schedules, lasts longer.
CREATE TABLE runtime.ended_accounts (
    account_id text        COLLATE "C" PRIMARY KEY CHECK (account_id <> ''),
    heard_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX schedules_of_owners ON runtime.schedules (user_id) WHERE status = 'active';
CREATE INDEX workers_of_accounts ON runtime.workers (service_account_id)
    WHERE status IN ('starting', 'running', 'draining');

REVOKE ALL ON runtime.ended_accounts FROM runtime_app;
GRANT SELECT, INSERT ON runtime.ended_accounts TO runtime_app;
