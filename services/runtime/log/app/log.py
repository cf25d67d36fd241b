"""The log as this process writes it: commands go to its sequencer, with their run's partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from oa_runlog.authority.commands import Command, CreateRun
from oa_runlog.authority.limits import RunLimits
from oa_runlog.partitions import partition_of
from services.runtime.authority.domain import Installation
from services.runtime.log.app.batch_writer import Seal
from services.runtime.log.app.fanout import Publish
from services.runtime.log.app.ports import LogStore
from services.runtime.log.app.sequencer import Sequencer
from services.runtime.log.domain.batch import Applied
from services.runtime.log.domain.pipeline import Place
from services.runtime.log.limits import SequencerLimits

Create = Callable[[CreateRun], Awaitable[Applied]]
"""Creates a run, as `Log.do` does; raises Refusal."""


class Log:
    """Writes the log. An async context manager: on exit, it takes no more commands and finishes the queued ones."""

    def __init__(
        self,
        installation: Installation,
        store: LogStore,
        run_limits: RunLimits,
        limits: SequencerLimits,
        seal: Seal,
        publish: Publish,
    ) -> None:
        self.partitions = installation.partitions
        self._sequencer = Sequencer(store, run_limits, limits, seal, publish)
        self._working: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._working = asyncio.create_task(self._sequencer.run(), name="sequencer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sequencer.close()
        await asyncio.gather(self._working, return_exceptions=True)

    def restart(self) -> None:
        """See `Sequencer.restart`."""
        self._sequencer.restart()

    def submit(self, command: Command, place: Place | None = None) -> asyncio.Future[Applied]:
        """See `Sequencer.submit`."""
        return self._sequencer.submit(command, partition_of(command.run_id, self.partitions), place)

    async def do(self, command: Command) -> Applied:
        """Carry out a command. Raises Refusal. The command goes on even if the caller gives up waiting."""
        return await asyncio.shield(self.submit(command))
