"""Whatever the authority goes through: who lives and can be heard keeps its lease, and who is dead loses it in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from oa_testing.virtual_time import run_virtual
from services.runtime.workers.domain.vigil import Presence, Vigil
from tests.lost.world import BEAT_S, KEEPALIVE_S, LOST_S, STEP_S, ModelWorker, World, living, now_s

SEEDS = 32
PART = 8
TROUBLE_S, CALM_S = 600.0, 150.0
RUNS = 8
WRITES = 0.1
"""Share of the steps in which all workers write under all their leases."""
LONG_BARRED_S = LOST_S - BEAT_S - KEEPALIVE_S - STEP_S
"""Its last heartbeat may have been a pause ago, and it may have been about to notice that its stream is gone."""
BITES_WITHIN = 40
"""A defect that so many seeds don't notice would go unnoticed."""


@dataclass(frozen=True)
class Loss:
    """A worker was lost."""

    at_s: float
    worker_id: str
    barred_s: float
    """For how long it had reached no replica that accepts workers, though there was one."""
    is_dead: bool


@dataclass
class Story:
    """What happened under one seed."""

    losses: list[Loss] = field(default_factory=list)
    dead: str = ""
    died_s: float = 0.0
    calm_s: float = 0.0
    """Since when nothing was wrong any more."""
    attempts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    """Run -> the worker that got it first."""
    written: list[tuple[str, int, str]] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)


class Trouble:
    """What goes wrong in a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance

    async def run(self) -> None:
        """For `TROUBLE_S`, one thing after the other, sometimes beside each other."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._restart_one, self._restart_all, self._freeze, self._not_ready, self._no_database,
            self._fail_over, self._step_clock, self._part,
        ]  # fmt: skip
        while now_s() < TROUBLE_S:
            count = 1 if self._chance.random() < 0.7 else 2
            await asyncio.gather(*(kind() for kind in self._chance.sample(kinds, count)))
            await asyncio.sleep(self._chance.uniform(0, 60))

    async def _while(self) -> None:
        await asyncio.sleep(self._chance.choice([self._chance.uniform(0, 30), self._chance.uniform(30, 120)]))

    async def _restart_one(self) -> None:
        if self._world.replicas:
            await self._world.kill_replica(self._chance.choice(self._world.replicas))
            await self._while()
            await self._start()

    async def _restart_all(self) -> None:
        gone = list(self._world.replicas)
        for replica in gone:
            await self._world.kill_replica(replica)
        await self._while()
        for _ in gone:
            await self._start()

    async def _start(self) -> None:
        replica = self._world.start_replica()
        await asyncio.sleep(self._chance.choice([1.0, self._chance.uniform(0, 90)]))  # it waits for keys
        replica.is_ready = True

    async def _freeze(self) -> None:
        frozen = self._chance.sample(self._world.replicas, self._chance.randint(0, len(self._world.replicas)))
        for replica in frozen:
            replica.running.clear()
        await self._while()
        for replica in frozen:
            replica.running.set()

    async def _not_ready(self) -> None:
        waiting = [replica for replica in self._world.replicas if replica.is_ready]
        for replica in waiting:
            replica.is_ready = False
        await self._while()
        for replica in waiting:
            replica.is_ready = True

    async def _no_database(self) -> None:
        self._world.database.is_away = True
        await self._while()
        self._world.database.is_away = False

    async def _fail_over(self) -> None:
        """To a standby whose rows are some seconds old."""
        standby = self._world.database.copy()
        await asyncio.sleep(self._chance.uniform(0, 5))
        await self._no_database()
        self._world.database.fail_over(standby)

    async def _step_clock(self) -> None:
        self._world.database.clock_ahead_s += self._chance.choice([3600, -3600, 40, -40])

    async def _part(self) -> None:
        """A worker and one of the replicas can't reach each other."""
        worker = self._chance.choice(self._world.workers)
        if len(self._world.replicas) > 1:
            worker.cut_from = {self._chance.choice(self._world.replicas).replica_id}
            await self._while()
            worker.cut_from = set()


def _loss(world: World, worker_id: str) -> Loss:
    worker = next(one for one in world.workers if one.worker_id == worker_id)
    return Loss(now_s(), worker_id, worker.barred_s, worker.is_dead)


async def _story(seed: int) -> Story:
    world, story = World(seed), Story()
    for _ in range(2):
        world.start_replica().is_ready = True
    world.workers = [ModelWorker(world) for _ in range(4)]
    for number in range(RUNS):
        world.database.create(f"run_{number}")
    with ExitStack() as stack:
        tasks = [stack.enter_context(living(worker)) for worker in world.workers]
        await asyncio.sleep(20)
        await world.assign_waiting_runs()
        dead, cut_off, *_ = world.workers
        story.dead = dead.worker_id
        story.first = {run_id: worker.worker_id for worker in world.workers for run_id, _ in worker.leases}
        world.database.on_lost = lambda worker_id: story.losses.append(_loss(world, worker_id))
        trouble = asyncio.create_task(Trouble(world).run())
        dies_s, cut_s = (20 + world.chance.uniform(0, TROUBLE_S) for _ in range(2))
        while now_s() < max(TROUBLE_S, story.calm_s) + CALM_S:
            await asyncio.sleep(STEP_S)
            if not trouble.done():
                story.calm_s = now_s()
            if not dead.is_dead and now_s() >= dies_s:
                dead.is_dead, story.died_s = True, now_s()
                tasks[0].cancel()
            cut_off.is_cut_off = cut_s <= now_s() < cut_s + 4 * LOST_S
            await world.assign_waiting_runs()
            for worker in world.workers:
                worker.note_way()
            if world.chance.random() < WRITES:
                for worker in world.workers:
                    worker.write()
        await trouble
    story.attempts = {run_id: state.attempt for run_id, state in world.database.runs.items()}
    story.written = world.database.written
    story.holders = {state.worker_id for state in world.database.runs.values() if state.is_leased}
    for replica in list(world.replicas):
        await world.kill_replica(replica)
    return story


def check(story: Story) -> None:
    """What must hold. Raises AssertionError."""
    for loss in story.losses:
        assert loss.is_dead or loss.barred_s >= LONG_BARRED_S, "who lives and can be heard is not lost"
    for loss in story.losses:
        bound_s = max(story.died_s, story.calm_s) + 2 * LOST_S + KEEPALIVE_S
        assert not loss.is_dead or loss.at_s <= bound_s, "who is dead is lost in time"
    assert story.dead not in story.holders, "its runs have gone to others"
    ever_lost = {loss.worker_id for loss in story.losses}
    kept = {run_id for run_id, worker_id in story.first.items() if worker_id not in ever_lost}
    assert {story.attempts[run_id] for run_id in kept} <= {1}, "an absence of the authority is no attempt"
    newest: dict[str, tuple[int, str]] = {}
    for run_id, epoch, worker_id in story.written:
        before = newest.get(run_id, (epoch, worker_id))
        assert before[0] < epoch or before == (epoch, worker_id), "two leases of a run were valid"
        newest[run_id] = epoch, worker_id


def told(seed: int) -> Story:
    return run_virtual(lambda: _story(seed))


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_who_lives_is_kept_and_who_is_dead_is_lost(first: int) -> None:
    for seed in range(first, first + PART):
        try:
            check(told(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def _defect_counts_unready_looks(self: Presence, now_s: float, counts: object) -> float:
    return now_s


def _defect_never_begins_anew(self: Vigil) -> None:
    self._looked_s = None


def _defect_waits_for_ever(self: Vigil, now_s: float, replicas: object, signs: object) -> list[object]:
    return []


@pytest.mark.parametrize(
    ("where", "name", "defect"),
    [
        (Presence, "look", _defect_counts_unready_looks),
        (Vigil, "forget", _defect_never_begins_anew),
        (Vigil, "lost", _defect_waits_for_ever),
    ],
    ids=["looks of a replica that is not ready count", "a failed look forgets nothing", "nobody is ever lost"],
)
def test_the_model_notices(
    where: type[object], name: str, defect: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, defect)
    for seed in range(BITES_WITHIN):
        try:
            check(told(seed))
        except AssertionError:
            return
    pytest.fail("no seed noticed")
