"""What holds of every log, read from its events alone. Each claim raises AssertionError for a log that breaks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from oa_base.clock import SECOND_NS
from oa_runlog.authority.limits import RunLimits
from oa_runlog.events import (
    RESERVED,
    AttemptFailed,
    ChildFinished,
    ChildStarted,
    EventType,
    ExecutorLost,
    RequestAnswered,
    RequestExpired,
    RequestOpened,
    RunCancelRequested,
    RunCreated,
    RunEvent,
    RunFinished,
    RunStarted,
    StepCompleted,
)
from oa_runlog.state.transitions import next_status

Events = Sequence[RunEvent]


def every_transition_is_in_the_table(events: Events, limits: RunLimits) -> None:
    """From the creation to the finish, which is the last event."""
    status = None
    for event in events:
        status = next_status(status, event.body)
        assert status is not None, "a transition that is not in the table"
    finishes = [event.seq for event in events if event.type is EventType.RUN_FINISHED]
    assert finishes in ([], [len(events)]), "the finish is the last event, and there is one"


def every_event_is_under_the_lease_of_its_time(events: Events, limits: RunLimits) -> None:
    """Leases count from 1, one at a time. What is reserved is under none, all work under the one that is held."""
    held = starts = 0
    for event in events:
        match event.body:
            case RunStarted() as start:
                starts += 1
                assert held == 0, "two workers hold the run"
                assert (start.lease_epoch, start.attempt) == (starts, starts)
                held = starts
            case ExecutorLost() | AttemptFailed() as end:
                assert held == end.lease_epoch == end.attempt == starts, "a lease ended that nobody held"
                held = 0
            case RunFinished():
                assert event.lease_epoch in (0, held)
            case _ if event.type not in RESERVED:
                assert event.lease_epoch == held > 0, "work that is not under the lease that is held"
        if event.type in RESERVED:
            assert event.lease_epoch == 0, "the authority's word under a lease"


def a_run_is_lost_and_tried_again_as_often_as_it_may_be(events: Events, limits: RunLimits) -> None:
    """By the limits and by its policy; and no attempt begins before its time, or after a cancel."""
    queue = events[0].body.spec.queue if events and isinstance(events[0].body, RunCreated) else None
    failures = requeues = earliest_ns = 0
    is_canceled = False
    for event in events:
        match event.body:
            case ExecutorLost(requeued=True):
                requeues += 1
                assert not is_canceled
            case AttemptFailed(retry_ns=retry_ns):
                failures, earliest_ns = failures + 1, retry_ns
                assert not is_canceled
                assert queue is not None
                assert queue.retry is not None
                assert failures < queue.retry.max_failures
            case RunStarted():
                assert event.recorded_ns >= earliest_ns, "an attempt before its time"
            case RunCancelRequested():
                is_canceled = True
    assert requeues <= limits.max_requeues


def events_come_no_faster_than_they_may(events: Events, limits: RunLimits) -> None:
    """What workers append, and what is said to the run: a burst at once, and then so many a second."""
    left, last_ns = float(limits.burst_events), 0
    for event in events:
        if event.lease_epoch > 0 or event.type in (EventType.INPUT_RECEIVED, EventType.ATTEMPT_FAILED):
            since_s = (event.recorded_ns - last_ns) / SECOND_NS
            left = min(limits.burst_events, left + since_s * limits.events_per_second) - 1
            last_ns = event.recorded_ns
            assert left >= 0


def a_request_has_one_end(events: Events, limits: RunLimits) -> None:
    """The first answer, or the end of its time, after it was opened."""
    opened, settled = set[str](), Counter[str]()
    for event in events:
        match event.body:
            case RequestOpened(request_id=request_id):
                opened.add(request_id)
            case RequestAnswered(request_id=request_id) | RequestExpired(request_id=request_id):
                settled[request_id] += 1
                assert request_id in opened
    assert set(settled.values()) <= {1}


def a_step_has_one_result(events: Events, limits: RunLimits) -> None:
    """Agents do their steps in order and go on where the log ends: what one that lost the run says is not in it."""
    ordinals = [event.body.ordinal for event in events if isinstance(event.body, StepCompleted)]
    assert ordinals == list(range(1, len(ordinals) + 1))


def a_child_starts_and_ends_once(events: Events, limits: RunLimits) -> None:
    """Whoever tells it, and how often."""
    bodies = [event.body for event in events]
    told = Counter((type(body), body.run_id) for body in bodies if isinstance(body, ChildStarted | ChildFinished))
    assert set(told.values()) <= {1}


ALL: tuple[Callable[[Events, RunLimits], None], ...] = (
    every_transition_is_in_the_table,
    every_event_is_under_the_lease_of_its_time,
    a_run_is_lost_and_tried_again_as_often_as_it_may_be,
    events_come_no_faster_than_they_may,
    a_request_has_one_end,
    a_step_has_one_result,
    a_child_starts_and_ends_once,
)
