"""One schedule of Khala: a storm, then quiet, in which everybody must come to equal the head.

Checked at every application, in the client: it is the next event of its lineage, and says what the authority says.
Checked now and then: memory bounds, and that no side ever found a defect in the other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from structlog import DropEvent
from structlog.testing import capture_logs

from oa_khala.client.states import State
from oa_khala.feed import FeedLimits
from oa_khala.frames import Form
from oa_testing.virtual_time import run_virtual
from oa_topics.store import TopicLimits
from services.khala_gateway.feeds.limits import HubLimits
from tests.simulation.client import Sessions, SimClient, python_session
from tests.simulation.faults import TOPICS, Faults
from tests.simulation.gateway import SimGateway
from tests.simulation.sizes import Size, size_of
from tests.simulation.subjects import CHECKED_EVERY_S, SimSubjects
from tests.simulation.trace import Trace
from tests.simulation.world import Broken, Weather, World

QUIET_S = 60.0
_AUDIT_MS, _NO_AUDIT_MS = 3_000, 600_000
UNHELPED = (False, _NO_AUDIT_MS)
HELP = (UNHELPED,) * 3 + ((False, _AUDIT_MS), (True, _NO_AUDIT_MS), (True, _AUDIT_MS))
"""Whether there is one last event, which makes sure that equality is not that of the dead, and how often gateways ask
where topics stand. Each hides what nothing else mends, so half of the schedules have neither."""
COMMAND = "python -m tests.simulation"


class SimulationFailure(AssertionError):
    """A schedule in which something that must hold did not; the message says how to repeat it."""


@dataclass(frozen=True)
class Outcome:
    """What happened in a schedule.

    `unhelped`: neither a last event nor an audit has mended what nothing else mends. `seen` names what the gateways had
    to deal with ("connection_closing draining"). `published` counts messages that they got from where sources publish.
    """

    seed: int
    applied: int
    resyncs: int
    snapshots: int
    run_snapshots: int
    sign_ins: int
    virtual_s: float
    unhelped: bool
    seen: frozenset[str]
    published: int


def run_schedule(
    seed: int, trace: Trace | None = None, sessions: Sessions = python_session, *, published: bool = False
) -> Outcome:
    """Runs the schedule that `seed` decides, and notes in `trace` what happens. Raises SimulationFailure.

    `sessions`: what the clients are made of. `published`: sources publish live frames where gateways take them, over a
    server that is as bad as the rest.
    """
    trace = trace or Trace()
    with capture_logs([partial(_traced, trace)]) as logs:
        try:
            outcome = run_virtual(lambda: _Schedule(seed, trace, sessions, published).run())
        except Exception as error:
            failed = f"seed {seed}: {type(error).__name__}: {error}"
            raise SimulationFailure(f"{trace}\n{failed}\nrepeat: {_repeated(seed, sessions, published)}") from error
    return replace(outcome, seen=frozenset(f"{entry['event']} {entry.get('reason', '')}".strip() for entry in logs))


def _repeated(seed: int, sessions: Sessions, published: bool) -> str:
    command = f"{COMMAND} --from {seed} --seeds 1"
    if published:
        command += " --published"
    return command if sessions is python_session else f"{command} --typescript"


def _traced(trace: Trace, _: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of log lines."""
    if trace.is_over:
        raise DropEvent
    about = " ".join(f"{key}={value}" for key, value in entry.items() if key in _TOLD and value)
    trace.note("log", str(entry["event"]), about)
    return entry


_TOLD = frozenset({"connection_id", "topic", "reason", "source", "epoch", "exc_info"})


class _Schedule:
    def __init__(self, seed: int, trace: Trace, sessions: Sessions, published: bool) -> None:
        self._seed = seed
        self._world = world = World(seed, TOPICS, trace)
        rng = world.rng
        self._size = size = size_of(rng)
        self._feed_limits = FeedLimits(ring_events=rng.choice([4, 16, 64]), parked_events=rng.choice([0, 2, 8]))
        self._helped = self._last_event, audit_interval_ms = rng.choice(HELP)
        hub_limits = HubLimits(
            feed=self._feed_limits,
            slice_frames=rng.choice([1, 3, 50]),
            page_frames=rng.choice([2, 7, 50]),
            page_bytes=16_384,
            linger_ms=rng.choice([50, 2_000]),
            carry_timeout_ms=2_000,
            audit_interval_ms=audit_interval_ms,
        )
        topic_limits = TopicLimits(
            pending_bytes=rng.choice([150, 300, 3_000, 300_000]),
            page_frames=rng.choice([2, 50]),
            poll_interval_ms=1_000,
        )
        high_bytes = rng.choice([500, 5_000, 50_000])
        self._subjects = SimSubjects(world) if published else None
        self._gateways = [
            SimGateway(f"gateway{index}", world, hub_limits, topic_limits, high_bytes, self._subjects)
            for index in range(size.gateways)
        ]
        self._clients = [
            SimClient(
                f"client{index}", world, self._gateways, _form(rng, size), sessions, takes_snapshots=rng.random() < 0.5
            )
            for index in range(size.clients)
        ]
        self._faults = Faults(world, self._clients, self._gateways, size)
        self._failures: list[BaseException] = []

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._failures.append(_failure(context)))
        changing = loop.create_task(self._subjects.run()) if self._subjects is not None else None
        for gateway in self._gateways:
            gateway.start()
        for client in self._clients:
            client.start()
        if self._size.is_warm:
            await self._warm_up()
        await self._storm()
        await self._calm()
        await self._quiet()
        self._world.trace.is_over = True
        clients = self._clients
        applied, resyncs = sum(one.applied for one in clients), sum(one.resyncs for one in clients)
        snapshots, of_runs = sum(one.snapshots for one in clients), sum(one.run_snapshots for one in clients)
        sign_ins = sum(one.sign_ins - 1 for one in clients)
        carried = self._subjects.carried if self._subjects is not None else 0
        if changing is not None:
            changing.cancel()
        return Outcome(
            self._seed,
            applied,
            resyncs,
            snapshots,
            of_runs,
            sign_ins,
            loop.time(),
            self._helped == UNHELPED,
            frozenset(),
            carried,
        )

    async def _warm_up(self) -> None:
        """What goes wrong while somebody connects is one thing, and what goes wrong later is more."""
        for topic in TOPICS:
            self._world.append(topic, 1)
        while any(client.session.state is not State.OPEN for client in self._clients):
            await asyncio.sleep(0.05)
        if self._subjects is not None:
            await asyncio.sleep(2 * CHECKED_EVERY_S)  # until frames are taken from there

    async def _storm(self) -> None:
        rng = self._world.rng
        self._world.weather = Weather(
            lose=rng.choice([0, 0.1, 0.5]),
            repeat=rng.choice([0, 0.3]),
            refuse=rng.choice([0, 0.2]),
            disorder=rng.choice([0, 0.3]),
            max_delay_s=rng.choice(self._size.delays_s),
        )
        size = self._size
        for _ in range(size.steps):
            await asyncio.sleep(rng.random() * 2 * size.storm_s / size.steps)
            await self._faults.one()
            self._check()
        # More than fits at once, and nothing after it that would show what found no room.
        for _ in range(3):
            self._faults.append()

    async def _calm(self) -> None:
        self._world.weather = Weather()
        self._world.trace.note("world", "is calm from here on")
        self._faults.control_is(True)
        for gateway in self._gateways:
            if not gateway.up:
                gateway.start()
            for replica in gateway.replicas:
                replica.channel.up()

    async def _quiet(self) -> None:
        """Nothing bad happens any more."""
        for topic in self._world.logs if self._last_event else ():
            self._world.append(topic, 1)
        deadline_s = asyncio.get_running_loop().time() + QUIET_S
        while behind := [text for client in self._clients if (text := client.behind())]:
            if asyncio.get_running_loop().time() > deadline_s:
                raise Broken(f"after {QUIET_S:g} quiet seconds: {'; '.join(behind)}")
            await asyncio.sleep(0.25)
            self._check()

    def _check(self) -> None:
        if self._failures:
            raise self._failures[0]
        for gateway in self._gateways:
            if gateway.up:
                gateway.check(self._feed_limits)


def _form(rng: random.Random, size: Size) -> Form:
    drawn = rng.random()
    if drawn >= size.json_share:
        return Form.PROTO
    return Form.READABLE if drawn < size.json_share / 2 else Form.JSON


def _failure(context: dict[str, object]) -> BaseException:
    error = context.get("exception")
    return error if isinstance(error, BaseException) else Broken(str(context.get("message")))
