"""Agents that do anything that an agent may do, in any order, some of it in branches: made from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from oa_base.refusal import Refusal
from oa_worker.agents import ChildFailed, Run
from oa_worker.agents.tests.rig import Ask

GOOD, BAD = "good", "bad"
"""Agents of children: what one returns is 5, and the other fails."""
CHILDREN: Mapping[str, object] = {GOOD: 5, BAD: ValueError("boo")}
ASKING = {"ask": "text", "approve": "yes", "choose": "y"}
"""Kinds of questions -> the answer."""
RAISING: Mapping[str, BaseException] = {
    "raises": LookupError("no"),
    "too_large": Refusal("payload_too_large", ""),
    "other_type": Refusal("invalid_value", ""),
}
"""Kinds of steps that are not stored -> what they raise."""
_MAX_DEPTH = 1


@dataclass
class Act:
    """One thing that an agent does. `name` is unique in its program."""

    kind: str
    name: str
    branches: list[list[Act]] = field(default_factory=list)


@dataclass
class Program:
    """An agent, and what others have to do for it."""

    acts: list[Act]

    @classmethod
    def of(cls, seed: int) -> Program:
        """Make a program."""
        return cls(_acts(random.Random(seed), "p", _MAX_DEPTH))

    async def agent(self, run: Run[Ask]) -> list[Any]:
        """Do all of it, and return everything that it gets."""
        return await _done(run, self.acts)

    @property
    def inputs(self) -> list[str]:
        """The inputs that it hears."""
        return ["hi" for act in _all(self.acts) if act.kind == "receive"]

    @property
    def answers(self) -> dict[str, str]:
        """The titles of its questions, with their answers."""
        return {act.name: ASKING[act.kind] for act in _all(self.acts) if act.kind in ASKING}

    @property
    def raised(self) -> dict[str, BaseException]:
        """The names of its steps that are not stored, and what they raise."""
        return {act.name: RAISING[act.kind] for act in _all(self.acts) if act.kind in RAISING}


def _acts(random_: random.Random, name: str, depth: int) -> list[Act]:
    kinds = [*_KINDS, *["branches"] * (4 * depth)]
    acts = [Act(random_.choice(kinds), f"{name}.{number}") for number in range(random_.randint(1, 4))]
    for act in acts:
        if act.kind == "branches":
            act.branches = [_acts(random_, f"{act.name}.{one}", depth - 1) for one in range(random_.randint(2, 3))]
    return acts


def _all(acts: Sequence[Act]) -> Iterator[Act]:
    for act in acts:
        yield act
        for branch in act.branches:
            yield from _all(branch)


async def _done(run: Run[Ask], acts: Sequence[Act]) -> list[Any]:
    got: list[Any] = []
    for act in acts:
        if act.kind == "branches":
            got.append(list(await asyncio.gather(*(_done(run, branch) for branch in act.branches))))
            continue
        try:
            got.append(await _KINDS[act.kind](run, act.name))
        except (LookupError, ChildFailed, Refusal) as error:
            got.append(getattr(error, "reason", type(error).__name__))
    return got


def _echo(name: str) -> str:
    return name


async def _raises(run: Run[Ask], name: str) -> Any:
    async def fails() -> None:
        raise RAISING["raises"]

    return await run.step(name, fails)


async def _other_type(run: Run[Ask], name: str) -> Any:
    async def counts() -> int:
        no_number: Any = "no"
        return no_number  # type: ignore[no-any-return]

    return await run.step(name, counts)


async def _says_in_a_step(run: Run[Ask], name: str) -> Any:
    async def says() -> str:
        async with run.tool("search", {"for": name}) as call:
            call.result = name
        try:
            return await run.step("within", _echo, name)
        except Refusal as refusal:
            return refusal.reason

    return await run.step(name, says)


async def _child(run: Run[Ask], agent: str, name: str) -> Any:
    return await (await run.start_child(agent, name)).result(int)


async def _now(run: Run[Ask], name: str) -> None:
    await run.now(name)


async def _saves(run: Run[Ask], name: str) -> None:
    await run.save({"at": name})


async def _says(run: Run[Ask], name: str) -> str:
    async with run.assistant() as out:
        await out.write(name)
    return out.text


_KINDS: Mapping[str, Callable[[Run[Ask], str], Any]] = {
    "step": lambda run, name: run.step(name, _echo, name),
    "raises": _raises,
    "too_large": lambda run, name: run.step(name, lambda: "x" * 200_000),
    "other_type": _other_type,
    "says_in_a_step": _says_in_a_step,
    "now": _now,
    "sleep": lambda run, name: run.sleep(timedelta(milliseconds=1), name),
    "says": _says,
    "emit": lambda run, name: run.emit("acme.note", {"name": name}),
    "usage": lambda run, name: run.usage("m", input=3),
    "progress": lambda run, name: run.progress(name),
    "save": _saves,
    "child": lambda run, name: _child(run, GOOD, name),
    "child_fails": lambda run, name: _child(run, BAD, name),
    "ask": lambda run, name: run.ask(name),
    "approve": lambda run, name: run.approve(name),
    "choose": lambda run, name: run.choose(name, ["x", "y"]),
    "receive": lambda run, name: run.receive(str),
}
