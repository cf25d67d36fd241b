"""Failures of what we depend on, as refusals: the database, other services, time. Any other error is a defect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import grpc.aio

from oa_base.refusal import Refusal
from oa_platform.telemetry.metrics import BACKGROUND_FAILURES
from oa_wire.status import STATUS_METADATA_KEY, from_code, from_status_bytes

RETRY_AFTER_MS = 500
"""When to try again after the database or a service went away: after about as long as a restart takes."""

DATABASE_CHANGED = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    ConnectionError,
)
"""After one of these, the server may be a different one from the one that connections were made to."""
DATABASE_FULL = (
    asyncpg.exceptions.DiskFullError,
    asyncpg.exceptions.PostgresSystemError,
)
"""The server can't store now: a full disk, or one that fails."""
DATABASE_DAMAGED = (
    asyncpg.exceptions.DataCorruptedError,
    asyncpg.exceptions.IndexCorruptedError,
)
"""The server can't read a part of what it has stored: its disk fails, or somebody wrote to its files."""

# The connection is gone, or was never made.
_DATABASE_GONE = (
    *DATABASE_CHANGED,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    # A connection that died between two messages keeps its protocol state: "cannot switch to state …".
    asyncpg.InternalClientError,
)
_DATABASE_SHORT = (*DATABASE_FULL, asyncpg.exceptions.InsufficientResourcesError)
_DATABASE_SLOW = (asyncpg.exceptions.QueryCanceledError, asyncpg.exceptions.LockNotAvailableError, TimeoutError)
_DATABASE_BUSY = (asyncpg.exceptions.SerializationError, asyncpg.exceptions.DeadlockDetectedError)


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that `error` amounts to; None for a defect."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return refusal_from_rpc_error(error)
    if isinstance(error, _DATABASE_SLOW):
        return Refusal(
            "deadline_exceeded",
            "the time is up; the call may have taken effect or not",
        )
    if isinstance(error, _DATABASE_BUSY):
        return Refusal("unavailable", "another change came first; try again", retry_after_ms=RETRY_AFTER_MS)
    if isinstance(error, _DATABASE_GONE):
        return Refusal("unavailable", "the database can't be reached now; try again", retry_after_ms=RETRY_AFTER_MS)
    if isinstance(error, DATABASE_DAMAGED):
        message = "the database can't read a part of what it has stored; ask the operators to look at its disk"
        return Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS)
    if isinstance(error, _DATABASE_SHORT):
        return Refusal("unavailable", "the database can't store anything now; try again", retry_after_ms=RETRY_AFTER_MS)
    return None


def refusal_from_rpc_error(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal of the called service; if the transport failed, one with the nearest reason for its code."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_METADATA_KEY and isinstance(value, bytes):
            refusal = from_status_bytes(value)
            if refusal is not None:
                return refusal
    return from_code(error.code().name, error.details() or "")


def reason_of(error: Exception) -> str:
    """What the log says of an error that a background task survives: the reason of a refusal, or the error's type."""
    return error.reason if isinstance(error, Refusal) else type(error).__name__


def note_survived(log: Any, event: str, error: Exception, **fields: object) -> None:
    """Log and count an error that a background task survives: a refusal as a warning, and a defect as an error with
    its traceback. `event` is one of docs/runbooks/background-work-fails.md."""
    BACKGROUND_FAILURES.labels(event).inc()
    if isinstance(error, Refusal):
        log.warning(event, reason=error.reason, **fields)
    else:
        log.error(event, reason=reason_of(error), exc_info=error, **fields)


@contextmanager
def surviving(log: Any, event: str, **fields: object) -> Iterator[None]:
    """A block whose errors are logged and end nothing else: the next look may succeed, and the next process would meet
    the same defect."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is what the block is for
        note_survived(log, event, error, **fields)
