"""Signing in with an identity provider.

A sign-in is begun, confirmed on the provider's page, and finished here; each call may reach another replica. The stored
sign-in is used up before the provider is asked, so that a code is exchanged at most once. No transaction is open while
a provider is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from services.control.audit.domain import Action, AuditEntry, Origin
from services.control.mail.domain.address import canonical_email
from services.control.orgs.app import Orgs
from services.control.orgs.domain import User
from services.control.provider_sign_in.domain import (
    Asked,
    Begun,
    Identity,
    ProviderRule,
    Refused,
    asked,
    first_refused,
    may_finish,
    may_redirect,
)
from services.control.provider_sign_in.limits import KEPT_FOR
from services.control.provider_sign_in.metrics import SIGN_INS
from services.control.sessions.app import Sessions
from services.control.sign_in import app as sign_in_app
from services.control.sign_in.app import Invitations, SignedIn, too_often
from services.control.sign_in.domain.shares import address_bucket, guess_shares, network_share
from services.control.sign_in.domain.sign_up import Knock, SignUpRule
from services.control.sign_in.limits import SignInLimits
from services.control.transactions.app import Transactions, settled


class Provider(Protocol):
    """An identity provider."""

    @property
    def label(self) -> str:
        """The name under which people know the provider."""
        ...

    async def authorization_url(self, asked: Asked) -> str:
        """Return the page to open in a browser. Raises Refusal `provider_unavailable`."""
        ...

    async def identity(self, asked: Asked, code: str) -> Identity:
        """Return the identity that the provider gives for the code. Raises Refusal `provider_unavailable`,
        `provider_refused`."""
        ...


class ProviderSignInStore(Protocol):
    """Sign-ins that devices have begun."""

    async def add(self, begun: Begun) -> None:
        """Store a new one."""
        ...

    async def locked(self, sign_in_id: str) -> Begun | None:
        """The sign-in, locked until the transaction ends."""
        ...

    async def use(self, sign_in_id: str, now: datetime) -> None:
        """Record that the sign-in was used."""
        ...

    async def sweep(self, created_before: datetime) -> None:
        """Remove older sign-ins, a limited number at a time."""
        ...


class IdentityStore(Protocol):
    """The people whom providers identify."""

    async def person(self, identity: Identity) -> User | None:
        """Return the person with an identity."""
        ...

    async def add(self, identity: Identity, user_id: str, now: datetime) -> None:
        """Store the person whom a provider identifies."""
        ...


class Transaction(sign_in_app.Transaction, Protocol):
    """A transaction with everything that a sign-in with a provider changes."""

    @property
    def provider_sign_ins(self) -> ProviderSignInStore: ...
    @property
    def identities(self) -> IdentityStore: ...


@dataclass(frozen=True)
class Started:
    """A sign-in that was begun, and the page to open for it."""

    begun: Begun
    authorization_url: str
    state: str


class ProviderSignIn:
    """The sign-in flow of the providers. The secrets of a sign-in are derived from `hmac_key`.

    Locks are taken in one order: sign-in, network's bucket; and later identity's bucket, address's bucket, person.
    """

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        hmac_key: bytes,
        providers: Mapping[str, Provider],
        orgs: Orgs,
        sessions: Sessions,
        limits: SignInLimits,
        sign_up: SignUpRule,
        rule: ProviderRule,
        invitations: Invitations,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._hmac_key = hmac_key
        self._providers = providers
        self._orgs = orgs
        self._sessions = sessions
        self._limits = limits
        self._sign_up = sign_up
        self._rule = rule
        self._invitations = invitations

    def list(self) -> Sequence[tuple[str, str]]:
        """The name and label of each provider."""
        return [(name, provider.label) for name, provider in self._providers.items()]

    @property
    def codes_too(self) -> bool:
        """Whether people can also sign in with a code by mail."""
        return self._rule.codes_too

    async def start(self, name: str, device_id: str, redirect_uri: str, origin: Origin) -> Started:
        """Begin a sign-in. Raises Refusal `not_found`, `invalid_value`, `rate_limited`, `provider_unavailable`."""
        provider = self._provider(name)
        if not may_redirect(self._rule, redirect_uri):
            message = "this installation sends no browser there; give it one of its redirect URLs, letter by letter"
            raise Refusal("invalid_value", message, field="redirect_uri")
        await self._take_share(origin)
        begun = Begun(new_id("psi"), name, device_id, redirect_uri, self._clock.now())
        wanted = asked(self._hmac_key, begun)
        url = await provider.authorization_url(wanted)
        async with self._transactions.begin() as tx:
            await tx.provider_sign_ins.add(begun)
            await tx.audit.add(AuditEntry(Action.PROVIDER_STARTED, origin, target=name), begun.created_at)
        return Started(begun, url, wanted.state)

    async def _take_share(self, origin: Origin) -> None:
        """Limit the sign-ins that a network begins, as for codes and from the same bucket."""
        async with self._transactions.begin() as tx:
            now = self._clock.now()
            shares = (network_share(self._limits, origin.network),)
            if wait := await tx.rates.wait(shares, now):
                raise too_often(wait)
            await tx.rates.take(shares, now)

    def _provider(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if provider is None:
            offered = ", ".join(self._providers) or "a code by e-mail only"
            raise Refusal("not_found", f"there is no such provider here; sign in with: {offered}", field="provider")
        return provider

    async def finish(
        self, sign_in_id: str, device_id: str, state: str, code: str, origin: Origin, refresh_token: str = ""
    ) -> SignedIn:
        """Exchange a provider's code for a session, new or that of the refresh token. At the first sign-in, the person
        and their own org are created.

        Raises Refusal `challenge_expired`, `rate_limited`, `provider_unavailable`, `provider_refused`,
        `account_not_admitted`.
        """
        async with self._transactions.begin() as tx:
            taken = await self._take(tx, sign_in_id, device_id, state, origin)
        begun = settled(taken)
        try:
            identity = await self._provider(begun.provider).identity(asked(self._hmac_key, begun), code)
            signed_in = await self._enter(begun, identity, refresh_token, origin)
        except Refusal as refusal:
            SIGN_INS.labels(begun.provider, refusal.reason).inc()
            if refusal.reason in _NOT_VOUCHED:
                await self._record(begun, origin, refusal.reason)
            raise
        SIGN_INS.labels(begun.provider, "done").inc()
        return signed_in

    async def _take(
        self, tx: Transaction, sign_in_id: str, device_id: str, state: str, origin: Origin
    ) -> Begun | Refusal:
        """Use up the sign-in, and return it."""
        now = self._clock.now()
        begun = await tx.provider_sign_ins.locked(sign_in_id)
        if begun and may_finish(begun, device_id, state, asked(self._hmac_key, begun).state, now):
            await tx.provider_sign_ins.use(sign_in_id, now)
            return begun
        # A client that finishes a sign-in of its own is not held up by earlier attempts from its network.
        shares = guess_shares(self._limits, origin.network)
        if wait := await tx.rates.wait(shares, now):
            return too_often(wait)
        await tx.rates.take(shares, now)
        if begun:
            await tx.audit.add(_finished(begun, origin, "challenge_expired"), now)
        return Refusal("challenge_expired", "this sign-in is over, or is not this device's; start again")

    async def _record(self, begun: Begun, origin: Origin, reason: str) -> None:
        async with self._transactions.autocommit() as tx:
            await tx.audit.add(_finished(begun, origin, reason), self._clock.now())

    async def _enter(self, begun: Begun, identity: Identity, refresh_token: str, origin: Origin) -> SignedIn:
        """Begin or continue a session of the person whom the provider identifies."""
        email = _address(identity)
        invited = bool(email) and await self._invitations.open_for(email)
        async with self._transactions.begin() as tx:
            now = self._clock.now()
            await tx.rates.lock(identity.bucket, now)
            found = await self._person(tx, identity, email, origin, now, invited=invited)
            if not isinstance(found, Refused):
                user, new_user = found
                if await tx.challenges.holds_unblocked(user.email):
                    return await self._signed_in(tx, begun, user, refresh_token, origin, now, new_user=new_user)
                found = Refused.BLOCKED
            await tx.audit.add(_finished(begun, origin, found.value), now)
        raise _not_admitted(found)

    async def _person(
        self, tx: Transaction, identity: Identity, email: str, origin: Origin, now: datetime, *, invited: bool
    ) -> tuple[User, bool] | Refused:
        """Return the person whom the provider identifies, and whether the account is new."""
        if not identity.is_storable:
            return Refused.NO_SUBJECT
        if known := await tx.identities.person(identity):
            return known, False
        if not email:
            return Refused.NO_ADDRESS
        if not identity.email_verified:
            return Refused.NOT_VERIFIED
        # As in each sign-in with a code, so that two accounts for one address can't be created.
        await tx.rates.lock(address_bucket(email), now)
        blocked = await tx.challenges.is_blocked(email)
        knock = Knock(email, known=blocked is not None, blocked=bool(blocked), invited=invited)
        if refused := first_refused(self._sign_up, self._rule, knock):
            return refused
        user, new_user = await self._orgs.person(tx, email, now)
        await tx.identities.add(identity, user.user_id, now)
        await tx.audit.add(AuditEntry(Action.IDENTITY_LINKED, origin, user.user_id, user.org_id, user.user_id), now)
        return user, new_user

    async def _signed_in(
        self,
        tx: Transaction,
        begun: Begun,
        user: User,
        refresh_token: str,
        origin: Origin,
        now: datetime,
        *,
        new_user: bool,
    ) -> SignedIn:
        session = await self._sessions.sign_in(tx, user, begun.device_id, refresh_token, origin, now, new_user=new_user)
        for action, target in (
            (Action.PROVIDER_FINISHED, begun.provider),
            (Action.SIGNED_IN, session.session_id),
        ):
            await tx.audit.add(AuditEntry(action, origin, user.user_id, session.org_id, target), now)
        return SignedIn(self._sessions.tokens(session), user, session, new_user)

    async def sweep(self) -> None:
        """Remove sign-ins that expired long ago."""
        async with self._transactions.autocommit() as tx:
            await tx.provider_sign_ins.sweep(self._clock.now() - KEPT_FOR)


_NOT_VOUCHED = frozenset({"provider_unavailable", "provider_refused"})
"""Refusals by a provider, which are recorded here. The others are recorded where they are decided."""

_MESSAGES = {
    Refused.NO_SUBJECT: "the provider names no account; ask whoever runs this installation",
    Refused.NO_ADDRESS: "the provider gives no e-mail address that can be used; add one there, and start again",
    Refused.NOT_VERIFIED: "the provider has not verified your e-mail address; have it verified there, and start again",
    Refused.NOT_WELCOME: "no account can be used with this address here; ask whoever runs this installation",
    Refused.NOT_LINKED: "your address has an account here that is opened with a code by e-mail; sign in with a code",
}
# A blocked person gets the same message as a stranger.
_MESSAGES[Refused.BLOCKED] = _MESSAGES[Refused.NOT_WELCOME]


def _not_admitted(refused: Refused) -> Refusal:
    return Refusal("account_not_admitted", _MESSAGES[refused])


def _finished(begun: Begun, origin: Origin, reason: str) -> AuditEntry:
    return AuditEntry(Action.PROVIDER_FINISHED, origin, target=begun.provider, reason=reason)


def _address(identity: Identity) -> str:
    """Return the provider's address in our form; empty if it is no address."""
    try:
        return canonical_email(identity.email)
    except Refusal:
        return ""
