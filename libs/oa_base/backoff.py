"""How long to wait before retrying something that failed."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_DOUBLINGS = 32
"""Waits stop growing after this many attempts; by then 1 ms has become 49 days."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double: at most `first_ms` before the first attempt, never more than `max_ms`."""

    first_ms: int
    max_ms: int

    def ceiling_ms(self, attempt: int) -> int:
        """Maximum wait before attempt number `attempt` (0 is the first)."""
        return min(self.max_ms, self.first_ms << min(attempt, _MAX_DOUBLINGS))

    def wait_ms(self, attempt: int, jitter: float) -> int:
        """The wait before attempt number `attempt` (0 is the first): the share `jitter` of its ceiling.

        With a `jitter` that is uniform in [0, 1) (full jitter), those that were cut off together do not come back
        together.
        """
        return int(self.ceiling_ms(attempt) * jitter)


RECONNECT = Backoff(first_ms=250, max_ms=8_000)
"""The default for clients, workers and gateways that lost their connection."""
