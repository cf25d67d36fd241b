"""What Codex asks people, and what it is told of their answers. Callers pass in the asking: no I/O is here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from oa_base.visible import storable
from oa_worker.adapters.codex.fitting import cut
from oa_worker.agents.primitives.requests import Settled
from openagents.codex.v1 import event_pb2 as codex_pb2
from openagents.runtime.v1 import event_pb2 as pb

Params = Mapping[str, Any]
Ask = Callable[[pb.RequestOpened], Awaitable[Settled]]
"""Asks people, and waits until the request is settled."""
Outcome: TypeAlias = codex_pb2.ControlOutcome.ValueType
T = TypeVar("T")

MAX_OPTIONS = 32
"""The contract's limit on the options of a choice."""
_MAX_TITLE_CHARS = 200
_MAX_DETAIL_BYTES = 16_000
APPLIED, DECLINED = codex_pb2.CONTROL_OUTCOME_APPLIED, codex_pb2.CONTROL_OUTCOME_DECLINED
EXPIRED, FAILED = codex_pb2.CONTROL_OUTCOME_EXPIRED, codex_pb2.CONTROL_OUTCOME_FAILED


@dataclass(frozen=True)
class Reply:
    """What Codex is told, and what became of its request; `why`: for people."""

    result: Mapping[str, Any]
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class Question:
    """One request of Codex. `action`: its name in the log."""

    action: str
    decide: Callable[[Ask], Coroutine[Any, Any, Reply]]
    """Asks people everything that there is to ask."""
    unasked: Mapping[str, Any]
    """What Codex is told when people can't be asked."""
    requests: int = 1
    """How many of the run's requests wait at a time."""


def approval(action: str, title: str, detail: str, yes: Mapping[str, Any], no: Mapping[str, Any]) -> Question:
    """Make a question that is answered by a yes, or else a no."""

    async def decide(ask: Ask) -> Reply:
        outcome = await approve(ask, title, detail)
        return Reply(yes if outcome == APPLIED else no, outcome)

    return Question(action, decide, no)


def refusal(action: str, told: Mapping[str, Any], why: str) -> Question:
    """Make a question that nobody is asked."""

    async def decide(ask: Ask) -> Reply:
        return Reply(told, FAILED, why)

    return Question(action, decide, told, requests=0)


async def approve(ask: Ask, title: str, detail: str) -> Outcome:
    """Ask for a yes: APPLIED. A no is DECLINED, and no answer EXPIRED."""
    settled = await ask(
        pb.RequestOpened(kind=pb.REQUEST_KIND_APPROVAL, title=title, detail=detail, default_option="no")
    )
    if settled.option == "yes":
        return APPLIED
    return DECLINED if settled.answered_by else EXPIRED


def asked_for(title: str, detail: str, options: Mapping[str, str]) -> pb.RequestOpened:
    """Make a choice between options (id -> text that people see), or, without options, a request for a text."""
    if not options:
        return pb.RequestOpened(kind=pb.REQUEST_KIND_TEXT, title=title, detail=detail)
    shown = [pb.RequestOption(id=name, label=title_of(label) if label else "") for name, label in options.items()]
    return pb.RequestOpened(kind=pb.REQUEST_KIND_CHOICE, title=title, detail=detail, options=shown)


async def together(asking: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all of them at the same time. The first one that fails ends the others, and its exception is raised."""
    tasks = [asyncio.ensure_future(one) for one in asking]
    if not tasks:
        return []
    try:
        # Not a TaskGroup: before CPython 3.13, its failure hides a cancel that comes at the same moment.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    return [task.result() for task in tasks]


def command(params: Params) -> Question:
    """Ask whether Codex may run a command."""
    words, where = str(params.get("command") or "a command"), str(params.get("cwd") or "")
    detail = detail_of(words, f"In {where}." if where else "", _reason(params))
    return approval("approve_command", title_of(f"Run {words}", end="?"), detail, *_DECISIONS)


def file_change(params: Params, changes: str) -> Question:
    """Ask whether Codex may change files. `changes`: which, and how."""
    root = params.get("grantRoot")
    detail = detail_of(f"And write anywhere below {root}." if root else "", _reason(params), changes)
    return approval("approve_file_change", "Change files?", detail, *_DECISIONS)


def permissions(params: Params) -> Question:
    """Ask whether Codex may do more than the sandbox allows, until the end of the turn."""
    wanted = params.get("permissions") or {}
    yes = {"permissions": wanted, "scope": "turn"}
    detail = detail_of(str(wanted), _reason(params))
    return approval("approve_permissions", "Give more rights for this turn?", detail, yes, {"permissions": {}})


_DECISIONS: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"decision": "accept"}, {"decision": "decline"})


def changes_words(changes: Any) -> str:
    """Describe a change of files to people."""
    words = "\n\n".join(f"{change.get('path', '')}\n{change.get('diff', '')}" for change in dicts(changes))
    return cut(storable(words), _MAX_DETAIL_BYTES)


def title_of(words: str, *, end: str = "") -> str:
    """Return one line, cut if it is long; it ends with `end` in any case."""
    line = " ".join(storable(words).split())
    return line + end if len(line + end) <= _MAX_TITLE_CHARS else f"{line[: _MAX_TITLE_CHARS - 1 - len(end)]}…{end}"


def detail_of(*parts: str) -> str:
    """Join paragraphs, cut if they are long."""
    return cut(storable("\n\n".join(part for part in parts if part)), _MAX_DETAIL_BYTES)


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; empty for a value that is not a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _reason(params: Params) -> str:
    return str(params.get("reason") or "")
