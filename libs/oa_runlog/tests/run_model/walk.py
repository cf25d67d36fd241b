"""Seeded walks over the rules of a machine: each step any rule that may be applied, all with the same chance.

Hypothesis makes few runs of each shape and tries what is near them; walks go deep, and cost little, since what always
holds is looked at where they end.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from inspect import getmembers
from typing import TypeVar

from hypothesis.stateful import RULE_MARKER, Rule

from oa_base.clock import SECOND_NS
from oa_runlog.events import (
    AgentSpec,
    ChildFinished,
    Outcome,
    QueuePolicy,
    RequestAnswered,
    RequestExpired,
    RetryPolicy,
    RunFinished,
    RunSpec,
    RunStarted,
)
from oa_runlog.tests.run_model.life import REASONS, Life
from oa_runlog.tests.run_model.one_run import WORKERS, OneRun
from oa_runlog.tests.run_model.talk import CHILDREN

QUEUES = (
    QueuePolicy(),
    QueuePolicy(retry=RetryPolicy(2)),
    QueuePolicy(retry=RetryPolicy(3, 2_000), run_timeout_ms=30_000),
    QueuePolicy(retry=RetryPolicy(4, 1_000, reasons=("agent_error",))),
    QueuePolicy(not_before_ns=10**18 + 5 * SECOND_NS, start_timeout_ms=60_000),
)
SPECS = tuple(RunSpec("agent", AgentSpec("1"), queue=queue) for queue in QUEUES)
M = TypeVar("M", bound=Life)
ARGUMENTS: Mapping[str, Sequence[object]] = {
    "again": (False, True),
    "body": (
        RequestAnswered("r1", "yes", "", WORKERS[0]),
        RequestExpired("r1", "no"),
        RunStarted(WORKERS[0], 9, 9),
        ChildFinished(CHILDREN[0], RunFinished(Outcome.SUCCEEDED)),
    ),
    "child": CHILDREN,
    "end": tuple(Outcome),
    "epoch": range(5),
    "key": ("a", "b", "new"),
    "number": range(100),
    "option": ("yes", "no"),
    "reason": REASONS,
    "same": (False, True),
    "seconds": range(13),
    "text": ("1", '"x"'),
    "wait": (False, False, False, True),
    "worker": WORKERS,
}
"""What arguments may be, by their names. Rules with other ones are Hypothesis' alone."""


def walk(machine: M, seed: int, steps: int) -> M:
    """Begin, and apply so many rules. What fails is told with the seed and the steps so far."""
    chance, taken = random.Random(seed), list[str]()
    rules = rules_of(type(machine))
    try:
        machine.begin(chance.choice(SPECS), chance.choice(WORKERS), steps=2)
        for _ in range(steps):
            rule = chance.choice([rule for rule in rules if all(holds(machine) for holds in rule.preconditions)])
            arguments = {name: chance.choice(ARGUMENTS[name]) for name in rule.arguments}
            taken.append(f"{rule.function.__name__}({', '.join(f'{name}={arguments[name]!r}' for name in arguments)})")
            rule.function(machine, **arguments)
        machine.check()
    except AssertionError as error:
        error.add_note(f"seed {seed}, in the last of these steps or at their end:\n" + "\n".join(taken))
        raise
    return machine


def rules_of(kind: type[OneRun]) -> list[Rule]:
    """The rules of a machine whose arguments can be chosen here, in the order of their names."""
    rules = (getattr(member, RULE_MARKER, None) for _, member in getmembers(kind))
    return [rule for rule in rules if rule is not None and set(rule.arguments) <= set(ARGUMENTS)]
