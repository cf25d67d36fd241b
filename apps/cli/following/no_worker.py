"""The hint that is shown while no worker has taken a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from apps.cli.output import Output
from apps.cli.times import time_words
from oa_base.clock import SECOND_NS, time_of
from oa_base.visible import visible
from oa_client.follow.items import Began, Broken, Item, Seen
from oa_runlog import events

NO_WORKER_HINT_S = 3.0
"""Time after which a run that no worker has taken gets a hint."""
STARTED_BY_OA = ("codex", "exec")
"""The adapters of `oa worker start`. Every other adapter is an agent of a worker that somebody wrote."""


class NoWorkerHint:
    """Says after a while what to start, if the run waits for a worker as far as can be seen from here.

    Nothing is said of workers before the run was seen as it is now: one may have taken it, and even ended it.
    """

    def __init__(self, output: Output, now: Callable[[], float]) -> None:
        """`now`: what the site's clock says, in seconds since 1970."""
        self._output = output
        self._now = now
        self._heard = False
        self._created: asyncio.Future[events.RunSpec] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._say())

    def heard(self, item: Item) -> None:
        """Note an item of the run."""
        self._heard = True
        if not (isinstance(item, Seen) and isinstance(item.event.body, events.RunCreated)):
            if isinstance(item, Seen | Began | Broken):
                self.cancel()  # a worker has the run, or we can't see whether one has
        elif item.live and not self._created.done():
            self._created.set_result(item.event.body.spec)

    def cancel(self) -> None:
        """Give no hint any more."""
        self._task.cancel()

    async def _say(self) -> None:
        await asyncio.sleep(NO_WORKER_HINT_S)
        if not self._heard:
            self._output.note("The connection has not been made yet; `oa` keeps trying, and the run goes on by itself.")
            await self._created
            await asyncio.sleep(NO_WORKER_HINT_S)
        spec = await self._created
        why = _what_it_waits_for(spec, self._now())
        self._output.note(f"No worker has taken it yet. {why or _what_to_start(spec.adapter)}")


def _what_it_waits_for(spec: events.RunSpec, now_s: float) -> str:
    """Return what a run may wait for on purpose; empty if only a worker can be missing."""
    queue = spec.queue
    if queue.not_before_ns is not None and queue.not_before_ns > now_s * SECOND_NS:
        return f"It waits until {time_words(time_of(queue.not_before_ns).isoformat())}, as its --not-before says."
    if queue.concurrency is not None:
        limit = queue.concurrency.limit
        return f"It may wait for others: at most {limit} with its concurrency key run at a time."
    if spec.thread_id and spec.thread_policy is not None:
        return "It may wait for an older run of its thread."
    return ""


def _what_to_start(adapter: str) -> str:
    """Return what to do for a run of the adapter."""
    if adapter in STARTED_BY_OA:
        return f"In another shell: oa worker start --adapter {adapter}"
    return f"Start one that has the agent {visible(adapter)}."
