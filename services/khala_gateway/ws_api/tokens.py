"""Sync tokens as they come from control."""

from oa_khala.admission import Grant
from oa_platform.tokens import KHALA_AUDIENCE, TokenVerifier
from openagents.control.v1.claims_pb2 import SyncTokenClaims


class SyncTokenVerifier:
    """Implements `SyncTokens` with control's keys."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def verify(self, token: str) -> Grant:
        """What `token` grants. Raises Refusal, as `TokenVerifier.verify` does."""
        claims = await self._verifier.verify(token, SyncTokenClaims, audience=KHALA_AUDIENCE)
        return Grant(
            subject=claims.sub,
            org_id=claims.org_id,
            scopes=frozenset(claims.scopes),
            topics=frozenset(claims.topics),
            session_id=claims.session_id,
            device_id=claims.device_id,
            jti=claims.jti,
            expires_at_ms=claims.exp * 1000,
        )
