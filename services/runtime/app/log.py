"""The log as this process writes it: commands go to the sequencer that has their run's partition."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from oa_runlog.chain import partition_of
from oa_runlog.commands import Command
from oa_runlog.decide import Limits
from services.runtime.app.limits import SequencerLimits
from services.runtime.app.ports import Installation, LogStore
from services.runtime.app.sequencer import Publish, Seal, Sequencer
from services.runtime.domain.batch import Applied


class Log:
    """Writes the log; an async context manager. Leaving it takes no more commands and finishes the queued ones."""

    def __init__(
        self,
        installation: Installation,
        store: LogStore,
        run_limits: Limits,
        limits: SequencerLimits,
        seal: Seal,
        publish: Publish,
    ) -> None:
        self.partitions = installation.partitions
        self._sequencers = [
            Sequencer(store, run_limits, limits, seal, publish) for _ in range(min(limits.lanes, self.partitions))
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(one.run(), name="sequencer") for one in self._sequencers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for sequencer in self._sequencers:
            sequencer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, command: Command) -> asyncio.Future[Applied]:
        """See `Sequencer.submit`."""
        partition = partition_of(command.run_id, self.partitions)
        return self._sequencers[partition % len(self._sequencers)].submit(command, partition)

    async def do(self, command: Command) -> Applied:
        """Carry out a command. Raises Refusal; the command goes on when the caller gives up waiting."""
        return await asyncio.shield(self.submit(command))
