"""What a run says to others and hears from them: inputs, requests, steps, children. Each of them counts once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from oa_runlog.authority.commands import Append, SendInput, SettleRequest, TellChild
from oa_runlog.authority.decide import Accepted, Unchanged
from oa_runlog.events import (
    ChildFinished,
    ChildStarted,
    Outcome,
    RequestAnswered,
    RequestExpired,
    RequestKind,
    RequestOpened,
    RunEvent,
    RunFinished,
    RunStarted,
    StepCompleted,
)
from oa_runlog.state import RunStatus
from oa_runlog.tests.run_model.one_run import OneRun, outcome
from oa_runlog.tests.values import ORG_ID, RUN_ID, USER_ID

CHILDREN = ("run_01JD0000000000000000000002", "run_01JD0000000000000000000003")
Settlement = RequestAnswered | RequestExpired
Telling = ChildStarted | ChildFinished
numbers = st.integers(0, 20)


class Talk(OneRun):
    """Rules for what passes between a run and others."""

    # --------------------------------------------------------------------------------------------- inputs

    @rule(text=st.sampled_from(["1", '"x"']), key=st.sampled_from(["a", "b", "c", "d"]))
    @precondition(lambda self: self.state is not None)
    def send(self, text: str, key: str) -> None:
        before = self.state
        command = SendInput.of(RUN_ID, ORG_ID, USER_ID, key, text)
        decision = self.do(command)
        if isinstance(decision, Accepted):
            assert before is not None
            assert before.status in (RunStatus.CREATED, RunStatus.RUNNING), "who is to end hears nothing more"
            assert self.do(command) == Unchanged(RUN_ID, before.latest_seq + 1, before.latest_seq + 1)

    # --------------------------------------------------------------------------------------------- requests

    @rule(number=numbers)
    @precondition(lambda self: self.state is not None and self.state.is_leased)
    def ask(self, number: int) -> None:
        opened = RequestOpened(f"r{number % 3}", RequestKind.APPROVAL, "May I?", default_option="no")
        self.do(self.by_the_holder(f"ask-{number}", opened))

    @rule(number=numbers, option=st.sampled_from(["yes", "no"]))
    @precondition(lambda self: self.bodies_of(RequestOpened))
    def answer(self, number: int, option: str) -> None:
        self._settle(RequestAnswered(self._asked(number), option, "", USER_ID))

    @rule(number=numbers)
    @precondition(lambda self: self.bodies_of(RequestOpened))
    def expire(self, number: int) -> None:
        self._settle(RequestExpired(self._asked(number), "no"))

    def _asked(self, number: int) -> str:
        opened = self.bodies_of(RequestOpened)
        return opened[number % len(opened)].request_id

    def _settle(self, settlement: Settlement) -> None:
        """Whose end comes first counts. An answer after it learns that, and an end of time after it is no news."""
        settled: list[Settlement] = [*self.bodies_of(RequestAnswered), *self.bodies_of(RequestExpired)]
        first = next((body for body in settled if body.request_id == settlement.request_id), None)
        before = self.status
        decision = self.do(SettleRequest.of(RUN_ID, ORG_ID, settlement))
        if first is not None:
            is_other_answer = isinstance(settlement, RequestAnswered) and settlement != first
            assert outcome(decision) == ("request_settled" if is_other_answer else "unchanged")
        else:
            assert outcome(decision) == ("accepted" if before is RunStatus.RUNNING else "invalid_transition")

    # --------------------------------------------------------------------------------------------- steps

    @rule(epoch=st.integers(1, 4), again=st.booleans())
    @precondition(lambda self: self.bodies_of(RunStarted))
    def complete_step(self, epoch: int, again: bool) -> None:
        """The agent under any lease that was given does its next step, whether it still holds the run or not.

        It knows the steps that were in the log when it began, and its own. `again`: it sends its last one again.
        """
        starts = self.bodies_of(RunStarted)
        start = starts[epoch % len(starts)]
        known = [event for event in self.events if _is_step_known_to(event, start.lease_epoch)]
        ordinal = len(known) + 1
        if again and known and known[-1].lease_epoch == start.lease_epoch:
            ordinal -= 1
        before, decision = self.state, self.do(_step(start, ordinal))
        if isinstance(decision, Accepted):
            assert before is not None
            assert (before.holder, before.lease_epoch) == (start.worker_id, start.lease_epoch)
        elif ordinal <= len(known):
            assert isinstance(decision, Unchanged)

    # --------------------------------------------------------------------------------------------- children

    @rule(child=st.sampled_from(CHILDREN))
    @precondition(lambda self: self.status is not None)
    def tell_the_start_of_a_child(self, child: str) -> None:
        self._tell(ChildStarted(f"c{CHILDREN.index(child)}", child, "agent"))

    @rule(child=st.sampled_from(CHILDREN), end=st.sampled_from(Outcome))
    @precondition(lambda self: self.status is not None)
    def tell_the_end_of_a_child(self, child: str, end: Outcome) -> None:
        self._tell(ChildFinished(child, RunFinished(end)))

    def _tell(self, told: Telling) -> None:
        """What was told first stands. Whoever tells it again, in whatever words, hears that it was told."""
        is_known = any(body.run_id == told.run_id for body in self.bodies_of(type(told)))
        is_running = self.status is RunStatus.RUNNING
        decision = self.do(TellChild.of(RUN_ID, ORG_ID, told))
        assert outcome(decision) == ("unchanged" if is_known else "accepted" if is_running else "invalid_transition")


def _is_step_known_to(event: RunEvent, epoch: int) -> bool:
    return isinstance(event.body, StepCompleted) and event.lease_epoch <= epoch


def _step(start: RunStarted, ordinal: int) -> Append:
    """The append of a step under a lease. Its result names the lease, so that no two attempts would have the same."""
    step = StepCompleted(ordinal, "step", bytes(32), str(start.lease_epoch))
    key = f"e{start.lease_epoch}-{ordinal}"
    return Append.of(RUN_ID, ORG_ID, start.worker_id, start.lease_epoch, key, [step])
