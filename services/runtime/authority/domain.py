"""Which past the log has, and when it needs a new epoch. Pure.

A server that takes another's place may have another past: a standby that was promoted before it had everything, a
backup, a disk that lost what was acknowledged. Its numbers may be the same, so a replica compares content: it asks
whether what it has followed is still there. If something isn't, or if nobody can tell, the log gets a new epoch, which
makes every cursor of the old one stale.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Head(NamedTuple):
    """How far a partition goes, and the chain value of the event there: the number alone could be another history's.

    The chain is empty where it is not known.
    """

    position: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Installation:
    """What was fixed when this installation was made."""

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
    """Somebody wanted it: after a restore, for example."""
    EVENTS_MISSING = "events_missing"
    """A replica had followed events that the log does not have any more."""
    HISTORY_UNKNOWN = "history_unknown"
    """The server has another history than the log was last seen on, and nobody was there who could compare."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of the log."""

    epoch: str
    seen_on: ServerHistory | None
    """Where the log was last seen; None when it never was."""
    server: ServerHistory
    heads: Mapping[int, Head]
    missing: tuple[int, ...]
    """The partitions that lack what the replica has followed."""


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The log needs one."""

    cause: EpochCause
    detail: str


def judge(known: tuple[str, ...], found: Found) -> NewEpoch | None:
    """Whether the log needs a new epoch. `known`: the epochs that the replica has followed, the present one last.

    A replica that has followed the present epoch can tell whether anything is missing, and its word counts more than
    that the history is another one: a standby that had everything is no reason. One that has not can only go by the
    history.
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
