-- Runs that were started by runs. `parent_told`: the parent's log has how the child ended, or needs it no more.
ALTER TABLE runtime.runs
    ADD COLUMN parent_run_id      text    COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN cancel_with_parent boolean NOT NULL DEFAULT false,
    ADD COLUMN parent_told        boolean NOT NULL DEFAULT false;
CREATE INDEX runs_of_parents ON runtime.runs (parent_run_id) WHERE parent_run_id <> '';
CREATE INDEX runs_to_tell ON runtime.runs (finish_time)
    WHERE parent_run_id <> '' AND NOT parent_told AND finish_time IS NOT NULL;
CREATE INDEX runs_to_cancel_with_parents ON runtime.runs (run_id)
    WHERE parent_run_id <> '' AND cancel_with_parent AND status IN ('created', 'running');
