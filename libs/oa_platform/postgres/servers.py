"""Chooses the database server: finds it among the hosts of the URL, and asks it whether it is usable.

    connection = await connect(target, 15.0, "OA_DATABASE_URL")

`facts` defines a usable server. Any other is an UnusableServer, which says why; for callers that only want the
database, it is a connection that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from oa_base.refusal import Refusal
from oa_platform.config.dsn import Host, database_hosts, database_location
from oa_platform.postgres.facts import ASK, Facts, RefusedRole, UnusableServer, complaint, facts_of, full, pooled

if TYPE_CHECKING:
    # Generic in the type stubs only.
    RawConnection = asyncpg.Connection[asyncpg.Record]
else:
    RawConnection = asyncpg.Connection

SESSION = {
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "idle_session_timeout": "0",
}
"""What statements of ours rely on, whatever is set for the server, the database or the role."""
UNLIMITED = {**SESSION, "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
"""The same for sessions that limit their own waits: limits that are set for everybody are not for long changes."""
_NO_TRANSACTION_LIMIT = "SET transaction_timeout = 0"
"""The part of SESSION that can't be sent at the start of a session, because PostgreSQL 16 would refuse it there."""
NEXT_HOST_AFTER_S = 0.25
"""How long one host may be silent before the next one is tried too, because a dead machine refuses nothing."""
_RETRY_S = 0.2
BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Errors of asyncpg. An InternalClientError is neither of its other two: a connection that died between messages."""
# Errors that waiting may heal: a server that starts, stops or is full, or a network that is away.
_NOT_NOW = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)
# Answers of a server that does not let the role in.
_TURNED_AWAY = (
    asyncpg.exceptions.InvalidPasswordError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InsufficientPrivilegeError,
)
# Errors of a statement that was prepared on a different server session than it runs on.
_SWAPPED = (
    asyncpg.exceptions.InvalidSQLStatementNameError,
    asyncpg.exceptions.DuplicatePreparedStatementError,
)
T = TypeVar("T")
OnWait = Callable[[BaseException], None]
"""Receives the error for which somebody begins to wait for the database."""


@dataclass(frozen=True)
class Target:
    """The database to connect to."""

    dsn: str = field(repr=False)
    timeout_s: float
    """Maximum time of an attempt with one host."""
    may_lose_commits: bool
    """Whether a server is usable that may lose what it has acknowledged."""
    arguments: Mapping[str, Any]
    """More arguments for `asyncpg.connect`."""


async def ask(connection: Any) -> Facts:
    """Ask the server of a connection, in a pool or not, for its facts."""
    row = await connection.fetchrow(ASK)
    return facts_of(row, own_session=row["pid"] == connection.get_server_pid())


async def require(connection: Any, target: Target, where: str = "") -> Facts:
    """Raise UnusableServer unless the server of `connection` is usable; returns its facts."""
    place = where or database_location(target.dsn)
    try:
        facts = await ask(connection)
    except _SWAPPED:
        raise pooled(place) from None
    error = complaint(facts, place, target.may_lose_commits)
    if error is not None:
        raise error
    return facts


async def open_connection(target: Target) -> RawConnection:
    """A connection to the first host whose server is usable. Raises UnusableServer, or an error of asyncpg."""
    waiting: list[Host | None] = [*database_hosts(target.dsn)] or [None]
    attempts: set[asyncio.Task[RawConnection]] = set()
    errors: list[BaseException] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_attempt(target, waiting.pop(0))))
            patience_s = NEXT_HOST_AFTER_S if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                errors.append(error)
        raise _telling(errors)
    finally:
        await _abandon(attempts)


async def _attempt(target: Target, host: Host | None) -> RawConnection:
    """Connect to one host. None leaves the choice of the host to asyncpg."""
    place: dict[str, Any] = {} if host is None else {"host": host[0], "port": host[1]}
    where = database_location(target.dsn, host)
    async with asyncio.timeout(target.timeout_s):
        try:
            connection: RawConnection = await asyncpg.connect(
                target.dsn, timeout=target.timeout_s, **place, **target.arguments
            )
        except asyncpg.exceptions.ProtocolViolationError as error:
            if "startup parameter" in str(error):
                raise pooled(where) from None
            raise
        except asyncpg.exceptions.TooManyConnectionsError:
            raise full(where) from None
        except _TURNED_AWAY as error:
            raise RefusedRole(where, type(error).__name__) from None
        try:
            await _lift_transaction_limit(connection)
            await require(connection, target, where)
        except BaseException:
            connection.terminate()
            raise
    return connection


async def _lift_transaction_limit(connection: RawConnection) -> None:
    """Lift a limit that PostgreSQL has from 17 on."""
    if connection.get_server_version() >= (17,):
        await connection.execute(_NO_TRANSACTION_LIMIT)


async def _abandon(attempts: set[asyncio.Task[RawConnection]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            outcome.terminate()


def may_heal(error: BaseException) -> bool:
    """Whether waiting may make this go away."""
    if isinstance(error, UnusableServer):
        return error.may_heal
    return isinstance(error, _NOT_NOW)


def _telling(errors: list[BaseException]) -> BaseException:
    """Choose the error to raise of those of all hosts. One of a server that answers says more than one of a host that
    is gone, and if one host may come back, they all may."""
    error = min(errors, key=_rank)
    if isinstance(error, UnusableServer):
        error.may_heal = any(may_heal(one) for one in errors)
    return error


def _rank(error: BaseException) -> tuple[bool, bool]:
    return not isinstance(error, UnusableServer), not may_heal(error)


async def patiently(attempt: Callable[[], Awaitable[T]], timeout_s: float, on_wait: OnWait | None = None) -> T:
    """The result of `attempt`, repeated while waiting may help, up to `timeout_s`; raises the error of the last one.

    `on_wait` receives the error of each attempt except the last one.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not may_heal(error) or loop.time() >= deadline:
                raise
            if on_wait is not None:
                on_wait(error)
        await asyncio.sleep(_RETRY_S)


async def connect(target: Target, timeout_s: float, variable: str = "", on_wait: OnWait | None = None) -> RawConnection:
    """A tool's connection; waits up to `timeout_s` for the database. Raises Refusal unavailable, invalid_setting."""
    with refusing_start(target.dsn, variable):
        return await patiently(lambda: open_connection(target), timeout_s, on_wait)


@contextmanager
def refusing_start(dsn: str, variable: str) -> Iterator[None]:
    """Raise errors as the Refusal to start without the database whose URL is in `variable`, if it is in one."""
    try:
        yield
    except BROKEN as error:
        refusal = _start_refusal(error, dsn, variable)
        if refusal is None:
            raise
        raise refusal from None


def _start_refusal(error: BaseException, dsn: str, variable: str) -> Refusal | None:
    where, kind = database_location(dsn), type(error).__name__
    if isinstance(error, RefusedRole):
        return RefusedRole(where, error.kind, variable).refusal
    if isinstance(error, UnusableServer):
        return error.refusal
    if may_heal(error):
        hint = f"{variable} says where it is" if variable else "try again"
        return Refusal("unavailable", f"the database at {where} can't be reached ({kind}); {hint}", field=variable)
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return RefusedRole(where, kind, variable).refusal
    return None
