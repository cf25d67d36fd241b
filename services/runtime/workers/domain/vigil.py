"""Finds workers that have gone silent. Pure.

The replica that looks measures silence on a clock that never goes back: how long a worker's last sign of life has not
changed. No two clocks are compared, so a step of one changes nothing. Only the time in which a sign could have been
given, recorded and seen counts:

- No worker's silence counts while the authority is absent: until a replica has been seen to accept workers, and when no
  replica has done so for `absent_after_s`. Then every worker gets the whole limit anew.
- A replica whose look failed or came late has seen nothing. Every worker gets the whole limit anew.
- A worker whose replica is absent can't be heard there. It has twice the limit, in which it can attach elsewhere, and
  the limit anew when its replica returns.

So a dead worker is lost after the limit, or after twice the limit if its replica died with it, at the next look. A live
worker is lost only if it could be heard and was not.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class SignOfLife(NamedTuple):
    """The last sign of life of a worker. Another `attachment` or another `beat` is a new sign."""

    worker_id: str
    attachment: str
    beat: Hashable
    replica_id: str
    """The replica that has its stream; empty if that is not known."""


class LossCause(enum.StrEnum):
    """Why a worker is lost."""

    SILENT = "silent"
    """Its replica was present, and did not hear it."""
    NOT_BACK = "not_back"
    """Its replica went away, and it attached to no other."""


class Loss(NamedTuple):
    """A verdict, and the sign of life on which it was made."""

    sign: SignOfLife
    cause: LossCause


class Stillness(Generic[Key]):
    """How long each of several things has not changed, as far as looks have shown."""

    def __init__(self) -> None:
        self._since: dict[Key, tuple[object, float]] = {}

    def look(self, now_s: float, states: Mapping[Key, object]) -> None:
        """Take the current state of each key. A key that is missing is forgotten."""
        self._since = {
            key: known if (known := self._since.get(key)) is not None and known[0] == state else (state, now_s)
            for key, state in states.items()
        }

    def of(self, key: Key, now_s: float) -> float:
        """For how many seconds the key has not changed; 0 if it was not seen."""
        known = self._since.get(key)
        return 0.0 if known is None else now_s - known[1]

    def forget(self) -> None:
        """Start over."""
        self._since.clear()


class Presence:
    """Whether the authority could be reached: a replica has to be seen to accept workers, again and again.

    A replica increments its count while it accepts workers. The counts at the first look prove nothing.
    """

    def __init__(self, absent_after_s: float) -> None:
        self._absent_after_s = absent_after_s
        self._counts: Mapping[str, int] | None = None
        self._accepted_s: float | None = None

    def look(self, now_s: float, counts: Mapping[str, int]) -> float | None:
        """Take the count of each replica; return when one was last seen to accept workers, or None: it is absent."""
        before, self._counts = self._counts, dict(counts)
        if before is not None and any(before.get(replica) != count for replica, count in counts.items()):
            self._accepted_s = now_s
        if self._accepted_s is not None and now_s - self._accepted_s >= self._absent_after_s:
            self._accepted_s = None
        return self._accepted_s

    def forget(self) -> None:
        """Start over."""
        self._counts = self._accepted_s = None


class Vigil:
    """What one replica has seen of workers, of replicas, and of cancels that have not been carried out.

    `late_after_s` is also the stillness after which a replica is absent. It has to leave a worker time for a heartbeat
    within the limit. `absent_after_s` is the same for all replicas together. It is shorter because a worker must still
    have time to attach when it has passed unnoticed.
    """

    def __init__(
        self, lost_after_s: float, *, late_after_s: float, absent_after_s: float, cancel_after_s: float
    ) -> None:
        self._lost_after_s = lost_after_s
        self._late_after_s = late_after_s
        self._cancel_after_s = cancel_after_s
        self._looked_s: float | None = None
        self._authority = Presence(absent_after_s)
        self._replicas: Stillness[str] = Stillness()
        self._workers: Stillness[str] = Stillness()
        self._cancels: Stillness[str] = Stillness()
        self._returns: dict[str, int] = {}
        """Replica -> how often it was absent and came back."""

    def forget(self) -> None:
        """Forget what was seen before: after a failed look it proves nothing."""
        self._looked_s = None
        self._authority.forget()
        self._replicas.forget()
        self._workers.forget()

    def lost(self, now_s: float, replicas: Mapping[str, int], signs: Iterable[SignOfLife]) -> list[Loss]:
        """Look, and return the workers that are lost. `replicas`: replica -> the looks in which it accepted workers."""
        if self._looked_s is not None and now_s - self._looked_s > self._late_after_s:
            self.forget()
        self._looked_s = now_s
        self._look_at_replicas(now_s, replicas)
        present_s = self._authority.look(now_s, replicas)
        if present_s is None:
            self._workers.forget()
            return []
        by_worker = {sign.worker_id: sign for sign in signs}
        states = {sign.worker_id: (sign, self._returns.get(sign.replica_id, 0)) for sign in by_worker.values()}
        self._workers.look(now_s, states)
        losses = (self._loss(sign, present_s, self._is_absent(sign.replica_id, now_s)) for sign in by_worker.values())
        return [loss for loss in losses if loss is not None]

    def _look_at_replicas(self, now_s: float, replicas: Mapping[str, int]) -> None:
        absent = {one for one in replicas if self._is_absent(one, now_s)}
        self._replicas.look(now_s, replicas)
        for one in absent:
            if not self._is_absent(one, now_s):
                self._returns[one] = self._returns.get(one, 0) + 1

    def absent(self, now_s: float, replicas: Collection[str]) -> list[str]:
        """The replicas that have been absent for so long that no worker is attached to them any more."""
        return [one for one in replicas if self._replicas.of(one, now_s) > 3 * self._lost_after_s]

    def due(self, now_s: float, canceling: Collection[str]) -> list[str]:
        """Look, and return the runs whose workers have had their time to end them."""
        self._cancels.look(now_s, dict.fromkeys(canceling))
        return [run_id for run_id in canceling if self._cancels.of(run_id, now_s) >= self._cancel_after_s]

    def _is_absent(self, replica_id: str, now_s: float) -> bool:
        return self._replicas.of(replica_id, now_s) > self._late_after_s

    def _loss(self, sign: SignOfLife, present_s: float, is_away: bool) -> Loss | None:
        """The loss, if the worker had been silent for its limit when the authority was last present to hear it."""
        if self._workers.of(sign.worker_id, present_s) < self._lost_after_s * (2 if is_away else 1):
            return None
        return Loss(sign, LossCause.NOT_BACK if is_away else LossCause.SILENT)
