"""Everything that a process tells its operators: logs, metrics, traces, and the request that they belong to."""
