"""The seam between replicas: each tells the others how far it has brought the log.

What is said here is a hint. It may be late, said twice, or lost: whoever drives a fan-out also looks at the log's heads
from time to time. It is never early: only what is committed is told. See ADR 0015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from services.runtime.log.domain.records import LogRecord

Hint = Callable[[int, int, str], None]
"""Takes a partition, a position that it has come to, and the `traceparent` of the commit that brought it there; empty
where that is not known, or not traced."""
Publish = Callable[[Mapping[int, Sequence[LogRecord]]], None]
"""Takes what was committed, by partition, in order and at once."""


class Fanout(Protocol):
    """A way by which replicas hear of each other's commits. One that is made gets a `Hint` to call."""

    def publish(self, positions: Mapping[int, int]) -> None:
        """Tell the others: these partitions have come to these positions, and that is committed. Returns at once.

        A driver that has told with the commit itself has nothing left to do.
        """
        ...

    async def run(self) -> None:
        """Call the hint for whatever others have committed, until cancelled."""
        ...


def publisher(publish: Publish, fanout: Fanout) -> Publish:
    """Hands what this replica has committed to `publish`, and tells the other replicas."""

    def both(records: Mapping[int, Sequence[LogRecord]]) -> None:
        publish(records)
        fanout.publish({partition: its_own[-1].position for partition, its_own in records.items()})

    return both
