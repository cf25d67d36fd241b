"""People who start runs and end them, and somebody who keeps an eye on the log of receipts, through every kill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from oa_base.refusal import Refusal
from oa_runlog.proof.checkpoint import Checkpoint, check_growth, verify_checkpoint
from oa_runlog.proof.notes import VerifierKey
from openagents.runtime.v1 import event_pb2, receipt_service_pb2, run_pb2, run_service_pb2
from services.runtime.tests.finished import finished_runs
from services.runtime.tests.rig import FakeWorker, finish, refusing, text
from tests.kills.site import Site

T = TypeVar("T")
CALL_TIMEOUT_S = 30.0
PATIENCE_S = 120.0
"""Far longer than any kill and start takes."""
_RETRY_S = 0.02
_AGAIN = frozenset({"unavailable", "deadline_exceeded", "draining"})


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again as long as nobody is there to give it. Raises Refusal when that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            answer: T = await refusing(call())
            return answer
        except Refusal as refusal:
            if refusal.reason not in _AGAIN or loop.time() > deadline:
                raise
        await asyncio.sleep(_RETRY_S)


class People:
    """Runs of theirs that have ended, as far as they were told so."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(seed)
        self._asked = 0
        self.ended: set[str] = set()

    async def go_on(self, pause_s: float) -> None:
        """One run after the other, until canceled."""
        while True:
            await self.one_run()
            await asyncio.sleep(self._chance.uniform(0, 2 * pause_s))

    async def one_run(self) -> str:
        """A run that nobody takes and that is canceled: three events, a receipt, and it is over."""
        self._asked += 1
        runs, who, key = self._site.doors.runs, self._site.who, f"k{self._asked}"
        argv = ["x", self._chance.randbytes(self._chance.randrange(10_000)).hex()]
        spec = event_pb2.RunSpec(adapter="none", exec=event_pb2.ExecSpec(argv=argv))
        create = run_service_pb2.CreateRunRequest(idempotency_key=key, spec=spec)
        created = await persist(lambda: runs.CreateRun(create, metadata=who.as_person(), timeout=CALL_TIMEOUT_S))
        cancel = run_service_pb2.CancelRunRequest(run_id=created.run.run_id)
        canceled = await persist(lambda: runs.CancelRun(cancel, metadata=who.as_person(), timeout=CALL_TIMEOUT_S))
        assert canceled.run.status == run_pb2.RUN_STATUS_CANCELED
        self.ended.add(created.run.run_id)
        return str(created.run.run_id)

    async def worked_runs(self, count: int) -> None:
        """Runs of a worker; the process must stay alive meanwhile."""
        outputs = [self._chance.randbytes(2000) for _ in range(count)]
        self.ended.update(await finished_runs(self._site.doors, self._site.who, *outputs))

    async def long_run(self, appends: int, append_bytes: int) -> str:
        """A run whose artifact takes its time; the process must stay alive meanwhile."""
        site = self._site
        worker = FakeWorker(site.doors, site.who, slots=1)
        await worker.attach()
        self._asked += 1
        run = await site.doors.create(site.who, f"k{self._asked}")
        epoch = (await worker.next("assignment")).assignment.lease_epoch
        for number in range(appends):
            await worker.append(run.run_id, epoch, f"a{number}", text(self._chance.randbytes(append_bytes)))
        await worker.append(run.run_id, epoch, "end", finish())
        await worker.leave()
        self.ended.add(run.run_id)
        return str(run.run_id)


class Auditor:
    """Keeps the newest checkpoint that it was shown, and takes a newer one only with the proof that the log grew."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.kept: list[Checkpoint] = []

    async def go_on(self, pause_s: float) -> None:
        """Until canceled."""
        while True:
            await self.look()
            await asyncio.sleep(pause_s)

    async def look(self) -> Checkpoint:
        """The newest checkpoint, which continues the one before. Raises Refusal when it doesn't."""
        receipts = self._site.doors.receipts
        request = receipt_service_pb2.GetLogCheckpointRequest()
        who = self._site.who
        answer = await persist(
            lambda: receipts.GetLogCheckpoint(request, metadata=who.as_person(), timeout=CALL_TIMEOUT_S)
        )
        origin = self.kept[-1].origin if self.kept else answer.checkpoint.decode().splitlines()[0]
        now = verify_checkpoint(answer.checkpoint, VerifierKey(origin, self._site.receipt_key))
        if not self.kept or now != self.kept[-1]:
            if self.kept:
                await self.hold_against(self.kept[-1], now)
            self.kept.append(now)
        return now

    async def hold_against(self, before: Checkpoint, now: Checkpoint) -> None:
        """Raises Refusal unless the log of `now` begins with that of `before`."""
        proof: list[bytes] = []
        if 0 < before.size < now.size:
            request = receipt_service_pb2.GetConsistencyProofRequest(old_size=before.size, new_size=now.size)
            receipts, who = self._site.doors.receipts, self._site.who
            answer = await persist(
                lambda: receipts.GetConsistencyProof(request, metadata=who.as_person(), timeout=CALL_TIMEOUT_S)
            )
            proof = list(answer.hashes)
        check_growth(before, now, proof)
