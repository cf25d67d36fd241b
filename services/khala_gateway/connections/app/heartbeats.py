"""Heartbeats: what every connection hears while nothing happens.

Time is divided into turns, and a connection is in one of them: the one in which its last heartbeat was sent. All
connections of a turn that follow the same topics are given the same bytes, in one loop, and nothing else of them is
touched: most of the cost of a heartbeat would be memory that has left the processor's caches.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from oa_khala.frames import Form, Heartbeat
from oa_khala.server.subscriptions import Served, Standing, heads_of
from oa_khala.wire import encode_server_frame
from services.khala_gateway.feeds.app.cohort import Write
from services.khala_gateway.feeds.app.entries import Entry
from services.khala_gateway.feeds.domain import Encoding

MAX_TURNS = 100
"""The most turns that an interval is divided into."""
MIN_TURN_MS = 50
"""Turns of a short interval are not shorter, unless the interval is."""

# What decides about the bytes.
_Content = tuple[Encoding, Served]


class Beating(Protocol):
    """One connection."""

    @property
    def encoding(self) -> Encoding:
        """The encoding of its heartbeats."""
        ...

    @property
    def served(self) -> Served:
        """The topics that it is being served."""
        ...

    @property
    def write(self) -> Write:
        """Writes complete messages to its socket."""
        ...


class _Turn:
    """Connections whose heartbeats leave together."""

    __slots__ = ("alike", "unsorted")

    def __init__(self) -> None:
        # By content. What a connection follows is looked up when its heartbeat is due, not at each change.
        self.alike: dict[_Content, _Group] = {}
        self.unsorted = _Group(self)

    def __bool__(self) -> bool:
        return bool(self.unsorted.writes) or any(group.writes for group in self.alike.values())


class _Group:
    """Connections of one turn."""

    __slots__ = ("turn", "writes")

    def __init__(self, turn: _Turn) -> None:
        self.turn = turn
        self.writes: dict[Beating, Write] = {}


class Heartbeats:
    """See the module. A connection has a heartbeat after each interval, or up to two turns earlier."""

    def __init__(self, standing: Standing, interval_ms: int, now_ms: Callable[[], int]) -> None:
        """`now_ms` never goes back."""
        self._standing = standing
        self._now_ms = now_ms
        self._turn_ms = min(interval_ms, max(MIN_TURN_MS, interval_ms // MAX_TURNS))
        self._turns = [_Turn() for _ in range(interval_ms // self._turn_ms)]
        self._groups: dict[Beating, _Group] = {}
        # Turns are numbered by the clock. All up to `_done` have had theirs; `_due` is the next one in which there are
        # connections, and the event loop wakes us then; None: there are no connections.
        self._done = 0
        self._due: int | None = None

    def start(self, one: Beating) -> None:
        """Give `one` heartbeats, the first one in an interval; an interval that has begun begins anew."""
        number = self._now_ms() // self._turn_ms
        if self._due is None or number < self._due:
            self._done = number
        self._put(one, self._turn(number).unsorted)
        if self._due is None:
            self._arm()

    def changed(self, one: Beating) -> None:
        """Note that `one`, if it is given heartbeats, is being served other topics from now on."""
        group = self._groups.get(one)
        if group is not None and group is not group.turn.unsorted:
            self._put(one, group.turn.unsorted)

    def stop(self, one: Beating) -> None:
        """Give `one` no more heartbeats."""
        group = self._groups.pop(one, None)
        if group is not None:
            del group.writes[one]

    # --------------------------------------------------------------------------------------------- inside

    def _turn(self, number: int) -> _Turn:
        return self._turns[number % len(self._turns)]

    def _put(self, one: Beating, group: _Group) -> None:
        self.stop(one)
        group.writes[one] = one.write
        self._groups[one] = group

    def _arm(self) -> None:
        following = range(self._done + 1, self._done + 1 + len(self._turns))
        self._due = next((number for number in following if self._turn(number)), None)
        if self._due is not None:
            delay_s = max(0, self._due * self._turn_ms - self._now_ms()) / 1000
            asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        now_ms = self._now_ms()
        done, self._done = self._done, max(self._done, now_ms // self._turn_ms)
        for number in range(max(done, self._done - len(self._turns)) + 1, self._done + 1):
            self._beat(self._turn(number), now_ms)
        self._arm()

    def _beat(self, turn: _Turn, now_ms: int) -> None:
        for one in list(turn.unsorted.writes):
            content = one.encoding, one.served
            if content not in turn.alike:
                turn.alike[content] = _Group(turn)
            self._put(one, turn.alike[content])
        for content, group in list(turn.alike.items()):
            if not group.writes:
                del turn.alike[content]
                continue
            message = self._message(content, now_ms)
            for write in list(group.writes.values()):
                try:
                    write(message)
                except Exception as error:  # noqa: BLE001 - as the loop does with what it calls; others go on
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": "a heartbeat could not be written", "exception": error}
                    )

    def _message(self, content: _Content, now_ms: int) -> bytes:
        encoding, served = content
        heads = heads_of(served, self._standing)
        return Entry(encode_server_frame(Heartbeat(heads, now_ms), Form.PROTO)).message(encoding)
