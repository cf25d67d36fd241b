"""How programs state when a worker gets a run, how long the run may take, and whether it is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from oa_base.clock import MS_NS, duration_ns, ns_of
from oa_base.refusal import Refusal
from oa_runlog.events import Concurrency, QueuePolicy, RetryPolicy, ThreadPolicy
from oa_wire.given import (
    MAX_SMALL_COUNT,
    check_count,
    check_duration,
    check_kind,
    check_moment,
    check_text,
    check_texts,
    check_whole,
)

_NONE = timedelta()


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Whether a run that its agent ends as failed is tried again. The stored results of its steps stay."""

    failures: int
    """Maximum number of failures, including the last one: 2 to 100."""
    delay: timedelta = timedelta(seconds=1)
    """Pause after the first failure; twice as long after each further one."""
    max_delay: timedelta = timedelta(hours=1)
    """Maximum pause."""
    reasons: Sequence[str] = ()
    """Reasons of failures that are tried again. Empty means all except those that would recur (docs/queue.md)."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """When a run is given to a worker, and how long it may take. By default: at once, without a limit."""

    priority: int = 0
    """-100 to 100. Among the waiting runs of an org, those with a higher priority go first."""
    not_before: datetime | None = None
    """No worker gets the run before this time, which has a time zone."""
    start_timeout: timedelta = _NONE
    """Maximum time until a worker starts the run; then it fails as `start_timeout`."""
    run_timeout: timedelta = _NONE
    """Maximum time from the run's first start to its end, over all attempts; then it fails as `run_timeout`."""
    concurrency: Concurrency | None = None
    """How many runs of the org with this key may run at a time."""
    retry: Retry | None = None
    """Whether the run is tried again when its agent fails."""


def policy_of(queue: Queue) -> QueuePolicy:
    """Return the queue policy of the contract.

    Raises Refusal `invalid_value` for a time without a zone, for a negative one, and for a value of another kind.
    """
    check_kind(queue, Queue, "queue")
    retry = queue.retry
    check_whole(queue.priority, "queue.priority")
    if retry is not None:
        check_kind(retry, Retry, "queue.retry")
        check_count(retry.failures, "queue.retry.failures", MAX_SMALL_COUNT)
        check_texts(retry.reasons, "queue.retry.reasons")
    if queue.concurrency is not None:
        check_kind(queue.concurrency, Concurrency, "queue.concurrency")
        check_text(queue.concurrency.key, "queue.concurrency.key")
        check_count(queue.concurrency.limit, "queue.concurrency.limit", MAX_SMALL_COUNT)
    return QueuePolicy(
        queue.priority,
        None if queue.not_before is None else _time_ns(queue.not_before),
        whole_ms(queue.start_timeout, "queue.start_timeout"),
        whole_ms(queue.run_timeout, "queue.run_timeout"),
        queue.concurrency,
        None
        if retry is None
        else RetryPolicy(
            retry.failures,
            whole_ms(retry.delay, "queue.retry.delay"),
            whole_ms(retry.max_delay, "queue.retry.max_delay"),
            tuple(retry.reasons),
        ),
    )


def thread_policy(word: str) -> ThreadPolicy:
    """Return the policy of a run in its thread. Raises Refusal `invalid_value` for any other word."""
    try:
        return ThreadPolicy(word)
    except ValueError:
        words = ", ".join(ThreadPolicy)
        raise Refusal("invalid_value", f"there is no such policy; use one of {words}", field="if_busy") from None


def _time_ns(time: datetime) -> int:
    check_moment(time, "queue.not_before")
    return ns_of(time)


def whole_ms(duration: timedelta, field: str) -> int:
    """Return whole milliseconds, rounded up, so that a short duration does not become 0, which means no limit."""
    check_duration(duration, field)
    if duration < _NONE:
        raise Refusal("invalid_value", "a time can't be negative; give a longer one, or none", field=field)
    return -(-duration_ns(duration) // MS_NS)
