"""Random commands against one run: whatever is decided, the log stays one that a run could have."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oa_base.refusal import Refusal
from oa_runlog import wire
from oa_runlog.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    Command,
    CreateRun,
    LoseLease,
    RequestCancel,
    SendInput,
)
from oa_runlog.decide import Accepted, Decision, KnownKey, Limits, Unchanged, decide
from oa_runlog.events import RESERVED, EventBody, EventType, RunEvent, RunSpec, RunStarted
from oa_runlog.proof.chain import chain_over
from oa_runlog.reducer import replay
from oa_runlog.state import RunState
from oa_runlog.tests import values
from oa_runlog.tests.values import ORG_ID, OTHER_WORKER_ID, RUN_ID, USER_ID, WORKER_ID
from oa_runlog.transitions import next_status

LIMITS = Limits(max_event_bytes=200, max_append_bytes=400, events_per_second=5, burst_events=8, max_requeues=2)
workers = st.sampled_from([WORKER_ID, OTHER_WORKER_ID])
epochs = st.integers(0, 4)
keys = st.sampled_from(["a", "b", "c", "d"])


class AnyRun(RuleBasedStateMachine):
    """One run, its log, and the keys stored with it: what a store keeps, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.state: RunState | None = None
        self.log: list[bytes] = []
        self.keys: dict[str, KnownKey] = {}
        self.now_ns = 10**18
        self.top_epoch = 0

    def do(self, command: Command) -> Decision:
        key = command.idempotency_key if isinstance(command, Append | SendInput) else ""
        decision = decide(self.state, command, LIMITS, self.now_ns, self.keys.get(key))
        if isinstance(decision, Accepted):
            assert self.state is None or not self.state.status.is_final, "a final run grew"
            assert decision.events
            self.state = decision.state
            self.log += [event.data for event in decision.events]
            if isinstance(command, Append | SendInput):
                first = decision.events[0].seq
                self.keys[key] = KnownKey(RUN_ID, command.fingerprint, first, len(decision.events))
        return decision

    @rule(spec=values.specs)
    @precondition(lambda self: self.state is None)
    def create(self, spec: RunSpec) -> None:
        decision = self.do(CreateRun.of(RUN_ID, ORG_ID, USER_ID, spec, "k"))
        if isinstance(decision, Refusal):
            known = spec.retention in LIMITS.retention_classes
            assert decision.reason == ("payload_too_large" if known else "invalid_value")
        else:
            assert isinstance(decision, Accepted)

    @rule(bodies=st.lists(values.bodies, min_size=1, max_size=4), epoch=epochs, worker=workers, key=keys)
    def append(self, bodies: list[EventBody], epoch: int, worker: str, key: str) -> None:
        before = self.state
        decision = self.do(Append.of(RUN_ID, ORG_ID, worker, epoch, key, bodies))
        if isinstance(decision, Accepted):
            assert before is not None
            assert before.is_leased
            assert (before.holder, before.lease_epoch) == (worker, epoch), "only the holder of the lease writes"
            assert not {event.type for event in decision.events} & RESERVED

    @rule(bodies=st.lists(values.work_bodies | values.finishes, min_size=1, max_size=3), key=keys)
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def append_as_the_holder(self, bodies: list[EventBody], key: str) -> None:
        assert self.state is not None
        command = Append.of(RUN_ID, ORG_ID, self.state.holder, self.state.lease_epoch, key, bodies)
        known = self.keys.get(key)
        decision = self.do(command)
        if known is not None and known.fingerprint != command.fingerprint:
            assert isinstance(decision, Refusal)
            assert decision.reason == "idempotency_conflict"
        elif not isinstance(decision, Refusal):
            first = decision.first_seq if isinstance(decision, Unchanged) else decision.events[0].seq
            again = self.do(command)
            assert again == Unchanged(RUN_ID, first, first + len(bodies) - 1), "a retry is answered like the first time"

    @rule(worker=workers)
    def assign(self, worker: str) -> None:
        waiting = self.state is not None and not self.state.is_leased and not self.state.status.is_final
        decision = self.do(AssignRun(RUN_ID, worker))
        assert isinstance(decision, Accepted) == waiting

    @rule()
    def request_cancel(self) -> None:
        self.do(RequestCancel(RUN_ID, ORG_ID, USER_ID, "enough"))
        assert self.state is None or self.state.status.is_final or self.state.cancel_requested_ns is not None

    @rule(text=values.json_texts, key=keys)
    def send(self, text: str, key: str) -> None:
        before = self.state
        command = SendInput.of(RUN_ID, ORG_ID, USER_ID, key, text)
        known = self.keys.get(command.idempotency_key)
        decision = self.do(command)
        if known is not None:
            same = known.fingerprint == command.fingerprint
            assert isinstance(decision, Unchanged if same else Refusal)
        elif isinstance(decision, Accepted):
            assert before is not None
            assert before.cancel_requested_ns is None, "who is to end hears nothing more"
            assert self.do(command) == Unchanged(RUN_ID, before.latest_seq + 1, before.latest_seq + 1)

    @rule(worker=workers, epoch=epochs)
    def lose(self, worker: str, epoch: int) -> None:
        self.do(LoseLease(RUN_ID, worker, epoch))
        assert self.state is None or (self.state.holder, self.state.lease_epoch) != (worker, epoch)

    @rule()
    def cancel_deadline(self) -> None:
        self.do(CancelDeadline(RUN_ID))

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9

    @invariant()
    def the_log_leads_to_the_state(self) -> None:
        assert replay(self.log) == self.state

    @invariant()
    def the_log_is_one_that_a_run_could_have(self) -> None:
        events = [wire.decode_event(data) for data in self.log]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        if self.state is not None:
            assert self.state.chain_head == chain_over(RUN_ID, self.log)
        self._check_path(events)
        self._check_epochs(events)

    def _check_path(self, events: list[RunEvent]) -> None:
        status = None
        for event in events:
            status = next_status(status, event.body)
            assert status is not None, "a transition that is not in the table"
        finishes = [event.seq for event in events if event.type is EventType.RUN_FINISHED]
        assert finishes in ([], [len(events)]), "the finish is the last event, and there is one"

    def _check_epochs(self, events: list[RunEvent]) -> None:
        started = [event.body for event in events if isinstance(event.body, RunStarted)]
        assert [start.lease_epoch for start in started] == list(range(1, len(started) + 1))
        assert [start.attempt for start in started] == list(range(1, len(started) + 1))
        assert len(started) <= LIMITS.max_requeues + 1
        current = 0
        for event in events:
            current = event.body.lease_epoch if isinstance(event.body, RunStarted) else current
            assert event.lease_epoch in (0, current), "a write under an old lease"

    @invariant()
    def keys_point_to_what_was_stored_under_them(self) -> None:
        for known in self.keys.values():
            assert known.first_seq >= 1
            assert known.first_seq + known.count - 1 <= len(self.log)


AnyRun.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyRun = AnyRun.TestCase
