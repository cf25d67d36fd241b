"""What waits for a sequencer, and which partitions a batch is under way for. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from oa_runlog.commands import Append, Command
from services.runtime.app.limits import SequencerLimits
from services.runtime.domain.batch import Applied
from services.runtime.domain.pipeline import Place


@dataclass(slots=True)
class Waiter:
    """A command, and who waits for its answer. `size`: bytes of its events; `since`: when it came, in seconds; `place`:
    an append's among those of its stream."""

    command: Command
    partition: int
    answer: asyncio.Future[Applied]
    since: float
    place: Place | None = None
    size: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.command, Append):
            self.size = sum([len(event.data) for event in self.command.events])


@dataclass(slots=True)
class Turn:
    """Commands that are decided and stored together. Until it is `done`, its partitions are nobody else's."""

    waiters: list[Waiter]
    partitions: frozenset[int]


class CommandQueue:
    """First come, first served, within each partition."""

    def __init__(self, limits: SequencerLimits) -> None:
        self._limits = limits
        self._waiting: deque[Waiter] = deque()
        self._bytes = 0
        self._busy: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """It takes nothing more."""
        return len(self._waiting) >= self._limits.queue_commands

    @property
    def has_turn(self) -> bool:
        """Whether another transaction should begin.

        While one is under way, little that waits had better wait for its end and share the next commit; much is worth
        being worked on meanwhile.
        """
        return bool(self._waiting) and (not self._busy or self._bytes >= self._limits.beside_bytes)

    def put(self, waiter: Waiter) -> None:
        """Let a command wait."""
        self._waiting.append(waiter)
        self._bytes += waiter.size

    def take(self) -> Turn | None:
        """The next commands of partitions that are free."""
        if not self.has_turn:
            return None
        taken: list[Waiter] = []
        passed: list[Waiter] = []
        size = 0
        while self._waiting and len(taken) < self._limits.batch_commands:
            waiter = self._waiting[0]
            if waiter.partition in self._busy:
                passed.append(self._waiting.popleft())
                continue
            size += waiter.size
            if taken and size > self._limits.batch_bytes:
                break
            taken.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(passed))
        return self._turn(taken) if taken else None

    def take_all(self) -> list[Waiter]:
        """Everything that waits; it is not worked on any more."""
        waiters = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return waiters

    def _turn(self, taken: list[Waiter]) -> Turn:
        self._bytes -= sum([waiter.size for waiter in taken])
        partitions = frozenset([waiter.partition for waiter in taken])
        self._busy |= partitions
        return Turn(taken, partitions)

    def done(self, turn: Turn) -> None:
        """A turn was carried out, or failed."""
        self._busy -= turn.partitions
