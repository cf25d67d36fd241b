"""Signing in with a code sent by e-mail."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from oa_base.clock import Clock
from oa_base.rate import Rate
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.orgs import app as orgs_app
from services.control.orgs.domain import User
from services.control.policy.domain import Role
from services.control.sessions import app as sessions_app
from services.control.sessions.domain import Session
from services.control.sign_in.domain.challenge import (
    CODE_DIGITS,
    RESEND_AFTER,
    Challenge,
    Ended,
    Verdict,
    code_from_number,
    code_hash,
    judge,
    resend_wait,
)
from services.control.sign_in.domain.email import canonical_email
from services.control.sign_in.limits import CHALLENGES_KEPT_FOR, SignInLimits
from services.control.transactions.app import Transactions, settled


class Mailer(Protocol):
    """Delivers sign-in codes."""

    async def send_code(self, email: str, code: str, expires_at: datetime) -> None:
        """Hand the code over for delivery. Raises Refusal `unavailable` when that was not possible."""
        ...


class ChallengeStore(Protocol):
    """Sign-in codes."""

    async def live(self, email: str) -> Challenge | None:
        """The address's one challenge that has not ended (it may have expired), locked."""
        ...

    async def email_of(self, challenge_id: str) -> str | None:
        """Address of a challenge, without locking it."""
        ...

    async def locked(self, challenge_id: str) -> Challenge | None:
        """The challenge, locked until the transaction ends."""
        ...

    async def add(self, challenge: Challenge) -> None:
        """Store a new one."""
        ...

    async def save(self, challenge: Challenge) -> None:
        """Store what became of it: guesses and end."""
        ...

    async def end(self, challenge_id: str, ended: Ended) -> None:
        """End it, unless it has ended."""
        ...

    async def sweep(self, created_before: datetime) -> None:
        """Remove those that are older, a limited number at a time."""
        ...


class RateStore(Protocol):
    """Rate limits, shared by all replicas."""

    async def take(self, bucket: str, rate: Rate, now: datetime) -> timedelta | None:
        """Take one; None if there was room, otherwise how long until there is. Locks the bucket until the
        transaction ends."""
        ...

    async def lock(self, bucket: str, now: datetime) -> None:
        """Lock the bucket until the transaction ends, taking nothing."""
        ...

    async def reset(self, bucket: str) -> None:
        """Give all of the bucket's room back."""
        ...

    async def sweep(self, now: datetime) -> None:
        """Remove buckets that say nothing any more, a limited number at a time."""
        ...


class Transaction(orgs_app.Transaction, sessions_app.Transaction, Protocol):
    """A transaction with all that signing in changes."""

    @property
    def challenges(self) -> ChallengeStore: ...
    @property
    def rates(self) -> RateStore: ...


@dataclass(frozen=True)
class Started:
    """A code is on its way."""

    challenge_id: str
    email: str
    expires_at: datetime
    resend_after: timedelta


@dataclass(frozen=True)
class SignedIn:
    """A new session."""

    tokens: sessions_app.SessionTokens
    user: User
    session: Session
    new_user: bool


class SignIn:
    """The e-mail-code flow. `hmac_key` hashes codes.

    Locks are taken in one order, network bucket, address bucket, challenge, so that no two calls wait for each other.
    The address's bucket thereby also makes two starts for one address happen one after the other.
    """

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        hmac_key: bytes,
        orgs: orgs_app.Orgs,
        sessions: sessions_app.Sessions,
        mailer: Mailer,
        limits: SignInLimits,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._hmac_key = hmac_key
        self._orgs = orgs
        self._sessions = sessions
        self._mailer = mailer
        self._limits = limits

    async def start(self, email: str, device_id: str, origin: Origin) -> Started:
        """Send a code. The answer is alike for known and unknown addresses: everybody with a mailbox may sign in.

        Raises Refusal `rate_limited` with the wait, `unavailable` when the code could not be handed over.
        """
        address = canonical_email(email)
        code = code_from_number(secrets.randbelow(10**CODE_DIGITS))
        async with self._transactions.begin() as tx:
            outcome = await self._start(tx, address, device_id, code, origin)
        challenge = settled(outcome)
        try:
            await self._mailer.send_code(address, code, challenge.expires_at)
        except Refusal:
            # Nobody got this code: it must not hold the next one back.
            async with self._transactions.begin() as tx:
                await tx.challenges.end(challenge.challenge_id, Ended.REPLACED)
            raise
        return Started(challenge.challenge_id, address, challenge.expires_at, RESEND_AFTER)

    async def _start(
        self, tx: Transaction, email: str, device_id: str, code: str, origin: Origin
    ) -> Challenge | Refusal:
        now = self._clock.now()
        wait = await tx.rates.take(f"start:net:{origin.network}", self._limits.per_network, now)
        wait = wait or await tx.rates.take(_address_bucket(email), self._limits.per_address, now)
        if wait:
            return _too_often(wait)
        live = await tx.challenges.live(email)
        if wait := resend_wait(live, now):
            return _too_often(wait)
        if live:
            await tx.challenges.end(live.challenge_id, Ended.REPLACED)
        challenge_id = new_id("chl")
        hashed = code_hash(self._hmac_key, challenge_id, code)
        challenge = Challenge(challenge_id, email, device_id, hashed, now)
        await tx.challenges.add(challenge)
        await tx.audit.add(AuditEntry(Action.CHALLENGE_STARTED, origin, target=email), now)
        return challenge

    async def verify(self, challenge_id: str, code: str, device_id: str, origin: Origin) -> SignedIn:
        """Exchange a code for a session; the first time, the person and its own org are made.

        Raises Refusal `code_incorrect` (metadata `guesses_left`), `challenge_expired`, `too_many_guesses`,
        `rate_limited`.
        """
        async with self._transactions.begin() as tx:
            outcome = await self._verify(tx, challenge_id, code.strip(), device_id, origin)
        return settled(outcome)

    async def _verify(
        self, tx: Transaction, challenge_id: str, code: str, device_id: str, origin: Origin
    ) -> SignedIn | Refusal:
        now = self._clock.now()
        wait = await tx.rates.take(f"guess:net:{origin.network}", self._limits.guesses_per_network, now)
        if wait:
            return _too_often(wait)
        email = await tx.challenges.email_of(challenge_id)
        if email is None:
            return _refusal_for("challenge_expired")
        await tx.rates.lock(_address_bucket(email), now)
        challenge = await tx.challenges.locked(challenge_id)
        if challenge is None:
            return _refusal_for("challenge_expired")
        verdict = judge(challenge, device_id, code_hash(self._hmac_key, challenge_id, code), now)
        await tx.challenges.save(verdict.challenge)
        if verdict.reason:
            entry = AuditEntry(Action.SIGNED_IN, origin, target=email, reason=verdict.reason)
            await tx.audit.add(entry, now)
            return _refusal_for(verdict.reason, verdict)
        await tx.rates.reset(_address_bucket(email))
        return await self._signed_in(tx, email, device_id, origin, now)

    async def _signed_in(self, tx: Transaction, email: str, device_id: str, origin: Origin, now: datetime) -> SignedIn:
        user, new_user = await self._orgs.person(tx, email, now)
        session = await self._sessions.begin(tx, user.user_id, user.org_id, device_id, origin, now)
        await tx.audit.add(AuditEntry(Action.SIGNED_IN, origin, user.user_id, user.org_id, session.session_id), now)
        # The person's own org has the person as its owner.
        return SignedIn(self._sessions.tokens(session, Role.OWNER), user, session, new_user)

    async def sweep(self) -> None:
        """Remove rate-limit buckets that say nothing any more, and challenges that are long over."""
        now = self._clock.now()
        async with self._transactions.autocommit() as tx:
            await tx.rates.sweep(now)
            await tx.challenges.sweep(now - CHALLENGES_KEPT_FOR)


def _address_bucket(email: str) -> str:
    return f"start:address:{email}"


def _too_often(wait: timedelta) -> Refusal:
    seconds = max(1, -(-wait // timedelta(seconds=1)))
    message = f"too many sign-in attempts; try again in {seconds} s"
    return Refusal("rate_limited", message, retry_after_ms=max(1, -(-wait // timedelta(milliseconds=1))))


_MESSAGES = {
    "code_incorrect": "the code is wrong; look at the newest e-mail and try again",
    "challenge_expired": "this sign-in has expired or was replaced; ask for a new code",
    "too_many_guesses": "too many wrong codes; ask for a new one",
}


def _refusal_for(reason: str, verdict: Verdict | None = None) -> Refusal:
    left = {"guesses_left": str(verdict.guesses_left)} if verdict and reason == "code_incorrect" else {}
    return Refusal(reason, _MESSAGES[reason], field="code" if left else "", metadata=left)
