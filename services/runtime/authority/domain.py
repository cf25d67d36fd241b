"""Which log this is: what was fixed when it was made, and how far its partitions go. Pure."""

from __future__ import annotations

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
