"""Replicas and workers of the model. What runtime does for workers is its own code; the network between them is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from oa_base.identity import Principal, PrincipalKind
from oa_base.refusal import Refusal
from oa_runlog.authority.commands import AssignRun
from services.runtime.workers.app.attached import AttachedWorkers
from services.runtime.workers.app.attachment import Attachment
from services.runtime.workers.app.watchdog import Watchdog
from services.runtime.workers.app.workers import Workers
from services.runtime.workers.domain.notices import DrainingNotice, HeldLease, Hello
from services.runtime.workers.limits import WorkerLimits
from tests.lost.database import ORG, Database, Log, Store

LIMITS = WorkerLimits()
LOST_S, BEAT_S = LIMITS.lost_after_ms / 1000, LIMITS.heartbeat_interval_ms / 1000
KEEPALIVE_S = 10.0
"""When a worker notices that nobody answers."""
ATTACH_TIMEOUT_S = LOST_S / 4
MAX_BACKOFF_S = LOST_S / 8
COMES_BACK_S = ATTACH_TIMEOUT_S + MAX_BACKOFF_S
STEP_S = 0.5
_ACCOUNT = Principal(PrincipalKind.WORKER, "sva_1", ORG)


def now_s() -> float:
    """Virtual."""
    return asyncio.get_running_loop().time()


class Replica:
    """One process of runtime, from its start to its death. It looks from the beginning, and accepts when `is_ready`."""

    def __init__(self, database: Database, replica_id: str) -> None:
        self.replica_id = replica_id
        self.is_ready = False
        self.is_alive = True
        self.running = asyncio.Event()
        self.running.set()
        log, store = cast("Any", Log(database)), Store(database, replica_id, self.running)
        self._database = database
        attached = AttachedWorkers(log, LIMITS, 10_000)
        self.workers = Workers(log, attached, cast("Any", store), LIMITS)
        watchdog = Watchdog(log, self.workers, attached, cast("Any", store), LIMITS, 10_000, self._accepts, now_s)
        self._task = asyncio.create_task(watchdog.run())

    async def _accepts(self) -> bool:
        await self.running.wait()
        return self.accepts

    @property
    def accepts(self) -> bool:
        """Whether a worker can attach."""
        return self.is_alive and self.is_ready and self.running.is_set() and not self._database.is_away

    async def kill(self) -> None:
        """At once."""
        self.is_alive = False
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class World:
    """All of it; `seed` decides what happens."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database = Database()
        self.replicas: list[Replica] = []
        self.workers: list[ModelWorker] = []
        self._started = 0

    def start_replica(self) -> Replica:
        """One more process."""
        self._started += 1
        replica = Replica(self.database, f"rep_{self._started}")
        self.replicas.append(replica)
        return replica

    async def kill_replica(self, replica: Replica) -> None:
        """It is gone for good."""
        if replica in self.replicas:
            self.replicas.remove(replica)
            await replica.kill()

    async def assign_waiting_runs(self) -> None:
        """Give runs that nobody holds to workers that are attached."""
        for run_id, state in list(self.database.runs.items()):
            takers = [one for one in self.workers if one.is_attached and not one.is_dead]
            if state.is_leased or not takers or self.database.is_away:
                continue
            taker = self.chance.choice(takers)
            given = self.database.do(AssignRun(run_id, taker.worker_id))
            taker.leases.append((run_id, given.lease_epoch))


class ModelWorker:
    """A worker as the SDK is: it comes back at once, then with backoff, under its id, to any replica that answers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.worker_id = ""
        self.leases: list[tuple[str, int]] = []
        """All that it was ever given. It goes on writing under each of them."""
        self.cut_from: set[str] = set()
        """Replicas that it can't reach."""
        self.is_cut_off = False
        """It can't reach any."""
        self.is_dead = False
        self._barred = (0.0, 0.0)
        """From when to when it last reached no replica that accepts workers, though there was one."""
        self._stream: tuple[Replica, Attachment] | None = None

    @property
    def is_attached(self) -> bool:
        """Whether its stream stands, as it sees it."""
        return self._stream is not None

    def reaches(self, replica: Replica) -> bool:
        """Whether bytes get there and are read."""
        is_cut = self.is_cut_off or replica.replica_id in self.cut_from
        return not is_cut and replica.is_alive and replica.running.is_set()

    @property
    def barred_s(self) -> float:
        """For how long it was kept from being heard, until now or until it had no time yet to come back."""
        since_s, until_s = self._barred
        return until_s - since_s if now_s() - until_s <= COMES_BACK_S else 0.0

    def note_way(self) -> None:
        """Note whether it could be heard now."""
        accepting = [replica for replica in self._world.replicas if replica.accepts]
        if accepting and not any(self.reaches(replica) for replica in accepting):
            since_s, until_s = self._barred
            self._barred = since_s if now_s() - until_s <= COMES_BACK_S else now_s(), now_s()

    def _next(self, tried: Replica | None) -> Replica | None:
        """Another one than it tried last, if there is one."""
        others = [replica for replica in self._world.replicas if replica is not tried]
        return self._world.chance.choice(others or self._world.replicas or [None])

    async def run(self) -> None:
        """Until it dies."""
        failures, replica = 0, None
        while True:
            replica = self._next(replica)
            try:
                await self._attach(replica)
            except (Refusal, TimeoutError):
                failures += 1
                ceiling_s = min(MAX_BACKOFF_S, 0.25 * 2**failures)
                await asyncio.sleep(self._world.chance.uniform(0, ceiling_s))
                continue
            failures = 0
            await self._beat()

    async def _attach(self, replica: Replica | None) -> None:
        if replica is None or not replica.is_alive:
            raise Refusal("unavailable", "nobody listens")
        if not self.reaches(replica):
            await asyncio.sleep(ATTACH_TIMEOUT_S)
            raise Refusal("deadline_exceeded", "no answer")
        if not replica.accepts:
            raise Refusal("unavailable", "not ready")
        held = [HeldLease(run_id, epoch) for run_id, epoch in self.leases]
        async with asyncio.timeout(ATTACH_TIMEOUT_S):
            attachment = await replica.workers.attach(_ACCOUNT, Hello(self.worker_id, "w", ("exec",), 100, held))
        self.worker_id = attachment.worker.worker_id
        self._stream = replica, attachment

    async def _beat(self) -> None:
        """One stream, until it ends or nobody answers."""
        assert self._stream is not None
        replica, attachment = self._stream
        answered_s = beaten_s = now_s()
        while replica.is_alive and now_s() - answered_s < KEEPALIVE_S:
            if self.reaches(replica):
                answered_s = now_s()
                if _says_farewell(attachment):
                    break
                if now_s() - beaten_s >= BEAT_S:
                    beaten_s = now_s()
                    replica.workers.heartbeat(attachment, [])
            await asyncio.sleep(STEP_S)
        self._stream = None
        replica.workers.detach(attachment)

    def write(self) -> None:
        """Under every lease that it was ever given."""
        for run_id, epoch in self.leases:
            self._world.database.write(run_id, epoch, self.worker_id)


def _says_farewell(attachment: Attachment) -> bool:
    said = []
    while not attachment.outbox.empty():
        said.append(attachment.outbox.get_nowait())
    return any(notice is None or isinstance(notice, DrainingNotice) for notice in said)


@contextmanager
def living(worker: ModelWorker) -> Iterator[asyncio.Task[None]]:
    """Its process."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
