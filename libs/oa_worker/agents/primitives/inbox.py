"""The inputs of a run, as its agent receives them: all of them, in order, from the first one on."""

from __future__ import annotations

import asyncio
from collections import deque

from oa_worker.agents.primitives.ending import check_not_canceling
from oa_worker.agents.primitives.takeover.past import Past
from oa_worker.sdk.adapter import Assignment


class Inbox:
    """The inputs of one run. After a takeover the first one comes first again, because the function begins again too.

    Waiting for an input and taking it are separate: a task that waits may be canceled at any moment, and has then taken
    nothing.
    """

    def __init__(self, assignment: Assignment, past: Past) -> None:
        self._assignment = assignment
        self._past = past
        self._read_up_to = 0
        self._reading = asyncio.Lock()
        self._unheard: deque[tuple[int, str]] = deque()

    async def arrival(self) -> None:
        """Wait until there is an input to take. Raises Refusal once the run is no longer this worker's, and at once if
        there is none after the run's cancel was requested: there won't be one any more."""
        # As of now: a task that waits already is canceled by the function, if the function wants that.
        is_canceling = self._assignment.cancel.requested
        while not self._unheard:
            told = self._assignment.news.count  # before the read, so that news during the read leads to another read
            await self._read()
            if not self._unheard:
                if is_canceling:
                    await check_not_canceling(self._assignment)
                await self._assignment.news.after(told)
        await self._past.turn_of(self._unheard[0][0])

    def take(self) -> str | None:
        """Return the next input, as JSON text; None if there is none, or none any more."""
        return self._unheard.popleft()[1] if self._unheard else None

    async def _read(self) -> None:
        async with self._reading:
            async for event in self._assignment.events("input.received", after_seq=self._read_up_to):
                self._unheard.append((event.seq, event.body.input_received.input_json))
                self._read_up_to = event.seq
