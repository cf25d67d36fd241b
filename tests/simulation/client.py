"""A client: the real `ClientSession`, a store that survives restarts, and a judge of everything that is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from oa_khala.client import commands
from oa_khala.client.session import ClientSession
from oa_khala.client.states import State
from oa_khala.frames import CaughtUp, Cursor, Event, Form, Plan, ServerFrame, Snapshot, Subscribed
from oa_khala.wire import decode_server_frame, encode_client_frame
from tests.simulation.gateway import SimGateway, token_text
from tests.simulation.link import Link
from tests.simulation.world import CHAINS, Broken, World


@dataclass
class Applied:
    """What a client has of one topic: everything after `start`, up to the cursor. `state`: the state at `start`."""

    start: int
    cursor: Cursor
    state: bool = False


class SimClient:
    """See the module. `store` is what is on disk."""

    def __init__(
        self, name: str, world: World, gateways: list[SimGateway], form: Form, *, takes_snapshots: bool = False
    ) -> None:
        """`takes_snapshots`: of any size, and of runs too."""
        self.name = name
        self.store: dict[str, Applied] = {}
        self.applied = 0
        self.resyncs = 0
        self.snapshots = 0
        self.run_snapshots = 0
        self._world = world
        self._gateways = gateways
        self._form = form
        self._takes_snapshots = takes_snapshots
        self._link: Link | None = None
        self._link_generation = 0
        self._life = 0
        self._tokens = 0
        self._next: dict[str, int] = {}
        # Parts of a topic's snapshot that came on this connection; -1 when none is awaited.
        self._parts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.session: ClientSession

    def start(self) -> None:
        """Begin, with what is on disk."""
        self._life += 1
        self.session = ClientSession("dev_1", "sim/1", chains=CHAINS)
        for topic in self._world.logs:
            have = self.store.get(topic)
            cursor = have.cursor if have else None
            self._do(self.session.subscribe(topic, cursor, self._now(), self._takes_snapshots))
        self._do(self.session.start(self._now()))

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self._life += 1
        if self._link is not None:
            self._link.cut(tell_client=False, tell_gateway=True)
            self._link = None

    def suspend(self, seconds: float) -> None:
        """Sleep for a while."""
        self._do(self.session.suspended())
        self._soon(lambda: self._do(self.session.resumed(self._now())), seconds)

    @property
    def link(self) -> Link | None:
        """The present connection."""
        return self._link

    def behind(self) -> str:
        """What is missing to equal the authority; empty when nothing is."""
        if self.session.state is not State.OPEN:
            return f"{self.name} is {self.session.state.value}"
        for topic, log in self._world.logs.items():
            have = self.store.get(topic)
            if have is None and log.head > log.floor:
                return f"{self.name} has nothing of {topic}"
            if have is None:
                continue
            # Who began above the start without a snapshot can't know the chain.
            knows = have.state or not have.start
            there = Cursor(log.epoch, log.head, log.chain(log.head) if knows else b"")
            if have.cursor != there:
                return f"{self.name} is at {have.cursor} of {topic}, which is at {there}"
        return ""

    # --------------------------------------------------------------------------------------------- commands

    def _do(self, todo: list[commands.Command]) -> None:
        for command in todo:
            self._one(command)
        wake_at_ms = self.session.wake_at_ms
        if self._timer is not None:
            self._timer.cancel()
        if wake_at_ms is not None:
            delay_s = max(0, wake_at_ms - self._world.now_ms()) / 1000
            life = self._life
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._if_alive, life, self._tick)

    def _one(self, command: commands.Command) -> None:
        match command:
            case commands.Connect():
                generation = command.generation
                self._soon(lambda: self._connect(generation), command.delay_ms / 1000)
            case commands.Disconnect():
                if self._link is not None and self._link_generation == command.generation:
                    self._link.cut(tell_client=False, tell_gateway=True)
                    self._link = None
            case commands.Send():
                if self._link is not None and self._link_generation == command.generation:
                    self._link.send(encode_client_frame(command.frame, self._form))
            case commands.NeedToken():
                self._soon(lambda: self._token(command.topics))
            case commands.Apply():
                self._apply(command)
            case commands.Resync():
                self.store.pop(command.topic, None)
                self.resyncs += 1
            case commands.Live():
                pass
            case commands.TopicFailed() | commands.SessionFailed():
                raise Broken(f"{self.name} gave up: {command}")

    def _apply(self, command: commands.Apply) -> None:
        log, cursor = self._world.logs[command.topic], command.cursor
        have = self.store.get(command.topic)
        if command.snapshot:
            if not log.is_list and not self._takes_snapshots:
                raise Broken(f"{self.name} takes no snapshots, and got one of {command.topic}")
            if not log.had_snapshot(cursor, command.payload):
                raise Broken(f"{self.name} got {command.payload!r} as the state at {cursor}")
            if have is not None:
                raise Broken(f"{self.name} got a snapshot at {cursor} and has {have.cursor}")
            self.store[command.topic] = Applied(cursor.applied_seq, cursor, state=True)
            self.snapshots += 1
            self.run_snapshots += 0 if log.is_list else 1
            return
        if not log.had(cursor.epoch, cursor.applied_seq, command.payload):
            raise Broken(f"{self.name} got {command.payload!r} as {cursor}")
        if have is None:
            if (cursor.epoch, cursor.applied_seq - 1) not in log.floors:
                raise Broken(f"{self.name} began {command.topic} at {cursor}, which was never behind a floor")
            have = self.store[command.topic] = Applied(cursor.applied_seq - 1, cursor)
        elif (cursor.epoch, cursor.applied_seq) != (have.cursor.epoch, have.cursor.applied_seq + 1):
            raise Broken(f"{self.name} applied {cursor} after {have.cursor}")
        have.cursor = cursor
        self.applied += 1

    def _connect(self, generation: int) -> None:
        if generation != self.session.generation:
            return
        gateway = self._world.rng.choice(self._gateways)
        life = self._life
        link = gateway.accept(
            self._form,
            lambda data: self._if_alive(life, lambda: self._frame(generation, data)),
            lambda reason: self._if_alive(life, lambda: self._ended(generation)),
        )
        if link is None:
            self._do(self.session.disconnected(generation, self._now()))
            return
        self._link, self._link_generation = link, generation
        self._next.clear()
        self._do(self.session.connected(generation, self._now()))

    def _frame(self, generation: int, data: bytes) -> None:
        frame = decode_server_frame(data, self._form)
        self._judge(frame)
        self._do(self.session.frame(generation, frame, self._now()))

    def _judge(self, frame: ServerFrame) -> None:
        """A client repairs whatever comes; a gateway must not need it: on one connection each event is the next, and
        none comes before the snapshot that it follows."""
        match frame:
            case Subscribed():
                self._next[frame.topic] = frame.from_seq + 1
                self._parts[frame.topic] = 0 if frame.plan is Plan.SNAPSHOT else -1
            case Snapshot():
                if frame.part != (self._parts[frame.topic] + 1 if frame.parts else 0):
                    raise Broken(f"{self.name} was sent part {frame.part} of {frame.topic} out of order")
                self._parts[frame.topic] = -1 if frame.part == frame.parts else frame.part
            case Event():
                if self._parts[frame.topic] != -1:
                    raise Broken(f"{self.name} was sent an event of {frame.topic} before its snapshot was whole")
                if frame.seq != self._next[frame.topic]:
                    raise Broken(f"{self.name} was sent {frame.seq} of {frame.topic}, not {self._next[frame.topic]}")
                self._next[frame.topic] += 1
            case CaughtUp():
                if frame.seq >= self._next[frame.topic]:
                    raise Broken(f"{self.name} was told to have caught up with {frame.seq} of {frame.topic}")

    def _ended(self, generation: int) -> None:
        self._do(self.session.disconnected(generation, self._now()))

    def _tick(self) -> None:
        self._do(self.session.timer(self._now()))

    def _token(self, topics: frozenset[str]) -> None:
        if not self._world.control_up:
            self._do(self.session.no_token("unavailable", "control is away", self._now()))
            return
        self._tokens += 1
        ttl_ms = self._world.rng.choice([3_000, 8_000, 30_000])
        text = token_text(f"{self.name}-{self._life}-{self._tokens}", self._world.now_ms() + ttl_ms, topics)
        self._do(self.session.token(commands.SyncToken(text, topics, ttl_ms), self._now()))

    def _soon(self, what: Callable[[], None], delay_s: float = 0.0) -> None:
        life = self._life
        self._world.later(lambda: self._if_alive(life, what), delay_s + self._world.delay_s())

    def _if_alive(self, life: int, what: Callable[[], None]) -> None:
        if life == self._life:
            what()

    def _now(self) -> commands.Instant:
        return commands.Instant(self._world.now_ms(), self._world.rng.random())
