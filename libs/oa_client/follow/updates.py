"""The updates of a followed topic, as `subscription` reports them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from oa_base.refusal import Refusal
from oa_khala.frames import Cursor


@dataclass(frozen=True)
class Applied:
    """An element has been applied and persisted, up to `cursor`. `snapshot`: it replaces the previous state."""

    topic: str
    cursor: Cursor
    payload: bytes
    snapshot: bool = False

    @property
    def seq(self) -> int:
        """The seq of the element."""
        return self.cursor.applied_seq


@dataclass(frozen=True)
class CaughtUp:
    """The topic has been applied up to the head that it had when it was subscribed."""

    topic: str
    seq: int


@dataclass(frozen=True)
class Restarted:
    """The topic's state was dropped, and it is sent again from its start, or from `cursor` on.

    `cursor`: another process that shares the store has stored it again up to there. The store has these elements; no
    Applied comes for them.
    """

    topic: str
    reason: str
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Refused:
    """The topic can't be followed and is no longer tried."""

    topic: str
    refusal: Refusal


@dataclass(frozen=True)
class Connection:
    """The connection opened, or ended, or can't be opened now; `message` says why. It is reopened automatically."""

    open: bool
    message: str = ""


Update = Applied | CaughtUp | Restarted | Refused | Connection
