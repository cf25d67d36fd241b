"""The hint that is shown while no worker has taken a run."""

from __future__ import annotations

import asyncio

from apps.cli.output import Output
from oa_base.visible import visible
from oa_client.follow.items import Began, Broken, Item, Seen
from oa_runlog import events

NO_WORKER_HINT_S = 3.0
"""Time after which a run that no worker has taken gets a hint."""
STARTED_BY_OA = ("codex", "exec")
"""The adapters of `oa worker start`. Every other adapter is an agent of a worker that somebody wrote."""


class NoWorkerHint:
    """Says after a while what to start, unless more than the run's beginning was heard by then."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._adapter = ""
        self._task = asyncio.create_task(self._say())

    def heard(self, item: Item) -> None:
        """Note an item of the run."""
        if isinstance(item, Seen) and isinstance(item.event.body, events.RunCreated):
            self._adapter = item.event.body.spec.adapter
        elif isinstance(item, Seen | Began | Broken):
            self.cancel()  # a worker has the run, or we can't see whether one has

    def cancel(self) -> None:
        """Give no hint any more."""
        self._task.cancel()

    async def _say(self) -> None:
        await asyncio.sleep(NO_WORKER_HINT_S)
        self._output.note(f"No worker has taken it yet. {_what_to_start(self._adapter)}")


def _what_to_start(adapter: str) -> str:
    """Return what to do for a run of the adapter, which may not be known yet."""
    if adapter in STARTED_BY_OA:
        return f"In another shell: oa worker start --adapter {adapter}"
    return f"Start one that has the agent {visible(adapter)}." if adapter else "Start one that has its agent."
