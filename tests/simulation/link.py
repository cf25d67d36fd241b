"""One simulated TCP connection between client and gateway: ordered, delayed, of limited room, cut at any time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from oa_khala.frames import Event, Form, Snapshot
from services.khala_gateway.connections.app.connection import Connection
from services.khala_gateway.feeds.domain import encoding_of
from tests.simulation.forms import read
from tests.simulation.world import Broken, World


def messages(data: bytes) -> Iterator[bytes]:
    """The payloads of the unmasked, unfragmented WebSocket messages in `data`."""
    at = 0
    while at < len(data):
        length, header = data[at + 1], 2
        if length == 126:
            length, header = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif length == 127:
            length, header = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        yield data[at + header : at + header + length]
        at += header + length


class _Way:
    """One direction: what is put in comes out in order, a while later, until it is cut."""

    def __init__(self, world: World, deliver: Callable[[bytes], None], end: Callable[[str], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._end = end
        self._queue: deque[bytes | str] = deque()
        self._moving = False
        self.held_bytes = 0
        self.moved_bytes = 0
        self.dead = False
        self.stalled = False

    def put(self, item: bytes | str) -> None:
        """Bytes, or as a text the reason for which the other side closed behind them."""
        self._queue.append(item)
        self.held_bytes += len(item)
        self._move()

    def wake(self) -> None:
        """The receiver reads again."""
        self.stalled = False
        self._move()

    def _move(self) -> None:
        if self._queue and not self._moving and not self.stalled:
            self._moving = True
            self._world.later(self._out)

    def _out(self) -> None:
        self._moving = False
        if self.dead or self.stalled or not self._queue:
            return
        item = self._queue.popleft()
        self.held_bytes -= len(item)
        self.moved_bytes += len(item)
        if isinstance(item, bytes):
            self._deliver(item)
            self._move()
        else:
            self.dead = True
            self._end(item)


class Link:
    """Implements `Transport`. Its room is small, so that back-pressure is ordinary."""

    def __init__(
        self,
        world: World,
        form: Form,
        session_id: str,
        to_client: Callable[[bytes], None],
        client_ended: Callable[[str], None],
        high_bytes: int,
    ) -> None:
        self.encoding = encoding_of(form)
        self.session_id = session_id
        # The gateway knows that the session was revoked.
        self.is_over = False
        self.connection: Connection | None = None
        self.closing_for = ""
        self.peak_held_bytes = 0
        self._world = world
        self._client_ended = client_ended
        self._high_bytes = high_bytes
        self._blocked = False
        self._down = _Way(world, self._arrived(to_client), client_ended)
        self._up = _Way(world, self._message, lambda _: self._gateway_gone())

    # What the gateway does.

    @property
    def taken_bytes(self) -> int:
        """What the client has taken."""
        return self._down.moved_bytes

    def write(self, data: bytes) -> None:
        """Messages to the client."""
        if self._down.dead or self.closing_for or self.connection is None:
            return
        if self.is_over:
            self._check_silence(data)
        self._down.put(data)
        self.peak_held_bytes = max(self.peak_held_bytes, self._down.held_bytes)
        if self._down.held_bytes > self._high_bytes and not self._blocked:
            self._blocked = True
            self.connection.blocked(True)

    def write_all(self, several: Sequence[bytes]) -> None:
        """Several at once."""
        self.write(b"".join(several))

    def read_on(self) -> None:
        """Nothing is held back here: clients of the simulation say little at a time."""

    def _check_silence(self, data: bytes) -> None:
        for message in messages(data):
            if isinstance(read(message, self.encoding.form), Event | Snapshot):
                raise Broken(f"{self.session_id} was revoked, the gateway knows it, and sends more")

    def close(self, code: int, reason: str) -> None:
        """The closing handshake: the client learns why, after what was sent before."""
        if not self.closing_for:
            self.closing_for = reason
            self._down.put(reason)
            self._world.later(self._gateway_gone)

    # What the client does.

    def send(self, data: bytes) -> None:
        """A message to the gateway."""
        if not self._up.dead:
            self._up.put(data)

    def stall(self, seconds: float) -> None:
        """The client does not read for a while."""
        self._down.stalled = True
        self._world.later(self._down.wake, seconds)

    def abandon(self) -> None:
        """The client drops it. What is on its way to the client still comes for a moment, and so does its end."""
        self._up.dead = True
        self._world.later(lambda: self.cut(tell_client=True, tell_gateway=True), 2 * self._world.delay_s())

    # What the world does.

    def cut(self, tell_client: bool, tell_gateway: bool) -> None:
        """Nothing gets through any more; who isn't told has to find out."""
        was_dead = self._down.dead
        self._down.dead = self._up.dead = True
        if tell_client and not was_dead:
            self._world.later(lambda: self._client_ended(""))
        if tell_gateway:
            self._world.later(self._gateway_gone)

    @property
    def dead(self) -> bool:
        """Whether nothing gets through any more."""
        return self._down.dead

    def _arrived(self, to_client: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def deliver(data: bytes) -> None:
            for message in messages(data):
                to_client(message)
            if self._blocked and self._down.held_bytes <= self._high_bytes // 4 and self.connection is not None:
                self._blocked = False
                self.connection.blocked(False)

        return deliver

    def _message(self, data: bytes) -> None:
        if self.connection is not None and not self.closing_for:
            self.connection.message(data)

    def _gateway_gone(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.closed()
