"""What ends a connection when its time has come, and when the next heartbeat is due."""

from oa_base.refusal import Refusal
from oa_khala.server.limits import SessionLimits

NEVER = 1 << 62
# So often within `slow_consumer_ms` it is looked whether a client takes anything: one that does not is closed at most
# one look late.
_LOOKS = 4

# Of two that are over, the first one is said.
_ENDS = {
    refusal.reason: refusal
    for refusal in (
        Refusal("hello_timeout", "no Hello came in time; connect again and send it first"),
        Refusal("reauth_required", "the token has expired; get a new one and connect again"),
        Refusal("slow_consumer", "the client took nothing of what was delivered for too long; connect again"),
        Refusal("idle_timeout", "nothing was heard of the client for too long; connect again"),
        Refusal("draining", "the gateway goes away; connect again"),
    )
}


class Deadlines:
    """Times of one connection, all in milliseconds by the session's clock."""

    def __init__(self, limits: SessionLimits, now_ms: int) -> None:
        self._limits = limits
        self._beat_at_ms = NEVER
        self._look_at_ms = NEVER
        # What the client had taken when it was last looked.
        self._taken_bytes = 0
        self._ends_at_ms = dict.fromkeys(_ENDS, NEVER)
        self._ends_at_ms["hello_timeout"] = now_ms + limits.hello_deadline_ms
        self.heard(now_ms)

    def heard(self, now_ms: int) -> None:
        """The client lives."""
        self._ends_at_ms["idle_timeout"] = now_ms + self._limits.idle_timeout_ms

    def opened(self, now_ms: int) -> None:
        """Hello has been answered: heartbeats begin."""
        self._ends_at_ms["hello_timeout"] = NEVER
        self._beat_at_ms = now_ms + self._limits.heartbeat_interval_ms

    def granted(self, expires_at_ms: int) -> None:
        """The token that counts from now on expires then."""
        self._ends_at_ms["reauth_required"] = expires_at_ms

    def blocked(self, blocked: bool, now_ms: int) -> None:
        """The client has not taken all that it could have by now, or has caught up."""
        self._ends_at_ms["slow_consumer"] = now_ms + self._limits.slow_consumer_ms if blocked else NEVER
        self._look_at_ms = self._next_look(now_ms) if blocked else NEVER

    def taken(self, total_bytes: int, now_ms: int) -> None:
        """The client has taken so many bytes since it connected. Whoever takes some lives, and is not too slow."""
        if self._look_at_ms == NEVER:
            return
        if total_bytes > self._taken_bytes:
            self._ends_at_ms["slow_consumer"] = now_ms + self._limits.slow_consumer_ms
            self.heard(now_ms)
        self._taken_bytes = total_bytes
        self._look_at_ms = self._next_look(now_ms)

    def drain(self, delay_ms: int, now_ms: int) -> bool:
        """The gateway closes in `delay_ms`. False when that has been said before."""
        if self._ends_at_ms["draining"] != NEVER:
            return False
        self._ends_at_ms["draining"] = now_ms + delay_ms
        return True

    def end(self, now_ms: int) -> Refusal | None:
        """Why the connection ends now; None when it goes on."""
        return next((_ENDS[reason] for reason, at_ms in self._ends_at_ms.items() if now_ms >= at_ms), None)

    def beat(self, now_ms: int) -> bool:
        """Whether a heartbeat is due; the next one is due an interval from now."""
        if now_ms < self._beat_at_ms:
            return False
        self._beat_at_ms = now_ms + self._limits.heartbeat_interval_ms
        return True

    def _next_look(self, now_ms: int) -> int:
        return now_ms + max(1, self._limits.slow_consumer_ms // _LOOKS)

    @property
    def wake_at_ms(self) -> int:
        """The earliest of them."""
        return min(self._beat_at_ms, self._look_at_ms, *self._ends_at_ms.values())
