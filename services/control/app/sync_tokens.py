"""Minting the tokens that the Khala gateway admits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from oa_base.refusal import Refusal
from oa_khala.topics import Topic, parse_topic
from services.control.app.outcome import settled
from services.control.app.ports import RunOwnership, Transaction, World
from services.control.domain.audit import Action, Origin, by
from services.control.domain.claims import sync_claims
from services.control.domain.principal import StandingPrincipal
from services.control.domain.sync_token import (
    Grant,
    asks_runtime,
    decide_topic,
    granted_topics,
    needed_scopes,
    token_expiry,
    token_ttl,
)

MAX_OWNERSHIP_QUESTIONS = 16
"""Most questions to runtime at a time on behalf of one mint."""


@dataclass(frozen=True)
class SyncToken:
    """A token, and what was decided of each topic in the order asked."""

    token: str
    expires_at: datetime
    grants: tuple[Grant, ...]


class SyncTokens:
    """The mint."""

    def __init__(self, world: World, ownership: RunOwnership) -> None:
        self._world = world
        self._ownership = ownership

    async def mint(
        self, principal: StandingPrincipal, topics: Sequence[str], ttl_seconds: int, surface: str, origin: Origin
    ) -> SyncToken:
        """Decide each topic and mint a token for those granted.

        Raises Refusal `invalid_value` for the lifetime, `unavailable` when runtime can't say who owns a run, and
        with no topic granted the reason of the first.
        """
        ttl = token_ttl(ttl_seconds)
        grants = await self._decide_all(principal, tuple(dict.fromkeys(topics)), origin)
        async with self._world.store.transaction() as tx:
            outcome = await self._record(tx, principal, grants, origin)
            session_end = await self._session_end(tx, principal)
        topics_granted = settled(outcome)
        now = self._world.clock.now()
        expires_at = token_expiry(ttl, now, session_end)
        scopes = needed_scopes([parse_topic(topic) for topic in topics_granted])
        jti = self._world.entropy.new_id("tok")
        claims = sync_claims(principal, topics_granted, scopes, surface, jti, now, expires_at)
        by_topic = {grant.topic: grant for grant in grants}
        in_order = tuple(by_topic[topic] for topic in topics)
        return SyncToken(self._world.signer.sign(claims), expires_at, in_order)

    async def _decide_all(
        self, principal: StandingPrincipal, topics: tuple[str, ...], origin: Origin
    ) -> tuple[Grant, ...]:
        permits = asyncio.Semaphore(MAX_OWNERSHIP_QUESTIONS)

        async def decide(text: str) -> Grant:
            async with permits:
                return await self._decide(principal, text, origin)

        return tuple(await asyncio.gather(*map(decide, topics)))

    async def _decide(self, principal: StandingPrincipal, text: str, origin: Origin) -> Grant:
        try:
            topic = parse_topic(text)
        except Refusal as refusal:
            return Grant(text, refusal.reason)
        # Without the scope nobody's ownership is asked about: the answer would tell who owns what.
        if topic.required_scope not in principal.effective_scopes or not asks_runtime(topic):
            return Grant(text, decide_topic(principal, topic, principal.org_id))
        return Grant(text, decide_topic(principal, topic, await self._run_org(principal, topic, origin)))

    async def _run_org(self, principal: StandingPrincipal, topic: Topic, origin: Origin) -> str | None:
        return await self._ownership.org_of_run(principal, topic.subject_id, origin)

    async def _record(
        self, tx: Transaction, principal: StandingPrincipal, grants: tuple[Grant, ...], origin: Origin
    ) -> tuple[str, ...] | Refusal:
        now = self._world.clock.now()
        entry = by(principal, Action.SYNC_TOKEN_MINTED, origin)
        for grant in grants:
            await tx.audit.add(replace(entry, target=grant.topic, reason=grant.reason or ""), now)
        try:
            return granted_topics(grants)
        except Refusal as refusal:
            return refusal

    async def _session_end(self, tx: Transaction, principal: StandingPrincipal) -> datetime | None:
        if not principal.session_id:
            return None
        standing = await tx.sessions.standing(principal.session_id)
        return standing[0].expires_at if standing else None
