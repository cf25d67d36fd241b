"""A model of several sessions of one person: what has to come of each call, and of calls that run at once.

It knows tokens by their generation alone: 0 came with the sign-in, each refresh makes the next. Calls that run at once
must have come one after the other, in some order; which one is seen from what they answered.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import permutations

from services.control.tokens.domain import ACCESS_TTL


@dataclass
class Held:
    """A session as it should be. `used`: the newest generation whose access token was let in."""

    device: str
    refreshed_at: datetime
    newest: int = 0
    used: int = -1
    ended: str = ""

    def goes_on(self, generation: int, now: datetime) -> bool:
        """Whether a living one goes on with this generation of its refresh token; no: it is a stolen one."""
        lost_answer = generation == self.newest - 1 and self.used < self.newest
        if generation != self.newest and not lost_answer:
            return False
        if generation == self.newest or now >= self.refreshed_at + ACCESS_TTL:
            self.newest, self.refreshed_at = max(self.newest, generation + 1), now
        return True


@dataclass(frozen=True)
class Access:
    """An access token that was given out."""

    session_id: str
    generation: int
    text: str
    expires_at: datetime


@dataclass(frozen=True)
class Call:
    """One call. `access` and `device` for those that bring one. A sign-in may bring the refresh token of a session."""

    kind: str
    session_id: str = ""
    generation: int = 0
    device: str = ""
    access: Access | None = None


Outcome = tuple[str, ...]
"""A reason, or what was given: ("tokens", session, generation), ("session", session, generation),
("ended", session, …)."""


@dataclass
class Person:
    """What became of the person so far, in one order of the calls."""

    sessions: dict[str, Held] = field(default_factory=dict)
    blocked: bool = False
    refreshes: int = 0
    blocks: Counter[str] = field(default_factory=Counter)

    def expected(self, call: Call, got: Outcome, now: datetime) -> Outcome:
        """What has to come of a call; `got` only says which id a new session has."""
        return getattr(self, f"_{call.kind}")(call, got, now)  # type: ignore[no-any-return]

    @property
    def living(self) -> list[str]:
        """The sessions that have not ended."""
        return [session_id for session_id, one in self.sessions.items() if not one.ended]

    def _refresh(self, call: Call, _: Outcome, now: datetime) -> Outcome:
        held = self.sessions[call.session_id]
        if self.blocked:
            return ("token_revoked",)
        if held.ended:
            return ("token_replay" if held.ended == "token_replay" else "token_revoked",)
        before = held.refreshed_at, held.newest
        if call.device != held.device or not held.goes_on(call.generation, now):
            held.ended = "token_replay"
            return ("token_replay",)
        self.refreshes += (held.refreshed_at, held.newest) != before
        return ("tokens", call.session_id, str(held.newest))

    def _use(self, call: Call, _: Outcome, now: datetime) -> Outcome:
        assert call.access is not None
        held = self.sessions[call.session_id]
        if now >= call.access.expires_at:
            return ("token_expired",)
        if self.blocked or held.ended:
            return ("token_revoked",)
        held.used = max(held.used, call.generation)
        return ("let in",)

    def _sign_in(self, call: Call, got: Outcome, now: datetime) -> Outcome:
        if self.blocked:
            return ("challenge_expired",)
        going_on = ""
        for session_id, held in self.sessions.items():
            if held.ended or held.device != call.device:
                continue
            if session_id != call.session_id:
                held.ended = "device_replaced"
            elif held.goes_on(call.generation, now):
                going_on = session_id
            else:
                held.ended = "token_replay"
        if not going_on:
            going_on = got[1] if got[0] == "session" else "none"
            self.sessions[going_on] = Held(call.device, now)
        return ("session", going_on, str(self.sessions[going_on].newest))

    def _revoke(self, call: Call, _: Outcome, __: datetime) -> Outcome:
        return self._end([each for each in self.living if call.session_id in ("", each)], "admin_revoked")

    def _revoke_others(self, call: Call, _: Outcome, __: datetime) -> Outcome:
        return self._end([each for each in self.living if each != call.session_id], "user_requested")

    def _block(self, *_: object) -> Outcome:
        if not self.blocked:
            self.blocks["subject.blocked"] += 1
            self._end(self.living, "admin_revoked")
        self.blocked = True
        return ("blocked",)

    def _unblock(self, *_: object) -> Outcome:
        self.blocks["subject.unblocked"] += self.blocked
        self.blocked = False
        return ("unblocked",)

    def _end(self, session_ids: Sequence[str], reason: str) -> Outcome:
        for session_id in session_ids:
            self.sessions[session_id].ended = reason
        return ("ended", *sorted(session_ids))


def after(beliefs: Sequence[Person], calls: Sequence[Call], got: Sequence[Outcome], now: datetime) -> list[Person]:
    """What may have become of the person: of each belief and each order of the calls, those that answer as was seen."""
    found: list[Person] = []
    for before in beliefs:
        for order in permutations(range(len(calls))):
            person = copy.deepcopy(before)
            if all(person.expected(calls[at], got[at], now) == got[at] for at in order) and person not in found:
                found.append(person)
    return found


@dataclass
class Program:
    """Makes calls by chance, of those that make sense for the person; several at a time."""

    chance: random.Random
    devices: Sequence[str]

    def calls(self, person: Person, given: Sequence[Access]) -> list[Call]:
        """The next ones, to run at once."""
        size = self.chance.choice((1, 1, 1, 2, 3))
        return list(self._of_different_kinds(person, given, size))

    def _of_different_kinds(self, person: Person, given: Sequence[Access], size: int) -> Iterator[Call]:
        ways: dict[Callable[[Person, Sequence[Access]], Call], int] = {
            self._refresh: 40,
            self._use: 30,
            self._sign_in: 8,
            self._revoke: 6,
            self._revoke_others: 3,
            self._block: 4,
        }
        alone: set[str] = set()
        for way in self.chance.choices(list(ways), list(ways.values()), k=size):
            call = way(person, given)
            # A sign-in on a device whose session is being ended by its person may be before or after it in part.
            kind = {"refresh": "", "use": "", "revoke_others": "sign_in", "unblock": "block"}.get(call.kind, call.kind)
            if kind not in alone:
                yield call
            alone |= {kind} - {""}

    def _refresh(self, person: Person, _: Sequence[Access]) -> Call:
        session_id, held = self._session(person)
        back = self.chance.choice((0, 0, 0, 0, 0, 1, 1, 1, 2))  # a lost answer, or a thief who comes late
        stranger = self.chance.random() < 0.03
        device = self.chance.choice(self.devices) if stranger else held.device
        return Call("refresh", session_id, max(0, held.newest - back), device)

    def _use(self, person: Person, given: Sequence[Access]) -> Call:
        session_id, _ = self._session(person)
        access = self.chance.choice([one for one in given if one.session_id == session_id][-3:])
        return Call("use", session_id, access.generation, access=access)

    def _sign_in(self, person: Person, _: Sequence[Access]) -> Call:
        if person.blocked:
            return Call("unblock")
        if self.chance.random() < 0.5:
            return replace(self._refresh(person, ()), kind="sign_in")
        return Call("sign_in", device=self.chance.choice(self.devices))

    def _revoke(self, person: Person, _: Sequence[Access]) -> Call:
        everything = self.chance.random() < 0.2
        return Call("revoke", "" if everything else self._session(person)[0])

    def _revoke_others(self, person: Person, _: Sequence[Access]) -> Call:
        return Call("revoke_others", self._session(person)[0])

    def _block(self, person: Person, _: Sequence[Access]) -> Call:
        return Call("unblock" if person.blocked else "block")

    def _session(self, person: Person) -> tuple[str, Held]:
        """Mostly one that lives, if there is one."""
        living = person.living if self.chance.random() < 0.9 else []
        return self.chance.choice([(each, person.sessions[each]) for each in living or person.sessions])

    def pause(self) -> timedelta:
        """How long nobody does anything."""
        return self.chance.choice((timedelta(0),) * 9 + (timedelta(minutes=23), ACCESS_TTL + timedelta(minutes=7)))
