-- Workers that have not ended, as org:…:workers told of them last: a serialized openagents.runtime.v1.Worker each.
CREATE TABLE projection.workers (
    worker_id text  COLLATE "C" PRIMARY KEY,
    org_id    text  NOT NULL,
    document  bytea NOT NULL
);
CREATE INDEX workers_of_orgs ON projection.workers (org_id, worker_id);
COMMENT ON COLUMN projection.journal.run_id IS 'The run or the worker that the row is about.';
