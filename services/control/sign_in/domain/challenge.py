"""Sign-in codes: when one may be sent, and what a guess is worth."""

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
    """Why a challenge is over."""

    USED = "used"
    REPLACED = "replaced"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Party:
    """Who began a challenge: an address, and the device that alone may bring its code."""

    email: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """A code on its way to an address. The code itself is nowhere: `code_hash` is a MAC over it and the challenge."""

    challenge_id: str
    email: str
    device_id: str
    code_hash: bytes
    created_at: datetime
    guesses: int = 0
    ended: Ended | None = None

    @property
    def expires_at(self) -> datetime:
        """From then on no guess is looked at."""
        return self.created_at + CODE_TTL

    def is_live(self, now: datetime) -> bool:
        """Whether the right code would still sign in."""
        return self.ended is None and now < self.expires_at


def code_of(key: bytes, challenge_id: str) -> str:
    """The code of a challenge: as good as random without the key, and nowhere stored with it."""
    number = int.from_bytes(hmac.digest(key, f"code:{challenge_id}".encode(), hashlib.sha256))
    return f"{number % 10**CODE_DIGITS:0{CODE_DIGITS}d}"


def code_hash(key: bytes, challenge_id: str, code: str) -> bytes:
    """What is stored of a code. Without the key the 10^8 codes can't be tried against it."""
    return hmac.digest(key, f"challenge:{challenge_id}:{code}".encode(), hashlib.sha256)


def resend_wait(live: Challenge | None, now: datetime) -> timedelta:
    """How long until another code may be sent while `live` is that of the same address and device; zero for at once.

    Only a code that can still be used holds the next one back: after a sign-in there is no wait.
    """
    if live is None or not live.is_live(now):
        return timedelta(0)
    return max(timedelta(0), live.created_at + RESEND_AFTER - now)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guess led to: the challenge as it is to be stored, and the catalogue's reason unless it was right."""

    challenge: Challenge
    reason: str | None

    @property
    def guesses_left(self) -> int:
        """How many wrong guesses are still answered."""
        return MAX_GUESSES - self.challenge.guesses


def judge(challenge: Challenge, device_id: str, guessed_hash: bytes, now: datetime) -> Verdict:
    """Judge one guess. Every guess that is compared at all is counted, the right one too.

    A guess from another device than the one that asked is counted and wrong, whatever the code.
    """
    if challenge.ended is Ended.EXHAUSTED:
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
