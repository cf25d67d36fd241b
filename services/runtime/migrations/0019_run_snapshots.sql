-- What a snapshot of a run shows of its events (docs/protocol/topics.md) is found without reading all of them: there are
-- few of these among pieces of output and tool calls.
CREATE INDEX events_shown ON runtime.events (run_id, type, seq)
    WHERE type IN ('message', 'progress.reported', 'request.answered', 'request.expired', 'request.opened', 'run.started',
                   'step.completed');
