-- What workers ask for of a run's events, beside those of `events_shown`, is found without reading all of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_asked_for ON runtime.events (run_id, type, seq)
    WHERE type IN ('checkpoint.saved', 'child.finished', 'child.started', 'input.received');
