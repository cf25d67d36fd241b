"""Exchanging an API key, against an edge that answers as the test says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_testing.peers.forward_proxy import ForwardProxy
from oa_testing.peers.listener import Listener
from oa_testing.waiting import PATIENCE_S
from oa_wire.status import to_status
from oa_worker.sdk.transport import tokens
from oa_worker.sdk.transport.tokens import ApiKeyTokens, may_pass
from oa_worker.sdk.transport.way import Way
from oa_worker.tests.fake_edge import KEY, edge, granted
from openagents.control.v1 import service_account_service_pb2 as pb


async def test_a_key_becomes_a_worker_token() -> None:
    with edge(200, granted(), formatdate(time.time(), usegmt=True)) as (url, seen):
        token = await ApiKeyTokens(url + "/", KEY).get()
        elsewhere = await ApiKeyTokens(url, KEY, runtime_address="other:1").get()
    assert (token.token, token.runtime_address, elsewhere.runtime_address) == ("token", "127.0.0.1:9081", "other:1")
    assert 590 < token.lifetime_s <= 601  # a date has whole seconds
    assert pb.ExchangeKeyRequest.FromString(seen[0]) == pb.ExchangeKeyRequest(api_key=KEY, use=pb.TOKEN_USE_WORKER)


@pytest.mark.parametrize("skew_s", [-7200, 7200])
async def test_how_long_a_token_lives_needs_no_clock_of_the_workers(skew_s: float) -> None:
    control_now_s = time.time() + skew_s
    response = pb.ExchangeKeyResponse(token="token", runtime_grpc_address="127.0.0.1:9081")
    response.expire_time.FromSeconds(int(control_now_s) + 600)
    with edge(200, response.SerializeToString(), formatdate(control_now_s, usegmt=True)) as (url, _):
        assert 599 <= (await ApiKeyTokens(url, KEY).get()).lifetime_s <= 601


async def test_a_refusal_comes_through_and_holds_no_key() -> None:
    refusal = Refusal("invalid_api_key", "The key is unknown or revoked.")
    details = [
        {"type": each.type_url.rpartition("/")[2], "value": base64.b64encode(each.value).decode()}
        for each in to_status(refusal).details
    ]
    body = json.dumps({"code": "unauthenticated", "message": refusal.message, "details": details}).encode()
    with edge(401, body) as (url, _), pytest.raises(Refusal) as caught:
        await ApiKeyTokens(url, KEY).get()
    assert caught.value.reason == "invalid_api_key"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"<html>", granted(token=""), granted(address="")], ids=["no JSON", "no token", "no address"]
)
async def test_what_is_no_control_plane_is_said(body: bytes) -> None:
    with edge(200, body) as (url, _), pytest.raises(Refusal) as caught:
        await ApiKeyTokens(url, KEY).get()
    assert caught.value.reason == "unavailable"


async def test_the_page_of_a_proxy_is_no_token() -> None:
    with edge(200, granted(), content_type="text/html") as (url, _), pytest.raises(Refusal) as caught:
        await ApiKeyTokens(url, KEY).get()
    assert (caught.value.reason, "did not answer as control does" in caught.value.message) == ("unavailable", True)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_proxy_that_lets_nobody_in_says_nothing_about_the_key(status: int) -> None:
    with edge(status, b"<html>Sign in</html>", content_type="text/html") as (url, _), pytest.raises(Refusal) as caught:
        await ApiKeyTokens(url, KEY).get()
    assert may_pass(caught.value), caught.value


async def test_an_edge_that_is_not_there() -> None:
    with edge(200, b"") as (url, _):
        pass
    with pytest.raises(Refusal) as caught:
        await ApiKeyTokens(url, KEY).get()
    assert (caught.value.reason, KEY in caught.value.message) == ("unavailable", False)


async def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "EXCHANGE_TIMEOUT_S", 0.5)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)

    async with Listener(drip) as server, asyncio.timeout(PATIENCE_S):
        with pytest.raises(Refusal) as caught:
            await ApiKeyTokens(f"http://127.0.0.1:{server.port}", KEY).get()
    assert caught.value.reason == "unavailable"


async def test_loopback_is_reached_past_every_proxy(dead_proxies: dict[str, str]) -> None:
    with edge(200, granted()) as (url, _):
        assert (await ApiKeyTokens(url, KEY, proxy="http://127.0.0.1:9").get()).token == "token"


async def test_a_site_elsewhere_is_reached_through_the_proxy_that_was_set(dead_proxies: dict[str, str]) -> None:
    async with ForwardProxy().running() as proxy:
        with edge(200, granted()) as (url, _):
            site = url.replace("127.0.0.1", "control.example")
            assert (await ApiKeyTokens(site, KEY, proxy=proxy.url).get()).token == "token"
    assert proxy.asked == [f"POST {site}/openagents.control.v1.ServiceAccountService/ExchangeKey"]


async def test_an_error_names_the_proxy_and_not_its_password(dead_proxies: dict[str, str]) -> None:
    with pytest.raises(Refusal, match=r"through the proxy http://127\.0\.0\.1:9 ") as caught:
        await ApiKeyTokens("http://control.example", KEY, proxy="http://user:secret@127.0.0.1:9").get()
    assert "secret" not in caught.value.message
    with pytest.raises(Refusal, match=r"without a proxy .https_proxy is not used"):
        await ApiKeyTokens("http://control.invalid", KEY).get()


def test_a_proxy_without_a_port_is_the_same_one_for_http_and_for_grpc() -> None:
    way = Way("http://proxy.example", "runtime.example")
    assert (way.proxy, way.words) == ("http://proxy.example:80", " through the proxy http://proxy.example:80")
    assert ("grpc.http_proxy", way.proxy) in way.channel_options()


async def test_a_key_that_was_rotated_in_its_file_is_taken_from_there(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with edge(200, granted()) as (url, seen):
        source = ApiKeyTokens(url, KEY, api_key_file=file)
        await source.get()
        file.write_text("oak_next\n", "utf-8")
        await source.get()
    assert [pb.ExchangeKeyRequest.FromString(body).api_key for body in seen] == [KEY, "oak_next"]
