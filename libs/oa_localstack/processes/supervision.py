"""Restart processes that die, but not too often, and keep their logs small."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_localstack.files import bound
from oa_localstack.processes.child import Child

_POLL_S = 0.05
_RESTART = Backoff(first_ms=100, max_ms=5_000)


class Change(Enum):
    """What happened to a child."""

    STARTED = "started"
    DIED = "died"
    RESTARTED = "restarted"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Event:
    """Something that happened to the child `name`; `detail` is for people."""

    name: str
    change: Change
    detail: str = ""


@dataclass(frozen=True)
class RestartPolicy:
    """How often a dead child is started again: `attempts` times, each after the full wait of `backoff`.

    A child that stayed up for `forget_after_s` gets all its attempts back.
    """

    attempts: int = 6
    backoff: Backoff = _RESTART
    forget_after_s: float = 30.0


@dataclass
class Supervision:
    """Watches one child while `run` is running."""

    child: Child
    policy: RestartPolicy
    report: Callable[[Event], None]
    max_log_bytes: int
    """Maximum size of the child's log. A larger one moves aside."""
    restarts: int = 0
    _attempt: int = 0

    async def run(self) -> None:
        """Watch until canceled, or until the attempts are used up."""
        loop = asyncio.get_running_loop()
        up_since = loop.time()
        while True:
            await asyncio.sleep(_POLL_S)
            with contextlib.suppress(OSError):  # a full disk ends no supervision
                bound(self.child.log_path, self.max_log_bytes)
            if self.child.pid is not None:
                if loop.time() - up_since > self.policy.forget_after_s:
                    self._attempt = 0
                continue
            self.report(Event(self.child.name, Change.DIED, f"with status {self.child.exit_status}"))
            if not await self._restart():
                return
            up_since = loop.time()

    async def _restart(self) -> bool:
        """Try until the child starts. False when the attempts are used up."""
        reason = "it died each time soon after its start"
        while self._attempt < self.policy.attempts:
            await asyncio.sleep(self.policy.backoff.ceiling_ms(self._attempt) / 1000)
            self._attempt += 1
            try:
                await self.child.start()
            except (Refusal, OSError) as error:
                reason = str(error)
                continue
            self.restarts += 1
            self.report(Event(self.child.name, Change.RESTARTED, f"attempt {self._attempt}"))
            return True
        self.report(Event(self.child.name, Change.GAVE_UP, f"after {self._attempt} attempts: {reason}"))
        return False
