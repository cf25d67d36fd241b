-- Which replica a worker's stream is at, and whether that replica is there: a worker can't be heard while it is not.
-- Replicas of an earlier version leave `replica_id` empty.
ALTER TABLE runtime.workers ADD COLUMN replica_id text NOT NULL DEFAULT '';

-- The replicas that look after workers. Each counts on with every look; one that stands still is absent. Nobody compares
-- times: a clock may step.
CREATE TABLE runtime.replicas (
    replica_id text   COLLATE "C" PRIMARY KEY,
    looks      bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

REVOKE ALL ON runtime.replicas FROM runtime_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON runtime.replicas TO runtime_app;
