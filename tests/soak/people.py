"""Programs and a person who use a stack all the time, and check that what they are told is exact."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from oa_base.refusal import Refusal
from oa_khala.topics import run_events
from oa_platform.system.ids import new_id
from oa_runlog.wire.events import decode_event
from openagents import Client, RunHandle, events
from tests.e2e.world import STEP_TIMEOUT_S, Tail, World
from tests.soak.tasks import AGENT, Task

MAX_WORDS = 60
_LEAVE_SHARE = 0.02
"""How often a program leaves after an event, to come back with its cursor."""
_CANCEL_SHARE = 0.05
_PERSON_SHARE = 0.2
"""How many of the runs the person follows, too, and has proved."""
_PAUSE_S = 0.2
_AWAY = frozenset({"unavailable", "deadline_exceeded", "overloaded"})
"""Reasons to ask once more: a service is being started again."""
GoOn = Callable[[], bool]
T = TypeVar("T")


async def insisting(call: Callable[[], Awaitable[T]]) -> T:
    """Call again until somebody is there. Raises what else the call raises, and TimeoutError if nobody comes back."""
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while True:
            try:
                return await call()
            except Refusal as refusal:
                if refusal.reason not in _AWAY:
                    raise
            await asyncio.sleep(_PAUSE_S)


@dataclass
class Tally:
    """What happened, and what is wrong with it."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, complaint: str) -> None:
        """Note a complaint unless `holds`."""
        if not holds:
            self.wrong.append(complaint)


class Programs:
    """Programs with one API key that start runs one after the other, follow them, and take part in them."""

    def __init__(self, client: Client, world: World, seed: int) -> None:
        self.tally = Tally()
        self._client = client
        self._world = world
        self._store = world.open_store()
        self._chance = random.Random(seed)

    async def work(self, count: int, go_on: GoOn) -> None:
        """`count` programs at a time, each until `go_on` says no after one of its runs."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._program(go_on))

    async def _program(self, go_on: GoOn) -> None:
        while go_on():
            task, key = self._task(), new_id("key")
            run = await insisting(partial(self._client.start, AGENT, task, key=key))
            following: list[Awaitable[None]] = [self._follow(run, task)]
            if self._chance.random() < _PERSON_SHARE:
                following.append(self._prove(run))
            await asyncio.gather(*following)
            self.tally.counts["runs"] += 1

    def _task(self) -> Task:
        kind = self._chance.choice(["plain", "asks", "hears", "has_child"])
        return Task(self._chance.randint(0, MAX_WORDS), kind == "asks", kind == "hears", kind == "has_child")

    async def _follow(self, run: RunHandle, task: Task) -> None:
        """Follow the run to its end, leaving now and then, and answer what it asks."""
        cursor, seq, ended = "", 0, False
        is_canceled = self._chance.random() < _CANCEL_SHARE
        while not ended:
            async with aclosing(self._client.topic(run_events(run.run_id), cursor)) as updates:
                async for update in updates:
                    if not update.cursor:
                        continue
                    self.tally.expect(update.seq == seq + 1, f"{run.run_id}: {update.seq} came after {seq}")
                    cursor, seq = update.cursor, update.seq
                    self.tally.counts["events"] += 1
                    body = decode_event(update.payload).body
                    with suppress(Refusal) if is_canceled else nullcontext():  # it may have ended meanwhile
                        await self._take_part(run, task, body, is_canceled)
                    ended = isinstance(body, events.RunFinished)
                    if ended or self._chance.random() < _LEAVE_SHARE:
                        break
            self.tally.counts["visits"] += 1
        state = await insisting(run.state)
        self.tally.expect(
            state.latest_seq == seq, f"{run.run_id}: followed to {seq}, and it ends at {state.latest_seq}"
        )
        outcome = state.finish.outcome if state.finish else "none"
        self.tally.counts[outcome] += 1
        self.tally.expect(outcome == "succeeded" or is_canceled, f"{run.run_id}: {outcome}, {state.finish}")

    async def _take_part(self, run: RunHandle, task: Task, body: events.EventBody, is_canceled: bool) -> None:
        match body:
            case events.RunStarted(attempt=1) if is_canceled:
                await insisting(partial(run.cancel, "enough"))
            case events.RunStarted(attempt=1) if task.hears:
                await insisting(partial(run.send, "hello", key=f"hello-{run.run_id}"))
            case events.RequestOpened(request_id=request_id):
                await self._answer(run, request_id)

    async def _answer(self, run: RunHandle, request_id: str) -> None:
        try:
            await insisting(partial(run.answer, request_id, option="yes"))
        except Refusal as refusal:
            if refusal.reason != "request_settled":  # by an attempt whose answer was lost
                raise

    async def _prove(self, run: RunHandle) -> None:
        """The person follows the run, and checks its receipt."""
        tail = Tail(run.run_id)
        await self._world.follow(tail, self._store)
        await insisting(partial(self._world.assert_proved, tail, self._store))
        self._store.drop(run_events(run.run_id))
        self.tally.counts["proved"] += 1
