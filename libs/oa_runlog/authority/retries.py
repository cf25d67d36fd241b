"""Whether and when a run that a worker ended as failed is tried again. Pure."""

from __future__ import annotations

from oa_base.backoff import Backoff
from oa_base.clock import MS_NS
from oa_runlog.events import RetryPolicy, RunFinished
from oa_runlog.state import RunState

DAY_MS = 86_400_000
"""Maximum pause that can be set, and the maximum where none is set."""

LASTING = frozenset(
    {
        "adapter_not_available",
        "codex_turn_lost",
        "command_not_found",
        "invalid_input",
        "invalid_result",
        "invalid_spec",
        "invalid_value",
        "missing_field",
        "payload_too_large",
        "step_mismatch",
        "working_directory_not_found",
    }
)
"""Reasons for which another attempt would end the same way. It is made only if the policy names them."""


def retry_ns(state: RunState, failure: RunFinished, now_ns: int) -> int | None:
    """Return when a run that fails now is to be tried again; None when it is not.

    It is not tried again after its run timeout, whose end is `state.deadline_ns` once the run has been started.
    """
    policy = state.queue.retry
    if policy is None or state.failures + 1 >= policy.max_failures or not _covers(policy, failure.reason):
        return None
    when_ns = now_ns + pause_ms(policy, state.failures) * MS_NS
    is_late = state.deadline_ns is not None and when_ns >= state.deadline_ns
    return None if is_late else when_ns


def _covers(policy: RetryPolicy, reason: str) -> bool:
    return reason in policy.reasons if policy.reasons else reason not in LASTING


def pause_ms(policy: RetryPolicy, failures: int) -> int:
    """Return the pause after a failure that follows `failures` earlier ones, in milliseconds."""
    return Backoff(policy.initial_delay_ms, policy.max_delay_ms or DAY_MS).ceiling_ms(failures)
