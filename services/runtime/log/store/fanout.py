"""The fan-out by notifications of Postgres, and an occasional look at the heads.

A replica tells the others in the statement that commits: this needs no further round trip and never tells of a commit
that was rolled back. A notification is "replica partition:position partition:position …". For a traced commit, the
replica is followed by ";" and the `traceparent`; a replica of an older release, which knows no traces, takes them for a
part of the name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from oa_platform.config.shared import DatabaseSettings
from oa_platform.postgres import listen
from oa_platform.telemetry.tracing import sampled_traceparent
from services.runtime.authority.domain import Head
from services.runtime.log.app.fanout import Hint
from services.runtime.log.domain.positions import MAX_POSITIONS, positions_of, positions_text
from services.runtime.log.store import sql

CHANNEL = "runtime_log"
"""The channel of commits. `runtime.give_log_epoch` also says on it that the log has another epoch, and
`runtime.note_workers` that a worker's status has changed."""

CHECK_CHANNEL = "runtime_delivery_checks"
"""The channel on which the number of a delivery check is told."""

_log = structlog.get_logger(__name__)
_OWN_GRACE_S = 0.05
"""Own commits are followed without a notification. It only serves one whose answer got lost, so it can wait."""
_NEW_EPOCH = "epoch"
_WORKERS = "workers"


class PostgresNotification:
    """Tells the other replicas in the statement that commits."""

    def __init__(self, replica_id: str) -> None:
        self._replica_id = replica_id

    def expression(self, first: int) -> str:
        """Return the SQL of the notification, with one argument."""
        return f"pg_notify('{CHANNEL}', ${first})"

    def arguments(self, heads: Mapping[int, Head]) -> tuple[str]:
        """Return the text, of less than 8000 bytes because of Postgres; a look at the heads finds the rest.

        If the commit is traced, its span is the current one.
        """
        positions = [(partition, head.position) for partition, head in heads.items()]
        traceparent = sampled_traceparent()
        sender = f"{self._replica_id};{traceparent}" if traceparent else self._replica_id
        return (f"{sender} {positions_text(positions[:MAX_POSITIONS])}",)


class PostgresFanout(listen.Listener):
    """Calls `hint` for every partition that has grown, and `new_epoch` when the log has another one.

    `run` goes on until canceled, whatever happens to the connection.
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
            settings,
            "runtime",
            [CHANNEL, CHECK_CHANNEL],
            on_notify=self._told,
            look=self._heads,
            interval_s=poll_interval_s,
        )
        self.notification = PostgresNotification(replica_id)
        """The notification that the store adds to each batch, to tell the others."""
        self._replica_id = replica_id
        self._hint = hint
        self._new_epoch = new_epoch
        self._workers_changed: list[Callable[[], None]] = []
        self._delivery_checks: list[Callable[[int], None]] = []

    def on_workers(self, listener: Callable[[], None]) -> None:
        """Call `listener` when workers may have changed: at once, and from time to time in case one was missed."""
        self._workers_changed.append(listener)

    def on_delivery_check(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the number of each delivery check that was committed, by any replica."""
        self._delivery_checks.append(listener)

    def publish(self, positions: Mapping[int, int]) -> None:
        """Do nothing: the commit has told the others."""

    async def _heads(self, connection: listen.Connection) -> None:
        for row in await connection.fetch(sql.READ_HEADS):
            self._hint(row["partition"], row["position"], "")
        self._tell_of_workers()

    def _tell_of_workers(self) -> None:
        for listener in self._workers_changed:
            listener()

    def _check_told(self, payload: str) -> None:
        number = listen.told_number(payload)
        if number is None:
            return
        for listener in self._delivery_checks:
            listener(number)

    def _told(self, channel: str, payload: str) -> None:
        if channel == CHECK_CHANNEL:
            self._check_told(payload)
            return
        if payload == _NEW_EPOCH:
            self._new_epoch()
            return
        if payload == _WORKERS:
            self._tell_of_workers()
            return
        sender, _, positions = payload.partition(" ")
        replica_id, _, traceparent = sender.partition(";")
        try:
            heads = positions_of(positions)
        except ValueError:
            _log.warning("strange_notification")
            return
        for head in heads:
            if replica_id == self._replica_id:
                asyncio.get_running_loop().call_later(_OWN_GRACE_S, self._hint, *head, traceparent)
            else:
                self._hint(*head, traceparent)
