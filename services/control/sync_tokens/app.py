"""Minting the tokens that the Khala gateway admits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_khala.grants import parse_grant
from oa_khala.topics import Topic
from services.control.api_keys.app import keys as keys_app
from services.control.api_keys.app.keys import ApiKeys
from services.control.api_keys.domain import is_api_key_id
from services.control.audit.domain import Action, AuditEntry, Origin, by
from services.control.orgs.domain import org_deleted
from services.control.policy.domain import Role, Scopes, StandingPrincipal
from services.control.sessions import app as sessions_app
from services.control.sessions.app import Sessions
from services.control.sync_tokens.domain import (
    Grant,
    Surface,
    asks_runtime,
    decide,
    granted_topics,
    needed_scopes,
    still_granted,
    sufficient_roles,
    summary,
    token_expiry,
    token_ttl,
)
from services.control.sync_tokens.limits import MAX_OWNERSHIP_QUESTIONS
from services.control.tokens.app import TokenIssuer
from services.control.transactions.app import Transactions


class MintStore(Protocol):
    """Mints of people, put on record as they were decided."""

    async def record(
        self, principal: StandingPrincipal, roles: Iterable[Role], entry: AuditEntry, now: datetime
    ) -> datetime | None:
        """Record it if the session stands and acts in the principal's org, which is open, for a person with one of the
        `roles` there. When the session ends by itself; None if something of this has changed: nothing is recorded
        then. Nobody revokes tokens of the org meanwhile."""
        ...


class Transaction(sessions_app.Transaction, keys_app.Transaction, Protocol):
    """A transaction with what may end before a token does."""

    @property
    def mints(self) -> MintStore: ...


class RunOwnership(Protocol):
    """Asks runtime who owns a run."""

    async def org_of_run(self, principal: StandingPrincipal, run_id: str) -> str | None:
        """Org that owns the run, None when there is no such run for `principal`.

        Raises Refusal `unavailable` when runtime can't be asked: not knowing is not a refusal of the topic.
        """
        ...


@dataclass(frozen=True)
class SyncToken:
    """A token, and what was decided of each topic in the order asked."""

    token: str
    expires_at: datetime
    grants: tuple[Grant, ...]


@dataclass(frozen=True)
class _Recorded:
    """A mint that is on record: what it grants, since when, and when what it was made from ends by itself."""

    grants: tuple[Grant, ...]
    at: datetime
    ends: datetime | None


class SyncTokens:
    """The mint."""

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        issuer: TokenIssuer,
        sessions: Sessions,
        api_keys: ApiKeys,
        ownership: RunOwnership,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._issuer = issuer
        self._sessions = sessions
        self._api_keys = api_keys
        self._ownership = ownership

    async def mint(
        self, principal: StandingPrincipal, topics: Sequence[str], ttl_seconds: int, surface: Surface, origin: Origin
    ) -> SyncToken:
        """Decide each topic and mint a token for those granted.

        Raises Refusal `invalid_value` for the lifetime, `unavailable` when runtime can't say who owns a run, and
        with no topic granted the reason of the first.
        """
        ttl = token_ttl(ttl_seconds)
        grants = await self._decide_all(principal, tuple(dict.fromkeys(topics)), surface)
        recorded = await self._record_as_decided(principal, grants, origin) or await self._record_anew(
            principal, grants, origin
        )
        # What was refused is on record, too, and raised only after that.
        granted = [parse_grant(topic) for topic in granted_topics(recorded.grants)]
        scopes, now = needed_scopes(granted), recorded.at
        expires_at = token_expiry(ttl, now, recorded.ends)
        issued = self._issuer.for_topics(principal, granted, scopes, surface, now, expires_at)
        by_topic = {grant.topic: grant for grant in recorded.grants}
        in_order = tuple(by_topic[topic] for topic in topics)
        return SyncToken(issued.token, issued.expires_at, in_order)

    async def _decide_all(
        self, principal: StandingPrincipal, topics: tuple[str, ...], surface: Surface
    ) -> tuple[Grant, ...]:
        permits = asyncio.Semaphore(MAX_OWNERSHIP_QUESTIONS)

        async def decided(text: str) -> Grant:
            async with permits:
                return Grant(text, await self._decide(principal, text, surface))

        return tuple(await asyncio.gather(*map(decided, topics)))

    async def _decide(self, principal: StandingPrincipal, text: str, surface: Surface) -> str | None:
        try:
            grant = parse_grant(text)
        except Refusal as refusal:
            return refusal.reason
        # Without the scope nobody's ownership is asked about: the answer would tell who owns what.
        run_org_id: str | None = principal.org_id
        if grant.required_scope in principal.effective_scopes and isinstance(grant, Topic) and asks_runtime(grant):
            run_org_id = await self._ownership.org_of_run(principal, grant.subject_id)
        return decide(principal, grant, surface, run_org_id)

    async def _record_as_decided(
        self, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin
    ) -> _Recorded | None:
        """Record a mint of a person who may still do what the decisions took; None for others, and when somebody
        revoked meanwhile what they were made on: deciding took its time."""
        if not principal.has_session:
            return None
        # Before it is recorded: whoever revokes after that has a later time, and so ends the token.
        now = self._clock.now()
        async with self._transactions.autocommit() as tx:
            ends = await tx.mints.record(principal, sufficient_roles(grants), _entry(principal, grants, origin), now)
        return _Recorded(grants, now, ends) if ends else None

    async def _record_anew(self, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin) -> _Recorded:
        """Record a mint with what of the grants the caller may still have."""
        async with self._transactions.begin() as tx:
            standing, ends = await self._still(tx, principal)
            now = self._clock.now()
            still = still_granted(grants, principal.scopes & standing)
            await tx.audit.add(_entry(principal, still, origin), now)
        return _Recorded(still, now, ends)

    async def _still(self, tx: Transaction, principal: StandingPrincipal) -> tuple[Scopes, datetime | None]:
        """What the caller may do now, and when the session or key behind its token ends, None for one without an end.
        Until the transaction ends nobody revokes tokens of the caller's org. Raises Refusal."""
        of_key = is_api_key_id(principal.session_id)
        if principal.session_id and not of_key:
            return await self._sessions.still(tx, principal)
        if not await tx.orgs.held_open(principal.org_id):
            raise org_deleted()
        return await self._api_keys.still(tx, principal) if of_key else (principal.standing, None)


def _entry(principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin) -> AuditEntry:
    reason = next((grant.reason for grant in grants if grant.reason), "")
    return by(principal, Action.SYNC_TOKEN_MINTED, origin, summary(grants), reason)
