"""Sign-in codes: when one may be sent, and how a guess is judged."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

CODE_DIGITS = 8
CODE_TTL = timedelta(minutes=10)
MAX_GUESSES = 5
RESEND_AFTER = timedelta(seconds=60)


class Ended(StrEnum):
    """Why a challenge is over. A stored challenge may have a reason of a later release."""

    USED = "used"
    REPLACED = "replaced"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Party:
    """Who began a challenge: an address, and the only device that may bring its code."""

    email: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """A code on its way to an address. The code itself isn't stored: `code_hash` is a MAC over it and the challenge."""

    challenge_id: str
    email: str
    device_id: str
    code_hash: bytes
    created_at: datetime
    guesses: int = 0
    ended: str | None = None

    @property
    def expires_at(self) -> datetime:
        """The time from which guesses are no longer checked."""
        return self.created_at + CODE_TTL

    def is_live(self, now: datetime) -> bool:
        """Whether the right code would still sign in."""
        return self.ended is None and now < self.expires_at


def code_of(key: bytes, challenge_id: str) -> str:
    """The code of a challenge. It is as good as random without the key, and is never stored with it."""
    number = int.from_bytes(hmac.digest(key, f"code:{challenge_id}".encode(), hashlib.sha256))
    return f"{number % 10**CODE_DIGITS:0{CODE_DIGITS}d}"


def code_hash(key: bytes, challenge_id: str, code: str) -> bytes:
    """The stored form of a code. Without the key, the 10^8 codes can't be tried against it."""
    return hmac.digest(key, f"challenge:{challenge_id}:{code}".encode(), hashlib.sha256)


def resend_wait(live: Challenge | None, now: datetime) -> timedelta:
    """Return how long until another code may be sent, given `live` of the same address and device; zero is at once.

    Only a code that can still be used delays the next one: after a sign-in there is no wait.
    """
    if live is None or not live.is_live(now):
        return timedelta(0)
    return max(timedelta(0), live.created_at + RESEND_AFTER - now)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a guess: the challenge to store, and the catalogue's reason unless the guess was right."""

    challenge: Challenge
    reason: str | None

    @property
    def guesses_left(self) -> int:
        """How many wrong guesses are still answered."""
        return MAX_GUESSES - self.challenge.guesses


def judge(challenge: Challenge, device_id: str, guessed_hash: bytes, now: datetime) -> Verdict:
    """Judge one guess. Every guess that is compared is counted, including the right one.

    A guess from a device other than the one that asked is counted and wrong, whatever the code.
    """
    if challenge.ended == Ended.EXHAUSTED:
        return Verdict(challenge, "too_many_guesses")
    if not challenge.is_live(now):
        return Verdict(challenge, "challenge_expired")
    counted = replace(challenge, guesses=challenge.guesses + 1)
    same_code = hmac.compare_digest(challenge.code_hash, guessed_hash)
    if same_code and challenge.device_id == device_id:
        return Verdict(replace(counted, ended=Ended.USED), None)
    if counted.guesses >= MAX_GUESSES:
        return Verdict(replace(counted, ended=Ended.EXHAUSTED), "too_many_guesses")
    return Verdict(counted, "code_incorrect")
