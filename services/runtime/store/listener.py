"""Word of what other replicas stored: notifications, and a look at the heads now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from oa_platform import listen
from oa_platform.settings import DatabaseSettings
from services.runtime.store import sql
from services.runtime.store.log import LOG_CHANNEL

_log = structlog.get_logger(__name__)
_OWN_GRACE_S = 0.05
"""Own commits are followed without a word; this is for one whose answer got lost, so its word can wait."""
_NEW_EPOCH = "epoch"
"""What `runtime.give_log_epoch` says on the channel."""
Hint = Callable[[int, int], None]
"""Takes a partition and a position that it has come to."""


class Listener(listen.Listener):
    """Calls `hint` for every partition that has grown, and `new_epoch` when the log has another one.

    `run` goes on until cancelled, whatever the connection does.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        replica_id: str,
        hint: Hint,
        new_epoch: Callable[[], None],
        poll_interval_s: float,
    ) -> None:
        super().__init__(
            settings, "runtime", [LOG_CHANNEL], on_notify=self._told, look=self._heads, interval_s=poll_interval_s
        )
        self._replica_id = replica_id
        self._hint = hint
        self._new_epoch = new_epoch

    async def _heads(self, connection: listen.Connection) -> None:
        for row in await connection.fetch(sql.READ_HEADS):
            self._hint(row["partition"], row["position"])

    def _told(self, _channel: str, payload: str) -> None:
        if payload == _NEW_EPOCH:
            self._new_epoch()
            return
        replica_id, *places = payload.split(" ")
        try:
            heads = [(int(partition), int(position)) for partition, position in (one.split(":") for one in places)]
        except ValueError:
            _log.warning("strange_notification")
            return
        for head in heads:
            if replica_id == self._replica_id:
                asyncio.get_running_loop().call_later(_OWN_GRACE_S, self._hint, *head)
            else:
                self._hint(*head)
