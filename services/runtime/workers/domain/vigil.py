"""Which workers have gone silent. Pure.

Silence is counted by the one that looks, on a clock that never goes back: for how long a worker's last sign of life
has not changed. No two clocks are compared, so a step of one changes nothing. What counts is only the time in which a
sign could have been given, recorded and seen:

- Nobody's silence counts while the authority is absent: until a replica has been seen to accept workers, and when none
  has done so for `absent_after_s`. Everybody gets the whole limit anew.
- Whoever failed to look, or comes late, has seen nothing. Everybody gets the whole limit anew.
- A worker whose replica is absent can't be heard there. It has twice the limit, in which it can attach elsewhere, and
  the limit anew when its replica returns.

So a worker that is dead is lost after the limit, or after twice the limit if its replica died with it, and then at the
next look. A worker that lives is lost only if it could be heard and was not.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class SignOfLife(NamedTuple):
    """The last one of a worker. Another `attachment` or another `beat` is a new one."""

    worker_id: str
    attachment: str
    beat: Hashable
    replica_id: str
    """Where its stream is; empty if that is not known."""


class LossCause(enum.StrEnum):
    """Why a worker is lost."""

    SILENT = "silent"
    """Its replica was there, and did not hear it."""
    NOT_BACK = "not_back"
    """Its replica went away, and it attached to no other."""


class Loss(NamedTuple):
    """A verdict, and the sign of life on which it was made."""

    sign: SignOfLife
    cause: LossCause


class Stillness(Generic[Key]):
    """For how long each of some things has not changed, as far as somebody looked."""

    def __init__(self) -> None:
        self._since: dict[Key, tuple[object, float]] = {}

    def look(self, now_s: float, states: Mapping[Key, object]) -> None:
        """Take what each of them is now. One that is not among them is forgotten."""
        self._since = {
            key: known if (known := self._since.get(key)) is not None and known[0] == state else (state, now_s)
            for key, state in states.items()
        }

    def of(self, key: Key, now_s: float) -> float:
        """Seconds; 0 for what was not seen."""
        known = self._since.get(key)
        return 0.0 if known is None else now_s - known[1]

    def forget(self) -> None:
        """Begin anew."""
        self._since.clear()


class Presence:
    """Whether the authority could be reached: for that a replica has to be seen to accept workers, again and again.

    A replica counts on while it accepts workers. What it counted before the first look proves nothing.
    """

    def __init__(self, absent_after_s: float) -> None:
        self._absent_after_s = absent_after_s
        self._counts: Mapping[str, int] | None = None
        self._accepted_s: float | None = None

    def look(self, now_s: float, counts: Mapping[str, int]) -> float | None:
        """Take how far each replica has counted. When one was last seen to accept workers; None: it is absent."""
        before, self._counts = self._counts, dict(counts)
        if before is not None and any(before.get(replica) != count for replica, count in counts.items()):
            self._accepted_s = now_s
        if self._accepted_s is not None and now_s - self._accepted_s >= self._absent_after_s:
            self._accepted_s = None
        return self._accepted_s

    def forget(self) -> None:
        """Begin anew."""
        self._counts = self._accepted_s = None


class Vigil:
    """What one replica has seen of workers and of the replicas, and of cancels that are not carried out.

    `late_after_s` also is the stillness after which a replica is absent. It has to leave a worker the time for a
    heartbeat within the limit. `absent_after_s` is the same for all replicas together. It is shorter: when it has
    passed unnoticed, a worker still has to have the time to attach.
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
        """A look has failed: what was seen before says nothing any more."""
        self._looked_s = None
        self._authority.forget()
        self._replicas.forget()
        self._workers.forget()

    def lost(self, now_s: float, replicas: Mapping[str, int], signs: Iterable[SignOfLife]) -> list[Loss]:
        """Look: the workers that are lost. `replicas`: how far each of them has counted while it accepted workers."""
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
        """The replicas that have been away for so long that nobody is attached to them any more."""
        return [one for one in replicas if self._replicas.of(one, now_s) > 3 * self._lost_after_s]

    def due(self, now_s: float, canceling: Collection[str]) -> list[str]:
        """Look: the runs whose workers had their time to end them."""
        self._cancels.look(now_s, dict.fromkeys(canceling))
        return [run_id for run_id in canceling if self._cancels.of(run_id, now_s) >= self._cancel_after_s]

    def _is_absent(self, replica_id: str, now_s: float) -> bool:
        return self._replicas.of(replica_id, now_s) > self._late_after_s

    def _loss(self, sign: SignOfLife, present_s: float, is_away: bool) -> Loss | None:
        """Whether it was silent for its time when the authority was last seen, which is when it could be heard."""
        if self._workers.of(sign.worker_id, present_s) < self._lost_after_s * (2 if is_away else 1):
            return None
        return Loss(sign, LossCause.NOT_BACK if is_away else LossCause.SILENT)
