"""Which past a service's data has, and when its topics need a new epoch. Pure.

A server that takes another's place may have a different past: a standby that was promoted before it had everything, a
backup, a disk that lost acknowledged data. Its numbers may be the same, so a replica compares content: it asks whether
everything that it has followed is still there. If something isn't, or if nobody can tell, there is a new epoch, which
makes every cursor of the old one stale.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Heads = TypeVar("Heads")
"""How a service names what it has followed."""


class ServerHistory(NamedTuple):
    """Where a service's data is."""

    system_identifier: int
    """Names the database cluster that the server belongs to."""
    timeline: int
    """Which of the cluster's: a promotion begins a new one."""
    table_oid: int
    """OID of a table with the data: whoever restores a dump makes the table anew."""


class EpochCause(enum.StrEnum):
    """Why an epoch was given."""

    INSTALLED = "installed"
    ORDERED = "ordered"
    """Somebody ordered it, for example after a restore."""
    EVENTS_MISSING = "events_missing"
    """A replica had followed events that are no longer there."""
    HISTORY_UNKNOWN = "history_unknown"
    """The server has another history than the one that the data was last seen on, and no replica could compare."""


@dataclass(frozen=True, slots=True)
class Found(Generic[Heads]):
    """The answer of a server about the service's data."""

    epoch: str
    seen_on: ServerHistory | None
    """Where the data was last seen; None if it never was."""
    server: ServerHistory
    heads: Heads
    missing: tuple[str, ...]
    """The places that lack what the replica has followed."""


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """A new epoch is needed."""

    cause: EpochCause
    detail: str


def judge(known: tuple[str, ...], found: Found[Heads]) -> NewEpoch | None:
    """Whether a new epoch is needed. `known`: the epochs that the replica has followed, the current one last.

    A replica that has followed the current epoch can tell whether anything is missing. Its finding counts more than a
    change of history: a standby that had everything is no reason for a new epoch. A replica that has not followed the
    current epoch can only go by the history.
    """
    if known and found.epoch == known[-1]:
        if not found.missing:
            return None
        lacking = f"{', '.join(found.missing)}: events that were followed are missing"
        return NewEpoch(EpochCause.EVENTS_MISSING, f"{lacking}{_moved(found)}")
    if found.epoch in known:
        return NewEpoch(EpochCause.EVENTS_MISSING, f"an epoch is back that had ended{_moved(found)}")
    if found.seen_on not in (None, found.server):
        return NewEpoch(EpochCause.HISTORY_UNKNOWN, f"nothing could be compared{_moved(found)}")
    return None


def _moved(found: Found[Heads]) -> str:
    if found.seen_on in (None, found.server):
        return ""
    return f"; the server is {_name(found.server)}, and was last {_name(found.seen_on)}"


def _name(history: ServerHistory | None) -> str:
    if history is None:
        return "none"
    return f"system {history.system_identifier} timeline {history.timeline} table {history.table_oid}"
