"""What is said while nobody has taken a run."""

from __future__ import annotations

import asyncio

from apps.cli.output import Output
from oa_base.visible import visible
from oa_client.follow.items import Began, Broken, Item, Seen
from oa_runlog import events

NO_WORKER_HINT_S = 3.0
"""A run that nobody has taken for so long gets a hint."""
STARTED_BY_OA = ("codex", "exec")
"""Adapters that `oa worker start` has. Every other one is an agent of a worker that somebody wrote."""


class NoWorkerHint:
    """Says after a while what to start, unless something more than the run's beginning was heard until then."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._adapter = ""
        self._task = asyncio.create_task(self._say())

    def heard(self, item: Item) -> None:
        """More of the run was heard."""
        if isinstance(item, Seen) and isinstance(item.event.body, events.RunCreated):
            self._adapter = item.event.body.spec.adapter
        elif isinstance(item, Seen | Began | Broken):
            self.cancel()  # a worker has the run, or we can't see whether one has

    def cancel(self) -> None:
        """There is nothing to say any more."""
        self._task.cancel()

    async def _say(self) -> None:
        await asyncio.sleep(NO_WORKER_HINT_S)
        self._output.note(f"No worker has taken it yet. {_what_to_start(self._adapter)}")


def _what_to_start(adapter: str) -> str:
    """What to do for a run of the adapter, which may not be known yet."""
    if adapter in STARTED_BY_OA:
        return f"In another shell: oa worker start --adapter {adapter}"
    return f"Start one that has the agent {visible(adapter)}." if adapter else "Start one that has its agent."
