"""Many histories, a few at a time, each checked; what can't be explained is told in full."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .checker import UNKNOWN, linearize
from .explain import shortest_failure, show
from .run_model import Done, Latest, Refused, RunOperation, has_no_effect
from .workload import Plan, Run, record

TOGETHER = 5
"""Histories at a time, so that commits of several runs meet in one transaction."""


@dataclass
class Outcome:
    """What came of it."""

    histories: int = 0
    operations: int = 0
    unanswered: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def count(self, history: list[RunOperation]) -> None:
        """Add what a history has."""
        self.histories += 1
        self.operations += len(history)
        self.unanswered += sum(operation.answer is UNKNOWN for operation in history)
        self.answers.update(f"{_name(o)}: {_kind(o)}" for o in history)

    def __str__(self) -> str:
        lines = [f"{count:7d}  {kind}" for kind, count in sorted(self.answers.items())]
        head = f"{self.histories} histories, {self.operations} calls, {self.unanswered} without an answer"
        return "\n".join([head, *lines, *self.failures])


def _name(operation: RunOperation) -> str:
    return f"{type(operation.call).__name__}{' on a stream' if operation.stream else ''}"


def _kind(operation: RunOperation) -> str:
    match operation.answer:
        case Refused(reason):
            return reason
        case Latest():
            return "read"
        case Done():
            return "done"
        case answer if answer is UNKNOWN:
            return "no answer"
        case answer:
            return "again" if getattr(answer, "again", False) else "stored"


async def check_many(
    new_run: Callable[[], Awaitable[Run]], plans: list[Plan], *, stop_at_failure: bool = False
) -> Outcome:
    """Record and check a history for each plan, each on a run of its own."""
    outcome = Outcome()
    for begin in range(0, len(plans), TOGETHER):
        some = plans[begin : begin + TOGETHER]
        await asyncio.gather(*(_check(new_run, plan, outcome) for plan in some))
        if outcome.failures and stop_at_failure:
            break
    return outcome


async def _check(new_run: Callable[[], Awaitable[Run]], plan: Plan, outcome: Outcome) -> None:
    run = await new_run()
    recorder = await record(run, plan)
    history = recorder.history
    outcome.count(history)
    outcome.failures += [f"seed {plan.seed}: {complaint}" for complaint in recorder.complaints]
    if linearize(run.model, history) is None:
        shown = show(shortest_failure(run.model, history, has_no_effect))
        head = (
            f"seed {plan.seed}: no single copy answers like this, of {run.model.initial()} (ms, client, call -> answer)"
        )
        outcome.failures.append(f"{head}\n{shown}")
