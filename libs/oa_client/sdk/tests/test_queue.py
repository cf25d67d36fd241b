"""What programs state of the queue, as the contract has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from oa_base.refusal import Refusal
from oa_client.sdk.queue import Queue, Retry, policy_of
from oa_runlog.events import AT_ONCE, Concurrency, QueuePolicy, RetryPolicy

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_nothing_stated_is_no_policy() -> None:
    assert policy_of(Queue()) == AT_ONCE


def test_every_field_becomes_one_of_the_policy() -> None:
    queue = Queue(
        priority=-3,
        not_before=NOON,
        start_timeout=timedelta(minutes=1),
        run_timeout=timedelta(hours=1),
        concurrency=Concurrency("gpu", 2),
        retry=Retry(failures=3, delay=timedelta(seconds=2), max_delay=timedelta(minutes=1), reasons=["timeout"]),
    )
    retry = RetryPolicy(3, 2_000, 60_000, ("timeout",))
    noon_ns = int(NOON.timestamp()) * 10**9
    assert policy_of(queue) == QueuePolicy(-3, noon_ns, 60_000, 3_600_000, Concurrency("gpu", 2), retry)


def test_less_than_a_millisecond_is_one_and_not_no_limit() -> None:
    assert policy_of(Queue(run_timeout=timedelta(microseconds=1))).run_timeout_ms == 1


@pytest.mark.parametrize(
    ("queue", "field"),
    [
        (Queue(not_before=NOON.replace(tzinfo=None)), "queue.not_before"),
        (Queue(start_timeout=timedelta(-1)), "queue.start_timeout"),
        (Queue(run_timeout=timedelta(-1)), "queue.run_timeout"),
        (Queue(retry=Retry(failures=2, delay=timedelta(-1))), "queue.retry.delay"),
        (Queue(retry=Retry(failures=2, max_delay=timedelta(-1))), "queue.retry.max_delay"),
    ],
)
def test_what_can_not_be_meant_is_refused(queue: Queue, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        policy_of(queue)
    assert (refused.value.reason, refused.value.field) == ("invalid_value", field)
