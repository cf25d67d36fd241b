"""Limits of runs."""

from __future__ import annotations

from dataclasses import dataclass

from oa_runlog.events import DEFAULT_RETENTION_CLASS


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of runs. All of them are settings of the runtime service, see docs/config.md.

    `max_running_per_…`: how many runs of an org, and of one person in it, workers may hold at a time, not counting
    ancestors of other runs that they hold; 0 is no limit.
    """

    max_event_bytes: int = 262_144
    max_append_bytes: int = 1_048_576
    max_input_bytes: int = 196_608
    max_result_bytes: int = 196_608
    max_checkpoint_bytes: int = 196_608
    events_per_second: int = 240
    burst_events: int = 500
    max_requeues: int = 3
    cancel_deadline_ms: int = 10_000
    retention_classes: frozenset[str] = frozenset({DEFAULT_RETENTION_CLASS})
    max_running_per_org: int = 0
    max_running_per_person: int = 0
