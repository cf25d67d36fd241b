"""Rolls all Deployments again and again, while a run is appended to and followed by many."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from oa_base.refusal import Refusal
from oa_client.core.log import LogFold
from oa_client.core.store import MemoryStore
from oa_client.follow.updates import Applied, Connection
from oa_khala.topics import run_events
from oa_runlog import events
from tests.deploy.cluster.figures import Append, Figures, Span
from tests.deploy.cluster.outside import person, worker
from tests.deploy.cluster.running import Cluster, running
from tests.deploy.cluster.surroundings import surroundings
from tests.deploy.manifests import name_of, rendered
from tests.e2e.world import Tail, World

PROGRAM = """
import itertools, os, time
for n in itertools.count():
    print(n, time.time_ns(), flush=True)
    if os.path.exists('/gates/stop'): break
    time.sleep(0.01)
"""
"""Of the run: numbered lines with the times when they were written."""
STILL_LINES = 500
"""So many lines are waited for before the first roll, and after each."""
CALL_PAUSE_S = 0.1


@dataclass
class Follower:
    """Somebody who follows the run from its start and keeps nothing for later."""

    run_id: str
    breaks: list[Span] = field(default_factory=list)
    appends: list[Append] = field(default_factory=list)
    finish: events.RunFinished | None = None
    _lost_s: float | None = None
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self._fold = LogFold(self.run_id)

    async def follow(self, world: World) -> None:
        """Until the run is finished. Raises ValueError for an event or a line that is not the next one."""
        topic = run_events(self.run_id)
        async with world.client.subscription(MemoryStore()) as subscription:
            await subscription.follow(topic)
            async for update in subscription.updates():
                if isinstance(update, Connection):
                    self._note(update.open, time.time())
                if isinstance(update, Applied):
                    self._take(self._fold.add(update.seq, update.payload))
                    if self.finish:
                        return

    def _note(self, is_open: bool, now_s: float) -> None:
        if is_open and self._lost_s is not None:
            self.breaks.append(Span(self._lost_s, now_s))
            self._lost_s = None
        elif not is_open and self._lost_s is None:
            self._lost_s = now_s

    def _take(self, event: events.RunEvent) -> None:
        match event.body:
            case events.RunFinished() as finish:
                self.finish = finish
            case events.TextDelta(stream=events.TextStream.STDOUT, data=data):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for number, written_ns in (line.split() for line in lines):
                    if int(number) != len(self.appends):
                        raise ValueError(f"line {number.decode()} follows {len(self.appends)} lines")
                    self.appends.append(Append(int(written_ns) / 1e9, event.recorded_ns / 1e9))


@dataclass
class Campaign:
    """What came of it. `wrong`: everything that should not have been, in words."""

    figures: Figures
    wrong: Sequence[str]
    rolled: Set[str]
    """Names of the pods that were replaced."""


async def campaign(folder: Path, *, rolls: int, followers: int) -> Campaign:
    """Start the staging overlay in `folder` and roll it so many times. Raises Failed when a pod does, AssertionError
    when the log that is read afterwards, its receipt or its summary don't fit."""
    gates = folder / "gates"
    gates.mkdir()
    gates.chmod(0o777)
    refused: Counter[str] = Counter()
    async with surroundings(folder) as around, running(rendered("staging"), around, folder / "cluster") as cluster:
        await cluster.install()
        async with person(cluster, around) as world, worker(cluster, world, gates):
            run = await world.client.commands.start_exec(["python3", "-c", PROGRAM])
            those = [Follower(run.run_id) for _ in range(followers)]
            async with asyncio.TaskGroup() as group:
                for each in those:
                    group.create_task(each.follow(world))
                calling = group.create_task(_call(world, refused))
                spans = [await _roll(cluster, those) for _ in range(rolls)]
                await _lines(those)
                calling.cancel()
                (gates / "stop").touch()
            await _prove(world, run.run_id)
        appends = those[0].appends
        figures = Figures(spans, [span for each in those for span in each.breaks], appends)
        return Campaign(figures, _wrong(cluster, those, refused), {pod.name for pod in cluster.stopped})


async def _prove(world: World, run_id: str) -> None:
    """Read the whole run again: its receipt fits, it took one attempt, and lists show it as it is."""
    tail, store = Tail(run_id), world.open_store()
    await world.follow(tail, store)
    assert (await world.assert_proved(tail, store)).attempts == 1
    await world.assert_summarised(tail)


async def _roll(cluster: Cluster, those: Sequence[Follower]) -> Span:
    await _lines(those)
    began_s = time.time()
    await cluster.roll(*(name_of(one) for one in cluster.objects.of_kind("Deployment")))
    return Span(began_s, time.time())


async def _lines(those: Sequence[Follower]) -> None:
    """Until everybody has got so many lines more."""
    wanted = [len(each.appends) + STILL_LINES for each in those]
    while any(len(each.appends) < number for each, number in zip(those, wanted, strict=True)):
        await asyncio.sleep(CALL_PAUSE_S)


async def _call(world: World, refused: Counter[str]) -> None:
    """Ask for the list of runs again and again, which goes through control to projector."""
    while True:
        try:
            await world.client.commands.runs()
        except Refusal as refusal:
            refused[str(refusal)] += 1
        await asyncio.sleep(CALL_PAUSE_S)


def _wrong(cluster: Cluster, those: Sequence[Follower], refused: Counter[str]) -> list[str]:
    ended = {len(each.appends) for each in those}
    return [
        *(f"{count} times a list of runs was refused: {why}" for why, count in refused.items()),
        *(f"{count} connections were refused: {name}" for name, count in cluster.forwarding.refused.items()),
        *(f"{pod.name} ended with status {pod.exit_status}" for pod in cluster.stopped if pod.exit_status),
        *([f"followers saw different numbers of lines: {sorted(ended)}"] if len(ended) > 1 else []),
        *(f"the run was not finished well: {each.finish}" for each in those[:1] if each.finish and each.finish.reason),
    ]
