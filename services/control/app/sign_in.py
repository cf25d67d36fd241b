"""Signing in with a code sent by e-mail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from oa_base.rate import Rate
from oa_base.refusal import Refusal
from services.control.app.outcome import settled
from services.control.app.ports import Mailer, Transaction, World
from services.control.app.tokens import SessionTokens, session_tokens
from services.control.domain.audit import Action, AuditEntry, Origin
from services.control.domain.challenge import (
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
from services.control.domain.email import canonical_email
from services.control.domain.org import User, personal_org_name
from services.control.domain.scopes import Role
from services.control.domain.session import RevokeReason, Session


@dataclass(frozen=True)
class SignInLimits:
    """How often codes may be asked for and tried. Per address: a sign-in gives all of it back."""

    per_address: Rate
    per_network: Rate
    guesses_per_network: Rate


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

    tokens: SessionTokens
    user: User
    session: Session
    new_user: bool


class SignIn:
    """The e-mail-code flow.

    Locks are taken in one order, network bucket, address bucket, challenge, so that no two calls wait for each other.
    The address's bucket thereby also makes two starts for one address happen one after the other.
    """

    def __init__(self, world: World, mailer: Mailer, limits: SignInLimits) -> None:
        self._world = world
        self._mailer = mailer
        self._limits = limits

    async def start(self, email: str, device_id: str, origin: Origin) -> Started:
        """Send a code. The answer is alike for known and unknown addresses: everybody with a mailbox may sign in.

        Raises Refusal `rate_limited` with the wait, `unavailable` when the code could not be handed over.
        """
        address = canonical_email(email)
        code = code_from_number(self._world.entropy.number_below(10**CODE_DIGITS))
        async with self._world.store.transaction() as tx:
            outcome = await self._start(tx, address, device_id, code, origin)
        challenge = settled(outcome)
        try:
            await self._mailer.send_code(address, code, challenge.expires_at)
        except Refusal:
            # Nobody got this code: it must not hold the next one back.
            async with self._world.store.transaction() as tx:
                await tx.challenges.end(challenge.challenge_id, Ended.REPLACED)
            raise
        return Started(challenge.challenge_id, address, challenge.expires_at, RESEND_AFTER)

    async def _start(
        self, tx: Transaction, email: str, device_id: str, code: str, origin: Origin
    ) -> Challenge | Refusal:
        now = self._world.clock.now()
        wait = await tx.rates.take(f"start:net:{origin.network}", self._limits.per_network, now)
        wait = wait or await tx.rates.take(_address_bucket(email), self._limits.per_address, now)
        if wait:
            return _too_often(wait)
        live = await tx.challenges.live(email)
        if wait := resend_wait(live, now):
            return _too_often(wait)
        if live:
            await tx.challenges.end(live.challenge_id, Ended.REPLACED)
        challenge_id = self._world.entropy.new_id("chl")
        hashed = code_hash(self._world.hmac_key, challenge_id, code)
        challenge = Challenge(challenge_id, email, device_id, hashed, now)
        await tx.challenges.add(challenge)
        await tx.audit.add(AuditEntry(Action.CHALLENGE_STARTED, origin, target=email), now)
        return challenge

    async def verify(self, challenge_id: str, code: str, device_id: str, origin: Origin) -> SignedIn:
        """Exchange a code for a session; the first time, the person and its own org are made.

        Raises Refusal `code_incorrect` (metadata `guesses_left`), `challenge_expired`, `too_many_guesses`,
        `rate_limited`.
        """
        async with self._world.store.transaction() as tx:
            outcome = await self._verify(tx, challenge_id, code.strip(), device_id, origin)
        return settled(outcome)

    async def _verify(
        self, tx: Transaction, challenge_id: str, code: str, device_id: str, origin: Origin
    ) -> SignedIn | Refusal:
        now = self._world.clock.now()
        wait = await tx.rates.take(f"guess:net:{origin.network}", self._limits.guesses_per_network, now)
        if wait:
            return _too_often(wait)
        email = await tx.challenges.email_of(challenge_id)
        if email is None:
            return _refused("challenge_expired")
        await tx.rates.lock(_address_bucket(email), now)
        challenge = await tx.challenges.locked(challenge_id)
        if challenge is None:
            return _refused("challenge_expired")
        verdict = judge(challenge, device_id, code_hash(self._world.hmac_key, challenge_id, code), now)
        await tx.challenges.save(verdict.challenge)
        if verdict.reason:
            entry = AuditEntry(Action.SIGNED_IN, origin, target=email, reason=verdict.reason)
            await tx.audit.add(entry, now)
            return _refused(verdict.reason, verdict)
        await tx.rates.reset(_address_bucket(email))
        return await self._signed_in(tx, email, device_id, origin, now)

    async def _signed_in(self, tx: Transaction, email: str, device_id: str, origin: Origin, now: datetime) -> SignedIn:
        user, new_user = await self._person(tx, email, now)
        for old in await tx.sessions.of_device(user.user_id, device_id):
            await tx.sessions.save(old.revoked(RevokeReason.DEVICE_REPLACED, now))
            await tx.audit.add(_replaced(old, origin), now)
        session = Session(
            session_id=self._world.entropy.new_id("ses"),
            user_id=user.user_id,
            org_id=user.org_id,
            device_id=device_id,
            created_at=now,
            refreshed_at=now,
        )
        await tx.sessions.add(session)
        await tx.audit.add(AuditEntry(Action.SIGNED_IN, origin, user.user_id, user.org_id, session.session_id), now)
        # The person's own org has the person as its owner.
        return SignedIn(session_tokens(self._world, session, Role.OWNER), user, session, new_user)

    async def _person(self, tx: Transaction, email: str, now: datetime) -> tuple[User, bool]:
        known = await tx.people.by_email(email)
        if known:
            return known, False
        new_id = self._world.entropy.new_id
        user = User(new_id("usr"), email, new_id("org"))
        await tx.people.add(user, personal_org_name(email), now)
        return user, True


def _address_bucket(email: str) -> str:
    return f"start:address:{email}"


def _too_often(wait: timedelta) -> Refusal:
    seconds = max(1, -(-wait // timedelta(seconds=1)))
    message = f"Too many sign-in attempts; try again in {seconds} s."
    return Refusal("rate_limited", message, retry_after_ms=max(1, -(-wait // timedelta(milliseconds=1))))


def _replaced(old: Session, origin: Origin) -> AuditEntry:
    reason = RevokeReason.DEVICE_REPLACED.value
    return AuditEntry(Action.SESSION_REVOKED, origin, old.user_id, old.org_id, old.session_id, reason)


_MESSAGES = {
    "code_incorrect": "The code is wrong; look at the newest e-mail and try again.",
    "challenge_expired": "This sign-in has expired or was replaced; ask for a new code.",
    "too_many_guesses": "Too many wrong codes; ask for a new one.",
}


def _refused(reason: str, verdict: Verdict | None = None) -> Refusal:
    left = {"guesses_left": str(verdict.guesses_left)} if verdict and reason == "code_incorrect" else {}
    return Refusal(reason, _MESSAGES[reason], field="code" if left else "", metadata=left)
