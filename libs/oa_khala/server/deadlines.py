"""The deadlines that end a connection."""

from oa_base.refusal import Refusal
from oa_khala.server.limits import SessionLimits

NEVER = 1 << 62
# How many times per `slow_consumer_ms` the session checks whether a client takes anything. A client that takes nothing
# is closed at most one check late.
_LOOKS = 4

# If two deadlines have passed, the first one here is reported.
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
    """Deadlines of one connection, all in milliseconds by the session's clock."""

    __slots__ = ("_ends_at_ms", "_first_end_ms", "_limits", "_look_at_ms", "_taken_bytes", "wake_at_ms")

    def __init__(self, limits: SessionLimits, now_ms: int) -> None:
        self._limits = limits
        self._look_at_ms = NEVER
        # Bytes that the client had taken at the last check.
        self._taken_bytes = 0
        self._ends_at_ms = dict.fromkeys(_ENDS, NEVER)
        # The earliest of these. Both earliest times are asked for more often than a time changes.
        self._first_end_ms = NEVER
        self.wake_at_ms = NEVER
        """The earliest of all the times."""
        self._end_at("hello_timeout", now_ms + limits.hello_deadline_ms)
        self.heard(now_ms)

    def heard(self, now_ms: int) -> None:
        """Note that the client is alive."""
        self._end_at("idle_timeout", now_ms + self._limits.idle_timeout_ms)

    def opened(self) -> None:
        """Note that Hello has been answered."""
        self._end_at("hello_timeout", NEVER)

    def granted(self, expires_at_ms: int) -> None:
        """Note that the token in force from now on expires at `expires_at_ms`."""
        self._end_at("reauth_required", expires_at_ms)

    def blocked(self, blocked: bool, now_ms: int) -> None:
        """Note that the client has fallen behind what it could have taken (`blocked`), or has caught up."""
        self._look_at_ms = self._next_look(now_ms) if blocked else NEVER
        self._set_wake()
        self._end_at("slow_consumer", now_ms + self._limits.slow_consumer_ms if blocked else NEVER)

    def taken(self, total_bytes: int, now_ms: int) -> None:
        """Note the bytes taken since the client connected. A client that takes some is alive and not too slow."""
        if self._look_at_ms == NEVER:
            return
        if total_bytes > self._taken_bytes:
            self._end_at("slow_consumer", now_ms + self._limits.slow_consumer_ms)
            self.heard(now_ms)
        self._taken_bytes = total_bytes
        self._look_at_ms = self._next_look(now_ms)
        self._set_wake()

    def drain(self, delay_ms: int, now_ms: int) -> bool:
        """Note that the gateway closes in `delay_ms`. False when it was told before."""
        if self._ends_at_ms["draining"] != NEVER:
            return False
        self._end_at("draining", now_ms + delay_ms)
        return True

    def end(self, now_ms: int) -> Refusal | None:
        """Return why the connection ends now; None when it continues."""
        if self._first_end_ms > now_ms:
            return None
        return next(_ENDS[reason] for reason, at_ms in self._ends_at_ms.items() if now_ms >= at_ms)

    def _next_look(self, now_ms: int) -> int:
        return now_ms + max(1, self._limits.slow_consumer_ms // _LOOKS)

    def _end_at(self, reason: str, at_ms: int) -> None:
        was_ms, self._ends_at_ms[reason] = self._ends_at_ms[reason], at_ms
        if at_ms < self._first_end_ms:
            self._first_end_ms = at_ms
        elif was_ms == self._first_end_ms:
            self._first_end_ms = min(self._ends_at_ms.values())
        else:
            return  # another one is still the earliest
        self._set_wake()

    def _set_wake(self) -> None:
        self.wake_at_ms = min(self._first_end_ms, self._look_at_ms)
