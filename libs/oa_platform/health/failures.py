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
_REASONS_OF_TRANSPORTS = frozenset({"unavailable", "deadline_exceeded", "request_too_large", "overloaded", "cancelled"})
"""What a caller may make of an error of the transport. Any other code comes from something that is no service."""


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


def said_by_service(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error comes from the called service itself, and not from the transport."""
    return any(key == STATUS_METADATA_KEY for key, _ in error.trailing_metadata() or ())


def refusal_for_outsiders(error: grpc.aio.AioRpcError, service: str) -> Refusal:
    """The refusal of the called service. One that the transport made gets a text of ours, because its own text names
    addresses, which outsiders must not see."""
    refusal = refusal_from_rpc_error(error)
    if said_by_service(error):
        return refusal
    if refusal.reason == "unavailable" or refusal.reason not in _REASONS_OF_TRANSPORTS:
        return service_away(service)
    message = f"the call to {service} ended with {error.code().name}; ask its operators, or try again later"
    return Refusal(refusal.reason, message)


def service_away(service: str) -> Refusal:
    """What outsiders hear while `service` can't be reached."""
    message = f"the service {service} can't be reached now; try again in a moment"
    return Refusal("unavailable", message, retry_after_ms=RETRY_AFTER_MS)


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
