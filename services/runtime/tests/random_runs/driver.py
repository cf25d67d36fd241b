"""Asks a runtime and its model the same, and waits until both stand alike."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_testing.waiting import PATIENCE_S
from openagents.runtime.v1 import run_pb2, run_service_pb2
from openagents.runtime.v1.worker_service_pb2 import AppendEventsRequest
from services.runtime.tests.random_runs.records import Answer, Run, Said, Stored, Wish
from services.runtime.tests.random_runs.spoken import body_of
from services.runtime.tests.random_runs.stream import Stream, stored
from services.runtime.tests.random_runs.world import World
from services.runtime.tests.rig import Doors, Somebody, refusing

T = TypeVar("T")
UNKNOWN = Run("run_01JD0000000000000000000000", Wish(""))
"""A run that is not there."""
Appended = tuple[int, str, tuple[Said, ...], int | None]
"""Lease epoch, idempotency key, events, and the newest seq that is expected."""
NewRun = tuple[str, bool]
"""The id of a run, and whether it was there."""


def one(seq: int, again: bool = False) -> Stored:
    """The answer to what stores one event."""
    return Stored(seq, seq, again)


class Driver:
    """A person, a worker's account and its open stream if there is one; and what all of them should meet."""

    def __init__(self, runtime: Doors, who: Somebody, seed: int) -> None:
        self.world = World()
        self.taken: list[str] = []
        """The steps, for finding out what went wrong."""
        self.answers = Counter[str]()
        """Commands with what they were answered, and how often."""
        self._runtime = runtime
        self._who = who
        self._colleague = replace(who, account_id=new_id("sva"))
        self._stranger = Somebody(who.key)
        self._chance = random.Random(seed)
        self._stream: Stream | None = None
        self._workers: list[str] = []

    async def close(self) -> None:
        """Leave nothing open, wherever it has come to."""
        if self._stream is not None:
            await self._stream.cancel()

    # --------------------------------------------------------------------------------------------- choosing

    def _run(self, *, held: bool = False, asked: bool = False) -> Run:
        """Any run, mostly one that has not ended, or is `held`, or has `asked`; now and then one that is not there."""
        runs = list(self.world.runs.values())
        wanted = [run for run in runs if not run.is_over and (run.is_held or not held) and (run.requests or not asked)]
        return self._chance.choice([*runs, *wanted * 4, UNKNOWN])

    def _epoch(self, run: Run) -> int:
        """Mostly the present lease epoch."""
        return max(0, run.epoch + self._chance.choice([0] * 10 + [-1, 1]))

    def _somebody(self, run: Run, act: Callable[[], Answer]) -> tuple[Somebody, Answer]:
        """Who does it, and the answer: somebody of another org knows of no run."""
        if run is UNKNOWN or self._chance.random() < 0.05:
            return self._chance.choice([self._who, self._stranger]) if run is UNKNOWN else self._stranger, "not_found"
        return self._who, act()

    def _fault_of(self, run: Run, epoch: int, who: Somebody) -> str:
        """What a worker is told that does not hold the run; empty for the one that does."""
        if run is UNKNOWN:
            return "not_found"
        if not run.is_held or epoch != run.epoch:
            return "stale_epoch"
        return "" if who is self._who else "not_found"

    # --------------------------------------------------------------------------------------------- asking both

    async def _cancel_run(self, run: Run) -> None:
        def cancel() -> Answer:
            self.world.cancel(run)
            return one(len(run.log))

        who, expected = self._somebody(run, cancel)
        request = run_service_pb2.CancelRunRequest(run_id=run.run_id)
        call = self._runtime.runs.CancelRun(request, metadata=who.as_person())
        await self._same(f"cancel {run.run_id}", expected, call, lambda said: one(said.run.latest_seq))

    async def _append_on(self, run: Run, appended: Appended) -> None:
        """Append on the stream."""
        assert self._stream is not None
        expected = self._expected(run, self._stream.worker_id, appended)
        call = self._stream.append(_request(run, appended))
        await self._same(f"append {appended} to {run.run_id}", expected, call, lambda answer: answer)

    async def _append_beside(self, run: Run, who: Somebody, appended: Appended) -> None:
        """Append outside of a stream, as the account of the worker that has the lease, if it is that account."""
        is_holder = who is self._who and appended[0] == run.epoch
        expected = self._expected(run, run.worker if is_holder else "", appended)
        call = self._runtime.workers.AppendEvents(_request(run, appended), metadata=who.as_worker())
        await self._same(f"append {appended} beside to {run.run_id}", expected, call, stored)

    def _expected(self, run: Run, worker_id: str, appended: Appended) -> Answer:
        return "not_found" if run is UNKNOWN else self.world.append(run, worker_id, *appended)

    async def _same(self, what: str, expected: Answer, call: Awaitable[Any], read: Callable[[Any], Answer]) -> None:
        """Ask, and hold the answer against the model's."""
        got = await self._asked(what, call, read)
        assert got == expected, f"{what}: {got}, and the model says {expected}"

    async def _new(self, what: str, known: str, call: Awaitable[Any], read: Callable[[Any], NewRun]) -> str:
        """Ask for a run. `known`: the one that is there, the reason of a refusal, or empty where it is new: its id."""
        got = await self._asked(what, call, read)
        if known:
            expected = (known, True) if known.startswith("run_") else known
            assert got == expected, f"{what}: {got}, and the model says {expected}"
            return ""
        assert isinstance(got, tuple), f"{what}: {got}, and the model says that it is new"
        assert not got[1]
        return got[0]

    async def _asked(self, what: str, call: Awaitable[Any], read: Callable[[Any], T]) -> T | str:
        self.taken.append(what)
        answer: T | str
        try:
            answer = read(await refusing(call))
        except Refusal as refusal:
            answer = refusal.reason
        self.answers[f"{what.partition(' ')[0]} {answer if isinstance(answer, str) else 'accepted'}"] += 1
        return answer

    # --------------------------------------------------------------------------------------------- standing alike

    async def _settle(self) -> None:
        """Wait for what the authority does by itself, and see that all runs stand as in the model."""
        self.world.look_after()
        while self._stream is not None and (self.world.notices or self.world.waiting()):
            while self.world.notices:
                await self._stream.expect(self.world.notices.pop())
            if waiting := {run.run_id: run for run in self.world.waiting()}:
                _, run_id, epoch = await self._stream.assignment()
                assert run_id in waiting, f"{run_id} was given away, and the model says that it waits"
                self.world.start(waiting[run_id], self._stream.worker_id)
                assert epoch == waiting[run_id].epoch
                self.world.look_after()
        for run in self.world.runs.values():
            await self._stand_alike(run)

    async def _stand_alike(self, run: Run) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (found := await self._runtime.run(self._who, run.run_id)).latest_seq < len(run.log):
                await asyncio.sleep(0.01)
        is_at = run_pb2.RunStatus.Name(found.status).removeprefix("RUN_STATUS_").lower()
        at = is_at, found.latest_seq, found.attempt, found.worker_id
        model = run.status, len(run.log), run.epoch, run.worker if run.is_held else ""
        assert at == model, f"{run.run_id} stands at {at}, and in the model at {model}"


def _request(run: Run, appended: Appended) -> AppendEventsRequest:
    epoch, key, said, seq = appended
    bodies = [body_of(each) for each in said]
    return AppendEventsRequest(
        run_id=run.run_id, lease_epoch=epoch, idempotency_key=key, events=bodies, expected_seq=seq
    )
