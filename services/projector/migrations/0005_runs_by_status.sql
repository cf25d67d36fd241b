-- The runs of an org with one status, newest first: a list of those that run, or that failed, does not read all the others.
CREATE INDEX CONCURRENTLY IF NOT EXISTS run_summaries_by_status
    ON projection.run_summaries (version, org_id, status, run_id DESC);
