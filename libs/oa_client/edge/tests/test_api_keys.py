"""A service account's key and the tokens that it is exchanged for, against an edge that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, cast

import pytest

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_client.edge.api_keys import ApiKeyAccess
from oa_client.edge.calls import ATTEMPTS, AccessToken, Edge
from oa_client.edge.tests.answers import answered, connect_error
from oa_client.transport import HttpAnswer
from oa_testing.waiting import PATIENCE_S
from openagents.control.v1 import service_account_service_pb2 as pb

NOW = 1_000_000.0


class FakeEdge:
    """Exchanges keys for tokens of an hour, until it refuses."""

    def __init__(self) -> None:
        self.asked: list[pb.ExchangeKeyRequest] = []
        self.now = NOW
        self.wrong_by = 0.0
        """By how much the client's clock is ahead."""
        self.refusal: Refusal | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        self.asked.append(pb.ExchangeKeyRequest.FromString(body))
        await asyncio.sleep(0)
        if self.refusal is not None:
            return HttpAnswer(self.refusal.info.http_status, connect_error(self.refusal))
        answer = pb.ExchangeKeyResponse(token=f"token-{len(self.asked)}")
        answer.expire_time.FromSeconds(int(self.now) + 3600)
        return answered(answer, self.now)

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError

    def access(self, key: str = "oak_1") -> ApiKeyAccess:
        return ApiKeyAccess(Edge("http://edge.test", self, "build", now=lambda: self.now + self.wrong_by), lambda: key)


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
    edge.refusal = Refusal("invalid_api_key", "no")
    with pytest.raises(Refusal) as refused:
        await edge.access().current()
    assert refused.value.reason == "invalid_api_key"


async def test_a_call_without_a_token_makes_no_more_attempts_than_one_with_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("oa_client.edge.calls.RETRY", Backoff(first_ms=1, max_ms=1))
    edge = FakeEdge()
    edge.refusal = Refusal("overloaded", "full")
    method, request = "x/Y", pb.ListServiceAccountsRequest()
    calls = Edge("http://edge.test", edge, "build")
    with pytest.raises(Refusal, match="full"):
        await calls.call(method, request, pb.ListServiceAccountsResponse, edge.access(), attempts=ATTEMPTS)
    assert len(edge.asked) == ATTEMPTS


async def test_what_is_kept_is_the_keys_own_and_does_not_tell_it() -> None:
    edge = FakeEdge()
    names = {edge.access(key).namespace for key in ("oak_1", "oak_2", "oak_1")}
    assert len(names) == 2
    assert not any("oak" in name for name in names)


class SilentEdge(FakeEdge):
    """Does not answer the first call."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        if not self.asked:
            self.asked.append(pb.ExchangeKeyRequest.FromString(body))
            await asyncio.get_running_loop().create_future()
        return await super().post(url, body, headers)


def test_a_loop_that_ends_in_the_middle_of_an_exchange_keeps_nobody_waiting_in_the_next_one() -> None:
    access = SilentEdge().access()
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(access.current()) for _ in range(2)]  # the second one waits for the first
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def both() -> tuple[AccessToken, AccessToken]:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(access.current(), access.current())

    assert len(set(asyncio.run(both()))) == 1
    for task in reversed(waiting):  # nothing else ends them
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        cast("Coroutine[Any, Any, object]", task.get_coro()).close()
