"""Replay artifacts of finished runs, made from the log or read from the archive: the same bytes either way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from oa_base.refusal import Refusal
from oa_platform.tasks.fair_slots import FairSlots, for_whom
from oa_runlog.proof.receipt import SignedReceipt, read_facts
from oa_runlog.proof.replay import artifact_lines
from services.runtime.archive.app.spool import Spool
from services.runtime.archive.limits import ArtifactLimits
from services.runtime.log.app.ports import RunPages

_PAGE_EVENTS = 1000
_PAGE_BYTES = 1 << 20


class ArtifactSource(Protocol):
    """The source of a run's artifact once its events are no longer in the log."""

    async def fetch(self, run_id: str) -> Spool | None:
        """The artifact, its hash checked; None when the run was never archived. Raises Refusal archive_damaged."""
        ...


class Artifacts:
    """Makes or fetches artifacts. At most `limits.builds` at a time; orgs wait in turn."""

    def __init__(self, reader: RunPages, archive: ArtifactSource, limits: ArtifactLimits) -> None:
        self._reader = reader
        self._archive = archive
        self._limits = limits
        self._building = FairSlots(limits.builds)

    async def artifact(self, receipt: SignedReceipt) -> Spool:
        """The artifact of a finished run. Raises Refusal archive_damaged, limit_reached, unavailable."""
        async with self._building.slot(for_whom()):
            # The run may leave the log even while its artifact is made from it; the archive has it then.
            spool = await self.from_log(receipt) or await self._archive.fetch(receipt.run_id)
        if spool is None:
            raise Refusal(
                "archive_damaged",
                "events of the run are neither in the log nor in the archive; ask the operators to restore the archive",
            )
        return spool

    async def from_log(self, receipt: SignedReceipt) -> Spool | None:
        """The artifact from the events in the log; None unless all of them are there."""
        count = read_facts(receipt.canonical_json).count
        waiting: deque[bytes] = deque()
        lines = artifact_lines(receipt, _taken(waiting))
        spool = await asyncio.to_thread(Spool, self._limits.max_bytes)
        await asyncio.to_thread(_write, spool, lines, 1)
        seq = 0
        while page := await self._reader.run_page(receipt.run_id, seq, _PAGE_EVENTS, _PAGE_BYTES):
            if page[0][0] != seq + 1:
                return None
            waiting.extend(data for _, data in page)
            await asyncio.to_thread(_write, spool, lines, len(page))
            seq = page[-1][0]
        if seq != count:
            return None
        await asyncio.to_thread(_write, spool, lines, 1)
        return spool


def _taken(waiting: deque[bytes]) -> Iterator[bytes]:
    """The waiting events, until none is left: the header, each event and the trailer are asked for one by one."""
    while waiting:
        yield waiting.popleft()


def _write(spool: Spool, lines: Iterator[bytes], count: int) -> None:
    spool.write(b"".join(islice(lines, count)))
