"""How long a sync token opens a session, whatever the wall clock does."""

from __future__ import annotations

import pytest

from oa_base.identity import ISSUER, KHALA_AUDIENCE, SYNC_CLAIMS_VERSION
from oa_platform.auth.jwks import StaticKeys
from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import TokenVerifier, sign_token
from oa_testing.clock import FakeClock, SkewedClock
from openagents.control.v1.claims_pb2 import SyncTokenClaims
from services.khala_gateway.admission.door import SyncTokenVerifier
from services.khala_gateway.wiring import steady_wall_ms

KEY = generate_key()


@pytest.mark.parametrize("wrong_at_start_ms", [0, 3_600_000, -3_600_000])
async def test_a_clock_that_was_wrong_at_the_start_and_was_mended_ends_no_session(
    clock: FakeClock, wrong_at_start_ms: int
) -> None:
    wrong = [wrong_at_start_ms]
    skewed = SkewedClock(lambda: wrong[0], clock)
    now_ms = steady_wall_ms(skewed)
    tokens = SyncTokenVerifier(TokenVerifier(StaticKeys([KEY.public_key]), skewed), skewed, now_ms)
    wrong[0] = 0
    await clock.advance(60)
    now = int(clock.time())
    claims = SyncTokenClaims(iss=ISSUER, sub="usr_1", aud=KHALA_AUDIENCE, iat=now, nbf=now, exp=now + 300, jti="j")
    claims.claims_version = SYNC_CLAIMS_VERSION
    grant = await tokens.verify(sign_token(claims, KEY))
    assert grant.expires_at_ms - now_ms() == pytest.approx(300_000, abs=2)
