"""Sync tokens as they come from control."""

from collections.abc import Callable
from functools import lru_cache

from oa_base.clock import Clock
from oa_base.identity import KHALA_AUDIENCE
from oa_khala.grants import GrantClaims, read_claims
from oa_khala.server.admission import Grant
from oa_platform.auth.tokens import TokenVerifier, issued_s
from openagents.control.v1.claims_pb2 import SyncTokenClaims

_REMEMBERED_SCOPES = 256


class SyncTokenVerifier:
    """Implements `SyncTokens` with control's keys.

    Sessions use `now_ms`, which never steps. So by `now_ms` a grant ends after the same time as its token does by the
    wall clock, and no session ends because a wall clock that was wrong at the gateway's start was corrected.
    """

    def __init__(self, verifier: TokenVerifier, clock: Clock, now_ms: Callable[[], int]) -> None:
        self._verifier = verifier
        self._clock = clock
        self._now_ms = now_ms

    async def verify(self, token: str) -> Grant:
        """The grant of `token`. Raises Refusal as `TokenVerifier.verify` does, and `invalid_token` for other claims."""
        claims = await self._verifier.verify(token, SyncTokenClaims, audience=KHALA_AUDIENCE)
        ids = {grant.form: grant.ids for grant in claims.grants}
        grants = read_claims(GrantClaims(claims.claims_version, claims.topics, ids))
        return Grant(
            subject=claims.sub,
            org_id=claims.org_id,
            scopes=_scopes(tuple(claims.scopes)),
            topics=grants.topics,
            session_id=claims.session_id,
            device_id=claims.device_id,
            jti=claims.jti,
            expires_at_ms=claims.exp * 1000 - self._clock.now_ms() + self._now_ms(),
            issued_s=issued_s(claims),
            all_of=grants.all_of,
        )


@lru_cache(maxsize=_REMEMBERED_SCOPES)
def _scopes(given: tuple[str, ...]) -> frozenset[str]:
    """One set for all tokens with the same scopes, as most have: each connection keeps its own grant."""
    return frozenset(given)
