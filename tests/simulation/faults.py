"""What can happen in a schedule: each method is one thing, and `sizes` says how often it does."""

from __future__ import annotations

from oa_khala.topics import parse_topic
from oa_platform.auth.revocations import Revocation
from tests.simulation.client import SimClient
from tests.simulation.gateway import SimGateway
from tests.simulation.sizes import Size
from tests.simulation.source import SimReplica
from tests.simulation.world import World

TOPICS = (
    "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events",
    "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs",
)
_TELL_THEMSELVES = frozenset({"append", "crash_gateway", "drain_gateway", "lose_disk", "leave_topic", "suspend_client"})


class ClientFaults:
    """What happens to clients, and between them and gateways."""

    def __init__(self, world: World, clients: list[SimClient]) -> None:
        self._world = world
        self._clients = clients

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

    def crash_client_at_work(self) -> None:
        rng = self._world.rng
        rng.choice(self._clients).crashes_after = rng.randint(0, 4)

    def lose_disk(self) -> None:
        self._world.rng.choice(self._clients).lose_disk()

    def leave_topic(self) -> None:
        rng = self._world.rng
        rng.choice(self._clients).leave(rng.choice(TOPICS), rng.random())

    def suspend_client(self) -> None:
        rng = self._world.rng
        rng.choice(self._clients).suspend(rng.random() * 3)


class Faults(ClientFaults):
    """The rest: sources and their logs, gateways, control."""

    def __init__(self, world: World, clients: list[SimClient], gateways: list[SimGateway], size: Size) -> None:
        super().__init__(world, clients)
        self._gateways = gateways
        self._size = size

    async def one(self) -> None:
        """Something happens."""
        weights = self._size.weights
        (name,) = self._world.rng.choices(list(weights), list(weights.values()))
        if name not in _TELL_THEMSELVES:
            self._world.trace.note("world", name)
        result = getattr(self, name)()
        if result is not None:
            await result

    def append(self) -> None:
        rng = self._world.rng
        self._world.append(rng.choice(TOPICS), rng.choice(self._size.appends))

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

    def crash_source(self) -> None:
        """One of their processes; it is back when the way to it is."""
        replicas = _replicas(self._gateways)
        if replicas:
            self._world.rng.choice(replicas).crash()

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
        self.control_is(not self._world.control_up)

    def control_is(self, up: bool) -> None:
        """Control is there, or away."""
        self._world.control_up = up
        for gateway in self._gateways:
            gateway.hear_of_revocations()

    def revoke_session(self) -> None:
        """Somebody signs a device out; it signs in again when it notices."""
        client = self._world.rng.choice(self._clients)
        self._revoke(Revocation(client.session_id))

    def revoke_tokens(self) -> None:
        """What was issued before this moment is over, and the session goes on with another token."""
        client = self._world.rng.choice(self._clients)
        self._revoke(Revocation(client.session_id, issued_before_s=self._world.now_ms() / 1000))

    def _revoke(self, revocation: Revocation) -> None:
        # Control may be away for the gateways a moment after it has revoked something.
        if not self._world.is_over(revocation.session_id):
            self._world.revoked.append(revocation)
        for gateway in self._gateways:
            gateway.hear_of_revocations()


def _replicas(gateways: list[SimGateway]) -> list[SimReplica]:
    return [replica for gateway in gateways for replica in gateway.replicas]
