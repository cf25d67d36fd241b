"""Where a run stands, as plain values. A run's state is a function of its events: see `reducer`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields

from oa_runlog.events import AT_ONCE, Outcome, QueuePolicy, RunFinished

MAX_TOTAL = 2**53 - 1
"""Maximum of a total: the largest integer that every reader of JSON agrees on (RFC 8785, RFC 7493)."""


class RunStatus(enum.StrEnum):
    """Where a run stands."""

    CREATED = "created"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended, so that its log no longer grows."""
        return self in _FINAL


_FINAL = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED})

FINAL_STATUS = {
    Outcome.SUCCEEDED: RunStatus.SUCCEEDED,
    Outcome.FAILED: RunStatus.FAILED,
    Outcome.CANCELED: RunStatus.CANCELED,
}
"""The status that each outcome leads to."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals over a run's events; each stops at MAX_TOTAL."""

    text_bytes: int = 0
    messages: int = 0
    tool_calls: int = 0
    tool_results: int = 0
    tool_failures: int = 0
    verifications: int = 0
    verification_failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0

    def plus(self, **amounts: int) -> Totals:
        """Return these totals with `amounts` added."""
        values = {name: getattr(self, name) for name in TOTAL_NAMES}
        for name, amount in amounts.items():
            values[name] = min(values[name] + amount, MAX_TOTAL)
        return Totals(**values)


TOTAL_NAMES = tuple(item.name for item in fields(Totals))
"""Names of the totals, in their order."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What the authority knows of a run without its spec.

    `worker_id` and `lease_epoch` are those of the newest lease, '' and 0 before the first; `fenced` says that the
    lease was taken back. `chain_head` is the chain over events 1 … `latest_seq`. `paced_until_ns` belongs to the append
    limit (see `decide`); it is not in the log and takes no part in comparisons. `ending` says that the executor was
    lost and nobody takes over, so that the finish comes next. It is stored nowhere, because the authority stores both
    events at once.

    `thread_id` is the thread in which the run takes its turn, empty when it runs beside the others of its thread.

    `parent_run_id` is the run that started it, empty for none.

    `attempt` counts all attempts, `failures` those that a worker ended as failed. No worker gets the run before
    `not_before_ns`; at `deadline_ns` the authority ends it. Until the first start, that is the end of the start
    timeout; afterwards, the end of the run timeout.
    """

    run_id: str
    org_id: str
    user_id: str
    status: RunStatus
    latest_seq: int
    chain_head: bytes
    create_ns: int
    lease_epoch: int = 0
    worker_id: str = ""
    fenced: bool = False
    attempt: int = 0
    cancel_requested_ns: int | None = None
    cancel_reason: str = ""
    finish_ns: int | None = None
    finish: RunFinished | None = None
    totals: Totals = Totals()
    queue: QueuePolicy = AT_ONCE
    not_before_ns: int | None = None
    deadline_ns: int | None = None
    failures: int = 0
    thread_id: str = ""
    parent_run_id: str = ""
    paced_until_ns: int = field(default=0, compare=False)
    ending: bool = field(default=False, compare=False)

    @property
    def is_leased(self) -> bool:
        """Whether a worker holds the run and may append to it."""
        return bool(self.worker_id) and not self.fenced and not self.status.is_final

    @property
    def holder(self) -> str:
        """The worker that holds the run; empty when none does."""
        return self.worker_id if self.is_leased else ""
