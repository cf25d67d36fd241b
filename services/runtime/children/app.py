"""Starts children, tells parents of their start and their end, and ends those that must end with their parents.

Any replica that looks tells a parent that its child has ended; the parent's log takes it once. So a process that dies
between the end of the child and the message to its parent does not leave the parent waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from oa_base.refusal import Refusal
from oa_platform.health.failures import surviving
from oa_platform.health.quarantine import Quarantine
from oa_platform.tasks.word import Word
from oa_runlog.authority.commands import CreateRun, RequestCancel, TellChild
from oa_runlog.events import AgentSpec, ChildFinished, ChildStarted, EventType, RunFinished, RunSpec
from oa_runlog.fingerprint import text_sha256
from oa_runlog.state import RunStatus
from oa_runlog.state.reducer import invalid_transition
from services.runtime.agents.app import Agents
from services.runtime.children.limits import ChildLimits
from services.runtime.log.app.log import Create, Log
from services.runtime.log.app.run_ids import new_run_id
from services.runtime.log.domain.records import LogRecord, RunRecord

_log = structlog.get_logger(__name__)
_CAUSES = frozenset({EventType.RUN_FINISHED, EventType.RUN_CANCEL_REQUESTED})


@dataclass(frozen=True, slots=True)
class Family:
    """The number of generations above a child of a run.

    `keys` and `threads`: the concurrency keys and the threads of the child's ancestors that have not ended.
    """

    depth: int
    keys: frozenset[str] = frozenset()
    threads: frozenset[str] = frozenset()

    def shared_with(self, spec: RunSpec) -> str:
        """The field because of which a child would wait for an ancestor, or end it; empty for none.

        The limit of the key does not matter: that many families, each with a run that waits for its child, fill it.
        """
        if spec.queue.concurrency is not None and spec.queue.concurrency.key in self.keys:
            return "spec.queue.concurrency.key"
        return "spec.thread_id" if spec.thread_policy is not None and spec.thread_id in self.threads else ""


@dataclass(frozen=True, slots=True)
class UntoldChild:
    """A child whose start its parent's log lacks: the replica that started it died in between."""

    run_id: str
    child_id: str
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class EndedChild:
    """A child that has ended and whose parent was not told. `is_awaited`: the parent is still running."""

    run_id: str
    finish: RunFinished
    parent_run_id: str
    org_id: str
    is_awaited: bool


@dataclass(frozen=True, slots=True)
class Orphan:
    """A child that must end because its parent is ending or has ended."""

    run_id: str
    org_id: str
    user_id: str
    parent_run_id: str


class Families(Protocol):
    """Runs and the runs that they have started."""

    async def family(self, run_id: str) -> Family:
        """The family of a run."""
        ...

    async def untold(self, run_id: str) -> Sequence[UntoldChild]:
        """The children of a run whose start its log lacks, the oldest first."""
        ...

    async def ended(self, limit: int, broken: Quarantine) -> Sequence[EndedChild]:
        """Children that have ended and have not been handled, the longest ago first. `broken`: those that are left out,
        and those whose rows can't be read."""
        ...

    async def told(self, run_ids: Sequence[str]) -> None:
        """Mark these children as handled."""
        ...

    async def orphans(self, limit: int, left_out: Sequence[str]) -> Sequence[Orphan]:
        """Orphans that nobody has asked to end yet, without those that are left out."""
        ...


class Children:
    """Looks after the children of all runs, on one replica."""

    def __init__(self, log: Log, create: Create, families: Families, agents: Agents, limits: ChildLimits) -> None:
        self._log = log
        self._create = create
        self._families = families
        self._agents = agents
        self._limits = limits
        self._word = Word()
        self._broken = Quarantine("children", "run_id", limits.quarantine)

    async def start(
        self, parent: RunRecord, child_id: str, spec: RunSpec, *, cancel_with_parent: bool, has_branches: bool
    ) -> tuple[str, bool]:
        """Start a child of a run that the caller holds, with the same owner; return its id, and whether it existed.

        Raises Refusal `limit_reached`, `idempotency_conflict` for another spec under the same `child_id`,
        `invalid_value` for a child that would wait for an ancestor, `invalid_transition` for a parent that is ending,
        and as the creation of a run does.
        """
        state = parent.state
        if state.status is not RunStatus.RUNNING:
            raise invalid_transition(state.status, ChildStarted(child_id, state.run_id, spec.adapter))
        key = child_key(state.run_id, child_id)
        run_id = new_run_id(state.org_id, state.user_id, key, self._log.partitions)
        fault = await self._fault(parent, spec)
        create = CreateRun.of(run_id, state.org_id, state.user_id, spec, key, fault)
        create = create.child_of(
            state.run_id, cancel_with_parent=cancel_with_parent, max_children=self._limits.max_children
        )
        applied = await self._create(create)
        started = _started(child_id, applied.run_id, spec, has_branches=has_branches)
        await self._log.do(TellChild.of(state.run_id, state.org_id, started))
        return applied.run_id, applied.repeated

    async def complete(self, parent: RunRecord) -> bool:
        """Record the starts that the parent's log lacks, so that its next worker knows all children. Return whether it
        lacked any. Raises Refusal.

        Whether branches started them is not known any more.
        """
        state, untold = parent.state, await self._families.untold(parent.state.run_id)
        for child in untold:
            started = _started(child.child_id, child.run_id, child.spec, has_branches=False)
            await self._tell(TellChild.of(state.run_id, state.org_id, started))
        return bool(untold)

    async def _fault(self, parent: RunRecord, spec: RunSpec) -> Refusal | None:
        """Why the parent may not have this child; this applies only to a child that does not exist yet. How many it may
        have is decided when the child is created, because other children may be on their way."""
        family, limits = await self._families.family(parent.state.run_id), self._limits
        if family.depth > limits.max_depth:
            text = f"runs may have at most {limits.max_depth} generations above them; let a run higher up start it"
            return Refusal("limit_reached", text, metadata={"limit": str(limits.max_depth)})
        if field := family.shared_with(spec):
            text = "a run above the child has the same, and each of them would wait for the other; give another one"
            return Refusal("invalid_value", text, field=field)
        return await self._agents.fault(parent.state.org_id, spec)

    # ------------------------------------------------------------------------------------------------- looking after

    def on_records(self, records: Sequence[LogRecord]) -> None:
        """Handle new records of the log: one of them may be the end of a child or of a parent."""
        if not _CAUSES.isdisjoint(record.type for record in records):
            self._word.give()

    async def run(self) -> None:
        """Run until canceled."""
        while True:
            await self._word.within(self._limits.interval_ms / 1000)
            with surviving(_log, "children_not_seen"):
                await self.look_once()
            await asyncio.sleep(self._limits.pause_ms / 1000)

    async def look_once(self) -> None:
        """Tell parents, and end orphans. Raises Refusal unavailable."""
        broken, page = self._broken, self._limits.page
        ended = await self._families.ended(page, broken)
        told = await broken.attempt_each({child.run_id: partial(self._told, child) for child in ended})
        if told.results:
            await self._families.told(list(told.results))
        orphans = await self._families.orphans(page, broken.ids)
        canceled = await broken.attempt_each({one.run_id: partial(self._log.do, _cancel(one)) for one in orphans})
        if len(ended) == page or len(orphans) == page:
            self._word.give()
        told.check()
        canceled.check()

    async def _told(self, child: EndedChild) -> None:
        """Tell a child's parent of its end, if it still waits for that."""
        if child.is_awaited:
            await self._tell(_finished(child))

    async def _tell(self, told: TellChild) -> None:
        try:
            await self._log.do(told)
        except Refusal as refusal:
            if refusal.reason != "invalid_transition":  # the parent is ending by now, and no longer waits
                raise


def child_key(parent_run_id: str, child_id: str) -> str:
    """The idempotency key under which a run starts a child."""
    return f"child/{parent_run_id}/{child_id}"


def _started(child_id: str, run_id: str, spec: RunSpec, *, has_branches: bool) -> ChildStarted:
    digest = text_sha256(spec.input.input_json) if isinstance(spec.input, AgentSpec) else b""
    return ChildStarted(child_id, run_id, spec.adapter, digest, has_branches)


def _finished(child: EndedChild) -> TellChild:
    return TellChild.of(child.parent_run_id, child.org_id, ChildFinished(child.run_id, child.finish))


def _cancel(orphan: Orphan) -> RequestCancel:
    return RequestCancel(orphan.run_id, orphan.org_id, orphan.user_id, f"its parent {orphan.parent_run_id} ends")
