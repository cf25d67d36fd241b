"""Minting the tokens that the Khala gateway admits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_khala.topics import parse_topic
from services.control.audit.domain import Action, Origin, by
from services.control.policy.domain import StandingPrincipal
from services.control.sessions.app import Sessions, Transaction
from services.control.sync_tokens.domain import (
    Grant,
    asks_runtime,
    decide_topic,
    granted_topics,
    needed_scopes,
    summary,
    token_expiry,
    token_ttl,
)
from services.control.sync_tokens.limits import MAX_OWNERSHIP_QUESTIONS
from services.control.tokens.app import TokenIssuer
from services.control.transactions.app import Transactions, settled


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


class SyncTokens:
    """The mint."""

    def __init__(
        self,
        transactions: Transactions[Transaction],
        clock: Clock,
        issuer: TokenIssuer,
        sessions: Sessions,
        ownership: RunOwnership,
    ) -> None:
        self._transactions = transactions
        self._clock = clock
        self._issuer = issuer
        self._sessions = sessions
        self._ownership = ownership

    async def mint(
        self, principal: StandingPrincipal, topics: Sequence[str], ttl_seconds: int, surface: str, origin: Origin
    ) -> SyncToken:
        """Decide each topic and mint a token for those granted.

        Raises Refusal `invalid_value` for the lifetime, `unavailable` when runtime can't say who owns a run, and
        with no topic granted the reason of the first.
        """
        ttl = token_ttl(ttl_seconds)
        grants = await self._decide_all(principal, tuple(dict.fromkeys(topics)))
        async with self._transactions.begin() as tx:
            outcome = await self._record(tx, principal, grants, origin)
            session_end = await self._sessions.expiry(tx, principal)
        topics_granted = settled(outcome)
        now = self._clock.now()
        expires_at = token_expiry(ttl, now, session_end)
        scopes = needed_scopes([parse_topic(topic) for topic in topics_granted])
        issued = self._issuer.for_topics(principal, topics_granted, scopes, surface, now, expires_at)
        by_topic = {grant.topic: grant for grant in grants}
        in_order = tuple(by_topic[topic] for topic in topics)
        return SyncToken(issued.token, issued.expires_at, in_order)

    async def _decide_all(self, principal: StandingPrincipal, topics: tuple[str, ...]) -> tuple[Grant, ...]:
        permits = asyncio.Semaphore(MAX_OWNERSHIP_QUESTIONS)

        async def decide(text: str) -> Grant:
            async with permits:
                return await self._decide(principal, text)

        return tuple(await asyncio.gather(*map(decide, topics)))

    async def _decide(self, principal: StandingPrincipal, text: str) -> Grant:
        try:
            topic = parse_topic(text)
        except Refusal as refusal:
            return Grant(text, refusal.reason)
        # Without the scope nobody's ownership is asked about: the answer would tell who owns what.
        if topic.required_scope not in principal.effective_scopes or not asks_runtime(topic):
            return Grant(text, decide_topic(principal, topic, principal.org_id))
        run_org_id = await self._ownership.org_of_run(principal, topic.subject_id)
        return Grant(text, decide_topic(principal, topic, run_org_id))

    async def _record(
        self, tx: Transaction, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin
    ) -> tuple[str, ...] | Refusal:
        reason = next((grant.reason for grant in grants if grant.reason), "")
        entry = by(principal, Action.SYNC_TOKEN_MINTED, origin, summary(grants), reason)
        await tx.audit.add(entry, self._clock.now())
        try:
            return granted_topics(grants)
        except Refusal as refusal:
            return refusal
