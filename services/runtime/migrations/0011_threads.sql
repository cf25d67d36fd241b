-- Threads: the runs of an org with one id are one conversation. `thread_policy` is empty for a run that goes on beside the
-- others of its thread. Runs of before have no thread here: what their specs name was for people to read.
ALTER TABLE runtime.runs
    ADD COLUMN thread_id     text NOT NULL DEFAULT '',
    ADD COLUMN thread_policy text NOT NULL DEFAULT '' CHECK (thread_policy IN ('', 'reject', 'enqueue', 'interrupt'));
CREATE INDEX runs_of_threads ON runtime.runs (org_id, thread_id, run_id)
    WHERE thread_id <> '' AND status IN ('created', 'running', 'canceling');
CREATE INDEX runs_interrupting ON runtime.runs (run_id) WHERE thread_policy = 'interrupt' AND status = 'created';
