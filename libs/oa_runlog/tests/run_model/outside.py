"""What changes nothing: commands on a run that is not there or has ended, and of somebody whom it does not concern."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import (
    Append,
    AssignRun,
    CancelDeadline,
    Command,
    LoseLease,
    RequestCancel,
    SendInput,
    SettleRequest,
    TellChild,
    TimeLimit,
)
from oa_runlog.authority.decide import decide
from oa_runlog.events import (
    ChildFinished,
    EventBody,
    Outcome,
    RequestAnswered,
    RequestExpired,
    RunFinished,
    TextDelta,
    TextStream,
)
from oa_runlog.tests import values
from oa_runlog.tests.run_model.one_run import LIMITS, WORKERS, OneRun, outcome
from oa_runlog.tests.values import ORG_ID, OTHER_RUN_ID, RUN_ID, USER_ID, WORKER_ID

OTHER_ORG_ID = "org_01JD0000000000000000000001"
AFTER_THE_END = {
    "unchanged",
    "already_finished",
    "event_reserved",
    "idempotency_conflict",
    "invalid_transition",
    "request_settled",
    "stale_epoch",
}
numbers = st.integers(0, 99)


def commands_of(org_id: str, worker_id: str, epoch: int, key: str, end: Outcome) -> tuple[Command, ...]:
    """Something of every kind but the creation; those that have an org come first."""
    text, finish = TextDelta(TextStream.STDOUT, b"x"), RunFinished(end)
    return (
        Append.of(RUN_ID, org_id, worker_id, epoch, key, [text]),
        Append.of(RUN_ID, org_id, worker_id, epoch, key, [finish]),
        RequestCancel(RUN_ID, org_id, USER_ID),
        SendInput.of(RUN_ID, org_id, USER_ID, key, "1"),
        SettleRequest.of(RUN_ID, org_id, RequestAnswered("r1", "yes", "", USER_ID)),
        SettleRequest.of(RUN_ID, org_id, RequestExpired("r1", "no")),
        AssignRun(RUN_ID, worker_id),
        TellChild.of(RUN_ID, org_id, ChildFinished(OTHER_RUN_ID, finish)),
        LoseLease(RUN_ID, worker_id, epoch),
        CancelDeadline(RUN_ID),
        TimeLimit(RUN_ID),
    )


OF_AN_ORG = 6
"""So many of `commands_of` have an org."""


class Outside(OneRun):
    """Rules for what must have no effect."""

    @rule(number=numbers)
    @precondition(lambda self: self.state is None)
    def before_the_beginning(self, number: int) -> None:
        commands = commands_of(ORG_ID, WORKER_ID, 1, "a", Outcome.FAILED)
        assert outcome(self.do(commands[number % len(commands)])) == "not_found"

    @rule(number=numbers, end=st.sampled_from(Outcome), key=st.sampled_from(["a", "new"]))
    @precondition(lambda self: self.state is not None and self.state.status.is_final)
    def after_the_end(self, number: int, end: Outcome, key: str) -> None:
        assert self.state is not None
        commands = commands_of(ORG_ID, self.state.worker_id, self.state.lease_epoch, key, end)
        assert outcome(self.do(commands[number % len(commands)])) in AFTER_THE_END

    @rule(number=numbers)
    @precondition(lambda self: self.state is not None)
    def of_another_org(self, number: int) -> None:
        assert self.state is not None
        epoch = self.state.lease_epoch
        commands = commands_of(OTHER_ORG_ID, self.state.worker_id, epoch, "a", Outcome.FAILED)[:OF_AN_ORG]
        decision = decide(self.state, commands[number % OF_AN_ORG], LIMITS, self.now_ns)
        assert isinstance(decision, Refusal)
        assert decision.reason == "not_found"

    @rule(number=numbers)
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def another_worker(self, number: int) -> None:
        """It knows the lease of the one that holds the run, and has not got it."""
        state = self.held()
        other = next(worker for worker in WORKERS if worker != state.holder)
        text = TextDelta(TextStream.STDOUT, b"x")
        command = Append.of(RUN_ID, ORG_ID, other, state.lease_epoch, f"other-{number}", [text])
        assert outcome(self.do(command)) == "stale_epoch"

    @rule(body=values.authority_bodies, number=numbers)
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def a_worker_as_the_authority(self, body: EventBody, number: int) -> None:
        """It answers its own request, ends its own child, starts itself again: it may not."""
        assert outcome(self.do(self.by_the_holder(f"authority-{number}", body))) == "event_reserved"
