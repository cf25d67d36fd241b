"""Signing in with a code sent by e-mail."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.audit.domain import Action, AuditEntry, Origin, address_digest
from services.control.mail import app as mail_app
from services.control.mail.domain.address import canonical_email
from services.control.mail.domain.letters import Kind, Letter, Mail
from services.control.orgs import app as orgs_app
from services.control.orgs.domain import User
from services.control.sessions import app as sessions_app
from services.control.sessions.domain import Session
from services.control.sign_in.domain.challenge import (
    RESEND_AFTER,
    Challenge,
    Ended,
    Party,
    Verdict,
    code_hash,
    code_of,
    judge,
    resend_wait,
)
from services.control.sign_in.domain.letter import code_letter, refused_letter
from services.control.sign_in.domain.shares import Share, address_bucket, address_buckets, guess_shares, shares_of
from services.control.sign_in.domain.sign_up import Knock, SignUpRule, is_welcome
from services.control.sign_in.limits import CHALLENGES_KEPT_FOR, SignInLimits
from services.control.transactions.app import Transactions, settled


class Invitations(Protocol):
    """Knows which addresses have been invited."""

    async def open_for(self, address: str) -> bool:
        """Whether an invitation is open for the canonical address. It takes the same time for every address."""
        ...


class ChallengeStore(Protocol):
    """Sign-in codes."""

    async def is_blocked(self, email: str) -> bool | None:
        """Whether the person with the address is blocked; None for an address without a person."""
        ...

    async def holds_unblocked(self, email: str) -> bool:
        """Whether nobody with the address is blocked. Until the transaction ends, nobody with it can be blocked."""
        ...

    async def live(self, email: str, device_id: str) -> Challenge | None:
        """The newest challenge of the address and device that has not ended (it may have expired), locked."""
        ...

    async def party(self, challenge_id: str) -> Party | None:
        """Return the party that began a challenge, without locking the challenge."""
        ...

    async def locked(self, challenge_id: str) -> Challenge | None:
        """The challenge, locked until the transaction ends."""
        ...

    async def add(self, challenge: Challenge) -> None:
        """Store a new challenge."""
        ...

    async def save(self, challenge: Challenge) -> None:
        """Store the challenge's guesses and end."""
        ...

    async def end(self, challenge_id: str, ended: Ended) -> None:
        """End the challenge, unless it has ended."""
        ...

    async def sweep(self, created_before: datetime) -> None:
        """Remove older challenges, a limited number at a time."""
        ...


class RateStore(Protocol):
    """Rate limits, shared by all replicas."""

    async def wait(self, shares: Sequence[Share], now: datetime) -> timedelta:
        """Return how long until all of `shares` have room; zero if they have it now. Locks the buckets, in this order,
        until the transaction ends, and takes nothing."""
        ...

    async def take(self, shares: Sequence[Share], now: datetime) -> None:
        """Take one from each share. There is room, because `wait` has said so in this transaction."""
        ...

    async def lock(self, bucket: str, now: datetime) -> None:
        """Lock the bucket until the transaction ends, taking nothing."""
        ...

    async def reset(self, bucket: str) -> None:
        """Give back all of the bucket's room."""
        ...

    async def sweep(self, now: datetime) -> None:
        """Remove buckets that are empty again, a limited number at a time."""
        ...


class Transaction(orgs_app.PeopleTransaction, sessions_app.Transaction, mail_app.Transaction, Protocol):
    """A transaction with everything that a sign-in changes."""

    @property
    def challenges(self) -> ChallengeStore: ...
    @property
    def rates(self) -> RateStore: ...


@dataclass(frozen=True)
class Started:
    """A challenge whose code is on its way."""

    challenge_id: str
    email: str
    expires_at: datetime
    resend_after: timedelta


@dataclass(frozen=True)
class SignedIn:
    """The session of a person who has signed in: a new one, or the one before."""

    tokens: sessions_app.SessionTokens
    user: User
    session: Session
    new_user: bool


class SignIn:
    """The e-mail-code flow. `hmac_key` makes and hashes codes. `instead`: the providers that people have to sign in
    with if codes are turned off.

    Locks are taken in one order, so that no two calls wait for each other: the network's bucket, the address's bucket,
    the address's buckets for networks and devices, the challenge. The lock on the address's bucket also makes two
    starts for one address happen one after the other.
    """

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        hmac_key: bytes,
        orgs: orgs_app.Orgs,
        sessions: sessions_app.Sessions,
        limits: SignInLimits,
        mail_waits: Callable[[], None],
        sign_up: SignUpRule,
        invitations: Invitations,
        instead: Sequence[str] = (),
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._hmac_key = hmac_key
        self._orgs = orgs
        self._sessions = sessions
        self._limits = limits
        self._mail_waits = mail_waits
        self._sign_up = sign_up
        self._invitations = invitations
        self._instead = instead

    async def start(self, email: str, device_id: str, origin: Origin) -> Started:
        """Queue a code for delivery. The answer looks the same for known and unknown addresses and takes the same work.

        Raises Refusal `rate_limited` with the wait; `unknown_method` where codes are turned off.
        """
        self._require_codes()
        address = canonical_email(email)
        invited = await self._invitations.open_for(address)
        async with self._transactions.begin() as tx:
            outcome = await self._start(tx, address, device_id, origin, invited=invited)
        challenge = settled(outcome)
        self._mail_waits()
        return Started(challenge.challenge_id, address, challenge.expires_at, RESEND_AFTER)

    async def _start(
        self, tx: Transaction, email: str, device_id: str, origin: Origin, *, invited: bool
    ) -> Challenge | Refusal:
        now = self._clock.now()
        known = await tx.sessions.known_device(email, device_id)
        shares = shares_of(self._limits, email, device_id, origin.network, known_device=known)
        if known:
            await tx.rates.lock(address_bucket(email), now)
        wait = await tx.rates.wait(shares, now)
        live = await tx.challenges.live(email, device_id)
        wait = max(wait, resend_wait(live, now))
        if wait:
            return too_often(wait)
        await tx.rates.take(shares, now)
        if live:
            await tx.challenges.end(live.challenge_id, Ended.REPLACED)
            await tx.mail.drop(live.challenge_id)
        blocked = await tx.challenges.is_blocked(email)
        knock = Knock(email, known=blocked is not None, blocked=bool(blocked), invited=invited)
        return await self._add(tx, knock, device_id, origin, now)

    async def _add(self, tx: Transaction, knock: Knock, device_id: str, origin: Origin, now: datetime) -> Challenge:
        """Add a challenge. For a person who isn't welcome, no code fits it, and the letter is a different one."""
        challenge_id, email, welcome = new_id("chl"), knock.email, is_welcome(self._sign_up, knock)
        fitting = code_of(self._hmac_key, challenge_id)  # computed even if unused, so that the work is the same
        code = fitting if welcome else secrets.token_hex()
        hashed = code_hash(self._hmac_key, challenge_id, code)
        kind = Kind.SIGN_IN_CODE if welcome else Kind.SIGN_IN_REFUSED
        challenge = Challenge(challenge_id, email, device_id, hashed, now)
        await tx.challenges.add(challenge)
        await tx.mail.add(Mail(new_id("mal"), kind, email, challenge_id, challenge.expires_at), now)
        reason = "" if welcome else "not_welcome"
        digest = address_digest(self._hmac_key, email)
        await tx.audit.add(AuditEntry(Action.CHALLENGE_STARTED, origin, target=digest, reason=reason), now)
        return challenge

    def letter(self, mail: Mail) -> Letter:
        """The letter with the code of the challenge that the mail is about."""
        return code_letter(mail, code_of(self._hmac_key, mail.about))

    def refusal(self, mail: Mail) -> Letter:
        """The letter to a person who is not welcome. It takes the same work as `letter`, because a guess that is
        checked meanwhile must not take less time."""
        code_of(self._hmac_key, mail.about)
        return refused_letter(mail)

    async def verify(
        self, challenge_id: str, code: str, device_id: str, origin: Origin, refresh_token: str = ""
    ) -> SignedIn:
        """Exchange a code for a session: a new one, or that of the refresh token. The first sign-in creates the person
        and their own org.

        Raises Refusal `code_incorrect` (metadata `guesses_left`), `challenge_expired`, `too_many_guesses`,
        `rate_limited`, `unknown_method` where codes are turned off.
        """
        self._require_codes()
        async with self._transactions.begin() as tx:
            outcome = await self._verify(tx, challenge_id, code.strip(), device_id, origin, refresh_token)
        return settled(outcome)

    def _require_codes(self) -> None:
        """Refuse if codes are turned off. Called before any lookup, so that every address gets the same answer."""
        if self._instead:
            names = ",".join(self._instead)
            message = f"codes by mail are turned off here; sign in with a provider: {names}"
            raise Refusal("unknown_method", message, metadata={"providers": names})

    async def _verify(
        self, tx: Transaction, challenge_id: str, code: str, device_id: str, origin: Origin, refresh_token: str
    ) -> SignedIn | Refusal:
        now = self._clock.now()
        party = await tx.challenges.party(challenge_id)
        if party is None or party.device_id != device_id:
            # A device that brings its own challenge has that challenge's guesses, however much its network has tried.
            shares = guess_shares(self._limits, origin.network)
            if wait := await tx.rates.wait(shares, now):
                return too_often(wait)
            await tx.rates.take(shares, now)
        if party is None:
            return _refusal_for("challenge_expired")
        await tx.rates.lock(address_bucket(party.email), now)
        challenge = await tx.challenges.locked(challenge_id)
        if challenge is None:
            return _refusal_for("challenge_expired")
        verdict = judge(challenge, device_id, code_hash(self._hmac_key, challenge_id, code), now)
        await tx.challenges.save(verdict.challenge)
        if verdict.reason:
            await tx.audit.add(self._refused(party.email, origin, verdict.reason), now)
            return _refusal_for(verdict.reason, verdict)
        if not await tx.challenges.holds_unblocked(party.email):
            await tx.audit.add(self._refused(party.email, origin, "blocked"), now)
            return _refusal_for("challenge_expired")
        for bucket in address_buckets(party.email, device_id, origin.network):
            await tx.rates.reset(bucket)
        await tx.mail.drop(challenge_id)
        return await self._signed_in(tx, party.email, device_id, refresh_token, origin, now)

    def _refused(self, email: str, origin: Origin, reason: str) -> AuditEntry:
        digest = address_digest(self._hmac_key, email)
        return AuditEntry(Action.SIGNED_IN, origin, target=digest, reason=reason)

    async def _signed_in(
        self, tx: Transaction, email: str, device_id: str, refresh_token: str, origin: Origin, now: datetime
    ) -> SignedIn:
        user, new_user = await self._orgs.person(tx, email, now)
        session = await self._sessions.sign_in(tx, user, device_id, refresh_token, origin, now, new_user=new_user)
        await tx.audit.add(AuditEntry(Action.SIGNED_IN, origin, user.user_id, session.org_id, session.session_id), now)
        return SignedIn(self._sessions.tokens(session), user, session, new_user)

    async def sweep(self) -> None:
        """Remove rate-limit buckets that are empty again, and challenges that are long over."""
        now = self._clock.now()
        async with self._transactions.autocommit() as tx:
            await tx.rates.sweep(now)
            await tx.challenges.sweep(now - CHALLENGES_KEPT_FOR)


def too_often(wait: timedelta) -> Refusal:
    """The refusal for a caller that has used up its share."""
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
