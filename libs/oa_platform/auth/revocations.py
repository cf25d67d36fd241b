"""The revocations of control that a service knows of, and the callbacks that are told of them at once.

    revocations = Revocations(clock)
    verifier = TokenVerifier(keys, clock, watch, revocations)  # takes no revoked token from then on
    stop = revocations.watch(holder, end_the_socket)           # ends what is open by one
    revocations.listen(look_at)                                # gets every one that is known, or will be

`oa_platform.rpc.revocation_watch` supplies what control says. See ADR 0029.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import structlog

from oa_base.clock import Clock
from oa_base.identity import REVOCATION_KEPT_S, TokenHolder
from oa_base.refusal import Refusal
from oa_platform.health.failures import surviving

_log = structlog.get_logger(__name__)
Listener = Callable[["Revocation"], None]
"""Receives a revocation, perhaps more than once. Must not block. An error is logged, and keeps it from nobody else."""
OnRevoked = Callable[[Refusal], None]
"""Ends what is open by a token. Must not block. An error is logged, and keeps nothing else open."""


class PlaceChange(StrEnum):
    """How a place changes: the permission to start runs in an org."""

    NONE = ""
    LOST = "lost"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends the tokens that match each text that isn't empty; with `issued_before_s`, only those issued before then.

    `place_change` is its effect on things that need no token. `position` and `revoked_s` tell which change is newer.
    """

    session_id: str = ""
    subject: str = ""
    org_id: str = ""
    issued_before_s: float | None = None
    place_change: PlaceChange = PlaceChange.NONE
    position: int = field(default=0, compare=False)
    revoked_s: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """The narrowest known id that is in every token that it ends."""
        return self.session_id or self.subject or self.org_id

    @property
    def ended_subject(self) -> str:
        """The subject that has ended for good, with all present and future tokens; empty when only some end."""
        is_partial = self.session_id or self.org_id or self.issued_before_s is not None
        return "" if is_partial else self.subject

    def covers(self, other: Revocation) -> bool:
        """Whether it matches the same texts as `other`, and ends every token that `other` ends."""
        same = (self.session_id, self.subject, self.org_id) == (other.session_id, other.subject, other.org_id)
        if not same or self.issued_before_s is None:
            return same
        return other.issued_before_s is not None and other.issued_before_s <= self.issued_before_s

    def ends(self, holder: TokenHolder) -> bool:
        """Whether it ends a token of this holder."""
        return (
            bool(self.name)
            and self.session_id in ("", holder.session_id)
            and self.subject in ("", holder.subject)
            and self.org_id in ("", holder.org_id)
            and (self.issued_before_s is None or holder.issued_s < self.issued_before_s)
        )


class _Watched:
    """Something that is open by a token."""

    __slots__ = ("holder", "on_revoked")

    def __init__(self, holder: TokenHolder, on_revoked: OnRevoked) -> None:
        self.holder = holder
        self.on_revoked = on_revoked


class Revocations:
    """All revocations that may still end a token, and everything that is open by one.

    Its size depends on how much is revoked within `REVOCATION_KEPT_S`, and on how much is open.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.position = 0
        """The position of the newest known revocation, in control's order."""
        self.complete = asyncio.Event()
        """Set once everything that was revoked before this process is known."""
        self._by_name: dict[str, list[Revocation]] = {}
        self._ages: deque[tuple[float, Revocation]] = deque()
        # In the order in which they were opened, so that all are told in a reproducible order.
        self._watched: dict[str, dict[_Watched, None]] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Pass every revocation to `listener`: those known now, and those to come."""
        self._listeners.append(listener)
        for _, revocation in self._ages:
            listener(revocation)

    def take(self, revocations: Sequence[Revocation], position: int) -> None:
        """Add the revocations that follow the known ones and lead to `position`; tell everybody whom they concern."""
        now = self._clock.monotonic()
        self._forget(now)
        self.position = position
        for revocation in revocations:
            known = self._by_name.setdefault(revocation.name, [])
            # Each change of a place is kept, because the newest counts, whatever tokens it ends.
            if revocation.place_change or not any(one.covers(revocation) for one in known):
                # Repeated revocations, as of a role that goes up and down, take up the room of one.
                known[:] = [one for one in known if not revocation.covers(one)]
                known.append(revocation)
                self._ages.append((now, revocation))
            self._tell(revocation)

    def check(self, holder: TokenHolder) -> None:
        """Raise Refusal `token_revoked` if the holder's token was revoked."""
        for name in _names(holder):
            for revocation in self._by_name.get(name, ()):
                if revocation.ends(holder):
                    raise _revoked()

    def watch(self, holder: TokenHolder, on_revoked: OnRevoked) -> Callable[[], None]:
        """Watch something that is open by a token, until the returned function is called. `on_revoked` is called when
        the token is revoked, or at once if it already was: that may have happened since the token was last checked."""
        watched = _Watched(holder, on_revoked)
        for name in _names(holder):
            self._watched.setdefault(name, {})[watched] = None
        try:
            self.check(holder)
        except Refusal as refusal:
            on_revoked(refusal)
        return partial(self._unwatch, watched)

    def _unwatch(self, watched: _Watched) -> None:
        for name in _names(watched.holder):
            others = self._watched.get(name, {})
            others.pop(watched, None)
            if not others:
                self._watched.pop(name, None)

    def _tell(self, revocation: Revocation) -> None:
        """Tell those whom it concerns. A defect at one of them keeps it from nobody else."""
        for listener in self._listeners:
            with surviving(_log, "revocation_not_taken", position=revocation.position):
                listener(revocation)
        for watched in list(self._watched.get(revocation.name, ())):
            if revocation.ends(watched.holder):
                with surviving(_log, "revocation_not_taken", position=revocation.position):
                    watched.on_revoked(_revoked())

    def _forget(self, now: float) -> None:
        while self._ages and now - self._ages[0][0] > REVOCATION_KEPT_S:
            _, revocation = self._ages.popleft()
            others = self._by_name.get(revocation.name, [])
            if revocation in others:
                others.remove(revocation)
            if not others:
                self._by_name.pop(revocation.name, None)


def _names(holder: TokenHolder) -> list[str]:
    return [name for name in (holder.session_id, holder.subject, holder.org_id) if name]


def _revoked() -> Refusal:
    text = "the token was revoked; get a new one, and if there is none, sign in again or use another key"
    return Refusal("token_revoked", text)
