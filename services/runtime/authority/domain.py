"""Which past the log has, and when it needs a new epoch. Pure.

A server that takes another's place may have a different past: a standby that was promoted before it had everything, a
backup, a disk that lost acknowledged data. Its numbers may be the same, so a replica compares content: it asks whether
everything that it has followed is still there. If something isn't, or if nobody can tell, the log gets a new epoch,
which makes every cursor of the old one stale.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Head(NamedTuple):
    """How far a partition goes, and the chain value of the event there: the number alone may belong to another history.

    The chain is empty where it is not known.
    """

    position: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Installation:
    """The values that were fixed when this installation was made."""

    partitions: int
    receipt_log: str
    """The name of its log of receipts."""


class ServerHistory(NamedTuple):
    """Which database cluster a server belongs to, and which of its timelines it is on: a promotion begins a new one."""

    system_identifier: int
    timeline: int


class EpochCause(enum.StrEnum):
    """Why the log was given an epoch."""

    INSTALLED = "installed"
    ORDERED = "ordered"
    """Somebody ordered it, for example after a restore."""
    EVENTS_MISSING = "events_missing"
    """A replica had followed events that the log no longer has."""
    HISTORY_UNKNOWN = "history_unknown"
    """The server has another history than the one that the log was last seen on, and no replica could compare."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a server about the log."""

    epoch: str
    seen_on: ServerHistory | None
    """Where the log was last seen; None if it never was."""
    server: ServerHistory
    heads: Mapping[int, Head]
    missing: tuple[int, ...]
    """The partitions that lack what the replica has followed."""


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The log needs a new epoch."""

    cause: EpochCause
    detail: str


def judge(known: tuple[str, ...], found: Found) -> NewEpoch | None:
    """Whether the log needs a new epoch. `known`: the epochs that the replica has followed, the current one last.

    A replica that has followed the current epoch can tell whether anything is missing. Its finding counts more than a
    change of history: a standby that had everything is no reason for a new epoch. A replica that has not followed the
    current epoch can only go by the history.
    """
    if known and found.epoch == known[-1]:
        if not found.missing:
            return None
        places = ", ".join(str(partition) for partition in found.missing)
        return NewEpoch(EpochCause.EVENTS_MISSING, f"partitions {places} lack events that were followed{_moved(found)}")
    if found.epoch in known:
        return NewEpoch(EpochCause.EVENTS_MISSING, f"the log has an epoch again that it had left{_moved(found)}")
    if found.seen_on not in (None, found.server):
        return NewEpoch(EpochCause.HISTORY_UNKNOWN, f"nothing could be compared{_moved(found)}")
    return None


def _moved(found: Found) -> str:
    if found.seen_on in (None, found.server):
        return ""
    return f"; the server is {_name(found.server)}, the log was last seen on {_name(found.seen_on)}"


def _name(history: ServerHistory | None) -> str:
    return "none" if history is None else f"system {history.system_identifier} timeline {history.timeline}"
