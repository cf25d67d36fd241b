"""Random commands against one run: whatever is decided, the log stays one that a run could have."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import settings

from oa_runlog.authority.commands import Command
from oa_runlog.authority.decide import Accepted, Decision
from oa_runlog.events import RESERVED, AgentSpec, EventType, Outcome, QueuePolicy, RetryPolicy, RunSpec
from oa_runlog.tests.run_model.life import Life
from oa_runlog.tests.run_model.one_run import WORKERS
from oa_runlog.tests.run_model.outside import Outside
from oa_runlog.tests.run_model.talk import CHILDREN, Talk
from oa_runlog.tests.run_model.walk import walk


class AnyRun(Life, Talk, Outside):
    """One run with all rules."""


AnyRun.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestAnyRun = AnyRun.TestCase


WALKS, PART, STEPS = 400, 100, 60
"""Seeds of walks, how many of them a test takes, and the steps of each."""


class Toured(AnyRun):
    """Notes what was accepted and stored."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: set[type[Command]] = set()
        self.stored: set[EventType] = set()

    def note(self, command: Command, decision: Decision) -> None:
        if isinstance(decision, Accepted):
            self.accepted.add(type(command))
            self.stored.update(event.type for event in decision.events)


def test_the_rules_have_every_command_and_reach_what_only_the_authority_writes() -> None:
    """By hand: chance reaches all of it on most days only. A new class of commands needs a rule, and a step here."""
    run, hasty = Toured(), Toured()
    worker, other = WORKERS
    run.begin(RunSpec("agent", AgentSpec("1"), queue=QueuePolicy(retry=RetryPolicy(2, 2_000))), worker, steps=2)
    run.send("1", "a")
    run.ask(0)
    run.ask(1)
    run.answer(0, "yes")
    run.expire(1)
    run.complete_step(0, again=False)
    run.tell_the_start_of_a_child(CHILDREN[0])
    run.tell_the_end_of_a_child(CHILDREN[0], Outcome.SUCCEEDED)
    run.fail("agent_error", 0)
    run.assign(other, wait=True)
    run.lose_the_holder()
    run.assign(worker, wait=True)
    run.request_cancel()
    run.cancel_deadline(wait=True)
    hasty.begin(RunSpec("agent", AgentSpec("1"), queue=QueuePolicy(run_timeout_ms=1_000)), worker, steps=2)
    hasty.time_limit(wait=True)
    assert run.accepted | hasty.accepted == set(get_args(Command))
    assert run.stored >= RESERVED
    run.check()
    hasty.check()


@pytest.mark.parametrize("first", range(0, WALKS, PART))
def test_long_random_walks_hold_what_is_claimed_of_runs(first: int) -> None:
    for seed in range(first, first + PART):
        walk(AnyRun(), seed, STEPS)
