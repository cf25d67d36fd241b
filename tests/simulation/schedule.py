"""One schedule of Khala: a storm of `STORM_S` seconds, then quiet, in which everybody must come to equal the head.

Checked at every application, in the client: it is the next event of its lineage, and says what the authority says.
Checked now and then: memory bounds, and that no side ever found a defect in the other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from structlog.testing import capture_logs

from oa_khala.feed import FeedLimits
from oa_khala.frames import Form
from oa_khala.topics import parse_topic
from oa_topics.store import TopicLimits
from services.khala_gateway.feeds.limits import HubLimits
from tests.simulation.client import SimClient
from tests.simulation.gateway import SimGateway
from tests.simulation.source import SimReplica
from tests.simulation.virtual_time import run_virtual
from tests.simulation.world import Broken, Weather, World

STORM_S = 20.0
QUIET_S = 60.0
STEPS = 60
TOPICS = (
    "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events",
    "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs",
)
_FORMS = (Form.PROTO, Form.JSON)
COMMAND = "python -m tests.simulation"


class SimulationFailure(AssertionError):
    """A schedule in which something that must hold did not; the message says how to repeat it."""


@dataclass(frozen=True)
class Outcome:
    """What happened in a schedule. `seen` names what the gateways had to deal with ("connection_closing draining")."""

    seed: int
    applied: int
    resyncs: int
    snapshots: int
    run_snapshots: int
    virtual_s: float
    seen: frozenset[str]


def run_schedule(seed: int) -> Outcome:
    """Runs the schedule that `seed` decides. Raises SimulationFailure."""
    with capture_logs() as logs:
        try:
            outcome = run_virtual(lambda: _Schedule(seed).run())
        except Exception as error:
            last = "\n".join(f"  {entry}" for entry in logs[-12:])
            text = f"seed {seed}: {type(error).__name__}: {error}\nrepeat: {COMMAND} --from {seed} --seeds 1\n{last}"
            raise SimulationFailure(text) from error
    return replace(outcome, seen=frozenset(f"{entry['event']} {entry.get('reason', '')}".strip() for entry in logs))


def _replicas(gateways: list[SimGateway]) -> list[SimReplica]:
    return [replica for gateway in gateways for replica in gateway.replicas]


class _Schedule:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._world = world = World(seed, TOPICS)
        rng = world.rng
        self._feed_limits = FeedLimits(ring_events=rng.choice([4, 16, 64]), parked_events=rng.choice([0, 2, 8]))
        hub_limits = HubLimits(
            feed=self._feed_limits,
            slice_frames=rng.choice([1, 3, 50]),
            page_frames=rng.choice([2, 7, 50]),
            page_bytes=16_384,
            linger_ms=rng.choice([50, 2_000]),
            carry_timeout_ms=2_000,
            # The audit would hide what nothing else mends, so it is sometimes as good as off.
            audit_interval_ms=rng.choice([3_000, 600_000]),
        )
        topic_limits = TopicLimits(
            pending_bytes=rng.choice([300, 3_000, 300_000]), page_frames=rng.choice([2, 50]), poll_interval_ms=500
        )
        # One last event makes sure that equality is not that of the dead, and hides what only it would show.
        self._last_event = rng.random() < 0.5
        high_bytes = rng.choice([500, 5_000, 50_000])
        self._gateways = [SimGateway(world, hub_limits, topic_limits, high_bytes) for _ in range(rng.choice([1, 2]))]
        self._clients = [
            SimClient(f"client{index}", world, self._gateways, rng.choice(_FORMS), takes_snapshots=rng.random() < 0.5)
            for index in range(rng.randint(1, 3))
        ]
        self._failures: list[BaseException] = []

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._failures.append(_failure(context)))
        for gateway in self._gateways:
            gateway.start()
        for client in self._clients:
            client.start()
        await self._storm()
        await self._calm()
        await self._quiet()
        clients = self._clients
        applied, resyncs = sum(one.applied for one in clients), sum(one.resyncs for one in clients)
        snapshots, of_runs = sum(one.snapshots for one in clients), sum(one.run_snapshots for one in clients)
        return Outcome(self._seed, applied, resyncs, snapshots, of_runs, loop.time(), frozenset())

    async def _storm(self) -> None:
        rng = self._world.rng
        self._world.weather = Weather(
            lose=rng.choice([0, 0.1, 0.5]),
            repeat=rng.choice([0, 0.3]),
            refuse=rng.choice([0, 0.2]),
            most_delay_s=rng.choice([0.002, 0.05, 0.5]),
        )
        for _ in range(STEPS):
            await asyncio.sleep(rng.random() * 2 * STORM_S / STEPS)
            await self._step()
            self._check()
        # More than fits at once, and nothing after it that would show what found no room.
        for _ in range(3):
            self.append()

    async def _step(self) -> None:
        names = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]
        result = getattr(self, self._world.rng.choice(names))()
        if result is not None:
            await result

    async def _calm(self) -> None:
        self._world.weather = Weather()
        self._world.control_up = True
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

    # --------------------------------------------------------------------------------------------- what can happen

    def append(self) -> None:
        rng = self._world.rng
        self._world.append(rng.choice(TOPICS), rng.choice([1, 1, 3, 40]))

    def cut(self) -> None:
        rng = self._world.rng
        link = rng.choice(self._clients).link
        if link is not None:
            link.cut(tell_client=rng.random() < 0.7, tell_gateway=rng.random() < 0.7)

    def stall(self) -> None:
        rng = self._world.rng
        link = rng.choice(self._clients).link
        if link is not None and not link.dead:
            link.stall(rng.random() * 8)

    def restart_client(self) -> None:
        client = self._world.rng.choice(self._clients)
        client.crash()
        client.start()

    def suspend_client(self) -> None:
        rng = self._world.rng
        rng.choice(self._clients).suspend(rng.random() * 3)

    async def crash_gateway(self) -> None:
        gateway = self._world.rng.choice(self._gateways)
        if gateway.up:
            await gateway.crash()
        else:
            gateway.start()

    def drain_gateway(self) -> None:
        gateway = self._world.rng.choice(self._gateways)
        if gateway.up:
            gateway.drain(1_000)

    def source_down(self) -> None:
        for replica in _replicas(self._gateways):
            replica.channel.down()

    def source_up(self) -> None:
        for replica in _replicas(self._gateways):
            replica.channel.up()

    def restore_log(self) -> None:
        """The streams may stand all the while."""
        rng = self._world.rng
        cut = rng.random() < 0.5
        if cut:
            self.source_down()
        log = self._world.logs[rng.choice(TOPICS)]
        log.restore(rng.randint(0, log.head + 3))
        for replica in _replicas(self._gateways):
            replica.restart(parse_topic(log.topic).source)
        if cut:
            self.source_up()

    async def replace_log(self) -> None:
        """A failover that lost something unseen, and everything in memory with it. Only a cursor's chain can tell."""
        log, rng = self._world.logs[TOPICS[0]], self._world.rng
        if log.floor:
            return  # what was pruned is final, and whoever begins there knows no chain
        for gateway in self._gateways:
            if gateway.up:
                await gateway.crash()
        kept = rng.randint(0, log.head)
        log.replace(kept, rng.randint(kept, log.head + 3))
        for gateway in self._gateways:
            gateway.start()

    def prune_log(self) -> None:
        log = self._world.logs[self._world.rng.choice(TOPICS)]
        log.prune(self._world.rng.randint(log.floor, log.head))

    def control(self) -> None:
        self._world.control_up = not self._world.control_up


_WEIGHTS = {
    "append": 24,
    "cut": 8,
    "stall": 3,
    "restart_client": 3,
    "suspend_client": 2,
    "crash_gateway": 3,
    "drain_gateway": 1,
    "source_down": 3,
    "source_up": 4,
    "restore_log": 2,
    "replace_log": 1,
    "prune_log": 2,
    "control": 2,
}


def _failure(context: dict[str, object]) -> BaseException:
    error = context.get("exception")
    return error if isinstance(error, BaseException) else Broken(str(context.get("message")))
