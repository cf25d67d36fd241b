"""The life of a run: created, given to workers, worked on, lost, tried again, canceled, timed out, ended."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from oa_base.clock import MS_NS, SECOND_NS
from oa_base.refusal import Refusal
from oa_runlog import events as ev
from oa_runlog.authority.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    CreateRun,
    LoseLease,
    RequestCancel,
    TimeLimit,
)
from oa_runlog.authority.decide import Accepted, Unchanged
from oa_runlog.authority.retries import DAY_MS, LASTING
from oa_runlog.events import RESERVED, EventBody, EventType, RunFinished, RunSpec
from oa_runlog.state import RunStatus
from oa_runlog.tests import values
from oa_runlog.tests.run_model.one_run import LIMITS, WORKERS, OneRun, outcome
from oa_runlog.tests.values import ORG_ID, RUN_ID, USER_ID

workers = st.sampled_from(WORKERS)
REASONS = ("agent_error", "io_error", "step_mismatch")
epochs = st.integers(0, 4)
keys = st.sampled_from(["a", "b", "c", "d"])
# A step is appended by an agent that knows the ones before it: see `work`.
bodies = values.bodies.filter(lambda body: not isinstance(body, ev.StepCompleted))
work = (values.work_bodies | values.finishes).filter(lambda body: not isinstance(body, ev.StepCompleted))
queues = st.builds(
    ev.QueuePolicy,
    not_before_ns=st.none() | st.integers(10**18, 10**18 + 5 * SECOND_NS),
    start_timeout_ms=st.sampled_from([0, 0, 6_000]),
    run_timeout_ms=st.sampled_from([0, 0, 15_000]),
    retry=st.none()
    | st.builds(
        ev.RetryPolicy,
        max_failures=st.integers(2, 4),
        initial_delay_ms=st.sampled_from([0, 2_000]),
        reasons=st.sampled_from([(), ("agent_error",)]),
    ),
)
specs = st.builds(
    lambda queue, policy: RunSpec(
        "agent", ev.AgentSpec("1"), thread_id="thread" if policy else "", queue=queue, thread_policy=policy
    ),
    queues,
    st.none() | st.sampled_from(ev.ThreadPolicy),
)

_OPEN = (RunStatus.CREATED, RunStatus.RUNNING, RunStatus.CANCELING)


def _has_just_begun(run: OneRun) -> bool:
    """Nothing was done in it, or since a worker has it. What ends then shows little."""
    return not run.events or run.events[-1].type in (EventType.RUN_CREATED, EventType.RUN_STARTED)


class Life(OneRun):
    """Rules for what happens to any run."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: RunSpec | None = None
        """The spec of the run as it was sent: the recorded one has a title."""

    # --------------------------------------------------------------------------------------------- it is created

    @initialize(spec=specs, worker=workers, steps=st.sampled_from([0, 1, 2, 2, 2, 2]))
    def begin(self, spec: RunSpec, worker: str, steps: int) -> None:
        """A worker comes soon to most runs: one that nobody works on shows little."""
        if steps > 0:
            self.create(spec)
        if steps > 1:
            self.assign(worker, wait=True)

    @rule(spec=specs | values.specs)
    @precondition(lambda self: self.state is None)
    def create(self, spec: RunSpec) -> None:
        decision = self.do(CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "k"))
        if isinstance(decision, Refusal):
            known = spec.retention in LIMITS.retention_classes
            assert decision.reason == ("payload_too_large" if known else "invalid_value")
        else:
            self.sent = spec
            assert self.state is not None
            assert self.state.thread_id == (spec.thread_id if spec.thread_policy else "")

    @rule(same=st.booleans())
    @precondition(lambda self: self.state is not None)
    def create_again(self, same: bool) -> None:
        assert self.sent is not None
        spec = self.sent if same else RunSpec("other", ev.PromptSpec("other"))
        decision = self.do(CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "k"))
        assert outcome(decision) == ("unchanged" if same else "idempotency_conflict")

    # --------------------------------------------------------------------------------------------- it is worked on

    @rule(bodies=st.lists(bodies, min_size=1, max_size=4), epoch=epochs, worker=workers, key=keys)
    @precondition(lambda self: self.status in _OPEN)
    def append(self, bodies: list[EventBody], epoch: int, worker: str, key: str) -> None:
        before = self.state
        decision = self.do(Append.of(RUN_ID, ORG_ID, worker, epoch, key, bodies))
        if isinstance(decision, Accepted):
            assert before is not None
            assert before.is_leased
            assert (before.holder, before.lease_epoch) == (worker, epoch), "only the holder of the lease writes"
            assert not any(ev.event_type(body) in RESERVED for body in bodies)

    @rule(bodies=st.lists(work, min_size=1, max_size=3), key=keys)
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def append_as_the_holder(self, bodies: list[EventBody], key: str) -> None:
        command = self.by_the_holder(key, *bodies)
        decision = self.do(command)
        if not isinstance(decision, Refusal):
            first = decision.first_seq if isinstance(decision, Unchanged) else decision.events[0].seq
            assert self.do(command) == Unchanged(RUN_ID, first, first + len(bodies) - 1)

    @rule(number=st.integers(0, 99))
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def say_much(self, number: int) -> None:
        text = ev.TextDelta(ev.TextStream.STDOUT, b"x")
        command = self.by_the_holder(f"much-{number}", *[text] * (number % LIMITS.burst_events + 1))
        assert outcome(self.do(command)) in ("accepted", "unchanged", "publish_rate_limited")

    @rule(reason=st.sampled_from(REASONS), number=st.integers(0, 9))
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def fail(self, reason: str, number: int) -> None:
        before = self.held()
        decision = self.do(self.by_the_holder(f"fail-{number}", RunFinished(ev.Outcome.FAILED, reason)))
        if not isinstance(decision, Accepted):
            assert outcome(decision) in ("unchanged", "idempotency_conflict", "publish_rate_limited")
            return
        assert self.state is not None
        assert not self.state.is_leased
        policy, is_retried = before.queue.retry, decision.events[0].type is EventType.ATTEMPT_FAILED
        is_to_be = (
            policy is not None
            and before.status is RunStatus.RUNNING
            and before.failures + 1 < policy.max_failures
            and (reason in policy.reasons if policy.reasons else reason not in LASTING)
        )
        # Without a run timeout nothing else speaks against it.
        assert is_retried <= is_to_be if before.deadline_ns is not None else is_retried == is_to_be
        assert self.status is (RunStatus.RUNNING if is_retried else RunStatus.FAILED)
        if is_retried and policy is not None:
            pause_ms = min(policy.initial_delay_ms * 2**before.failures, policy.max_delay_ms or DAY_MS)
            assert self.state.not_before_ns == self.now_ns + pause_ms * MS_NS

    @rule(worker=workers, wait=st.booleans())
    @precondition(lambda self: self.status in _OPEN)
    def assign(self, worker: str, wait: bool) -> None:
        before = self.state
        if wait and before is not None:
            self.now_ns = max(self.now_ns, before.not_before_ns or 0)
        is_waiting = before is not None and not before.is_leased and not before.status.is_final
        is_time = before is not None and self.now_ns >= (before.not_before_ns or 0)
        decision = self.do(AssignRun(RUN_ID, worker))
        assert isinstance(decision, Accepted) == (is_waiting and is_time)

    @rule(worker=workers, epoch=epochs)
    @precondition(lambda self: self.status in _OPEN)
    def lose(self, worker: str, epoch: int) -> None:
        assert self.state is not None
        is_held = self.state.is_leased and (self.state.holder, self.state.lease_epoch) == (worker, epoch)
        assert isinstance(self.do(LoseLease(RUN_ID, worker, epoch)), Accepted) == is_held

    @rule()
    @precondition(lambda self: self.state is not None and self.state.is_leased and not _has_just_begun(self))
    def lose_the_holder(self) -> None:
        before = self.held()
        assert isinstance(self.do(LoseLease(RUN_ID, before.holder, before.lease_epoch)), Accepted)
        assert self.state is not None
        assert self.state.status.is_final or not self.state.is_leased

    # --------------------------------------------------------------------------------------------- it is ended

    @rule()
    @precondition(lambda self: self.status in _OPEN and not _has_just_begun(self))
    def request_cancel(self) -> None:
        was_leased = self.state is not None and self.state.is_leased
        decision = self.do(RequestCancel(RUN_ID, ORG_ID, USER_ID, "enough"))
        if isinstance(decision, Accepted):
            assert self.status is (RunStatus.CANCELING if was_leased else RunStatus.CANCELED)
        assert self.state is None or self.status is RunStatus.CANCELING or self.state.status.is_final

    @rule(wait=st.booleans())
    @precondition(lambda self: self.status is RunStatus.CANCELING)
    def cancel_deadline(self, wait: bool) -> None:
        self.now_ns += LIMITS.cancel_deadline_ms * MS_NS if wait else 0
        asked_ns = [one.recorded_ns for one in self.events if one.type is EventType.RUN_CANCEL_REQUESTED]
        is_due = bool(asked_ns) and self.now_ns - asked_ns[0] >= LIMITS.cancel_deadline_ms * MS_NS
        assert isinstance(self.do(CancelDeadline(RUN_ID)), Accepted) == is_due

    @rule(wait=st.booleans())
    @precondition(lambda self: self.status in _OPEN and not _has_just_begun(self))
    def time_limit(self, wait: bool) -> None:
        before, end_ns = self.state, self._end_of_time_ns()
        if wait and end_ns is not None:
            self.now_ns = max(self.now_ns, end_ns)
        decision = self.do(TimeLimit(RUN_ID))
        is_bound = before is not None and before.status in (RunStatus.CREATED, RunStatus.RUNNING)
        assert isinstance(decision, Accepted) == (is_bound and end_ns is not None and self.now_ns >= end_ns)
        if isinstance(decision, Accepted):
            assert self.state is not None
            assert self.state.finish is not None
            assert self.state.finish.reason == ("run_timeout" if self.state.attempt else "start_timeout")

    def _end_of_time_ns(self) -> int | None:
        """The end of the start timeout until the first start, and then that of the run timeout, from the log."""
        if not self.events:
            return None
        created = self.events[0]
        assert isinstance(created.body, ev.RunCreated)
        queue = created.body.spec.queue
        starts = [event.recorded_ns for event in self.events if event.type is EventType.RUN_STARTED]
        not_before_ns = (queue.not_before_ns or 0) // 1000 * 1000  # states have whole microseconds
        begin_ns = starts[0] if starts else max(created.recorded_ns, not_before_ns)
        timeout_ms = queue.run_timeout_ms if starts else queue.start_timeout_ms
        return begin_ns + timeout_ms * MS_NS if timeout_ms else None

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS
