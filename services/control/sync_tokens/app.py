"""Minting the tokens that the Khala gateway admits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_khala.grants import parse_grant
from oa_khala.topics import Topic
from oa_platform.tasks.together import Together
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

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mint:
    """A mint of a person, as it was decided: any of `roles` suffices for it, and `entry` records it."""

    principal: StandingPrincipal
    roles: Sequence[Role]
    entry: AuditEntry


class MintStore(Protocol):
    """Records mints of people as they were decided."""

    async def record(self, mints: Sequence[Mint], now: datetime) -> Sequence[datetime | None]:
        """Record those of `mints` whose session still stands and acts in the principal's org, whose org is open, and
        whose person has one of the roles there. Until then, nobody can revoke tokens of these orgs.

        Returns for each when the session ends by itself. None for one that is not recorded: any of this has changed,
        or somebody is revoking tokens of the org.
        """
        ...


class Transaction(sessions_app.Transaction, keys_app.Transaction, Protocol):
    """A transaction with everything that may end before a token does."""

    @property
    def mints(self) -> MintStore: ...


class RunOwnership(Protocol):
    """Asks runtime who owns a run."""

    async def org_of_run(self, principal: StandingPrincipal, run_id: str) -> str | None:
        """Return the org that owns the run; None when there is no such run for `principal`.

        Raises Refusal `unavailable` when runtime can't be asked: an unknown owner is no reason to refuse the topic.
        """
        ...


@dataclass(frozen=True)
class SyncToken:
    """A token, and the decision about each topic, in the order of the request."""

    token: str
    expires_at: datetime
    grants: tuple[Grant, ...]


@dataclass(frozen=True)
class _Recorded:
    """A recorded mint: its grants, its time, and when the session or key that it was made from ends by itself."""

    grants: tuple[Grant, ...]
    at: datetime
    ends: datetime | None


class SyncTokens:
    """Mints sync tokens."""

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
        self._mints = Together(self._record_mints)

    async def mint(
        self, principal: StandingPrincipal, topics: Sequence[str], ttl_seconds: int, surface: Surface, origin: Origin
    ) -> SyncToken:
        """Decide each topic and mint a token for those granted.

        Raises Refusal `invalid_value` for the lifetime, `unavailable` when runtime can't say who owns a run, and the
        reason of the first topic when none was granted.
        """
        ttl = token_ttl(ttl_seconds)
        grants = await self._decide_all(principal, tuple(dict.fromkeys(topics)), surface)
        recorded = await self._record_as_decided(principal, grants, origin) or await self._record_anew(
            principal, grants, origin
        )
        # Refusals are on record, too, and are raised only after that.
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
        # Without the scope, runtime isn't asked about ownership, because the answer would reveal who owns what.
        run_org_id: str | None = principal.org_id
        if grant.required_scope in principal.effective_scopes and isinstance(grant, Topic) and asks_runtime(grant):
            run_org_id = await self._ownership.org_of_run(principal, grant.subject_id)
        return decide(principal, grant, surface, run_org_id)

    async def _record_as_decided(
        self, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin
    ) -> _Recorded | None:
        """Record a mint of a person for whom the decisions still hold, together with others that come at the same time.
        None for other callers, and if something that the decisions depend on may have been revoked meanwhile."""
        if not principal.has_session:
            return None
        mint = Mint(principal, sufficient_roles(grants), _entry(principal, grants, origin))
        at, ends = await self._mints.ask(mint)
        return _Recorded(grants, at, ends) if ends else None

    async def _record_mints(self, mints: Sequence[Mint]) -> Sequence[tuple[datetime, datetime | None]]:
        """Record mints together. Return the time of each, and when its session ends, as `MintStore` does."""
        # Taken before the mints are recorded: a revocation after that has a later time, and so ends the tokens.
        now = self._clock.now()
        try:
            async with self._transactions.autocommit() as tx:
                ends = await tx.mints.record(mints, now)
        except Refusal:
            raise
        except Exception:
            if len(mints) == 1:
                raise
            # One of them is broken. Alone, each of the others can be recorded.
            _log.exception("mints_not_recorded_together", mints=len(mints))
            ends = [None] * len(mints)
        return [(now, one) for one in ends]

    async def _record_anew(self, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin) -> _Recorded:
        """Record a mint with those of `grants` that the caller may still have."""
        async with self._transactions.begin() as tx:
            standing, ends = await self._still(tx, principal)
            now = self._clock.now()
            still = still_granted(grants, principal.scopes & standing)
            await tx.audit.add(_entry(principal, still, origin), now)
        return _Recorded(still, now, ends)

    async def _still(self, tx: Transaction, principal: StandingPrincipal) -> tuple[Scopes, datetime | None]:
        """Return what the caller may do now, and when the session or key behind its token ends (None for one without an
        end). Until the transaction ends, nobody can revoke tokens of the caller's org. Raises Refusal."""
        of_key = is_api_key_id(principal.session_id)
        if principal.session_id and not of_key:
            return await self._sessions.still(tx, principal)
        if not await tx.orgs.held_open(principal.org_id):
            raise org_deleted()
        return await self._api_keys.still(tx, principal) if of_key else (principal.standing, None)


def _entry(principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin) -> AuditEntry:
    reason = next((grant.reason for grant in grants if grant.reason), "")
    return by(principal, Action.SYNC_TOKEN_MINTED, origin, summary(grants), reason)
