"""Commands against an edge that answers as the test says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oa_client.edge.calls import DATE_AGE_S, AccessToken, Edge
from oa_client.edge.commands import Commands
from oa_client.edge.tests.answers import answered
from oa_client.transport import HttpAnswer
from openagents.control.v1 import sync_token_service_pb2 as pb

NOW = 1_000_000


class FakeHttp:
    """Mints sync tokens of five minutes."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        answer = pb.MintSyncTokenResponse(token="sync")
        answer.expire_time.FromSeconds(NOW + 300)
        return answered(answer, NOW)

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError


class Signed:
    """One access token."""

    renewed_after = frozenset[str]()

    async def current(self) -> AccessToken:
        return AccessToken("access")

    async def renewed(self, token: AccessToken) -> AccessToken:
        raise NotImplementedError


@pytest.mark.parametrize("wrong_by", [-86_400.0, 0.0, 86_400.0])
async def test_a_sync_token_lives_as_long_as_the_edge_says_whatever_our_clock_shows(wrong_by: float) -> None:
    edge = Edge("http://edge.test", FakeHttp(), "build", now=lambda: NOW + wrong_by)
    grant = await Commands(edge, Signed()).sync_token(["run:x"], surface="sdk")
    assert grant.expires_in_ms == 300_000 - DATE_AGE_S * 1000
