"""The epoch of a service's data as this replica knows it, and whether the server still has what was followed.

`confirm` is called for every new connection to the database, when a new epoch is announced, and from time to time.
State that another room keeps in memory belongs to an epoch: the room is told when that ends (`on_change`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, Protocol

import asyncpg
import structlog

from oa_base.refusal import Refusal
from oa_platform.health.failures import note_survived
from oa_platform.postgres.history import Found, Heads, NewEpoch, ServerHistory, judge
from oa_platform.postgres.pool import Connection, Postgres
from oa_platform.postgres.servers import RawConnection
from oa_platform.tasks.word import Word

_log = structlog.get_logger(__name__)

_READ_SERVER = """
SELECT system_identifier,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer AS timeline,
       $1::text::regclass::oid::bigint AS table_oid
FROM pg_control_system()
"""
"""The history of the server, and which table has the data. The name of the file that is being written begins with the
timeline, from the moment of a promotion on; the timeline in the control file is older."""


async def read_server(connection: Connection | RawConnection, table: str) -> ServerHistory:
    """The history of the data in `table`. Raises Refusal unavailable where the role may not ask for it."""
    try:
        row = await connection.fetchrow(_READ_SERVER, table)
    except asyncpg.InsufficientPrivilegeError as error:
        text = (
            "the database does not let the service see which server it is; grant its role EXECUTE on "
            "pg_control_system(), pg_current_wal_insert_lsn() and pg_walfile_name(pg_lsn)"
        )
        raise Refusal("unavailable", text, field="OA_DATABASE_URL") from error
    assert row is not None
    return ServerHistory(**row)


class History(Protocol[Heads]):
    """One server, asked for the past of the data."""

    async def look(self, followed: Heads | None) -> Found[Heads]:
        """Return what the server has; `followed` must be part of it."""
        ...

    async def settle(self, found: Found[Heads], epoch: str, new: NewEpoch | None, given_by: str) -> None:
        """Note that the data was seen on the server, and give `epoch` if that is needed and nobody else just has."""
        ...


class Histories(Protocol[Heads]):
    """The current server."""

    def history(self) -> AbstractAsyncContextManager[History[Heads]]:
        """The server's history, asked over a connection of the pool. Raises Refusal unavailable."""
        ...


class PostgresHistories(Generic[Heads]):
    """See Histories. `history_of` asks over one connection."""

    def __init__(self, postgres: Postgres, history_of: Callable[[Connection | RawConnection], History[Heads]]) -> None:
        self._postgres = postgres
        self._history_of = history_of

    @asynccontextmanager
    async def history(self) -> AsyncIterator[History[Heads]]:
        """See Histories."""
        async with self._postgres.acquire() as connection:
            yield self._history_of(connection)

    def on_connect(self, confirm: Callable[[History[Heads]], Awaitable[None]]) -> None:
        """Ask over every connection that is made from now on, before anything else is done over it."""
        self._postgres.on_connect(lambda connection: confirm(self._history_of(connection)))


class Report(Protocol):
    """Tells operators."""

    def given(self, new: NewEpoch, epoch: str, before: str) -> None:
        """This replica has given a new epoch."""
        ...

    def changed(self, epoch: str) -> None:
        """This replica has entered another epoch."""
        ...


class Lineage(Generic[Heads]):
    """The lineage as one replica knows it. Call `open` first; `run` watches until canceled."""

    def __init__(
        self,
        histories: Histories[Heads],
        new_name: Callable[[], str],
        report: Report,
        replica_id: str,
        interval_s: float,
    ) -> None:
        """`new_name` returns a name that no other epoch has."""
        self._histories = histories
        self._new_name = new_name
        self._report = report
        self._replica_id = replica_id
        self._interval_s = interval_s
        self._known: tuple[str, ...] = ()
        self._followed: Callable[[], Heads | None] = lambda: None
        self._saw: Callable[[Heads], None] = lambda heads: None
        self._changed: list[Callable[[Heads], None]] = []
        self._turn = asyncio.Lock()
        self._word = Word()

    @property
    def epoch(self) -> str:
        """The current epoch."""
        return self._known[-1]

    def follow(self, followed: Callable[[], Heads | None], saw: Callable[[Heads], None] | None = None) -> None:
        """Set where to get what this replica has followed: the server must have it. `saw` gets what each look found."""
        self._followed = followed
        self._saw = saw or self._saw

    def on_change(self, changed: Callable[[Heads], None]) -> None:
        """Call `changed` with what is there when there is another epoch: nothing that was known before holds then."""
        self._changed.append(changed)

    def wake(self) -> None:
        """Note that the epoch has changed: `run` looks at once."""
        self._word.give()

    async def open(self) -> None:
        """Learn the epoch. Raises Refusal unavailable."""
        async with self._histories.history() as history:
            await self.confirm(history)

    async def run(self) -> None:
        """Look when woken, and from time to time."""
        while True:
            await self._word.within(self._interval_s)
            try:
                await self.open()
            except Exception as error:  # noqa: BLE001 - the next look may succeed, and the next process would fail, too
                note_survived(_log, "lineage_not_confirmed", error)
                await asyncio.sleep(self._interval_s)
                self._word.give()

    async def confirm(self, history: History[Heads]) -> None:
        """Compare what was followed with what the server has; give a new epoch if one is needed."""
        async with self._turn:
            found = await history.look(self._followed())
            new = judge(self._known, found)
            if new is not None or found.seen_on != found.server:
                await history.settle(found, self._new_name(), new, self._replica_id)
                after = await history.look(None)
                self._tell(found, new, after)
                found = after
            if not self._known or found.epoch != self.epoch:
                self._enter(found)
            self._saw(found.heads)

    def _tell(self, found: Found[Heads], new: NewEpoch | None, after: Found[Heads]) -> None:
        if new is None:
            _log.info("server_history_noted", server=found.server, before=found.seen_on)
        else:
            self._report.given(new, after.epoch, found.epoch)

    def _enter(self, found: Found[Heads]) -> None:
        first = not self._known
        self._known = (*self._known, found.epoch)
        if first:
            return
        self._report.changed(found.epoch)
        for changed in self._changed:
            changed(found.heads)
