"""When a client session gives up a connection, pings, and connects again. All times are those of its driver."""

from __future__ import annotations

from oa_base.backoff import RECONNECT
from oa_khala.client.commands import ClientLimits, Instant

NEVER = 1 << 62


class Deadlines:
    """Deadlines of one connection: when the next sign of life must have come, and when the next PING is due."""

    def __init__(self, limits: ClientLimits) -> None:
        self.give_up_at_ms = NEVER
        self.ping_at_ms = NEVER
        self._limits = limits
        self._ping_every_ms = 0
        self._silence_limit_ms = 0
        self._nonce = 0

    def dialed(self, now_ms: int, delay_ms: int) -> None:
        """Note that the connection will be attempted after `delay_ms`."""
        self.give_up_at_ms = now_ms + delay_ms + self._limits.connect_timeout_ms

    def greeted(self, now_ms: int) -> None:
        """Note that Hello has been sent; WELCOME has to follow."""
        self.give_up_at_ms = now_ms + self._limits.hello_timeout_ms

    def welcomed(self, now_ms: int, heartbeat_interval_ms: int, idle_timeout_ms: int) -> None:
        """Take from WELCOME how often the gateway sends something, and how often it has to hear something."""
        self._silence_limit_ms = int(heartbeat_interval_ms * self._limits.silent_heartbeats)
        self._ping_every_ms = max(1, idle_timeout_ms // 3)
        self.ping_at_ms = now_ms + self._ping_every_ms
        self.heard(now_ms)

    def heard(self, now_ms: int) -> None:
        """Note that a frame came."""
        self.give_up_at_ms = now_ms + self._silence_limit_ms

    def ping(self, now_ms: int) -> int | None:
        """Return the nonce of the PING that is due; None when none is."""
        if now_ms < self.ping_at_ms:
            return None
        self.ping_at_ms = now_ms + self._ping_every_ms
        self._nonce += 1
        return self._nonce

    def cut(self) -> None:
        """Forget the deadlines: the connection is gone."""
        self.give_up_at_ms = self.ping_at_ms = NEVER


class Reconnecting:
    """How long to wait before the next connection: as backoff or the gateway requires, whichever is later."""

    def __init__(self) -> None:
        self._attempts = 0
        self._backoff_until_ms = 0
        self._not_before_ms = 0

    def succeeded(self) -> None:
        """Note that the connection is useful: the next failure counts as the first again."""
        self._attempts = 0

    def woke(self) -> None:
        """Forget what failed before the device slept. What a gateway requires still counts."""
        self._attempts = self._backoff_until_ms = 0

    def failed(self, at: Instant, retry_after_ms: int) -> None:
        """Note that one more connection ended."""
        self._backoff_until_ms = at.now_ms + RECONNECT.wait_ms(self._attempts, at.jitter)
        self.hold(at.now_ms + retry_after_ms)
        self._attempts += 1

    def hold(self, until_ms: int) -> None:
        """Allow no connection before `until_ms`, nor before any time requested earlier."""
        self._not_before_ms = max(self._not_before_ms, until_ms)

    def reschedule(self, at_ms: int) -> None:
        """Set the next connection to `at_ms`, regardless of earlier requests; 0 is at once."""
        self._backoff_until_ms, self._not_before_ms = 0, at_ms

    def delay_ms(self, now_ms: int) -> int:
        """Return the time left to wait."""
        return max(0, self._backoff_until_ms - now_ms, self._not_before_ms - now_ms)
