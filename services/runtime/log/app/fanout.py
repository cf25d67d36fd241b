"""The interface between replicas: each tells the others how far it has advanced the log.

Each message is a hint. It may be late, repeated or lost, so the code that drives a fan-out also looks at the log's
heads from time to time. It is never early, because only committed positions are told. See ADR 0015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.runtime.log.domain.records import LogRecord

Hint = Callable[[int, int, str], None]
"""Takes a partition, a position that it has reached, and the `traceparent` of the commit that brought it there, which
is empty if the commit is not known or not traced."""
Publish = Callable[[Mapping[int, Sequence[LogRecord]]], None]
"""Takes the committed records, by partition, in order and at once."""


class Fanout(Protocol):
    """A mechanism by which replicas hear of each other's commits. It is constructed with a `Hint` to call."""

    def publish(self, positions: Mapping[int, int]) -> None:
        """Tell the others that these partitions have committed up to these positions. Returns at once.

        A driver that tells the others with the commit itself has nothing left to do.
        """
        ...

    async def run(self) -> None:
        """Call the hint for everything that others have committed, until canceled."""
        ...


def publisher(publish: Publish, fanout: Fanout) -> Publish:
    """Return a function that hands this replica's commits to `publish` and tells the other replicas."""

    def both(records: Mapping[int, Sequence[LogRecord]]) -> None:
        publish(records)
        fanout.publish({partition: its_own[-1].position for partition, its_own in records.items()})

    return both
