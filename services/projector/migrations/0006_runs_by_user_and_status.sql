-- The same for the runs of one person or service account.
CREATE INDEX CONCURRENTLY IF NOT EXISTS run_summaries_by_user_and_status
    ON projection.run_summaries (version, user_id, org_id, status, run_id DESC);
