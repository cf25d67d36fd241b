"""A token bucket that is told the time."""

from dataclasses import dataclass
from math import ceil


@dataclass(slots=True)
class TokenBucket:
    """`burst` permits at once, `per_s` a second in the long run."""

    burst: int
    per_s: float
    _level: float = -1.0
    _at_ms: int = 0

    def take(self, now_ms: int) -> int:
        """0 when a permit was taken; else how long to wait for one, in ms."""
        if self._level < 0:
            self._level, self._at_ms = float(self.burst), now_ms
        gained = max(0, now_ms - self._at_ms) * self.per_s / 1000
        self._level, self._at_ms = min(float(self.burst), self._level + gained), now_ms
        if self._level >= 1:
            self._level -= 1
            return 0
        return max(1, ceil((1 - self._level) * 1000 / self.per_s))
