"""When a session is told that time has passed."""

import asyncio
from collections.abc import Callable

from oa_khala.server.session import ServerSession
from oa_khala.server.states import State


class SessionTimer:
    """Calls `due` no later than at the session's `wake_at_ms`; perhaps too early, which harms nothing."""

    __slots__ = ("_at_ms", "_due", "_handle", "_now_ms", "_session")

    def __init__(self, session: ServerSession, now_ms: Callable[[], int], due: Callable[[], None]) -> None:
        self._session = session
        self._now_ms = now_ms
        self._due = due
        self._handle: asyncio.TimerHandle | None = None
        self._at_ms = 0

    def arm(self) -> None:
        """Something has happened: `wake_at_ms` may be another one."""
        if self._session.state is State.CLOSED:
            self.stop()
            return
        wake_at_ms = self._session.wake_at_ms
        if self._handle is not None:
            if wake_at_ms >= self._at_ms:
                return
            self._handle.cancel()
        delay_s = max(0, wake_at_ms - self._now_ms()) / 1000
        self._at_ms = wake_at_ms
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def stop(self) -> None:
        """Call no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._due()
