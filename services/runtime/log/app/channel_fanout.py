"""The fan-out over a channel outside of Postgres: hints go out after the commit, by any carrier of short texts.

A text is "partition:position partition:position …", preceded by the `traceparent` of a commit if one is traced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from oa_fanout.channel import Channel, Heard
from oa_platform.tasks.word import Word
from oa_platform.telemetry.tracing import sampled_traceparent
from services.runtime.log import metrics
from services.runtime.log.app.fanout import Hint
from services.runtime.log.domain.positions import positions_of, texts_of

_log = structlog.get_logger(__name__)
_LOOK_S = 60.0


class ChannelFanout:
    """A `Fanout`. Commits made while a text is on its way go out with the next one, each partition once."""

    def __init__(self, open_channel: Callable[[Heard], Channel], hint: Hint) -> None:
        self._channel = open_channel(self._heard)
        self._hint = hint
        self._untold: dict[int, int] = {}
        # The `traceparent` of the first traced commit among them.
        self._traceparent = ""
        self._word = Word()

    def publish(self, positions: Mapping[int, int]) -> None:
        """Tell the other replicas soon. If the commit is traced, its span is the current one."""
        self._untold.update(positions)
        self._traceparent = self._traceparent or sampled_traceparent()
        self._word.give()

    async def run(self) -> None:
        """Send and receive texts until canceled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._channel.run())
            tasks.create_task(self._say())

    async def _say(self) -> None:
        while True:
            await self._word.within(_LOOK_S)
            untold, self._untold = self._untold, {}
            traceparent, self._traceparent = self._traceparent, ""
            for text in texts_of(untold):
                await self._channel.say(f"{traceparent} {text}" if traceparent else text)

    def _heard(self, text: str) -> None:
        first, _, others = text.partition(" ")
        traceparent, text = ("", text) if ":" in first else (first, others)
        try:
            positions = positions_of(text)
        except ValueError:
            _log.warning("strange_notification")
            return
        for partition, position in positions:
            self._hint(partition, position, traceparent)


def note_connected(why: str) -> None:
    """Note that the channel to the other replicas is connected, or why it is not."""
    metrics.FANOUT_CONNECTED.set(0 if why else 1)
    if why:
        _log.warning("fanout_disconnected", why=why)
    else:
        _log.info("fanout_connected")
