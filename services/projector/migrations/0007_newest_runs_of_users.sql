-- The newest runs of one person in all orgs: the snapshot of the person's topic does not sort all of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS run_summaries_newest_of_user
    ON projection.run_summaries (version, user_id, run_id DESC);
