"""The commands that wait for a sequencer, and the partitions that have a batch under way. No I/O."""

from __future__ import annotations

from collections import deque

from oa_base.crowd import Shares
from services.runtime.log.app.pending import PendingBatch, PendingCommand
from services.runtime.log.limits import SequencerLimits


class CommandQueue:
    """First come, first served, within each partition.

    A partition is busy while a batch has commands of it. Commands that wait for a busy partition are left alone: they
    are neither taken nor answered before those that came first.
    """

    def __init__(self, limits: SequencerLimits) -> None:
        self._limits = limits
        self._waiting: deque[PendingCommand] = deque()
        self._shares = Shares(limits.queue_commands)
        self._bytes = Shares(limits.queue_bytes)
        self._busy: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, org_id: str) -> bool:
        """Whether the queue takes another command of that org: one org can't fill it. Empty: of our own work."""
        return self._shares.has_room(org_id) and self._bytes.has_room(org_id)

    @property
    def is_due(self) -> bool:
        """Whether enough commands wait for another batch to begin, regardless of which of them it may take.

        While a batch is under way, a small amount of work had better wait for its end and share the next commit. A
        large amount is worth another batch in the meantime.
        """
        return bool(self._waiting) and (not self._busy or len(self._bytes) >= self._limits.concurrent_batch_min_bytes)

    def put(self, command: PendingCommand) -> None:
        """Add a command to the queue."""
        self._waiting.append(command)
        self._came(command)

    def take(self) -> PendingBatch | None:
        """Take the next commands of free partitions. These partitions are busy until `done`."""
        if not self.is_due:
            return None
        taken: list[PendingCommand] = []
        passed: list[PendingCommand] = []
        size = 0
        while self._waiting and len(taken) < self._limits.batch_commands:
            command = self._waiting[0]
            if not self._is_free(command):
                passed.append(self._waiting.popleft())
                continue
            size += command.size
            if taken and size > self._limits.batch_bytes:
                break
            taken.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(passed))
        return self._batch_of(taken) if taken else None

    def give_back(self, batch: PendingBatch) -> None:
        """Put the commands of a batch back, ahead of all others."""
        self._waiting.extendleft(reversed(batch.commands))
        for command in batch.commands:
            self._came(command)
        self.done(batch)

    def take_free(self) -> list[PendingCommand]:
        """Remove and return all commands that wait for free partitions; they are not worked on any more."""
        taken = [command for command in self._waiting if self._is_free(command)]
        self._waiting = deque([command for command in self._waiting if not self._is_free(command)])
        for command in taken:
            self._went(command)
        return taken

    def done(self, batch: PendingBatch) -> None:
        """Note that nobody works on a batch any more."""
        self._busy -= batch.partitions

    def _came(self, command: PendingCommand) -> None:
        self._shares.came(command.org_id)
        self._bytes.came(command.org_id, command.size)

    def _went(self, command: PendingCommand) -> None:
        self._shares.went(command.org_id)
        self._bytes.went(command.org_id, command.size)

    def _is_free(self, command: PendingCommand) -> bool:
        return command.partition not in self._busy

    def _batch_of(self, taken: list[PendingCommand]) -> PendingBatch:
        for command in taken:
            self._went(command)
        partitions = frozenset([command.partition for command in taken])
        self._busy |= partitions
        return PendingBatch(taken, partitions)
