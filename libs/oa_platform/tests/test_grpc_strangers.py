"""What somebody who can reach a gRPC port, and has no identity there, can take up; and for how long."""

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import SERVICE_TOKEN_KEY
from oa_platform.tests.grpc_sample import ECHO, LOOPBACK, SERVER, TOKENS, Request, World, refused, running
from oa_platform.tests.http2_peer import Peer, connected
from oa_testing.waiting import PATIENCE_S

ONE = f"/{ECHO}/one"
TOKEN = (SERVICE_TOKEN_KEY, TOKENS["control"])
WATCH = health_pb2.HealthCheckRequest()


async def _serving(watch: Any) -> bool:
    return bool((await watch.read()).status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("kind", ["one", "down", "up", "both", "nowhere"])
@pytest.mark.parametrize("announced", [0, 8 << 20])
async def test_nothing_is_received_from_strangers(kind: str, announced: int) -> None:
    """They are refused before their request, which may never come, or not as a whole."""
    async with running() as (world, _), connected(world.server.port) as stranger:
        stranger.greet()
        stranger.call(1, f"/{ECHO}/{kind}")
        if announced:
            stranger.begin_message(1, announced, sent=1000)
        assert b"no service token" in await stranger.answer()
        assert world.echo.seen == 0


async def test_a_request_that_is_not_complete_in_time_is_given_up() -> None:
    async with running(replace(SERVER, request_timeout_ms=100)) as (world, stub):
        async with connected(world.server.port) as slow:
            slow.greet()
            slow.call(1, ONE, [TOKEN])
            slow.begin_message(1, 100, sent=99)
            assert b"not complete after 100 ms" in await slow.answer()
        assert (await stub.one(Request(topic="a"))).epoch == "a"


async def test_a_call_that_ends_without_a_request_is_answered() -> None:
    async with running() as (world, _), connected(world.server.port) as peer:
        peer.greet()
        peer.call(1, ONE, [TOKEN], ended=True)
        assert b"ended without a request" in await peer.answer()


async def test_connections_beyond_the_limit_are_closed_and_harm_nobody() -> None:
    async with running(replace(SERVER, max_connections=3)) as (world, stub), AsyncExitStack() as stack:
        assert (await stub.one(Request(topic="a"))).epoch == "a"
        first = [await stack.enter_async_context(connected(world.server.port)) for _ in range(2)]
        for peer in first:
            await _greeted(peer)
        beyond = await stack.enter_async_context(connected(world.server.port))
        await beyond.closed()
        assert (await stub.one(Request(topic="b"))).epoch == "b"


async def _greeted(peer: Peer) -> None:
    """Greet, and wait until the server serves the connection."""
    peer.greet()
    peer.call(1, ONE)
    await peer.answer()


async def test_a_connection_that_does_not_begin_is_closed() -> None:
    world = World(replace(SERVER, handshake_timeout_ms=100))
    async with world.server, connected(world.server.port) as silent:
        await silent.closed()


async def test_a_connection_without_calls_is_closed_and_one_with_a_call_is_not() -> None:
    world = World(replace(SERVER, idle_timeout_ms=1000))
    async with world.server, world.bare_channel() as channel, connected(world.server.port) as idle:
        watch = health_pb2_grpc.HealthStub(channel).Watch(WATCH)
        assert await _serving(watch)
        idle.greet()
        await idle.closed()
        assert not watch.done()


async def test_a_connection_has_a_limited_number_of_calls_and_another_one_has_its_own() -> None:
    async with running(replace(SERVER, max_calls_of_connection=2)) as (world, stub), AsyncExitStack() as stack:
        peer = await stack.enter_async_context(connected(world.server.port))
        peer.greet()
        for stream in (1, 3, 5):
            peer.call(stream, ONE, [TOKEN])
        assert await peer.reset() == 5
        assert (await stub.one(Request(topic="a"))).epoch == "a"


async def test_metadata_up_to_the_limit_is_taken_and_more_is_refused() -> None:
    """gRPC alone would refuse most calls with more than 8 KiB, and some not."""
    async with running() as (_, stub):
        for _attempt in range(20):
            assert (await stub.one(Request(topic="a"), metadata=(("x-much", "m" * 14_000),))).epoch == "a"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.one(Request(topic="a"), metadata=(("x-much", "m" * 16_400),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", ["one", "both", "nowhere"])
async def test_metadata_that_unpacks_to_megabytes_holds_up_nobody(kind: str) -> None:
    """16 KB on the wire. Only to put its values together would take minutes, in which nobody is served."""
    async with running() as (world, stub), connected(world.server.port) as stranger:
        stranger.greet()
        stranger.call(1, f"/{ECHO}/{kind}", repeated=("x-much", "m" * 4000, 12_000))
        await stranger.answer()
        assert (await stub.one(Request(topic="a"))).epoch == "a"


async def test_one_network_watches_health_only_so_often() -> None:
    world = World(replace(SERVER, max_watches_of_network=2))
    async with world.server, world.bare_channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(WATCH) for _ in range(2)]
        for watch in watches:
            assert await _serving(watch)
        assert (await refused(health.Check(WATCH))).reason == "rate_limited"
        watches[0].cancel()
        async with asyncio.timeout(PATIENCE_S):
            while await _is_refused(health):
                pass
        assert not watches[1].done()


async def _is_refused(health: Any) -> bool:
    try:
        await health.Check(WATCH)
    except grpc.aio.AioRpcError:
        return True
    return False


async def test_a_method_that_a_servicer_lacks_is_unknown_and_no_defect() -> None:
    world = World()
    async with world.server, world.bare_channel() as channel:
        got: Refusal = await refused(health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest()))
    assert got.reason == "unknown_method"


async def test_a_port_that_is_scanned_serves_on() -> None:
    async with running() as (world, stub):
        for words in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
            with socket.create_connection((LOOPBACK, world.server.port)) as scanner:
                scanner.sendall(words)
        assert (await stub.one(Request(topic="a"))).epoch == "a"
