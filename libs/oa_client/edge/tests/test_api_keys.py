"""A service account's key and the tokens that it is exchanged for, against an edge that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formatdate

import pytest

from oa_base.refusal import Refusal
from oa_client.edge.api_keys import ApiKeyAccess
from oa_client.edge.calls import AccessToken, Edge
from oa_client.edge.tests.answers import connect_error
from oa_client.transport import HttpAnswer
from openagents.control.v1 import service_account_service_pb2 as pb

NOW = 1_000_000.0


class FakeEdge:
    """Exchanges keys for tokens of an hour, until it refuses."""

    def __init__(self) -> None:
        self.asked: list[pb.ExchangeKeyRequest] = []
        self.now = NOW
        self.wrong_by = 0.0
        """By how much the client's clock is ahead."""
        self.refusing = False

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        self.asked.append(pb.ExchangeKeyRequest.FromString(body))
        await asyncio.sleep(0)
        if self.refusing:
            return HttpAnswer(401, connect_error(Refusal("invalid_api_key", "no")))
        answer = pb.ExchangeKeyResponse(token=f"token-{len(self.asked)}")
        answer.expire_time.FromSeconds(int(self.now) + 3600)
        return HttpAnswer(200, answer.SerializeToString(), {"date": formatdate(self.now, usegmt=True)})

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError

    def access(self, key: str = "oak_1") -> ApiKeyAccess:
        return ApiKeyAccess(Edge("http://edge.test", self, "build", now=lambda: self.now + self.wrong_by), key)


async def test_a_key_is_exchanged_once_for_all_who_wait() -> None:
    edge = FakeEdge()
    access = edge.access()
    assert set(await asyncio.gather(*(access.current() for _ in range(5)))) == {AccessToken("token-1")}
    assert edge.asked == [pb.ExchangeKeyRequest(api_key="oak_1", use=pb.TOKEN_USE_EDGE)]


async def test_a_token_that_has_expired_or_was_rejected_is_made_anew() -> None:
    edge = FakeEdge()
    access = edge.access()
    assert await access.current() == AccessToken("token-1")
    assert set(await asyncio.gather(*(access.renewed(AccessToken("token-1")) for _ in range(2)))) == {
        AccessToken("token-2")
    }
    edge.now += 3600
    assert await access.current() == AccessToken("token-3")


@pytest.mark.parametrize("wrong_by", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_wrong_makes_no_token_older_than_it_is(wrong_by: float) -> None:
    edge = FakeEdge()
    edge.wrong_by = wrong_by
    access = edge.access()
    assert [await access.current() for _ in range(3)] == [AccessToken("token-1")] * 3
    edge.now += 3600
    assert await access.current() == AccessToken("token-2")


async def test_a_revoked_key_is_refused() -> None:
    edge = FakeEdge()
    edge.refusing = True
    with pytest.raises(Refusal) as refused:
        await edge.access().current()
    assert refused.value.reason == "invalid_api_key"


async def test_what_is_kept_is_the_keys_own_and_does_not_tell_it() -> None:
    edge = FakeEdge()
    names = {edge.access(key).namespace for key in ("oak_1", "oak_2", "oak_1")}
    assert len(names) == 2
    assert not any("oak" in name for name in names)
