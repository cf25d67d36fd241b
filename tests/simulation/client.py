"""A client: a real session of the Python client or another one, a store that survives restarts, and a judge of
everything that is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from oa_khala.client import commands
from oa_khala.client.session import ClientSession
from oa_khala.client.states import State
from oa_khala.frames import CaughtUp, Cursor, Event, Form, Plan, ServerFrame, Snapshot, Subscribed
from oa_khala.wire import encode_client_frame
from tests.simulation.forms import read
from tests.simulation.gateway import SimGateway, token_text
from tests.simulation.link import Link
from tests.simulation.trace import short
from tests.simulation.world import CHAINS, Broken, World

DEVICE_ID, BUILD_ID = "dev_1", "sim/1"

Sessions = Callable[[str], ClientSession]
"""Makes a session for the client of that name, which has no other any more."""


def python_session(_name: str) -> ClientSession:
    """One of the Python client."""
    return ClientSession(DEVICE_ID, BUILD_ID, chains=CHAINS)


@dataclass
class Applied:
    """What a client has of one topic: everything after `start`, up to the cursor. `state`: the state at `start`."""

    start: int
    cursor: Cursor
    state: bool = False


class _Heard:
    """What one connection delivered. A client repairs whatever comes; a gateway must not need it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next: dict[str, int] = {}
        # Parts of a topic's snapshot; -1 when none is awaited.
        self._parts: dict[str, int] = {}

    def frame(self, frame: ServerFrame) -> None:
        """Each event is the next one, and none comes before the snapshot that it follows. Raises Broken."""
        match frame:
            case Subscribed():
                self._next[frame.topic] = frame.from_seq + 1
                self._parts[frame.topic] = 0 if frame.plan is Plan.SNAPSHOT else -1
            case Snapshot():
                if frame.part != (self._parts[frame.topic] + 1 if frame.parts else 0):
                    raise Broken(f"{self._name} was sent part {frame.part} of {frame.topic} out of order")
                self._parts[frame.topic] = -1 if frame.part == frame.parts else frame.part
            case Event():
                if self._parts[frame.topic] != -1:
                    raise Broken(f"{self._name} was sent an event of {frame.topic} before its snapshot was whole")
                if frame.seq != self._next[frame.topic]:
                    raise Broken(f"{self._name} was sent {frame.seq} of {frame.topic}, not {self._next[frame.topic]}")
                self._next[frame.topic] += 1
            case CaughtUp():
                if frame.seq >= self._next[frame.topic]:
                    raise Broken(f"{self._name} was told to have caught up with {frame.seq} of {frame.topic}")


class SimClient:
    """See the module. `store` is what is on disk."""

    def __init__(
        self,
        name: str,
        world: World,
        gateways: list[SimGateway],
        form: Form,
        sessions: Sessions = python_session,
        *,
        takes_snapshots: bool = False,
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
        self._sessions = sessions
        self._takes_snapshots = takes_snapshots
        self.link: Link | None = None
        self._link_generation = 0
        self._life = 0
        self._tokens = 0
        self.sign_ins = 1
        # How many more commands are carried out before it crashes; None when it doesn't.
        self.crashes_after: int | None = None
        self._heard = _Heard(name)
        self._timer: asyncio.TimerHandle | None = None
        self.session: ClientSession

    def start(self) -> None:
        """Begin, with what is on disk."""
        self._life += 1
        self.crashes_after = None
        self.session = self._sessions(self.name)
        for topic in self._world.logs:
            self._follow(topic)
        self._do(self.session.start(self._now()))

    @property
    def session_id(self) -> str:
        """Of the present sign-in."""
        return f"ses_{self.name}_{self.sign_ins}"

    def lose_disk(self) -> None:
        """Crash, and begin with nothing."""
        self._note("loses its disk")
        self.crash()
        self.store.clear()
        self.start()

    def leave(self, topic: str, seconds: float) -> None:
        """Follow a topic no more, and again after a while. What is in flight of it arrives in between, or behind."""
        self._note(f"leaves {short(topic)}")
        self._do(self.session.unsubscribe(topic))
        self._soon(lambda: self._follow(topic), seconds)

    def _follow(self, topic: str) -> None:
        have = self.store.get(topic)
        cursor = have.cursor if have else None
        self._do(self.session.subscribe(topic, cursor, self._now(), self._takes_snapshots))

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self._note("crashes")
        self._life += 1
        if self.link is not None:
            self.link.cut(tell_client=False, tell_gateway=True)
            self.link = None

    def suspend(self, seconds: float) -> None:
        """Sleep for a while."""
        self._note(f"sleeps for {seconds:.1f} s")
        self._do(self.session.suspended())
        self._soon(lambda: self._do(self.session.resumed(self._now())), seconds)

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
            if self.crashes_after == 0:
                self.crash()
                self._soon(self.start)
                return
            if self.crashes_after is not None:
                self.crashes_after -= 1
            self._one(command)
        wake_at_ms = self.session.wake_at_ms
        if self._timer is not None:
            self._timer.cancel()
        if wake_at_ms is not None:
            delay_s = max(0, wake_at_ms - self._world.now_ms()) / 1000
            life = self._life
            self._timer = asyncio.get_running_loop().call_later(
                delay_s, self._if_alive, life, lambda: self._do(self.session.timer(self._now()))
            )

    def _one(self, command: commands.Command) -> None:
        match command:
            case commands.Connect():
                generation = command.generation
                self._soon(lambda: self._connect(generation), command.delay_ms / 1000)
            case commands.Disconnect():
                if self.link is not None and self._link_generation == command.generation:
                    self.link.abandon()
                    self.link = None
            case commands.Send():
                if self.link is not None and self._link_generation == command.generation:
                    self._note("->", command.frame)
                    self.link.send(encode_client_frame(command.frame, self._form))
            case commands.NeedToken():
                self._soon(lambda: self._token(command.topics))
            case commands.Apply():
                self._apply(command)
            case commands.Resync():
                self._note(f"drops {short(command.topic)}: {command.reason}")
                self.store.pop(command.topic, None)
                self.resyncs += 1
            case commands.Live():
                pass
            case commands.SessionFailed(reason="token_revoked") if self._world.has_ended(self.session_id):
                self._soon(self._sign_in)
            case commands.TopicFailed() | commands.SessionFailed():
                raise Broken(f"{self.name} gave up: {command}")

    def _sign_in(self) -> None:
        self.sign_ins += 1
        self._note(f"signs in as {self.session_id}")
        self.start()

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
        self._note(f"connects to {gateway.name}")
        life = self._life
        link = gateway.accept(
            self._form,
            self.session_id,
            lambda data: self._if_alive(life, lambda: self._frame(generation, data)),
            lambda reason: self._if_alive(life, lambda: self._lost(generation)),
        )
        if link is None:
            self._lost(generation)
            return
        self.link, self._link_generation = link, generation
        self._heard = _Heard(self.name)
        self._do(self.session.connected(generation, self._now()))

    def _lost(self, generation: int) -> None:
        self._note("is disconnected")
        self._do(self.session.disconnected(generation, self._now()))

    def _frame(self, generation: int, data: bytes) -> None:
        frame = read(data, self._form)
        self._note("<-", frame)
        if generation == self._link_generation and self.link is not None:
            self._heard.frame(frame)
        self._do(self.session.frame(generation, frame, self._now()))

    def _token(self, topics: frozenset[str]) -> None:
        if not self._world.control_up:
            self._do(self.session.no_token("unavailable", "control is away", self._now()))
            return
        if self._world.is_over(self.session_id):
            self._do(self.session.no_token("token_revoked", "the session is over", self._now()))
            return
        self._tokens += 1
        now_ms, ttl_ms = self._world.now_ms(), self._world.rng.choice([3_000, 8_000, 30_000])
        text = token_text(f"{self.name}-{self._life}-{self._tokens}", self.session_id, now_ms, now_ms + ttl_ms, topics)
        self._do(self.session.token(commands.SyncToken(text, topics, ttl_ms), self._now()))

    def _soon(self, what: Callable[[], None], delay_s: float = 0.0) -> None:
        life = self._life
        self._world.later(lambda: self._if_alive(life, what), delay_s + self._world.delay_s())

    def _if_alive(self, life: int, what: Callable[[], None]) -> None:
        if life == self._life:
            what()

    def _note(self, what: str, about: object = "") -> None:
        self._world.trace.note(self.name, what, about)

    def _now(self) -> commands.Instant:
        return commands.Instant(self._world.now_ms(), self._world.rng.random())
